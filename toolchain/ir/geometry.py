"""Shapes: how windows lie on an axis, and the shape that each op's output must have."""

from __future__ import annotations

from math import lcm, prod

from toolchain.errors import GraphError, assert_never

from . import ops
from .ops import Op, where


def out_size(n: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int], ceil_mode: bool = False) -> int:
    """Windows along an axis of n. With ceil_mode a last partial window counts, unless it starts beyond input and leading padding."""
    room = n + sum(pad) - (dilation * (kernel - 1) + 1)
    size = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (size - 1) * stride >= n + pad[0]:
        size -= 1
    return max(size, 0)


def same_padding(n: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """The padding that Keras and TensorFlow call "same": the odd element goes after."""
    total = max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
    return total // 2, total - total // 2


def tap_masks(n: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]) -> set[tuple[bool, ...]]:
    """Which taps of a convolution's windows lie inside the input, along one axis: each different answer once."""
    starts = (p * stride - pad[0] for p in range(out_size(n, kernel, stride, dilation, pad)))
    return {tuple(0 <= start + k * dilation < n for k in range(kernel)) for start in starts}


def window_counts(
    n: int, kernel: int, stride: int, pad: tuple[int, int], ceil_mode: bool, include_pad: bool
) -> tuple[int, ...]:
    """How many elements each window of an axis averages over."""
    first, end = (-pad[0], n + pad[1]) if include_pad else (0, n)
    starts = (p * stride - pad[0] for p in range(out_size(n, kernel, stride, 1, pad, ceil_mode)))
    return tuple(min(start + kernel, end) - max(start, first) for start in starts)


def pool_counts(op: ops.SumPool) -> tuple[tuple[int, ...], ...]:
    """`window_counts` for each spatial axis of a SumPool; a window's count is their product."""
    axes = zip(op.input.shape, op.kernel, op.strides, op.padding, strict=False)
    return tuple(window_counts(n, k, s, p, op.ceil_mode, op.count_include_pad) for n, k, s, p in axes)


def pool_lcm(op: ops.SumPool) -> int:
    """L of SumPool: the least common multiple of the counts of all its windows."""
    return prod(lcm(*counts) for counts in pool_counts(op))


def broadcast(op: ops.Add | ops.Sub | ops.Multiply) -> tuple[int, ...]:
    a, b = op.a.shape, op.b.shape
    if len(a) != len(b) or any(m != n and 1 not in (m, n) for m, n in zip(a, b, strict=True)):
        raise GraphError(where(op), f"shapes {list(a)} and {list(b)} must be equal, or 1 where they differ")
    return tuple(max(m, n) for m, n in zip(a, b, strict=True))


def _ranks(op: Op, rank: int, **given: tuple[object, ...]) -> None:
    for name, value in given.items():
        if len(value) != rank:
            raise GraphError(where(op), f"{name} {list(value)} has {len(value)} entries, must have {rank}")


def _windows_fit(op: Op, shape: tuple[int, ...]) -> tuple[int, ...]:
    if min(shape) < 1:
        raise GraphError(where(op), f"the window is larger than the padded input, which leaves shape {list(shape)}")
    return shape


def _conv(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D) -> tuple[int, ...]:
    spatial = 1 if isinstance(op, ops.Conv1D) else 2
    depthwise = isinstance(op, ops.DepthwiseConv2D)
    shape, weight = op.input.shape, op.weight.tensor.shape
    _ranks(op, spatial + 1, input=shape)
    _ranks(op, spatial, strides=op.strides, dilation=op.dilation, padding=op.padding)
    _ranks(op, spatial + (1 if depthwise else 2), weight=weight)
    channels = shape[-1]
    if isinstance(op, ops.DepthwiseConv2D):
        kernel, out = weight[:2], weight[2]
        if out % channels:
            raise GraphError(where(op), f"{out} outputs must be a multiple of {channels} input channels")
    else:
        kernel, out = weight[1:-1], weight[0]
        if op.groups < 1 or channels % op.groups or out % op.groups or weight[-1] * op.groups != channels:
            raise GraphError(
                where(op), f"weight {list(weight)} in {op.groups} groups does not go with {channels} input channels"
            )
    if min(*op.strides, *op.dilation) < 1 or min(v for pad in op.padding for v in pad) < 0:
        raise GraphError(where(op), "strides and dilation must be at least 1, padding at least 0")
    sizes = zip(shape, kernel, op.strides, op.dilation, op.padding, strict=False)
    return _windows_fit(op, (*(out_size(n, k, s, d, p) for n, k, s, d, p in sizes), out))


