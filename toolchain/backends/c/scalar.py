"""Calls of the kernels of nn_scalar.h, and model_scalar.S, which makes an inner loop for each length of runs that the model has.

One rule: the lengths of the runs come from the form, which has their bound, and are read from a table in flash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from toolchain.forms import scalar as form
from toolchain.ir import ops

from .stages import takes_twice
from .tables import fields, wrapped

if TYPE_CHECKING:
    from .calls import Context

SOURCE = "nn_scalar.S"
GUARD = "NN_SCALAR_CORE"


def header(op: ops.Mac) -> str:
    return "nn_scalar_depthwise.h" if isinstance(op, ops.DepthwiseConv2D) else "nn_scalar.h"


def call(op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""
    layer, q = form.form_of(op), op.input.qtype
    if isinstance(layer, form.Windows):
        return _depthwise(op, layer, rest, name, y, stages, c)
    assert layer is not None, op.output.name
    lengths = layer.runs()
    runs = c.tables.array(f"{name}_runs", "uint8_t", [n for block in lengths for row in block for n in (*row, 0)])
    most = form.taps(n for block in lengths for row in block for n in row)
    dot = f"nn_scalar_dot_{most}"
    c.declare(dot, f"NN_SCALAR_DOT({dot}, {most})")
    c.assemble(form.NAME, f"    NN_SCALAR_DOT {dot}, {most}")
    zero = q.zero_point - (128 if form.flips(q) else 0)
    high = _start(op, zero, layer.weight.astype(object).sum(axis=(1, 2)))
    counts = [sum(map(len, block)) for block in lengths]
    wide, part_h, part_w = layer.lanes
    at = layer.at._replace(in_c=layer.taps) if layer.alone else layer.at
    shape = fields(
        **at._asdict(), out_c=layer.rows, lanes_w=wide, part_h=part_h, part_w=part_w, tile=layer.tile,
        pieces=1 if layer.tile == 1 else at.k_h, flip=int(form.flips(q)),
        twice=int(bool(rest) and takes_twice(rest[0], c.ranges[op.output.name])),
    )  # fmt: skip
    if layer.alone:
        words = c.tables.array(f"packed_{op.weight.tensor.name}", "int32_t", layer.packed().ravel().tolist())
        start = [b - (32768 * counts[o // 8] if o % 8 < 4 else 0) for o, b in enumerate(high)]
        return [
            f"nn_dense_scalar({c.at(op.input)}, {words}, {runs}, (nn_param){_param(f'{name}_bias', start, c)}, {y},",
            f"    (nn_scalar_shape){shape},",
            f"    {stages}, {dot}, model_scratch);",
        ]
    weight = c.tables.array(f"bytes_{op.weight.tensor.name}", "int8_t", layer.weight.ravel().tolist())
    low = [b - 32768 * n for b, n in zip(high, counts, strict=True)]
    zeros = c.tables.array(f"{name}_zeros", "uint8_t", [q.zero_point & 255] * at.in_c)
    return [
        f"nn_conv_scalar({c.at(op.input)}, {weight}, {runs}, (nn_param){_param(f'{name}_low', low, c)},",
        f"    (nn_param){_param(f'{name}_bias', high, c)}, {y}, (nn_scalar_shape){shape},",
        f"    {stages}, {dot}, model_scratch, {zeros});",
    ]


def _depthwise(
    op: ops.Mac, w: form.Windows, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context
) -> list[str]:
    q, cuts = op.input.qtype, w.cuts()
    assert cuts is not None, op.output.name
    flip = 128 if form.flips(q) else 0
    rows = w.weight.reshape(9, w.channels).T.tolist()
    taps = c.tables.array(
        f"taps_{op.weight.tensor.name}", "int8_t", [v for row, n in zip(rows, cuts, strict=True) for v in (*row, n)]
    )
    high = _start(op, q.zero_point - flip, w.weight.astype(object).sum(axis=(0, 1)))
    low = [b - 32768 * len(form.CUTS[n]) for b, n in zip(high, cuts, strict=True)]
    shape = fields(
        in_h=w.in_h, in_w=w.in_w, out_h=w.out_h, out_w=w.out_w, channels=w.channels, stride_h=w.stride_h, stride_w=w.stride_w,
        top=w.top, left=w.left, part_h=w.part_h, strip=w.strip, flip=flip, zero=q.zero_point - flip,
        cuts=sum(1 << n for n in set(cuts)), twice=int(bool(rest) and takes_twice(rest[0], c.ranges[op.output.name])),
    )  # fmt: skip
    return [
        f"nn_depthwise_scalar({c.at(op.input)}, {taps}, (nn_param){_param(f'{name}_low', low, c)},",
        f"    (nn_param){_param(f'{name}_bias', high, c)}, {y}, (nn_scalar_depthwise_shape){shape},",
        f"    {stages}, model_scratch);",
    ]


def _start(op: ops.Mac, zero: int, sums: Iterable[int]) -> list[int]:
    """The bias, less what the zero point adds."""
    bias = [0] * op.output.channels if op.bias is None else op.bias.array.tolist()
    return [b - zero * int(s) for b, s in zip(bias, sums, strict=True)]


def _param(name: str, values: Sequence[int], c: Context) -> str:
    return c.tables.param(name, [wrapped(v, False) for v in values])
