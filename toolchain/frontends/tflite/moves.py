"""Pools, MEAN, and what moves integers: RESHAPE, TRANSPOSE, PAD, CONCATENATION, PACK.

Its one rule: TFLM moves and compares stored integers, whatever their scales; an average is of stored integers too.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.tflite.archive import Node, Tensor
from toolchain.frontends.tflite.arithmetic import LIMITS, Factor, quantize_multiplier
from toolchain.frontends.tflite.context import (
    KINDS,
    Context,
    activation,
    axis_of,
    clean,
    full,
    one_batch,
    qtype,
    same_count,
    same_size,
)
from toolchain.frontends.tflite.flatbuffer import AGAIN
from toolchain.frontends.tflite.products import padding_of, strides_of
from toolchain.ir import exact, types
from toolchain.ir.geometry import out_size
from toolchain.ir.ops import Rounding

# --- pools -----------------------------------------------------------------------------------------------------------


def average_pool_2d(c: Context, node: Node) -> None:
    """Halves away from zero of the mean of stored integers, the padding not counted."""
    x, data, y, kernel, clamp = _pool(c, node)
    sizes, name = one_batch(node, x, 4)[:2], clean(y.name)
    summed = c.b.sum_pool(data, kernel, strides_of(node), padding_of(node, (sizes[0], sizes[1]), kernel), f"{name}_sum")
    slope = summed.qtype.scales[0] / data.qtype.scales[0]  # 1/L: sums are L times the mean less the zero point
    c.put(y, exact.affine(c.b, summed, qtype(y), [slope], [Fraction(x.zero_point)], Rounding.HALF_AWAY, name, clamp))


def max_pool_2d(c: Context, node: Node) -> None:
    x, data, y, kernel, clamp = _pool(c, node)
    sizes, name = one_batch(node, x, 4)[:2], clean(y.name)
    made = c.b.max_pool(data, kernel, strides_of(node), padding_of(node, (sizes[0], sizes[1]), kernel), name)
    if clamp != LIMITS[y.type]:
        made = c.b.requantize(made, qtype(y), [1], [0], [0], Rounding.FLOOR, f"{name}_clamp", clamp)
    c.put(y, made)


def _pool(c: Context, node: Node) -> tuple[Tensor, types.Tensor, Tensor, tuple[int, int], tuple[int, int]]:
    x, data = c.input(node)
    y = c.same_type(node, x)
    height, width, channels = one_batch(node, x, 4)
    kernel = node.option("filter_h"), node.option("filter_w")
    if x.zero_point != y.zero_point or abs(float(x.scale) - float(y.scale)) > 1e-6:
        what = "its input and output have different scales or zero points, which TensorFlow Lite Micro refuses"
        raise UnsupportedError(node.where, what, "quantize the model again")
    every = zip((height, width), kernel, strides_of(node), padding_of(node, (height, width), kernel), strict=True)
    same_size(node, y, (1, *(out_size(n, k, s, 1, p) for n, k, s, p in every), channels))
    return x, data, y, kernel, activation(node, y)


def mean(c: Context, node: Node) -> None:
    """Over neighbouring axes: the sum of x - zero point; 1/n goes into the multiplier, whose lost bits are part of the meaning."""
    x, data = c.input(node)
    y = c.same_type(node, x)
    rank, name = len(x.shape), clean(y.name)
    axes = sorted({axis_of(node, int(a), rank) for a in node.constant(1, "axes").ravel()})
    left = [n for k, n in enumerate(x.shape) if k not in axes]
    same_size(node, y, [1 if k in axes else n for k, n in enumerate(x.shape)] if node.option("keep_dims") else left)
    wide = [k for k in axes if x.shape[k] > 1]
    count = prod(x.shape[k] for k in axes)
    if any(x.shape[k] > 1 for k in range(min(wide, default=0), max(wide, default=0)) if k not in axes):
        raise UnsupportedError(
            node.where, f"a mean over axes {axes} of {list(x.shape)}", "transpose, so that they are neighbours"
        )
    before, after = prod(x.shape[: min(wide, default=0)]), prod(x.shape[max(wide, default=rank - 1) + 1 :])
    if not wide:
        before, after = 1, prod(x.shape)
    if len(x.shape) == 4 and wide == [1, 2] and x.shape[0] == 1:
        summed = c.b.sum_pool(data, x.shape[1:3], x.shape[1:3], ((0, 0), (0, 0)), f"{name}_sum")
    elif before == 1:
        line = c.b.reshape(data, (count, after), f"{name}_in")
        summed = c.b.sum_pool(line, (count,), (count,), ((0, 0),), f"{name}_sum")
    else:
        plane = c.b.reshape(data, (before, count, after), f"{name}_in")
        summed = c.b.sum_pool(plane, (1, count), (1, count), ((0, 0), (0, 0)), f"{name}_sum")
    factor = quantize_multiplier(node, float(x.scale) / float(y.scale))
    part = min(count.bit_length() - 1, 32, 31 + factor.exponent)
    factor = Factor((factor.multiplier << part) // count, factor.exponent - part)
    c.put(y, c.requantized(node, summed, y, [factor], LIMITS[y.type], name))


# --- moves -----------------------------------------------------------------------------------------------------------


def reshape(c: Context, node: Node) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the file says the shape that it makes."""
    x, data = c.input(node, 0, KINDS)
    y = c.same_type(node, x, KINDS)
    same_count(node, x, y)
    c.put(y, data)