def _pool(op: ops.MaxPool | ops.SumPool) -> tuple[int, ...]:
    spatial = len(op.input.shape) - 1
    if spatial not in (1, 2):
        raise GraphError(where(op), f"input {list(op.input.shape)} must have one or two spatial axes and channels")
    _ranks(op, spatial, kernel=op.kernel, strides=op.strides, padding=op.padding)
    if min(*op.kernel, *op.strides) < 1 or min(v for pad in op.padding for v in pad) < 0:
        raise GraphError(where(op), "kernel and strides must be at least 1, padding at least 0")
    # so every window holds at least one element: it starts after -k and, by out_size, before n
    if any(max(pad) >= k for pad, k in zip(op.padding, op.kernel, strict=True)):
        raise GraphError(where(op), f"padding {list(op.padding)} must be smaller than the kernel {list(op.kernel)}")
    sizes = zip(op.input.shape, op.kernel, op.strides, op.padding, strict=False)
    return _windows_fit(op, (*(out_size(n, k, s, 1, p, op.ceil_mode) for n, k, s, p in sizes), op.input.shape[-1]))


def kept(op: ops.Slice, axis: int) -> slice:
    """The indices of an axis of its input that a Slice keeps."""
    begin, stride = op.begin[axis], op.strides[axis]
    return slice(begin, begin + (op.output.shape[axis] - 1) * stride + 1, stride)


def _slice(op: ops.Slice) -> tuple[int, ...]:
    rank, shape = len(op.input.shape), op.output.shape
    _ranks(op, rank, begin=op.begin, strides=op.strides, output=shape)
    if min(op.begin) < 0 or min(op.strides) < 1 or min(shape) < 1:
        raise GraphError(where(op), "begin must be at least 0, strides and sizes at least 1")
    for axis, (size, begin, count, stride) in enumerate(zip(op.input.shape, op.begin, shape, op.strides, strict=True)):
        if begin + (count - 1) * stride >= size:
            last = begin + (count - 1) * stride
            raise GraphError(where(op), f"reads up to index {last} of axis {axis}, which has {size} elements")
    return shape


def table_steps(op: ops.Interpolate) -> int:
    """Values of x from one entry of the table to the next."""
    return (1 << op.input.qtype.bits) // (op.table.tensor.size - 1)


def output_shape(op: Op) -> tuple[int, ...]:
    """The shape the op's output must have; raises GraphError where the op's own fields disagree."""
    if not all(t.shape for t in ops.inputs_of(op)):
        raise GraphError(where(op), "reads a tensor without axes; reshape it to [1]")
    match op:
        case ops.Dense():
            _ranks(op, 2, weight=op.weight.tensor.shape)
            if op.input.shape[-1] != op.weight.tensor.shape[1]:
                raise GraphError(
                    where(op),
                    f"input {list(op.input.shape)} and weight {list(op.weight.tensor.shape)} must agree in their last axis",
                )
            return (*op.input.shape[:-1], op.weight.tensor.shape[0])
        case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            return _conv(op)
        case ops.MaxPool() | ops.SumPool():
            return _pool(op)
        case ops.Requantize() | ops.Threshold() | ops.Lookup() | ops.Interpolate() | ops.Softmax() | ops.Softmax16():
            return op.input.shape
        case ops.Add() | ops.Sub() | ops.Multiply():
            return broadcast(op)
        case ops.Concat():
            if not op.inputs:
                raise GraphError(where(op), "has no inputs, must have at least one")
            first = op.inputs[0].shape
            if not 0 <= op.axis < len(first):
                raise GraphError(where(op), f"axis {op.axis}, must be in 0..{len(first) - 1}")
            rest = {(len(t.shape), *t.shape[: op.axis], *t.shape[op.axis + 1 :]) for t in op.inputs}
            if len(rest) != 1:
                raise GraphError(
                    where(op), f"shapes {[list(t.shape) for t in op.inputs]} must agree but for axis {op.axis}"
                )
            return (*first[: op.axis], sum(t.shape[op.axis] for t in op.inputs), *first[op.axis + 1 :])
        case ops.Reshape():
            if prod(op.output.shape) != prod(op.input.shape):
                raise GraphError(where(op), f"{list(op.input.shape)} does not reshape to {list(op.output.shape)}")
            return op.output.shape
        case ops.Transpose():
            if sorted(op.permutation) != list(range(len(op.input.shape))):
                raise GraphError(
                    where(op), f"permutation {list(op.permutation)} must name each of {len(op.input.shape)} axes once"
                )
            return tuple(op.input.shape[k] for k in op.permutation)
        case ops.Pad():
            _ranks(op, len(op.input.shape), padding=op.padding)
            if min(v for pad in op.padding for v in pad) < 0:
                raise GraphError(where(op), "padding must be at least 0")
            return tuple(n + a + b for n, (a, b) in zip(op.input.shape, op.padding, strict=True))
        case ops.UpSample():
            _ranks(op, len(op.input.shape) - 1, factors=op.factors)
            if min(op.factors, default=1) < 1:
                raise GraphError(where(op), "factors must be at least 1")
            return (*(n * f for n, f in zip(op.input.shape, op.factors, strict=False)), op.input.shape[-1])
        case ops.ArgMax():
            return (*op.input.shape[:-1], 1)
        case ops.Slice():
            return _slice(op)
        case _:
            raise assert_never(op)
