"""Framework against reference, tensor by tensor: how many integers differ, why, where the first does, and both values.

Its one rule: integers are compared, every difference is counted, and each has one proved cause or is unexplained. Each op
is evaluated twice: on the graph's own integers, and on those that the framework had. What differs in the first only
`follows`; what differs in the second began here, and is float32's doing (see `_Noise`) or nobody's: unexplained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from toolchain.errors import ToolchainError
from toolchain.framework import PLAIN, Affine, Rounded, Run, Shown
from toolchain.inputs import dequantize
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.types import Ints
from toolchain.options import LoadOptions
from toolchain.reference import check_inputs, evaluate, trace

UNIT = 2.0**-24  # float32 rounds each result by at most this part of it
# Roundings of one value besides a sum's: input, weight, bias, BatchNormalization (TensorFlow's rsqrt: 4 alone). Over the
# models tried float32 was off by up to a third of the noise that this gives.
FEW = 8
EXACT = 1 << 24  # float32 holds every integer up to here, so sums that stay below are exact
RESIDUE = 1e-3  # steps
AT_ONCE = 1 << 23  # integers of all tensors that are compared at once: some 0.5 GB
Reals = Mapping[str, np.ndarray]
TABLES = (ops.Threshold, ops.Lookup, ops.Interpolate, ops.ArgMax, ops.Softmax, ops.Softmax16)  # no noise goes through
CAUSES = ("follows", "float32_tie", "float32_range", "unexplained")


@dataclass(frozen=True)
class First:
    """The first difference: its index (sample first), and both values as stored integers and as the framework's real."""

    index: tuple[int, ...]
    framework: int
    graph: int
    framework_real: float


@dataclass(frozen=True)
class TensorReport:
    tensor: str
    layer: str
    compared: int
    differ: int  # the sum of the four causes
    follows: int  # with the framework's own integers as inputs the op gives the framework's integer
    float32_tie: int  # float32 noise of the framework's sum lies across a rounding boundary
    float32_range: int  # float32 cannot hold the integer
    unexplained: int
    off_grid: int  # real values that are no whole number of steps
    largest: int  # difference that began here, in steps (of a ladder, in levels)
    first: First | None  # that is unexplained, if there is one
    residue: float  # the most that rint(value / scale) left over, in steps


@dataclass(frozen=True)
class OutputReport:
    tensor: str
    integers_equal: float  # share
    argmax_equal: float  # share of the vectors along the last axis


