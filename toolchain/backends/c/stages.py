"""Requantize, Threshold, Lookup and Interpolate as arguments of the kernels' stages.

One rule: a Requantize is rewritten only by steps that leave every result the same for every value in its proved range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from toolchain.ir import ops
from toolchain.ir.geometry import table_steps
from toolchain.ir.ops import Rounding
from toolchain.ir.ranges import Range
from toolchain.ir.rounding import requantize, shift_right

from .tables import INT32, INT64, Tables, fields, wrapped

KERNEL_ROUNDINGS = {
    Rounding.FLOOR: "NN_FLOOR",
    Rounding.HALF_EVEN: "NN_HALF_EVEN",
    Rounding.HALF_AWAY: "NN_HALF_AWAY",
    Rounding.HALF_TOWARD_ZERO: "NN_HALF_TOWARD_ZERO",
    Rounding.TOWARD_ZERO: "NN_TOWARD_ZERO",
    Rounding.AWAY_FROM_ZERO: "NN_AWAY_FROM_ZERO",
    Rounding.TFLM: "NN_TFLM",
}


@dataclass(frozen=True)
class Steps:
    """Multiplier, offset and shift of each channel, and the accumulator range they are for."""

    multiplier: tuple[int, ...]
    offset: tuple[int, ...]
    shift: tuple[int, ...]
    rounding: Rounding
    output_offset: int
    given: tuple[tuple[int, int], ...]

    def sums(self) -> list[int]:
        """acc * multiplier + offset at both ends of each channel."""
        return [
            end * m + o for ends, m, o in zip(self.given, self.multiplier, self.offset, strict=True) for end in ends
        ]

    def fits(self, bits: int) -> bool:
        """Whether every sum, and what rounding adds to it, fits a signed type of this width. Floor adds nothing."""
        added = [0 if self.rounding is Rounding.FLOOR else 1 << k for k in self.shift for _ in "lh"]
        needs = max(abs(v) + a for v, a in zip(self.sums(), added, strict=True))
        return needs < 1 << (bits - 1) and max(self.shift) < bits - 1


def as_floor(s: Steps) -> Steps:
    """half_up, half_down and ceil are floor after an addition: below 2**shift, which check has left room for."""
    added = {
        Rounding.HALF_UP: lambda shift: (1 << shift) >> 1,
        Rounding.HALF_DOWN: lambda shift: ((1 << shift) - 1) >> 1,
        Rounding.CEIL: lambda shift: (1 << shift) - 1,
    }.get(s.rounding)
    if added is None:
        return s
    offset = tuple(o + added(k) for o, k in zip(s.offset, s.shift, strict=True))
    return replace(s, offset=offset, rounding=Rounding.FLOOR)


def one_shift(s: Steps) -> Steps:
    """Multiply channels up to the largest shift where that fits: a literal shift is cheaper than a table of them."""
    most = max(s.shift)
    up = replace(
        s,
        multiplier=tuple(m << (most - k) for m, k in zip(s.multiplier, s.shift, strict=True)),
        offset=tuple(o << (most - k) for o, k in zip(s.offset, s.shift, strict=True)),
        shift=(most,) * len(s.shift),
    )
    cheap = max(map(abs, up.multiplier)) <= INT32[1] or max(map(abs, s.multiplier)) > INT32[1]
    bits = 32 if s.fits(32) else 64
    return up if cheap and up.fits(bits) else s


def reduced(s: Steps) -> Steps:
    """Divide by common powers of two; under floor the low bits of an offset beside an even multiplier never matter."""
    while min(s.shift) > 0 and not any(m & 1 for m in s.multiplier):
        if s.rounding is not Rounding.FLOOR and any(o & 1 for o in s.offset):
            break
        s = replace(
            s,
            multiplier=tuple(m >> 1 for m in s.multiplier),
            offset=tuple(o >> 1 for o in s.offset),
            shift=tuple(k - 1 for k in s.shift),
        )
    return s


def joined_offset(s: Steps) -> Steps:
    """Under floor the output offset may be added before the shift; done where it keeps the sum as narrow."""
    if s.rounding is not Rounding.FLOOR or not s.output_offset:
        return s
    offset = tuple(o + (s.output_offset << k) for o, k in zip(s.offset, s.shift, strict=True))
    joined = replace(s, offset=offset, output_offset=0)
    return joined if joined.fits(32 if s.fits(32) else 64) else s


def short_tflm(s: Steps) -> bool:
    """What nn_tflm_short needs: no left shift, a right shift of 1 to 30, and room to double the accumulator."""
    room = all(low >= -(1 << 30) and high < 1 << 30 for low, high in s.given)
    return room and min(s.shift) >= 32 and max(s.shift) <= 61


def saturated(low: int, high: int) -> int:
    """n where the clamp is to a signed number of n bits, for the n that nn_clamp has; else 0."""
    n = (high + 1).bit_length()
    return n if n in (2, 3, 4, 5, 6, 7, 8, 16) and (low, high) == (-(1 << (n - 1)), (1 << (n - 1)) - 1) else 0


def _rounded(op: ops.Requantize, s: Steps) -> list[int]:
    """The results at both ends of each channel, before output offset and clamp; between them the rest lie."""
    if s.rounding is Rounding.TFLM:
        return [
            int(v)
            for v in requantize(np.array(s.given, dtype=object).T, replace(op, clamp=INT64, output_offset=0)).flat
        ]
    shifts = np.array([k for k in s.shift for _ in "lh"], dtype=object)
    return [int(v) for v in shift_right(np.array(s.sums(), dtype=object), shifts, s.rounding)]


def _derived(op: ops.Requantize, given: Range) -> tuple[Steps, bool, tuple[int, int], bool]:
    """The steps as they are computed, whether in int64, the range of the result before clamping, and whether that fits int32."""
    columns = len(op.multiplier)
    ends = given.channels(columns) if columns > 1 else (given.whole,)
    s = Steps(op.multiplier, op.offset, op.shift, op.rounding, op.output_offset, tuple(ends))
    wide = True
    if op.rounding is not Rounding.TFLM:
        s = joined_offset(reduced(one_shift(as_floor(s))))
        wide = not s.fits(32)
        assert s.fits(64), "check leaves room for rounding"
    raw = _rounded(op, s)
    lo, hi = min(raw) + s.output_offset, max(raw) + s.output_offset
    assert INT64[0] <= lo and hi <= INT64[1], "check leaves room for output_offset"
    low, high = op.clamp
    narrow = all(INT32[0] <= v <= INT32[1] for v in (lo, hi, min(raw), max(raw), s.output_offset))
    return s, wide, (lo, hi), narrow and low <= INT32[1] and high >= INT32[0]


def takes_twice(op: ops.Op, given: Range) -> bool:
    """Whether this stage is a requantize by nn_tflm_short, which takes twice the accumulator."""
    if not isinstance(op, ops.Requantize) or op.rounding is not Rounding.TFLM:
        return False
    s, _, _, narrow = _derived(op, given)
    return narrow and short_tflm(s)


def requantize_args(op: ops.Requantize, given: Range, name: str, tables: Tables) -> tuple[str, bool]:
    """The initialiser of nn_requantize_args, and whether it has tables by channel."""
    s, wide, (lo, hi), narrow = _derived(op, given)
    low, high = op.clamp
    floor, ceiling = INT32 if narrow else INT64
    rounding = KERNEL_ROUNDINGS[s.rounding]
    if takes_twice(op, given):
        rounding, s = "NN_TFLM_SHORT", replace(s, shift=tuple(k - 31 for k in s.shift))
    text = fields(
        rounding=rounding,
        multiplier=tables.param(f"{name}_multiplier", [wrapped(m, wide) for m in s.multiplier]),
        offset=tables.param(f"{name}_offset", [wrapped(o, wide) for o in s.offset]),
        shift=tables.param(f"{name}_shift", s.shift),
        output_offset=s.output_offset,
        min=max(low, floor) if lo < low else floor,
        max=min(high, ceiling) if hi > high else ceiling,
        wide=int(wide),
        wide_result=int(not narrow),
        saturate=saturated(low, high) if lo < low or hi > high else 0,
    )
    return text, "NN_EACH" in text


def threshold_args(op: ops.Threshold, name: str, tables: Tables) -> tuple[str, bool]:
    ladders, levels = op.thresholds.array, op.levels.array
    text: dict[str, object] = {}
    by_channel = False
    for field, array, const in (("threshold", ladders, op.thresholds), ("level", levels, op.levels)):
        table, code = tables.values(f"const_{const.tensor.name}", array.ravel().tolist() or [0])
        row = array.shape[1] if len(array) > 1 else 0
        text |= {f"{field}s": table, f"{field}_type": code, f"{field}_row": row}
        by_channel |= len(array) > 1
    return fields(count=ladders.shape[1], **text), by_channel


def lookup_args(op: ops.Lookup, tables: Tables) -> str:
    """The initialiser of nn_lookup_args."""
    table, code = tables.const(op.table)
    return fields(table=table, type=code, min=op.input.qtype.min)


def interpolate_args(op: ops.Interpolate, tables: Tables) -> str:
    """The initialiser of nn_interpolate_args."""
    table, code = tables.const(op.table)
    s = as_floor(Steps((1,), (0,), (op.shift,), op.rounding, op.output_offset, ()))
    return fields(
        table=table,
        type=code,
        min=op.input.qtype.min,
        bits=table_steps(op).bit_length() - 1,
        add=s.offset[0],
        shift=op.shift,
        rounding=KERNEL_ROUNDINGS[s.rounding],
        output_offset=op.output_offset,
    )


def stage(
    op: ops.Requantize | ops.Threshold | ops.Lookup | ops.Interpolate, given: Range, name: str, tables: Tables
) -> tuple[str, bool]:
    """The initialiser of nn_stage, and whether it reads tables by channel."""
    match op:
        case ops.Requantize():
            text, by_channel = requantize_args(op, given, name, tables)
            return f"{{.kind = NN_REQUANTIZE, .requantize = {text}}}", by_channel
        case ops.Threshold():
            text, by_channel = threshold_args(op, name, tables)
            return f"{{.kind = NN_THRESHOLD, .threshold = {text}}}", by_channel
        case ops.Lookup():
            return f"{{.kind = NN_LOOKUP, .lookup = {lookup_args(op, tables)}}}", False
        case ops.Interpolate():
            return f"{{.kind = NN_INTERPOLATE, .interpolate = {interpolate_args(op, tables)}}}", False
