"""Where the windows of a dense layer or a convolution lie, in two dimensions: what every family of kernels asks first.

Rule: one dimension is two with a height of 1; a dense layer is a convolution of windows of 1, its rows side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toolchain.ir import ops


class Plane(NamedTuple):
    """In elements; `top` and `left` are padding."""

    in_h: int
    in_w: int
    in_c: int
    out_h: int
    out_w: int
    k_h: int
    k_w: int
    stride_h: int
    stride_w: int
    top: int
    left: int


def plane(op: ops.Mac) -> Plane:
    x = op.input
    if isinstance(op, ops.Dense):
        return row(x.size // x.channels, x.channels)
    shape = op.weight.array.shape
    return Plane(
        *_two(x.shape[:-1], 1),
        x.channels,
        *_two(op.output.shape[:-1], 1),
        *_two(shape[:2] if isinstance(op, ops.DepthwiseConv2D) else shape[1:-1], 1),
        *_two(op.strides, 1),
        *_two([before for before, _ in op.padding], 0),
    )


def row(positions: int, channels: int) -> Plane:
    """Windows of one position each, side by side."""
    return Plane(1, positions, channels, 1, positions, 1, 1, 1, 1, 0, 0)


def padded(op: ops.Mac) -> bool:
    return not isinstance(op, ops.Dense) and any(v for pad in op.padding for v in pad)


def pointwise(op: ops.Mac) -> bool:
    """Whether every window is one position, each in its turn: then they may as well be one row."""
    at = plane(op)
    return at.k_h == at.k_w == at.stride_h == at.stride_w == 1 and not padded(op)


def single(op: ops.Mac) -> bool:
    """Whether the op's taps are neighbours, in one group or each channel alone, which is what the kernels of families are for."""
    if isinstance(op, ops.Dense):
        return True
    return all(d == 1 for d in op.dilation) and (isinstance(op, ops.DepthwiseConv2D) or op.groups == 1)


def _two(values: Sequence[int], other: int) -> tuple[int, int]:
    return (values[0], values[1]) if len(values) > 1 else (other, values[0])
