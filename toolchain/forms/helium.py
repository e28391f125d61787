"""Helium (MVE): sixteen products of bytes and their sum in one instruction; the form of weights and inputs for it.

Rule: sums are exact modulo 2**32, which is all that is needed of sums that fit 32 bits; so weights and inputs within a signed byte are
the only bound. firmware_templates/c/kernels/nn_helium.S says how registers are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolchain.ir import ops
from toolchain.ir.types import Ints

NAME = "helium"
CORES: tuple[str, ...] = ("cortex-m55",)
LANES = 16
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

    def instructions(self, channels: int) -> int:
        """Of one call, counted from the source."""
        times = self.loops[0]
        blocks = -(-channels // (8 if self.positions == 1 else 2))
        return 26 + blocks * (self.slices * self.each + 9 + (2 * times + 3 if times else 0))


@dataclass(frozen=True)
class Layer:
    """A dense layer or a convolution as nn_helium.h takes it: two dimensions, one group."""

    weight: Ints  # [rows, k_h, k_w, in_c]
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    tile: int
    padded: bool
    flip: bool  # inputs are unsigned bytes: 128 is taken off each while it is copied

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    @property
    def k_h(self) -> int:
        return int(self.weight.shape[1])

    @property
    def k_w(self) -> int:
        return int(self.weight.shape[2])

    @property
    def in_c(self) -> int:
        return int(self.weight.shape[3])

    @property
    def column(self) -> int:
        """Bytes of a column: what the rows of a window have there, one after another."""
        return self.k_h * self.in_c

    @property
    def alone(self) -> bool:
        return self.out_h == 1 and self.out_w == 1

    @property
    def direct(self) -> bool:
        """Whether a window is one run of x that whole vectors read: nothing is copied."""
        return (
            self.k_h == 1
            and not self.padded
            and not self.flip
            and self.k_w * self.in_c % LANES == 0
            and (self.alone or self.out_w >= 4)
        )

    @property
    def dot(self) -> Dot:
        positions = 1 if self.alone else 4
        whole = 8 if self.alone else 2
        row = min(-(-self.rows // whole) * whole, MOST_CHANNELS[positions])
        shared = self.stride_w == 1 and 2 <= self.k_w <= 4 and self.column % LANES == 0 and self.column <= MOST_COLUMN
        if shared and not self.direct and not self.alone:
            return Dot(positions, self.k_w, self.column // LANES, self.column, row)
        return Dot(positions, 1, -(-self.k_w * self.column // LANES), self.stride_w * self.column, row)

    @property
    def sums_bytes(self) -> int:
        """Rounded up, for sums are read four at a time from an even one on."""
        return -(-(4 * self.dot.positions * self.dot.row + 8) // 16) * 16

    @property
    def columns(self) -> int:
        """Of one filling; fewer than four positions are made as four, and those beyond are not stored."""
        return (max(self.tile, 1 if self.alone else 4) - 1) * self.stride_w + self.k_w

    @property
    def scratch_bytes(self) -> int:
        """The sums, the columns, and what the last vector reads behind them."""
        return self.sums_bytes + (0 if self.direct else -(-(self.columns * self.column + LANES) // 16) * 16)

    @property
    def instructions(self) -> float:
        calls = self.out_h * (1 if self.alone else -(-self.out_w // 4))
        parts = [min(self.dot.row, self.rows - k) for k in range(0, self.rows, self.dot.row)]
        copies = 0 if self.direct else self.out_h * self.columns * self.k_h * (3 + self.in_c // 8)
        outputs = self.out_h * self.out_w * self.rows
        return calls * sum(map(self.dot.instructions, parts)) + copies + REQUANTIZE * outputs

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


def form_of(op: ops.Mac) -> Layer | None:
    """The op in this form, or None where it has none: groups, dilation, inputs or weights beyond a byte."""
    x, w = op.input, op.weight.array
    if isinstance(op, ops.DepthwiseConv2D) or w.min() < -128 or w.max() > 127:
        return None
    lo, hi = x.qtype.min, x.qtype.max
    if lo < -128 or hi > 255 or (lo < 0 and hi > 127):
        return None
    flip = hi > 127
    if isinstance(op, ops.Dense):
        return _wide(w[:, None, None, :], x.size // x.channels, flip)
    if op.groups != 1 or any(d != 1 for d in op.dilation):
        return None
    in_h, in_w = _two(x.shape[:-1], 1)
    out_h, out_w = _two(op.output.shape[:-1], 1)
    k_h, k_w = _two(w.shape[1:-1], 1)
    stride_h, stride_w = _two(op.strides, 1)
    top, left = _two([before for before, _ in op.padding], 0)
    weight = w.reshape(w.shape[0], k_h, k_w, x.channels)
    padded = any(v for pad in op.padding for v in pad)
    if k_h == k_w == stride_h == stride_w == 1 and not padded:
        return _wide(weight, in_h * in_w, flip)
    return Layer(weight, in_h, in_w, out_h, out_w, stride_h, stride_w, top, left, out_w, padded, flip)


def _two(values: Sequence[int], other: int) -> tuple[int, int]:
    """Of one dimension or two, as two: one is two with a height of 1."""
    return (values[0], values[1]) if len(values) > 1 else (other, values[0])


def _wide(weight: Ints, positions: int, flip: bool) -> Layer:
    """All positions as one row; where nothing is copied, one filling is the whole of it."""
    made = Layer(weight, 1, positions, 1, positions, 1, 1, 0, 0, positions, False, flip)
    if made.direct or positions <= POSITIONS:
        return made
    return Layer(weight, 1, positions, 1, positions, 1, 1, 0, 0, POSITIONS, False, flip)
