"""Quantizers of data, by their definitions: Quant, BipolarQuant, Trunc, MultiThreshold, QuantizeLinear, DequantizeLinear.

Its one rule: a code is what the definition gives for the exact real number, with the file's float32 scale taken as the
rational that it is; what is not constant in the file is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Context as Decimals
from decimal import Decimal
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.layouts import Data, Function, columns, fractions
from toolchain.ir import staircase
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.exact import edge
from toolchain.ir.ops import Rounding
from toolchain.ir.staircase import Edge, Ladder, Uniform
from toolchain.ir.types import QType, bits_for
from toolchain.ir.values import ONE, ZERO, Value, affine, gcd, spread

ROUNDINGS = {
    "ROUND": Rounding.HALF_EVEN,
    "CEIL": Rounding.CEIL,
    "FLOOR": Rounding.FLOOR,
    "UP": Rounding.AWAY_FROM_ZERO,
    "DOWN": Rounding.TOWARD_ZERO,
    "HALF_UP": Rounding.HALF_AWAY,
    "HALF_DOWN": Rounding.HALF_TOWARD_ZERO,
}
DIGITS = Decimals(prec=60)


@dataclass(frozen=True)
class Quantizer:
    """code = clamp(output_offset + round(x / scale + offset), lo, hi), worth (code - zero) * scale.

    `scale`, `offset`, `zero` in the model's shapes; `sign`: -1 and 1 for x < 0 and x >= 0 instead.
    """

    scale: np.ndarray
    zero: np.ndarray
    lo: int
    hi: int
    rounding: Rounding
    after: bool = False  # the zero point is added after rounding (ONNX), not before (QONNX)
    sign: bool = False

    @property
    def bits(self) -> tuple[int, bool]:
        return bits_for(self.lo, self.hi)


def known(node: Node, inputs: Sequence[Constant | None], index: int, what: str) -> np.ndarray:
    """The value of an input that must be constant."""
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise UnsupportedError(
            node.where,
            f"its {what} is computed from data or missing, must be a constant of the file",
            "export the model in eval mode",
        )
    value = found.value
    if not np.isfinite(np.asarray(value, np.float64)).all():
        raise UnsupportedError(node.where, f"its {what} holds NaN or infinity", "train or calibrate the model first")
    return value


def positive(node: Node, scale: np.ndarray, what: str = "scale") -> np.ndarray:
    if (scale <= 0).any():
        raise UnsupportedError(
            node.where, f"its {what} is {float(scale.min()):g}, must be positive", "train or calibrate the model first"
        )
    return scale


def whole(node: Node, value: np.ndarray, what: str, low: int, high: int) -> int:
    """One integer out of a constant."""
    if value.size != 1 and not (value == value.ravel()[0]).all():
        raise UnsupportedError(node.where, f"its {what} differs between channels", f"give all channels one {what}")
    found = float(value.ravel()[0])
    if found != int(found) or not low <= found <= high:
        raise UnsupportedError(node.where, f"its {what} is {found:g}, must be a whole number in {low}..{high}")
    return int(found)


def limits(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The smallest and largest code, as in QONNX."""
    if signed:
        return -(1 << bits - 1) + narrow, (1 << bits - 1) - 1
    return 0, (1 << bits) - 1 - narrow


def rounding_of(node: Node) -> Rounding:
    mode = str(node.attributes.get("rounding_mode", "FLOOR" if node.op == "Trunc" else "ROUND")).upper()
    if mode not in ROUNDINGS:
        raise UnsupportedError(node.where, f"rounding_mode {mode!r} is not supported; supported: {', '.join(ROUNDINGS)}")
    return ROUNDINGS[mode]


