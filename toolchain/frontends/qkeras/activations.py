"""QKeras' quantizers of activations as staircases, and its functions as pending ones.

Its one rule: where each step begins is an exact real number, written down here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qkeras import weights
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
from toolchain.ir import staircase
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.check import MAX_LOOKUP_BITS
from toolchain.ir.staircase import Edge, Ladder, Uniform
from toolchain.ir.types import QType
from toolchain.ir.values import ONE, Value, affine, clip, shorten

HALF = Fraction(1, 2)


def po2(e: int) -> Fraction:
    return Fraction(2) ** e


def f32(x: float) -> Fraction:
    """The exact value of the float32 that the framework makes of a Python number."""
    return Fraction(float(np.float32(x)))


def scales(alpha: Alpha, step: Fraction) -> tuple[Fraction, ...]:
    if alpha is None:
        return (step,)
    assert not isinstance(alpha, str)
    return shorten(f32(a) * step for a in (alpha if isinstance(alpha, tuple) else (alpha,)))


def parts(q: Quantizer, where: str, sigmoid: str) -> tuple[Uniform | Ladder, ...]:
    """The quantizer as one staircase, or as the sum of two on the same grid (leaky relus)."""
    match q:
        case QuantizedBits():
            u = q.bits - int(q.keep_negative)
            if u == 0:
                return (_sign(scales(q.alpha, ONE)),)
            lo = -(2**u) + int(q.symmetric) if q.keep_negative else 0
            return (
                Uniform.one(
                    po2(u - q.integer),
                    Fraction(0),
                    lo,
                    2**u - 1,
                    scales(q.alpha, po2(q.integer - u)),
                    q.bits,
                    q.keep_negative,
                ),
            )
        case QuantizedLinear():
            u = q.bits - int(q.keep_negative)
            step = scales(q.alpha, po2(q.integer - u))
            if len(step) > 1:
                raise UnsupportedError(where, "quantized_linear with an alpha array", "use one alpha")
            if u == 0:
                return (_sign((step[0] / 2,)),)
            lo = -(2**u) + int(q.symmetric) if q.keep_negative else 0
            return (Uniform.one(1 / step[0], Fraction(0), lo, 2**u - 1, step, q.bits, q.keep_negative),)
        case Binary():
            return (_sign(scales(q.alpha, ONE), 0 if q.use_01 else -1),)
        case Ternary():
            t = f32(0.33 if q.threshold is None else q.threshold)
            return (Ladder.one(((-t, False), (t, True)), (-1, 0, 1), scales(q.alpha, ONE), 2, True),)
        case QuantizedRelu():
            return _relu(q, sigmoid)
        case QuantizedTanh():
            m = 2 ** (q.bits - 1)
            lo = -m + int(q.symmetric)
            if not q.use_real_tanh and sigmoid != "real":
                return (
                    Uniform.one(
                        m * (ONE if sigmoid == "hard" else Fraction(3, 8)),
                        Fraction(0),
                        lo,
                        m - 1,
                        (Fraction(1, m),),
                        q.bits,
                        True,
                    ),
                )
            inverse = math.atanh if q.use_real_tanh else (lambda p: math.log((1 + p) / (1 - p)))
            edges = tuple((Fraction(inverse((k - 0.5) / m)), True) for k in range(lo + 1, m))
            return (Ladder.one(edges, tuple(range(lo, m)), (Fraction(1, m),), q.bits, True),)
        case QuantizedSigmoid():
            m, kind = 2**q.bits, "real" if q.use_real_sigmoid else sigmoid
            lo = int(q.symmetric)
            if kind != "real":
                return (Uniform.one(m * _slope(kind), Fraction(m, 2), lo, m - 1, (Fraction(1, m),), q.bits, False),)
            return (
                Ladder.one(
                    tuple(_reached(j, m, kind) for j in range(lo + 1, m)),
                    tuple(range(lo, m)),
                    (Fraction(1, m),),
                    q.bits,
                    False,
                ),
            )
        case QuantizedUlaw():
            m = 2 ** (q.bits - 1)
            centres = (2.0**q.integer * (2 * np.arange(m + 1) / m - 1)).astype(np.float32)
            codes = weights.quantize(q, centres, where, [])
            edges = tuple((e * 2**q.integer, inc) for e, inc in (_reached(j, m, sigmoid) for j in range(1, m + 1)))
            return (Ladder.one(edges, tuple(codes.codes.tolist()), (codes.scale.item(),), codes.bits, codes.signed),)
        case QuantizedPo2() | QuantizedReluPo2():
            return (_power_of_two(q, where),)
        case Function(name="binary_tanh"):
            return (Ladder.one(((Fraction(0), False),), (-1, 1), (ONE,), 2, True),)
        case Function(name="binary_sigmoid"):
            return (Ladder.one(((Fraction(0), False),), (0, 1), (ONE,), 1, False),)
        case _:
            raise AssertionError(q)


def _sign(scale: tuple[Fraction, ...], low: int = -1) -> Ladder:
    return Ladder.one(((Fraction(0), True),), (low, 1), scale, 2 if low else 1, bool(low))


def _slope(kind: str) -> Fraction:
    return HALF if kind == "hard" else Fraction(3, 16)


def _reached(j: int, m: int | Fraction, kind: str) -> Edge:
    """Where half_even(sigmoid(x) * m) becomes j."""
    p = (j - HALF) / m
    if kind == "real":
        return Fraction(math.log(float(p / (1 - p)))), True
    return (p - HALF) / _slope(kind), j % 2 == 0


def _relu(q: QuantizedRelu, sigmoid: str) -> tuple[Uniform | Ladder, ...]:
    n = q.bits - (q.negative_slope != 0)
    m, step, signed = 2**n, po2(q.integer - n), q.negative_slope != 0
    slope = Fraction(q.negative_slope)
    top = m - 1
    if q.relu_upper_bound and not q.is_quantized_clip:
        top = min(top, int(f32(q.relu_upper_bound) / step))
    depth = int(slope * m)
    if not q.use_sigmoid:
        up = Uniform.one(1 / step, Fraction(0), 0, top, (step,), q.bits, signed)
        return (up, Uniform.one(slope / step, Fraction(0), -depth, 0, (step,), q.bits, True)) if signed else (up,)
    half = po2(q.integer)
    js = range(m // 2 + 1, m + 1)
    edges = tuple((e * half, inc) for e, inc in (_reached(j, m, sigmoid) for j in js))
    ladder = Ladder.one(edges, (0, *(min(2 * j - m, top) for j in js)), (step,), q.bits, signed)
    if not signed:
        return (ladder,)
    ks = range(1, depth // 2 + 1 if depth > 1 else 2)
    below = tuple((e * half, inc) for e, inc in (_reached(k, depth, sigmoid) for k in ks))
    return ladder, Ladder.one(below, (-depth, *(min(2 * k - depth, 0) for k in ks)), (step,), q.bits, True)


def _sqrt2_power(e: int) -> Fraction:
    """2**(e - 1/2) to 100 bits: irrational, so no rational input can lie on it."""
    return po2(e) * Fraction(math.isqrt(1 << 199), 1 << 100)


def _magnitudes(q: QuantizedPo2 | QuantizedReluPo2, gain: Fraction = ONE) -> tuple[list[Edge], list[int]]:
    """Edges on |x| >= 0 and the exponent of each segment; `gain` multiplies |x| first (a negative slope)."""
    low, high = weights.po2_exponents(q)
    eps = f32(1e-7)
    factor = 2 if q.quadratic_approximation else 1
    edges, exponents = [(eps, True)], [low, low * factor]
    limit = None if q.max_value is None else f32(q.max_value)
    for e in range(low + 1, high + 1):
        at: Edge
        if q.log2_rounding == "floor":
            at = (po2(e * factor), True)
        elif factor == 2:
            at = (po2(2 * e - 1), e % 2 == 0)
        else:
            at = (_sqrt2_power(e), True)
        if limit is not None and (at[0] > limit or (at[0] == limit and not at[1])):
            break
        if at[0] <= eps:
            exponents[-1] = e * factor
        else:
            edges.append(at)
            exponents.append(e * factor)
    return [(x / gain, inc) for x, inc in edges], exponents


def _power_of_two(q: QuantizedPo2 | QuantizedReluPo2, where: str) -> Ladder:
    edges, exponents = _magnitudes(q)
    sign = -1
    if isinstance(q, QuantizedPo2):
        below, down = edges, exponents
    elif q.negative_slope:
        below, down = _magnitudes(q, f32(q.negative_slope))
    else:
        below, down, sign = [], [exponents[0]], 1
    used = exponents + down
    low, high = min(used), max(used)
    bits = high - low + 1 + int(sign < 0)
    if bits > 31:
        raise UnsupportedError(
            where,
            f"powers of two from 2^{low} to 2^{high} need {bits} stored bits",
            "31 are supported: use fewer bits or set max_value",
        )
    falling = [(-x, not inc) for x, inc in reversed(below)]
    # below zero, then zero itself (which counts as positive), then above
    middle: list[Edge] = [(Fraction(0), True)]
    levels = [sign * (1 << e - low) for e in reversed(down)] + [1 << e - low for e in exponents]
    return Ladder.one((*falling, *middle, *edges), tuple(levels), (po2(low),), bits, sign < 0)


# --- application -----------------------------------------------------------------------------------------------------


def apply(b: GraphBuilder, v: Value, q: Quantizer, name: str, where: str, sigmoid: str) -> Value:
    """The Value after the quantizer or function."""
    if isinstance(q, Function) and not q.name.startswith("binary_"):
        return _function(b, v, q, name, where)
    if isinstance(q, QuantizedHswish):
        return _hswish(b, v, q, name, where)
    found = parts(q, where, sigmoid)
    if len(found) == 2:  # one of the two is 0 everywhere
        return Value(
            b.add(
                staircase.apply(b, v, found[0], f"{name}_up", where),
                staircase.apply(b, v, found[1], f"{name}_down", where),
                name,
            )
        )
    return Value(staircase.apply(b, v, found[0], name, where))


def _function(b: GraphBuilder, v: Value, q: Function, name: str, where: str) -> Value:
    match q.name:
        case "linear":
            return v
        case "relu":
            return clip(v, Fraction(0), None)
        case "relu6":
            return clip(v, Fraction(0), Fraction(6))
        case "hard_sigmoid":
            return clip(affine(b, v, (HALF,), (HALF,), name, where), Fraction(0), ONE)
        case "smooth_sigmoid":
            return clip(affine(b, v, (Fraction(3, 16),), (HALF,), name, where), Fraction(0), ONE)
        case "hard_tanh":
            return clip(v, -ONE, ONE)
        case "smooth_tanh":
            return clip(affine(b, v, (Fraction(3, 8),), (Fraction(0),), name, where), -ONE, ONE)
    raise UnsupportedError(
        where,
        f"{q.name} between layers",
        "use quantized_tanh, quantized_sigmoid or quantized_relu; softmax and sigmoid only at the end",
    )


def _hswish(b: GraphBuilder, v: Value, q: QuantizedHswish, name: str, where: str) -> Value:
    """x * relu6(x + 3) / 6 falls and rises: a Lookup, so its input must be narrow."""
    columns = v.columns()
    t = v.tensor
    if len(columns) > 1 or t.qtype.bits > MAX_LOOKUP_BITS:
        raise UnsupportedError(
            where,
            f"quantized_hswish is not monotone, and its input has {t.qtype.bits} bits and {len(columns)} scales",
            f"quantize its input to {MAX_LOOKUP_BITS} bits or fewer with one scale",
        )
    (part,) = parts(QuantizedBits(q.bits, q.integer, q.symmetric, True, q.alpha), where, "hard")
    assert isinstance(part, Uniform)
    (a, i), bound = columns[0], Fraction(q.relu_upper_bound)
    table = []
    for stored in range(t.qtype.min, t.qtype.max + 1):
        x = a * stored + i
        x = max(x, v.lo) if v.lo is not None else x
        x = min(x, v.hi) if v.hi is not None else x
        y = x * min(max(x + q.relu_shift, Fraction(0)), bound) / bound
        table.append(part.code(y))
    return Value(b.lookup(t, QType.of(part.bits, part.signed, part.scale, len(t.shape) - 1), table, name))


def constant(q: Quantizer, x: Sequence[float], where: str, notes: list[str]) -> list[Fraction]:
    """The exact real values that the quantizer makes of float32 parameters that are never stored (BatchNormalization's)."""
    array = np.asarray(x, dtype=np.float32)
    if isinstance(q, (QuantizedPo2, QuantizedReluPo2)):
        exponents, signs = weights.po2_values(q, array)
        return [int(s) * po2(int(e)) for e, s in zip(exponents, signs, strict=True)]
    codes = weights.quantize(q, array, where, notes)
    return [
        Fraction(int(c)) * s for c, s in zip(codes.codes, np.broadcast_to(codes.scale, codes.codes.shape), strict=True)
    ]
