"""A model over a window of frames as one that is given only the new frames and keeps the rest: `bitwright stream`.

One rule: at every step its outputs are those of the full model on the present window, integer for integer. The first windows
are filled up with real 0, which the initial states hold, so that this is true from the first step on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.inspect import macs
from toolchain.ir import Graph, Tensor, check
from toolchain.ir.ops import Op, inputs_of, where
from toolchain.layout import nbytes

from .windows import Course, courses
from .writer import Writer, given_out


@dataclass(frozen=True)
class Stream:
    """The graph of one step, and what it is of the full one."""

    full: Graph
    graph: Graph
    input: str
    axis: int  # time, in the input
    window: int  # frames of the full model's input
    frames: int  # new ones at a step
    given: dict[
        str, tuple[int, tuple[int, int]] | None
    ]  # an output -> its axis and the positions that a step gives; None: all
    anew: tuple[str, ...]  # ops that compute at every step what was there the step before, and why

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of the full model for one window, and of one step."""
        full, step = (sum(map(macs, g.ops)) for g in (self.full, self.graph))
        return full, step

    def as_json(self) -> dict[str, object]:
        full, step = self.macs
        return {
            "full": self.full.digest(),
            "graph": self.graph.digest(),
            "input": self.input,
            "axis": self.axis,
            "window_frames": self.window,
            "step_frames": self.frames,
            "macs_window": full,
            "macs_step": step,
            "state_bytes": sum(nbytes(s.input) for s in self.graph.states),
            "outputs": {t.name: list(t.shape) for t in self.graph.outputs},
            "computed_anew": list(self.anew),
        }


def stream(graph: Graph, frames: int | None = None, axis: int | None = None, name: str | None = None) -> Stream:
    """The step of `frames` new frames (by default as many as the strides need) along `axis` of the input `name`.

    UnsupportedError, naming the op, where nothing of a window can be kept for the next.
    """
    made = step(graph, frames, axis, name)
    full, one = made.macs
    if one >= full:
        found = courses(graph, *_time(graph, made.axis, name), made.frames)
        op = _first_lost(graph, found) or graph.ops[0]
        raise UnsupportedError(
            where(op),
            f"{_why(op, found, made.frames)}, so no work on one window of {made.window} frames saves any on the next",
            "stream a model with convolutions along time before it; --axis says which axis is time",
        )
    return made


def step(graph: Graph, frames: int | None = None, axis: int | None = None, name: str | None = None) -> Stream:
    """As `stream`, of any graph, whether it saves anything or not."""
    start, axis = _time(graph, axis, name)
    size = start.shape[axis]
    if frames is not None and not 1 <= frames < size:
        raise ToolchainError(f"--frames {frames}", f"must be 1 to {size - 1}: a window has {size} frames")
    strides = [c.stride for c in courses(graph, start, axis, 1).values() if c.size > 1]
    chosen = frames or min(lcm(*strides), size - 1)
    found = courses(graph, start, axis, chosen)
    writer = Writer(graph, start, chosen, found)
    made = check(writer.write())
    note = f"one step of {graph.name}: {chosen} new of {size} frames of input {start.name}; the first windows are filled up with 0"
    given = {}
    for t in graph.outputs:
        part = given_out(t, found.get(t.name), chosen)
        given[t.name] = (found[t.name].axis, part) if part else None
    made = replace(made, notes=(*graph.notes, note))
    return Stream(graph, made, start.name, axis, size, chosen, given, _anew(graph, found, chosen, writer.computed))


def _time(graph: Graph, axis: int | None, name: str | None) -> tuple[Tensor, int]:
    """The input that frames come in, and the axis that is time: the first of more than one index, where nobody said."""
    names = [t.name for t in graph.inputs]
    if graph.states:
        raise UnsupportedError(f"graph {graph.name}", "keeps states already, must be a model of a whole window")
    if name is None and len(names) > 1:
        raise ToolchainError("--stream-input", f"is missing, must be one of {', '.join(names)}")
    if name is not None and name not in names:
        raise ToolchainError(f"--stream-input {name}", f"is no input of the model, must be one of {', '.join(names)}")
    start = graph.inputs[names.index(name)] if name else graph.inputs[0]
    if axis is None:
        axis = next((k for k, n in enumerate(start.shape) if n > 1), 0)
    if not 0 <= axis < len(start.shape) or start.shape[axis] < 2:
        legal = [str(k) for k, n in enumerate(start.shape) if n > 1]
        what = f"is no axis of time of input {start.name} {list(start.shape)}, must be {' or '.join(legal) or 'one of several frames'}"
        raise ToolchainError(f"--axis {axis}", what)
    return start, axis


def _first_lost(graph: Graph, found: dict[str, Course]) -> Op | None:
    """The first op that reads what moves with the frames and gives what does not."""
    for op in graph.ops:
        given = [found[t.name] for t in inputs_of(op) if t.name in found]
        after = found.get(op.output.name)
        if any(c.moved for c in given) and (after is None or not after.moved):
            return op
    return None


def _why(op: Op | None, found: dict[str, Course], frames: int) -> str:
    course = found.get(op.output.name) if op else None
    if course is None:
        return "mixes all frames of the window"
    if course.size == 1:
        return "gives one position for the window"
    if frames % course.stride:
        return f"gives one position for {course.stride} frames, and {frames} come at a step"
    return f"gives {course.size} positions of which a step of {frames} frames or padding replaces all"


def _anew(graph: Graph, found: dict[str, Course], frames: int, computed: dict[str, int]) -> tuple[str, ...]:
    """A line for each op that padding has compute more than what is new, where none before it does so more; and for what is not kept."""
    lines = []
    lost = _first_lost(graph, found)
    for op in graph.ops:
        name = op.output.name
        given = [found[t.name] for t in inputs_of(op) if t.name in found]
        if name not in found or not found[name].moved or not computed.get(name, 0) > found[name].moved:
            continue
        if any(_edges(found[name]) > _edges(c) for c in given):
            more = computed[name] - found[name].moved
            lines.append(f"{where(op)}: {more} of its {found[name].size} positions, which padding reaches")
    if lost is not None:
        lines.append(f"{where(lost)}, and all after it: {_why(lost, found, frames)}")
    return tuple(lines)


def _edges(course: Course) -> int:
    return course.size - (course.end - course.begin)


__all__ = ["Stream", "step", "stream"]
