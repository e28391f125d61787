"""TensorFlow Lite Micro's arithmetic on scales: multipliers, activation ranges, and what it does to an integer with them.

Its one rule: float32 where TFLM has float, float64 where it has double, in its order. Sources: tflite-micro,
tensorflow/lite/kernels/internal/quantization_util.cc, common.cc, kernel_util.cc and gemmlowp's fixedpoint.h; where versions
differ (SUB, LEAKY_RELU and FULLY_CONNECTED once divided in float32), the tflite-micro wheel of 2026 is followed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.tflite.archive import Node, Tensor

Float = np.float32 | np.float64 | float
LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int32": (-(1 << 31), (1 << 31) - 1)}


class Factor(NamedTuple):
    """A real factor as multiplier * 2**(exponent - 31), multiplier of 31 bits."""

    multiplier: int
    exponent: int

    @property
    def shift(self) -> int:
        """Requantize's, in rounding mode tflm."""
        return 31 - self.exponent


def quantize_multiplier(node: Node, value: Float, most: int = 30) -> Factor:
    """QuantizeMultiplier: to 31 bits, halves away from zero; 0 below 2**-32, refused from 2**most on."""
    real = float(value)
    if not math.isfinite(real) or real < 0:
        raise UnsupportedError(node.where, f"a quotient of its scales is {real}", "quantize the model again")
    mantissa, exponent = math.frexp(real)
    rounded = math.floor(math.ldexp(mantissa, 31) + 0.5)  # exact: 53 bits hold 31 and the half
    if rounded == 1 << 31:
        rounded, exponent = rounded // 2, exponent + 1
    if exponent < -31 or not rounded:
        return Factor(0, 0)
    if exponent > most:
        what = f"a quotient of its scales is {real:g}, at most 2**{most}"
        raise UnsupportedError(node.where, what, "quantize it again")
    return Factor(rounded, exponent)


def half_away(value: np.float32) -> int:
    """C's round."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))


def activation_range(node: Node, name: str, output: Tensor) -> tuple[int, int]:
    """CalculateActivationRangeQuantized: the clamp of a fused activation, whose ends are quantized in float32."""
    lo, hi = LIMITS[output.type]
    ends = {"none": (None, None), "relu": (0.0, None), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}
    if name not in ends:
        raise UnsupportedError(node.where, f"fuses {name}", "supported: relu, relu6, relu_n1_to_1")
    at = [None if e is None else output.zero_point + half_away(np.float32(e) / output.scale) for e in ends[name]]
    clamp = (lo if at[0] is None else max(lo, at[0]), hi if at[1] is None else min(hi, at[1]))
    if clamp[0] > clamp[1]:
        raise UnsupportedError(node.where, f"{name} leaves no integer of the output", "quantize the model again")
    return clamp


# On integers, for tables: the same as Requantize does


def high_mul(a: int, b: int, bits: int = 32) -> int:
    """SaturatingRoundingDoublingHighMul: a * b / 2**(bits - 1), halves up."""
    half = 1 << (bits - 2)
    if a == b == -(1 << (bits - 1)):
        return (1 << (bits - 1)) - 1
    return (a * b + half) >> (bits - 1)


def shift_right(value: int, exponent: int) -> int:
    """RoundingDivideByPOT: halves away from zero."""
    if not exponent:
        return value
    return (abs(value) + (1 << (exponent - 1)) >> exponent) * (1 if value >= 0 else -1)


def multiply(value: int, factor: Factor) -> int:
    """MultiplyByQuantizedMultiplier of 32 bits, two roundings; saturates where TFLM leaves the overflow undefined."""
    left = min(max(value << max(factor.exponent, 0), -(1 << 31)), (1 << 31) - 1)
    return shift_right(high_mul(left, factor.multiplier), max(-factor.exponent, 0))


def clamped(value: int, limits: tuple[int, int]) -> int:
    return min(max(value, limits[0]), limits[1])
