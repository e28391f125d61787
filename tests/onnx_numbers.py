"""Exact rational tensors: Python integers over one common denominator. Nothing here rounds unless its name says so.

Written for tests/onnx_exact.py from the definitions alone; knows neither onnx nor the toolchain.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal, localcontext
from fractions import Fraction
from math import isqrt, lcm
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.object_]
ROOT_BITS = 260  # of a square root that is irrational
DIGITS = 60  # of exp


def objects(values: Any) -> Ints:
    """An object array also where numpy hands back a bare scalar (operations on 0-d object arrays do)."""
    made = np.empty(np.shape(values), dtype=object)
    made[...] = values.item() if made.ndim == 0 and hasattr(values, "item") else values
    return made


class Exact:
    """`num / den`: a tensor of integers and one positive denominator."""

    __slots__ = ("den", "num")

    def __init__(self, num: Any, den: int = 1) -> None:
        self.num, self.den = objects(num), den
        assert den > 0 and type(den) is int
        assert all(type(v) is int for v in self.num.flat)  # a numpy integer here would overflow in silence

    @classmethod
    def of(cls, values: Any) -> Exact:
        """From floats (each the rational it holds), integers, booleans or Fractions."""
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
        if array.dtype.kind in "iub":
            return cls(objects([int(v) for v in array.flat]).reshape(array.shape))
        parts = [Fraction(v) if isinstance(v, (int, Fraction)) else Fraction(float(v)) for v in array.flat]
        den = lcm(*(p.denominator for p in parts))
        return cls(objects([p.numerator * (den // p.denominator) for p in parts]).reshape(array.shape), den)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.num.shape

    def fractions(self) -> Ints:
        made = np.empty(self.num.shape, dtype=object)
        for i, v in np.ndenumerate(self.num):
            made[i] = Fraction(v, self.den)
        return made

    def moved(self, num: Any) -> Exact:
        """The same denominator with other numerators: for operations that only move elements or add them up."""
        return Exact(num, self.den)

    def __add__(self, other: Exact) -> Exact:
        a, b, den = common(self, other)
        return Exact(a + b, den)

    def __sub__(self, other: Exact) -> Exact:
        a, b, den = common(self, other)
        return Exact(a - b, den)

    def __mul__(self, other: Exact) -> Exact:
        return Exact(self.num * other.num, self.den * other.den)

    def __truediv__(self, other: Exact) -> Exact:
        return self * reciprocal(other)

    def __neg__(self) -> Exact:
        return Exact(-self.num, self.den)


def common(*tensors: Exact) -> Any:
    """The numerators over one denominator, and that denominator."""
    den = lcm(*(t.den for t in tensors))
    return *(objects(t.num * (den // t.den)) for t in tensors), den


def elementwise(function: Any, x: Exact) -> Exact:
    """`function(Fraction) -> Fraction` of each element."""
    made = np.empty(x.shape, dtype=object)
    for i, v in np.ndenumerate(x.num):
        made[i] = function(Fraction(v, x.den))
    return Exact.of(made)


def reciprocal(x: Exact) -> Exact:
    return elementwise(lambda v: 1 / v, x)


def padded(values: Ints, pads: Any, value: int = 0) -> Ints:
    """As numpy.pad, which would put numpy integers among Python's; negative pads cut."""
    cut = values[tuple(slice(max(-b, 0), n - max(-e, 0)) for n, (b, e) in zip(values.shape, pads, strict=True))]
    made = np.full([n + max(b, 0) + max(e, 0) for n, (b, e) in zip(cut.shape, pads, strict=True)], value, dtype=object)
    made[tuple(slice(max(b, 0), max(b, 0) + n) for n, (b, _) in zip(cut.shape, pads, strict=True))] = cut
    return made


def where(condition: Any, a: Exact, b: Exact) -> Exact:
    x, y, den = common(a, b)
    return Exact(np.where(condition, x, y), den)


def maximum(a: Exact, b: Exact) -> Exact:
    x, y, den = common(a, b)
    return Exact(np.maximum(x, y), den)


def minimum(a: Exact, b: Exact) -> Exact:
    x, y, den = common(a, b)
    return Exact(np.minimum(x, y), den)


def square_root(v: Fraction) -> Fraction:
    """Exact where the root is rational, else to ROOT_BITS relative bits."""
    p, q = v.numerator, v.denominator
    assert p > 0
    if isqrt(p) ** 2 == p and isqrt(q) ** 2 == q:
        return Fraction(isqrt(p), isqrt(q))
    shift = 2 * ROOT_BITS + 2 * q.bit_length()
    return Fraction(isqrt((p << shift) // q), 1 << (shift // 2))


def sigmoid(v: Fraction) -> Fraction:
    with localcontext() as c:
        c.prec = DIGITS
        return Fraction(1 / (1 + (-(Decimal(v.numerator) / Decimal(v.denominator))).exp()))


def tanh(v: Fraction) -> Fraction:
    with localcontext() as c:
        c.prec = DIGITS
        e = (-2 * abs(Decimal(v.numerator) / Decimal(v.denominator))).exp()
        found = Fraction((1 - e) / (1 + e))
        return found if v >= 0 else -found


def rounded(x: Exact, mode: str, seen: Counter[str] | None = None) -> Ints:
    """To integers by the definition of each QONNX rounding mode (not by its name); `seen` counts exact halves by sign."""
    floor = objects(x.num // x.den)
    rest = objects(x.num - floor * x.den)
    tie = objects(2 * rest == x.den).astype(bool)
    inside = objects(rest > 0).astype(bool)
    positive, negative = objects(x.num > 0).astype(bool), objects(x.num < 0).astype(bool)
    more = objects(2 * rest > x.den).astype(bool)
    if seen is not None:
        seen["tie+"] += int((tie & positive).sum())
        seen["tie-"] += int((tie & negative).sum())
    match {"HALF_EVEN": "ROUND", "ROUND_TO_ZERO": "DOWN"}.get(mode.upper(), mode.upper()):
        case "ROUND":  # halves to even
            up = more | (tie & objects(floor % 2 == 1).astype(bool))
        case "HALF_UP":  # halves away from zero, on both sides
            up = more | (tie & positive)
        case "HALF_DOWN":  # halves towards zero
            up = more | (tie & negative)
        case "CEIL":
            up = inside
        case "FLOOR":
            up = np.zeros(x.shape, bool)
        case "UP":  # away from zero, any fraction
            up = inside & positive
        case "DOWN":  # towards zero
            up = inside & negative
        case _:
            raise AssertionError(mode)
    return objects(floor + np.where(up, 1, 0).astype(object))


def clamped(values: Ints, lo: int, hi: int, seen: Counter[str] | None = None) -> Ints:
    if seen is not None:
        seen["low"] += int(objects(values < lo).astype(bool).sum())
        seen["high"] += int(objects(values > hi).astype(bool).sum())
    return objects(np.minimum(np.maximum(values, lo), hi))
