"""check(graph): every rule of the IR, run after load and after each pass. What passes here cannot overflow or be misread."""

from __future__ import annotations

import re

import numpy as np

from toolchain.errors import GraphError

from . import ops
from .geometry import output_shape
from .graph import Graph
from .ops import Op, consts_of, inputs_of, where
from .ranges import Range, held_range, output_range, type_range
from .scales import output_scales, same_scales
from .types import Const, Tensor

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_LOOKUP_BITS = 12
MAX_SHIFT = 62
MAX_MULTIPLIER = (1 << 47) - 1
MAX_SOFTMAX = 4095  # terms of 2**19 whose sum is below 2**31
ENTRIES16 = 513  # of both tables of a Softmax16: one for each 128 values of 16 bits, and the last line's end
MAX_TABLE = 1 << MAX_LOOKUP_BITS  # lines between entries
ONE = (1 << 31) - 1  # as near as Q0.31 comes to 1


def check(graph: Graph) -> Graph:
    """The graph itself, or GraphError naming the op and the rule that it breaks."""
    check_with_ranges(graph)
    return graph


def check_with_ranges(graph: Graph) -> dict[str, Range]:
    """As `check`; returns the value range of every data tensor by name."""
    _name("graph", graph.name)
    for note in graph.notes:
        if len(note.splitlines()) > 1 or note != note.strip() or not note.isprintable():
            raise GraphError(f"graph {graph.name}", f"note {note[:40]!r} must be one line of printable text")
    defined: dict[str, Tensor] = {}
    ranges: dict[str, Range] = {}
    consts: dict[str, Const] = {}

    def define(tensor: Tensor, at: str) -> None:
        _name(at, tensor.name)
        if tensor.name in defined or tensor.name in consts:
            raise GraphError(at, f"%{tensor.name} is defined twice")
        _tensor(at, tensor)
        if tensor.qtype.axis not in (None, len(tensor.shape) - 1):
            raise GraphError(at, f"has scales along axis {tensor.qtype.axis}, must be along the last")
        defined[tensor.name] = tensor

    def use_const(const: Const, at: str) -> None:
        _name(at, const.tensor.name)
        if const.tensor.name in defined or consts.get(const.tensor.name, const) != const:
            raise GraphError(at, f"%{const.tensor.name} is defined twice")
        if const.tensor.name not in consts:
            _const(const)
        consts[const.tensor.name] = const

    if not graph.inputs or not graph.outputs:
        raise GraphError(f"graph {graph.name}", "must have at least one input and one output")
    for tensor in (*graph.inputs, *(s.input for s in graph.states)):
        define(tensor, f"input %{tensor.name}")
        ranges[tensor.name] = type_range(tensor)
    for op in graph.ops:
        at = where(op)
        for tensor in inputs_of(op):
            if tensor.name not in defined:
                raise GraphError(at, f"reads %{tensor.name}, which is not defined before it")
            if defined[tensor.name] != tensor:
                raise GraphError(at, f"reads %{tensor.name} as another type or shape than it was defined with")
        for const in consts_of(op):
            use_const(const, at)
        check_op(op, ranges)
        define(op.output, at)
        ranges[op.output.name] = output_range(op, ranges)
        lo, hi = held_range(op, ranges)
        qtype = op.output.qtype
        if lo < qtype.min or hi > qtype.max:
            raise GraphError(
                at,
                f"values {lo}..{hi} do not fit {qtype.text} ({qtype.min}..{qtype.max}); widen it or lower the weight bits",
            )
    for tensor in graph.outputs:
        if defined.get(tensor.name) != tensor:
            raise GraphError(f"output %{tensor.name}", "is never defined with this type and shape")
    if len({t.name for t in graph.outputs}) != len(graph.outputs):
        raise GraphError(f"graph {graph.name}", "names an output twice")
    for state in graph.states:
        at = f"state %{state.input.name}"
        use_const(state.initial, at)
        if defined.get(state.output.name) != state.output:
            raise GraphError(at, f"%{state.output.name} is never defined with this type and shape")
        kinds = {(t.shape, t.qtype) for t in (state.input, state.output, state.initial.tensor)}
        if len(kinds) != 1:
            raise GraphError(at, "its input, output and initial value must have one shape and type")
    return ranges


