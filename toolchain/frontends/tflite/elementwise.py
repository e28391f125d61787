"""ADD, SUB, MUL and functions of one value: RELU, LEAKY_RELU, HARD_SWISH, LOGISTIC, TANH, QUANTIZE.

Its one rule: a function of one 8-bit value is a table of 256 integers, computed here by TFLM's own steps.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import floor, frexp, ldexp, prod

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.tflite import fixedpoint, wide
from toolchain.frontends.tflite.archive import Node, Tensor
from toolchain.frontends.tflite.arithmetic import (
    LIMITS,
    Factor,
    clamped,
    half_away,
    high_mul,
    multiply,
    quantize_multiplier,
    shift_right,
)
from toolchain.frontends.tflite.context import (
    Context,
    activation,
    clean,
    qtype,
    same_shape,
    same_size,
    usable,
)
from toolchain.ir import types
from toolchain.ir.ops import Rounding
from toolchain.ir.types import QType, bits_for

IDENTITY = Factor(1 << 30, 1)


# --- of two tensors --------------------------------------------------------------------------------------------------


def add(c: Context, node: Node) -> None:
    _sum(c, node, 1)


def sub(c: Context, node: Node) -> None:
    _sum(c, node, -1)


def _sum(c: Context, node: Node, sign: int) -> None:
    """Both inputs scaled to half of the larger scale in 32 bits, added, scaled to the output."""
    tensors, y = _operands(c, node)
    left = 15 if y.type == "int16" else 20
    largest = max(t.scale for t in tensors)
    twice = 2 * float(largest)
    quotients, last = [float(t.scale) / twice for t in tensors], twice / ((1 << left) * float(y.scale))
    if not last < 1:  # QuantizeMultiplierSmallerThanOneExp ends the process
        what = f"its output scale {y.scale:g} is too fine for inputs of scale {largest:g}: TensorFlow Lite Micro refuses it"
        raise UnsupportedError(node.where, what, "quantize the model again")
    factors, out = [quantize_multiplier(node, q) for q in quotients], quantize_multiplier(node, last)
    clamp, name = activation(node, y), clean(y.name)

    def scaled(k: int, stored: int) -> int:
        return multiply((stored - tensors[k].zero_point) << left, factors[k])

    def whole(x: int, other: int) -> int:
        return clamped(y.zero_point + multiply(x + other, out), clamp)

    fixed = next((k for k, t in enumerate(tensors) if t.data is not None), None)
    if fixed is None:
        unit = Fraction(twice) / (1 << left)
        parts = [
            _scaled(c, c.values[t.index], partial(scaled, k), factors[k], unit, f"{name}_{'ab'[k]}")
            for k, t in enumerate(tensors)
        ]
        acc = (c.b.add if sign > 0 else c.b.sub)(*_same_rank(c, parts[0], parts[1], name), f"{name}_sum")
    else:
        x, given = c.values[tensors[1 - fixed].index], tensors[fixed].data
        assert given is not None
        other = np.array([scaled(fixed, int(v)) for v in given.ravel()], np.int64).reshape(given.shape) * (
            sign if fixed else 1
        )
        one = 1 if fixed else sign  # of what is computed
        if given.size == 1 and y.type == "int8":
            c.put(y, c.table(qtype(y), x, lambda v: whole(one * scaled(1 - fixed, v), int(other.ravel()[0])), name))
            return
        unit = Fraction(twice) / (1 << left)
        part = _scaled(c, x, partial(scaled, 1 - fixed), factors[1 - fixed], unit, f"{name}_a")
        acc = _affine(c, node, part, np.array(one), Fraction(1), other, f"{name}_sum")
    c.put(y, c.requantized(node, acc, y, [out], clamp, name))


def _operands(c: Context, node: Node) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The two inputs, one of which may be a constant, and the output."""
    found = [t for t in node.inputs[:2] if t is not None]
    computed = [k for k, t in enumerate(found) if t.data is None]
    if len(found) != 2 or not computed:
        raise UnsupportedError(node.where, "must have two inputs, one of them computed at least", "fold constants")
    for k in computed:
        c.input(node, k)
    y = c.output(node)
    for t in found:
        usable(node, t)
        if t.type != y.type:
            raise UnsupportedError(node.where, f"makes {y.type} of {t.type}, must be one type")
    try:
        shape = np.broadcast_shapes(*(t.shape for t in found))
    except ValueError:
        shape = ()
    same_size(node, y, shape)
    return (found[0], found[1]), y


