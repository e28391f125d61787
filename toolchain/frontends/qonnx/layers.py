"""Sums of products, BatchNormalization, elementwise operators and functions: one function an operator, in one table.

Its one rule: an attribute that changes the meaning is carried out or refused by name; none is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.layouts import (
    SOFTMAX,
    Data,
    Function,
    broadcast,
    channels_last,
    columns,
    flat,
    fractions,
    linear,
    raised,
    settled,
    settled_exact,
    several_columns,
)
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.geometry import same_padding
from toolchain.ir.types import Const
from toolchain.ir.values import ONE, ZERO, Value, affine, align, clip, gcd, shorten, spread

MAX_WEIGHT_BITS = 24  # of weights that no quantizer made but that lie on a grid
ROOT_BITS = 160  # of 1 / sqrt(variance): beyond any edge that a file's float32 numbers can come near to


@dataclass
class Context:
    b: GraphBuilder
    notes: list[str]
    before: dict[str, Data] = field(default_factory=dict)  # tensor that a quantizer made -> what it rounded


Inputs = Sequence[Data | Constant | None]
Lower = Callable[[Context, Node, Inputs, str], Data]


def data_of(node: Node, inputs: Inputs, index: int = 0) -> Data:
    """The input that must be data."""
    found = inputs[index] if index < len(inputs) else None
    if not isinstance(found, Data):
        raise UnsupportedError(
            node.where, f"input {index} is a constant or missing, must be computed from the model's input"
        )
    return found


def constants(inputs: Inputs) -> list[Constant | None]:
    return [x if isinstance(x, Constant) else None for x in inputs]


def constant_of(node: Node, inputs: Inputs, index: int, what: str) -> np.ndarray:
    """The finite values of an input that must be constant."""
    return quant.known(node, constants(inputs), index, what)


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


# --- sums of products ------------------------------------------------------------------------------------------------


def _weight(node: Node, w: Constant, axis: int) -> tuple[np.ndarray, tuple[Fraction, ...]]:
    """Integers in the constant's own layout but with `axis` (of outputs) first, and what one is worth: one, or one an output."""
    codes, scale = w.codes, w.scale
    if codes is not None and scale is not None:
        moved, steps = np.moveaxis(codes, axis, 0), np.moveaxis(np.broadcast_to(scale, codes.shape), axis, 0)
        rows = steps.reshape(len(steps), -1)
        if (rows == rows[:, :1]).all():
            return moved, fractions(rows[:, 0])
        exact = [[Fraction(s) * int(k) for s, k in zip(*row, strict=True)] for row in zip(rows.tolist(), moved.reshape(rows.shape).tolist(), strict=True)]  # fmt: skip
    else:
        moved = np.moveaxis(np.asarray(constant(node, w, "weight"), np.float64), axis, 0)
        exact = [[Fraction(v) for v in row] for row in moved.reshape(len(moved), -1).tolist()]
    steps_of = [gcd(row) for row in exact]
    whole = [[int(v / s) for v in row] for row, s in zip(exact, steps_of, strict=True)]
    most = max(abs(v) for row in whole for v in row)
    if most.bit_length() >= MAX_WEIGHT_BITS:
        raise UnsupportedError(
            node.where,
            f"its weight has no quantizer and needs {most.bit_length() + 1} bits as integers, at most {MAX_WEIGHT_BITS}",
            "quantize the weight (Quant, or QuantizeLinear and DequantizeLinear)",
        )
    return np.array(whole).reshape(moved.shape), shorten(steps_of)


def constant(node: Node, found: Constant, what: str) -> np.ndarray:
    return quant.known(node, [found], 0, what)


def reals(node: Node, found: Constant, what: str) -> np.ndarray:
    """Exact rationals of a constant as an object array: codes times scale where it has codes."""
    if found.codes is None or found.scale is None:
        value = np.asarray(constant(node, found, what), np.float64)
        return np.array([Fraction(v) for v in value.ravel().tolist()], dtype=object).reshape(value.shape)
    scale = np.broadcast_to(found.scale, found.codes.shape)
    pairs = zip(found.codes.ravel().tolist(), scale.ravel().tolist(), strict=True)
    return np.array([int(k) * Fraction(s) for k, s in pairs], dtype=object).reshape(found.codes.shape)


