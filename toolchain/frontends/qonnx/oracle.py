"""What the model's own framework computes of each tensor that the graph has: the other side of `bitwright verify`.

Its one rule: the framework's values are only laid out as ours and given a meaning; they are never rounded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from toolchain.framework import PLAIN, Affine, Answer, Program, Read, Rounded, Run, Shown
from toolchain.frontends.qonnx import archive, dialects
from toolchain.frontends.qonnx.executor import Executor
from toolchain.frontends.qonnx.layouts import Data, channels_last
from toolchain.frontends.qonnx.lowering import Lowered, lower_model
from toolchain.ir import Tensor, ops
from toolchain.ir.values import Value
from toolchain.options import LoadOptions

ELEMENTWISE = {
    "Add", "BatchNormalization", "BipolarQuant", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout", "Flatten", "HardSigmoid", "Identity",
    "IntQuant", "LeakyRelu", "Mul", "MultiThreshold", "PRelu", "Quant", "QuantizeLinear", "Relu", "Reshape", "Sigmoid", "Squeeze", "Sub", "Tanh",
    "Transpose", "Trunc", "Unsqueeze",
}  # fmt: skip
"""Through these a quantizer is asked again: each value alone is what they read."""


def run(source: object, options: LoadOptions, program: Program | None = None) -> Run:
    """What to call with real inputs. `program` is the source that this one was converted from, which then is the framework."""
    model = archive.read(source, options)
    lowered = lower_model(dialects.rewrite(model), options)
    if lowered.host:  # what a softmax reads no module shows: then the file's own framework is asked
        program = None
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
        self.made = {op.output.name: op for op in graph.ops}
        self.live = {i.name for i in self.model.inputs}
        for node in self.model.nodes:
            if self.live.intersection(node.inputs):
                self.live.update(filter(None, node.outputs))

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
        outputs = self.model.outputs
        values = e.run(given, (*self.lowered.values, *outputs, *map(self._host, outputs)))
        found = {}
        for name, real in values.items():
            reads = tuple(Read(n, values[n], partial(e.again, n, name)) for n in self._behind(name) if n in values)
            node = self.makers.get(name)
            found[name] = Answer(node.name if node else name, real, reads)
        return found

    def _behind(self, name: str) -> Iterator[str]:
        """The tensors of the graph that one node after another read first, back to the input."""
        inputs = {i.name for i in self.model.inputs}
        while name in self.makers and self.makers[name].op in ELEMENTWISE:
            data = [n for n in self.makers[name].inputs if n in self.live]
            if len(data) != 1:
                return
            [name] = data
            if name in self.lowered.values or name in inputs:
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
            rounded = self._rounded(name, d, meaning, a)
            yield Shown(
                d.tensor.name, a.layer, d.to_ours(a.real), meaning, rounded, rounded is None and self._fine(d.tensor)
            )
        for tensor, output in self.lowered.names.items():
            if (tensor, PLAIN) not in done and self._host(output) in answers:
                yield self._output(self.tensors[tensor], output, answers[self._host(output)])

    def _output(self, t: Tensor, output: str, a: Answer) -> Shown:
        d = self.lowered.values[output]
        integers = d.value.columns() == [(Fraction(1), Fraction(0))]  # the output is the stored integers themselves
        meaning = _affine(d.value) if integers and t.name == d.tensor.name else PLAIN
        finer = t.name != d.tensor.name and any(abs(a) > s for a, _ in d.value.columns() for s in t.qtype.scales)
        return Shown(t.name, a.layer, _laid_out(d, t, a.real), meaning, fine=finer or t.name in self.lowered.fine)

    def _fine(self, t: Tensor) -> bool:
        """Whether ours is aligned to steps that float32 cannot hold, as branches of scales without a common measure are."""
        op = self.made.get(t.name)
        sums = ops.Dense | ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D
        return t.qtype.bits > 24 and op is not None and not isinstance(op, sums)

    def _rounded(self, name: str, d: Data, meaning: Affine, a: Answer) -> Rounded | None:
        """How the framework rounded: the nearest tensor behind it that is what our quantizer reads."""
        before = self.lowered.before.get(d.tensor.name)
        if before is None or meaning.lo is not None or meaning.hi is not None or 0 in meaning.slope:
            return None
        reads = [r for r in a.reads if r.name in self.lowered.values and self.lowered.values[r.name].function is None]
        for read in reads:
            source = self.lowered.values[read.name]
            if source.tensor.name == before.tensor.name and source.tensor.name in self.tensors:
                return _asked_again(d, meaning, source, read)
        first = (
            reads[0] if reads and reads[0] is a.reads[0] and reads[0].real.shape == (len(a.real), *d.shape) else None
        )
        if before.function is not None or before.tensor.name not in self.tensors:
            return None
        if first is not None and self.lowered.values[first.name].tensor.name != d.tensor.name:
            return _asked_again(d, meaning, before, first)  # a pending function was carried out between them, exactly
        return self._within(name, before)

    def _within(self, name: str, before: Data) -> Rounded | None:
        """Of operators that sum and round in one."""
        node = self.executor.makers.get(name) if self.executor else None
        if node is None or node.op_type not in ("QLinearConv", "QLinearMatMul"):
            return None
        d, executor = self.lowered.values[name], self.executor
        assert executor is not None
        meaning = _affine(d.value)
        ask = partial(executor.quantized, node.input[6], node.input[7])
        found = _asked_again(d, meaning, before, Read(name, np.zeros((1, *before.shape)), ask))
        return Rounded(found.tensor, found.meaning, None, found.quantizer)


def _asked_again(d: Data, meaning: Affine, source: Data, read: Read) -> Rounded:
    slope, intercept = (np.array([float(v) for v in vs]) for vs in (meaning.slope, meaning.intercept))

    def quantizer(x: np.ndarray) -> np.ndarray:
        found: np.ndarray = d.to_ours(read.quantizer(source.to_model(x).astype(np.float32)))
        return found if meaning == PLAIN else (found.astype(np.float64) - intercept) / slope

    return Rounded(source.tensor.name, _affine(source.value), source.to_ours(read.real), quantizer)


def _affine(v: Value) -> Affine:
    return Affine(v.slope, v.intercept, v.lo, v.hi)


def _laid_out(d: Data, t: Tensor, real: np.ndarray) -> np.ndarray:
    """[batch, *the model's shape] -> [batch, *ours] of a graph output: a map's channels are last, all else is in the model's order."""
    last = channels_last(len(d.shape)) if d.shape else ()
    mapped = len(d.shape) == 3 or (d.base == d.shape and d.axes == last)
    moved = real.reshape(-1, *d.shape).transpose(0, *(a + 1 for a in last)) if mapped else real
    return moved.reshape(len(real), *t.shape)