def quantizer(node: Node, inputs: Sequence[Constant | None], rank: int) -> Quantizer:
    """Of a Quant, BipolarQuant or QuantizeLinear node on data of `rank` axes, batch included; `inputs` with None for the data."""
    scale = positive(node, known(node, inputs, 1, "scale"))
    if node.op == "BipolarQuant":
        return Quantizer(scale, np.zeros(1), -1, 1, Rounding.HALF_EVEN, sign=True)
    if node.op == "QuantizeLinear":
        scale, zero = along(node, scale, rank), along(node, _zero(node, inputs), rank)
        lo, hi = int(node.attributes["lo"]), int(node.attributes["hi"])
        return Quantizer(scale, zero, lo, hi, Rounding.HALF_EVEN, after=True)
    zero = known(node, inputs, 2, "zero point")
    bits = whole(node, known(node, inputs, 3, "bit width"), "bit width", 1, 32)
    signed, narrow = bool(node.attributes.get("signed", 1)), bool(node.attributes.get("narrow", 0))
    if bits == 1 and signed:
        return Quantizer(scale, zero, -1, 1, Rounding.HALF_EVEN, sign=True)
    lo, hi = limits(bits, signed, narrow)
    if lo == hi:
        raise UnsupportedError(node.where, f"{bits} bits unsigned narrow hold the value {lo} alone", "use more bits")
    return Quantizer(scale, zero, lo, hi, rounding_of(node))


def along(node: Node, value: np.ndarray, rank: int) -> np.ndarray:
    """A vector along the node's axis of [batch, ...] with `rank` axes in all, in a shape that broadcasts."""
    if value.size == 1:
        return value.reshape(1)
    if value.ndim != 1:
        raise UnsupportedError(node.where, f"scales {list(value.shape)}: blocked quantization", "use one per channel")
    axis = int(node.attributes.get("axis", 1))
    axis += rank if axis < 0 else 0
    if not 0 < axis < rank:
        raise UnsupportedError(node.where, f"scales along axis {axis} of {rank}", "use one per channel")
    shape = [1] * rank
    shape[axis] = len(value)
    return value.reshape(shape)


def _zero(node: Node, inputs: Sequence[Constant | None]) -> np.ndarray:
    """The zero point of an ONNX quantizer, 0 where it is left out."""
    if len(inputs) < 3 or (inputs[2] is None and node.inputs[2] == ""):
        return np.zeros(1)
    return known(node, inputs, 2, "zero point").astype(np.float64)


# --- application -----------------------------------------------------------------------------------------------------


def apply(b: GraphBuilder, d: Data, q: Quantizer, name: str, where: str) -> Data:
    """Data after the quantizer: a tensor of codes, and a pending function where its zero point is none of its type."""
    d, scale = columns(b, d, np.asarray(q.scale), name, where)
    d, zero = columns(b, d, np.asarray(q.zero, np.float64), name, where)
    scales, zeros = fractions(scale), fractions(zero)
    bits, signed = q.bits
    function, d = d.function, replace(d, function=None)
    one_zero = len(zeros) == 1 and zeros[0].denominator == 1 and q.lo <= zeros[0] <= q.hi
    z = int(zeros[0]) if one_zero else 0
    if q.sign:  # worth (code - zero) * scale; the sign is that of x / scale + zero
        tensor = staircase.apply(b, d.value, _signs(scales, zeros), name, where)
        return d.with_value(_shifted(tensor, scales, zeros))
    inverse = tuple(1 / s for s in scales)
    if q.after and len(zeros) > 1:
        raise UnsupportedError(where, "zero points that differ between channels", "use one zero point")
    added = int(zeros[0]) if q.after else 0
    if function is None:
        offset = (ZERO,) if q.after else zeros
        part = Uniform(inverse, offset, q.lo, q.hi, scales, bits, signed, q.rounding, z, added)
        tensor = staircase.apply(b, d.value, part, name, where)
        return d.with_value(Value(tensor) if one_zero else _shifted(tensor, scales, zeros))
    if function.kind == "leaky":
        if not one_zero:
            raise UnsupportedError(where, "after LeakyRelu: a zero point outside its range", "use zero point 0")
        return d.with_value(Value(_leaky(b, d.value, q, function.slope, inverse, scales, z, name, where)))
    ladder = _curve(q, function.kind, scales, zeros, added, z, bits, signed)
    tensor = staircase.apply(b, d.value, ladder, name, where)
    return d.with_value(Value(tensor) if one_zero else _shifted(tensor, scales, zeros))


def _signs(scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...]) -> Ladder:
    size = max(len(scales), len(zeros))
    pairs = zip(spread(scales, size), spread(zeros, size), strict=True)
    edges = tuple(((-z * s, True),) for s, z in pairs)
    return Ladder(edges[:1] if len(set(edges)) == 1 else edges, ((-1, 1),), scales, 2, True)


