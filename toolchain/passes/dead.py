"""Dead ops: an op whose output reaches no graph output and no state is removed. Inputs stay: they are the interface."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.ir import Graph

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    return replace(graph, ops=graph.live_ops()), plan
