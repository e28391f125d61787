"""Value ranges: the smallest and largest integer each tensor can hold, for each channel, derived from weights and input types.

Bounds are exact for every op alone but Softmax and Softmax16, which have their type's and 0..32767: each is reached by some input within the op's input range,
elements taken as independent (x - x is not known to be 0). Python integers wherever int64 might not do: nothing here can overflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from toolchain.errors import assert_never

from . import ops
from .geometry import kept, pool_lcm, table_steps, tap_masks, window_counts
from .ops import Op
from .rounding import interpolated, requantize
from .types import Tensor


@dataclass(frozen=True)
class Range:
    """lo <= stored <= hi; tuples of one, or one for each index of the last axis."""

    lo: tuple[int, ...]
    hi: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, int]:
        """The range over all channels."""
        return min(self.lo), max(self.hi)

    def channels(self, size: int) -> tuple[tuple[int, int], ...]:
        pairs = tuple(zip(self.lo, self.hi, strict=True))
        return pairs * size if len(pairs) == 1 else pairs

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> Range:
        lo, hi = zip(*pairs, strict=True)
        return (
            cls((lo[0],), (hi[0],))
            if len(set(lo)) == len(set(hi)) == 1
            else cls(tuple(map(int, lo)), tuple(map(int, hi)))
        )


def type_range(tensor: Tensor) -> Range:
    return Range((tensor.qtype.min,), (tensor.qtype.max,))


def _terms(op: ops.Mac, given: Range) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest of every term (x - zx) * weight: two arrays [out, taps, inputs of one output]."""
    zero = op.input.qtype.zero_point
    weight = op.weight.array
    pairs = [(lo - zero, hi - zero) for lo, hi in given.channels(op.input.shape[-1])]
    if isinstance(op, ops.DepthwiseConv2D):
        out = weight.shape[2]
        weight = weight.reshape(-1, out).T[:, :, None]
        reads = np.arange(out)[:, None] // (out // len(pairs))
    else:
        out, per_group = weight.shape[0], weight.shape[-1]
        weight = weight.reshape(out, -1, per_group)
        groups = 1 if isinstance(op, ops.Dense) else op.groups
        reads = (np.arange(out) // (out // groups))[:, None] * per_group + np.arange(per_group)
    widest = max(max(abs(lo), abs(hi)) for lo, hi in pairs)
    bound = widest * float(np.abs(weight.astype(np.float64)).sum(axis=(1, 2)).max())
    kind: type = np.int64 if bound < 1 << 61 else object
    lo = np.array([p[0] for p in pairs], dtype=kind)[reads][:, None, :]
    hi = np.array([p[1] for p in pairs], dtype=kind)[reads][:, None, :]
    positive: Any = np.maximum(weight, 0).astype(kind)
    negative: Any = np.minimum(weight, 0).astype(kind)
    return positive * lo + negative * hi, positive * hi + negative * lo


def _mac(op: ops.Mac, given: Range) -> Range:
    """Over the windows there are: a tap in the padding adds nothing, and which taps can be there together is geometry."""
    bottom, top = (part.sum(axis=2) for part in _terms(op, given))  # [out, taps]
    masks: list[Any] = [True]
    if not isinstance(op, ops.Dense):
        weight = op.weight.tensor.shape
        kernel = weight[:2] if isinstance(op, ops.DepthwiseConv2D) else weight[1:-1]
        axes = zip(op.input.shape, kernel, op.strides, op.dilation, op.padding, strict=False)
        each = [tap_masks(n, k, s, d, p) for n, k, s, d, p in axes]
        masks = [reduce(np.multiply.outer, map(np.array, chosen)).ravel() for chosen in product(*each)]
    lows = np.stack([(bottom * mask).sum(axis=1) for mask in masks]).min(axis=0)
    highs = np.stack([(top * mask).sum(axis=1) for mask in masks]).max(axis=0)
    bias = op.bias.array.tolist() if op.bias is not None else [0] * len(lows)
    return Range.of([(int(lo) + b, int(hi) + b) for lo, hi, b in zip(lows, highs, bias, strict=True)])


def partial_range(op: ops.Mac, ranges: Mapping[str, Range]) -> tuple[int, int]:
    """What every partial sum lies in, whatever the order of its terms and of the bias: what an accumulator must hold.

    Wider than the range of the result only where some x - zx cannot be 0, or a bias is larger than its sum.
    """
    bottom, top = _terms(op, ranges[op.input.name])
    lows, highs = np.minimum(bottom, 0).sum(axis=(1, 2)), np.maximum(top, 0).sum(axis=(1, 2))
    bias = op.bias.array.tolist() if op.bias is not None else [0] * len(lows)
    lo = min(int(v) + min(b, 0) for v, b in zip(lows, bias, strict=True))
    hi = max(int(v) + max(b, 0) for v, b in zip(highs, bias, strict=True))
    return lo, hi


def held_range(op: Op, ranges: Mapping[str, Range]) -> tuple[int, int]:
    """What the type of the op's output must hold: its range and, for a sum of products, every partial sum."""
    lo, hi = output_range(op, ranges).whole
    if isinstance(op, ops.Mac):
        part = partial_range(op, ranges)
        return min(lo, part[0]), max(hi, part[1])
    return lo, hi


def _pairwise(op: ops.Add | ops.Sub | ops.Multiply, a: Range, b: Range) -> Range:
    size = op.output.shape[-1] if op.output.shape else 1
    out = []
    za, zb = op.a.qtype.zero_point, op.b.qtype.zero_point
    for (alo, ahi), (blo, bhi) in zip(a.channels(size), b.channels(size), strict=True):
        match op:
            case ops.Add():
                out.append((alo + blo, ahi + bhi))
            case ops.Sub():
                out.append((alo - bhi, ahi - blo))
            case ops.Multiply():
                corners = [(p - za) * (q - zb) for p in (alo, ahi) for q in (blo, bhi)]
                out.append((min(corners), max(corners)))
    return Range.of(out)


def _requantize(op: ops.Requantize, given: Range) -> Range:
    size = max(len(op.multiplier), len(op.offset), len(op.shift), len(given.lo))
    ends = np.array(given.channels(size), dtype=object)  # [channel, 2]
    values = requantize(ends.T, op)
    return Range.of([(min(pair), max(pair)) for pair in values.T.tolist()])


def _threshold(op: ops.Threshold, given: Range) -> Range:
    ladders, levels = op.thresholds.array, op.levels.array
    size = max(len(ladders), len(levels), len(given.lo))
    out = []
    for c, (lo, hi) in enumerate(given.channels(size)):
        ladder, level = ladders[c % len(ladders)], levels[c % len(levels)]
        inside = ladder[(ladder > lo) & (ladder <= hi)]  # equal thresholds leave some levels out of reach
        reached = level[np.searchsorted(ladder, np.concatenate([[lo], inside]), side="right")]
        out.append((int(reached.min()), int(reached.max())))
    return Range.of(out)


def _interpolate(op: ops.Interpolate, lo: int, hi: int) -> Range:
    """Between two entries it does not turn: its ends lie at the ends of x and at the entries between."""
    least, steps = op.input.qtype.min, table_steps(op)
    entries = np.arange(-(-(lo - least) // steps), (hi - least) // steps + 1, dtype=np.int64) * steps
    at = np.concatenate([[lo - least, hi - least], entries])
    values = interpolated(at, op.table.array, steps, op.shift, op.rounding) + op.output_offset
    return Range((int(values.min()),), (int(values.max()),))


def _sum_pool(op: ops.SumPool, given: Range) -> Range:
    """Each window holds `inside` elements and is divided by `counted`: they differ where padding counts."""
    total, zero = pool_lcm(op), op.input.qtype.zero_point
    weights = [Fraction(1)]
    for n, k, s, p in zip(op.input.shape, op.kernel, op.strides, op.padding, strict=False):
        inside = window_counts(n, k, s, p, op.ceil_mode, include_pad=False)
        counted = window_counts(n, k, s, p, op.ceil_mode, op.count_include_pad)
        parts = {Fraction(i, c) for i, c in zip(inside, counted, strict=True)}
        weights = [w * end for w in weights for end in (min(parts), max(parts))]
    factors = [int(w * total) for w in weights]
    pairs = [((lo - zero), (hi - zero)) for lo, hi in zip(given.lo, given.hi, strict=True)]
    return Range.of([(min(lo * f for f in factors), max(hi * f for f in factors)) for lo, hi in pairs])


def _reshape(op: ops.Reshape, given: Range) -> Range:
    """Output channel d holds the elements d, d + D, d + 2 D ... of the input in C order."""
    if len(given.lo) == 1:
        return given
    channel = np.arange(op.input.size) % op.input.shape[-1]
    lo = np.array(given.lo)[channel].reshape(-1, op.output.shape[-1]).min(axis=0)
    hi = np.array(given.hi)[channel].reshape(-1, op.output.shape[-1]).max(axis=0)
    return Range.of(list(zip(lo.tolist(), hi.tolist(), strict=True)))


def _pad(op: ops.Pad, given: Range) -> Range:
    before, after = op.padding[-1]
    pairs = given.channels(op.input.shape[-1])
    if any(v for pad in op.padding[:-1] for v in pad):
        pairs = tuple((min(lo, op.value), max(hi, op.value)) for lo, hi in pairs)
    fill = ((op.value, op.value),)
    return Range.of(fill * before + pairs + fill * after)


def _concat(op: ops.Concat, given: list[Range]) -> Range:
    if op.axis == len(op.output.shape) - 1:
        return Range.of([p for r, t in zip(given, op.inputs, strict=True) for p in r.channels(t.shape[-1])])
    columns = zip(*(r.channels(op.output.shape[-1]) for r in given), strict=True)
    return Range.of([(min(lo for lo, _ in column), max(hi for _, hi in column)) for column in columns])


def _argmax(given: Range, size: int) -> Range:
    """Index i wins where its largest beats the smallest of all before it and reaches that of all after it."""
    pairs = given.channels(size)
    wins = [
        i
        for i, (_, hi) in enumerate(pairs)
        if all(hi > lo for lo, _ in pairs[:i]) and all(hi >= lo for lo, _ in pairs[i + 1 :])
    ]
    return Range((wins[0],), (wins[-1],))


def output_range(op: Op, ranges: Mapping[str, Range]) -> Range:
    """The range of the op's output, from the ranges of its inputs by name."""
    given = [ranges[t.name] for t in ops.inputs_of(op)]
    first = given[0]
    match op:
        case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            return _mac(op, first)
        case ops.Requantize():
            return _requantize(op, first)
        case ops.Threshold():
            return _threshold(op, first)
        case ops.Lookup():
            lo, hi = first.whole
            part = op.table.array[lo - op.input.qtype.min : hi - op.input.qtype.min + 1]
            return Range((int(part.min()),), (int(part.max()),))
        case ops.Interpolate():
            return _interpolate(op, *first.whole)
        case ops.Add() | ops.Sub() | ops.Multiply():
            return _pairwise(op, *given)
        case ops.Concat():
            return _concat(op, given)
        case ops.SumPool():
            return _sum_pool(op, first)
        case ops.Reshape():
            return _reshape(op, first)
        case ops.Transpose():
            return first if op.permutation[-1] == len(op.permutation) - 1 else Range.of([first.whole])
        case ops.Pad():
            return _pad(op, first)
        case ops.MaxPool() | ops.UpSample():
            return first
        case ops.ArgMax():
            return _argmax(first, op.input.shape[-1])
        case ops.Slice():
            return first if len(first.lo) == 1 else Range.of(first.channels(op.input.shape[-1])[kept(op, -1)])
        case ops.Softmax():
            return type_range(op.output)
        case ops.Softmax16():
            return Range((0,), ((1 << 15) - 1,))
        case _:
            raise assert_never(op)