def _shifted(tensor: object, scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...]) -> Value:
    """Codes with zero point 0 in their type, whose own zero points stay pending."""
    size = max(len(scales), len(zeros))
    offsets = tuple(-z * s for s, z in zip(spread(scales, size), spread(zeros, size), strict=True))
    return Value(tensor, (ONE,), offsets[:1] if len(set(offsets)) == 1 else offsets)  # type: ignore[arg-type]


def _leaky(b: GraphBuilder, v: Value, q: Quantizer, slope: tuple[Fraction, ...], inverse: tuple[Fraction, ...],
           scales: tuple[Fraction, ...], z: int, name: str, where: str) -> object:  # fmt: skip
    """code - zero point = its part above 0 and its part below 0, one of which is 0: two roundings and a sum, exact."""
    before, added = ((ZERO,), 0) if q.after else ((Fraction(z),), -z)
    size = max(len(slope), len(inverse))
    down = tuple(x * y for x, y in zip(spread(slope, size), spread(inverse, size), strict=True))
    parts = []
    for gain, lo, hi, label in ((inverse, 0, q.hi - z, "up"), (down, q.lo - z, 0, "down")):
        bits, signed = bits_for(lo, hi)
        part = Uniform(gain, before, lo, hi, scales, bits, signed, q.rounding, 0, added)
        parts.append(staircase.apply(b, v, part, f"{name}_{label}", where))
    return b.add(parts[0], parts[1], name)


def _curve(q: Quantizer, kind: str, scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...], added: int, z: int, bits: int, signed: bool) -> Ladder:  # fmt: skip
    """sigmoid or tanh and then the quantizer: where the curve reaches each code's edge, to 60 digits (it is irrational but at 0)."""
    size = max(len(scales), len(zeros))
    every, levels = [], []
    for s, zero in zip(spread(scales, size), spread(zeros, size), strict=True):
        edges: list[Edge] = []
        first = q.lo
        for code in range(q.lo + 1, q.hi + 1):
            twice, excluded = edge(code - added, q.rounding)
            y = (Fraction(int(twice), 2) - (ZERO if q.after else zero)) * s
            x = _inverse(kind, y)
            if x == "always":
                first = code
            elif x == "never":
                break
            else:
                assert isinstance(x, Fraction)
                edges.append((x, not excluded))
        every.append(tuple(edges))
        levels.append(tuple(range(first, first + len(edges) + 1)))
    longest = max(map(len, every))
    if longest == 0:  # a Threshold has at least one rung
        every, levels = [((ZERO, True),)] * size, [(row[0], row[0]) for row in levels]
    return Ladder(tuple(every), tuple(levels), scales, bits, signed, z)


def _inverse(kind: str, y: Fraction) -> Fraction | str:
    """x where the curve is y; "always" and "never" where every or no x reaches y."""
    low, middle = (ZERO, Fraction(1, 2)) if kind == "sigmoid" else (-ONE, ZERO)
    if y <= low:
        return "always"
    if y >= ONE:
        return "never"
    if y == middle:
        return ZERO
    ratio = y / (1 - y) if kind == "sigmoid" else (1 + y) / (1 - y)
    found = Fraction(DIGITS.ln(DIGITS.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))))
    return found if kind == "sigmoid" else found / 2


def multi_threshold(b: GraphBuilder, d: Data, node: Node, thresholds: np.ndarray, name: str) -> Data:
    """out_scale * (number of thresholds that x reaches) + out_bias."""
    where = node.where
    if thresholds.ndim != 2 or (np.diff(thresholds, axis=1) < 0).any():
        raise UnsupportedError(where, f"thresholds {list(thresholds.shape)}, must ascend in each row of [channels, count]")
    scale, bias = (Fraction(float(np.float32(node.attributes.get(k, v)))) for k, v in (("out_scale", 1.0), ("out_bias", 0.0)))
    step = gcd([scale, bias])
    count = thresholds.shape[1]
    codes = [int((scale * k + bias) / step) for k in range(count + 1)]
    bits, signed = bits_for(min(codes), max(codes))
    layout = str(node.attributes.get("data_layout", "")) or {1: "NC", 2: "NWC", 3: "NCHW"}.get(len(d.shape), "NC")
    axis = layout.index("C") if "C" in layout else 1
    rows = thresholds.astype(np.float64)
    if len(rows) > 1:
        shape = [1] * (len(d.shape) + 1)
        shape[axis] = len(rows)
        d, index = columns(b, d, np.arange(len(rows), dtype=np.float64).reshape(shape), name, where)
        rows = rows[index.astype(int)]
    edges = tuple(tuple((Fraction(t), True) for t in row) for row in rows.tolist())
    part = Ladder(edges[:1] if len(set(edges)) == 1 else edges, (tuple(codes),), (step,), bits, signed)
    if d.function is not None:
        raise UnsupportedError(where, f"after {d.function.kind}", "quantize it with Quant")
    return d.with_value(Value(staircase.apply(b, d.value, part, name, where)))