def check_op(op: Op, ranges: dict[str, Range]) -> None:
    """Shape, scale, zero point and the op's own rules; the range of the output is checked by the caller."""
    at = where(op)
    shape = output_shape(op)
    if shape != op.output.shape:
        raise GraphError(at, f"output shape {list(op.output.shape)}, must be {list(shape)}")
    scales = output_scales(op)
    if scales is not None and not same_scales(op.output.qtype, scales, op.output.channels):
        raise GraphError(
            at, f"output scale {op.output.qtype.scales[0]}, must be {scales[0]} (one for each channel if they differ)"
        )
    match op:
        case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            _mac(op)
        case ops.Requantize():
            _requantize(op, ranges[op.input.name])
        case ops.Threshold():
            _threshold(op)
        case ops.Lookup():
            _lookup(op)
        case ops.Interpolate():
            _interpolate(op)
        case ops.Add() | ops.Sub() | ops.Multiply():
            _zero(op, op.output)
            if not isinstance(op, ops.Multiply):
                _zero(op, op.a)
                _zero(op, op.b)
        case ops.Concat():
            if len({t.qtype.zero_point for t in (*op.inputs, op.output)}) != 1:
                raise GraphError(at, "zero points of inputs and output must be equal")
        case ops.SumPool():
            _zero(op, op.output)
        case ops.ArgMax():
            _zero(op, op.output)
        case ops.Softmax():
            _softmax(op)
        case ops.Softmax16():
            _softmax16(op)
        case ops.MaxPool() | ops.Reshape() | ops.Transpose() | ops.Pad() | ops.UpSample() | ops.Slice():
            same = (op.input.qtype.bits, op.input.qtype.signed, op.input.qtype.zero_point)
            if same != (op.output.qtype.bits, op.output.qtype.signed, op.output.qtype.zero_point):
                raise GraphError(
                    at,
                    f"output is {op.output.qtype.text}, must have the input's type {op.input.qtype.text} and zero point",
                )
            if isinstance(op, ops.Pad) and not op.input.qtype.min <= op.value <= op.input.qtype.max:
                raise GraphError(at, f"value {op.value} does not fit {op.input.qtype.text}")


