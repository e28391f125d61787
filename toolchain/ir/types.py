"""What stored integers mean: QType, Tensor, Const. A type says what integers mean, never what happens to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from toolchain.errors import GraphError

Ints = npt.NDArray[np.int64]

MAX_BITS = 64


@dataclass(frozen=True)
class QType:
    """real = scale * (stored - zero_point); `scale` is one exact rational, or a tuple with one for each index of `axis`."""

    bits: int
    signed: bool
    scale: Fraction | tuple[Fraction, ...] = Fraction(1)
    axis: int | None = None
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= MAX_BITS - (not self.signed):
            raise GraphError(
                "qtype",
                f"{self.bits} bits, must be 1 to {MAX_BITS} with a sign, or one less without: int64 holds every value",
            )
        if isinstance(self.scale, tuple) != (self.axis is not None):
            raise GraphError("qtype", "a tuple of scales and an axis go together")
        if self.axis is not None and self.axis < 0:
            raise GraphError("qtype", f"axis {self.axis}, must be counted from the front, from 0")
        if not self.scales or not all(isinstance(s, Fraction) for s in self.scales):
            raise GraphError("qtype", f"scale {self.scale!r}, must be a Fraction or a tuple of them")
        if any(s <= 0 for s in self.scales):
            raise GraphError("qtype", f"scale {min(self.scales)}, must be positive")
        if not self.min <= self.zero_point <= self.max:
            raise GraphError("qtype", f"zero point {self.zero_point} is outside {self.min}..{self.max} of {self.text}")

    @classmethod
    def of(
        cls, bits: int, signed: bool, scale: Iterable[Fraction] | Fraction | int, axis: int = -1, zero_point: int = 0
    ) -> QType:
        """A QType from one scale or many; many equal ones become one. `axis` must not be negative when scales differ."""
        scales = (Fraction(scale),) if isinstance(scale, (int, Fraction)) else tuple(map(Fraction, scale))
        if len(set(scales)) == 1:
            return cls(bits, signed, scales[0], None, zero_point)
        return cls(bits, signed, scales, axis, zero_point)

    @property
    def min(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    @property
    def scales(self) -> tuple[Fraction, ...]:
        """The scale as a tuple: of one for the tensor, or one for each index of the axis."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    def scale_list(self, size: int) -> tuple[Fraction, ...]:
        """One scale for each of `size` indices of the axis."""
        return self.scales * size if len(self.scales) == 1 else self.scales

    @property
    def text(self) -> str:
        """`s8` or `u4`: signedness and bits alone."""
        return f"{'s' if self.signed else 'u'}{self.bits}"

    @property
    def fixed_point(self) -> tuple[int, int]:
        """`(W, I)` as in ap_fixed<W, I>: all bits, and integer bits with the sign; raises unless the scale is 2**-n with zero point 0."""
        if isinstance(self.scale, tuple) or self.zero_point:
            raise GraphError(f"qtype {self.text}", "is not fixed point: it must have one scale and zero point 0")
        num, den = self.scale.numerator, self.scale.denominator
        if num & (num - 1) or den & (den - 1):
            raise GraphError(f"qtype {self.text}", f"is not fixed point: scale {self.scale} must be a power of two")
        frac_bits = den.bit_length() - num.bit_length()
        return self.bits, self.bits - frac_bits


def bits_for(lo: int, hi: int, signed: bool | None = None) -> tuple[int, bool]:
    """The fewest bits, and the signedness, that hold every integer of lo..hi; `signed=True` forces a sign."""
    is_signed = lo < 0 or bool(signed)
    need = max(max(hi, 0).bit_length(), (-lo - 1).bit_length() if lo < 0 else 0) + is_signed
    return max(need, 1), is_signed


@dataclass(frozen=True)
class Tensor:
    """A named value; `shape` is without the batch, channels last."""

    name: str
    shape: tuple[int, ...]
    qtype: QType

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[-1] if self.shape else 1


@dataclass(frozen=True)
class Const:
    """A tensor with known integers, kept as little-endian int64 so that it hashes and compares as a value."""

    tensor: Tensor
    data: bytes

    @classmethod
    def of(cls, name: str, array: npt.ArrayLike, qtype: QType) -> Const:
        """A constant; raises GraphError when a value does not fit the type."""
        given = np.asarray(array)
        wide = given.dtype == object  # what Python integers beyond int64 make
        if given.dtype.kind not in "iub" and not (wide and all(isinstance(v, (int, np.integer)) for v in given.flat)):
            raise GraphError(f"const %{name}", f"holds {given.dtype}, must be integers")
        if given.size:
            lo, hi = int(given.min()), int(given.max())
            if lo < qtype.min or hi > qtype.max:
                raise GraphError(
                    f"const %{name}", f"values {lo}..{hi} do not fit {qtype.text} ({qtype.min}..{qtype.max})"
                )
        return cls(Tensor(name, given.shape, qtype), np.ascontiguousarray(given.astype("<i8")).tobytes())

    @property
    def array(self) -> Ints:
        """The integers, read-only."""
        return np.frombuffer(self.data, "<i8").reshape(self.tensor.shape)