def _scaled(
    c: Context, x: types.Tensor, function: Callable[[int], int], factor: Factor, unit: Fraction, name: str
) -> types.Tensor:
    """(x - zero point) * 2**left * factor with TFLM's two roundings, which `function` says of one integer."""
    ends = function(x.qtype.min), function(x.qtype.max)
    wide = QType(*bits_for(*ends, True), unit)
    if x.qtype.bits == 8:
        return c.table(wide, x, function, name)
    # 16 bits: 2**15 * multiplier / 2**31 with halves up, then the rest of the shift with halves away from zero
    ends = high_mul(x.qtype.min << 15, factor.multiplier), high_mul(x.qtype.max << 15, factor.multiplier)
    once = QType(*bits_for(*ends, True), unit / (1 << -factor.exponent))
    made = c.b.requantize(x, once, [factor.multiplier], [0], [16], Rounding.HALF_UP, name)
    if not factor.exponent:
        return made
    return c.b.requantize(made, wide, [1], [0], [-factor.exponent], Rounding.HALF_AWAY, name)


def _same_rank(c: Context, a: types.Tensor, b: types.Tensor, name: str) -> tuple[types.Tensor, types.Tensor]:
    rank = max(len(a.shape), len(b.shape))
    grown = [(1,) * (rank - len(t.shape)) + t.shape for t in (a, b)]
    return c.b.reshape(a, grown[0], f"{name}_a_axes"), c.b.reshape(b, grown[1], f"{name}_b_axes")


