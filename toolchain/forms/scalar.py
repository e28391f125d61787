"""Two values in one word, for cores that multiply 32 bits and no less: the form, its runs and their bound, its model of instructions.

Rule: no run of taps is longer than its bound allows for these very weights and inputs; firmware_templates/c/kernels/nn_scalar.S
says why that suffices.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from toolchain.ir import QType, ops
from toolchain.ir.types import Ints

from ._plane import Plane, plane, pointwise, row, single

NAME = "scalar"
CORES: tuple[str, ...] = ("rv32imac", "rv32imc", "cortex-m0", "cortex-m0plus", "cortex-m3")
LOWEST, HIGHEST = -(1 << 15), (1 << 15) - 1  # of the sum of a run
TAPS = (8, 16, 24, 32)  # in a straight line: the functions there may be
MOST_SCRATCH = 12_288  # bytes of a tile, where more columns would only save what two tiles share
LANES = 8
CUTS = ((9,), (5, 4), (3, 3, 3), (2, 2, 2, 2, 1))  # runs of the taps of a depthwise window that there is code for
MOST_PLANE = 4096  # bytes of a plane: beyond it the rows that two strips share cost little
DEPTHWISE = 45.0  # instructions for two outputs of a depthwise convolution, without what follows a sum
# Instructions on RV32: of a call, a row of the window, a run, a tap, a word that is filled, one that is moved. A Cortex-M0 needs more, but there the general
# kernels take twice as many.
CALL, ROW, RUN, TAP, PUT, MOVE = 50, 6, 26, 13, 7, 3


@dataclass(frozen=True)
class Layer:
    """A dense layer or a convolution as nn_scalar.h takes it: two dimensions, one group."""

    weight: Ints  # [rows, rows of the window, taps]
    low: int  # the smallest and the largest value of x, as it is multiplied
    high: int
    at: Plane

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    @property
    def taps(self) -> int:
        return int(self.weight.shape[2])

    @property
    def alone(self) -> bool:
        """One position, which sees all of x: eight rows of weights at once."""
        whole = (
            self.at.out_h == 1 and self.at.out_w == 1 and self.at.k_h == 1 and self.taps == self.at.in_w * self.at.in_c
        )
        return whole and not self.at.top and not self.at.left

    @property
    def lanes(self) -> tuple[int, int, int]:
        """(parts of a row, rows of a part, columns of a part): as few tiles as there may be, and then the widest."""
        found = []
        for wide in (8, 4, 2, 1):
            part_h, part_w = -(-self.at.out_h // (LANES // wide)), -(-self.at.out_w // wide)
            found.append((part_h * part_w, part_w, wide, part_h))
        _, part_w, wide, part_h = min(found)
        return wide, part_h, part_w

    @cached_property
    def tile(self) -> int:
        """Columns of a part that are made of one filling: as many as MOST_SCRATCH holds, or one, whose windows lie in one piece."""
        _, _, part_w = self.lanes
        if self.at.k_h == self.at.k_w == 1:
            return 1  # two columns share nothing
        largest = max((t for t in range(1, part_w + 1) if self._bytes(t) <= MOST_SCRATCH), default=1)
        return min((largest, 1), key=self._instructions)

    def _bytes(self, tile: int) -> int:
        return 16 * self.at.k_h * ((tile - 1) * self.at.stride_w + self.at.k_w) * self.at.in_c

    @property
    def scratch_bytes(self) -> int:
        return self.taps if self.alone else self._bytes(self.tile)

    def order(self) -> list[tuple[int | None, int]] | None:
        """One run for each filling of words, or for each eight rows of weights, which read x itself."""
        if self.alone:
            return [(0, min(k + LANES, self.rows)) for k in range(0, self.rows, LANES)]
        wide, part_h, part_w = self.lanes
        kept = max(self.at.k_h - self.at.stride_h, 0)  # rows of words that are there from the row of the output before
        found: list[tuple[int | None, int]] = []
        end = 0
        for first in range(0, part_w, self.tile):
            column = max(first * self.at.stride_w - self.at.left, 0)
            last = min(min(first + self.tile, part_w) + (wide - 1) * part_w, self.at.out_w)
            for oh in range(part_h):
                row = max(oh * self.at.stride_h - self.at.top + (kept if oh else 0), 0)
                under = oh + (LANES // wide - 1) * part_h  # the row of the lowest lanes
                made = under * self.at.out_w + last if under < self.at.out_h else self.at.out_h * self.at.out_w
                end = max(end, made * self.rows)
                found.append(((row * self.at.in_w + column) * self.at.in_c, end))
        return found

    def in_place(self) -> int | None:
        return None

    @property
    def more_flash_bytes(self) -> int:
        """Beyond a byte for a weight: where there is one position, a word for two."""
        return int(self.weight.size) if self.alone else 0

    def runs(self) -> list[list[list[int]]]:
        """The lengths of the runs of each block and of each piece of its window."""
        return self._runs(self.tile == 1)

    def _runs(self, whole: bool) -> list[list[list[int]]]:
        step = LANES if self.alone else 1
        rows = self.weight.reshape(self.rows, 1, -1) if whole else self.weight
        blocks = (rows[k : k + step] for k in range(0, self.rows, step))
        return [[runs(block[:, k], self.low, self.high) for k in range(rows.shape[1])] for block in blocks]

    @property
    def instructions(self) -> float:
        """Of the inner loops and of filling words."""
        return self._instructions(self.tile)

    def _instructions(self, tile: int) -> float:
        found = self._runs(tile == 1)
        every: float = sum(CALL + sum(ROW + RUN * len(row) for row in block) for block in found)
        every += TAP * len(found) * int(self.weight[0].size)
        if self.alone:
            return every
        _, part_h, part_w = self.lanes
        kept = max(1 - self.at.stride_h / self.at.k_h, 0)  # of the rows of a window, those that the row above had
        filled = -(-part_w // tile) * part_h * self._bytes(tile) // 4 * (PUT * (1 - kept) + MOVE * kept)
        return every * part_h * part_w + filled

    def packed(self) -> Ints:
        """Where there is one position: [blocks, taps, 4] words of rows j and j + 4 of a block."""
        whole = np.zeros((-(-self.rows // LANES) * LANES, self.taps), np.int64)
        whole[: self.rows] = self.weight[:, 0]
        eight = whole.reshape(-1, 2, 4, self.taps)
        words: Ints = (eight[:, 0] + 65536 * eight[:, 1]).transpose(0, 2, 1)
        return words


def runs(rows: Ints, low: int, high: int) -> list[int]:
    """The fewest runs of taps, the first the longest, such that each row's sum over a run stays within a half of a word."""
    least, most = np.minimum(rows * low, rows * high), np.maximum(rows * low, rows * high)
    downs, ups = (np.cumsum(part, axis=1).tolist() for part in (-np.minimum(least, 0), np.maximum(most, 0)))
    sums = [([0, *each], bound) for part, bound in ((downs, -LOWEST), (ups, HIGHEST)) for each in part]
    found, start, last = [], 0, rows.shape[1]
    while start < last:
        end = min(start + TAPS[-1], last)
        for each, bound in sums:  # it only rises, so the first that is beyond the bound ends the run
            end = bisect_right(each, bound + each[start], start + 1, end + 1) - 1
        assert end > start, "one tap always fits: |x| and |w| are at most 128"
        found.append(end - start)
        start = end
    return found


