"""Graph: named inputs and outputs, states, and ops in order; immutable, and complete: nothing is left to infer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .ops import Op, consts_of, inputs_of
from .types import Const, Tensor


@dataclass(frozen=True)
class State:
    """A value kept between inferences: read as `input`, replaced by `output` at the end, `initial` at first."""

    input: Tensor
    output: Tensor
    initial: Const


def channels_first_note(name: str) -> str:
    """The note that a front end leaves for the host where the model's own axes of an input are in another order."""
    return f"input {name}: channels come first in the model and last here; samples are taken either way (--channels says which where both have one shape)"


@dataclass(frozen=True)
class Graph:
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    states: tuple[State, ...] = ()
    notes: tuple[str, ...] = ()
    """What the host has to know and the integers do not say ("softmax left to the host"); part of neither digest nor equality of meaning."""

    def tensors(self) -> Iterator[Tensor]:
        """Every data tensor once: inputs, states, then each op's output."""
        yield from self.inputs
        for state in self.states:
            yield state.input
        for op in self.ops:
            yield op.output

    def consts(self) -> Iterator[Const]:
        for state in self.states:
            yield state.initial
        for op in self.ops:
            yield from consts_of(op)

    def live_ops(self) -> tuple[Op, ...]:
        """In order, the ops whose output reaches a graph output or a state."""
        wanted = {t.name for t in self.outputs} | {s.output.name for s in self.states}
        kept: list[Op] = []
        for op in reversed(self.ops):
            if op.output.name in wanted:
                wanted.update(t.name for t in inputs_of(op))
                kept.append(op)
        return tuple(reversed(kept))

    def unread_inputs(self) -> tuple[Tensor, ...]:
        """The inputs that no op reads and that are no output."""
        read = {t.name for op in self.ops for t in inputs_of(op)} | {t.name for t in self.outputs}
        return tuple(t for t in self.inputs if t.name not in read)

    def channels_first(self, name: str) -> bool:
        """Whether the model itself takes this input channels first."""
        return channels_first_note(name) in self.notes

    def digest(self) -> str:
        """sha256 of what the graph computes: the canonical text without notes."""
        from .text import digest

        return digest(self)

    def __str__(self) -> str:
        from .text import dump

        return dump(self)