def _bias(node: Node, inputs: Inputs, index: int, outputs: int, factor: Fraction = ONE) -> list[Fraction]:
    """A bias as exact rationals, one for each output; empty where there is none."""
    if index >= len(inputs) or (inputs[index] is None and (len(node.inputs) <= index or not node.inputs[index])):
        return []
    found = inputs[index]
    if not isinstance(found, Constant):
        raise UnsupportedError(node.where, "its bias is computed from data, must be a constant of the file")
    exact = reals(node, found, "bias")
    if exact.shape not in ((), (1,), (1, 1), (outputs,), (1, outputs)):
        raise UnsupportedError(
            node.where, f"a bias {list(exact.shape)} for {outputs} outputs", "give one for each output"
        )
    return [factor * x for x in (exact.ravel().tolist() * outputs if exact.size == 1 else exact.ravel().tolist())]


def _product(c: Context, x: Any, factor: Fraction, worth: Sequence[Fraction], bias: Sequence[Fraction], name: str,
             make: Callable[[Const | None], Any]) -> Value:  # fmt: skip
    """The accumulator, with the bias in it where its unit can hold it, else pending."""
    if any(bias) and factor:
        scales = x.qtype.scales
        times = len(bias) // len(scales)  # a depthwise input may have a scale for each channel
        each = [factor * s * w for s, w in zip((s for s in scales for _ in range(times)), spread(worth, len(bias)), strict=True)]  # fmt: skip
        whole = [v / u for v, u in zip(bias, each, strict=True)]
        if all(v.denominator == 1 and abs(v) < 1 << 40 for v in whole):
            made = c.b.const(f"{name}_bias", [int(v) for v in whole], [abs(u) / abs(factor) for u in each], 0)
            return Value(make(made), (factor,))
    return Value(make(None), (factor,), shorten(bias) if any(bias) else (ZERO,))


def _spatial(node: Node, key: str, rank: int, default: int = 1) -> tuple[int, ...]:
    found = node.attributes.get(key)
    given = tuple(int(v) for v in found) if found is not None else (default,) * rank
    if len(given) != rank:
        raise UnsupportedError(node.where, f"{key} {list(given)} for {rank} spatial axes", "export the model again")
    return given


