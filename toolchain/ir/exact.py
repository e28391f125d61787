"""Real factors become integers, provably: a real affine or monotone function of an integer, as Requantize, Lookup or Threshold.

The function wanted is y = clamp(output_offset + round(slope * x + intercept)) in exact rational arithmetic. It is a staircase:
output step k begins at one integer x. Whatever integers reproduce every step's beginning on the reachable x reproduce the
function, so each candidate (multiplier, shift) leaves an interval of offsets, and a non-empty interval is the proof.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError

from .builder import GraphBuilder
from .check import MAX_LOOKUP_BITS, MAX_MULTIPLIER, MAX_SHIFT
from .ops import Rounding
from .types import Ints, QType, Tensor

MAX_LADDER = 1 << 16  # entries of all channels of a Threshold
MAX_STEPS = 1 << 20  # of one channel's staircase: what is compared one by one
FITS = (
    1 << 62
)  # products m * x, and with rounding sums, of a Requantize found here stay below: no step of it leaves int64

Step = tuple[int, int, int]  # multiplier, offset, shift


@dataclass(frozen=True)
class Stairs:
    """One channel's staircase on lo..hi with slope > 0: y(lo) = first, and step first + 1 + i begins at begins[i]."""

    lo: int
    hi: int
    slope: Fraction
    intercept: Fraction
    first: int
    begins: np.ndarray  # Python integers or int64
    open_below: bool  # the clamp does not hold y(lo) up, so lo itself is a constraint
    open_above: bool

    @property
    def last(self) -> int:
        return self.first + len(self.begins)


def edge(k: Any, rounding: Rounding) -> tuple[Any, Any]:
    """Where round() reaches k: (twice the real edge, 1 if the edge itself does not yet reach k)."""
    odd, positive = k & 1, (k > 0) * 1
    match rounding:
        case Rounding.FLOOR:
            return 2 * k, 0 * k
        case Rounding.CEIL:
            return 2 * k - 2, 0 * k + 1
        case Rounding.TOWARD_ZERO:
            return 2 * k - 2 * (1 - positive), 1 - positive
        case Rounding.AWAY_FROM_ZERO:
            return 2 * k - 2 * positive, positive
        case Rounding.HALF_UP:
            return 2 * k - 1, 0 * k
        case Rounding.HALF_DOWN:
            return 2 * k - 1, 0 * k + 1
        case Rounding.HALF_EVEN:
            return 2 * k - 1, odd
        case Rounding.HALF_AWAY:
            return 2 * k - 1, 1 - positive
        case Rounding.HALF_TOWARD_ZERO:
            return 2 * k - 1, positive
        case Rounding.TFLM:
            raise AssertionError("tflm is not one rounding of a real number")


def rounded(value: Fraction, rounding: Rounding) -> int:
    """round(value) for one exact rational."""
    floor = value.numerator // value.denominator
    twice, excluded = edge(floor + 1, rounding)
    reaches = 2 * value > twice or (2 * value == twice and not excluded)
    if reaches:
        return floor + 1
    return floor


