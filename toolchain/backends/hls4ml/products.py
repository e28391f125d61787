"""Dense and convolutions as hls4ml's layers. Its one rule: padding is a layer of its own, so every window lies inside its input.

A zero point is subtracted from the bias: sum((x - z) * w) = sum(x * w) - z * sum(w). Groups, dilation and several outputs for each
channel of a depthwise convolution, which hls4ml has not, become zeros in the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.ir import ops
from toolchain.ir.ops import where

from .builder import Builder, Shape, Value
from .layers import Int
from .moves import every, pad

EXACT_DOUBLE = 1 << 53  # hls4ml keeps constants as doubles


def dense(b: Builder, op: ops.Dense, x: Value) -> Value:
    weight = op.weight.array.T.astype(object)  # [in, out]
    if len(x.shape) == 1:
        attributes = {"n_in": weight.shape[0], "n_out": weight.shape[1]}
        return _mac(b, op, "Dense", x, attributes, weight, weight.sum(axis=0))
    spatial = x.shape[:-1]  # the same sums at every position: a convolution by 1
    one = (1,) * len(spatial)
    attributes = _window_attributes(x.shape, one, one, op.output.shape)
    kernel = weight.reshape(*one, *weight.shape)
    return _mac(b, op, f"Conv{len(spatial)}D", x, attributes, kernel, weight.sum(axis=0))


def conv(b: Builder, op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D, x: Value) -> Value:
    if any(v for pair in op.padding for v in pair):  # outside the input a term is 0: the stored zero point
        x = pad(b, x, (*op.padding, (0, 0)), op.input.qtype.zero_point, "pad")
    strides = op.strides
    if b.stream and len(strides) == 2 and strides[0] > 1 and _height(op) == 1:
        # hls4ml's streaming convolution is wrong for windows of one row that skip rows: the rows go first
        x, strides = every(b, x, (strides[0], 1), "rows"), (1, strides[1])
    plain = isinstance(op, ops.DepthwiseConv2D) and op.output.channels == op.input.channels and op.dilation == (1, 1)
    # for arrays, hls4ml's depthwise kernel has no form for strategy Resource: an assert(false), nothing at all in a circuit
    if plain and b.depthwise and (b.stream or op.output.name not in b.shared):
        weight = op.weight.array.astype(object)[..., None]  # [kh, kw, channels, 1]
        attributes = _window_attributes(x.shape, weight.shape[:2], strides, op.output.shape) | {"depth_multiplier": 1}
        return _mac(b, op, "DepthwiseConv2D", x, attributes, weight, weight.sum(axis=(0, 1, 3)))
    weight = _whole(op)
    attributes = _window_attributes(x.shape, weight.shape[:-2], strides, op.output.shape)
    sums = weight.sum(axis=tuple(range(weight.ndim - 1)))
    return _mac(b, op, f"Conv{len(strides)}D", x, attributes, weight, sums)


def _height(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D) -> int:
    return op.weight.tensor.shape[0 if isinstance(op, ops.DepthwiseConv2D) else 1]


def _whole(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D) -> Any:
    """[*kernel, in, out] of Python integers: zeros between dilated taps and outside a group."""
    if isinstance(op, ops.DepthwiseConv2D):
        groups, per_group = op.input.channels, 1
        given = op.weight.array.transpose(2, 0, 1)[..., None]  # [out, kh, kw, 1]
    else:
        groups, per_group, given = op.groups, op.weight.tensor.shape[-1], op.weight.array
    out, kernel = given.shape[0], given.shape[1:-1]
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, op.dilation, strict=True))
    whole = np.zeros((*reach, op.input.channels, out), dtype=object)
    taps = tuple(slice(None, None, d) for d in op.dilation)
    for o in range(out):
        first = o // (out // groups) * per_group
        row: Any = whole[..., first : first + per_group, o]
        row[taps] = given[o]
    return whole


def _window_attributes(shape: Shape, kernel: Shape, strides: Shape, out: Shape) -> dict[str, Any]:
    """hls4ml's attributes of a convolution whose windows lie inside [*spatial, channels]."""
    axes = ("height", "width")[-len(kernel) :]
    found: dict[str, Any] = {"data_format": "channels_last", "padding": "valid", "n_chan": shape[-1], "n_filt": out[-1]}
    for axis, n, k, s, m in zip(axes, shape, kernel, strides, out, strict=False):
        found |= {f"in_{axis}": n, f"filt_{axis}": k, f"stride_{axis}": s, f"out_{axis}": m, f"dilation_{axis}": 1}
    sides = ("top", "bottom", "left", "right")[-2 * len(kernel) :]
    return found | {f"pad_{side}": 0 for side in sides}


def _mac(
    b: Builder, op: ops.Mac, class_name: str, x: Value, attributes: dict[str, Any], weight: Any, sums: Any
) -> Value:
    bias = np.array([0] * op.output.channels if op.bias is None else op.bias.array.tolist(), dtype=object)
    bias = bias - op.input.qtype.zero_point * sums
    types = {"weight": _weight_type(weight), "bias": Int.holding(int(bias.min()), int(bias.max()), True)}
    for name, values in (("weights", weight), ("biases", bias)):
        if max(abs(int(values.min())), abs(int(values.max()))) >= EXACT_DOUBLE:
            what = f"has {name} of 2**53 and more, which hls4ml keeps as doubles and would round"
            raise UnsupportedError(where(op), what, "quantize the model to fewer bits")
    result = Int.of(op.output.qtype)
    key = "depthwise_data" if class_name.startswith("Depthwise") else "weight_data"
    # hls4ml prints arrays through doubles, which hold these exactly
    given = attributes | {key: weight.astype(np.float64), "bias_data": bias.astype(np.float64)}
    return b.add(class_name, [x], op.output.shape, result, attributes=given, types=types | {"accum": result})


def _weight_type(weight: Any) -> Int:
    """hls4ml multiplies by an int<2> as by -1, 0, 1, without a multiplier: right for those three and wrong for -2."""
    found = Int.holding(int(weight.min()), int(weight.max()), True)
    return Int(3, True) if found.bits == 2 and int(weight.min()) < -1 else Int(max(found.bits, 2), True)
