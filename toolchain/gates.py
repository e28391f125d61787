"""What one multiplier, adder, memory or FIFO costs on a part: the primitives of the cost model, each with its source.

Rule: nothing here knows a layer. docs/fpga_cost.md says what was compared with real reports and how far off it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from toolchain.ir.types import Ints

LUT_MULTIPLIER = (
    1.2  # LUTs for each pair of bits of an a x b product: 18 x 18 takes 365 to 401 (hls4ml issue 99, Vivado 2018.2)
)
FABRIC_BITS = 10  # products of two operands no wider than this are left to LUTs
NARROW_BITS = 6  # and so are products with one operand no wider: 73 of 80 products of the Vivado report took a DSP
SRL_BITS = 1024  # a FIFO of at most so many bits, or FLOOR deep, is shift registers (UG1399, config_storage fifo)


@dataclass(frozen=True)
class Family:
    """`dsp`: the signed operands of one multiplier. `packed`: multipliers of a block. `port`: the widest word of one RAM block."""

    name: str
    dsp: tuple[int, int]
    packed: int
    port: int


SEVEN = Family("7 series, DSP48E1", (25, 18), 1, 36)  # UG479
ULTRASCALE = Family("UltraScale, DSP48E2", (27, 18), 1, 36)  # UG579
INTEL = Family("Intel, 18x19", (19, 18), 2, 40)  # Cyclone V and Arria 10 handbooks: two 18x19 multipliers in a block
POLARFIRE = Family("PolarFire, 18x18", (18, 18), 1, 40)  # UG0680: a math block is 18 x 18, an LSRAM 512 x 40
PARTS = (("xc7", SEVEN), ("xc", ULTRASCALE), ("5c", INTEL), ("10a", INTEL), ("mpf", POLARFIRE))


def family(part: str) -> Family:
    """The family of an orderable part; unknown ones count as the oldest."""
    return next((f for prefix, f in PARTS if part.lower().startswith(prefix)), SEVEN)


def needs_dsp(a_bits: int, b_bits: int) -> bool:
    """Whether the tools give a product of these signed widths to a DSP when nothing says which."""
    return max(a_bits, b_bits) > FABRIC_BITS and min(a_bits, b_bits) > NARROW_BITS


def multiplier(f: Family, a_bits: int, b_bits: int) -> tuple[float, float]:
    """(DSP blocks, LUTs) of one product; wide operands are split, each part but the top one losing the sign's bit."""
    if not needs_dsp(a_bits, b_bits):
        return 0.0, LUT_MULTIPLIER * a_bits * b_bits

    def parts(bits: int, room: int) -> int:
        return max(ceil((bits - 1) / (room - 1)), 1)

    x, y = f.dsp
    blocks = min(parts(a_bits, x) * parts(b_bits, y), parts(a_bits, y) * parts(b_bits, x))
    return blocks / f.packed, (a_bits + b_bits if blocks > 1 else 0) * (blocks - 1) / 2


def constant_bits(weight: npt.ArrayLike) -> Ints:
    """Signed width of each constant without the zeros at its end, which are only a shift."""
    w = np.abs(np.asarray(weight, np.int64))
    odd = w // np.where(w > 0, w & -w, 1)
    return _per_bit(odd, lambda rest: np.minimum(rest, 1)) + 1


def digits(weight: npt.ArrayLike) -> Ints:
    """Nonzero digits of each constant in canonical signed digits: additions and subtractions that a product takes, and one."""
    w: Ints = np.abs(np.asarray(weight, np.int64))
    return _per_bit(
        np.bitwise_xor(3 * w, w), lambda rest: np.bitwise_and(rest, 1)
    )  # a digit is nonzero where 3w and w differ, one place up


def _per_bit(value: Ints, counted: Callable[[Ints], Ints]) -> Ints:
    """How many shifts to the right of each value are counted."""
    found = np.zeros(value.shape, np.int64)
    while value.any():
        found = found + counted(value)
        value = np.right_shift(value, 1)
    return found


def memory_blocks(f: Family, block_bits: int, width: int, depth: int) -> int:
    """RAM blocks of `depth` words of `width` bits, one word read a cycle."""
    if width <= 0 or depth <= 0:
        return 0
    words = block_bits // f.port
    deep = ceil(depth / words) * ceil(width / f.port)
    narrow = ceil(width * depth / block_bits)  # deep and narrow: a block has narrower ports too
    return deep if depth <= words else max(narrow, ceil(width / f.port))


def fifo(f: Family, block_bits: int, width: int, depth: int) -> tuple[int, int, int]:
    """(LUTs, flip-flops, RAM blocks) of a FIFO: shift registers while it is small, with some logic for its counters."""
    control = 10 + 2 * ceil(np.log2(depth + 1))
    if depth <= 2 or width * depth <= SRL_BITS:
        return control + width * ceil(depth / 32), control, 0
    return 3 * control, 3 * control + width, memory_blocks(f, block_bits, width, depth)