def stairs(
    lo: int,
    hi: int,
    slope: Fraction,
    intercept: Fraction,
    rounding: Rounding,
    clamp: tuple[int, int],
    name: str = "stairs",
) -> Stairs:
    """The staircase of clamp(round(slope * x + intercept)) for x in lo..hi, slope > 0."""
    first, last = (min(max(rounded(slope * x + intercept, rounding), clamp[0]), clamp[1]) for x in (lo, hi))
    if last - first > MAX_STEPS:
        raise UnsupportedError(
            f"%{name}",
            f"{last - first + 1} output values over {lo}..{hi} by a factor that is no fraction of a power of two, at most {MAX_STEPS + 1} are proved",
            "use fewer output bits or a power-of-two scale",
        )
    steps = np.array(range(first + 1, last + 1), dtype=object)
    twice, excluded = edge(steps, rounding)
    # smallest x with slope * x + intercept >= twice / 2, or > where the edge is excluded
    n, d = slope.numerator, slope.denominator
    numerator = (twice * intercept.denominator - 2 * intercept.numerator) * d
    denominator = 2 * intercept.denominator * n
    begins = (
        np.where(excluded.astype(bool), numerator // denominator + 1, -((-numerator) // denominator))
        if len(steps)
        else steps
    )
    return Stairs(lo, hi, slope, intercept, first, begins, first > clamp[0], last < clamp[1])


def solve(s: Stairs, rounding: Rounding) -> Step | None:
    """The smallest shift, and its multiplier and offset, that reproduce every step under `rounding`; None where there is none."""
    if s.first == s.last:
        return 0, s.first, 0
    steps = np.array(range(s.first + 1, s.last + 1), dtype=object)
    reach_x, reach_k = [s.begins], [steps]  # m * x + offset must reach step k
    below_x, below_k = [s.begins - 1], [steps]  # and must not yet, here
    if s.open_below:
        reach_x.append(np.array([s.lo], dtype=object))
        reach_k.append(np.array([s.first], dtype=object))
    if s.open_above:
        below_x.append(np.array([s.hi], dtype=object))
        below_k.append(np.array([s.last + 1], dtype=object))
    rx, rk, bx, bk = (np.concatenate(v) for v in (reach_x, reach_k, below_x, below_k))
    widest_x, widest_k = max(abs(s.lo), abs(s.hi)) + 1, max(abs(s.first), abs(s.last)) + 2
    rt, rexcluded = edge(rk, rounding)
    bt, bexcluded = edge(bk, rounding)
    small = widest_x < 1 << 30 and widest_k < 1 << 30
    if small:
        rx, bx, rt, bt, rexcluded, bexcluded = (
            np.asarray(v).astype(np.int64) for v in (rx, bx, rt, bt, rexcluded, bexcluded)
        )
    for shift in range(MAX_SHIFT + 1):
        nearest = (s.slope.numerator << shift) // s.slope.denominator
        if nearest > MAX_MULTIPLIER or nearest * widest_x >= FITS or widest_k << shift >= FITS >> 1:
            return None
        for multiplier in (nearest, nearest + 1):
            if not 0 < multiplier <= MAX_MULTIPLIER:
                continue
            need = _beginning(rt, rexcluded, shift) - multiplier * rx
            limit = _beginning(bt, bexcluded, shift) - 1 - multiplier * bx
            low, high = int(need.max()), int(limit.min())
            if low <= high:
                exact = s.intercept * (1 << shift) + (Fraction(1 << shift, 2) if rounding is Rounding.FLOOR else 0)
                offset = min(max(round(exact), low), high)
                if _fits(multiplier, offset, shift, s.lo, s.hi):
                    return multiplier, offset, shift
    return None


def _beginning(twice: Any, excluded: Any, shift: int) -> Any:
    """The smallest integer t for which round(t / 2**shift) reaches the step; at shift 0 nothing is rounded."""
    if shift == 0:  # an edge at k - 1/2, k - 1 (excluded) or k: the first integer that reaches is k
        return (twice + excluded + 1) // 2
    return (twice << (shift - 1)) + excluded


def _fits(multiplier: int, offset: int, shift: int, lo: int, hi: int) -> bool:
    """Products, and sums with what rounding adds, are inside int64 with a bit to spare for an output_offset."""
    ends = [v for x in (lo, hi) for v in (x * multiplier, x * multiplier + offset)]
    return max(map(abs, (*ends, offset))) + (1 << shift) < FITS


def dyadic(slope: Fraction, intercept: Fraction, lo: int, hi: int) -> Step | None:
    """The affine function itself as integers, when both are fractions of a power of two and fit."""
    denominator = max(slope.denominator, intercept.denominator)
    if slope.denominator & (slope.denominator - 1) or intercept.denominator & (intercept.denominator - 1):
        return None
    shift = denominator.bit_length() - 1
    multiplier, offset = int(slope * denominator), int(intercept * denominator)
    if abs(multiplier) > MAX_MULTIPLIER or shift > MAX_SHIFT or not _fits(multiplier, offset, shift, lo, hi):
        return None
    return multiplier, offset, shift


def affine(b: GraphBuilder, x: Tensor, qtype: QType, slope: Sequence[Fraction], intercept: Sequence[Fraction], rounding: Rounding, name: str,
           clamp: tuple[int, int] | None = None, output_offset: int = 0) -> Tensor:  # fmt: skip
    """y = clamp(output_offset + round(slope[c] * x + intercept[c])), exact for every reachable stored x.

    `slope` and `intercept` have 1 or channels entries and work on the stored x (zero point included in the intercept by the
    caller). Raises UnsupportedError where neither a Requantize nor a Threshold of reasonable size can say it.
    """
    limits = clamp or (qtype.min, qtype.max)
    inner = (limits[0] - output_offset, limits[1] - output_offset)
    given = b.range(x)
    size = max(len(slope), len(intercept), len(given.lo))
    channels = [
        (slope[c % len(slope)], intercept[c % len(intercept)], *pair) for c, pair in enumerate(given.channels(size))
    ]
    if len(set(channels)) == 1:
        channels = channels[:1]
    direct = [dyadic(r, i, lo, hi) for r, i, lo, hi in channels]
    found = [step for step in direct if step is not None]
    used = rounding
    if len(found) < len(channels):
        ladders = [(_mirrored(r, i, lo, hi, rounding, inner, name), r < 0) for r, i, lo, hi in channels]
        for used in (Rounding.FLOOR, rounding):
            found = []
            for (s, flip), direct_step in zip(ladders, direct, strict=True):
                step = _solve(s, flip, used, direct_step if used is rounding else None)
                if step is None:  # one channel without is enough: the others need not be tried
                    break
                found.append(step)
            if len(found) == len(channels):
                break
        else:
            return _ladder(b, x, qtype, ladders, name, output_offset)
    columns = list(zip(*found, strict=True))
    return b.requantize(x, qtype, columns[0], columns[1], columns[2], used, name, limits, output_offset)


def _mirrored(
    slope: Fraction, intercept: Fraction, lo: int, hi: int, rounding: Rounding, clamp: tuple[int, int], name: str
) -> Stairs:
    """Stairs of the function, or for a falling one those of the same function of -x."""
    if slope < 0:
        return stairs(-hi, -lo, -slope, intercept, rounding, clamp, name)
    if slope == 0:
        level = min(max(rounded(intercept, rounding), clamp[0]), clamp[1])
        return Stairs(lo, hi, Fraction(1), Fraction(0), level, np.array([], dtype=object), False, False)
    return stairs(lo, hi, slope, intercept, rounding, clamp, name)


def _solve(s: Stairs, flip: bool, rounding: Rounding, direct: Step | None) -> Step | None:
    step = direct or solve(s, rounding)
    if step is None or direct or not flip:
        return step
    return -step[0], step[1], step[2]


def _ladder(
    b: GraphBuilder, x: Tensor, qtype: QType, ladders: list[tuple[Stairs, bool]], name: str, output_offset: int
) -> Tensor:
    longest = max(len(s.begins) for s, _ in ladders)
    if longest * len(ladders) > MAX_LADDER:
        raise UnsupportedError(
            f"%{name}",
            f"no 48-bit multiplier reproduces this real factor exactly and a ladder would need {longest * len(ladders)} thresholds, at most {MAX_LADDER}",
            "use fewer output bits or a power-of-two scale",
        )
    thresholds, levels = [], []
    for s, flip in ladders:
        begins = [int(v) for v in s.begins]
        ys = list(range(s.first + output_offset, s.last + output_offset + 1))
        if flip:  # step k begins at -x = t, so going up in x it ends after x = -t
            begins, ys = [1 - t for t in reversed(begins)], ys[::-1]
        beyond = max((s.hi if not flip else -s.lo) + 1, begins[-1] if begins else 0)
        missing = longest - len(begins)
        thresholds.append(begins + [beyond] * missing)
        levels.append(ys + [ys[-1]] * missing)
    return b.threshold(x, qtype, np.array(thresholds), np.array(levels), name)


def tabulate(b: GraphBuilder, x: Tensor, qtype: QType, function: Callable[[Ints], Ints], name: str) -> Tensor:
    """y = function(stored x), elementwise and the same for all channels: a Lookup up to 12 bits, else a Threshold if it is monotone.

    `function` takes and gives int64 arrays of stored integers. UnsupportedError where it is wide and not monotone.
    """
    lo, hi = b.range(x).whole
    if x.qtype.bits <= MAX_LOOKUP_BITS:
        inside = np.clip(np.arange(x.qtype.min, x.qtype.max + 1), lo, hi)
        return b.lookup(x, qtype, function(inside), name)
    ends = function(np.array([lo, hi]))
    falling = bool(ends[0] > ends[1])
    steps = np.arange(int(ends.min()) + 1, int(ends.max()) + 1)
    if not len(steps):  # one value throughout; a ladder has at least one rung
        begins, levels = np.array([lo]), ends
        _must_be_monotone(function, lo, hi, begins, levels, name)
        return b.threshold(x, qtype, begins[None], levels[None], name)
    if len(steps) > MAX_LADDER:
        raise UnsupportedError(
            f"%{name}", f"the function takes {len(steps) + 1} values, at most {MAX_LADDER + 1}", "use fewer output bits"
        )
    # by bisection, all steps at once: the first x whose value has reached the step (or, falling, dropped below it)
    below, above = np.full(len(steps), lo), np.full(len(steps), hi)
    while (above - below > 1).any():
        middle = below + (above - below) // 2
        reached = (function(middle) < steps) if falling else (function(middle) >= steps)
        above, below = np.where(reached, middle, above), np.where(reached, below, middle)
    begins = np.sort(np.unique(above))
    levels = function(np.concatenate([[lo], begins]))
    _must_be_monotone(function, lo, hi, begins, levels, name)
    return b.threshold(x, qtype, begins[None], levels[None], name)


def _must_be_monotone(
    function: Callable[[Ints], Ints], lo: int, hi: int, begins: Ints, levels: Ints, name: str
) -> None:
    """Compare the ladder with the function on every x where there are at most 2**22, else on a spread of as many."""
    count = min(hi - lo + 1, 1 << 22)
    xs = lo + np.arange(count) * ((hi - lo) // max(count - 1, 1)) if hi - lo + 1 > count else np.arange(lo, hi + 1)
    xs = np.concatenate([xs, begins, np.maximum(begins - 1, lo)])
    if (levels[np.searchsorted(begins, xs, side="right")] != function(xs)).any():
        raise UnsupportedError(
            f"%{name}",
            f"the function is not monotone over {lo}..{hi}",
            f"requantize to {MAX_LOOKUP_BITS} bits or fewer before it",
        )
