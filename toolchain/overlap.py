"""How far a kernel's output may lie over its input: from the order in which it reads and writes.

One rule, which every general kernel named here keeps and tests/test_overlap.py checks by tracing the compiled C: outputs are
written one element after another, in rising order, each after all that is read for it. Kernels of a family go by runs, each
of which reads before it writes, as its form says (toolchain/forms). So what must not be written over, when an element or a
run is written, is what those after it read, and of that the lowest counts. (The idea is that of "diagonal memory
optimisation", Blacker et al. 2020, and of what TVM and TinyEngine do for single ops.) A kernel that is not named here
shares nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from toolchain import forms
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.ops import Op, inputs_of, where
from toolchain.ir.types import Ints
from toolchain.layout import SIZES, Chain, chains, concat_starts, ctype, head, in_place, is_view, nbytes, reads
from toolchain.special_kernels import special

if TYPE_CHECKING:
    from toolchain.passes.plan import Plan

NEVER = np.int64(1) << 62  # an output that reads nothing of this input: all its taps lie in padding
NONE: Mapping[str, str] = MappingProxyType({})


def distance(chain: Chain, operand: int, kernels: Mapping[str, str] = NONE) -> int | None:
    """The least whole number d of bytes, 0 or more, such that the chain's output may start d bytes or more below where its
    operand starts, whatever they share; None where its kernel's order is not known. `kernels`: by an op's output, the family of
    its kernel where that is not the general one (Plan.kernels).

    Element k of the output ends at (k + 1) * size_y; what is read later begins at first(k + 1...) * size_x. An output above its
    operand is left out even where it would be safe.
    """
    runs = _runs(head(chain), operand, kernels)
    if runs is None:
        return None
    x, y = reads(chain)[operand], chain[-1].output
    size_x, size_y = SIZES[ctype(x.qtype)], SIZES[ctype(y.qtype)]
    first, ends = runs
    later = np.minimum.accumulate(first[::-1])[::-1][1:]  # the lowest that any run after this one reads
    read = later < NEVER
    over = ends[:-1][read] * size_y - later[read] * size_x
    d = max(int(over.max(initial=0)), 0)
    grain = min(size_x, size_y)  # both lie at multiples of it
    return -(-d // grain) * grain


def exact(chain: Chain, kernels: Mapping[str, str]) -> int | None:
    """The one number of bytes by which the output may start below the input though `distance` is more: some kernels' reads and
    writes stay out of each other's way just there. None where there is no such place."""
    op = head(chain)
    if not isinstance(op, ops.Mac) or op.output.name not in kernels:
        return None
    size_x, size_y = (SIZES[ctype(t.qtype)] for t in (reads(chain)[0], chain[-1].output))
    elements = forms.named(kernels[op.output.name], op).in_place() if size_x == size_y else None
    return None if elements is None else elements * size_x


def _runs(op: Op, operand: int, kernels: Mapping[str, str]) -> tuple[Ints, Ints] | None:
    """For each run of the kernel, which reads before it writes: the lowest element that it reads, where what is written ends."""
    if isinstance(op, ops.Mac) and op.output.name in kernels:
        runs = forms.named(kernels[op.output.name], op).order()
        if runs is None:
            return None
        firsts = [NEVER if first is None else first for first, _ in runs]
        return np.array(firsts, np.int64), np.array([end for _, end in runs], np.int64)
    first = _first_reads(op, operand)
    return None if first is None else (first, np.arange(1, len(first) + 1, dtype=np.int64))


def _first_reads(op: Op, operand: int) -> Ints | None:
    """For each output element in C order, the lowest element of the operand that is read for it."""
    match op:
        # nn_map: element for element; nn_softmax: of a row, an element again before its place is written, and nothing before it
        case ops.Requantize() | ops.Threshold() | ops.Lookup() | ops.Interpolate() | ops.Softmax() | ops.Softmax16():
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
        _check_scratch(step, k, plan, held, last)
        for begin, size in [] if is_view(head(step), plan) else _written(step, plan, at):
            for name, t in held.items():
                there, other = plan.place(name)
                if last.get(name, -1) < k or there != space or not _meet(begin, size, other, nbytes(t)):
                    continue
                operands = [i for i, x in enumerate(reads(step)) if x.name == name]
                apart = [distance(step, i, plan.kernels) for i in operands] if last[name] == k else []
                if apart and exact(step, plan.kernels) == other - at:
                    continue
                if not apart or any(d is None or at > other - d for d in apart):
                    what = f"lies at {at:,} of {space or 'the arena'}, over %{name} at {other:,}, which is still to be read"
                    raise ToolchainError(where(step[-1]), what, "let the planner place it")
        held[out.name] = out


def _check_scratch(step: Chain, k: int, plan: Plan, held: Mapping[str, Tensor], last: Mapping[str, int]) -> None:
    """What a kernel needs while it runs lies over nothing that it or a later function reads, nor over what it writes."""
    name, out = head(step).output.name, step[-1].output
    size, at = plan.scratch.get(name, 0), plan.scratch_at.get(name, 0)
    alive = [t for t in held.values() if last.get(t.name, -1) >= k]
    for t in [*alive, out] if size else []:
        space, other = plan.place(t.name)
        if not space and _meet(at, size, other, nbytes(t)):
            what = f"needs {size:,} bytes at {at:,} of the arena while it runs, over %{t.name} at {other:,}"
            raise ToolchainError(where(step[-1]), what, "let the planner place it")


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
