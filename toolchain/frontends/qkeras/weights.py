"""Integer codes and exact scales of float32 values, as live QKeras computes them.

Its one rule: QKeras' float32 arithmetic is reproduced operation by operation, so codes and scales are equal to the
framework's, not close; a scale is the exact rational value of the float32 that QKeras multiplies by.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qkeras import float32
from toolchain.frontends.qkeras.quantizers import (
    Alpha,
    Binary,
    Function,
    QuantizedBits,
    QuantizedHswish,
    QuantizedLinear,
    QuantizedPo2,
    QuantizedRelu,
    QuantizedReluPo2,
    QuantizedSigmoid,
    QuantizedTanh,
    QuantizedUlaw,
    Quantizer,
    Ternary,
)  # fmt: skip

F32 = np.float32
EPS = F32(1e-7)  # keras.backend.epsilon()
LN2 = F32(np.log(2.0))
Sigmoid = Literal["hard", "smooth", "real"]


@dataclass(frozen=True, eq=False)
class Codes:
    """value = codes * scale, exactly; `scale` holds Fractions and broadcasts against `codes` (keepdims shape)."""

    codes: np.ndarray
    scale: np.ndarray
    bits: int
    signed: bool

    @property
    def values(self) -> Any:
        """The exact values, as Fractions."""
        return self.codes.astype(object) * self.scale

    @property
    def floats(self) -> np.ndarray:
        """The values in float64, each rounded once: scales are float64 numbers, so one product is that one rounding."""
        scale = self.scale.astype(np.float64)
        assert all(Fraction(f) == s for f, s in zip(scale.flat, self.scale.flat, strict=True))
        found: np.ndarray = self.codes.astype(np.float64) * scale
        return found


def fractions(scale: Any) -> np.ndarray:
    """An array of exact Fractions from floats (each float is a dyadic rational)."""
    a = np.asarray(scale)
    out = np.empty(a.shape, dtype=object)
    for i in np.ndindex(a.shape):
        out[i] = Fraction(a[i].item() if hasattr(a[i], "item") else a[i])
    return out


def po2(e: int) -> Fraction:
    return Fraction(2) ** e


def quantize(q: Quantizer, x: np.ndarray, where: str, notes: list[str], sigmoid: Sigmoid = "hard") -> Codes:
    """Codes of the float32 array x. `notes` collects what float32 decides by a hair; `sigmoid` is QKeras' global setting."""
    x = np.asarray(x, dtype=F32)
    with np.errstate(all="ignore"):
        result = _quantize(q, x, where, notes, sigmoid)
    lo, hi = -(1 << result.bits - 1) if result.signed else 0, (1 << result.bits - int(result.signed)) - 1
    assert result.codes.size == 0 or (lo <= result.codes.min() and result.codes.max() <= hi), (
        q,
        result.bits,
        result.signed,
    )
    return result


