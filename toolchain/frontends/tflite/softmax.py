"""SOFTMAX: the table of exponentials that TFLM's integer softmax adds up; the rest is the op's own arithmetic (16 bits: wide.py).

Its one rule: entry d is exp of d steps below the largest, computed as gemmlowp does, and 0 where TFLM skips the element.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.tflite import fixedpoint
from toolchain.frontends.tflite.archive import Node
from toolchain.frontends.tflite.arithmetic import multiply, quantize_multiplier
from toolchain.frontends.tflite.context import BITS, Context, clean, same_shape
from toolchain.frontends.tflite.wide import softmax16
from toolchain.ir.types import QType

INTEGER_BITS = 5  # of the scaled difference
OUTPUTS = {  # by the types of input and output
    ("int8", "int8"): (1 / 256, -128),
    ("int8", "int16"): (1 / 65536, -32768),
    ("int16", "int16"): (1 / 32768, 0),
}


def softmax(c: Context, node: Node) -> None:
    x, data = c.input(node)
    y = c.output(node, 0, ("int8", "int16") if x.type == "int8" else ("int16",))
    same_shape(node, x, y)
    beta = np.float32(node.options["beta"])
    if not 0 < beta < np.inf:
        raise UnsupportedError(node.where, f"beta is {beta:g}, must be above 0", "export with beta 1")
    worth, zero = OUTPUTS[x.type, y.type]
    if y.zero_point != zero or abs(float(y.scale) - worth) > 0.001 * worth:
        what = f"its output has scale {y.scale:g} and zero point {y.zero_point}, must have {worth:g} and {zero}"
        raise UnsupportedError(node.where, what, "convert again")
    if x.type == "int16":
        c.put(y, softmax16(c, node, x, data, y, beta))
        return
    table = exponentials(node, float(beta) * float(x.scale))
    c.put(y, c.b.softmax(data, table, QType(*BITS[y.type], Fraction(worth), None, zero), clean(y.name)))


def exponentials(node: Node, step: float) -> list[int]:
    """PreprocessSoftmaxScaling, CalculateInputRadius, and exp of what they leave."""
    factor = quantize_multiplier(node, min(step * (1 << (31 - INTEGER_BITS)), (1 << 31) - 1.0), 31)
    if factor.exponent < 0 or not factor.multiplier:
        what = f"its input's scale times beta is {step:g}, must be 2**-26 or more: TensorFlow Lite Micro refuses it"
        raise UnsupportedError(node.where, what, "quantize the model again")
    radius = (((1 << INTEGER_BITS) - 1) << (31 - INTEGER_BITS)) >> factor.exponent
    below = (fixedpoint.exp_of_negative(multiply(-d, factor), INTEGER_BITS) for d in range(min(radius + 1, 256)))
    table = list(below)
    return table + [0] * (256 - len(table))
