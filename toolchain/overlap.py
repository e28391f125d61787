"""How far a kernel's output may lie over its input: from the order in which it reads and writes.

One rule, which every kernel named here keeps and tests/test_overlap.py checks by tracing the compiled C: outputs are written
one element after another, in rising order, each after all that is read for it. So what must not be written over, when
element k is written, is what elements after k read, and of that the lowest counts. (The idea is that of "diagonal memory
optimisation", Blacker et al. 2020, and of what TVM and TinyEngine do for single ops.) A kernel that is not named here
shares nothing.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import ToolchainError
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.ops import Op, inputs_of, where
from toolchain.ir.types import Ints
from toolchain.layout import SIZES, Chain, chains, concat_starts, ctype, head, in_place, is_view, nbytes, reads
from toolchain.special_kernels import special

if TYPE_CHECKING:
    from toolchain.passes.plan import Plan

NEVER = np.int64(1) << 62  # an output that reads nothing of this input: all its taps lie in padding


def distance(chain: Chain, operand: int, others: Container[str] = ()) -> int | None:
    """The least whole number d of bytes, 0 or more, such that the chain's output may start d bytes or more below where its
    operand starts, whatever they share; None where its kernel's order is not known: so of `others`, outputs of ops that have a
    kernel of their own (Plan.kernels).

    Element k of the output ends at (k + 1) * size_y; what is read later begins at first(k + 1...) * size_x. An output above its
    operand is left out even where it would be safe.
    """
    first = None if head(chain).output.name in others else _first_reads(head(chain), operand)
    if first is None:
        return None
    x, y = reads(chain)[operand], chain[-1].output
    size_x, size_y = SIZES[ctype(x.qtype)], SIZES[ctype(y.qtype)]
    later = np.minimum.accumulate(first[::-1])[::-1][1:]  # the lowest that any element after k reads
    k = np.arange(len(later), dtype=np.int64)
    read = later < NEVER
    over = (k[read] + 1) * size_y - later[read] * size_x
    d = max(int(over.max(initial=0)), 0)
    grain = min(size_x, size_y)  # both lie at multiples of it
    return -(-d // grain) * grain


def _first_reads(op: Op, operand: int) -> Ints | None:
    """For each output element in C order, the lowest element of the operand that is read for it."""
    match op:
        # nn_map: element for element; nn_softmax: of a row, an element again before its place is written, and nothing before it
        case ops.Requantize() | ops.Threshold() | ops.Lookup() | ops.Softmax():
            return np.arange(op.output.size, dtype=np.int64)
        case (
            ops.Add() | ops.Sub() | ops.Multiply()
        ):  # nn_binary: a walk over the output, with steps of 0 where one repeats
            x = inputs_of(op)[operand]
            index = np.arange(x.size, dtype=np.int64).reshape(x.shape)
            return np.broadcast_to(index, op.output.shape).ravel()
        case ops.Dense():  # nn_dense: the whole row for each output of it
            return _per_row(op)
        case ops.ArgMax():  # nn_argmax: one output for a row
            return _per_row(op)
        case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():  # nn_conv and nn_depthwise
            if special(op):
                return None
            weight = op.weight.tensor.shape
            out, given = op.output.shape[-1], op.input.shape[-1]
            if isinstance(op, ops.DepthwiseConv2D):
                taps, channel = weight[:2], np.arange(out) // (out // given)
            else:
                taps, each = weight[1:-1], given // op.groups
                channel = np.arange(out) // (out // op.groups) * each
            return _windows(op.input, op.output, taps, op.strides, op.dilation, op.padding, channel)
        case ops.MaxPool() | ops.SumPool():  # nn_max_pool and nn_sum_pool
            ones = (1,) * len(op.kernel)
            channel = np.arange(op.output.shape[-1])
            return _windows(op.input, op.output, op.kernel, op.strides, ones, op.padding, channel)
        case _:  # the moves copy runs by memcpy, in an order of their own; what is new here is not known
            return None


def _per_row(op: ops.Dense | ops.ArgMax) -> Ints | None:
    if isinstance(op, ops.Dense) and special(op):
        return None
    row = op.input.shape[-1]
    return np.repeat(np.arange(op.input.size // row, dtype=np.int64) * row, op.output.shape[-1])


def _windows(
    x: Tensor,
    y: Tensor,
    taps: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: ops.Padding,
    channel: Ints,
) -> Ints:
    """The first tap inside the input of each window, clipped as the kernels clip it, in the channel that is read first."""
    start = np.zeros((1,), np.int64)
    inside = np.ones((1,), bool)
    for axis, (n, k, s, d, (before, _)) in enumerate(zip(x.shape, taps, strides, dilation, padding, strict=False)):
        at = np.arange(y.shape[axis], dtype=np.int64) * s - before
        tap = np.maximum(-(at // d), 0)  # the first that is not before the input
        at = at + tap * d
        start = (start[:, None] * n + at[None, :]).ravel()
        inside = (inside[:, None] & ((tap < k) & (at < n))[None, :]).ravel()
    first = start[:, None] * x.shape[-1] + channel[None, :]
    return np.where(inside[:, None], first, NEVER).ravel()


def check(graph: Graph, plan: Plan) -> None:
    """ToolchainError where a function of the plan would write over what it or a later one has still to read.

    Follows the plan step by step, knowing nothing of how it was made. States and inputs have memory of their own, which no
    function writes.
    """
    steps = chains(graph, plan.fused)
    last: dict[str, int] = {}
    for k, step in enumerate(steps):
        for t in reads(step):
            last[t.name] = k
    last |= {s.output.name: len(steps) for s in graph.states} | {t.name: len(steps) for t in graph.outputs}
    held: dict[str, Tensor] = {}  # stored by a function, by name
    for k, step in enumerate(steps):
        out = step[-1].output
        space, at = plan.place(out.name)
        for begin, size in [] if is_view(head(step), plan) else _written(step, plan, at):
            for name, t in held.items():
                there, other = plan.place(name)
                if last.get(name, -1) < k or there != space or not _meet(begin, size, other, nbytes(t)):
                    continue
                operands = [i for i, x in enumerate(reads(step)) if x.name == name]
                apart = [distance(step, i, plan.kernels) for i in operands] if last[name] == k else []
                if not apart or any(d is None or at > other - d for d in apart):
                    what = f"lies at {at:,} of {space or 'the arena'}, over %{name} at {other:,}, which is still to be read"
                    raise ToolchainError(where(step[-1]), what, "let the planner place it")
        held[out.name] = out


def _written(step: Chain, plan: Plan, at: int) -> list[tuple[int, int]]:
    """Offset and bytes of each run that a function writes: its output, but for what lies in its place in a Concat already."""
    op, out = head(step), step[-1].output
    if not isinstance(op, ops.Concat) or not any(in_place(op, plan)):
        return [(at, nbytes(out))]
    size = SIZES[ctype(out.qtype)]
    starts = concat_starts(op) or ()
    runs = zip(op.inputs, starts, in_place(op, plan), strict=True)
    return [(at + start, t.size * size) for t, start, there in runs if not there]


def _meet(a: int, size_a: int, b: int, size_b: int) -> bool:
    return a < b + size_b and b < a + size_a
