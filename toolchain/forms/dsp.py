"""Two rows of weights in one halfword, for cores that multiply two halfwords at once: the form, its bounds, its inner loops.

Rule: a form is used only where its bounds hold for these very weights and inputs; firmware_templates/c/kernels/nn_dsp.S says
why they suffice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import lcm
from typing import TypeVar

import numpy as np

from toolchain.ir import ops
from toolchain.ir.types import Ints

from ._plane import Plane, plane, pointwise, row, single

NAME = "dsp"
CORES: tuple[str, ...] = ("cortex-m4f", "cortex-m7", "cortex-m33")
POSITIONS = 8  # of a row without a window beside it, made of one filling of `rows`
MOST_UNROLLED = 32  # pairs of values in a straight line: 2 kilobytes of code
SMALL_UNROLLED = 4  # the same where little code is wanted
MOST_STRAIGHT = 32  # pairs of all short runs: 2 kilobytes of code
MOST_STEP = 4095  # bytes that an LDR reaches
MOST_SKIP = 65535  # bytes that a MOVW holds
PLANES_BYTES = 8192  # of four planes of a depthwise convolution: beyond it the rows that two strips share cost little
DEPTHWISE = 23.0  # instructions for an output of a depthwise convolution, as tests/test_tflite_models.py has it
D = TypeVar("D", bound="Dot")
CALL = 26  # instructions around an inner loop: call, save, clear, store, return


@dataclass(frozen=True)
class Dot:
    """A function of nn_dsp.S: `segments` runs of `pairs` pairs of values; `skip` bytes between runs, `step` to the next position."""

    form: str  # 4X2: four rows at two positions; 8X1: eight rows at one
    pairs: int
    segments: int = 1
    skip: int = 0
    step: int = 4
    most: int = MOST_UNROLLED  # pairs in a straight line

    @property
    def loops(self) -> tuple[int, int, int]:
        """(times, pairs in a straight line, pairs after them)."""
        if self.pairs <= self.most:
            return 1, self.pairs, 0
        times = -(-self.pairs // self.most)
        unroll = self.pairs // times
        return times, unroll, self.pairs - times * unroll

    @property
    def straight(self) -> bool:
        """Whether runs follow one another without a loop: short ones, whose loop would cost more than their products."""
        return (
            self.segments > 1 and self.segments * self.pairs <= min(self.most, MOST_STRAIGHT) and self.skip <= MOST_STEP
        )

    def small(self: D) -> D:
        """The same in less code: more turns of a shorter straight line."""
        return replace(self, most=SMALL_UNROLLED)

    @property
    def shape(self) -> str:
        """Of all that a name tells apart."""
        numbers = (
            self.pairs,
            self.segments,
            self.skip,
            self.step,
            *((self.most,) if self.most != MOST_UNROLLED else ()),
        )
        return "_".join(map(str, numbers))

    @property
    def name(self) -> str:
        return f"nn_dsp_{self.form.lower()}_{self.shape}"

    @property
    def line(self) -> str:
        """The line of model_dsp.S that makes it."""
        return f"    NN_DSP_DOT {self.name}, {self.form}, {self.arguments}"

    @property
    def arguments(self) -> str:
        """Of its macro, from the loops on."""
        numbers = (*self.loops, self.segments, self.skip, self.step, int(self.straight))
        return ", ".join(map(str, numbers))

    @property
    def instructions(self) -> int:
        """Of one call, counted from the source."""
        times, _, _ = self.loops
        each = 14 if self.form == "4X2" else 17
        loop = 2 * times + 1 + (2 if self.segments > 1 else 0) if times > 1 else 0
        ends = 1 if self.straight else 4 if self.segments > 1 else 0
        return CALL + self.segments * (each * self.pairs + loop + ends)


@dataclass(frozen=True)
class Layer:
    """A dense layer or a convolution as nn_dsp.h takes it: two dimensions, one group."""

    weight: Ints  # [rows, segments, run]
    at: Plane
    tile: int

    @property
    def rows(self) -> int:
        return int(self.weight.shape[0])

    @property
    def alone(self) -> bool:
        """One position, which sees all of x: eight rows at once."""
        whole = self.at.in_w == self.at.out_w == self.at.out_h == self.at.k_h == 1 and self.run == self.at.in_c
        return whole and not self.at.top and not self.at.left

    @property
    def run(self) -> int:
        return int(self.weight.shape[2])

    @property
    def block(self) -> int:
        """Halfwords of packed weights for the rows of one call."""
        return (4 if self.alone else 2) * self.at.k_h * 2 * self.pairs

    @property
    def pairs(self) -> int:
        return -(-self.run // 2)

    @property
    def pitch(self) -> int:
        """Elements from a widened row to the next: an even number, with what a second position reads behind the last."""
        return (
            -(-self.tile * self.at.stride_w * self.at.in_c // 2) * 2
            + -(-max(self.run - self.at.stride_w * self.at.in_c, 0) // 2) * 2
            + 2
        )

    @property
    def instructions(self) -> float:
        """Of the inner loops and of widening."""
        blocks = -(-self.rows // (8 if self.alone else 4))
        calls = blocks * self.at.out_h * (1 if self.alone else -(-self.at.out_w // 2))
        return calls * self.dot.instructions + 3 * self.at.in_c * self.at.in_w * self.at.in_h

    @property
    def scratch_bytes(self) -> int:
        if self.alone:
            return 4 * self.pairs
        behind = self.at.stride_w * self.at.in_c + 2  # a tile of odd size: a second position that nobody stores
        return 2 * (self.at.k_h * self.pitch + behind)

    def order(self) -> list[tuple[int | None, int]] | None:
        """One run for each row of the output, or for each tile of a single row: widened before it is multiplied."""
        if self.alone:
            return [(0, self.rows)]
        if self.tile < self.at.out_w and self.at.out_h > 1:
            return None
        kept = max(self.at.k_h - self.at.stride_h, 0)  # rows widened for the row of the output before
        found: list[tuple[int | None, int]] = []
        for oh in range(self.at.out_h):
            row = max(oh * self.at.stride_h - self.at.top + (kept if oh else 0), 0)
            end = min(oh * self.at.stride_h - self.at.top + self.at.k_h, self.at.in_h)
            for first in range(0, self.at.out_w, self.tile):
                column = max(first * self.at.stride_w - self.at.left, 0)
                made = oh * self.at.out_w + min(first + self.tile, self.at.out_w)
                low = (row * self.at.in_w + column) * self.at.in_c if row < end and column < self.at.in_w else None
                found.append((low, made * self.rows))
        return found

    def in_place(self) -> int | None:
        return None

    @property
    def weight_bytes(self) -> int:
        return 2 * -(-self.rows // (8 if self.alone else 4)) * self.block

    @property
    def dot(self) -> Dot:
        if self.alone:
            return Dot("8X1", self.pairs)
        skip = 2 * (self.pitch - 2 * self.pairs) if self.at.k_h > 1 else 0
        return Dot("4X2", self.pairs, self.at.k_h, skip, 2 * self.at.stride_w * self.at.in_c)

    def packed(self) -> Ints:
        """[blocks, segments, pairs, rows of a block / 2, 2] halfwords, 256 * a + b: the order in which nn_dsp.S reads them."""
        of = 8 if self.alone else 4
        blocks = -(-self.rows // of)
        whole = np.zeros((blocks * of, self.at.k_h, 2 * self.pairs), np.int64)
        whole[: self.rows, :, : self.run] = self.weight
        two = 256 * whole[0::2] + whole[1::2]
        found: Ints = two.reshape(blocks, of // 2, self.at.k_h, self.pairs, 2).transpose(0, 2, 3, 1, 4)
        return found

    def fits(self, largest: int) -> bool:
        """The static bounds, for inputs of at most this size: every weight and halfword, the sum of every even row, what the code
        reaches. The low byte of a halfword is taken with its sign, so that an unsigned weight is no byte of it."""
        if self.weight.min() < -128 or self.weight.max() > 127:
            return False
        packed, even = self.packed(), self.weight[0::2]
        sums = np.abs(even).sum(axis=(1, 2))
        reach = self.dot.step - 4 <= MOST_STEP and 0 <= self.dot.skip <= MOST_SKIP
        return reach and bool(packed.min() >= -(1 << 15) and packed.max() < 1 << 15 and sums.max() * largest < 1 << 23)


def form_of(op: ops.Mac) -> Layer | Windows | None:
    if isinstance(op, ops.DepthwiseConv2D):
        return windows(op)
    found, q = layer(op), op.input.qtype
    return found if found is not None and found.fits(max(-q.min, q.max)) else None


def layer(op: ops.Mac) -> Layer | None:
    """The op in this form, or None where it has none: groups, dilation, wide inputs or weights."""
    w, at = op.weight.array, plane(op)
    wide = op.input.qtype.bits > 8 or op.weight.tensor.qtype.bits > 8
    if wide or isinstance(op, ops.DepthwiseConv2D) or not single(op):
        return None
    weight = w.reshape(w.shape[0], at.k_h, -1)
    if at.out_h == at.out_w == at.k_h == 1 and at.k_w == at.in_w and not at.top and not at.left:  # one window, of all
        return Layer(weight, row(1, weight.shape[2]), 1)
    if pointwise(op):
        positions = at.out_h * at.out_w
        return Layer(weight, row(positions, at.in_c), min(positions, POSITIONS))
    return Layer(weight, at, at.out_w)


@dataclass(frozen=True)
class Windows:
    """A depthwise convolution with 3 by 3 windows as nn_dsp_depthwise.h takes it."""

    weight: Ints  # [3, 3, channels]
    in_h: int
    in_w: int
    out_h: int
    out_w: int
    stride: int
    top: int
    left: int

    @property
    def channels(self) -> int:
        return int(self.weight.shape[2])

    @property
    def pitch(self) -> int:
        """Elements of a row of a plane: what the last pair of outputs reads."""
        return self.stride * (self.out_w + self.out_w % 2) + 2

    def plane_bytes(self, strip: int) -> int:
        return 2 * ((strip - 1) * self.stride + 3) * self.pitch

    @property
    def strip(self) -> int:
        """Rows of the output made of one filling of four planes: as many as PLANES_BYTES hold, and one at least."""
        return max((k for k in range(1, self.out_h + 1) if 4 * self.plane_bytes(k) <= PLANES_BYTES), default=1)

    @property
    def instructions(self) -> float:
        return self.out_h * self.out_w * self.channels * DEPTHWISE

    @property
    def scratch_bytes(self) -> int:
        return 4 * self.plane_bytes(self.strip)

    def _strips(self) -> list[tuple[int | None, int]]:
        """Of each strip: the lowest element of the input, where its elements of the output end."""
        found: list[tuple[int | None, int]] = []
        for first in range(0, self.out_h, self.strip):
            rows = min(self.strip, self.out_h - first)
            row, end = first * self.stride - self.top, (first + rows - 1) * self.stride - self.top + 3
            low = max(row, 0) * self.in_w * self.channels if max(row, 0) < min(end, self.in_h) else None
            found.append((low, (first + rows) * self.out_w * self.channels))
        return found

    def order(self) -> list[tuple[int | None, int]] | None:
        """One run for four channels of a strip: the next four are read after these were written."""
        return [strip for strip in self._strips() for _ in range(0, self.channels, 4)]

    def in_place(self) -> int | None:
        """Where each channel lies over itself, four channels of a strip write over what they alone have read, once the rows are
        apart that two strips read."""
        strips = self._strips()
        apart = [end - low for (_, end), (low, _) in pairwise(strips) if low is not None]
        grain = lcm(self.channels, 4)  # both are read by words
        return -(-max(*apart, 0, 0) // grain) * grain

    @property
    def doubles(self) -> bool:
        """Whether a halfword holds twice each weight."""
        return bool(self.weight.min() >= -(1 << 14) and self.weight.max() < 1 << 14)

    def packed(self, times: int = 1) -> Ints:
        """[channels, 3, 2] words: (w0, w1) and (w1, w2) of each row, the first in the low half; or a multiple of each weight."""
        low, high = times * self.weight[:, 0:2], times * self.weight[:, 1:3]
        words: Ints = ((low & 0xFFFF) | ((high & 0xFFFF) << 16)).transpose(2, 0, 1)
        return words


@dataclass(frozen=True)
class Rows:
    """A function of nn_dsp.S for the rows of a depthwise convolution with TensorFlow Lite Micro's rounding by one shift."""

    form: Windows
    shift: int
    output_offset: int
    small: bool = False  # the same in less code

    @property
    def loops(self) -> tuple[int, int]:
        """(times, pairs of outputs in a straight line)."""
        pairs = self.form.out_w // 2
        unroll = next((u for u in (4, 3, 2) if pairs and pairs % u == 0 and not self.small), 1)
        return pairs // unroll, unroll

    @property
    def addend(self) -> int:
        """What rounds and moves the result, added before the shift."""
        return (1 << self.shift >> 1) + (self.output_offset << self.shift) & 0xFFFFFFFF

    @property
    def name(self) -> str:
        f = self.form
        return (
            f"nn_dsp_rows_{f.stride}_{self.shift}_{self.addend:x}_{f.channels}_{f.pitch}_{f.out_w}{'_s' * self.small}"
        )

    @property
    def line(self) -> str:
        f = self.form
        halves = (self.addend >> 16, self.addend & 0xFFFF)
        numbers = (f.stride, self.shift, *halves, f.channels, 2 * f.pitch, *self.loops, f.out_w % 2)
        return f"    NN_DSP_DEPTHWISE {self.name}, {', '.join(map(str, numbers))}"

    @property
    def reaches(self) -> bool:
        """Whether every offset is one that its instruction has."""
        f, (times, unroll) = self.form, self.loops
        odd = unroll if times <= 1 else 0  # pairs before the odd output
        load = 4 * f.pitch + 4 * f.stride * max(unroll - 1, odd) + 8  # LDRD: a multiple of 4 up to 1020
        step = (2 * unroll + 1) * f.channels
        row = 2 * f.pitch * f.stride
        return load <= 1020 and step <= 4095 and times * step <= 65535 and row <= 4095 and 1 <= self.shift <= 31


def windows(op: ops.DepthwiseConv2D) -> Windows | None:
    """The op in this form, or None where it has none. There is no bound but the accumulator's and a halfword's."""
    x, w = op.input, op.weight.array
    square = w.shape[:2] == (3, 3) and op.strides in ((1, 1), (2, 2)) and op.dilation == (1, 1)
    if not square or w.shape[2] != x.channels or x.qtype.bits > 8 or w.min() < -(1 << 15) or w.max() >= 1 << 15:
        return None
    at = plane(op)
    return Windows(w, at.in_h, at.in_w, at.out_h, at.out_w, at.stride_h, at.top, at.left)
