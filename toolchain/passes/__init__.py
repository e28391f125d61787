"""Passes refine a graph and plan how it runs. PIPELINE and HLS_PIPELINE are their orders; `run` checks the graph after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolchain.ir import Graph, check

from . import arena, dead, depths, fusion, kernels, storage
from .plan import Hls, Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

Pass = Callable[[Graph, Plan, "Board | None"], tuple[Graph, Plan]]
Pipeline = tuple[tuple[Pass, str], ...]

PIPELINE: Pipeline = (
    (dead.run, "first: what nobody reads must cost nothing in any later choice"),
    (kernels.run, "before the arena: what a kernel needs while it runs is memory too"),
    (storage.run, "after kernels: weights that a kernel has in its own form are as small as that"),
    (fusion.run, "before the arena: what is never stored takes no room there"),
    (arena.run, "last: offsets hold only for the final set of stored tensors"),
)
HLS_PIPELINE: Pipeline = (
    (dead.run, "first: an op that nobody reads would be a circuit that nobody reads"),
    (depths.run, "last: depths hold for the final set of streams"),
)


def run(
    graph: Graph, board: Board | None = None, hls: Hls | None = None, optimize: str = "speed"
) -> tuple[Graph, Plan]:
    """The refined graph, which computes the same, and the plan to run it by; `hls` are choices for an FPGA board, `optimize` is
    what kernels and storage are chosen for on others: speed, size or ram."""
    fpga = board.fpga if board is not None else None
    plan = Plan(optimize=optimize) if fpga is None else Plan(hls=hls or Hls(tool=fpga.tool))
    for step, _reason in PIPELINE if fpga is None else HLS_PIPELINE:
        graph, plan = step(graph, plan, board)
        check(graph)
    return graph, plan


__all__ = ["HLS_PIPELINE", "PIPELINE", "Hls", "Plan", "run"]