def _quantize(q: Quantizer, x: np.ndarray, where: str, notes: list[str], sigmoid: Sigmoid) -> Codes:
    match q:
        case QuantizedBits(alpha=str()):
            return _bits_auto(q, x, where, notes)
        case QuantizedBits():
            return _bits(q, x, where)
        case QuantizedLinear():
            return _linear(q, x, where, notes)
        case Binary():
            sign = np.where(x >= 0, 1, -1).astype(F32)
            k = (sign + F32(1)) / F32(2) if q.use_01 else sign
            bits, signed = (1, False) if q.use_01 else (2, True)
            scale = (
                _least_squares(q.alpha, x, k, q.scale_axis, where, notes)
                if isinstance(q.alpha, str)
                else _constant(q.alpha)
            )
            k, scale = _no_zero_scale(k, scale) if isinstance(q.alpha, str) else (k, scale)
            return Codes(k.astype(np.int64), fractions(scale), bits, signed)
        case Ternary():
            return _ternary(q, x, where, notes)
        case QuantizedRelu():
            return _relu(q, x, sigmoid)
        case QuantizedPo2() | QuantizedReluPo2():
            return _power_of_two(q, x, where)
        case QuantizedTanh():
            m = F32(2.0 ** (q.bits - 1))
            # TensorFlow's own tanh and sigmoid are good to 4e-7 only; the real functions are meant
            p = np.tanh(x.astype(np.float64)) if q.use_real_tanh else F32(2) * _sigmoid(x, sigmoid) - F32(1)
            codes = np.clip(np.rint(p * m), -m + F32(q.symmetric), m - F32(1))
            return _grid(codes, po2(1 - q.bits), q.bits, True)
        case QuantizedSigmoid():
            m = F32(2.0**q.bits)
            p = _sigmoid(x, "real" if q.use_real_sigmoid else sigmoid)
            return _grid(np.clip(np.rint(p * m), F32(q.symmetric), m - F32(1)), po2(-q.bits), q.bits, False)
        case QuantizedUlaw():
            return _ulaw(q, x, where, sigmoid)
        case QuantizedHswish():
            shifted = x + F32(q.relu_shift)
            relu = np.where(shifted <= q.relu_upper_bound, np.maximum(shifted, F32(0)), F32(q.relu_upper_bound))
            y = x * relu / F32(q.relu_upper_bound)
            return _quantize(QuantizedBits(q.bits, q.integer, q.symmetric, True, q.alpha), y, where, notes, sigmoid)
        case Function(name="binary_sigmoid"):
            return _grid(np.rint(_sigmoid(x, "hard")), Fraction(1), 1, False)
        case Function(name="binary_tanh"):
            return _grid(F32(2) * np.rint(_sigmoid(x, "hard")) - F32(1), Fraction(1), 2, True)
        case Function():
            raise UnsupportedError(
                where,
                f"{q.name} has no integer grid of its own",
                "use a quantizer, as quantized_bits or quantized_relu",
            )


def _grid(codes: np.ndarray, scale: Fraction, bits: int, signed: bool) -> Codes:
    return Codes(codes.astype(np.int64), np.array(scale, dtype=object), bits, signed)


def _constant(alpha: Alpha) -> np.ndarray:
    """alpha None or a number or one per channel: QKeras multiplies float32 by it, so it is a float32."""
    if alpha is None:
        return np.asarray(F32(1))
    assert not isinstance(alpha, str)
    return np.asarray(alpha, dtype=F32)


# --- quantized_bits, quantized_linear -------------------------------------------------------------------------------


def _bits(q: QuantizedBits, x: np.ndarray, where: str) -> Codes:
    u = q.bits - int(q.keep_negative)
    if u == 0:
        codes, scale, bits, signed = np.where(x >= 0, 1, -1), fractions(_constant(q.alpha)), 2, True
    else:
        m, m_i = F32(2.0**u), F32(2.0**q.integer)
        lo = -m + F32(q.symmetric) if q.keep_negative else F32(0)
        codes = np.clip(np.rint(x * m / m_i), lo, m - F32(1))
        scale, bits, signed = fractions(_constant(q.alpha)) * po2(q.integer - u), q.bits, q.keep_negative
    return Codes(codes.astype(np.int64), np.asarray(scale, dtype=object), bits, signed)


