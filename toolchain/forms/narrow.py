"""Weights of 4 bits, of 2 and of two values, several rows side by side, for cores that multiply two halfwords at once.

Rule: a form is used only where its bounds hold for these very weights and inputs, and where it takes no more instructions than
ALLOWANCE times what it replaces; firmware_templates/c/kernels/nn_narrow.S says why the bounds suffice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from toolchain.ir import ops
from toolchain.ir.types import Ints

from . import dsp

NAME = "narrow"
CORES = dsp.CORES
ALLOWANCE = {4: 1.1, 2: 1.2, 1: 1.0}  # times the instructions of bytes, for the flash that it saves
CALL = 30  # instructions around an inner loop: call, starts, return, and the sums taken apart
TABLE = 50  # instructions that make a table of 16 sums
FORMS = {
    "4X8X1": (4, 0, 8, 1),
    "4X4X2": (4, 0, 4, 2),
    "2X8X1": (2, 0, 8, 1),
    "2LX4X2": (2, 0, 4, 2),
    "2HX4X2": (2, 4, 4, 2),
}
EACH = {"4X8X1": 17, "4X4X2": 14, "2X8X1": 17, "2LX4X2": 15, "2HX4X2": 15}  # instructions for two values of x


@dataclass(frozen=True)
class Dot(dsp.Dot):
    """A function of nn_narrow.S, in one of FORMS: (bits, first field, rows, positions)."""

    @property
    def name(self) -> str:
        return f"nn_narrow_{self.form.lower()}_{self.shape}"

    @property
    def line(self) -> str:
        return f"    NN_NARROW_DOT {self.name}, {self.form}, {self.arguments}"

    @property
    def instructions(self) -> int:
        times, _, _ = self.loops
        loop = 4 * times + 1 if times > 1 else 0
        ends = 1 if self.straight else 6 if self.segments > 1 else 0
        return CALL + self.segments * (EACH[self.form] * self.pairs + loop + ends)

    @property
    def declared(self) -> str:
        """The line of model.c that declares it, or makes it where there is no assembly."""
        bits, first, rows, positions = FORMS[self.form]
        fields = min(rows, 16 // bits)
        what = (bits, first, fields, rows // fields, int(bits == 4 or positions == 1), positions)
        numbers = (*what, self.pairs, self.segments, self.skip, self.step)
        return f"NN_NARROW_DOT({self.name}, {', '.join(map(str, numbers))})"


@dataclass(frozen=True)
class Lookups:
    """A function of nn_narrow.S that adds up entries of `tables` tables; `shared`: a word has the sums of two positions."""

    tables: int
    shared: bool

    @property
    def loops(self) -> tuple[int, int, int]:
        times = -(-self.tables // 8)
        unroll = self.tables // times
        return times, unroll, self.tables - times * unroll

    @property
    def name(self) -> str:
        return f"nn_narrow_look_{self.tables}_{int(self.shared)}"

    @property
    def line(self) -> str:
        load, by = ("ldr", 2) if self.shared else ("ldrsh", 1)
        return f"    NN_NARROW_LOOKUPS {self.name}, {load}, {by}, {', '.join(map(str, self.loops))}"

    @property
    def instructions(self) -> int:
        return CALL + 26 * self.tables + 2 * self.loops[0]

    @property
    def declared(self) -> str:
        return f"NN_NARROW_LOOKUPS({self.name}, {int(self.shared)}, {self.tables})"


@dataclass(frozen=True)
class Narrow:
    """A layer with `times * weight`, and fields of `bits` bits for the weights."""

    layer: dsp.Layer
    bits: int
    times: int
    largest: int  # of |x|

    @property
    def allowance(self) -> float:
        return ALLOWANCE[self.bits]

    @property
    def text(self) -> str:
        """How the weights lie, as people read it."""
        return "two values, 1-bit rows" if self.bits == 1 else f"{self.bits}-bit fields of {self.fields} rows"

    @cached_property
    def weight(self) -> Ints:
        """[rows, segments, run] as they are in flash."""
        found: Ints = self.layer.weight // self.times
        return found

    @cached_property
    def values(self) -> tuple[int, int]:
        """The lesser and the greater of two values."""
        return int(self.weight.min()), int(self.weight.max())

    @property
    def of(self) -> int:
        """Rows of a block."""
        return 4 if self.bits == 4 and not self.layer.alone else 8

    @property
    def fields(self) -> int:
        return 16 // self.bits

    @property
    def shared(self) -> bool:
        """Whether the sums of two positions share the words of a table."""
        two = max(map(abs, self.values)) * self.layer.run * self.layer.at.k_h * self.largest < 1 << 15
        return self.bits == 1 and not self.layer.alone and two

    @property
    def tables(self) -> int:
        return self.layer.at.k_h * -(-self.layer.run // 4)

    @property
    def block(self) -> int:
        """Elements of packed weights for the rows of one block: halfwords, or words of two values."""
        return self.tables if self.bits == 1 else self.of // self.fields * self.layer.at.k_h * 2 * self.layer.pairs

    @property
    def weight_bytes(self) -> int:
        return -(-self.layer.rows // self.of) * self.block * (4 if self.bits == 1 else 2)

    @property
    def dots(self) -> tuple[Dot, ...]:
        names = ["4X8X1"] if self.layer.alone else ["4X4X2"]
        if self.bits == 2:
            names = ["2X8X1"] if self.layer.alone else ["2LX4X2", "2HX4X2"]
        dot = self.layer.dot
        return tuple(Dot(name, dot.pairs, dot.segments, dot.skip, dot.step) for name in names)

    @property
    def lookups(self) -> Lookups:
        return Lookups(self.tables, self.shared)

    @property
    def rows_bytes(self) -> int:
        """Of the widened values, before the tables."""
        return -(-self.layer.scratch_bytes // 4) * 4

    @property
    def scratch_bytes(self) -> int:
        tables = self.tables * 16 * (4 if self.shared else 2)
        return self.rows_bytes + (tables if self.bits == 1 else 0)

    @property
    def instructions(self) -> float:
        layer, blocks = self.layer, -(-self.layer.rows // self.of)
        widen = 3 * layer.at.in_c * layer.at.in_w * layer.at.in_h
        turns = layer.at.out_h * (1 if layer.alone else -(-layer.at.out_w // 2))
        if self.bits == 1:
            turns = layer.at.out_h * (-(-layer.at.out_w // 2) if self.shared else layer.at.out_w)
            return turns * (TABLE * self.tables + blocks * self.lookups.instructions) + widen
        eights = layer.pairs // 8 * 8
        moved = (1 if layer.alone else 2) * (12 + layer.at.k_h * (10 + 2.2 * eights + 5 * (layer.pairs - eights)))
        return turns * (moved + blocks * sum(dot.instructions for dot in self.dots)) + widen

    def order(self) -> list[tuple[int | None, int]] | None:
        """Rows are widened as for the packed rows of dsp.py, before what is made of them is written."""
        return self.layer.order()

    def in_place(self) -> int | None:
        return None

    def packed(self) -> Ints:
        """The elements in the order in which nn_narrow.S reads them."""
        layer, of = self.layer, self.of
        blocks = -(-layer.rows // of)
        run = -(-layer.run // 4) * 4 if self.bits == 1 else 2 * layer.pairs
        whole = np.zeros((blocks * of, layer.at.k_h, run), np.int64)
        whole[: layer.rows, :, : layer.run] = self.weight
        if self.bits == 1:  # [blocks, tables] words: four bits of each of eight rows
            bits = (whole > self.values[0]).reshape(blocks, 8, self.tables, 4)
            at = 4 * np.arange(8)[:, None, None] + np.arange(4)
            found: Ints = (bits.astype(np.int64) << at).sum(axis=(1, 3))
            return found
        fields, half = self.fields, 1 << (self.bits - 1)
        split = whole.reshape(blocks, of // fields, fields, layer.at.k_h, layer.pairs, 2)
        moved = np.concatenate([split[:, :, :-1] + half, split[:, :, -1:] & (2 * half - 1)], axis=2)
        at = self.bits * np.arange(fields)[:, None, None, None]
        halves: Ints = (moved << at).sum(axis=2).transpose(0, 2, 3, 1, 4)  # [blocks, segments, pairs, words, 2]
        return halves

    @cached_property
    def fits(self) -> bool:
        """The static bounds: every field, the sum of every row, what the code reaches."""
        layer, sums = self.layer, np.abs(self.weight).sum(axis=(1, 2))
        low, high = self.values
        if self.bits == 1:
            two = len(np.unique(self.weight)) <= 2 and high - low < 1 << 15
            return two and (self.shared or 4 * max(abs(low), high) * self.largest < 1 << 15)
        half = 1 << (self.bits - 1)
        field = np.arange(layer.rows) % self.fields
        reach = layer.dot.step - 4 <= dsp.MOST_STEP and 0 <= layer.dot.skip <= dsp.MOST_SKIP
        return (
            reach and -half <= low and high < half and bool((sums * self.largest << self.bits * field < 1 << 31).all())
        )


def narrow(op: ops.Mac) -> Iterator[Narrow]:
    """The op in each form whose bounds hold, the narrowest first."""
    layer = dsp.layer(op)
    if layer is None:
        return
    q = op.input.qtype
    times = int(np.gcd.reduce(layer.weight, axis=None)) or 1
    for bits in (1, 2, 4):
        made = Narrow(layer, bits, times, max(-q.min, q.max))
        if made.fits:
            yield made


def form_of(op: ops.Mac) -> Narrow | None:
    found = list(narrow(op))
    if not found:
        return None
    bytes_ = dsp.form_of(op)
    most = bytes_.instructions if bytes_ is not None else max(form.instructions for form in found)
    return next((form for form in found if form.instructions <= form.allowance * most), None)


def smallest(op: ops.Mac) -> Narrow | None:
    """The form of fewest bytes, whatever it costs."""
    return min(narrow(op), key=lambda form: form.weight_bytes, default=None)
