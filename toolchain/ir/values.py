"""What flows between layers while a model is lowered: an integer tensor and the real function still pending on it.

Its one rule: real = clip(slope * real(tensor) + intercept, lo, hi), exactly; a bias or a BatchNormalization waits here
for the next quantizer, which absorbs it without rounding twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from toolchain.errors import UnsupportedError
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.check import MAX_MULTIPLIER
from toolchain.ir.ops import Rounding
from toolchain.ir.types import QType, Tensor, bits_for

ONE, ZERO = Fraction(1), Fraction(0)
MAX_EXACT_BITS = 56  # an exact tensor between layers: room for a sum in int64
GUARD_BITS = 30
FINE_BITS = 12  # of an output's grid below the accumulator's unit


@dataclass(frozen=True)
class Value:
    tensor: Tensor
    slope: tuple[Fraction, ...] = (ONE,)  # one, or one for each channel
    intercept: tuple[Fraction, ...] = (ZERO,)
    lo: Fraction | None = None
    hi: Fraction | None = None

    @property
    def plain(self) -> bool:
        return self.slope == (ONE,) and self.intercept == (ZERO,) and self.lo is None and self.hi is None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    def columns(self) -> list[tuple[Fraction, Fraction]]:
        """(a, b), one or one for each channel: real = clip(a * stored + b)."""
        q = self.tensor.qtype
        size = max(len(self.slope), len(self.intercept), len(q.scales))
        slopes, intercepts, scales = spread(self.slope, size), spread(self.intercept, size), spread(q.scales, size)
        found = [(m * s, i - m * s * q.zero_point) for m, i, s in zip(slopes, intercepts, scales, strict=True)]
        return found[:1] if len(set(found)) == 1 else found


def spread(v: Sequence[Fraction], size: int) -> tuple[Fraction, ...]:
    return tuple(v) * size if len(v) == 1 else tuple(v)


def shorten(v: Iterable[Fraction]) -> tuple[Fraction, ...]:
    t = tuple(v)
    return t[:1] if len(set(t)) == 1 else t


def affine(
    b: GraphBuilder, v: Value, slope: Sequence[Fraction], intercept: Sequence[Fraction], name: str, where: str
) -> Value:
    """slope[c] * v + intercept[c], still pending; a pending clip goes on where all channels clip alike, else is carried out."""
    lo, hi = v.lo, v.hi
    if (lo is not None or hi is not None) and len(slope) == len(intercept) == 1 and slope[0]:
        lo, hi = (None if x is None else slope[0] * x + intercept[0] for x in (lo, hi))
        lo, hi = (hi, lo) if slope[0] < 0 else (lo, hi)
    elif lo is not None or hi is not None:
        v, lo, hi = Value(exact(b, v, f"{name}_clip", where)), None, None
    size = max(map(len, (slope, intercept, v.slope, v.intercept)))
    m, i, vm, vi = (spread(t, size) for t in (slope, intercept, v.slope, v.intercept))
    return Value(
        v.tensor,
        shorten(x * y for x, y in zip(m, vm, strict=True)),
        shorten(x * y + z for x, y, z in zip(m, vi, i, strict=True)),
        lo,
        hi,
    )


def clip(v: Value, lo: Fraction | None, hi: Fraction | None) -> Value:
    """min(max(v, lo), hi), still pending."""
    if lo is not None and hi is not None and lo > hi:  # then all are hi
        lo = hi

    def inside(x: Fraction | None) -> Fraction | None:
        if x is not None and lo is not None:
            x = max(x, lo)
        return min(x, hi) if x is not None and hi is not None else x

    return replace(v, lo=lo if v.lo is None else inside(v.lo), hi=hi if v.hi is None else inside(v.hi))


def gcd(values: Iterable[Fraction | None]) -> Fraction:
    """The largest step of which all are whole multiples; 1 when all are 0."""
    some = [x for x in values if x]
    if not some:
        return ONE
    denominator = math.lcm(*(x.denominator for x in some))
    return Fraction(math.gcd(*(int(x * denominator) for x in some)), denominator)


def exact(b: GraphBuilder, v: Value, name: str, where: str, single: bool = False) -> Tensor:
    """The pending function carried out in integers, without rounding; refused by name where they would be too wide."""
    found = try_exact(b, v, name, single)
    if found is None:
        raise UnsupportedError(
            where,
            "reads real values that no integer grid of reasonable width holds (a BatchNormalization, a bias or per-channel scales before it)",
            "put a quantizer between",
        )
    return found


def try_exact(
    b: GraphBuilder, v: Value, name: str, single: bool = False, widest: int = MAX_EXACT_BITS
) -> Tensor | None:
    """The pending function carried out in integers of at most `widest` bits, without rounding; None where they do not hold it."""
    if v.plain and (not single or len(v.tensor.qtype.scales) == 1):
        return v.tensor
    columns = v.columns()
    steps = [gcd(c) for c in columns]
    if single or any(x for x in (v.lo, v.hi)):
        steps = [gcd([*steps, v.lo, v.hi])] * len(columns)
    factors = [(a / g, i / g) for (a, i), g in zip(columns, steps, strict=True)]
    if any(abs(a) > MAX_MULTIPLIER for a, _ in factors):
        return None
    ends = b.range(v.tensor).channels(len(columns))
    values = [
        int(a) * x + int(i) for (a, i), pair in zip(factors, _wide(ends, len(factors)), strict=True) for x in pair
    ]
    low, high = min(values), max(values)
    if v.lo is not None:
        low, high = max(low, int(v.lo / steps[0])), max(high, int(v.lo / steps[0]))
    if v.hi is not None:
        low, high = min(low, int(v.hi / steps[0])), min(high, int(v.hi / steps[0]))
    bits, signed = bits_for(low, high)
    if bits > widest or max(abs(x).bit_length() for x in values) > MAX_EXACT_BITS:
        return None
    qtype = QType.of(bits, signed, steps, len(v.shape) - 1)
    multiplier, offset = [int(a) for a, _ in factors], [int(i) for _, i in factors]
    return b.requantize(
        v.tensor,
        qtype,
        multiplier,
        offset,
        [0] * len(factors),
        Rounding.FLOOR,
        name,
        (max(low, qtype.min), min(high, qtype.max)),
    )


def _wide(ends: tuple[tuple[int, int], ...], size: int) -> tuple[tuple[int, int], ...]:
    """One pair per column; a single column covers every channel."""
    return ends if len(ends) == size else ((min(lo for lo, _ in ends), max(hi for _, hi in ends)),) * size


def align(b: GraphBuilder, values: Sequence[Value], name: str, where: str) -> list[Tensor]:
    """Tensors of equal scale with the values' real meaning: exact where the steps have a common measure of reasonable
    width, else on a grid of guard bits, which is noted on the graph."""
    found = [try_exact(b, v, f"{name}_in{i}") for i, v in enumerate(values)]
    tensors = [t for t in found if t is not None]
    if len(tensors) == len(values):
        size = max(len(t.qtype.scales) for t in tensors)
        steps = [gcd(c) for c in zip(*(t.qtype.scale_list(size) for t in tensors), strict=True)]
        if any(t.shape[-1] != size for t in tensors):  # one channel that goes with all of another's
            steps = [gcd(steps)] * size
        factors = [[s / g for s, g in zip(t.qtype.scale_list(size), steps, strict=True)] for t in tensors]
        widest = max(t.qtype.bits + int(max(f)).bit_length() for t, f in zip(tensors, factors, strict=True))
        if widest <= MAX_EXACT_BITS and max(max(f) for f in factors) <= MAX_MULTIPLIER:
            return [_up(b, t, f, f"{name}_up{i}") for i, (t, f) in enumerate(zip(tensors, factors, strict=True))]
    bases = [t.qtype.scales[0] for t in tensors if len(t.qtype.scales) == 1]
    reach = max(_reach(b, v) for v in values)
    base = bases[0] if bases else ONE
    step = base / Fraction(2) ** max(0, math.floor(math.log2(float(base * 2**GUARD_BITS / reach)))) if reach else base
    b.notes.append(
        f"{where}: operands have no common step; aligned to {float(step):.3g} with guard bits, verify counts what that changes"
    )
    return [_guard(b, v, step, f"{name}_guard{i}") for i, v in enumerate(values)]


def _up(b: GraphBuilder, t: Tensor, factors: Sequence[Fraction], name: str) -> Tensor:
    return b.scale_up(t, [int(f) for f in shorten(factors)], name)


def _reach(b: GraphBuilder, v: Value) -> Fraction:
    columns = v.columns()
    ends = _wide(b.range(v.tensor).channels(len(columns)), len(columns))
    return max(abs(a * x + i) for (a, i), pair in zip(columns, ends, strict=True) for x in pair)


def _guard(b: GraphBuilder, v: Value, step: Fraction, name: str) -> Tensor:
    columns = [(a / step, i / step) for a, i in v.columns()]
    reach = _reach(b, v) / step + 1
    low, high = -math.ceil(reach), math.ceil(reach)
    qtype = QType.of(*bits_for(low, high), step)
    widest = max(max(abs(x) for x in b.range(v.tensor).whole), 1)
    shift = max(0, min(40, 60 - (int(max(abs(a) for a, _ in columns) * widest) + int(reach)).bit_length()))
    while shift and max(abs(round(a * 2**shift)) for a, _ in columns) > MAX_MULTIPLIER:
        shift -= 1
    return _rounded(b, v, qtype, shift, (qtype.min, qtype.max), name)


def _rounded(b: GraphBuilder, v: Value, qtype: QType, shift: int, ends: tuple[int, int], name: str) -> Tensor:
    """The pending function rounded to the one scale of `qtype`, by factors of `shift` fraction bits; `ends` where it has no clip."""
    step = qtype.scales[0]
    columns = [(round(a / step * 2**shift), round(i / step * 2**shift)) for a, i in v.columns()]
    multiplier, offset = zip(*columns, strict=True)
    lo = ends[0] if v.lo is None else max(round(v.lo / step), qtype.min)
    hi = ends[1] if v.hi is None else min(round(v.hi / step), qtype.max)
    return b.requantize(v.tensor, qtype, multiplier, offset, [shift] * len(columns), Rounding.HALF_EVEN, name, (lo, hi))


def unify(b: GraphBuilder, v: Value, name: str, where: str) -> Tensor:
    """One scale for the whole tensor, exactly."""
    t = exact(b, v, f"{name}_in", where)
    return t if len(t.qtype.scales) == 1 else exact(b, Value(t), f"{name}_in", where, single=True)


def scale_of(t: Tensor) -> Fraction:
    assert len(t.qtype.scales) == 1
    return t.qtype.scales[0]


def rising(b: GraphBuilder, v: Value, name: str) -> Value:
    """The same value as a rising function of its tensor: falling channels are negated, so that the largest stays the largest."""
    t = v.tensor
    zero = t.qtype.zero_point
    signs = [-1 if s < 0 else 1 for s in v.slope]
    ends = [(x - zero) * s for x in b.range(t).whole for s in (-1, 1)]
    qtype = QType.of(*bits_for(min(ends), max(ends)), t.qtype.scales, len(t.shape) - 1)
    flipped = b.requantize(t, qtype, signs, [-zero * s for s in signs], [0] * len(signs), Rounding.FLOOR, name)
    return Value(flipped, tuple(map(abs, v.slope)), v.intercept, v.lo, v.hi)


def fine_grid(b: GraphBuilder, v: Value, name: str) -> tuple[Tensor, Fraction]:
    """Real values that no integer grid holds, at the end of a model: on one grid, finer than the smallest unit they are made
    of by up to 2**FINE_BITS while int32 holds them. Off by half a step at most, and where the channels' units differ by
    2**-8 of a step more. Returns the tensor and its step."""
    columns = v.columns()
    unit = min((abs(a) for a, _ in columns if a), default=ONE)
    reach = _reach(b, v)
    widest = max(max(abs(x) for x in b.range(v.tensor).whole), 1)
    for finer in range(FINE_BITS, -MAX_EXACT_BITS, -1):
        step = unit / Fraction(2) ** finer
        scaled = [a / step for a, _ in columns]
        shift = 0 if all(a.denominator == 1 for a in scaled) else widest.bit_length() + 8
        top = math.ceil(reach / step) + 1
        narrow = top < 1 << 31 or finer <= 0
        most = max(math.ceil(abs(a)) for a in scaled) << shift
        if narrow and most <= MAX_MULTIPLIER and most * widest + (top << shift) < 1 << 61:
            break
    else:
        raise UnsupportedError(f"%{name}", f"its values up to {float(reach):.3g} are too wide", "quantize them")
    within = [-top, top, *(round(x / step) for x in (v.lo, v.hi) if x is not None)]  # a clip may lie beyond all values
    ends = min(within), max(within)
    return _rounded(b, v, QType(*bits_for(*ends), step), shift, ends, name), step


def comparable(b: GraphBuilder, v: Value, name: str, where: str) -> Tensor:
    """A tensor of one scale whose integers compare as the real values do: exactly where a grid holds them, else on a fine one."""
    t = try_exact(b, v, name, single=True)
    if t is None:
        t, step = fine_grid(b, v, name)
        b.notes.append(
            f"{where}: real values are compared on a grid of {float(step):.3g}, 1 / {2**FINE_BITS} of their unit or so"
        )
    return t
