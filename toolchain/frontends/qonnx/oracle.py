"""What the model's own framework computes of each tensor that the graph has: the other side of `bitwright verify`.

Its one rule: the framework's values are only laid out as ours and given a meaning; they are never rounded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from toolchain.framework import PLAIN, Affine, Answer, Program, Read, Rounded, Run, Shown
from toolchain.frontends.qonnx import archive, dialects
from toolchain.frontends.qonnx.executor import Executor
from toolchain.frontends.qonnx.layouts import Data, channels_last
from toolchain.frontends.qonnx.lowering import Lowered, lower_model
from toolchain.ir import Tensor
from toolchain.ir.values import Value
from toolchain.options import LoadOptions


def run(source: object, options: LoadOptions, program: Program | None = None) -> Run:
    """What to call with real inputs. `program` is the source that this one was converted from, which then is the framework."""
    model = archive.read(source, options)
    lowered = lower_model(dialects.rewrite(model), options)
    executor = None if program else Executor(archive.opened(source, options, []))
    asked = _Asked(model, lowered, options, executor)

    def answer(reals: Mapping[str, np.ndarray]) -> list[Shown]:
        given = asked.given(reals)
        answers = program(given) if program else asked.answers(given)
        return list(asked.shown(answers))

    return answer


@dataclass
class _Asked:
    model: archive.Model
    lowered: Lowered
    options: LoadOptions
    executor: Executor | None

    def __post_init__(self) -> None:
        graph = self.lowered.graph
        self.tensors: dict[str, Tensor] = {t.name: t for t in (*graph.inputs, *(op.output for op in graph.ops))}
        self.makers = {name: node for node in self.model.nodes for name in node.outputs}

    def given(self, reals: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs as the file has them: its axes, its element type, and its integers where it reads integers."""
        found = {}
        for i in self.model.inputs:
            d = self.lowered.values[i.name]
            x = np.asarray(reals[d.tensor.name], np.float64)
            if self.options.input_type is None:  # with it, the reals are what the model reads already
                slope, intercept = ([float(v) for v in vs] for vs in (d.value.slope, d.value.intercept))
                x = x * np.array(slope) + np.array(intercept)
            x = d.to_model(x)
            kind = np.dtype(np.float32 if i.dtype.endswith("int4") else i.dtype)
            found[i.name] = x.astype(kind) if kind.kind == "f" else np.rint(x).astype(kind)
        return found

    def answers(self, given: Mapping[str, np.ndarray]) -> dict[str, Answer]:
        """Of the file's own framework."""
        e = self.executor
        assert e is not None
        names = [
            n for n in (*self.lowered.values, *self.model.outputs, *map(self._host, self.model.outputs)) if n in e.live
        ]
        values = e.run(given, names)
        found = {}
        for name in names:
            reads = tuple(Read(n, values[n], partial(e.again, n, name)) for n in self._behind(name) if n in values)
            node = self.makers.get(name)
            found[name] = Answer(node.name if node else name, values[name], reads)
        return found

    def _behind(self, name: str) -> Iterator[str]:
        """The tensors that one node after another read first, back to the input."""
        while name in self.makers:
            node = self.makers[name]
            data = [n for n in node.inputs if n in self.lowered.values]
            if len(data) != 1:
                return
            name = data[0]
            yield name

    def _host(self, output: str) -> str:
        """What is shown for a model's output: of one whose last function is left to the host, what that function reads."""
        name = output
        if output in self.lowered.host:
            while self.lowered.values[name].function is not None and name in self.makers:
                name = next(n for n in self.makers[name].inputs if n in self.lowered.values)
        return name

    def shown(self, answers: Mapping[str, Answer]) -> Iterator[Shown]:
        done: set[tuple[str, Affine]] = set()
        for name, d in self.lowered.values.items():
            meaning = _affine(d.value)
            key = d.tensor.name, meaning
            if name not in answers or d.function is not None or d.tensor.name not in self.tensors or key in done:
                continue
            if name in {i.name for i in self.model.inputs}:
                continue
            done.add(key)
            a = answers[name]
            rounded = self._rounded(d.tensor, d.to_ours, d.to_model, a) if meaning == PLAIN else None
            yield Shown(d.tensor.name, a.layer, d.to_ours(a.real), meaning, rounded)
        for tensor, output in self.lowered.names.items():
            if (tensor, PLAIN) not in done and self._host(output) in answers:
                yield self._output(self.tensors[tensor], output, answers[self._host(output)])

    def _output(self, t: Tensor, output: str, a: Answer) -> Shown:
        d = self.lowered.values[output]
        integers = d.value.columns() == [
            (Fraction(1), Fraction(0))
        ]  # the model's output is the stored integers themselves
        meaning = _affine(d.value) if integers and t.name == d.tensor.name else PLAIN
        finer = t.name != d.tensor.name and any(abs(a) > s for a, _ in d.value.columns() for s in t.qtype.scales)
        return Shown(t.name, a.layer, _laid_out(d, t, a.real), meaning, fine=finer or t.name in self.lowered.outputs)

    def _rounded(
        self, t: Tensor, to_ours: Callable[[np.ndarray], np.ndarray], to_model: Callable[[np.ndarray], np.ndarray], a: Answer
    ) -> Rounded | None:  # fmt: skip
        """The nearest tensor behind it that has a meaning of its own."""
        if t.name not in self.lowered.before:
            return None
        for read in a.reads:
            d = self.lowered.values.get(read.name)
            if d is None or d.function is not None or d.tensor.name == t.name or d.tensor.name not in self.tensors:
                continue

            def quantizer(x: np.ndarray, read: Read = read, d: Data = d) -> np.ndarray:
                return to_ours(read.quantizer(d.to_model(x).astype(np.float32)))

            return Rounded(d.tensor.name, _affine(d.value), d.to_ours(read.real), quantizer)
        return None


def _affine(v: Value) -> Affine:
    return Affine(v.slope, v.intercept, v.lo, v.hi)


def _laid_out(d: Data, t: Tensor, real: np.ndarray) -> np.ndarray:
    """[batch, *the model's shape] -> [batch, *ours] of a graph output: a map's channels are last, all else is in the model's order."""
    last = channels_last(len(d.shape)) if d.shape else ()
    mapped = len(d.shape) == 3 or (d.base == d.shape and d.axes == last)
    moved = real.reshape(-1, *d.shape).transpose(0, *(a + 1 for a in last)) if mapped else real
    return moved.reshape(len(real), *t.shape)
