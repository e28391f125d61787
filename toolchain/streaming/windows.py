"""Which positions along time each op reads, so which values of a window were computed for the window before it.

One rule: a value may be kept only where every value it was made from moved along with the frames, and no padding took
part in it. All else is computed anew, from what is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from toolchain.errors import assert_never
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.geometry import out_size, window_counts
from toolchain.ir.ops import Op, inputs_of


@dataclass(frozen=True)
class Window:
    """Output position p, along `axis` of the output, reads `reach` input positions from p * stride - before on."""

    axis: int
    stride: int = 1
    before: int = 0
    reach: int = 1

    def reads(self, begin: int, end: int) -> tuple[int, int]:
        """The input positions of outputs begin..end - 1; outside the input they are padding."""
        return begin * self.stride - self.before, (end - 1) * self.stride - self.before + self.reach


def window(op: Op, axis: int) -> Window | None:
    """How the op reads along `axis` of its inputs; None where an output mixes, or tells apart, positions in any other way."""
    rank = len(op.output.shape)
    if any(t.qtype.axis == axis for t in inputs_of(op)):  # a scale for each position
        return None
    match op:
        case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            if axis >= len(op.strides):
                return None
            taps = op.weight.tensor.shape[axis if isinstance(op, ops.DepthwiseConv2D) else axis + 1]
            return Window(axis, op.strides[axis], op.padding[axis][0], op.dilation[axis] * (taps - 1) + 1)
        case ops.MaxPool() | ops.SumPool():
            if axis >= len(op.strides) or (isinstance(op, ops.SumPool) and not _even(op, axis)):
                return None
            return Window(axis, op.strides[axis], op.padding[axis][0], op.kernel[axis])
        case ops.Dense() | ops.Softmax() | ops.Softmax16() | ops.ArgMax():
            return Window(axis) if axis < rank - 1 else None
        case ops.Requantize():
            alike = {len(op.multiplier), len(op.offset), len(op.shift)} == {1}
            return Window(axis) if axis < rank - 1 or alike else None
        case ops.Threshold():
            alike = op.thresholds.tensor.shape[0] == op.levels.tensor.shape[0] == 1
            return Window(axis) if axis < rank - 1 or alike else None
        case ops.Lookup() | ops.Interpolate():
            return Window(axis)
        case ops.Add() | ops.Sub() | ops.Multiply():
            return Window(axis) if op.a.shape[axis] == op.b.shape[axis] else None
        case ops.Concat():
            return Window(axis) if axis != op.axis else None
        case ops.Slice():
            return Window(axis, op.strides[axis], -op.begin[axis])
        case ops.Pad():
            return Window(axis, 1, op.padding[axis][0])
        case ops.Transpose():
            return Window(op.permutation.index(axis))
        case ops.UpSample():
            return Window(axis) if axis == rank - 1 or op.factors[axis] == 1 else None
        case ops.Reshape():
            return _reshape(op, axis)
        case _:
            raise assert_never(op)


def _even(op: ops.SumPool, axis: int) -> bool:
    """Whether every window along the axis averages over as many positions, and so does any part of them."""
    n, kernel, stride, pad = op.input.shape[axis], op.kernel[axis], op.strides[axis], op.padding[axis]
    partial = op.ceil_mode and any(
        out_size(m, k, s, 1, p, True) != out_size(m, k, s, 1, p)
        for m, k, s, p in zip(op.input.shape, op.kernel, op.strides, op.padding, strict=False)
    )
    return not partial and set(window_counts(n, kernel, stride, pad, False, op.count_include_pad)) == {kernel}


def _reshape(op: ops.Reshape, axis: int) -> Window | None:
    """Time stays an axis of its own, or was a flat row of frames that are told apart now."""
    shape, out = op.input.shape, op.output.shape
    for k, size in enumerate(out):
        if prod(out[:k]) == prod(shape[:axis]) and shape[axis] % size == 0 and size > 1:
            each = shape[axis] // size
            if each == 1 or axis == len(shape) - 1:
                return Window(k, each, 0, each)
    return None


@dataclass(frozen=True)
class Course:
    """A tensor along time: `stride` frames from one position to the next; positions `begin`..`end` - 1 of a window are
    positions `begin + moved`..`end + moved` - 1 of the window before it, as far as that has them. `moved` 0: none is kept."""

    axis: int
    stride: int
    size: int
    begin: int = 0
    end: int = 0
    moved: int = 0

    @property
    def new(self) -> range:
        return range(self.end - self.moved, self.end)

    def kept(self, position: int) -> bool:
        return self.begin <= position < self.end


def courses(graph: Graph, start: Tensor, axis: int, frames: int) -> dict[str, Course]:
    """The tensors that have an axis of time, when `frames` new ones come at a time. What is not here is one value for the window."""
    found = {start.name: _course(axis, 1, start.shape[axis], 0, start.shape[axis], frames)}
    for op in graph.ops:
        given = [found.get(t.name) for t in inputs_of(op)]
        first = given[0]
        if first is None or any(c is None or (c.axis, c.stride) != (first.axis, first.stride) for c in given):
            continue
        reads = window(op, first.axis)
        if reads is None:
            continue
        begin = max(c.begin for c in given if c)
        end = min(c.end for c in given if c)
        low = -(-(begin + reads.before) // reads.stride)
        high = (end - reads.reach + reads.before) // reads.stride + 1
        size = op.output.shape[reads.axis]
        stride = first.stride * reads.stride
        found[op.output.name] = _course(reads.axis, stride, size, max(low, 0), min(high, size), frames)
    return found


def _course(axis: int, stride: int, size: int, begin: int, end: int, frames: int) -> Course:
    moved = 0 if frames % stride else frames // stride
    if not moved or end - begin <= moved:
        return Course(axis, stride, size)
    return Course(axis, stride, size, begin, end, moved)


def runs(course: Course, need: Iterable[int], reads: Window | None, given: int) -> list[tuple[int, int]]:
    """What of `need` is computed at each step, as runs of positions: what does not move, and what is new of all that does.

    `given`: positions of the input that `reads` goes over; a run that lies wholly in padding is made longer, to have an input."""
    wanted = {p for p in need if not course.kept(p)}
    if len(wanted) < len(set(need)):
        wanted |= set(course.new)
    if reads is not None:
        for p in sorted(wanted):
            while reads.reads(p, p + 1)[1] <= 0 and p + 1 not in wanted:
                p += 1
                wanted.add(p)
        for p in sorted(wanted, reverse=True):
            while reads.reads(p, p + 1)[0] >= given and p - 1 not in wanted:
                p -= 1
                wanted.add(p)
    found: list[tuple[int, int]] = []
    for p in sorted(wanted):
        if found and found[-1][1] == p:
            found[-1] = (found[-1][0], p + 1)
        else:
            found.append((p, p + 1))
    return found
