"""Ops on one value at a time, as calls of our own kernels. Its one rule: tables are the graph's integers, as they are."""

from __future__ import annotations

from toolchain.ir import ops

from .builder import Builder, Value, elements
from .layers import Int, Table


def requantize(b: Builder, op: ops.Requantize, x: Value) -> Value:
    rounding, result = op.rounding.value, Int.of(op.output.qtype)
    return b.requantize(x, result, op.multiplier, op.offset, op.shift, op.output_offset, rounding, op.clamp)


def threshold(b: Builder, op: ops.Threshold, x: Value) -> Value:
    ladder, levels = op.thresholds.array, op.levels.array
    numbers = elements(x.shape) | {"ladders": len(ladder), "level_rows": len(levels)}
    rungs, values = ladder.ravel().tolist(), levels.ravel().tolist()
    if not rungs:  # C++ has no empty arrays: one rung, the same level below and above it
        rungs, values = [0] * len(ladder), [v for v in values for _ in range(2)]
    count = len(rungs) // len(ladder)
    numbers |= {"thresholds": count, "steps": count.bit_length()}
    tables = {"ladder": Table.of(rungs, signed=True), "levels": Table.of(values)}
    return b.add("NnThreshold", [x], op.output.shape, Int.of(op.output.qtype), numbers=numbers, tables=tables)


def lookup(b: Builder, op: ops.Lookup, x: Value) -> Value:
    table = Table.of(op.table.array.tolist())
    numbers = elements(x.shape) | {"first": op.input.qtype.min, "entries": len(table.values)}
    return b.add("NnLookup", [x], op.output.shape, Int.of(op.output.qtype), numbers=numbers, tables={"table": table})


def argmax(b: Builder, op: ops.ArgMax, x: Value) -> Value:
    return b.add("NnArgMax", [x], op.output.shape, Int.of(op.output.qtype), numbers=elements(x.shape))
