"""The graph of one step: each op over the positions that are new, or that padding makes new; the rest from states.

One rule: a piece of a tensor holds the integers that the full graph has at those positions of the present window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from toolchain import reference
from toolchain.errors import UnsupportedError
from toolchain.ir import Const, Graph, QType, Tensor, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.check import MAX_LOOKUP_BITS
from toolchain.ir.geometry import output_shape
from toolchain.ir.ops import Op, inputs_of, where
from toolchain.ir.ranges import held_range
from toolchain.ir.types import bits_for

from .windows import Course, Window, runs, window


@dataclass(frozen=True)
class Piece:
    begin: int
    end: int
    tensor: Tensor


def given_out(t: Tensor, course: Course | None, frames: int) -> tuple[int, int] | None:
    """The positions of a graph output that a step gives: as many as `frames` frames move it, the last ones; None for all."""
    if course is None or frames % course.stride or frames // course.stride >= course.size:
        return None
    return course.size - frames // course.stride, course.size


class Writer:
    """Writes the step for `start`, of which `frames` new positions come, with the courses of the tensors."""

    def __init__(self, graph: Graph, start: Tensor, frames: int, found: dict[str, Course]) -> None:
        self.full, self.start, self.frames, self.courses = graph, start, frames, found
        self.b = GraphBuilder(f"{graph.name}_stream")
        self.theirs = {t.name for t in graph.tensors()}  # names of the full graph that no tensor here has yet
        self.b.taken |= {name.lower() for name in self.theirs} | {c.tensor.name.lower() for c in graph.consts()}
        self.outputs = {t.name: given_out(t, found.get(t.name), frames) for t in graph.outputs}
        self.computed: dict[str, int] = {}  # positions of each tensor that a step computes
        self.pieces: dict[str, list[Piece]] = {}
        self.single: dict[str, Tensor] = {}  # what has no time
        self.need = self._needs()
        zero = {t.name: np.full((1, *t.shape), t.qtype.zero_point, np.int64) for t in graph.inputs}
        self.zeros = reference.trace(graph, zero)

    def _whole(self, t: Tensor) -> range:
        return range(self.courses[t.name].size)

    def _window(self, op: Op) -> Window:
        found = window(op, self.courses[inputs_of(op)[0].name].axis)
        assert found is not None
        return found

    def _runs(self, op: Op, need: set[int]) -> list[tuple[int, int]]:
        given = self.courses[inputs_of(op)[0].name].size
        return runs(self.courses[op.output.name], need, self._window(op), given)

    def _needs(self) -> dict[str, set[int]]:
        """The positions of each tensor that some op of the step, or who reads its outputs, takes."""
        need: dict[str, set[int]] = {}
        for t in self.full.outputs:
            if t.name in self.courses:
                need.setdefault(t.name, set()).update(range(*(self.outputs[t.name] or (0, self.courses[t.name].size))))
        for op in reversed(self.full.ops):
            timed = [t for t in inputs_of(op) if t.name in self.courses]
            if op.output.name not in self.courses:
                for t in timed:
                    need.setdefault(t.name, set()).update(self._whole(t))
                continue
            for begin, end in self._runs(op, need.get(op.output.name, set())):
                low, high = self._window(op).reads(begin, end)
                for t in timed:
                    need.setdefault(t.name, set()).update(range(max(low, 0), min(high, self.courses[t.name].size)))
        return need

    def write(self) -> Graph:
        for t in self.full.inputs:
            self._release(t.name)
            if t.name == self.start.name:
                axis = self.courses[t.name].axis
                frames = self.b.input(t.name, (*t.shape[:axis], self.frames, *t.shape[axis + 1 :]), t.qtype)
                self._keep(t, [Piece(t.shape[axis] - self.frames, t.shape[axis], frames)])
            else:
                self.single[t.name] = self.b.input(t.name, t.shape, t.qtype)
        for op in self.full.ops:
            if op.output.name in self.courses:
                made = [self._run(op, run) for run in self._runs(op, self.need.get(op.output.name, set()))]
                self.computed[op.output.name] = sum(p.end - p.begin for p in made)
                self._keep(op.output, made)
            else:
                self.single[op.output.name] = self._add(
                    _reading(op, [self._all(t) for t in inputs_of(op)]), op.output.shape, op.output.name
                )
        for t in self.full.outputs:
            found = self._all(t) if self.outputs[t.name] is None else self._get(t, *self._asked(t))
            if found.name != t.name or found in self.b.outputs:
                self._release(t.name)
                found = self.b.slice(found, (0,) * len(found.shape), found.shape, None, t.name)
            self.b.output(found)
        return self.b.graph()

    def _asked(self, t: Tensor) -> tuple[int, int]:
        asked = self.outputs[t.name]
        assert asked is not None
        return asked

    def _all(self, t: Tensor) -> Tensor:
        return self._get(t, 0, self.courses[t.name].size) if t.name in self.courses else self.single[t.name]

    def _get(self, t: Tensor, begin: int, end: int) -> Tensor:
        """Positions begin..end - 1 of the present window, put together of what is there."""
        axis, parts, at = self.courses[t.name].axis, [], begin
        while at < end:
            piece = max((p for p in self.pieces[t.name] if p.begin <= at < p.end), key=lambda p: p.end)
            stop = min(piece.end, end)
            parts.append(self._cut(piece, at, stop, axis))
            at = stop
        return parts[0] if len(parts) == 1 else self._join(parts, axis, f"{t.name}_part")

    def _cut(self, piece: Piece, begin: int, end: int, axis: int) -> Tensor:
        x = piece.tensor
        if (begin, end) == (piece.begin, piece.end):
            return x
        first, sizes = [0] * len(x.shape), list(x.shape)
        first[axis], sizes[axis] = begin - piece.begin, end - begin
        return self.b.slice(x, first, sizes, None, f"{x.name}_part")

    def _join(self, parts: list[Tensor], axis: int, name: str) -> Tensor:
        if len(parts[0].qtype.scales) > 1:
            what = f"has {len(parts[0].qtype.scales)} scales, one for each channel, and is kept from one window to the next"
            raise UnsupportedError(f"%{name.rpartition('_')[0]}", what, "requantize it to one scale")
        widest = max((t.qtype for t in parts), key=lambda q: q.bits)
        later = Tensor("later", (), widest)
        return self.b.add_op(ops.Concat(tuple(parts), later, axis), name, widest)

    def _keep(self, t: Tensor, made: list[Piece]) -> None:
        """A state for what of the last windows is read again: with what is new it is the kept part of the present window."""
        course, need = self.courses[t.name], self.need.get(t.name, set())
        self.pieces[t.name] = made
        first = min((p for p in need if course.kept(p)), default=course.end)
        if first >= course.end - course.moved:
            return
        last = next(p for p in made if p.end >= course.end > p.begin)
        new = self._cut(last, course.new.start, course.end, course.axis)
        zeros = np.take(self.zeros[t.name][0], range(first, course.end), course.axis)
        state = self.b.state(f"{t.name}_past", zeros, new.qtype)
        past = self._cut(
            Piece(first - course.moved, course.end - course.moved, state), first, course.new.start, course.axis
        )
        present = self._join([past, new], course.axis, f"{t.name}_present")
        self.b.next_state(state, present)
        self.pieces[t.name] = [*made, Piece(first, course.end, present)]

    def _run(self, op: Op, run: tuple[int, int]) -> Piece:
        """The op over a run of output positions."""
        reads, (begin, end) = self._window(op), run
        low, high = reads.reads(begin, end)
        size = self.courses[inputs_of(op)[0].name].size
        pad = (max(-low, 0), max(high - size, 0))
        given = [self._get(t, max(low, 0), min(high, size)) for t in inputs_of(op)]
        shape = (*op.output.shape[: reads.axis], end - begin, *op.output.shape[reads.axis + 1 :])
        axis = self.courses[inputs_of(op)[0].name].axis
        if (
            isinstance(op, ops.Slice)
            and reads.stride == 1
            and all(k == axis or n == m for k, (n, m) in enumerate(zip(op.input.shape, op.output.shape, strict=True)))
        ):  # only another name
            return Piece(begin, end, given[0])
        made = _reading(op, given)
        match made:
            case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D() | ops.Pad():
                made = replace(made, padding=_but(made.padding, axis, pad))
            case ops.MaxPool() | ops.SumPool():
                padding = tuple(pad if k == axis else _right(op, k) for k in range(len(made.kernel)))  # type: ignore[arg-type]
                made = replace(made, padding=padding, ceil_mode=False)
            case ops.Slice():
                made = replace(made, begin=_but(made.begin, axis, 0))
        whole = (
            op.output.name not in self.outputs
            or (self.outputs[op.output.name] or (0, op.output.shape[reads.axis])) == run
        )
        return Piece(begin, end, self._add(made, shape, op.output.name if whole else f"{op.output.name}_part"))

    def _add(self, op: Op, shape: tuple[int, ...], name: str) -> Tensor:
        """The op with its own type, made wider where states may hold more than what the full graph proves of them."""
        q = op.output.qtype
        if isinstance(op, ops.MaxPool | ops.Reshape | ops.Transpose | ops.Pad | ops.UpSample | ops.Slice):
            q = replace(q, bits=op.input.qtype.bits, signed=op.input.qtype.signed)
        op = replace(op, output=Tensor("later", shape, q))
        op = replace(op, output=replace(op.output, shape=output_shape(op)))
        low, high = held_range(op, self.b.ranges)
        if low < q.min or high > q.max:
            q = _wider(q, low, high)
        self._release(name)
        return self.b.add_op(op, name, q)

    def _release(self, name: str) -> None:
        """The name of the full graph goes to the first tensor here that asks for it."""
        if name in self.theirs:
            self.theirs.remove(name)
            self.b.taken.discard(name.lower())


def _wider(q: QType, low: int, high: int) -> QType:
    bits, signed = bits_for(min(low, q.min), max(high, q.max), q.signed or None)
    return replace(q, bits=bits, signed=signed)


def _but(values: tuple, axis: int, value: object) -> tuple:  # type: ignore[type-arg]
    return (*values[:axis], value, *values[axis + 1 :])


def _right(op: ops.MaxPool | ops.SumPool, axis: int) -> tuple[int, int]:
    """The padding of another axis with the last partial window of ceil_mode as padding, which no maximum takes in."""
    before, after = op.padding[axis]
    if not op.ceil_mode:
        return before, after
    end = (op.output.shape[axis] - 1) * op.strides[axis] + op.kernel[axis]
    return before, max(end - op.input.shape[axis] - before, after)


def _reading(op: Op, given: list[Tensor]) -> Op:
    """The op with other inputs."""
    match op:
        case ops.Concat():
            return replace(op, inputs=tuple(given))
        case ops.Add() | ops.Sub() | ops.Multiply():
            return replace(op, a=given[0], b=given[1])
        case ops.Lookup() if _span(given[0].qtype) != _span(op.input.qtype):
            return replace(op, input=given[0], table=_longer(op, given[0].qtype))
        case ops.Interpolate() if _span(given[0].qtype) != _span(op.input.qtype):
            raise UnsupportedError(where(op), "interpolates a sum, which takes more bits here", "requantize before it")
        case _:
            return replace(op, input=given[0])


def _span(q: QType) -> tuple[int, int]:
    return q.min, q.max


def _longer(op: ops.Lookup, q: QType) -> Const:
    """The table for an input that is wider here; the values that it has more are never reached."""
    if q.bits > MAX_LOOKUP_BITS:
        what = f"looks up a sum, which takes {q.bits} bits here, at most {MAX_LOOKUP_BITS}"
        raise UnsupportedError(where(op), what, "requantize before it")
    old = op.input.qtype
    at = np.clip(np.arange(q.min, q.max + 1), old.min, old.max) - old.min
    name = f"{op.table.tensor.name}_{q.text}"
    return Const.of(name, op.table.array[at], op.table.tensor.qtype)
