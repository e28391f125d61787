"""Calls of the kernels of nn_dsp.h, and model_dsp.S, which makes an inner loop for each shape that the model has.

One rule: the bounds were checked by the pass that chose the kernel, and are asserted here again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from toolchain import packed
from toolchain.ir import ops

from .tables import fields, wrapped

if TYPE_CHECKING:
    from .calls import Context

SOURCE = "nn_dsp.S"


def header(op: ops.Mac) -> str:
    return "nn_dsp_depthwise.h" if isinstance(op, ops.DepthwiseConv2D) else "nn_dsp.h"


def call(op: ops.Mac, name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `y` is where the result lies."""
    if isinstance(op, ops.DepthwiseConv2D):
        return _depthwise(op, name, y, stages, c)
    layer = packed.layer(op)
    q = op.input.qtype
    assert layer is not None and layer.fits(max(-q.min, q.max)), op.output.name
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "int16_t", layer.packed().ravel().tolist())
    start = _start(op, layer.weight.astype(object).sum(axis=(1, 2)))
    shape = fields(
        in_h=layer.in_h, in_w=layer.in_w, in_c=layer.in_c, out_h=layer.out_h, out_w=layer.out_w, out_c=layer.rows,
        k_h=layer.k_h, k_w=layer.k_w, stride_h=layer.stride_h, stride_w=layer.stride_w, top=layer.top, left=layer.left,
        tile=layer.tile, pitch=layer.pitch, block=layer.block, zero_point=q.zero_point, x_signed=int(q.signed),
    )  # fmt: skip
    c.dots[layer.dot.name] = layer.dot
    function = "nn_dense_dsp" if layer.alone else "nn_conv_dsp"
    return [
        f"{function}({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', start)}, {y},",
        f"    (nn_dsp_shape){shape},",
        f"    {stages}, {layer.dot.name}, model_scratch);",
    ]


def _start(op: ops.Mac, sums: Iterable[int]) -> list[int]:
    """What the sums start from: the bias, less what the zero point of x adds."""
    zero, rows = op.input.qtype.zero_point, op.output.channels
    bias = [0] * rows if op.bias is None else op.bias.array.tolist()
    return [wrapped(b - zero * int(s), False) for b, s in zip(bias, sums, strict=True)]


def _depthwise(op: ops.DepthwiseConv2D, name: str, y: str, stages: str, c: Context) -> list[str]:
    form, q = packed.windows(op), op.input.qtype
    assert form is not None, op.output.name
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "uint32_t", form.packed().ravel().tolist())
    start = _start(op, form.weight.astype(object).sum(axis=(0, 1)))
    shape = fields(
        in_h=form.in_h, in_w=form.in_w, out_h=form.out_h, out_w=form.out_w, channels=form.channels, stride=form.stride,
        top=form.top, left=form.left, strip=form.strip, pitch=form.pitch, zero_point=q.zero_point, x_signed=int(q.signed),
    )  # fmt: skip
    return [
        f"nn_depthwise_dsp({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', start)}, {y},",
        f"    (nn_dsp_depthwise_shape){shape},",
        f"    {stages}, model_scratch);",
    ]


def declarations(dots: Iterable[packed.Dot], scratch_bytes: int) -> str:
    """What model.c says of the inner loops, and the memory that kernels use while they run."""
    lines = []
    for dot in dots:
        rows, positions = (4, 2) if dot.form == "4X2" else (8, 1)
        numbers = (rows, positions, dot.pairs, dot.segments, dot.skip, dot.step)
        lines.append(f"NN_DSP_DOT({dot.name}, {', '.join(map(str, numbers))})")
    lines.append(f"static nn_s16 model_scratch[{-(-scratch_bytes // 2)}] NN_ALIGNED;")
    return "\n".join(lines)


def assembly(dots: Iterable[packed.Dot], banner: str) -> str:
    """model_dsp.S."""
    head = [banner, "", f'#include "kernels/{SOURCE}"', "", "#ifdef __ARM_FEATURE_DSP"]
    return "\n".join([*head, *(dot.line for dot in dots), "#endif", ""])
