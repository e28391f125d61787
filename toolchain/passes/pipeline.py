"""The passes in their order, for C and for circuits; `through` checks the graph after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolchain.ir import Graph, check

from . import arena, dead, depths, fusion, kernels, storage
from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

Pass = Callable[[Graph, Plan, "Board | None"], tuple[Graph, Plan]]
Pipeline = tuple[tuple[Pass, str], ...]

PIPELINE: Pipeline = (
    (dead.run, "first: what nobody reads must cost nothing in any later choice"),
    (kernels.run, "before the arena: what a kernel needs while it runs is a part of it"),
    (storage.run, "after kernels: weights that a kernel has in its own form are as small as that"),
    (fusion.run, "before the arena: what is never stored takes no room there"),
    (arena.run, "last: offsets hold only for the final set of stored tensors"),
)
HLS_PIPELINE: Pipeline = (
    (dead.run, "first: an op that nobody reads would be a circuit that nobody reads"),
    (depths.run, "last: depths hold for the final set of streams"),
)


def through(pipeline: Pipeline, graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    for step, _reason in pipeline:
        graph, plan = step(graph, plan, board)
        check(graph)
    return graph, plan


__all__ = ["HLS_PIPELINE", "PIPELINE", "through"]