@dataclass(frozen=True)
class Verification:
    graph: str
    samples: int
    tensors: tuple[TensorReport, ...]
    outputs: tuple[OutputReport, ...]
    not_compared: tuple[str, ...]  # tensors that no layer of the framework shows
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Nothing unexplained, nothing off the grid; compare() has seen to it that every graph output was compared."""
        return not any(t.unexplained or t.off_grid for t in self.tensors)

    @property
    def causes(self) -> dict[str, int]:
        return {c: sum(getattr(t, c) for t in self.tensors) for c in CAUSES}

    @property
    def first(self) -> TensorReport | None:
        """The first tensor, in the order of the graph, with an unexplained difference."""
        return next((t for t in self.tensors if t.unexplained or t.off_grid), None)

    def as_json(self) -> dict[str, Any]:
        return {"equal": self.equal, "causes": self.causes, **asdict(self)}


def real_inputs(graph: Graph, stored: Mapping[str, Ints], options: LoadOptions) -> dict[str, np.ndarray]:
    """What the framework is given for these stored integers: their real values, normalised as the options say."""
    found = {}
    for tensor in graph.inputs:
        x = dequantize(tensor, stored[tensor.name])
        if options.input_type is not None:
            mean = np.array([float(m) for m in options.input_mean or (0,)])
            std = np.array([float(s) for s in options.input_std or (1,)])
            x = (x - mean) / std
        found[tensor.name] = x.astype(np.float32)
    return found


def run(graph: Graph, stored: Mapping[str, Ints], options: LoadOptions, framework: Run) -> Verification:
    """compare() on as many samples at once as memory allows; the reports of all are one."""
    count = len(next(iter(stored.values())))
    step = max(1, AT_ONCE // sum(t.size for t in (*graph.inputs, *(op.output for op in graph.ops))))
    found = []
    for i in range(0, count, step):
        some = {name: x[i : i + step] for name, x in stored.items()}
        found.append(compare(graph, some, framework(real_inputs(graph, some, options))))
    return joined(found)


def joined(parts: Sequence[Verification]) -> Verification:
    """One report of several runs of samples: what is counted adds up, and the first difference is counted on."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(p.samples for p in parts)])
    tensors = []
    for rows in zip(*(p.tensors for p in parts), strict=True):
        sums = {f: sum(getattr(r, f) for r in rows) for f in ("compared", "differ", *CAUSES, "off_grid")}
        at = next((i for i, r in enumerate(rows) if r.unexplained or r.off_grid), None)
        if at is None:
            at = next((i for i, r in enumerate(rows) if r.first), None)
        first = None
        if at is not None and (found := rows[at].first) is not None:
            first = replace(found, index=(found.index[0] + int(starts[at]), *found.index[1:]))
        largest, residue = max(r.largest for r in rows), max(r.residue for r in rows)
        tensors.append(replace(rows[0], **sums, largest=largest, first=first, residue=residue))
    outputs = []
    for given in zip(*(p.outputs for p in parts), strict=True):
        shares = [sum(getattr(o, f) * p.samples for o, p in zip(given, parts, strict=True)) / int(starts[-1]) for f in ("integers_equal", "argmax_equal")]  # fmt: skip
        outputs.append(OutputReport(given[0].tensor, *shares))
    return replace(parts[0], samples=int(starts[-1]), tensors=tuple(tensors), outputs=tuple(outputs))


def compare(graph: Graph, stored: Mapping[str, Ints], told: Iterable[Shown]) -> Verification:
    """`told`: what the framework shows. Raises ToolchainError where a graph output is not among it."""
    rows: dict[str, list[Shown]] = {}
    for shown in told:
        rows.setdefault(shown.tensor, []).append(shown)
    if not rows:
        raise ToolchainError(f"graph {graph.name}", "the framework shows none of its tensors, so nothing was compared")
    missing = [t.name for t in graph.outputs if t.name not in rows]
    if missing:
        raise ToolchainError(
            f"graph output {', '.join(missing)}", "the framework does not show it, so it was not compared"
        )
    ours = trace(graph, stored)
    forced: dict[str, Ints] = {**ours, **check_inputs(graph, stored)}
    made = {op.output.name: op for op in graph.ops}
    tensors = {t.name: t for t in (*graph.inputs, *(op.output for op in graph.ops))}
    resets = {s.tensor for shown in rows.values() for s in shown if s.rounded}
    noise = _Noise(tensors, made, resets, forced)
    reports = []
    wholes: dict[str, Ints] = {}  # the framework's integers
    for name, tensor in tensors.items():
        op = made.get(name)
        if op is not None:
            forced[name] = evaluate(op, *(forced[t.name] for t in ops.inputs_of(op)))
        for shown in rows.get(name, ()):  # what one row has explained, the next need not
            report, theirs = _row(shown, tensor, op, ours[name], forced[name], noise, tensors)
            reports.append(report)
            wholes[name] = theirs
            if shown.meaning == PLAIN or shown.rounded:
                forced[name] = np.clip(theirs, tensor.qtype.min, tensor.qtype.max)
    outputs = tuple(_output(t, rows[t.name][-1], ours[t.name], wholes[t.name]) for t in graph.outputs)
    left = tuple(n for n in tensors if n not in rows)
    return Verification(graph.digest(), len(next(iter(stored.values()))), tuple(reports), outputs, left, graph.notes)