def truncate(b: GraphBuilder, d: Data, node: Node, inputs: Sequence[Constant | None], name: str) -> Data:
    """Trunc: to the nearest code of the input's grid, then a power of two away, rounded as it says."""
    where = node.where
    scale = positive(node, known(node, inputs, 1, "scale"))
    zero = known(node, inputs, 2, "zero point")
    rounding = rounding_of(node)
    if scale.size > 1 or zero.size > 1:
        raise UnsupportedError(where, "a scale for each channel", "truncate with one scale")
    s, z = fractions(scale)[0], fractions(zero)[0]
    if node.opset >= 2:
        out = fractions(positive(node, known(node, inputs, 4, "output scale"), "output scale"))[0]
        bits = whole(node, known(node, inputs, 5, "output bit width"), "output bit width", 1, 32)
        shift = int(np.round(np.log2(float(out) / float(s))))
        lo, hi = limits(bits, bool(node.attributes.get("signed", 1)), bool(node.attributes.get("narrow", 0)))
    else:
        wide = whole(node, known(node, inputs, 3, "input bit width"), "input bit width", 1, 32)
        shift = wide - whole(node, known(node, inputs, 4, "output bit width"), "output bit width", 1, 32)
        out, lo, hi = s, None, None
    if shift < 0:
        raise UnsupportedError(where, f"an output scale finer than the input's (2^{shift})", "truncate to fewer bits")
    if d.function is not None:
        raise UnsupportedError(where, f"after {d.function.kind}", "quantize it with Quant")
    factor = Fraction(1, 1 << shift)
    v, offset = d.value, ZERO
    on_grid = all((a / s).denominator == 1 and (i / s + z).denominator == 1 for a, i in v.columns()) and v.lo is v.hi is None
    if not on_grid:  # x / scale + zero is rounded to an integer first
        low, high = _reach(b, v, s, z)
        nbits, nsigned = bits_for(low, high)
        near = Uniform((1 / s,), (z,), low, high, (ONE,), nbits, nsigned)
        v = Value(staircase.apply(b, v, near, f"{name}_grid", where))
        s = ONE
    else:
        offset = z
    if lo is None or hi is None:
        ends = [Fraction(a * x + i) / s + offset for (a, i) in v.columns() for x in b.range(v.tensor).whole]
        lo, hi = (int((e * factor).__floor__()) + k for e, k in ((min(ends), -1), (max(ends), 1)))
    kind = bits_for(lo, hi)
    part = Uniform((factor / s,), (offset * factor,), lo, hi, (out,), *kind, rounding)
    tensor = staircase.apply(b, v, part, name, where)
    less = z * factor if node.opset >= 2 else z  # version 1 takes the whole zero point off what it has divided
    return d.with_value(Value(tensor, (ONE,), (-less * out,)))


def _reach(b: GraphBuilder, v: Value, s: Fraction, z: Fraction) -> tuple[int, int]:
    given = v.columns()
    ends = [(a * x + i) / s + z for (a, i) in given for x in b.range(v.tensor).whole]
    return int(min(ends)) - 1, int(max(ends)) + 1


def dequantize(b: GraphBuilder, d: Data, node: Node, inputs: Sequence[Constant | None], name: str) -> Data:
    """(integer - zero point) * scale."""
    where = node.where
    rank = len(d.shape) + 1
    d, s = columns(b, d, along(node, positive(node, known(node, inputs, 1, "scale")), rank), name, where)
    d, z = columns(b, d, along(node, _zero(node, inputs), rank), name, where)
    slopes, zeros = fractions(s), fractions(z)
    size = max(len(slopes), len(zeros))
    offsets = tuple(-x * y for x, y in zip(spread(zeros, size), spread(slopes, size), strict=True))
    return d.with_value(affine(b, d.value, slopes, offsets, name, where))
