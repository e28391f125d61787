"""FlatBuffers, read only: tables, vectors and strings by their offsets, as google's flatbuffers page "Internals" describes them.

Its one rule: no byte outside the file is read, and no more than a few times the file in all, whatever its offsets say; what
cannot be so is one ToolchainError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from toolchain.errors import ToolchainError

REREAD = 16  # times its size that a file may be read in all: parts may be shared, but no small file is a bomb
AGAIN = "export or copy the model again"


class Buffer:
    """The bytes of one file."""

    def __init__(self, where: str, data: bytes) -> None:
        self.where, self.data = where, data
        self.left = REREAD * len(data) + (1 << 16)

    def damaged(self, what: str) -> ToolchainError:
        return ToolchainError(self.where, f"a truncated or damaged TFLite file: {what}", AGAIN)

    def unpack(self, kind: str, at: int) -> int | float:
        """One little-endian number; `kind` is struct's letter."""
        size = struct.calcsize(kind)
        self.span(at, size)
        found: int | float = struct.unpack_from(f"<{kind}", self.data, at)[0]
        return found

    def integer(self, kind: str, at: int) -> int:
        return int(self.unpack(kind, at))

    def span(self, at: int, size: int) -> int:
        """The offset, if `size` bytes from there on are in the file."""
        if at < 0 or size < 0 or at + size > len(self.data):
            raise self.damaged(f"{size} bytes at {at} lie outside its {len(self.data)}")
        self.left -= size
        if self.left < 0:
            raise self.damaged("its parts refer to each other over and over")
        return at

    def root(self) -> Table:
        return Table(self, self.integer("I", 0))

    def vector(self, at: int, itemsize: int) -> tuple[int, int]:
        """Where its items begin, and how many there are."""
        count = self.integer("I", at)
        if at + 4 + count * itemsize > len(self.data):
            raise self.damaged(f"a vector of {count} items at {at} lies outside its {len(self.data)} bytes")
        return at + 4, count


class Table:
    """A table; a field that is not in it is its default, as the schema says it."""

    def __init__(self, buffer: Buffer, at: int) -> None:
        self.buffer, self.at = buffer, buffer.span(at, 4)
        vtable = at - buffer.integer("i", at)
        size = buffer.integer("H", vtable)
        if size < 4 or size % 2:
            raise buffer.damaged(f"a table at {at} has a vtable of {size} bytes")
        self.slots = struct.unpack_from(f"<{(size - 4) // 2}H", buffer.data, buffer.span(vtable + 4, size - 4))

    def _field(self, slot: int) -> int | None:
        offset = self.slots[slot] if slot < len(self.slots) else 0
        return self.at + offset if offset else None

    def number(self, slot: int, kind: str, default: int | float = 0) -> int | float:
        at = self._field(slot)
        return default if at is None else self.buffer.unpack(kind, at)

    def integer(self, slot: int, kind: str = "i", default: int = 0) -> int:
        return int(self.number(slot, kind, default))

    def has(self, slot: int) -> bool:
        return self._field(slot) is not None

    def _target(self, slot: int) -> int | None:
        at = self._field(slot)
        return None if at is None else at + self.buffer.integer("I", at)

    def table(self, slot: int) -> Table | None:
        at = self._target(slot)
        return None if at is None else Table(self.buffer, at)

    def tables(self, slot: int) -> Iterator[Table]:
        at = self._target(slot)
        first, count = (0, 0) if at is None else self.buffer.vector(at, 4)
        for place in range(first, first + 4 * count, 4):
            yield Table(self.buffer, place + self.buffer.integer("I", place))

    def text(self, slot: int) -> str:
        return self.bytes(slot).tobytes().decode("utf-8", "replace")

    def bytes(self, slot: int) -> npt.NDArray[np.uint8]:
        """A vector of bytes, not copied."""
        at = self._target(slot)
        first, count = (0, 0) if at is None else self.buffer.vector(at, 1)
        return np.frombuffer(self.buffer.data, np.uint8, count, first)

    def numbers(self, slot: int, dtype: str) -> npt.NDArray[np.generic]:
        """A vector of numbers of numpy's `dtype`, as "<i4"."""
        at, kind = self._target(slot), np.dtype(dtype)
        first, count = (0, 0) if at is None else self.buffer.vector(at, kind.itemsize)
        return np.frombuffer(self.buffer.data, kind, count, self.buffer.span(first, count * kind.itemsize))