def _row(
    shown: Shown, tensor: Tensor, op: ops.Op | None, ours: Ints, here: Ints, noise: _Noise, tensors: dict[str, Tensor]
) -> tuple[TensorReport, Ints]:
    """The report, and the integers that the framework had: what the graph gets here where float32 cannot tell."""
    layer, real = shown.layer, shown.real
    if not np.isfinite(real).all():
        raise ToolchainError(f"layer {layer}", "the framework gives NaN or infinity", "verify with other inputs")
    if real.shape != ours.shape:
        raise ToolchainError(f"layer {layer}", f"the framework gives {list(real.shape)}, the graph {list(ours.shape)}")
    a = np.array([float(x) for x in shown.meaning.columns(tensor)[0]])
    step = np.where(a == 0, np.array([float(s) for s in tensor.qtype.scales]), a)
    real = real.astype(np.float64)
    local, whole = _steps(real, shown, tensor, here, step)  # against what the framework's own integers give
    _, pure = _steps(real, shown, tensor, ours, step)
    if shown.fine:  # the real value's own steps are coarser: the graph's is right as far as it can tell, or is not
        slack = 0.5 + RESIDUE + noise.of(tensor, shown.meaning) / np.abs(step)
        whole = np.where(np.abs(local - here) <= slack, here, whole)
        pure = np.where(whole == here, here, pure)
    began, differs = whole != here, pure != ours
    left = np.zeros(whole.shape) if shown.fine else np.abs(local - whole)
    off_grid = left > RESIDUE
    tie, held = np.zeros_like(began), np.zeros_like(began)
    if began.any() or off_grid.any():
        # a rounded value is a whole number, and QKeras' x + (xq - x) adds noise of x's own size
        size = noise.of(tensor, shown.meaning) / np.abs(step)
        if shown.rounded:
            read = 0.0 if shown.rounded.real is None else np.abs(shown.rounded.real / step)
            size = FEW * UNIT * (np.abs(here) + read)
            if began.any():
                tie = _ties(shown.rounded, tensor, op, whole, here, began, noise, tensors)
            large = np.abs(here - tensor.qtype.zero_point)
            held = began & ~tie & (np.abs(local - here) <= 2 * UNIT * large)  # at least one step: none below 2**23
        else:
            held = began & (np.abs(local - here) <= size)
        off_grid &= left > np.minimum(size, 0.5)
    unexplained = began & ~tie & ~held
    follows = differs & ~began
    any_of = began | differs
    worst = unexplained | off_grid
    first = None
    if any_of.any() or off_grid.any():
        at = tuple(int(i) for i in np.argwhere(worst if worst.any() else any_of)[0])
        first = First(at, int(whole[at]), int(here[at] if began[at] else ours[at]), float(real[at]))
    report = TensorReport(
        tensor=shown.tensor,
        layer=layer,
        compared=int(ours.size),
        differ=int(any_of.sum()),
        follows=int(follows.sum()),
        float32_tie=int(tie.sum()),
        float32_range=int(held.sum()),
        unexplained=int(unexplained.sum()),
        off_grid=int(off_grid.sum()),
        largest=int(_apart(op, whole, here).max(initial=0)),
        first=first,
        residue=float(left.max(initial=0)),
    )
    return report, np.where(held, here, whole)


def _steps(real: np.ndarray, shown: Shown, tensor: Tensor, stored: Ints, step: np.ndarray) -> tuple[Any, Any]:
    """The framework's value as stored integers, before and after rint. Through a clip only the distance can be told."""
    steps = stored + (real - shown.meaning.real(tensor, stored)) / step
    return steps, np.rint(steps).astype(np.int64)


