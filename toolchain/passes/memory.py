"""Memory: the plan that takes the least of it, for `--optimize ram`, and the fastest that a small board's memory holds.

Two ways to save it are tried together: the first ops in bands of rows (bands.py), and kernels that need less (room.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.ir import Graph

from . import arena, bands, fusion, room
from .pipeline import PIPELINE, through
from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

TRIED = 2  # graphs in bands, those that need the least by what is quickly known of them


def least(graph: Graph, board: Board | None) -> tuple[Graph, Plan]:
    """The graph and plan of least memory, whose first ops may go in bands. Of equals that without bands, which compute some rows
    twice; then that whose kernels were given most room, for those take fewer instructions."""
    best: tuple[Graph, Plan] | None = None
    for made in (graph, *(made for _, made in bands.ways(graph, _needs)[:TRIED])):
        made, ways = _kernels(made, Plan(optimize="ram"), board)
        own: Plan | None = None
        for way in ways:
            if own is not None and way.amount > own.arena_bytes:
                break
            _, found = arena.run(made, way.plan, board)
            own = found if own is None or found.arena_bytes <= own.arena_bytes else own
        assert own is not None, "some step takes the least that there is"
        best = (made, own) if best is None or own.arena_bytes < best[1].arena_bytes else best
    assert best is not None
    return best


def fitting(graph: Graph, plan: Plan, board: Board | None, most: int) -> tuple[Graph, Plan]:
    """Of what this memory holds, that of the fewest instructions; what needs the least memory where it holds nothing."""
    best: tuple[float, Graph, Plan] | None = None
    for made in (graph, *(made for cost, made in bands.ways(graph, _needs) if cost <= most)):
        made, ways = _kernels(made, Plan(optimize=plan.optimize), board)
        for way in sorted(ways, key=lambda way: way.instructions):
            if way.amount > most or (best is not None and way.instructions >= best[0]):
                continue
            _, found = arena.run(made, way.plan, board)
            if found.arena_bytes <= most:
                best = way.instructions, made, found
                break
    return best[1:] if best is not None else least(graph, board)


def _kernels(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, list[room.Way]]:
    graph, plan = through(PIPELINE[:-1], graph, plan, board)
    return graph, room.ways(graph, plan, board)


def _needs(graph: Graph) -> int:
    """The least arena of a graph with general kernels, but for what no offsets allow: quickly had, and nearly that with others."""
    graph, plan = fusion.run(graph, Plan(), None)
    return max(arena.needs(graph, plan), default=0)


__all__ = ["fitting", "least"]
