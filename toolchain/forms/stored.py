"""How the weights of a layer lie in flash where a byte or more for each is too much: streams of digits, tables of values, zeros left out.

Rule: what is stored is read back here too, and nothing is padded but the last byte of a tensor. Every format is one stream of bits, the
lowest of a byte first: groups of `bits` bits that hold `digits` numbers below `levels`, the first the lowest digit. A number means
low + step * number, or an entry of a table, one for all rows or one for each. Where zeros are left out, either a bit before each
weight says whether a value follows (bitmap), or `gap` bits before each value say how many zeros come first (index), where the highest
number says that as many do and no value. firmware_templates/c/kernels/nn_stored.h decodes it, a row at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log2

import numpy as np

from toolchain.ir import ops
from toolchain.ir.types import Ints

from . import dsp

NAME = "stored"
DSP = "stored_dsp"  # decoded into the packed rows of forms/dsp.py
MOST_LEVELS = 16  # of a table, and of numbers that share a group
MOST_BITS = 24  # of a group: what a reader of bytes holds beside what is left of one
POSITIONS_WORTH = 4  # of the output: packing a row costs about as much as it saves at two of them
ALL, BITMAP, INDEX = range(3)  # NN_ALL_VALUES, NN_BITMAP, NN_INDEX
LEFT_OUT = {ALL: "", BITMAP: "bitmap, ", INDEX: "index of {} bits, "}


def group(levels: int) -> tuple[int, int]:
    """(numbers below `levels` in a group, bits of it): the least bits for a number, at most 2.5 % above log2(levels) up to 16 levels."""
    most = MOST_BITS if levels <= MOST_LEVELS else 1
    sizes = [(n, max((levels**n - 1).bit_length(), 1)) for n in range(1, most + 1)]
    return min((s for s in sizes if s[1] <= MOST_BITS), key=lambda s: (s[1] / s[0], s[0]))


def flat(op: ops.Mac) -> Ints:
    """[rows, values] in the order in which they are stored; of a depthwise convolution one row, as it is."""
    w = op.weight.array.astype(np.int64)
    return w.reshape(1 if isinstance(op, ops.DepthwiseConv2D) else w.shape[0], -1)


@dataclass(frozen=True, eq=False)
class Stored:
    """Weights in a format. `tables`: [1 or rows, levels] values of the numbers; None where they are low + step * number."""

    weight: Ints  # [rows, values]
    levels: int
    low: int = 0
    step: int = 1
    tables: Ints | None = None
    zeros: int = ALL
    gap: int = 0

    @cached_property
    def group(self) -> tuple[int, int]:
        """Where zeros are left out a value stands alone."""
        return group(self.levels) if self.zeros == ALL else (1, max((self.levels - 1).bit_length(), 1))

    @property
    def text(self) -> str:
        """`4-bit`, `ternary, 5 in 8 bits`, `bitmap, codebook of 12, 4-bit`: the format as a Plan and people name it."""
        digits, bits = self.group
        each = f"{bits}-bit" if digits == 1 else f"{digits} in {bits} bits"
        what = "ternary, " if self.levels == 3 else f"{self.levels} levels, " if digits > 1 else ""
        if self.tables is not None:
            what = f"codebook of {self.levels}{' per channel' if len(self.tables) > 1 else ''}, "
        return LEFT_OUT[self.zeros].format(self.gap) + what + each

    def numbers(self, row: int, values: Ints) -> Ints:
        if self.tables is None:
            return (values - self.low) // self.step
        table = self.tables[row % len(self.tables)]
        order = np.argsort(table, kind="stable")
        found: Ints = order[np.searchsorted(table[order], values)]
        return found

    @cached_property
    def data(self) -> bytes:
        """The stream."""
        digits, bits = self.group
        if self.zeros == ALL:
            numbers = np.concatenate([self.numbers(r, row) for r, row in enumerate(self.weight)])
            numbers = np.pad(numbers, (0, -len(numbers) % digits)).reshape(-1, digits)
            return _bytes(_bits(numbers @ self.levels ** np.arange(digits), bits).ravel())
        columns, at = self.weight.shape[1], np.flatnonzero(self.weight)
        numbers = np.zeros(self.weight.size, np.int64)
        for r, row in enumerate(self.weight):
            kept = np.flatnonzero(row)
            numbers[r * columns + kept] = self.numbers(r, row[kept])
        if self.zeros == BITMAP:
            flags = self.weight.ravel() != 0
            whole = np.concatenate([flags[:, None], _bits(numbers, bits)], axis=1)
            return _bytes(
                whole[np.concatenate([np.ones((len(flags), 1), bool), np.repeat(flags[:, None], bits, 1)], axis=1)]
            )
        most = (1 << self.gap) - 1
        full = np.ones(self.gap, np.int64)
        parts: list[Ints] = []
        for k, before in zip(at, [-1, *at[:-1]], strict=True):
            zeros = int(k) - int(before) - 1
            parts += [full] * (zeros // most)
            parts += [_bits(np.array([zeros % most]), self.gap)[0], _bits(numbers[k : k + 1], bits)[0]]
        last = self.weight.size - 1 - (int(at[-1]) if len(at) else -1)
        parts += [full] * -(-last // most)  # so that a reader never looks behind the end
        return _bytes(np.concatenate(parts))

    @cached_property
    def field_bits(self) -> int:
        """Of the stream, before the last byte is filled."""
        digits, bits = self.group
        size, kept = self.weight.size, int(np.count_nonzero(self.weight))
        if self.zeros == ALL:
            return -(-size // digits) * bits
        if self.zeros == BITMAP:
            return size + kept * bits
        return _gaps(self.weight, self.gap) * self.gap + kept * bits

    @property
    def stream_bytes(self) -> int:
        return -(-self.field_bits // 8)

    @property
    def table_bytes(self) -> int:
        if self.tables is None:
            return 0
        low, high = int(self.tables.min()), int(self.tables.max())
        least = -1 << 7, -1 << 15  # the smallest type that holds them all, unsigned where none is negative
        most = ((1 << 8) - 1, (1 << 16) - 1) if low >= 0 else ((1 << 7) - 1, (1 << 15) - 1)
        size = next((1 << k for k in (0, 1) if least[k] <= low and high <= most[k]), 4)
        return int(self.tables.size) * size

    @property
    def weight_bytes(self) -> int:
        return self.stream_bytes + self.table_bytes

    @property
    def bound_bits(self) -> float:
        """What the format cannot be below. Of all values: each one of `levels`, log2(levels) bits, or whole bits above 16 levels;
        with zeros left out: a bit for each weight, or its gaps, and the bits of the others. With the table where there is one."""
        table = 8 * self.table_bytes
        if self.zeros == ALL:
            return self.weight.size * (log2(self.levels) if self.levels <= MOST_LEVELS else self.group[1]) + table
        return self.field_bits + table


def read(data: Sequence[int], form: Stored) -> Ints:
    """What a stream means in a format: the other side of `data`, for tests and for who wants to know."""
    bits = np.unpackbits(np.frombuffer(bytes(data), np.uint8), bitorder="little").astype(np.int64)
    at, (digits, width), left, number = 0, form.group, 0, 0
    found: list[int] = []
    columns = form.weight.shape[1]

    def take(n: int) -> int:
        nonlocal at
        at += n
        return int(bits[at - n : at] @ (1 << np.arange(n)))

    def value() -> int:
        nonlocal left, number
        if not left:
            left, number = digits, take(width)
        digit = number % form.levels if digits > 1 else number
        number //= form.levels
        left -= 1
        if form.tables is None:
            return form.low + form.step * digit
        return int(form.tables[len(found) // columns % len(form.tables), digit % form.levels])

    while len(found) < form.weight.size:
        if form.zeros == ALL:
            found.append(value())
        elif form.zeros == BITMAP:
            found.append(value() if take(1) else 0)
        else:
            zeros = take(form.gap)
            found += [0] * zeros
            if zeros < (1 << form.gap) - 1:
                found.append(value())
    return np.array(found[: form.weight.size], np.int64).reshape(form.weight.shape)


def _bits(numbers: Ints, bits: int) -> Ints:
    found: Ints = numbers[:, None] >> np.arange(bits) & 1
    return found


def _bytes(bits: np.ndarray) -> bytes:
    return np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()


def _gaps(weight: Ints, bits: int) -> int:
    """Fields of gaps: one for each value, and one for each time that a gap is too long."""
    at, most = np.flatnonzero(weight), (1 << bits) - 1
    gaps = np.diff(at, prepend=-1) - 1
    last = weight.size - 1 - (int(at[-1]) if len(at) else -1)
    return len(at) + int((gaps // most).sum()) + -(-last // most)


def formats(weight: Ints) -> Iterator[Stored]:
    """Every format that these weights, [rows, values], can lie in; none for those that 32 bits do not hold."""
    if int(weight.max()) - int(weight.min()) >= 1 << 31 or abs(weight).max() >= 1 << 31:
        return
    for zeros in (ALL, BITMAP, INDEX):
        rows = [row if zeros == ALL else row[row != 0] for row in weight]
        used = np.unique(np.concatenate(rows))
        if len(used) == 0:
            continue
        gaps = (0,) if zeros != INDEX else tuple(range(1, 9))
        gap = min(gaps, key=lambda g: _gaps(weight, g) * g if g else 0)
        low, high = int(used[0]), int(used[-1])
        step = int(np.gcd.reduce(np.diff(used))) if len(used) > 1 else 1
        levels = max((high - low) // step + 1, 2)
        if levels <= 1 << 16:
            yield Stored(weight, levels, low, step, None, zeros, gap)
        if 2 <= len(used) <= MOST_LEVELS and len(used) < levels:
            yield Stored(weight, len(used), tables=used[None, :], zeros=zeros, gap=gap)
        each = [np.unique(row) for row in rows]
        most = max(map(len, each))
        if len(weight) > 1 and 2 <= most <= MOST_LEVELS and most < len(used):
            tables = np.stack(
                [
                    np.pad(own, (0, most - len(own)), mode="edge") if len(own) else np.zeros(most, np.int64)
                    for own in each
                ]
            )
            yield Stored(weight, most, tables=tables, zeros=zeros, gap=gap)


def form_of(op: ops.Mac, text: str) -> Stored:
    """The format that a Plan names."""
    return next(form for form in formats(flat(op)) if form.text == text)


def smallest(op: ops.Mac) -> Stored | None:
    """The format of fewest bytes; None where there is none, or none that is smaller than the weights as they are."""
    found = min(formats(flat(op)), key=lambda form: form.weight_bytes, default=None)
    plain = op.weight.tensor.size * ceil(op.weight.tensor.qtype.bits / 8)
    return found if found is not None and found.weight_bytes < plain else None


@dataclass(frozen=True)
class Unordered:
    """What the planner is told of these kernels: a convolution's input is read again for each channel, so nothing is shared."""

    scratch_bytes: int = 0
    instructions: float = 0.0

    def order(self) -> None:
        return None

    def in_place(self) -> None:
        return None


def layer(op: ops.Mac) -> dsp.Layer | None:
    """The op in packed rows, where more than one position is worth packing them on the device."""
    found = None if isinstance(op, ops.DepthwiseConv2D) else dsp.form_of(op)
    return found if isinstance(found, dsp.Layer) and found.at.out_h * found.at.out_w >= POSITIONS_WORTH else None


def words(count: int) -> int:
    """Bytes, up to a whole word."""
    return -(-count // 4) * 4


def scratch_bytes(op: ops.Mac, name: str, value_bytes: int, wide: bool) -> int:
    """What a kernel of this name needs while it runs: a decoded row, and with packed rows those and the widened input; nothing for a
    dense layer of one position, which multiplies what it decodes, unless its sums need 64 bits."""
    if isinstance(op, ops.Dense) and op.input.size == op.input.channels and not wide:
        return 0
    row = words(flat(op).shape[1] * value_bytes)
    packed = layer(op) if name == DSP else None
    return row + (words(packed.scratch_bytes) + words(2 * packed.block) if packed is not None else 0)
