"""Kernels: which op is computed by more than the general kernel of its kind, where the core has the instructions for it.

Rule: a kernel is chosen only where its bounds are proved for these weights and where it is modelled to take fewer instructions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain import forms
from toolchain.ir import Graph
from toolchain.ir.check import check_with_ranges
from toolchain.ir.ops import Mac
from toolchain.ir.ranges import Range
from toolchain.special_kernels import special

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

SHARE = 4  # a quarter of the board's flash for what weights take more than as they are: the rest is the model's


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    if board is None or not any(board.core in family.CORES for family in forms.FAMILIES):
        return graph, plan
    ranges = check_with_ranges(graph)
    chosen: dict[str, str] = {}
    scratch: dict[str, int] = {}
    flash = 0 if plan.optimize == "size" else board.flash_bytes // SHARE
    for op in graph.ops:
        if not isinstance(op, Mac) or special(op):
            continue
        if not fits(ranges[op.output.name]):
            continue
        for name, form in forms.choices(op, board.core, plan.optimize):
            more = getattr(form, "more_flash_bytes", 0)
            if more > flash:
                continue
            flash -= more
            chosen[op.output.name] = name
            if form.scratch_bytes:
                scratch[op.output.name] = form.scratch_bytes
            break
    return graph, replace(plan, kernels=chosen, scratch=scratch)


def fits(given: Range) -> bool:
    """Whether 32 bits hold these sums, which is what every family of kernels needs."""
    lo, hi = given.whole
    return lo >= -(1 << 31) and hi < 1 << 31


__all__ = ["fits", "run"]
