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

HEADER = "nn_dsp.h"
SOURCE = "nn_dsp.S"


def call(op: ops.Mac, name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `y` is where the result lies."""
    layer = packed.layer(op)
    q = op.input.qtype
    assert layer is not None and layer.fits(max(-q.min, q.max)), op.output.name
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "int16_t", layer.packed().ravel().tolist())
    sums = layer.weight.astype(object).sum(axis=(1, 2))
    bias = [0] * layer.rows if op.bias is None else op.bias.array.tolist()
    start = [wrapped(b - q.zero_point * int(s), False) for b, s in zip(bias, sums, strict=True)]
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