def padding_of(
    node: Node, shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial axis: auto_pad or pads."""
    auto = str(node.attributes.get("auto_pad") or "NOTSET")
    rank = len(kernel)
    if auto == "VALID":
        return ((0, 0),) * rank
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [same_padding(n, k, s, d) for n, k, s, d in zip(shape, kernel, strides, dilation, strict=False)]
        return tuple((b, a) if auto == "SAME_UPPER" else (a, b) for b, a in pads)
    if auto != "NOTSET":
        raise UnsupportedError(node.where, f"auto_pad {auto!r}", "use NOTSET, SAME_UPPER, SAME_LOWER or VALID")
    given = [int(p) for p in node.attributes.get("pads") or [0] * 2 * rank]
    if len(given) != 2 * rank or min(given) < 0:
        raise UnsupportedError(node.where, f"pads {given}", f"give {2 * rank} of them, none negative")
    return tuple(zip(given[:rank], given[rank:], strict=True))


def _conv(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d, w = data_of(node, inputs), inputs[1]
    if not isinstance(w, Constant):
        raise UnsupportedError(node.where, "its weight is computed from data, must be a constant of the file")
    rank = w.value.ndim - 2
    if rank not in (1, 2) or len(d.shape) != rank + 1:
        raise UnsupportedError(node.where, f"{rank} spatial axes on {[1, *d.shape]}", "one or two are supported")
    d = settled(c.b, d, channels_last(rank + 1), name, node.where)
    groups, outputs = int(node.attributes.get("group", 1)), w.value.shape[0]
    depthwise = rank == 2 and groups == d.shape[0] and w.value.shape[1] == 1 and groups > 1
    d, factor = _factor(c, d, name, node.where, depthwise)
    x = d.tensor
    weight, worth = _weight(node, w, 0)  # [out, in / groups, k...]
    kernel = w.value.shape[2:]
    if (said := node.attributes.get("kernel_shape")) and tuple(said) != kernel:
        raise UnsupportedError(
            node.where, f"kernel_shape {list(said)} with the weight {list(w.value.shape)}", "export again"
        )
    strides, dilation = _spatial(node, "strides", rank), _spatial(node, "dilations", rank)
    pad = padding_of(node, x.shape, kernel, strides, dilation)
    if depthwise:
        taps = c.b.const(f"{name}_weight", np.moveaxis(weight[:, 0], 0, -1), worth, 2, signed=True)
    else:
        taps = c.b.const(f"{name}_weight", np.moveaxis(weight, 1, -1), worth, 0, signed=True)

    def make(bias: Const | None) -> Any:
        if depthwise:
            return c.b.depthwise_conv2d(x, taps, bias, name, strides, dilation, pad)
        op = c.b.conv1d if rank == 1 else c.b.conv2d
        return op(x, taps, bias, name, strides, dilation, pad, groups)

    v = _product(c, x, factor, worth, _bias(node, inputs, 2, outputs), name, make)
    shape = (outputs, *v.shape[:-1])
    return Data(v, shape, channels_last(rank + 1), shape)


def _factor(c: Context, d: Data, name: str, where: str, channels_apart: bool) -> tuple[Data, Fraction]:
    v = d.value
    if channels_apart and d.function is None and v.plain:
        return d, ONE  # each channel is summed alone, so each may have its own scale
    return linear(c.b, d, f"{name}_in", where)


def _gemm(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    f = node.attributes
    if int(f.get("transA", 0)):
        raise UnsupportedError(node.where, "transA", "transpose the weight instead")
    alpha, beta = quant.number(node, "alpha", 1.0), quant.number(node, "beta", 1.0)
    return _dense(c, node, inputs, name, int(f.get("transB", 0)), alpha, beta)


def _matmul(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    return _dense(c, node, inputs, name, 0, ONE, ZERO)


def _dense(c: Context, node: Node, inputs: Inputs, name: str, transposed: int, alpha: Fraction, beta: Fraction) -> Data:
    d, w = data_of(node, inputs), inputs[1]
    if not isinstance(w, Constant):
        raise UnsupportedError(
            node.where, "a product of two data tensors", "one of them must be a constant of the file"
        )
    if w.value.ndim != 2:
        raise UnsupportedError(node.where, f"a weight {list(w.value.shape)}", "give it two axes")
    if not d.shape or d.shape[-1] != w.value.shape[1 if transposed else 0]:
        raise UnsupportedError(
            node.where, f"data {[1, *d.shape]} times weight {list(w.value.shape)}", "their shapes must go together"
        )
    if len(d.shape) == 1:
        d = flat(c.b, d, name, node.where)
    else:
        d = settled(c.b, d, tuple(range(len(d.shape))), name, node.where)
    d, factor = linear(c.b, d, f"{name}_in", node.where)
    weight, worth = _weight(node, w, 0 if transposed else 1)
    ours = weight if len(d.shape) > 1 else weight[:, d.order]
    rows = c.b.const(f"{name}_weight", ours, worth, 0, signed=True)
    bias = _bias(node, inputs, 2, len(ours), beta) if node.op == "Gemm" else []
    v = _product(c, d.tensor, factor * alpha, worth, bias, name, lambda made: c.b.dense(d.tensor, rows, made, name))
    shape = (*d.shape[:-1], len(ours))
    return Data(v, shape, tuple(range(len(shape))), shape)


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
            "leave it out of the model or of its quantization" if d.function.kind in SOFTMAX else "quantize its output"
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


TABLE: dict[str, Lower] = {
    "Quant": _quantize, "BipolarQuant": _quantize, "QuantizeLinear": _quantize_linear, "DequantizeLinear": _dequantize,
    "Trunc": _truncate, "MultiThreshold": _multi_threshold, "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul,
    "BatchNormalization": _batch_norm, "Add": _binary, "Sub": _binary, "Mul": _binary, "Div": _binary, "Neg": _neg,
    "Relu": _relu, "Clip": _clip, "LeakyRelu": _leaky, "PRelu": _leaky, "Sigmoid": _curve, "Tanh": _curve,
    "HardSigmoid": _hard_sigmoid, "Identity": _same, "Dropout": _same,
}  # fmt: skip
