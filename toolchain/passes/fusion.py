"""Fusion: a value that one Requantize, Threshold, Lookup or Interpolate takes over and nobody else reads is never stored; nor is what a
Lookup makes of an operand of an Add, Sub or Multiply where that is wider than the operand.

Chains end after two such ops, which is what a kernel's stages hold; nothing is computed twice and nothing changes meaning.
What an Interpolate reads is made beside it where it is wider than what that is made of: the narrower of the two is stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.ir import Graph, ops
from toolchain.ir.ops import Op, inputs_of
from toolchain.layout import STAGES, nbytes

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

MAKERS = (ops.Dense, ops.Conv1D, ops.Conv2D, ops.DepthwiseConv2D, ops.SumPool, ops.Add, ops.Sub, ops.Multiply, *STAGES)
MAX_STAGES = 2
BINARY = (ops.Add, ops.Sub, ops.Multiply)


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    reads = Counter(t.name for op in graph.ops for t in inputs_of(op))
    kept = {t.name for t in graph.outputs} | {s.output.name for s in graph.states}
    makers = {op.output.name: op for op in graph.ops}
    stages: dict[str, int] = {}  # stages in the chain that makes a value
    drawn = {op.input.name for op in graph.ops if isinstance(op, ops.Interpolate) and reads[op.input.name] == 1} - kept
    operands = {name for op in graph.ops for name in _operands(op, makers) if reads[name] == 1 and name not in kept}
    fused = set(operands)
    for op in graph.ops:
        if not isinstance(op, STAGES) or op.output.name in operands:
            continue
        name = op.input.name
        maker = makers.get(name)
        before = stages.get(name, 0)
        if before and op.output.name in drawn and nbytes(op.output) > nbytes(op.input):
            before = MAX_STAGES  # the second of a chain that the Interpolate would not fit into
        if isinstance(maker, MAKERS) and before < MAX_STAGES and reads[name] == 1 and name not in kept:
            fused.add(name)
        else:
            before = 0
        stages[op.output.name] = before + 1
    return graph, replace(plan, fused=plan.fused | frozenset(fused))


def _operands(op: Op, makers: Mapping[str, Op]) -> Iterator[str]:
    """Operands that are a wider type's lookups of smaller ones, each value looked up one time."""
    for t in inputs_of(op) if isinstance(op, BINARY) else ():
        maker = makers.get(t.name)
        if isinstance(maker, ops.Lookup) and nbytes(t) > nbytes(maker.input) and t.size == op.output.size:
            yield t.name