def _affine(
    c: Context, node: Node, x: types.Tensor, weight: np.ndarray, unit: Fraction, bias: np.ndarray | None, name: str
) -> types.Tensor:
    """(x - zero point) * weight + bias with constants of x's shape or less: a depthwise convolution of 1x1.

    A constant that differs along the last axis alone has an entry for each channel, any other one for each element."""
    given = [
        v if v.ndim <= len(x.shape) else v.reshape(v.shape[-len(x.shape) :])
        for v in (weight, bias)
        if v is not None and _fits(node, v, x)
    ]
    over = [np.broadcast_to(v, x.shape) for v in given]
    channels = x.shape[-1] if all(prod(v.shape[:-1]) == 1 for v in given) else prod(x.shape)
    columns = [v.reshape(-1, channels)[0] for v in over]
    kernel = c.b.const(f"{name}_weight", columns[0].reshape(1, 1, channels), unit, signed=True)
    offset = None if bias is None else c.b.const(f"{name}_bias", columns[1], x.qtype.scales[0] * unit, signed=True)
    flat = c.b.reshape(x, (1, prod(x.shape) // channels, channels), f"{name}_in")
    return c.b.reshape(c.b.depthwise_conv2d(flat, kernel, offset, name), x.shape, f"{name}_out")


def _fits(node: Node, constant: np.ndarray, x: types.Tensor) -> bool:
    """Whether a constant repeats to the shape of x; where it is larger, refused."""
    beyond = prod(constant.shape[: max(constant.ndim - len(x.shape), 0)])
    pairs = zip(constant.shape[::-1], x.shape[::-1], strict=False)
    if beyond != 1 or any(m not in (1, n) for m, n in pairs):
        raise UnsupportedError(node.where, "its constant is larger than its input", "repeat the input before it")
    return True


def mul(c: Context, node: Node) -> None:
    tensors, y = _operands(c, node)
    name, clamp = clean(y.name), activation(node, y)
    factor = quantize_multiplier(node, float(tensors[0].scale) * float(tensors[1].scale) / float(y.scale))
    fixed = next((t for t in tensors if t.data is not None), None)
    if fixed is None:
        pair = _same_rank(c, c.values[tensors[0].index], c.values[tensors[1].index], name)
        acc = c.b.multiply(*pair, f"{name}_product")
    else:
        given = next(t for t in tensors if t.data is None)
        assert fixed.data is not None
        x, other = c.values[given.index], fixed.data.astype(np.int64) - fixed.zero_point
        if other.size == 1 and y.type == "int8":
            by = int(other.ravel()[0])
            c.put(
                y,
                c.table(
                    qtype(y),
                    x,
                    lambda v: clamped(y.zero_point + multiply((v - given.zero_point) * by, factor), clamp),
                    name,
                ),
            )
            return
        acc = _affine(c, node, x, other, fixed.fraction, None, f"{name}_product")
    c.put(y, c.requantized(node, acc, y, [factor], clamp, name))


# --- of one value ----------------------------------------------------------------------------------------------------


def relu(c: Context, node: Node) -> None:
    """Rescaled to the output's scale, not below its zero."""
    x, data = c.input(node)
    y = c.same_type(node, x)
    same_shape(node, x, y)
    factor = quantize_multiplier(node, float(x.scale) / float(y.scale))
    _rescaled(c, node, x, data, y, factor, (max(LIMITS[y.type][0], y.zero_point), LIMITS[y.type][1]))


def relu6(c: Context, node: Node) -> None:
    """A clamp of the stored integers by the input's scale, whatever the output's is."""
    x, data = c.input(node)
    y = c.same_type(node, x)
    same_shape(node, x, y)
    six = clamped(x.zero_point + half_away(np.float32(6) / x.scale), LIMITS[x.type])
    name = clean(y.name)
    c.put(y, c.b.requantize(data, qtype(y), [1], [0], [0], Rounding.FLOOR, name, (min(x.zero_point, six), six)))


def quantize(c: Context, node: Node) -> None:
    """From one scale to another."""
    x, data = c.input(node, 0, ("int8", "uint8", "int16"))
    y = c.output(node, 0, ("int8", "uint8", "int16"))
    same_shape(node, x, y)
    if (x.type, y.type) not in {
        ("int8", "int8"),
        ("int8", "uint8"),
        ("uint8", "int8"),
        ("int8", "int16"),
        ("int16", "int8"),
        ("int16", "int16"),
    }:
        raise UnsupportedError(node.where, f"makes {y.type} of {x.type}, which TensorFlow Lite Micro does not")
    _rescaled(c, node, x, data, y, quantize_multiplier(node, float(x.scale) / float(y.scale)), LIMITS[y.type])


def _rescaled(
    c: Context, node: Node, x: Tensor, data: types.Tensor, y: Tensor, factor: Factor, clamp: tuple[int, int]
) -> None:
    name = clean(y.name)
    if factor == IDENTITY:  # the integers themselves, moved to the other zero point
        moved = [y.zero_point - x.zero_point]
        c.put(y, c.b.requantize(data, qtype(y), [1], moved, [0], Rounding.FLOOR, name, clamp))
    elif x.type == "int16":
        c.put(y, c.requantized(node, data, y, [factor], clamp, name))
    else:
        c.put(
            y,
            c.table(qtype(y), data, lambda v: clamped(y.zero_point + multiply(v - x.zero_point, factor), clamp), name),
        )


def leaky_relu(c: Context, node: Node) -> None:
    x, data = c.input(node)
    y = c.same_type(node, x)
    same_shape(node, x, y)
    alpha = np.float32(node.options["alpha"])
    if not 0 <= alpha < np.inf:
        raise UnsupportedError(node.where, f"alpha is {alpha:g}, must be 0 or more", "export another activation")
    ratio = float(x.scale) / float(y.scale)
    above, below = (
        quantize_multiplier(node, ratio),
        quantize_multiplier(node, float(x.scale) * float(alpha) / float(y.scale)),
    )
    name, limits = clean(y.name), LIMITS[y.type]
    if x.type == "int8":

        def function(stored: int) -> int:
            value = stored - x.zero_point
            return clamped(y.zero_point + multiply(value, above if value >= 0 else below), limits)

        c.put(y, c.table(qtype(y), data, function, name))
        return
    positive = c.requantized(node, data, y, [above], (0, limits[1]), f"{name}_above")
    negative = c.requantized(node, data, y, [below], (limits[0], 0), f"{name}_below")
    c.put(y, c.b.requantize(c.b.add(positive, negative, f"{name}_sum"), qtype(y), [1], [0], [0], Rounding.FLOOR, name))


def hard_swish(c: Context, node: Node) -> None:
    """x * relu6(x + 3) / 6 in 16-bit fixed point (reference/hard_swish.h)."""
    x, data = c.input(node, 0, ("int8",))
    y = c.same_type(node, x, ("int8",))
    same_shape(node, x, y)
    fine = float(x.scale) / 128
    out, relu_ish = quantize_multiplier(node, fine / float(y.scale)), quantize_multiplier(node, fine / (3 / 32768))
    if out.exponent > 0:
        raise UnsupportedError(node.where, "its output scale is too fine for its input's", "quantize the model again")
    by_out, by_relu = (clamped(f.multiplier + (1 << 15) >> 16, (0, 0x7FFF)) for f in (out, relu_ish))
    shift, short = relu_ish.exponent, LIMITS["int16"]

    def function(stored: int) -> int:
        value = (stored - x.zero_point) << 7
        gate = clamped(value << max(shift - 1, 0), short)
        gate = high_mul(gate, by_relu, 16)
        gate = clamped(gate << 1, short) if shift > 0 else shift_right(gate, -shift)
        gate = (gate + (1 << 15)) >> 1
        product = gate * high_mul(value, by_out, 16)
        product = abs(product) >> 15 if product >= 0 else -(abs(product) >> 15)  # towards zero
        return clamped(y.zero_point + shift_right(product, -out.exponent), LIMITS["int8"])

    c.put(y, c.table(qtype(y), data, function, clean(y.name)))


def logistic(c: Context, node: Node) -> None:
    if c.input(node)[0].type == "int16":
        return wide.logistic(c, node)
    _fixed(c, node, "int8 with zero point -128", -128, fixedpoint.logistic, 8, -128)


def tanh(c: Context, node: Node) -> None:
    if c.input(node)[0].type == "int16":
        return wide.tanh(c, node)
    _fixed(c, node, "int8", None, fixedpoint.tanh, 7, 0)


def _fixed(
    c: Context, node: Node, must: str, zero: int | None, function: Callable[[int, int], int], bits: int, offset: int
) -> None:
    """A function of the input in Q4, its Q0 result rounded to `bits`; beyond Q4 it is the least or the greatest integer.

    TFLM does not read the output's scale: it makes steps of 1/256 (logistic) and 1/128 (tanh)."""
    x, data = c.input(node, 0, ("int8",))
    y = c.same_type(node, x, ("int8",))
    same_shape(node, x, y)
    if zero is not None and y.zero_point != zero:
        raise UnsupportedError(node.where, f"its output has zero point {y.zero_point}, must be {must}")
    mantissa, exponent = frexp(float(x.scale) * (1 << 27))
    factor = Factor(floor(ldexp(mantissa, 31) + 0.5), exponent)
    if factor.multiplier >= 1 << 31 or not 0 <= exponent <= 31:
        raise UnsupportedError(
            node.where, f"its input has a scale of {x.scale:g}, must be 2**-27 to 16", "quantize again"
        )
    radius = (15 << 27) >> exponent

    def stored(value: int) -> int:
        value -= x.zero_point
        if abs(value) >= radius:
            return LIMITS["int8"][value > 0]
        found = function(multiply(value, factor), 4)
        return clamped(shift_right(found, 31 - bits) + offset, LIMITS["int8"])

    c.put(y, c.table(qtype(y), data, stored, clean(y.name)))
