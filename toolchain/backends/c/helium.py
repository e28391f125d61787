"""Calls of the kernels of nn_helium.h, and model_helium.S, which makes an inner loop for each shape that the model has.

One rule: every number that a kernel is told here is one of the form, which toolchain/forms/helium.py has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain.forms import helium
from toolchain.ir import ops

from .tables import fields, wrapped

if TYPE_CHECKING:
    from .calls import Context

SOURCE = "nn_helium.S"
GUARD = "__ARM_FEATURE_MVE"


def header(op: ops.Mac) -> str:
    return "nn_helium.h"


def call(op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""
    form, q = helium.form_of(op), op.input.qtype
    assert form is not None, op.output.name
    dot = form.dot
    zero = q.zero_point - (128 if form.flip else 0)
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "int8_t", form.packed().ravel().tolist())
    bias = [0] * form.rows if op.bias is None else op.bias.array.tolist()
    sums = form.weight.astype(object).sum(axis=(1, 2, 3))
    start = [wrapped(b - zero * int(s), False) for b, s in zip(bias, sums, strict=True)]
    shape = fields(
        in_h=form.in_h, in_w=form.in_w, in_c=form.in_c, out_h=form.out_h, out_w=form.out_w, out_c=form.rows,
        k_h=form.k_h, k_w=form.k_w, stride_h=form.stride_h, stride_w=form.stride_w, top=form.top, left=form.left,
        tile=form.tile, positions=dot.positions, row=dot.row, weights=helium.LANES * dot.slices * dot.taps,
        columns=0 if form.direct else form.columns, sums_bytes=form.sums_bytes, zero_point=zero, flip=int(form.flip),
    )  # fmt: skip
    numbers = (dot.positions, dot.taps, dot.slices, dot.step, dot.row)
    c.declare(dot.name, f"NN_HELIUM_DOT({dot.name}, {', '.join(map(str, numbers))})")
    c.assemble(helium.NAME, dot.line)
    return [
        f"nn_conv_helium({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', start)}, {y},",
        f"    (nn_helium_shape){shape},",
        f"    {stages}, {dot.name}, model_scratch);",
    ]
