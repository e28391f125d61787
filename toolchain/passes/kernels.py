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
from toolchain.special_kernels import special

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

DSP = "dsp"
# Instructions for a product of the general kernels: on a Cortex-M3 tests/golden/counts.json has 3.2 to 8.7.
GENERAL = 4.0


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    if board is None or board.core not in packed.DSP_CORES:
        return graph, plan
    ranges = check_with_ranges(graph)
    chosen, scratch = {}, 0
    for op in graph.ops:
        if not isinstance(op, Mac) or special(op):
            continue
        lo, hi = ranges[op.output.name].whole
        form = form_of(op) if lo >= -(1 << 31) and hi < 1 << 31 else None
        if form is not None:
            chosen[op.output.name] = DSP
            scratch = max(scratch, form.scratch_bytes)
    return graph, replace(plan, kernels=chosen, scratch_bytes=scratch)


def form_of(op: Mac) -> packed.Layer | packed.Windows | None:
    """The form in which an op takes fewer instructions, where there is one and its bounds hold."""
    if isinstance(op, ops.DepthwiseConv2D):
        return packed.windows(op)
    layer, q = packed.layer(op), op.input.qtype
    if layer is None or not layer.fits(max(-q.min, q.max)):
        return None
    return layer if instructions(layer) < GENERAL * products(layer) else None


def products(layer: packed.Layer) -> int:
    return layer.out_h * layer.out_w * int(layer.weight.size)


def instructions(layer: packed.Layer) -> int:
    """Of the inner loops and of widening, modelled; what follows a sum is the same for every kernel."""
    blocks = len(layer.packed())
    calls = blocks * layer.out_h * (1 if layer.alone else -(-layer.out_w // 2))
    widened = 3 * layer.in_c * layer.in_w * layer.in_h
    return calls * layer.dot.instructions + widened


__all__ = ["DSP", "instructions", "run"]
