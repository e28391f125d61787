"""FIFO depths of a streamed design: what the token model derives, kept where the user gave one.

Rule: deep enough that no process waits for ever, also when tools stall whole pipelines; hls4ml's default, a whole tensor, is the most.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.ir import Graph

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    hls = plan.hls
    if hls is None or board is None or not hls.stream or graph.states:  # states are refused by the back end
        return graph, plan
    from toolchain import fifos  # here: the cost model reads Plan, which lies in this package
    from toolchain.estimate import Estimator

    model = Estimator(graph, board, hls)
    stages = {op.output.name: model.kernel(op, hls).stages for op in model.ops}
    derived = fifos.depths(graph, stages)
    return graph, replace(plan, hls=replace(hls, fifo_depth={**derived, **hls.fifo_depth}))
