"""What takes a part of a tensor: SPLIT, SPLIT_V, UNPACK, SLICE, STRIDED_SLICE, and RESIZE_NEAREST_NEIGHBOR, which may repeat it too.

Its one rule: which element goes where is settled here, from the file's constants; a slice of every axis is what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor

import numpy as np

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.tflite.archive import Node, Tensor
from toolchain.frontends.tflite.arithmetic import half_away
from toolchain.frontends.tflite.context import KINDS, Context, axis_of, clean, full, one_batch, same_size, usable
from toolchain.frontends.tflite.flatbuffer import AGAIN
from toolchain.ir import types


def split(c: Context, node: Node) -> None:
    """SPLIT, SPLIT_V, UNPACK: a slice for each output."""
    position = 1 if node.op == "SPLIT" else 0
    x, data = c.input(node, position, KINDS)
    if node.op == "UNPACK":
        axis = axis_of(node, node.option("axis"), len(x.shape))
    else:
        given = node.constant(0 if node.op == "SPLIT" else 2, "axis").ravel()
        if len(given) != 1:
            raise ToolchainError(node.where, f"has {len(given)} axes, must have one", AGAIN)
        axis = axis_of(node, int(given[0]), len(x.shape))
    begin = 0
    for k, y in enumerate(node.outputs):
        usable(node, y, (x.type,))
        size = 1 if node.op == "UNPACK" else y.shape[axis] if len(y.shape) == len(x.shape) else 0
        shape = [size if a == axis else n for a, n in enumerate(x.shape)]
        same_size(node, y, shape[:axis] + shape[axis + 1 :] if node.op == "UNPACK" else shape)
        if begin + size > x.shape[axis]:
            raise ToolchainError(node.where, f"takes {begin + size} of {x.shape[axis]} along axis {axis}", AGAIN)
        _cut(c, node, x, data, [begin if a == axis else 0 for a in range(len(shape))], shape, [1] * len(shape), y, k)
        begin += size
    if begin != x.shape[axis]:
        raise ToolchainError(node.where, f"takes {begin} of {x.shape[axis]} along axis {axis}", AGAIN)


def strided_slice(c: Context, node: Node) -> None:
    x, data = c.input(node, 0, KINDS)
    y = c.same_type(node, x, KINDS)
    if node.option("ellipsis_mask") or node.option("new_axis_mask") or node.option("offset"):
        raise UnsupportedError(
            node.where, "has an ellipsis, a new axis or an offset", "slice with begin, end and strides"
        )
    rank = len(x.shape)
    begin, end, strides = (_row(node, k, what, rank) for k, what in ((1, "begin"), (2, "end"), (3, "strides")))
    if min(strides) < 1:
        raise UnsupportedError(node.where, f"strides {strides}, must be 1 or more", "reverse before it")
    first, shape, gone = [], [], []
    for k, n in enumerate(x.shape):
        at = 0 if node.option("begin_mask") >> k & 1 else begin[k] + (n if begin[k] < 0 else 0)
        to = n if node.option("end_mask") >> k & 1 else end[k] + (n if end[k] < 0 else 0)
        at, to = min(max(at, 0), n), min(max(to, 0), n)
        if node.option("shrink_axis_mask") >> k & 1:
            gone.append(k)
            to = at + 1
        first.append(at)
        shape.append(max(-(-(to - at) // strides[k]), 0))
    if min(shape) < 1 or any(at + (m - 1) * s >= n for at, m, s, n in zip(first, shape, strides, x.shape, strict=True)):
        raise ToolchainError(node.where, f"takes {shape} of {list(x.shape)} from {first}", AGAIN)
    same_size(node, y, [n for k, n in enumerate(shape) if k not in gone])
    _cut(c, node, x, data, first, shape, strides, y, 0)


def slice_(c: Context, node: Node) -> None:
    x, data = c.input(node, 0, KINDS)
    y = c.same_type(node, x, KINDS)
    begin, sizes = (_row(node, k, what, len(x.shape)) for k, what in ((1, "begin"), (2, "size")))
    shape = [n - b if m == -1 else m for n, b, m in zip(x.shape, begin, sizes, strict=True)]
    if any(b < 0 or m < 1 or b + m > n for n, b, m in zip(x.shape, begin, shape, strict=True)):
        raise ToolchainError(node.where, f"takes {shape} of {list(x.shape)} from {begin}", AGAIN)
    same_size(node, y, shape)
    _cut(c, node, x, data, begin, shape, [1] * len(shape), y, 0)


def _row(node: Node, position: int, what: str, rank: int) -> list[int]:
    found = [int(v) for v in node.constant(position, what).ravel()]
    if len(found) != rank:
        raise UnsupportedError(node.where, f"{what} has {len(found)} entries, must have {rank}", "say every axis")
    return found


def _cut(c: Context, node: Node, x: Tensor, data: types.Tensor, begin: Sequence[int], shape: Sequence[int], strides: Sequence[int], y: Tensor,
         k: int) -> None:  # fmt: skip
    """x[begin + i * stride] of the file's axes."""
    if tuple(shape) == x.shape:
        c.put(y, data)
        return
    drop = 1 if len(x.shape) > 1 and x.shape[0] == 1 else 0
    source = data if drop else full(c, data, x, clean(y.name))
    c.put(y, c.b.slice(source, tuple(begin[drop:]), tuple(shape[drop:]), tuple(strides[drop:]), f"{clean(y.name)}_{k}"))


def resize_nearest_neighbor(c: Context, node: Node) -> None:
    """Rows and columns repeated, or left out, by whole factors; which, TFLM computes in float32."""
    x, data = c.input(node)
    y = c.same_type(node, x)
    height, width, channels = one_batch(node, x, 4)
    size = [int(v) for v in node.constant(1, "size").ravel()]
    if len(size) != 2 or min(size) < 1 or max(size) > 1 << 16:
        raise ToolchainError(node.where, f"size {size[:9]}, must be height and width", AGAIN)
    same_size(node, y, (1, *size, channels))
    name, made = clean(y.name), data
    factors, strides, begin = [1, 1], [1, 1], [0, 0]
    for k, (n, m) in enumerate(zip((height, width), size, strict=True)):
        rows = _nearest(node, n, m)
        if m % n == 0 and rows == [i // (m // n) for i in range(m)]:
            factors[k] = m // n
        elif n % m == 0 and rows == [rows[0] + i * (n // m) for i in range(m)]:
            strides[k], begin[k] = n // m, rows[0]
        else:
            what = f"makes {m} of {n} along axis {k + 1}, must repeat or leave out by a whole factor"
            raise UnsupportedError(node.where, what, "resize by a whole factor")
    if strides != [1, 1]:
        sizes = [n // s for n, s in zip((height, width), strides, strict=True)]
        made = c.b.slice(made, (*begin, 0), (*sizes, channels), (*strides, 1), f"{name}_fewer")
    if factors != [1, 1]:
        made = c.b.upsample(made, factors, f"{name}_more")
    c.put(y, made)


def _nearest(node: Node, n: int, m: int) -> list[int]:
    """GetNearestNeighbor: which of n rows each of m rows is."""
    align, half = bool(node.option("align_corners")), bool(node.option("half_pixel_centers"))
    scale = np.float32(n - 1) / np.float32(m - 1) if align and m > 1 else np.float32(n) / np.float32(m)
    offset = np.float32(0.5 if half else 0)
    places = [(np.float32(i) + offset) * scale for i in range(m)]
    found = [half_away(p) if align else floor(float(p)) for p in places]
    return [max(min(v, n - 1), 0) for v in found]
