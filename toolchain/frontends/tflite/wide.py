"""LOGISTIC, TANH and SOFTMAX of 16 bits: values on lines between the entries of tables, as TFLM reads them.

Its one rule: the tables are constants of TFLM's, the same for every model, so a graph has each one time however many operators
read it. Sources: tflite-micro, tensorflow/lite/kernels/internal/common.h (sigmoid_table_uint16, LUTPopulateInt16), micro/kernels/
logistic_common.cc, tanh.cc and softmax_common.cc, and the reference kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.tflite.archive import Node, Tensor
from toolchain.frontends.tflite.arithmetic import half_away, quantize_multiplier
from toolchain.frontends.tflite.context import Context, clean, qtype, same_shape
from toolchain.ir import types
from toolchain.ir.ops import Rounding
from toolchain.ir.types import Const, QType

REQUANTIZE = "quantize the model again"
Q15 = QType(16, True, Fraction(1, 1 << 15))
STEPS = 3 * 4096  # to 1, of what the sigmoid is looked up with: 24 entries of 512, and 12 of 1024
LAST = 255  # entry of the sigmoid from which on it is 1
LINES = 512  # of a table
DEEPEST = 10.0  # exp of less counts as exp of this


def logistic(c: Context, node: Node) -> None:
    """1/2 and half of tanh(x / 2): 512 steps of x an entry."""
    _sigmoid(c, node, 9, 1 << 14, (0,))


def tanh(c: Context, node: Node) -> None:
    """256 steps of x an entry."""
    _sigmoid(c, node, 8, 0, (0, 1))


def _sigmoid(c: Context, node: Node, bits: int, offset: int, powers: Sequence[int]) -> None:
    """x in steps of 1/12288, kept just within where the table ends, then the table: 2**bits steps an entry."""
    x, data = c.input(node, 0, ("int16",))
    y = c.same_type(node, x, ("int16",))
    same_shape(node, x, y)
    if power_of_two(y.scale) != -15:
        raise UnsupportedError(node.where, f"its output has scale {y.scale:g}, must have 2**-15", REQUANTIZE)
    multiplier, right = _factor(node, x, c.b.range(data).whole, powers)
    name, most = clean(y.name), (LAST << bits) - 1
    kind, clamp = QType(9 + bits, True, Fraction(1, STEPS)), (-most, most)
    steps = c.b.requantize(data, kind, [multiplier], [0], [right], Rounding.HALF_UP, f"{name}_steps", clamp)
    table, shift = _shared(c, "sigmoid", sigmoid), bits + (offset > 0)
    c.put(y, c.b.interpolate(steps, qtype(y), table, shift, Rounding.HALF_AWAY, name, offset))


def _factor(node: Node, x: Tensor, given: tuple[int, int], powers: Sequence[int]) -> tuple[int, int]:
    """Multiplier and shift of 15 bits from x to steps: a power of two 2**p / 4096 for p in `powers` is 3 * 2**p itself."""
    power = power_of_two(x.scale)
    if power is not None and power + 12 in powers:
        return 3 << (power + 12), 0
    real, right = float(x.scale) * 4096.0 * 3.0, 0
    while real <= 32767.0 / 2.0 and right <= 30:
        real, right = real * 2.0, right + 1
    multiplier = int(real)
    if not multiplier or max(-given[0], given[1]) * multiplier >= 1 << 31:
        what = (
            f"its input has scale {x.scale:g}, where TensorFlow Lite Micro's 32 bits overflow; must be 2**-44 to 16/3"
        )
        raise UnsupportedError(node.where, what, REQUANTIZE)
    return multiplier, right


def power_of_two(scale: np.float32) -> int | None:
    """CheckedLog2: the exponent where the scale is a power of two to some 0.07 %, in float32."""
    log2 = np.float32(math.log(scale)) * (np.float32(1) / np.float32(math.log(2)))
    power = half_away(log2)
    return power if abs(log2 - np.float32(power)) < np.float32(1e-3) else None


def sigmoid() -> list[int]:
    """32768 * tanh(k / 48) for k from -256 to 256. Each is raised by half of what a line to the next lies below the middle between
    them, which is TFLM's own table of 256 entries; beyond it there are no more but 1."""

    def real(k: float) -> float:
        return 65536 / (1 + math.exp(-k / 24)) - 32768

    upper = [math.floor(real(k) + (real(k + 0.5) - (real(k) + real(k + 1)) / 2) / 2 + 0.5) for k in range(LAST)]
    upper += [32767] * 2
    return [-v for v in upper[:0:-1]] + upper


# --- softmax ---------------------------------------------------------------------------------------------------------


def softmax16(c: Context, node: Node, x: Tensor, data: types.Tensor, y: Tensor, beta: np.float32) -> types.Tensor:
    """The distance from the largest in steps of 10 / 65535, exp of it, and their sum's reciprocal from tables."""
    step = float(x.scale) * float(beta)
    factor = quantize_multiplier(node, step / (DEEPEST / 65535.0))
    lo, hi = c.b.range(data).whole
    if factor.exponent > 0 and (hi - lo) << factor.exponent > 1 << 31:
        what = f"its input's scale times beta is {step:g}, where TensorFlow Lite Micro's 32 bits overflow; must be 5 or less"
        raise UnsupportedError(node.where, what, REQUANTIZE)
    exp = _shared(c, "exp", lambda: line_table(_exp, -DEEPEST, 0.0))
    reciprocal = _shared(c, "reciprocal", lambda: line_table(_reciprocal, 0.0, 1.0))
    return c.b.softmax16(data, exp, reciprocal, factor.multiplier, factor.shift, Q15, clean(y.name))


def _exp(x: np.float32) -> float:
    return math.exp(x)


def _reciprocal(x: np.float32) -> float:
    return float(np.float32(1) / (np.float32(1) + x))


def line_table(function: Callable[[np.float32], float], low: float, high: float) -> list[int]:
    """LUTPopulateInt16 in float32: 513 entries in Q15, each lowered by half of what the middle of its line is too high."""
    least, most = np.float32(low), np.float32(high)
    step = (most - least) / np.float32(LINES)

    def stored(x: np.float32) -> np.float32:
        found: np.float32 = np.float32(function(x)) * np.float32(1 << 15)
        return found

    table = []
    for k in range(LINES):
        at = least + np.float32(k) * step
        here = half_away(stored(at))
        line = half_away((stored(least + np.float32(k + 1) * step) + np.float32(here)) / np.float32(2))
        error = line - half_away(stored(at + step / np.float32(2)))
        table.append(here - half_away(np.float32(error / 2)))
    return [min(v, (1 << 15) - 1) for v in (*table, half_away(stored(most)))]


def _shared(c: Context, name: str, values: Callable[[], list[int]]) -> Const:
    """The graph's one constant of this table."""
    if name not in c.tables:
        c.tables[name] = c.b.const(name, values(), Q15.scales[0], bits=16, signed=True)
    return c.tables[name]