def _ties(
    r: Rounded,
    tensor: Tensor,
    op: ops.Op | None,
    whole: Ints,
    here: Ints,
    began: np.ndarray,
    noise: _Noise,
    tensors: dict[str, Tensor],
) -> np.ndarray:
    """Where the framework's quantizer, given the exact value (to its last float32 bit), gives the graph's integer, while
    the value it had was off by no more than float32's noise. An exact sum has none, and then nothing is a tie."""
    rows = np.flatnonzero(began.reshape(len(began), -1).any(axis=1))
    source = tensors[r.tensor]
    exact = r.meaning.real(source, noise.values[r.tensor][rows])
    allowed = noise.of(source, r.meaning, rows)
    scale = np.array([float(s) for s in tensor.qtype.scales])

    def gives(x: np.ndarray, wanted: Ints) -> Any:
        return np.rint(np.asarray(r.quantizer(x), np.float64) / scale + tensor.qtype.zero_point) == wanted

    # the quantizer divides by its scale, which is exact for a power of two alone, and adds its zero point
    inner = np.zeros(exact.shape)
    zero = tensor.qtype.zero_point
    if zero or any(s.numerator & (s.numerator - 1) or s.denominator & (s.denominator - 1) for s in tensor.qtype.scales):
        inner = 2 * UNIT * (np.abs(exact) + np.abs(exact + zero * scale) * bool(zero))
    allowed = allowed + inner
    if r.real is not None:
        near = (np.abs(r.real[rows] - exact) <= allowed) & (allowed > 0)
    else:  # within one operator, whose factor is a product and a quotient of scales
        allowed = allowed + 4 * UNIT * np.abs(exact)
        near = np.zeros(exact.shape, bool)
        for sign in (-1, 1):
            near |= gives((exact + sign * allowed).astype(np.float32), whole[rows])
    agrees = np.zeros_like(near)
    for sign in (0, -1, 1):  # where the quantizer's own edges may lie, to one float32 further
        probe = (exact + sign * inner).astype(np.float32)
        agrees |= gives(np.nextafter(probe, np.float32(sign * np.inf)) if sign else probe, here[rows])
    found = np.zeros_like(began)
    found[rows] = began[rows] & near & agrees & (_apart(op, whole[rows], here[rows]) == 1)
    return found


def _apart(op: ops.Op | None, x: Ints, y: Ints) -> Any:
    """The difference in steps; on a ladder, in levels of the channel, where both are levels."""
    found = np.abs(x - y)
    if not isinstance(op, ops.Threshold | ops.Lookup) or not found.any():
        return found
    rows = np.atleast_2d(op.levels.array if isinstance(op, ops.Threshold) else op.table.array)
    for c in range(x.shape[-1]):
        levels = np.unique(rows[c if len(rows) > 1 else 0])
        at = [np.minimum(np.searchsorted(levels, v[..., c]), len(levels) - 1) for v in (x, y)]
        both = (levels[at[0]] == x[..., c]) & (levels[at[1]] == y[..., c])
        found[..., c] = np.where(both, np.abs(at[0] - at[1]), found[..., c])
    return found


