"""Kernels: which op is computed by more than the general kernel of its kind, where the core has the instructions for it.

Rule: a kernel is chosen only where its bounds are proved for these weights and where it is modelled to take fewer instructions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain import packed
from toolchain.ir import Graph, ops
from toolchain.ir.check import check_with_ranges
from toolchain.ir.ops import Mac

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

DSP = "dsp"
GENERAL = 4.0  # instructions for a product of the general kernels on a Cortex-M4, as benchmarks/results.md has it for large layers


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    if board is None or board.core not in packed.DSP_CORES:
        return graph, plan
    ranges = check_with_ranges(graph)
    chosen, scratch = {}, 0
    for op in graph.ops:
        if not isinstance(op, Mac) or isinstance(op, ops.DepthwiseConv2D):
            continue
        lo, hi = ranges[op.output.name].whole
        layer = packed.layer(op)
        if layer is None or lo < -(1 << 31) or hi >= 1 << 31:
            continue
        q = op.input.qtype
        if layer.fits(max(-q.min, q.max)) and instructions(layer) < GENERAL * products(layer):
            chosen[op.output.name] = DSP
            scratch = max(scratch, layer.scratch_bytes)
    return graph, replace(plan, kernels=chosen, scratch_bytes=scratch)


def products(layer: packed.Layer) -> int:
    return layer.out_h * layer.out_w * int(layer.weight.size)


def instructions(layer: packed.Layer) -> int:
    """Of the inner loops and of widening, modelled; what follows a sum is the same for every kernel."""
    blocks = len(layer.packed())
    calls = blocks * layer.out_h * (1 if layer.alone else -(-layer.out_w // 2))
    widened = 3 * layer.in_c * layer.in_w * layer.in_h
    return calls * layer.dot.instructions + widened


__all__ = ["DSP", "instructions", "run"]
