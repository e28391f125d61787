"""Quantizers as staircases, applied to a pending Value: one Requantize where affine between clamps, else a Threshold or a Lookup.

Its one rule: a quantizer is a staircase, and its steps begin at exact real numbers; where each begins in stored integers
is computed with rationals, so nothing depends on floating point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError

from .builder import GraphBuilder
from .check import MAX_LOOKUP_BITS
from .exact import MAX_LADDER, affine, edge, rounded
from .ops import Rounding
from .types import QType, Tensor
from .values import Value, spread

Edge = tuple[Fraction, bool]  # where a step begins, and whether the edge itself belongs to it


@dataclass(frozen=True)
class Uniform:
    """code = clamp(output_offset + round(slope * x + intercept), lo, hi), worth `scale` * (code - zero_point).

    `slope` and `intercept` have one entry, or one for each channel, as `scale` has.
    """

    slope: tuple[Fraction, ...]
    intercept: tuple[Fraction, ...]
    lo: int
    hi: int
    scale: tuple[Fraction, ...]
    bits: int
    signed: bool
    rounding: Rounding = Rounding.HALF_EVEN
    zero_point: int = 0
    output_offset: int = 0

    @classmethod
    def one(
        cls,
        slope: Fraction,
        intercept: Fraction,
        lo: int,
        hi: int,
        scale: tuple[Fraction, ...],
        bits: int,
        signed: bool,
    ) -> Uniform:
        """The same for all channels, halves to even, zero point 0."""
        return cls((slope,), (intercept,), lo, hi, scale, bits, signed)

    def code(self, x: Fraction, channel: int = 0) -> int:
        """The code of one real number."""
        value = rounded(self.slope[channel % len(self.slope)] * x + self.intercept[channel % len(self.intercept)], self.rounding)  # fmt: skip
        return min(max(self.output_offset + value, self.lo), self.hi)

    def qtype(self, rank: int) -> QType:
        return QType.of(self.bits, self.signed, self.scale, rank - 1, self.zero_point)


@dataclass(frozen=True)
class Ladder:
    """code = levels[number of edges that x reaches]; one list of edges and levels for all channels, or one for each."""

    edges: tuple[tuple[Edge, ...], ...]
    levels: tuple[tuple[int, ...], ...]
    scale: tuple[Fraction, ...]
    bits: int
    signed: bool
    zero_point: int = 0

    @classmethod
    def one(
        cls, edges: tuple[Edge, ...], levels: tuple[int, ...], scale: tuple[Fraction, ...], bits: int, signed: bool
    ) -> Ladder:
        """The same for all channels, zero point 0."""
        return cls((edges,), (levels,), scale, bits, signed)

    def qtype(self, rank: int) -> QType:
        return QType.of(self.bits, self.signed, self.scale, rank - 1, self.zero_point)


def apply(b: GraphBuilder, v: Value, part: Uniform | Ladder, name: str, where: str) -> Tensor:
    """The tensor of the staircase's codes of `v`, its pending function included."""
    for what, size in _sizes(part).items():
        if size not in (1, v.shape[-1]):
            raise UnsupportedError(where, f"{size} {what} for {v.shape[-1]} channels", "give one for each channel")
    if isinstance(part, Ladder):
        return _ladder(b, replace(v, lo=None, hi=None), _clipped(part, v.lo, v.hi), name, where)
    return _uniform(b, v, part, name, where)


def _sizes(part: Uniform | Ladder) -> dict[str, int]:
    if isinstance(part, Ladder):
        return {"scales": len(part.scale), "ladders": len(part.edges)}
    return {"scales": len(part.scale), "slopes": len(part.slope), "intercepts": len(part.intercept)}


def _uniform(b: GraphBuilder, v: Value, part: Uniform, name: str, where: str) -> Tensor:
    qtype = part.qtype(len(v.shape))
    given = v.columns()
    size = max(len(given), len(part.slope), len(part.intercept))
    ends = [(x, {part.code(x, c) for c in range(size)}) for x in (v.lo, v.hi) if x is not None]
    if any(len(codes) > 1 for _, codes in ends):  # a clip at one real value is another code in each channel
        return apply(b, v, _rungs(part, size, where), name, where)
    slopes, offsets = spread(part.slope, size), spread(part.intercept, size)
    pairs = zip(given * size if len(given) == 1 else given, slopes, offsets, strict=True)
    columns = [(a * m, i * m + o) for (a, i), m, o in pairs]
    if len(set(columns)) == 1:
        columns = columns[:1]
    lo, hi = part.lo, part.hi
    if v.lo is not None:
        lo = min(max(part.code(v.lo), lo), hi)
    if v.hi is not None:
        hi = min(max(part.code(v.hi), lo), hi)
    low, high = b.range(v.tensor).whole
    same = columns == [(Fraction(1), Fraction(-part.output_offset))] and v.tensor.qtype == qtype
    if same and lo <= low and high <= hi:
        return v.tensor
    slope, intercept = [a for a, _ in columns], [i for _, i in columns]
    return affine(b, v.tensor, qtype, slope, intercept, part.rounding, name, (lo, hi), part.output_offset)