def taps(lengths: Iterable[int]) -> int:
    """The shortest straight line that has the longest run."""
    longest = max(lengths)
    return next(n for n in TAPS if n >= longest)


def flips(q: QType) -> bool:
    """Whether x is taken 128 lower, so that it is a signed byte."""
    return q.max > 127


@dataclass(frozen=True)
class Windows:
    """A depthwise convolution with 3 by 3 windows as nn_scalar_depthwise.h takes it."""

    weight: Ints  # [3, 3, channels]
    low: int  # the smallest and the largest value of x, as it is multiplied
    high: int
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    stride_h: int
    stride_w: int
    top: int
    left: int

    @property
    def channels(self) -> int:
        return int(self.weight.shape[2])

    @property
    def part_h(self) -> int:
        return -(-self.out_h // 2)

    def plane_bytes(self, strip: int) -> int:
        return 4 * ((strip - 1) * self.stride_h + 3) * ((self.out_w - 1) * self.stride_w + 3)

    @property
    def strip(self) -> int:
        """Rows of a half made of one filling of the plane."""
        return max((k for k in range(1, self.part_h + 1) if self.plane_bytes(k) <= MOST_PLANE), default=1)

    @property
    def scratch_bytes(self) -> int:
        return self.plane_bytes(self.strip)

    @property
    def instructions(self) -> float:
        return self.part_h * self.out_w * self.channels * DEPTHWISE

    def order(self) -> list[tuple[int | None, int]] | None:
        """One run for each channel of a strip of both halves."""
        found: list[tuple[int | None, int]] = []
        for first in range(0, self.part_h, self.strip):
            low = max(first * self.stride_h - self.top, 0) * self.in_w * self.channels
            end = min(min(first + self.strip, self.part_h) + self.part_h, self.out_h) * self.out_w * self.channels
            found += [(low, end)] * self.channels
        return found

    def in_place(self) -> int | None:
        """Where each channel lies over itself: it is read whole before it is written, if there is one strip."""
        return 0 if self.strip == self.part_h else None

    def cuts(self) -> list[int] | None:
        """For each channel the first of CUTS whose runs all stay within a half of a word; None where a channel has none."""
        rows = self.weight.reshape(9, self.channels).T
        found = []
        for taps in rows:
            fits = (n for n, lengths in enumerate(CUTS) if self._fits(taps, lengths))
            found.append(next(fits, -1))
        return None if -1 in found else found

    def _fits(self, row: Ints, lengths: Sequence[int]) -> bool:
        ends = np.cumsum(lengths)
        return all(
            len(runs(row[None, end - n : end], self.low, self.high)) == 1 for end, n in zip(ends, lengths, strict=True)
        )


def windows(op: ops.DepthwiseConv2D) -> Windows | None:
    x, w, q = op.input, op.weight.array, op.input.qtype
    if w.shape[:2] != (3, 3) or w.shape[2] != x.channels or op.dilation != (1, 1):
        return None
    less = 128 if flips(q) else 0
    at = plane(op)
    sizes = (at.in_h, at.in_w, at.out_h, at.out_w, at.stride_h, at.stride_w, at.top, at.left)
    made = Windows(w, q.min - less, q.max - less, *sizes)
    return None if made.cuts() is None else made


def form_of(op: ops.Mac) -> Layer | Windows | None:
    """The op in this form, or None where it has none: groups, dilation, wide inputs or weights."""
    q, w = op.input.qtype, op.weight.array
    if q.bits > 8 or int(w.min()) < -128 or int(w.max()) > 127:
        return None
    if isinstance(op, ops.DepthwiseConv2D):
        return windows(op)
    less = 128 if flips(q) else 0
    low, high = q.min - less, q.max - less
    if not single(op):
        return None
    at = plane(op)
    if pointwise(op):
        at = row(at.out_h * at.out_w, at.in_c)
    return Layer(w.reshape(w.shape[0], at.k_h, -1), low, high, at)