class _Noise:
    """How far float32 may be off for each element of a tensor: UNIT * (sqrt(n) + FEW) * (sum of the terms' magnitudes).

    The terms are those of every sum since the framework last rounded, n their number. The worst case grows with n, and
    roundings that are independent grow with its square root. An offset counts FEW times; that of a BatchNormalization as
    much as the channel's largest sum, since its mean is one of them. 0 where all terms are multiples of one power of two and
    their magnitudes sum to less than 2**24 of it: then float32 is exact.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], made: Mapping[str, ops.Op], resets: set[str], values: dict[str, Ints]
    ):
        self.tensors, self.made, self.resets, self.values = tensors, made, resets, values
        self._known: dict[str, tuple[np.ndarray, int]] = {}

    def of(self, tensor: Tensor, meaning: Affine, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """In real units, [batch, ...]."""
        size, terms = self.magnitude(tensor.name)
        size = size[rows]
        a, b = meaning.columns(tensor)
        if _held(a, b, tensor.qtype.zero_point, size):
            return np.zeros(size.shape)
        whole = size * np.array([abs(float(x)) for x in a])
        offset = np.array([abs(float(x)) for x in meaning.intercept])
        if meaning.slope != PLAIN.slope:  # beta - mean * slope: the parts of a BatchNormalization may be larger than it
            offset = np.maximum(offset, whole.max(axis=tuple(range(whole.ndim - 1)), initial=0))
        found: np.ndarray = UNIT * ((terms**0.5 + FEW) * whole + FEW * offset)
        return found

    def magnitude(self, name: str) -> tuple[np.ndarray, int]:
        """Sum of the magnitudes of the terms, in steps, and their number."""
        if name not in self._known:
            self._known[name] = self._magnitude(name)
        return self._known[name]

    def _magnitude(self, name: str) -> tuple[np.ndarray, int]:
        zero = self.tensors[name].qtype.zero_point
        op = self.made.get(name)
        if op is None or name in self.resets or isinstance(op, TABLES):
            return np.abs(self.values[name] - zero), 1
        inputs = ops.inputs_of(op)
        found = [self.magnitude(t.name) for t in inputs]
        terms = max(n for _, n in found)
        sizes = [m + t.qtype.zero_point for (m, _), t in zip(found, inputs, strict=True)]
        match op:
            case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
                taps = op.weight.tensor.size // op.output.channels
                bias = None if op.bias is None else _absolute(op.bias)
                return evaluate(replace(op, weight=_absolute(op.weight), bias=bias), *sizes), terms * taps + 1
            case ops.Requantize():
                m, o, s = (np.array(v, dtype=np.float64) for v in (op.multiplier, op.offset, op.shift))
                # the offset undoes the input's zero point as well, and a rounding one is half a step
                return np.ceil((found[0][0] * np.abs(m) + np.abs(o)) / 2.0**s).astype(np.int64), terms + 1
            case ops.SumPool():
                return evaluate(op, *sizes), terms + int(np.prod(op.kernel))
            case ops.Add() | ops.Sub():
                return sizes[0] + sizes[1], sum(n for _, n in found) + 1
            case ops.Pad():
                return evaluate(replace(op, value=abs(op.value - zero) + zero), *sizes) - zero, terms
            case _:
                return evaluate(op, *sizes) - zero, terms + 1


def _absolute(c: Any) -> Any:
    kind = replace(c.tensor.qtype, bits=64, signed=True)
    return type(c).of(c.tensor.name, np.abs(c.array), kind)


def _held(a: Sequence[Fraction], b: Sequence[Fraction], zero: int, size: np.ndarray) -> bool:
    """Whether float32 holds every sum of these magnitudes: all multiples of one power of two, below 2**24 of it."""
    every = [x for x in (*a, *(y + x * zero for x, y in zip(a, b, strict=True))) if x]
    if not every or any(x.denominator & (x.denominator - 1) for x in every):
        return not every
    top = int(size.max(initial=0))
    for x, y in zip(a, b, strict=True):
        y += x * zero
        unit = Fraction(1, max(x.denominator, y.denominator))
        while not any(v % (2 * unit) for v in (x, y)) and (x or y):
            unit *= 2
        if abs(x / unit) * top + abs(y / unit) >= EXACT:
            return False
    return True


def _output(tensor: Tensor, shown: Shown, ours: Ints, whole: Ints) -> OutputReport:
    """A sample's argmax is equal where the graph holds its largest value at the place where the framework does."""
    mine = dequantize(tensor, ours)
    if shown.fine or shown.meaning != PLAIN:
        same = whole == ours
    else:
        scale = np.array([float(s) for s in tensor.qtype.scales])
        same = np.rint(shown.real.astype(np.float64) / scale) + tensor.qtype.zero_point == ours
    best = np.argmax(shown.real, axis=-1, keepdims=True)
    equal = np.take_along_axis(mine, best, axis=-1)[..., 0] == mine.max(axis=-1)
    return OutputReport(tensor.name, float(same.mean()), float(equal.mean()))