def _rungs(part: Uniform, size: int, where: str) -> Ladder:
    """The same quantizer as a ladder for each of `size` channels."""
    if (part.hi - part.lo) * size > MAX_LADDER:
        raise UnsupportedError(
            where,
            f"{part.hi - part.lo} steps clipped differently in each of {size} channels",
            "use one scale or fewer bits",
        )
    edges = []
    for c in range(size):
        slope, intercept = part.slope[c % len(part.slope)], part.intercept[c % len(part.intercept)]
        assert slope > 0, "a quantizer rises"
        ends = [edge(code - part.output_offset, part.rounding) for code in range(part.lo + 1, part.hi + 1)]
        edges.append(tuple(((Fraction(int(t), 2) - intercept) / slope, not out) for t, out in ends))
    levels = (tuple(range(part.lo, part.hi + 1)),)
    return Ladder(tuple(edges), levels, part.scale, part.bits, part.signed, part.zero_point)


def _clipped(part: Ladder, lo: Fraction | None, hi: Fraction | None) -> Ladder:
    """The ladder of what is clipped to lo..hi: edges that lo reaches are always reached, those that hi does not reach never."""
    if lo is None and hi is None:
        return part
    size = max(len(part.edges), len(part.levels))
    rows = [(part.edges[c % len(part.edges)], part.levels[c % len(part.levels)]) for c in range(size)]
    edges, levels = [], []
    for row, given in rows:
        start = 0 if lo is None else sum(lo > e or (lo == e and inc) for e, inc in row)
        end = len(row) if hi is None else max(sum(hi > e or (hi == e and inc) for e, inc in row), start)
        one = start == end  # a ladder has at least one rung
        edges.append(((Fraction(0), True),) if one else row[start:end])
        levels.append((given[start], given[start]) if one else given[start : end + 1])
    return replace(part, edges=tuple(edges), levels=tuple(levels))


def _ladder(b: GraphBuilder, v: Value, part: Ladder, name: str, where: str) -> Tensor:
    """Where each edge lies in stored integers, for each channel."""
    columns = v.columns()
    size = max(len(columns), len(part.edges), len(part.levels))
    longest = max(map(len, part.edges))
    if longest * size > MAX_LADDER:
        raise UnsupportedError(
            where, f"{longest} steps for each of {size} channels", f"use fewer bits: at most {MAX_LADDER} thresholds"
        )
    lowest, highest = b.range(v.tensor).whole
    rows = []
    for c in range(size):
        a, i = columns[c % len(columns)]
        row = _thresholds(part.edges[c % len(part.edges)], part.levels[c % len(part.levels)], a, i, lowest, highest)
        rows.append(_padded(row, longest, highest))
    rows = rows[:1] if all(r == rows[0] for r in rows) else rows
    thresholds, levels = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    qtype = part.qtype(len(v.shape))
    one = len(rows) == 1 and len(v.tensor.qtype.scales) == 1
    if one and v.tensor.qtype.bits <= MAX_LOOKUP_BITS and longest > 16:
        stored = np.arange(v.tensor.qtype.min, v.tensor.qtype.max + 1)
        return b.lookup(v.tensor, qtype, levels[0][np.searchsorted(thresholds[0], stored, side="right")], name)
    return b.threshold(v.tensor, qtype, thresholds, levels, name)


def _padded(row: tuple[list[int], list[int]], longest: int, highest: int) -> tuple[list[int], list[int]]:
    missing = longest - len(row[0])
    return row[0] + [highest + 1] * missing, row[1] + [row[1][-1]] * missing


def _thresholds(
    edges: tuple[Edge, ...], given: tuple[int, ...], a: Fraction, i: Fraction, lowest: int, highest: int
) -> tuple[list[int], list[int]]:
    """Thresholds and levels in stored integers x of a function of a * x + i."""
    levels = list(given)
    if a == 0:
        reached = sum(i > e or (i == e and inc) for e, inc in edges)
        return [lowest] * len(edges), [levels[reached]] * len(levels)
    found = []
    for e, inc in edges:
        x = (e - i) / a
        if a > 0:
            found.append(math.ceil(x) if inc else math.floor(x) + 1)
        else:  # real falls as stored grows: the step ends after stored x
            found.append(math.floor(x) + 1 if inc else math.ceil(x))
    if a < 0:
        found.reverse()
        levels.reverse()
    return [min(max(t, lowest), highest + 1) for t in found], levels
