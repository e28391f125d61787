"""CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED: a sum of products and TFLM's requantize.

Its one rule: the accumulator is exact; 8-bit inputs are requantized with two roundings of a 31-bit multiplier, 16-bit ones with
one rounding of a 16-bit multiplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np
import numpy.typing as npt

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.tflite import schema
from toolchain.frontends.tflite.archive import Node, Tensor
from toolchain.frontends.tflite.arithmetic import Factor, quantize_multiplier
from toolchain.frontends.tflite.context import Context, activation, clean, one_batch, qtype, same_size, usable
from toolchain.frontends.tflite.flatbuffer import AGAIN
from toolchain.ir import types
from toolchain.ir.geometry import out_size, same_padding
from toolchain.ir.ops import Padding, Rounding
from toolchain.ir.types import Const

MAX_REACH = 1 << 12  # of a window along one axis


def conv_2d(c: Context, node: Node) -> None:
    x, data = c.input(node)
    y = c.same_type(node, x)
    weight = _weight(node, 4)
    height, width, channels = one_batch(node, x, 4)
    out, kh, kw, depth = weight.shape
    if channels % depth or out % (channels // depth):
        what = f"weights {list(weight.shape)} do not go with {channels} channels"
        raise ToolchainError(node.where, what, AGAIN)
    strides, dilation, padding = _windows(node, (height, width), (kh, kw))
    _check_output(node, y, (height, width), (kh, kw), strides, dilation, padding, out)
    scales = _scales(node, weight, out, 0)
    name = clean(y.name)
    kernel, bias = _constants(c, node, x, weight, node.constant(1, "weights"), scales, out, 0, name)
    acc = c.b.conv2d(data, kernel, bias, f"{name}_acc", strides, dilation, padding, channels // depth)
    _finish(c, node, x, y, acc, _factors(node, x, y, scales), name)


def depthwise_conv_2d(c: Context, node: Node) -> None:
    x, data = c.input(node)
    y = c.same_type(node, x)
    weight = _weight(node, 4)
    height, width, channels = one_batch(node, x, 4)
    one, kh, kw, out = weight.shape
    if one != 1 or out % channels or out // channels != node.option("depth_multiplier"):
        what = f"weights {list(weight.shape)} and a depth multiplier of {node.option('depth_multiplier')} do not go with {channels} channels"
        raise ToolchainError(node.where, what, AGAIN)
    strides, dilation, padding = _windows(node, (height, width), (kh, kw))
    _check_output(node, y, (height, width), (kh, kw), strides, dilation, padding, out)
    scales = _scales(node, weight, out, 3)
    name = clean(y.name)
    stored = node.constant(1, "weights")[0]
    kernel, bias = _constants(c, node, x, weight, stored, scales, out, 2, name)
    acc = c.b.depthwise_conv2d(data, kernel, bias, f"{name}_acc", strides, dilation, padding)
    _finish(c, node, x, y, acc, _factors(node, x, y, scales), name)


def fully_connected(c: Context, node: Node) -> None:
    x, data = c.input(node)
    y = c.same_type(node, x)
    weight = _weight(node, 2)
    if node.option("weights_format"):
        raise UnsupportedError(node.where, "its weights are stored shuffled", "export with weights_format DEFAULT")
    out, depth = weight.shape
    rows = prod(x.shape) // depth
    if prod(x.shape) % depth or prod(y.shape) != rows * out:
        what = f"weights {list(weight.shape)} do not go with {list(x.shape)} in and {list(y.shape)} out"
        raise ToolchainError(node.where, what, AGAIN)
    scales = _scales(node, weight, out, 0)
    factors = _factors(node, x, y, scales)
    name = clean(y.name)
    shape = (depth,) if rows == 1 else data.shape if data.shape[-1] == depth else (rows, depth)
    kernel, bias = _constants(c, node, x, weight, node.constant(1, "weights"), scales, out, 0, name)
    acc = c.b.dense(c.b.reshape(data, shape, f"{name}_in"), kernel, bias, f"{name}_acc")
    _finish(c, node, x, y, acc, factors, name)


def _weight(node: Node, rank: int) -> Tensor:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None:
        raise ToolchainError(node.where, "has no weights", AGAIN)
    usable_weight(node, weight)
    if len(weight.shape) != rank:
        raise ToolchainError(node.where, f"weights {list(weight.shape)}, must have {rank} axes", AGAIN)
    if any(weight.zero_points):
        raise UnsupportedError(
            node.where, "its weights have a zero point, must have 0", "quantize weights symmetrically"
        )
    return weight


def usable_weight(node: Node, weight: Tensor) -> None:
    if len(weight.scales) == 1:
        usable(node, weight, ("int8",))
    elif weight.flaw or weight.type != "int8" or not weight.scales:
        what = weight.flaw or (f"is {weight.type}" if weight.type != "int8" else "has no scale")
        raise UnsupportedError(
            node.where, f"weights {weight.where}: {what}, must be int8 with scales", "convert with int8 weights"
        )


def _scales(node: Node, weight: Tensor, out: int, axis: int) -> list[np.float32]:
    if len(weight.scales) not in (1, out) or (len(weight.scales) > 1 and weight.axis != axis):
        what = f"has {len(weight.scales)} weight scales along axis {weight.axis}, must be 1, or {out} along axis {axis}"
        raise UnsupportedError(node.where, what, "quantize weights per output channel")
    return list(weight.scales)


def _factors(node: Node, x: Tensor, y: Tensor, scales: Sequence[np.float32]) -> list[Factor]:
    """PopulateConvolutionQuantizationParams: in double throughout."""
    return [quantize_multiplier(node, float(x.scale) * float(s) / float(y.scale)) for s in scales]


def _constants(c: Context, node: Node, x: Tensor, weight: Tensor, stored: npt.NDArray[np.int64], scales: Sequence[np.float32], out: int,
               axis: int, name: str) -> tuple[Const, Const | None]:  # fmt: skip
    """Weights and bias for the graph, the bias on the accumulator's scale, whatever the file says of it."""
    worth = [Fraction(float(s)) for s in scales]
    kernel = c.b.const(f"{name}_weight", stored, worth if len(worth) > 1 else worth[0], axis, signed=True)
    tensor = node.inputs[2] if len(node.inputs) > 2 else None
    if tensor is None:
        return kernel, None
    wanted = ("int32",) if x.type == "int8" else ("int64",)
    if tensor.flaw or tensor.type not in wanted:
        what = f"bias {tensor.where} {tensor.flaw or f'is {tensor.type}'}, must be {' or '.join(wanted)}"
        raise UnsupportedError(node.where, what, "convert with the converter's own bias type")
    bias = node.constant(2, "bias")
    if bias.shape != (out,):
        raise ToolchainError(node.where, f"bias {list(bias.shape)}, must be [{out}]", AGAIN)
    unit = [w * x.fraction for w in worth]
    return kernel, c.b.const(f"{name}_bias", bias, unit if len(unit) > 1 else unit[0], 0, signed=True)


