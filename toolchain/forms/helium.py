"""Helium (MVE): sixteen products of bytes and their sum in one instruction; the form of weights and inputs for it.

Rule: sums are exact modulo 2**32, which is all that is needed of sums that fit 32 bits; so weights and inputs within a signed byte are
the only bound. firmware_templates/c/kernels/nn_helium.S says how registers are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from toolchain.ir import ops
from toolchain.ir.types import Ints

from ._plane import padded, plane, pointwise, single

NAME = "helium"
CORES: tuple[str, ...] = ("cortex-m55",)
LANES = 16
Runs = Sequence[tuple[int | None, int]]  # as toolchain/forms/__init__.py has it
POSITIONS = 16  # of a row without a window beside it, made of one filling of the columns
MOST_CHANNELS = {4: 84, 1: 128}  # of one call, by positions: what STRD reaches; what is little memory
MOST_INSTRUCTIONS = 600  # of products in a straight line: 2.4 kilobytes of code
MOST_COLUMN = 508  # bytes that VLDRW reaches
REQUANTIZE = 3.0  # instructions for an output after its sum


@dataclass(frozen=True)
class Dot:
    """A function of nn_helium.S. positions 4: four of them and two rows of weights at once; 1: one and eight rows.

    `taps` neighbouring columns share what is loaded; `slices` of sixteen values; `step` bytes from a position (and a column) to the
    next; `row` channels from the sums of a position to those of the next."""

    positions: int
    taps: int
    slices: int
    step: int
    row: int

    @property
    def each(self) -> int:
        """Instructions of a slice."""
        return 17 if self.positions == 1 else 14 if self.taps == 1 else self.taps + 3 + 10 * self.taps

    @property
    def loops(self) -> tuple[int, int, int]:
        """(times, slices in a straight line, slices after them), of all slices but the first."""
        left = self.slices - 1
        most = MOST_INSTRUCTIONS // self.each
        if left <= most:
            return 0, 0, left
        times = -(-left // most)
        return times, left // times, left - left // times * times

    @property
    def name(self) -> str:
        return f"nn_helium_{self.positions}_{self.taps}_{self.slices}_{self.step}_{self.row}"

    @property
    def line(self) -> str:
        """The line of model_helium.S that makes it."""
        numbers = (self.taps, *self.loops, self.step, self.row)
        return f"    NN_HELIUM_{self.positions} {self.name}, {', '.join(map(str, numbers))}"

    @property
    def sums_bytes(self) -> int:
        """Rounded up, for sums are read four at a time from an even one on."""
        return _sixteens(4 * self.positions * self.row + 8)

    def instructions(self, channels: int) -> int:
        """Of one call, counted from the source."""
        times = self.loops[0]
        blocks = -(-channels // (8 if self.positions == 1 else 2))
        return 26 + blocks * (self.slices * self.each + 9 + (2 * times + 3 if times else 0))


@dataclass(frozen=True)
class Geometry:
    """Where windows lie, in two dimensions. `swapped`: rows and columns have changed places, so that positions follow one another down
    the image: fours of 25 rows leave fewer over than fours of 5 columns."""

    in_h: int
    in_w: int
    out_h: int
    out_w: int
    k_h: int
    k_w: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    padded: bool
    swapped: bool = False

    def turned(self) -> Geometry:
        pairs = (self.in_w, self.in_h, self.out_w, self.out_h, self.k_w, self.k_h, self.stride_w, self.stride_h)
        return Geometry(*pairs, self.left, self.top, self.padded, not self.swapped)

    @property
    def calls(self) -> int:
        return self.out_h * -(-self.out_w // 4)

    def columns(self, tile: int) -> int:
        """Of one filling; fewer than four positions are made as four, and those beyond are not stored."""
        return (max(tile, 4) - 1) * self.stride_w + self.k_w

    def steps(self, channels: int) -> tuple[int, int]:
        """Elements of x from a row to the next, and from a column."""
        return (channels, self.in_h * channels) if self.swapped else (self.in_w * channels, channels)

    def low(self, oh: int, ow: int, channels: int) -> int | None:
        """The lowest element of x that windows of a row from this position on read; None where all is padding."""
        row, end = max(oh * self.stride_h - self.top, 0), min(oh * self.stride_h - self.top + self.k_h, self.in_h)
        column = max(ow * self.stride_w - self.left, 0)
        by_row, by_column = self.steps(channels)
        return row * by_row + column * by_column if row < end and column < self.in_w else None

    def end(self, oh: int, ow: int, channels: int) -> int:
        """Behind the last element of the output that the positions of a row before this one have."""
        by_row, by_column = self.steps_of_output(channels)
        return oh * by_row + (ow - 1) * by_column + channels

    def steps_of_output(self, channels: int) -> tuple[int, int]:
        return (channels, self.out_h * channels) if self.swapped else (self.out_w * channels, channels)


@dataclass(frozen=True)
class Layer:
    """A dense layer or a convolution of one group as nn_helium.h takes it."""

    weight: Ints  # [rows, k_h, k_w, in_c]
    at: Geometry
    tile: int
    flip: bool  # inputs are unsigned bytes: 128 is taken off each while it is copied

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    @property
    def in_c(self) -> int:
        return int(self.weight.shape[3])

    @property
    def column(self) -> int:
        """Bytes of a column: what the rows of a window have there, one after another."""
        return self.at.k_h * self.in_c

    @property
    def alone(self) -> bool:
        return self.at.out_h == 1 and self.at.out_w == 1

    @property
    def direct(self) -> bool:
        """Whether a window is one run of x that whole vectors read: nothing is copied."""
        at = self.at
        run = at.k_h == 1 and not at.padded and not at.swapped and not self.flip
        return run and at.k_w * self.in_c % LANES == 0 and (self.alone or at.out_w >= 4)

    @property
    def dot(self) -> Dot:
        at, positions = self.at, 1 if self.alone else 4
        whole = 8 if self.alone else 2
        row = min(-(-self.rows // whole) * whole, MOST_CHANNELS[positions])
        shared = at.stride_w == 1 and 2 <= at.k_w <= 4 and self.column % LANES == 0 and self.column <= MOST_COLUMN
        if shared and not self.direct and not self.alone:
            return Dot(positions, at.k_w, self.column // LANES, self.column, row)
        return Dot(positions, 1, -(-at.k_w * self.column // LANES), at.stride_w * self.column, row)

    @property
    def columns(self) -> int:
        """Of one filling; 0 where nothing is copied."""
        return 0 if self.direct else self.at.k_w if self.alone else self.at.columns(self.tile)

    @property
    def scratch_bytes(self) -> int:
        """The sums, the columns, and what the last vector reads behind them."""
        return self.dot.sums_bytes + (0 if self.direct else _sixteens(self.columns * self.column + LANES))

    @property
    def instructions(self) -> float:
        calls = 1 if self.alone else self.at.calls
        parts = [min(self.dot.row, self.rows - k) for k in range(0, self.rows, self.dot.row)]
        copies = self.at.out_h * self.columns * self.at.k_h * (3 + self.in_c // 8)
        outputs = self.at.out_h * self.at.out_w * self.rows
        return calls * sum(map(self.dot.instructions, parts)) + copies + REQUANTIZE * outputs

    def order(self) -> Runs:
        """Each filling of the columns reads all that it needs before its outputs are written; where nothing is copied, each call does,
        and reads x again for further channels."""
        if self.alone:
            return [(0, min(c + self.dot.row, self.rows)) for c in range(0, self.rows, self.dot.row)]
        tile = 4 if self.direct else self.tile
        parts = range(0, self.rows, self.dot.row) if self.direct else (0,)
        calls = [(oh, first) for oh in range(self.at.out_h) for _ in parts for first in range(0, self.at.out_w, tile)]
        return _ends(
            (self.at.low(oh, min(first, max(self.at.out_w - tile, 0)) if self.direct else first, self.in_c),
             self.at.end(oh, min(first + tile, self.at.out_w), self.rows))
            for oh, first in calls
        )  # fmt: skip

    def in_place(self) -> int | None:
        return None

    def packed(self) -> Ints:
        """[blocks, slices, rows of a block, taps, 16]: the order in which nn_helium.S reads them; 0 behind the last of each."""
        dot = self.dot
        of = 8 if dot.positions == 1 else 2
        blocks = -(-self.rows // of)
        flat = self.weight.transpose(0, 2, 1, 3).reshape(self.rows, dot.taps, -1)
        whole = np.zeros((blocks * of, dot.taps, dot.slices * LANES), np.int64)
        whole[: self.rows, :, : flat.shape[2]] = flat
        found: Ints = whole.reshape(blocks, of, dot.taps, dot.slices, LANES).transpose(0, 3, 1, 2, 4)
        return found


@dataclass(frozen=True)
class Gather:
    """A function of nn_helium.S for windows of each channel alone: `width` channels lie side by side in the columns, `step` bytes are
    from a position to the next."""

    taps: int
    width: int
    step: int

    @property
    def fits(self) -> bool:
        """A byte holds every offset: of the last tap, at the second position, in the second channel."""
        return self.taps <= LANES and (self.taps - 1) * self.width + self.step + 1 <= 255

    @property
    def row(self) -> int:
        return self.width + self.width % 2

    @property
    def sums_bytes(self) -> int:
        return _sixteens(16 * self.row + 8)

    @property
    def name(self) -> str:
        return f"nn_helium_windows_{self.taps}_{self.width}_{self.step}"

    @property
    def line(self) -> str:
        return f"    NN_HELIUM_WINDOWS {self.name}, {self.width}, {self.step}, {self.row}"

    def instructions(self, channels: int) -> int:
        return 40 + 26 * -(-channels // 2)


@dataclass(frozen=True)
class Windows:
    """A depthwise convolution with at most sixteen taps."""

    weight: Ints  # [k_h, k_w, channels]
    at: Geometry
    flip: bool

    @property
    def channels(self) -> int:
        return int(self.weight.shape[2])

    @property
    def gather(self) -> Gather | None:
        """As many channels side by side as offsets of a byte allow."""
        at = self.at
        for width in (16, 8, 4, 2, 1):
            found = Gather(at.k_h * at.k_w, width, at.stride_w * at.k_h * width)
            if found.fits and (width == 1 or width < 2 * self.channels):
                return found
        return None

    @property
    def columns(self) -> int:
        return self.at.columns(self.at.out_w)

    @property
    def scratch_bytes(self) -> int:
        """The sums, the columns, and what lanes without a tap read behind them."""
        assert self.gather is not None
        return self.gather.sums_bytes + _sixteens(self.columns * self.at.k_h * self.gather.width + 512)

    @property
    def instructions(self) -> float:
        assert self.gather is not None
        width = self.gather.width
        slices = -(-self.channels // width)
        copies = slices * self.at.out_h * self.columns * self.at.k_h * (3 + width // 8)
        outputs = self.at.out_h * self.at.out_w * self.channels
        return slices * self.at.calls * self.gather.instructions(width) + copies + REQUANTIZE * outputs

    def _rows(self) -> list[tuple[int | None, int]]:
        return [
            (self.at.low(oh, 0, self.channels), self.at.end(oh, self.at.out_w, self.channels))
            for oh in range(self.at.out_h)
        ]

    def order(self) -> Runs:
        """One run for a row of the channels that lie side by side: the next of them are read after these were written."""
        assert self.gather is not None
        return _ends(run for _ in range(0, self.channels, self.gather.width) for run in self._rows())

    def in_place(self) -> int | None:
        """Where each channel lies over itself, channels write over what they alone have read, once the rows are apart that two rows of
        the output read."""
        if self.at.swapped:
            return None
        apart = [end - low for (_, end), (low, _) in pairwise(self._rows()) if low is not None]
        return -(-max(*apart, 0, 0) // self.channels) * self.channels

    def packed(self) -> Ints:
        """[channels, 16], an even number of channels: taps by columns; 0 behind the last."""
        flat = self.weight.transpose(2, 1, 0).reshape(self.channels, -1)
        whole = np.zeros((self.channels + self.channels % 2, LANES), np.int64)
        whole[: self.channels, : flat.shape[1]] = flat
        return whole


def form_of(op: ops.Mac) -> Layer | Windows | None:
    """The op in this form, or None where it has none: groups, dilation, inputs or weights beyond a byte."""
    x, w = op.input, op.weight.array
    lo, hi = x.qtype.min, x.qtype.max
    if w.min() < -128 or w.max() > 127 or lo < -128 or hi > 255 or (lo < 0 and hi > 127):
        return None
    flip = hi > 127
    if not single(op):
        return None
    flat = plane(op)
    at = Geometry(*flat[:2], *flat[3:], padded(op))
    if isinstance(op, ops.DepthwiseConv2D):
        if w.shape[2] != x.channels:
            return None
        found = Windows(w, at, flip)
        turned = Windows(w.transpose(1, 0, 2), at.turned(), flip)
        made = turned if turned.at.calls < at.calls else found
        return made if made.gather is not None else None
    weight = w.reshape(w.shape[0], at.k_h, at.k_w, x.channels)
    if pointwise(op):
        return _wide(weight, at.in_h * at.in_w, flip)
    plain = Layer(weight, at, at.out_w, flip)
    if plain.direct or plain.alone or at.turned().calls >= at.calls:
        return plain
    return Layer(weight.transpose(0, 2, 1, 3), at.turned(), at.out_h, flip)


def _ends(runs: Iterable[tuple[int | None, int]]) -> Runs:
    """Runs with where all that was written up to each of them ends."""
    found: list[tuple[int | None, int]] = []
    for low, end in runs:
        found.append((low, max(end, found[-1][1]) if found else end))
    return found


def _sixteens(size: int) -> int:
    return -(-size // 16) * 16


def _wide(weight: Ints, positions: int, flip: bool) -> Layer:
    """All positions as one row; where nothing is copied, one filling is the whole of it."""
    at = Geometry(1, positions, 1, positions, 1, 1, 1, 1, 0, 0, False)
    made = Layer(weight, at, positions, flip)
    return made if made.direct or positions <= POSITIONS else Layer(weight, at, POSITIONS, flip)
