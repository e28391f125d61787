"""Passes refine a graph and plan how it runs. PIPELINE and HLS_PIPELINE are their orders; `run` checks the graph after each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolchain import forms
from toolchain.ir import Graph, check, ops
from toolchain.layout import ram_bytes

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
FIRMWARE = 256  # bytes of memory that the firmware takes beside its buffer for a payload, roughly

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
    if fpga is not None:
        return _through(HLS_PIPELINE, graph, Plan(hls=hls or Hls(tool=fpga.tool)), board)
    refined, plan = _through(PIPELINE, graph, Plan(optimize=optimize), board)
    return (
        _least_memory(refined, plan, board) if optimize == "ram" or _too_much(refined, plan, board) else (refined, plan)
    )


def _too_much(graph: Graph, plan: Plan, board: Board | None) -> bool:
    """Whether the board's memory would not hold this plan, as far as that is known before anything is compiled."""
    if board is None or not board.ram_bytes:
        return False
    rest = board.stack_bytes + board.largest_payload + FIRMWARE
    return sum(ram_bytes(graph, plan).values()) + rest > board.ram_bytes


def _through(pipeline: Pipeline, graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    for step, _reason in pipeline:
        graph, plan = step(graph, plan, board)
        check(graph)
    return graph, plan


def _least_memory(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    """The plan of least memory among those whose kernels need no more than so much while they run, for each such amount; of
    equals that with the most of them, for the general kernels need nothing and take longer."""
    best = plan
    macs = [op for op in graph.ops if isinstance(op, ops.Mac)]
    needs = {
        form.scratch_bytes for op in macs for _, form in forms.choices(op, board.core if board else "", plan.optimize)
    }
    for most in sorted(needs, reverse=True):
        _, found = _through(PIPELINE, graph, Plan(optimize=plan.optimize, most_scratch=max(most - 1, 0)), board)
        best = min(best, found, key=lambda p: p.arena_bytes + p.scratch_bytes)
    return graph, best


__all__ = ["HLS_PIPELINE", "PIPELINE", "Hls", "Plan", "run"]
