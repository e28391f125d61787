"""Scales: what one unit of each op's output must be worth, given what its inputs are worth. Requantize and its kin are free."""

from __future__ import annotations

from fractions import Fraction

from toolchain.errors import GraphError, assert_never

from . import ops
from .geometry import kept, pool_lcm
from .ops import Op, where
from .types import QType, Tensor

Scales = tuple[Fraction, ...]  # one, or one for each index of the last axis


def channel_scales(op: Op, tensor: Tensor) -> Scales:
    """The scales of a data tensor, which may differ along the last axis only."""
    if tensor.qtype.axis not in (None, len(tensor.shape) - 1):
        raise GraphError(where(op), f"%{tensor.name} has scales along axis {tensor.qtype.axis}, must be along the last")
    return tensor.qtype.scales


def one_scale(op: Op, tensor: Tensor, why: str) -> Fraction:
    if len(tensor.qtype.scales) != 1:
        raise GraphError(
            where(op),
            f"%{tensor.name} has {len(tensor.qtype.scales)} scales along an axis that is {why}, must have one; requantize it first",
        )
    return tensor.qtype.scales[0]


def _mac(op: ops.Mac) -> Scales:
    weight = op.weight.tensor
    axis = len(weight.shape) - 1 if isinstance(op, ops.DepthwiseConv2D) else 0
    if weight.qtype.axis not in (None, axis):
        raise GraphError(
            where(op), f"weight %{weight.name} has scales along axis {weight.qtype.axis}, must be along {axis}"
        )
    out = weight.shape[axis]
    if isinstance(op, ops.DepthwiseConv2D):
        repeat = out // op.input.shape[-1]
        given = channel_scales(op, op.input)
        ins = given if len(given) == 1 else tuple(s for s in given for _ in range(repeat))
    else:
        ins = (one_scale(op, op.input, "reduced"),)
    return _product(ins, weight.qtype.scales)


def _product(a: Scales, b: Scales) -> Scales:
    size = max(len(a), len(b))
    return tuple(x * y for x, y in zip(a * size if len(a) == 1 else a, b * size if len(b) == 1 else b, strict=True))


def output_scales(op: Op) -> Scales | None:
    """The scales the op's output must have, or None where the op is free to choose them."""
    match op:
        case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            return _mac(op)
        case ops.Requantize() | ops.Threshold():
            channel_scales(op, op.input)
            return None
        case ops.Lookup() | ops.Interpolate():
            one_scale(op, op.input, "looked up in one table")
            return None
        case ops.Add() | ops.Sub():
            a, b = channel_scales(op, op.a), channel_scales(op, op.b)
            size = max(len(a), len(b))
            if op.a.qtype.scale_list(size) != op.b.qtype.scale_list(size):
                raise GraphError(
                    where(op),
                    f"scales {_text(a)} and {_text(b)} must be equal; multiply the operands by integers first",
                )
            return a if len(a) == size else b
        case ops.Multiply():
            return _product(channel_scales(op, op.a), channel_scales(op, op.b))
        case ops.Concat():
            if op.axis == len(op.output.shape) - 1:
                together = tuple(s for t in op.inputs for s in t.qtype.scale_list(t.shape[-1]))
                return together if len(set(together)) > 1 else together[:1]
            found = {one_scale(op, t, "concatenated") for t in op.inputs}
            if len(found) != 1:
                raise GraphError(where(op), f"scales {_text(sorted(found))} must be equal; requantize to one first")
            return (found.pop(),)
        case ops.SumPool():
            divisor = pool_lcm(op)
            return tuple(s / divisor for s in channel_scales(op, op.input))
        case ops.Reshape():
            same_channels = op.input.shape and op.output.shape and op.input.shape[-1] == op.output.shape[-1]
            return channel_scales(op, op.input) if same_channels else (one_scale(op, op.input, "reshaped"),)
        case ops.Transpose():
            last = op.permutation and op.permutation[-1] == len(op.permutation) - 1
            return channel_scales(op, op.input) if last else (one_scale(op, op.input, "transposed"),)
        case ops.Pad():
            grows = op.padding and op.padding[-1] != (0, 0)
            return (one_scale(op, op.input, "padded"),) if grows else channel_scales(op, op.input)
        case ops.MaxPool() | ops.UpSample():
            return channel_scales(op, op.input)
        case ops.ArgMax():
            one_scale(op, op.input, "compared")
            return (Fraction(1),)
        case ops.Slice():
            given = channel_scales(op, op.input)
            return given if len(given) == 1 else given[kept(op, -1)]
        case ops.Softmax():
            one_scale(op, op.input, "compared")
            return (Fraction(1, 1 << op.output.qtype.bits),)
        case ops.Softmax16():
            one_scale(op, op.input, "compared")
            return (Fraction(1, 1 << 15),)
        case _:
            raise assert_never(op)


def _text(scales: object) -> str:
    assert isinstance(scales, (tuple, list))
    return ", ".join(map(str, scales[:4])) + (", ..." if len(scales) > 4 else "")


def same_scales(qtype: QType, scales: Scales, size: int) -> bool:
    return qtype.scale_list(size) == (scales * size if len(scales) == 1 else scales)