def _name(at: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise GraphError(at, f"name {name!r} must be letters, digits and _, not starting with a digit")


def _tensor(at: str, tensor: Tensor) -> None:
    """What every tensor must be, data or constant."""
    if not tensor.shape or min(tensor.shape) < 1:
        raise GraphError(at, f"shape {list(tensor.shape)}, must have at least one axis and no empty one")
    qtype = tensor.qtype
    if qtype.axis is not None and (qtype.axis >= len(tensor.shape) or len(qtype.scales) != tensor.shape[qtype.axis]):
        raise GraphError(
            at, f"has {len(qtype.scales)} scales along axis {qtype.axis}, which does not go with {list(tensor.shape)}"
        )
    if max(qtype.max - qtype.zero_point, qtype.zero_point - qtype.min) >= 1 << 63 and qtype.zero_point:
        raise GraphError(at, f"{qtype.text} less zero point {qtype.zero_point} does not fit int64")


def _const(const: Const) -> None:
    at, qtype = f"const %{const.tensor.name}", const.tensor.qtype
    _tensor(at, const.tensor)
    if len(const.data) != 8 * const.tensor.size:
        raise GraphError(at, f"holds {len(const.data)} bytes, must be {8 * const.tensor.size}")
    lo, hi = int(const.array.min()), int(const.array.max())
    if lo < qtype.min or hi > qtype.max:
        raise GraphError(at, f"values {lo}..{hi} do not fit {qtype.text} ({qtype.min}..{qtype.max})")


def _zero(op: Op, tensor: Tensor) -> None:
    if tensor.qtype.zero_point:
        raise GraphError(
            where(op), f"%{tensor.name} has zero point {tensor.qtype.zero_point}, must be 0; requantize it first"
        )


def _mac(op: ops.Mac) -> None:
    _zero(op, op.output)
    _zero(op, op.weight.tensor)
    if op.bias is not None:
        _zero(op, op.bias.tensor)
        out = op.output.shape[-1]
        if op.bias.tensor.shape != (out,):
            raise GraphError(where(op), f"bias shape {list(op.bias.tensor.shape)}, must be [{out}]")
        if not same_scales(op.bias.tensor.qtype, op.output.qtype.scales, out):
            raise GraphError(where(op), "bias must have the accumulator's scale")


def _requantize(op: ops.Requantize, given: Range) -> None:
    at, channels = where(op), op.input.channels
    lengths = {len(op.multiplier), len(op.offset), len(op.shift)}
    if len(lengths) != 1 or lengths - {1, channels}:
        raise GraphError(at, f"multiplier, offset and shift must all have 1 or {channels} entries")
    if max(map(abs, op.multiplier)) > MAX_MULTIPLIER:
        raise GraphError(at, f"multiplier {max(op.multiplier, key=abs)} needs more than 48 bits")
    if not 0 <= min(op.shift) <= max(op.shift) <= MAX_SHIFT:
        raise GraphError(at, f"shifts {min(op.shift)}..{max(op.shift)} must be in 0..{MAX_SHIFT}")
    lo, hi = op.clamp
    if not op.output.qtype.min <= lo <= hi <= op.output.qtype.max:
        raise GraphError(at, f"clamp {lo}..{hi} must lie within {op.output.qtype.text}")
    if not -(1 << 62) <= op.output_offset < 1 << 62:
        raise GraphError(at, "output_offset must fit 63 bits")
    if op.rounding is ops.Rounding.TFLM:
        if (
            any(op.offset)
            or not 0 <= min(op.multiplier) <= max(op.multiplier) < 1 << 31
            or max(*given.hi, *(-v - 1 for v in given.lo)) >= 1 << 31
        ):
            raise GraphError(
                at, "tflm rounding takes offset 0, multipliers of 0 or more, and an accumulator of 32 bits"
            )
        return
    for c, (low, high) in enumerate(given.channels(channels)):
        m, o, s = (v[c % len(v)] for v in (op.multiplier, op.offset, op.shift))
        largest = max(abs(end * m + o) for end in (low, high))
        # with what rounding adds, and every step on the way: the product alone, and the sum with output_offset
        needs = largest + (1 << s), abs(low * m), abs(high * m), abs(o), (largest >> s) + 1 + abs(op.output_offset)
        if max(needs) >= 1 << 63:
            raise GraphError(at, f"channel {c}: accumulator {low}..{high} times {m} plus {o} does not fit int64")


def _threshold(op: ops.Threshold) -> None:
    at, channels = where(op), op.input.channels
    ladder, level = op.thresholds.tensor.shape, op.levels.tensor.shape
    if len(ladder) != 2 or len(level) != 2 or {ladder[0], level[0]} - {1, channels} or level[1] != ladder[1] + 1:
        raise GraphError(
            at,
            f"thresholds {list(ladder)} and levels {list(level)} must be [1 or {channels}, T] and [1 or {channels}, T+1]",
        )
    if (np.diff(op.thresholds.array, axis=1) < 0).any():
        raise GraphError(at, "thresholds must ascend")
    _fits(at, op.levels, op.output)


def _lookup(op: ops.Lookup) -> None:
    at, bits = where(op), op.input.qtype.bits
    if bits > MAX_LOOKUP_BITS:
        raise GraphError(at, f"looks up {bits} bits, must be at most {MAX_LOOKUP_BITS}")
    if op.table.tensor.shape != (1 << bits,):
        raise GraphError(at, f"table {list(op.table.tensor.shape)}, must be [{1 << bits}]")
    _fits(at, op.table, op.output)


def _interpolate(op: ops.Interpolate) -> None:
    at, x, shape = where(op), op.input.qtype, op.table.tensor.shape
    most = min(1 << x.bits, MAX_TABLE)
    lines = shape[0] - 1
    if len(shape) != 1 or lines < 1 or lines & (lines - 1) or lines > most:
        raise GraphError(at, f"table {list(shape)}, must have one entry more than a power of two of 1 to {most}")
    if x.bits > 32:
        raise GraphError(at, f"input is {x.text}, must have at most 32 bits; requantize it first")
    if op.rounding is ops.Rounding.TFLM:
        raise GraphError(at, "tflm rounding takes a multiplier, which it has not")
    if not 0 <= op.shift <= 30 or abs(op.output_offset) >= 1 << 30:
        raise GraphError(
            at, f"shift {op.shift}, must be in 0..30, and output_offset {op.output_offset} must fit 31 bits"
        )
    largest = int(max(abs(op.table.array.min()), op.table.array.max(), 1))
    if largest * ((1 << x.bits) // lines) + (1 << op.shift) >= 1 << 30:  # so that a kernel needs no more than 32 bits
        raise GraphError(
            at,
            f"entries of up to {largest} over {(1 << x.bits) // lines} values of x, shifted by {op.shift}: leave 31 bits",
        )


def _softmax16(op: ops.Softmax16) -> None:
    """What keeps its sum in 2..2**31 - 1, and every exp and reciprocal in 0..2**15 - 1."""
    at, x, y = where(op), op.input.qtype, op.output.qtype
    if (x.bits, x.signed) != (16, True) or (y.bits, y.signed, y.zero_point) != (16, True, 0):
        raise GraphError(
            at, f"makes {y.text} with zero point {y.zero_point} of {x.text}, must make s16 with zero point 0 of s16"
        )
    if not 0 <= op.multiplier < 1 << 31 or not 0 <= op.shift <= MAX_SHIFT:
        raise GraphError(at, f"multiplier {op.multiplier} and shift {op.shift} must be 31 bits and 0..{MAX_SHIFT}")
    for const in (op.table, op.reciprocal):
        table = const.array
        if table.shape != (ENTRIES16,) or table.min() < 0 or table.max() > (1 << 15) - 1:
            what = f"%{const.tensor.name} {list(table.shape)} holds {table.min()}..{table.max()}, must be [{ENTRIES16}] of 0..32767"
            raise GraphError(at, what)
    if min(op.table.array[-2:]) < 4:
        raise GraphError(
            at, f"%{op.table.tensor.name} ends with {op.table.array[-1]}, must end with 4 or more: exp of 0"
        )
    if op.input.channels * int(op.table.array.max()) >= 1 << 31:
        raise GraphError(at, f"is over {op.input.channels} elements, whose sum may leave 31 bits")


def _softmax(op: ops.Softmax) -> None:
    """What keeps its sum in 1..2**31 - 1, so that the sum has a reciprocal: the largest of a row counts 2**19, no other more."""
    at, x, y, table = where(op), op.input.qtype, op.output.qtype, op.table.array
    if x.bits != 8:
        raise GraphError(at, f"input is {x.text}, must have 8 bits; requantize it first")
    if not y.signed or y.bits not in (8, 16) or y.zero_point != y.min:
        raise GraphError(
            at, f"output is {y.text} with zero point {y.zero_point}, must be s8 with -128 or s16 with -32768"
        )
    if op.input.channels > MAX_SOFTMAX:
        raise GraphError(at, f"is over {op.input.channels} elements, must be over at most {MAX_SOFTMAX}")
    if table.shape != (256,):
        raise GraphError(at, f"table {list(table.shape)}, must be [256]")
    if table[0] != ONE or table.min() < 0 or table.max() > ONE:
        raise GraphError(
            at,
            f"table begins with {table[0]} and holds {table.min()}..{table.max()}, must begin with {ONE} and hold 0..{ONE}",
        )


def _fits(at: str, const: Const, output: Tensor) -> None:
    lo, hi = int(const.array.min()), int(const.array.max())
    if lo < output.qtype.min or hi > output.qtype.max:
        raise GraphError(at, f"%{const.tensor.name} holds {lo}..{hi}, which does not fit {output.qtype.text}")