def _bits_auto(q: QuantizedBits, x: np.ndarray, where: str, notes: list[str]) -> Codes:
    """The scale follows the values; half away from zero; symmetric whatever was asked."""
    top = 2 ** (q.bits - 1) - 1
    levels = F32(top * 2)
    m_i = F32(2.0**q.integer)
    xs = x / m_i

    def codes(s: np.ndarray) -> Any:
        v = np.floor(np.abs(xs) / s + F32(0.5))
        return np.sign(xs) * np.where(v < F32(top), v, F32(top))

    if q.post_training_scale is not None:
        shape = (1,) * (x.ndim - 1) + (-1,) if x.ndim and len(q.post_training_scale) > 1 else ()
        scale = np.asarray(q.post_training_scale, dtype=F32).reshape(shape) / F32(
            2.0 ** (q.bits - int(q.keep_negative))
        )
        z = codes(scale)
    else:
        axes = _axes(q.scale_axis, x.ndim) if x.ndim > 1 else (0,)
        scale = np.max(np.abs(xs), axis=axes, keepdims=True) * F32(2) / levels
        if q.alpha == "auto_po2":
            scale = _round_po2(scale, where, notes)
            for _ in range(5):
                z = codes(scale)
                scale = _least_squares("auto_po2", xs, z, q.scale_axis, where, notes)
                if q.min_po2_exponent is not None or q.max_po2_exponent is not None:
                    low = None if q.min_po2_exponent is None else F32(2.0**q.min_po2_exponent)
                    scale = np.clip(scale, low, None if q.max_po2_exponent is None else F32(2.0**q.max_po2_exponent))
            if q.refit:
                z = codes(scale)
        else:
            z = codes(scale)
            _auto_tie(np.abs(xs) / scale, top - 0.6, where, notes)
    z, scale = _no_zero_scale(z, scale)
    return Codes(z.astype(np.int64), fractions(scale) * po2(q.integer), q.bits, True)


