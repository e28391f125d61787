"""Quantizers of data, by their definitions: Quant, BipolarQuant, Trunc, MultiThreshold, QuantizeLinear, DequantizeLinear.

Its one rule: a code is what the definition gives for the exact real number, with the file's float32 scale taken as the
rational that it is; what is not constant in the file is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Context as Decimals
from decimal import Decimal
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quantizers
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant, per_axis
from toolchain.frontends.qonnx.layouts import Data, Function, columns, fractions, several_columns
from toolchain.frontends.qonnx.quantizers import Quantizer
from toolchain.ir import staircase
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.exact import MAX_LADDER, edge
from toolchain.ir.ops import Rounding
from toolchain.ir.staircase import Edge, Ladder, Uniform
from toolchain.ir.types import Tensor, bits_for
from toolchain.ir.values import ONE, ZERO, Value, affine, gcd, shorten, spread

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
    if not value.size:
        raise UnsupportedError(node.where, f"its {what} is empty", "export the model again")
    if not np.isfinite(np.asarray(value, np.float64)).all():
        raise UnsupportedError(node.where, f"its {what} holds NaN or infinity", "train or calibrate the model first")
    return value


def number(node: Node, key: str, default: float) -> Fraction:
    """A finite attribute as the float32 that it is."""
    value = float(np.float32(node.attributes.get(key, default)))
    if not np.isfinite(value):
        raise UnsupportedError(node.where, f"its {key} is {value}, must be finite", "export the model again")
    return Fraction(value)


def of_node(node: Node, inputs: Sequence[Constant | None], rank: int) -> Quantizer:
    """Of a Quant, BipolarQuant or QuantizeLinear on data of `rank` axes, batch included; `inputs` with None for the data."""
    if node.op != "QuantizeLinear":
        found = quantizers.quantizer(node, inputs)
        if found.lo == found.hi:
            raise UnsupportedError(node.where, f"{found.bits} bits hold the value {found.lo} alone", "use more bits")
        return found
    scale, zero = _per_axis(node, inputs, rank)
    lo, hi = int(node.attributes["lo"]), int(node.attributes["hi"])
    return Quantizer(bits_for(lo, hi)[0], lo, hi, "ROUND", scale, zero)


def _per_axis(node: Node, inputs: Sequence[Constant | None], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point of QuantizeLinear and DequantizeLinear, shaped to broadcast over `rank` axes."""
    axis = int(node.attributes.get("axis", 1))
    scale = quantizers.positive_scale(node.where, "scale", known(node, inputs, 1, "scale"))
    zero = np.zeros(1, np.int64)
    if len(node.inputs) > 2 and node.inputs[2]:
        zero = known(node, inputs, 2, "zero point")
        if zero.dtype.kind not in "iu":
            raise UnsupportedError(
                node.where, f"its zero point holds {zero.dtype} values, must be integers", "export it again"
            )
        zero = zero.astype(np.int64)
    shaped = (per_axis(node.where, what, v, axis, rank) for what, v in (("scale", scale), ("zero point", zero)))
    first, second = shaped
    if first.shape[:1] > (1,) or second.shape[:1] > (1,):
        raise UnsupportedError(node.where, "scales along the batch", "use one scale for each channel")
    return first, second


# --- application -----------------------------------------------------------------------------------------------------


