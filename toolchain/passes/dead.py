"""Dead ops: an op whose output reaches no graph output and no state is removed. Inputs stay: they are the interface."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.ir import Graph
from toolchain.ir.ops import Op, inputs_of

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    wanted = {t.name for t in graph.outputs} | {s.output.name for s in graph.states}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if op.output.name in wanted:
            wanted.update(t.name for t in inputs_of(op))
            kept.append(op)
    return replace(graph, ops=tuple(reversed(kept))), plan
