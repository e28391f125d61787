"""Passes refine a graph and plan how it runs. PIPELINE is their order; `run` checks the graph after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolchain.ir import Graph, check

from . import arena, dead, fusion
from .plan import Hls, Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

Pass = Callable[[Graph, Plan, "Board | None"], tuple[Graph, Plan]]

PIPELINE: tuple[tuple[Pass, str], ...] = (
    (dead.run, "first: what nobody reads must cost nothing in any later choice"),
    (fusion.run, "before the arena: what is never stored takes no room there"),
    (arena.run, "last: offsets hold only for the final set of stored tensors"),
)


def run(graph: Graph, board: Board | None = None) -> tuple[Graph, Plan]:
    """The refined graph, which computes the same, and the plan to run it by."""
    plan = Plan()
    for step, _reason in PIPELINE:
        graph, plan = step(graph, plan, board)
        check(graph)
    return graph, plan


__all__ = ["PIPELINE", "Hls", "Plan", "run"]