def apply(b: GraphBuilder, d: Data, q: Quantizer, name: str, where: str, after: bool = False) -> Data:
    """Data after the quantizer: a tensor of codes, and a pending function where its zero point is none of its type.

    `after`: the zero point is added after rounding (ONNX), not before (QONNX).
    """
    d, (scale, zero) = several_columns(b, d, (np.asarray(q.scale), np.asarray(q.zero_point)), name, where)
    scales, zeros = fractions(scale), fractions(zero)
    bits, signed = bits_for(q.lo, q.hi)
    function, d = d.function, replace(d, function=None)
    one_zero = len(zeros) == 1 and zeros[0].denominator == 1 and q.lo <= zeros[0] <= q.hi
    z = int(zeros[0]) if one_zero else 0
    if q.rounding == quantizers.BIPOLAR:  # worth (code - zero) * scale; the sign is that of x / scale + zero
        tensor = staircase.apply(b, d.value, _signs(scales, zeros, function), name, where)
        return d.with_value(_shifted(tensor, scales, zeros))
    inverse = tuple(1 / s for s in scales)
    if after and len(zeros) > 1:
        raise UnsupportedError(where, "zero points that differ between channels", "use one zero point")
    added = int(zeros[0]) if after else 0
    if function is None:
        offset = (ZERO,) if after else zeros
        part = Uniform(inverse, offset, q.lo, q.hi, scales, bits, signed, ROUNDINGS[q.rounding], z, added)
        tensor = staircase.apply(b, d.value, part, name, where)
        return d.with_value(Value(tensor) if one_zero else _shifted(tensor, scales, zeros))
    if function.kind == "leaky":
        if not one_zero:
            raise UnsupportedError(where, "after LeakyRelu: a zero point outside its range", "use zero point 0")
        return d.with_value(Value(_leaky(b, d.value, q, after, function.slope, inverse, scales, z, name, where)))
    ladder = _curve(q, after, function.kind, scales, zeros, added, z, bits, signed, where)
    tensor = staircase.apply(b, d.value, ladder, name, where)
    return d.with_value(Value(tensor) if one_zero else _shifted(tensor, scales, zeros))


def _signs(scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...], function: Function | None) -> Ladder:
    """-1 and 1 for x / scale + zero below 0 and not below, x being the function of what is quantized."""
    slopes = function.slope if function is not None and function.slope else (ONE,)
    size = max(len(scales), len(zeros), len(slopes))
    edges, levels = [], []
    for s, z, slope in zip(spread(scales, size), spread(zeros, size), spread(slopes, size), strict=True):
        x = -z * s if function is None else _inverse(function.kind, -z * s, slope)
        edges.append(((x if isinstance(x, Fraction) else ZERO, True),))
        levels.append({"always": (1, 1), "never": (-1, -1)}.get(str(x), (-1, 1)))
    alike = len(set(edges)) == len(set(levels)) == 1
    return Ladder(tuple(edges[:1] if alike else edges), tuple(levels[:1] if alike else levels), scales, 2, True)


def _shifted(tensor: Tensor, scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...]) -> Value:
    """Codes with zero point 0 in their type, whose own zero points stay pending."""
    return Value(tensor, (ONE,), _offsets(scales, zeros))


