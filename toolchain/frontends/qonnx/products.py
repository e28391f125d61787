"""Sums of products: Conv, Gemm, MatMul, with their weights and biases as integers.

Its one rule: a bias that the accumulator's unit can hold is in it, any other waits for the next quantizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.context import Context, Inputs, Lower, constant, data_of, reals
from toolchain.frontends.qonnx.layouts import Data, channels_last, flat, fractions, linear, plain, settled
from toolchain.ir.geometry import same_padding
from toolchain.ir.types import Const
from toolchain.ir.values import ONE, ZERO, Value, gcd, shorten, spread

MAX_WEIGHT_BITS = 24  # of weights that no quantizer made but that lie on a grid


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
    return plain(v, (*d.shape[:-1], len(ours)))


PRODUCTS: dict[str, Lower] = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