def _finish(c: Context, node: Node, x: Tensor, y: Tensor, acc: types.Tensor, factors: list[Factor], name: str) -> None:
    clamp = activation(node, y)
    if x.type == "int8":
        c.put(y, c.requantized(node, acc, y, factors, clamp, name))
        return
    # MultiplyByQuantizedMultiplier of 64 bits
    multipliers = [0x7FFF if f.multiplier >= 0x7FFF0000 else (f.multiplier + (1 << 15)) >> 16 for f in factors]
    shifts = [15 - f.exponent for f in factors]
    if min(shifts) < 8:
        raise UnsupportedError(node.where, "a quotient of its scales is above 2**7", "quantize the model again")
    lo, hi = c.b.range(acc).whole
    largest = max(max(-lo, hi) * m >> s for m, s in zip(multipliers, shifts, strict=True))
    if not -(1 << 47) <= lo <= hi < 1 << 47 or largest >= (1 << 31) - 1:
        what = f"its sums reach {lo}..{hi}, beyond what TensorFlow Lite Micro's int16x8 holds"
        raise UnsupportedError(node.where, what, "use fewer inputs, or weights and biases that are smaller")
    halves = [0] * len(factors)
    c.put(y, c.b.requantize(acc, qtype(y), multipliers, halves, shifts, Rounding.HALF_UP, name, clamp))


def _windows(
    node: Node, sizes: tuple[int, int], kernel: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int], Padding]:
    """Strides, dilation and padding of the two spatial axes."""
    dilation = node.option("dilation_h"), node.option("dilation_w")
    return strides_of(node), dilation, padding_of(node, sizes, kernel, dilation)


def strides_of(node: Node) -> tuple[int, int]:
    strides = node.option("stride_h"), node.option("stride_w")
    if min(strides) < 1 or max(strides) > MAX_REACH:
        raise ToolchainError(node.where, f"strides {list(strides)}, must be 1 to {MAX_REACH}", AGAIN)
    return strides


def padding_of(
    node: Node, sizes: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> Padding:
    """ComputePaddingHeightWidth."""
    if (
        min(dilation) < 1
        or any(d * (k - 1) + 1 > MAX_REACH for k, d in zip(kernel, dilation, strict=True))
        or min(kernel) < 1
    ):
        what = f"a window of {list(kernel)} with dilation {list(dilation)}, must be 1 to {MAX_REACH} wide and high"
        raise ToolchainError(node.where, what, AGAIN)
    if node.choice("padding", schema.PADDINGS) == "valid":
        return ((0, 0), (0, 0))
    every = zip(sizes, kernel, strides_of(node), dilation, strict=True)
    return tuple(same_padding(n, k, s, d) for n, k, s, d in every)


def _check_output(node: Node, y: Tensor, sizes: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int],
                  padding: Padding, out: int) -> None:  # fmt: skip
    every = zip(sizes, kernel, strides, dilation, padding, strict=True)
    same_size(node, y, (1, *(out_size(n, k, s, d, p) for n, k, s, d, p in every), out))
