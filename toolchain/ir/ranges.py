"""Value ranges: the smallest and largest integer each tensor can hold, for each channel, derived from weights and input types.

Bounds are exact for every op alone (each is reached by some input within the op's input range), so an accumulator is
never wider than one layer needs. Python integers throughout: nothing here can overflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolchain.errors import assert_never

from . import ops
from .geometry import pool_lcm
from .ops import Op
from .rounding import requantize
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


def _mac(op: ops.Mac, given: Range) -> Range:
    zero = op.input.qtype.zero_point
    weight = op.weight.array
    padded = not isinstance(op, ops.Dense) and any(v for pad in op.padding for v in pad)
    pairs = [(lo - zero, hi - zero) for lo, hi in given.channels(op.input.shape[-1])]
    if padded:  # a tap outside the input adds nothing
        pairs = [(min(lo, 0), max(hi, 0)) for lo, hi in pairs]
    if isinstance(op, ops.DepthwiseConv2D):
        out = weight.shape[2]
        weight = weight.reshape(-1, out).T[:, :, None]  # [out, taps, 1]
        reads = np.arange(out)[:, None] // (out // len(pairs))
    else:
        out = weight.shape[0]
        weight = weight.reshape(out, -1, weight.shape[-1])  # [out, taps, in / groups]
        groups = 1 if isinstance(op, ops.Dense) else op.groups
        per_group = weight.shape[-1]
        reads = (np.arange(out) // (out // groups))[:, None] * per_group + np.arange(per_group)
    widest = max((max(abs(lo), abs(hi)) for lo, hi in pairs), default=0)
    bound = widest * int(np.abs(weight).astype(object).sum(axis=(1, 2)).max(initial=0))
    kind: type = np.int64 if bound < 1 << 62 else object
    lo = np.array([p[0] for p in pairs], dtype=kind)[reads][:, None, :]
    hi = np.array([p[1] for p in pairs], dtype=kind)[reads][:, None, :]
    positive: np.ndarray = np.maximum(weight, 0).astype(kind)
    negative: np.ndarray = np.minimum(weight, 0).astype(kind)
    top = (positive * hi + negative * lo).sum(axis=(1, 2))
    bottom = (positive * lo + negative * hi).sum(axis=(1, 2))
    bias = op.bias.array.tolist() if op.bias is not None else [0] * out
    return Range.of([(int(b) + int(c), int(t) + int(c)) for b, t, c in zip(bottom, top, bias, strict=True)])


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
        first, last = np.searchsorted(ladder, lo, side="right"), np.searchsorted(ladder, hi, side="right")
        out.append((int(level[first : last + 1].min()), int(level[first : last + 1].max())))
    return Range.of(out)


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
        case ops.Add() | ops.Sub() | ops.Multiply():
            return _pairwise(op, *given)
        case ops.Concat():
            if op.axis == len(op.output.shape) - 1:
                return Range.of([p for r, t in zip(given, op.inputs, strict=True) for p in r.channels(t.shape[-1])])
            return Range.of([(min(r.whole[0] for r in given), max(r.whole[1] for r in given))])
        case ops.SumPool():
            total, zero = pool_lcm(op), op.input.qtype.zero_point
            pairs = [((lo - zero) * total, (hi - zero) * total) for lo, hi in zip(first.lo, first.hi, strict=True)]
            if op.count_include_pad:  # padding counts, and adds nothing
                pairs = [(min(lo, 0), max(hi, 0)) for lo, hi in pairs]
            return Range.of(pairs)
        case ops.Reshape():
            keeps = op.input.shape and op.output.shape and op.input.shape[-1] == op.output.shape[-1]
            return first if keeps else Range.of([first.whole])
        case ops.Transpose():
            return first if op.permutation[-1] == len(op.permutation) - 1 else Range.of([first.whole])
        case ops.Pad():
            if not any(v for pad in op.padding for v in pad):
                return first
            if op.padding[-1] != (0, 0):
                first = Range.of([first.whole])
            return Range.of([(min(lo, op.value), max(hi, op.value)) for lo, hi in zip(first.lo, first.hi, strict=True)])
        case ops.MaxPool() | ops.UpSample():
            return first
        case ops.ArgMax():
            return Range((0,), (op.input.shape[-1] - 1,))
        case _:
            assert_never(op)
