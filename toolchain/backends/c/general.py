"""What the general kernels of sums of products are told: which one, what the sums start from, the shape.

One rule: a kernel that has only its weights in another way is told the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain.ir import ops
from toolchain.layout import ctype

from .tables import CODES, fields, wrapped

if TYPE_CHECKING:
    from .calls import Context


def general(op: ops.Mac, weight_code: str, name: str, c: Context) -> tuple[str, str, str]:
    """The kernel, the initialiser of its nn_param of the bias, and its shape; weights are of the type of this code."""
    wide = c.wide(op.output)
    zero = op.input.qtype.zero_point
    padded = int(not isinstance(op, ops.Dense) and any(v for pad in op.padding for v in pad))
    out = op.output.shape[-1]
    bias = [0] * out if op.bias is None else op.bias.array.tolist()
    if zero and not padded:
        axes = (0, 1) if isinstance(op, ops.DepthwiseConv2D) else tuple(range(1, op.weight.array.ndim))
        sums = op.weight.array.astype(object).sum(axis=axes)
        bias = [b - zero * int(s) for b, s in zip(bias, sums, strict=True)]
    start = c.tables.param(f"{name}_bias", [wrapped(b, bool(wide)) for b in bias])
    types = {"x_type": CODES[ctype(op.input.qtype)], "w_type": weight_code, "wide": wide}
    if isinstance(op, ops.Dense):
        rows = op.input.size // op.input.shape[-1]
        shape = fields(rows=rows, **{"in": op.input.shape[-1]}, out=out, **types)
        return "nn_dense", start, f"(nn_dense_shape){shape}"
    shape = fields(**_conv_shape(op), padded=padded, zero_point=zero if padded else 0, **types)
    return "nn_depthwise" if isinstance(op, ops.DepthwiseConv2D) else "nn_conv", start, f"(nn_conv_shape){shape}"


def _conv_shape(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D) -> dict[str, int]:
    """Two dimensions; one is two with a height of 1."""
    lift = isinstance(op, ops.Conv1D)
    kernel_shape = op.weight.tensor.shape[:2] if isinstance(op, ops.DepthwiseConv2D) else op.weight.tensor.shape[1:-1]

    def two(values: Sequence[int], one: int) -> Sequence[int]:
        return (one, *values) if lift else values

    found: dict[str, int] = {}
    for prefix, (h, w) in {
        "in": two(op.input.shape[:-1], 1),
        "out": two(op.output.shape[:-1], 1),
        "k": two(kernel_shape, 1),
        "stride": two(op.strides, 1),
        "dilation": two(op.dilation, 1),
    }.items():
        found |= {f"{prefix}_h": h, f"{prefix}_w": w}
    top, left = two([pad[0] for pad in op.padding], 0)
    found |= {"in_c": op.input.shape[-1], "out_c": op.output.shape[-1], "top": top, "left": left}
    return found | {"groups": 1 if isinstance(op, ops.DepthwiseConv2D) else op.groups}
