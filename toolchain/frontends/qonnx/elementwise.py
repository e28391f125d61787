"""Quantizers, BatchNormalization, elementwise operators and functions: one function an operator, in one table.

Its one rule: an attribute that changes the meaning is carried out or refused by name; none is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.context import Context, Inputs, Lower, constant_of, constants, data_of, reals
from toolchain.frontends.qonnx.layouts import (
    Data,
    Function,
    broadcast,
    columns,
    fractions,
    linear,
    raised,
    settled,
    settled_exact,
    several_columns,
)
from toolchain.ir.values import ONE, ZERO, Value, affine, align, clip, shorten

ROOT_BITS = 160  # of 1 / sqrt(variance): beyond any edge that a file's float32 numbers can come near to


# --- quantizers ------------------------------------------------------------------------------------------------------


def _quantize(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    q = quant.of_node(node, constants(inputs), len(d.shape) + 1)
    return _remembered(c, d, quant.apply(c.b, d, q, name, node.where))


def _quantize_linear(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    """The integer itself, as ONNX says: the codes, and pending on them real / scale + zero point."""
    d = data_of(node, inputs)
    q = quant.of_node(node, constants(inputs), len(d.shape) + 1)
    made = _remembered(c, d, quant.apply(c.b, d, q, name, node.where, after=True))
    made, (scale, zero) = several_columns(c.b, made, (q.scale, q.zero_point), name, node.where)
    slopes = tuple(1 / s for s in fractions(scale))
    return made.with_value(affine(c.b, made.value, slopes, fractions(zero), name, node.where))


def _remembered(c: Context, before: Data, made: Data) -> Data:
    if made.tensor is not before.tensor:
        c.before.setdefault(made.tensor.name, before)
    return made


def _dequantize(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    return quant.dequantize(c.b, data_of(node, inputs), node, constants(inputs), name)


def _truncate(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    return _remembered(c, d, quant.truncate(c.b, d, node, constants(inputs), name))


def _multi_threshold(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    rows = constant_of(node, inputs, 1, "thresholds")
    return _remembered(c, d, quant.multi_threshold(c.b, d, node, rows, name))


def inverse_root(v: Fraction) -> Fraction:
    """1 / sqrt(v): exact where it is rational, else to ROOT_BITS bits."""
    n, d = v.denominator, v.numerator
    if math.isqrt(n) ** 2 == n and math.isqrt(d) ** 2 == d:
        return Fraction(math.isqrt(n), math.isqrt(d))
    shift = ROOT_BITS + max(d.bit_length() - n.bit_length(), 0)
    return Fraction(math.isqrt((n << 2 * shift) // d), 1 << shift)


def _batch_norm(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    if int(node.attributes.get("training_mode", 0)):
        raise UnsupportedError(node.where, "training_mode 1", "export the model in eval mode")
    if any(node.outputs[1:]):
        raise UnsupportedError(node.where, "more outputs than one, as in training", "export the model in eval mode")
    epsilon = quant.number(node, "epsilon", 1e-5)
    given = [constant_of(node, inputs, i + 1, what) for i, what in enumerate(("scale", "bias", "mean", "variance"))]
    size = d.shape[0] if d.shape else 0
    if any(v.shape != (size,) for v in given):
        raise UnsupportedError(
            node.where, f"parameters {[list(v.shape) for v in given]} for {size} channels", "export the model again"
        )
    index = np.arange(size, dtype=np.float64).reshape(size, *[1] * (len(d.shape) - 1))
    d, order = columns(c.b, d, index, name, node.where)
    gamma, beta, mean, var = ([Fraction(x) for x in v.astype(np.float64).tolist()] for v in given)
    if any(v + epsilon <= 0 for v in var):
        raise UnsupportedError(
            node.where, f"a variance of {float(min(var)):g}", "it must be positive; train the model again"
        )
    slope = [g * inverse_root(v + epsilon) for g, v in zip(gamma, var, strict=True)]
    intercept = [b - m * s for b, m, s in zip(beta, mean, slope, strict=True)]
    at = order.astype(int).tolist()
    return _affine(c, node, d, [slope[i] for i in at], [intercept[i] for i in at], name)


# --- elementwise -----------------------------------------------------------------------------------------------------


def _affine(
    c: Context, node: Node, d: Data, slope: Sequence[Fraction], intercept: Sequence[Fraction], name: str
) -> Data:
    return d.with_value(affine(c.b, d.value, shorten(slope), shorten(intercept), name, node.where))


def _with_constant(c: Context, node: Node, d: Data, k: Constant, name: str, swapped: bool) -> Data:
    """Add, Sub, Mul or Div of data and a constant (`swapped`: the constant comes first)."""
    exact = reals(node, k, "constant")
    d = raised(d, exact.ndim)
    if exact.size == 1:
        values = [exact.ravel()[0]]
    else:
        over = broadcast(d, np.arange(exact.size).reshape(exact.shape))
        if over is None:
            raise UnsupportedError(
                node.where, f"a constant {list(exact.shape)} widens the tensor {[1, *d.shape]}", "repeat it"
            )
        _, group = np.unique(exact.ravel(), return_inverse=True)  # equal values count as one, wherever they lie
        d, at = columns(c.b, d, group.astype(np.float64)[over], name, node.where)
        distinct = {int(g): v for g, v in zip(group.tolist(), exact.ravel().tolist(), strict=True)}
        values = [distinct[int(i)] for i in at]
    match node.op:
        case "Add":
            return _affine(c, node, d, [ONE], values, name)
        case "Sub":
            return (
                _affine(c, node, d, [-ONE], values, name)
                if swapped
                else _affine(c, node, d, [ONE], [-v for v in values], name)
            )
        case "Mul":
            return _affine(c, node, d, values, [ZERO], name)
        case _:
            if swapped or not all(values):
                raise UnsupportedError(node.where, "division by data or by 0", "divide data by a constant")
            return _affine(c, node, d, [1 / v for v in values], [ZERO], name)


def _binary(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    x, y = inputs[0], inputs[1]
    if isinstance(x, Constant) or isinstance(y, Constant):
        d, k = (x, y) if isinstance(x, Data) else (y, x)
        assert isinstance(d, Data) and isinstance(k, Constant)
        return _with_constant(c, node, d, k, name, swapped=isinstance(x, Constant))
    assert isinstance(x, Data) and isinstance(y, Data)
    if node.op == "Div":
        raise UnsupportedError(node.where, "a quotient of two data tensors", "divide data by a constant")
    if len(x.shape) != len(y.shape):
        raise UnsupportedError(
            node.where, f"shapes {[1, *x.shape]} and {[1, *y.shape]}", "give them the same number of axes"
        )
    if (x.base, x.axes, x.shape, x.tensor.shape) != (y.base, y.axes, y.shape, y.tensor.shape):
        axes = x.axes if x.base == x.shape else y.axes if y.base == y.shape else tuple(range(len(x.shape)))
        x, y = settled(c.b, x, axes, f"{name}_a", node.where), settled(c.b, y, axes, f"{name}_b", node.where)
    if node.op == "Mul":
        (x, fx), (y, fy) = linear(c.b, x, f"{name}_a", node.where), linear(c.b, y, f"{name}_b", node.where)
        v = Value(c.b.multiply(x.tensor, y.tensor, name), (fx * fy,))
    else:
        a, b = align(c.b, (x.value, y.value), name, node.where)
        v = Value(c.b.add(a, b, name) if node.op == "Add" else c.b.sub(a, b, name))
    shape = tuple(max(m, n) for m, n in zip(x.shape, y.shape, strict=True))
    base = shape if x.base == x.shape else x.base
    return Data(v, base, x.axes, shape)


def _neg(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    return _affine(c, node, data_of(node, inputs), [-ONE], [ZERO], name)


def _same(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    if node.op == "Dropout" and len(inputs) > 2 and node.inputs[2]:
        ratio = constant_of(node, inputs, 1, "ratio").any() if node.inputs[1] else True
        if ratio and constant_of(node, inputs, 2, "training mode").any():
            raise UnsupportedError(
                node.where, "drops values at random (training_mode)", "export the model in eval mode"
            )
    return data_of(node, inputs)


def _relu(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    return d.with_value(clip(d.value, ZERO, None))


def _clip(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    def bound(index: int, key: str) -> Fraction | None:
        if index < len(inputs) and node.inputs[index]:
            found = np.asarray(quant.known(node, constants(inputs), index, key), np.float64)
        elif key in node.attributes:
            found = np.asarray(node.attributes[key], np.float32).astype(np.float64)
        else:
            return None
        if found.size != 1:
            raise UnsupportedError(
                node.where, f"its {key} has the shape {list(found.shape)}, must be one value", "export again"
            )
        if np.isnan(found).any():
            raise UnsupportedError(node.where, f"its {key} is NaN", "export the model again")
        return None if abs(float(found.ravel()[0])) > 1e38 else Fraction(float(found.ravel()[0]))

    d = data_of(node, inputs)
    return d.with_value(clip(d.value, bound(1, "min"), bound(2, "max")))


def _leaky(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    if node.op == "PRelu":
        d, slope = columns(c.b, d, constant_of(node, inputs, 1, "slope"), name, node.where)
        alpha = fractions(slope)
    else:
        alpha = (quant.number(node, "alpha", 0.01),)
    if min(alpha) < 0:
        raise UnsupportedError(
            node.where, f"a slope of {float(min(alpha)):g}, which is not monotone", "use a slope of 0 or more"
        )
    return _pending(c, node, d, Function("leaky", alpha), name)


def _curve(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    return _pending(c, node, data_of(node, inputs), Function(node.op.lower()), name)


def _pending(c: Context, node: Node, d: Data, function: Function, name: str) -> Data:
    if d.value.lo is not None or d.value.hi is not None:
        d = settled_exact(c.b, d, name, node.where)
    return replace(d, function=function)


def _hard_sigmoid(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    alpha, beta = quant.number(node, "alpha", 0.2), quant.number(node, "beta", 0.5)
    d = _affine(c, node, data_of(node, inputs), [alpha], [beta], name)
    return d.with_value(clip(d.value, ZERO, ONE))


def carried_out(c: Context, node: Node, d: Data, name: str) -> Data:
    """Data whose pending function no quantizer follows: a leaky one of slope a, on one grid.

    That is a * x + max((1 - a) * x, 0) for a up to 1, x + min((a - 1) * x, 0) beyond.
    """
    if d.function is None:
        return d
    if d.function.kind != "leaky":
        what = (
            "leave it out of the model or of its quantization"
            if "softmax" in d.function.kind
            else "quantize its output"
        )
        raise UnsupportedError(node.where, f"reads {d.function.kind}, which no quantizer of integers follows", what)
    slope, v = d.function.slope, d.value
    if set(slope) == {ONE}:
        return replace(d, function=None)

    def times(factors: tuple[Fraction, ...]) -> Value:
        return affine(c.b, v, shorten(factors), (ZERO,), name, node.where)

    parts = [times(tuple(min(a, ONE) for a in slope))]
    if min(slope) < 1:
        parts.append(clip(times(tuple(max(1 - a, ZERO) for a in slope)), ZERO, None))
    if max(slope) > 1:
        parts.append(clip(times(tuple(max(a - 1, ZERO) for a in slope)), None, ZERO))
    found, *more = align(c.b, parts, name, node.where)
    for part in more:
        found = c.b.add(found, part, f"{name}_leaky")
    return replace(d, value=Value(found), function=None)


ELEMENTWISE: dict[str, Lower] = {
    "Quant": _quantize, "BipolarQuant": _quantize, "QuantizeLinear": _quantize_linear, "DequantizeLinear": _dequantize,
    "Trunc": _truncate, "MultiThreshold": _multi_threshold,
    "BatchNormalization": _batch_norm, "Add": _binary, "Sub": _binary, "Mul": _binary, "Div": _binary, "Neg": _neg,
    "Relu": _relu, "Clip": _clip, "LeakyRelu": _leaky, "PRelu": _leaky, "Sigmoid": _curve, "Tanh": _curve,
    "HardSigmoid": _hard_sigmoid, "Identity": _same, "Dropout": _same,
}  # fmt: skip
