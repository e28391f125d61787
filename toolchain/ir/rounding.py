"""Rounding t / 2**shift to an integer, Requantize itself, and lines between a table's entries; on int64 arrays or, for what is wider,
arrays of Python integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.errors import assert_never

from .ops import Requantize, Rounding

INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1


def shift_right(t: Any, shift: Any, rounding: Rounding) -> Any:
    """round(t / 2**shift) elementwise; shift 0 is t itself, whatever the mode. All by arithmetic shifts, which floor."""
    one = shift * 0 + 1
    half = (one << shift) >> 1  # 0 where shift is 0
    match rounding:
        case Rounding.FLOOR:
            return t >> shift
        case Rounding.CEIL:
            return -((-t) >> shift)
        case Rounding.HALF_UP:
            return (t + half) >> shift
        case Rounding.HALF_DOWN:
            return -((half - t) >> shift)
        case Rounding.HALF_EVEN:
            floor = t >> shift
            rest = t - (floor << shift)
            up = (rest > half) | ((rest == half) & (floor & 1 == 1) & (half > 0))
            return floor + up.astype(np.int64)
        case Rounding.HALF_AWAY:
            return _where_negative(t, -((half - t) >> shift), (t + half) >> shift)
        case Rounding.HALF_TOWARD_ZERO:
            return _where_negative(t, (t + half) >> shift, -((half - t) >> shift))
        case Rounding.TOWARD_ZERO:
            return _where_negative(t, -((-t) >> shift), t >> shift)
        case Rounding.AWAY_FROM_ZERO:
            return _where_negative(t, t >> shift, -((-t) >> shift))
        case Rounding.TFLM:
            raise AssertionError("tflm rounds twice; see requantize")
        case _:
            raise assert_never(rounding)


def _where_negative(t: Any, negative: Any, other: Any) -> Any:
    return np.where(np.asarray(t) < 0, negative, other)


def tflm(acc: Any, multiplier: Any, shift: Any) -> Any:
    """TensorFlow Lite Micro: saturating left shift, doubling high multiply rounding half up in magnitude, then a rounding right shift."""
    left, right = np.maximum(31 - shift, 0), np.maximum(shift - 31, 0)
    wide = np.clip(acc << left, INT32_MIN, INT32_MAX)
    product = wide * multiplier
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = _where_negative(nudged, -((-nudged) >> 31), nudged >> 31)  # C division truncates
    return shift_right(high, right, Rounding.HALF_AWAY)


def requantize(acc: Any, op: Requantize) -> Any:
    """Requantize without its shape: `acc` is int64, or object when its products might not fit; channels are the last axis."""
    kind = acc.dtype
    multiplier, offset, shift = (np.array(v, dtype=kind) for v in (op.multiplier, op.offset, op.shift))
    twice = op.rounding is Rounding.TFLM
    y = tflm(acc, multiplier, shift) if twice else shift_right(acc * multiplier + offset, shift, op.rounding)
    return np.clip(y + op.output_offset, *op.clamp)


def interpolated(at: Any, table: Any, steps: int, shift: int, rounding: Rounding) -> Any:
    """round(v / 2**shift), v on the line from table[i] to table[i + 1] times `steps`, where at = i * steps + r."""
    i, r = at // steps, at % steps
    return shift_right(table[i] * (steps - r) + table[i + 1] * r, np.int64(shift), rounding)