def _no_zero_scale(z: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An all-zero channel has scale 0 under "auto"; its values are 0, which code 0 says with any scale."""
    assert np.isfinite(scale).all() and (scale >= 0).all()
    return np.where(scale == 0, F32(0), z), np.where(scale == 0, F32(1), scale)


def _linear(q: QuantizedLinear, x: np.ndarray, where: str, notes: list[str]) -> Codes:
    """quantized_linear of qkeras-v3: alpha divides too, the clip comes before the round."""
    sign_only = q.bits == 1 and q.keep_negative
    u = F32(2.0 ** (q.bits - int(q.keep_negative)))
    if sign_only:
        lo, hi, shift = F32(-0.5), F32(0.5), F32(0.5)
    else:
        lo, hi, shift = (-u + F32(q.symmetric) if q.keep_negative else F32(0)), u - F32(1), F32(0)

    def codes(s: np.ndarray) -> Any:
        return np.rint(np.clip(x / s, lo, hi) - shift) + shift

    if isinstance(q.alpha, str):
        axes = _axes(q.scale_axis, x.ndim)
        span = hi - lo
        scale = (
            np.max(np.abs(x), axis=axes, keepdims=True) * F32(2) / span
            if q.keep_negative
            else np.max(x, axis=axes, keepdims=True) / span
        )
        scale = np.maximum(scale, EPS)
        if q.alpha == "auto" and not sign_only:
            _auto_tie(np.abs(x / scale), float(hi) - 0.6, where, notes)
        if q.alpha == "auto_po2":
            scale, last = _round_po2(scale, where, notes), None
            for _ in range(1 if sign_only else 5):
                if last is not None and (last == scale).all():
                    break
                last, scale = scale, _least_squares("auto_po2", x, codes(scale), q.scale_axis, where, notes)
    else:
        scale = np.asarray(_constant(q.alpha) * F32(2.0 ** (q.integer - q.bits + int(q.keep_negative))))
    z = codes(scale)
    if sign_only:  # codes are -1/2 and +1/2
        return Codes(np.where(z > 0, 1, -1).astype(np.int64), fractions(scale) / 2, 2, True)
    return Codes(z.astype(np.int64), fractions(scale), q.bits, q.keep_negative)


def _axes(scale_axis: int | None, ndim: int) -> tuple[int, ...]:
    """What is reduced: all axes but the last, or all but scale_axis."""
    keep = ndim - 1 if scale_axis is None else scale_axis
    return tuple(i for i in range(ndim) if i != keep)


def _round_po2(s: np.ndarray, where: str, notes: list[str]) -> Any:
    e = float32.log(np.asarray(s + EPS)) / LN2
    _near_tie(e, where, "the power-of-two scale", notes)
    return np.ldexp(F32(1), np.rint(e).astype(np.int32)).astype(F32)


def _least_squares(
    alpha: Alpha, x: np.ndarray, q: np.ndarray, scale_axis: int | None, where: str, notes: list[str]
) -> Any:
    if x.ndim > 1:
        axes = _axes(scale_axis, x.ndim)
        qx, qq = float32.mean(x * q, axes), float32.mean(q * q, axes)
    else:
        qx, qq = x * q, q * q
    scale = qx / (qq + EPS)
    return _round_po2(scale, where, notes) if alpha == "auto_po2" else scale


def _near_tie(v: np.ndarray, where: str, what: str, notes: list[str]) -> None:
    gap = np.abs(np.abs(v - np.floor(v)) - F32(0.5))
    if np.any(gap < 2e-6):
        note = f"{where}: {what} is within float32 noise of a tie; verify against the framework"
        if note not in notes:
            notes.append(note)


def _auto_tie(v: np.ndarray, top: float, where: str, notes: list[str]) -> None:
    """A compiled graph divides by a constant as a multiplication by its reciprocal: scales of 'auto' differ in the last bit."""
    near = int((np.abs(v - np.floor(v) - F32(0.5)) < 1e-6 * np.maximum(v, 1))[v < top].sum())
    if near:
        notes.append(
            f"{where}: {near} weights lie within float32 noise of a tie under alpha 'auto', where QKeras' eager and compiled results differ; run verify"
        )


def _ternary(q: Ternary, x: np.ndarray, where: str, notes: list[str]) -> Codes:
    if not isinstance(q.alpha, str):
        threshold = F32(0.33 if q.threshold is None else q.threshold)
        return Codes(((np.abs(x) >= threshold) * np.sign(x)).astype(np.int64), fractions(_constant(q.alpha)), 2, True)
    axes = None if x.ndim == 1 else _axes(None, x.ndim)
    scale = F32(2) * np.max(np.abs(x), axis=axes, keepdims=True) / F32(3)
    if q.alpha == "auto_po2":
        scale = _round_po2(scale, where, notes)
    z = np.zeros_like(x)
    for _ in range(q.number_of_unrolls):
        if q.alpha == "auto":
            _auto_tie(np.abs(x / scale), 1.0, where, notes)
        v = scale * np.rint(x / scale)
        z = (np.abs(v) >= scale / F32(2)).astype(F32) * np.sign(x)
        scale = _least_squares(q.alpha, x, z, None, where, notes)
    z, scale = _no_zero_scale(z, scale)
    return Codes(z.astype(np.int64), fractions(scale), 2, True)


# --- activations -----------------------------------------------------------------------------------------------------


def _sigmoid(x: np.ndarray, kind: Sigmoid) -> Any:
    if kind == "real":
        return 1.0 / (1.0 + np.exp(-x.astype(np.float64)))
    return np.clip(F32(0.5 if kind == "hard" else 0.1875) * x + F32(0.5), F32(0), F32(1))


def _relu(q: QuantizedRelu, x: np.ndarray, sigmoid: Sigmoid) -> Codes:
    n = q.bits - (q.negative_slope != 0)
    m, m_i, slope = F32(2.0**n), F32(2.0**q.integer), F32(q.negative_slope)
    low = -slope * m
    if q.use_sigmoid:
        p = _sigmoid(x / m_i, sigmoid) * m
        codes = np.clip(F32(2) * np.rint(p) - m, F32(0), m - F32(1))
        if slope > 0:
            codes = codes + np.clip(F32(2) * np.rint(p * slope) + low, low, F32(0))
    else:
        p = x * m / m_i
        codes = np.clip(np.rint(p), F32(0), m - F32(1))
        if slope > 0:
            codes = codes + np.clip(np.rint(p * slope), low, F32(0))
    if q.relu_upper_bound and not q.is_quantized_clip:
        codes = np.minimum(codes, F32(q.relu_upper_bound) * m / m_i)
    return _grid(codes, po2(q.integer - n), q.bits, q.negative_slope != 0)


def po2_exponents(q: QuantizedPo2 | QuantizedReluPo2) -> tuple[int, int]:
    """min and max exponent as QKeras derives them from bits and max_value."""
    eb = q.bits - int(isinstance(q, QuantizedPo2)) - (1 if q.max_value is None or q.max_value > 1 else 0)
    low, high = -(2**eb) if eb >= 0 else 0, 2**eb - 1 if eb >= 0 else 0
    return low, 2 * (high // 2) if q.quadratic_approximation else high


def _exponents(q: QuantizedPo2 | QuantizedReluPo2, a: np.ndarray) -> np.ndarray:
    low, high = po2_exponents(q)
    f = np.where(a < EPS, EPS, a)
    if q.max_value is not None:
        f = np.where(f >= F32(q.max_value), F32(q.max_value), f)
    if q.quadratic_approximation:
        f = np.sqrt(f)
    e = float32.log_packet(f) / LN2
    e = np.floor(e) if q.log2_rounding == "floor" else np.rint(e)
    e = np.clip(e, low, high) * (2 if q.quadratic_approximation else 1)
    return np.where(a < EPS, low, e).astype(np.int64)


def po2_values(q: QuantizedPo2 | QuantizedReluPo2, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponent and sign of each quantized value."""
    if isinstance(q, QuantizedPo2):
        return _exponents(q, np.abs(x)), np.where(x >= 0, 1, -1)
    if q.negative_slope == 0:
        return _exponents(q, np.maximum(x, F32(0))), np.ones(x.shape, np.int64)
    falling = _exponents(q, np.maximum(-x, F32(0)) * F32(q.negative_slope))
    return np.where(x >= 0, _exponents(q, np.maximum(x, F32(0))), falling), np.where(x >= 0, 1, -1)


def _power_of_two(q: QuantizedPo2 | QuantizedReluPo2, x: np.ndarray, where: str) -> Codes:
    e, sign = po2_values(q, x)
    low, high = (int(e.min()), int(e.max())) if e.size else (0, 0)
    signed = bool((sign < 0).any())
    bits = high - low + 1 + int(signed)
    if bits > 31:
        raise UnsupportedError(
            where,
            f"powers of two from 2^{low} to 2^{high} need {bits} stored bits",
            "31 are supported: use fewer bits or set max_value",
        )
    codes = sign * (np.int64(1) << (e - low))
    return _grid(codes, po2(low), bits, signed)


def _ulaw(q: QuantizedUlaw, x: np.ndarray, where: str, sigmoid: Sigmoid) -> Codes:
    """Values on no uniform grid: their float32 values are the codes, on the finest power of two that holds them."""
    m = F32(2.0 ** (q.bits - 1))
    r = F32(2) * (np.rint(_sigmoid(x / F32(2.0**q.integer), sigmoid) * m).astype(F32) / m) - F32(1)
    y = np.sign(r) * float32.log_packet(F32(1) + F32(q.u) * np.abs(r)) / F32(np.log(1.0 + q.u))
    y = F32(2.0**q.integer) * np.clip(y, F32(-1) + F32(q.symmetric) / m, F32(1) - F32(1) / m)
    return dyadic(y, where, "quantized_ulaw")


def dyadic(y: np.ndarray, where: str, what: str, most: int = 31) -> Codes:
    """Any float32 values as integers times one power of two, if 31 bits hold them."""
    y64 = np.asarray(y, dtype=np.float64)
    mantissa, exponent = np.frexp(y64)
    whole = (mantissa * 2.0**53).astype(np.int64)
    nonzero = whole != 0
    if not nonzero.any():
        return _grid(np.zeros(y64.shape), Fraction(1), 1, False)
    trailing = np.zeros(whole.shape, np.int64)
    trailing[nonzero] = [((int(v) & -int(v)).bit_length() - 1) for v in whole[nonzero]]
    low = int((exponent.astype(np.int64) - 53 + trailing)[nonzero].min())
    top = int(exponent[nonzero].max())
    signed = bool((y64 < 0).any())
    if top - low + int(signed) > most:
        raise UnsupportedError(
            where,
            f"{what} needs {top - low + int(signed)} stored bits",
            f"{most} are supported: give the layer a quantizer (QDense, QConv2D, ...), or round the values to a coarser grid",
        )
    return _grid(np.rint(np.ldexp(y64, -low)), po2(low), top - low + int(signed), signed)