def _offsets(scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    """What the zero points are worth: (code - zero) * scale = code * scale + this."""
    size = max(len(scales), len(zeros))
    return shorten(-z * s for s, z in zip(spread(scales, size), spread(zeros, size), strict=True))


def _leaky(b: GraphBuilder, v: Value, q: Quantizer, after: bool, slope: tuple[Fraction, ...], inverse: tuple[Fraction, ...],
           scales: tuple[Fraction, ...], z: int, name: str, where: str) -> Tensor:  # fmt: skip
    """code - zero point = its part above 0 and its part below 0, one of which is 0: two roundings and a sum, exact."""
    before, added = ((ZERO,), 0) if after else ((Fraction(z),), -z)
    size = max(len(slope), len(inverse))
    down = tuple(x * y for x, y in zip(spread(slope, size), spread(inverse, size), strict=True))
    parts = []
    for gain, lo, hi, label in ((inverse, 0, q.hi - z, "up"), (down, q.lo - z, 0, "down")):
        bits, signed = bits_for(lo, hi)
        part = Uniform(gain, before, lo, hi, scales, bits, signed, ROUNDINGS[q.rounding], 0, added)
        parts.append(staircase.apply(b, v, part, f"{name}_{label}", where))
    return b.add(parts[0], parts[1], name)


def _curve(q: Quantizer, after: bool, kind: str, scales: tuple[Fraction, ...], zeros: tuple[Fraction, ...], added: int, z: int, bits: int, signed: bool, where: str) -> Ladder:  # fmt: skip
    """sigmoid or tanh and then the quantizer: where the curve reaches each code's edge, to 60 digits (it is irrational but at 0)."""
    size = max(len(scales), len(zeros))
    every, levels = [], []
    low = ZERO if kind == "sigmoid" else -ONE
    if min(((ONE - low) / min(scales)).__ceil__(), q.hi - q.lo) > MAX_LADDER:
        raise UnsupportedError(where, f"steps of {float(min(scales)):.3g} after {kind}", "use fewer bits")
    for s, zero in zip(spread(scales, size), spread(zeros, size), strict=True):
        edges: list[Edge] = []
        below = (low / s + (added if after else zero)).__floor__()  # up to here every x reaches the code
        first = min(max(q.lo, below), q.hi)
        for code in range(first + 1, q.hi + 1):
            twice, excluded = edge(code - added, ROUNDINGS[q.rounding])
            y = (Fraction(int(twice), 2) - (ZERO if after else zero)) * s
            x = _inverse(kind, y, ONE)
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


def _inverse(kind: str, y: Fraction, slope: Fraction) -> Fraction | str:
    """x where the curve is y; "always" and "never" where every or no x reaches y."""
    if kind == "leaky":
        return y if y > 0 else y / slope if slope else "always"
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
        raise UnsupportedError(
            where, f"thresholds {list(thresholds.shape)}, must ascend in each row of [channels, count]"
        )
    scale, bias = number(node, "out_scale", 1.0), number(node, "out_bias", 0.0)
    step = gcd([scale, bias])
    count = thresholds.shape[1]
    codes = [int((scale * k + bias) / step) for k in range(count + 1)]
    bits, signed = bits_for(min(codes), max(codes))
    layout = str(node.attributes.get("data_layout", "")) or {1: "NC", 2: "NWC", 3: "NCHW"}.get(len(d.shape), "NC")
    axis = layout.index("C") if "C" in layout else 1
    if axis > len(d.shape):
        raise UnsupportedError(where, f"data_layout {layout} of {[1, *d.shape]}", "export the model again")
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
    q = quantizers.quantizer(node, inputs)
    assert q.shift is not None and q.out_scale is not None and q.out_zero_point is not None
    if max(q.scale.size, q.zero_point.size, q.shift.size) > 1:
        raise UnsupportedError(where, "a scale for each channel", "truncate with one scale")
    if d.function is not None:
        raise UnsupportedError(where, f"after {d.function.kind}", "quantize it with Quant")
    (s, z), shift = (fractions(v)[0] for v in (q.scale, q.zero_point)), int(q.shift.ravel()[0])
    if shift < 0:
        raise UnsupportedError(where, f"an output scale finer than the input's (2^{shift})", "truncate to fewer bits")
    out, less = fractions(q.out_scale)[0], fractions(q.out_zero_point)[0]
    factor = Fraction(1, 1 << shift)
    v, offset = d.value, ZERO
    on_grid = (
        all((a / s).denominator == 1 and (i / s + z).denominator == 1 for a, i in v.columns()) and v.lo is v.hi is None
    )
    if not on_grid:  # x / scale + zero is rounded to an integer first
        low, high = _reach(b, v, s, z)
        nbits, nsigned = bits_for(low, high)
        near = Uniform((1 / s,), (z,), low, high, (ONE,), nbits, nsigned)
        v = Value(staircase.apply(b, v, near, f"{name}_grid", where))
        s = ONE
    else:
        offset = z
    lo, hi = q.lo, q.hi
    if not q.clamps:
        ends = [Fraction(a * x + i) / s + offset for (a, i) in v.columns() for x in b.range(v.tensor).whole]
        lo, hi = (int((e * factor).__floor__()) + k for e, k in ((min(ends), -1), (max(ends), 1)))
    kind = bits_for(lo, hi)
    part = Uniform((factor / s,), (offset * factor,), lo, hi, (out,), *kind, ROUNDINGS[q.rounding])
    tensor = staircase.apply(b, v, part, name, where)
    return d.with_value(Value(tensor, (ONE,), (-less * out,)))


def _reach(b: GraphBuilder, v: Value, s: Fraction, z: Fraction) -> tuple[int, int]:
    given = v.columns()
    ends = [(a * x + i) / s + z for (a, i) in given for x in b.range(v.tensor).whole]
    return int(min(ends)) - 1, int(max(ends)) + 1


def dequantize(b: GraphBuilder, d: Data, node: Node, inputs: Sequence[Constant | None], name: str) -> Data:
    """(integer - zero point) * scale."""
    where = node.where
    scale, zero = _per_axis(node, inputs, len(d.shape) + 1)
    d, (s, z) = several_columns(b, d, (scale, zero), name, where)
    slopes, zeros = fractions(s), fractions(z)
    return d.with_value(affine(b, d.value, slopes, _offsets(slopes, zeros), name, where))