def transpose(c: Context, node: Node) -> None:
    x, data = c.input(node, 0, KINDS)
    y = c.same_type(node, x, KINDS)
    order = [int(k) for k in node.constant(1, "permutation").ravel()]
    if sorted(order) != list(range(len(x.shape))):
        raise ToolchainError(node.where, f"permutation {order} of {len(x.shape)} axes", AGAIN)
    same_size(node, y, [x.shape[k] for k in order])
    name = clean(y.name)
    kept = [k for k in range(len(x.shape)) if x.shape[k] > 1]  # an axis of 1 may stand anywhere
    if len(kept) < 2:
        c.put(y, data)
        return
    moved = [kept.index(k) for k in order if k in kept]
    squeezed = c.b.reshape(data, [x.shape[k] for k in kept], f"{name}_in")
    c.put(y, squeezed if moved == sorted(moved) else c.b.transpose(squeezed, moved, f"{name}_t"))


def pad(c: Context, node: Node) -> None:
    """PAD with the zero point, PADV2 with an integer that the file holds."""
    x, data = c.input(node)
    y = c.same_type(node, x)
    given = node.constant(1, "paddings")
    if given.shape != (len(x.shape), 2) or (given < 0).any() or given.max(initial=0) > 1 << 16:
        raise ToolchainError(node.where, f"paddings {given.tolist()[:9]} of {len(x.shape)} axes", AGAIN)
    pairs = tuple((int(a), int(b)) for a, b in given)
    same_size(node, y, [n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True)])
    value, name = y.zero_point, clean(y.name)
    if node.op == "PADV2" and len(node.inputs) > 2:
        filled = node.constant(2, "value").ravel()
        if len(filled) != 1 or not LIMITS[x.type][0] <= filled[0] <= LIMITS[x.type][1]:
            raise ToolchainError(node.where, f"pads with {filled.tolist()[:9]}, must be one {x.type}", AGAIN)
        value = int(filled[0])
    if not any(n for pair in pairs for n in pair):
        c.put(y, data)
    elif pairs[0] == (0, 0) and x.shape[0] == 1 and len(x.shape) > 1:
        c.put(y, c.b.pad(data, pairs[1:], f"{name}_pad", value))
    else:
        c.put(y, c.b.pad(full(c, data, x, name), pairs, f"{name}_pad", value))


def concatenation(c: Context, node: Node) -> None:
    y = c.output(node)
    if node.op == "CONCATENATION" and activation(node, y) != LIMITS[y.type]:
        raise UnsupportedError(
            node.where, "fuses an activation, which TensorFlow Lite Micro does not do", "export it apart"
        )
    parts = [_part(c, node, k, y) for k in range(len(node.inputs))]
    if not parts:
        raise ToolchainError(node.where, "has no inputs", AGAIN)
    axis, name = axis_of(node, node.option("axis"), len(y.shape)), clean(y.name)
    shapes = [x.shape for x, _ in parts]
    if node.op == "PACK":
        shapes = [(*s[:axis], 1, *s[axis:]) for s in shapes]
    if any(len(s) != len(y.shape) for s in shapes):
        raise ToolchainError(node.where, f"joins {[list(s) for s in shapes][:9]} to {list(y.shape)}", AGAIN)
    sizes = [sum(s[axis] for s in shapes) if k == axis else n for k, n in enumerate(shapes[0])]
    if any((*s[:axis], *s[axis + 1 :]) != (*shapes[0][:axis], *shapes[0][axis + 1 :]) for s in shapes):
        raise ToolchainError(node.where, f"joins {[list(s) for s in shapes][:9]} along axis {axis}", AGAIN)
    same_size(node, y, sizes)
    drop = 1 if axis and y.shape[0] == 1 else 0
    placed = [c.b.reshape(t, s[drop:], f"{name}_{k}") for k, ((_, t), s) in enumerate(zip(parts, shapes, strict=True))]
    c.put(y, placed[0] if len(placed) == 1 else c.b.concat(placed, axis - drop, f"{name}_all"))


def _part(c: Context, node: Node, position: int, y: Tensor) -> tuple[Tensor, types.Tensor]:
    """An input as integers of the output's type."""
    x, data = c.input(node, position)
    if x.type != y.type:
        raise UnsupportedError(node.where, f"makes {y.type} of {x.type}, must be one type")
    if qtype(x) != qtype(y):
        if node.op == "CONCATENATION":
            what = "its inputs and output have different scales or zero points, which TensorFlow Lite Micro refuses"
            raise UnsupportedError(node.where, what, "quantize the model again")
        data = c.b.requantize(data, qtype(y), [1], [0], [0], Rounding.FLOOR, f"{clean(y.name)}_{position}_same")
    return x, data
