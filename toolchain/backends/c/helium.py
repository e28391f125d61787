"""Calls of the kernels of nn_helium.h, and model_helium.S, which makes an inner loop for each shape that the model has.

One rule: every number that a kernel is told here is one of the form, which toolchain/forms/helium.py has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    zero = q.zero_point - (128 if form.flip else 0)
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "int8_t", form.packed().ravel().tolist())
    channels = op.output.channels
    bias = [0] * channels if op.bias is None else op.bias.array.tolist()
    whole = form.weight.astype(object)
    sums = whole.sum(axis=(0, 1)) if isinstance(form, helium.Windows) else whole.sum(axis=(1, 2, 3))
    start = [wrapped(b - zero * int(s), False) for b, s in zip(bias, sums, strict=True)]
    at, own = form.at, _of_windows(form) if isinstance(form, helium.Windows) else _of_layer(form)
    (x_row, x_col), (y_row, y_col) = at.steps(op.input.channels), at.steps_of_output(channels)
    shape = fields(
        in_h=at.in_h, in_w=at.in_w, out_h=at.out_h, out_w=at.out_w, out_c=channels, k_h=at.k_h, stride_h=at.stride_h,
        stride_w=at.stride_w, top=at.top, left=at.left, x_row=x_row, x_col=x_col, y_row=y_row, y_col=y_col,
        columns=form.columns, zero_point=zero, flip=int(form.flip), **own.fields,
    )  # fmt: skip
    c.declare(own.function, own.declared)
    c.assemble(helium.NAME, own.line)
    return [
        f"{own.kernel}({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', start)}, {y},",
        f"    (nn_helium_shape){shape},",
        f"    {stages}, {own.function}, model_scratch);",
    ]


@dataclass(frozen=True)
class Own:
    """What differs between kernels: which, its fields of the shape, its function of nn_helium.S."""

    kernel: str
    fields: dict[str, int]
    function: str
    declared: str
    line: str


def _of_layer(form: helium.Layer) -> Own:
    dot = form.dot
    numbers = (dot.positions, dot.taps, dot.slices, dot.step, dot.row)
    own = {
        "in_c": form.in_c, "tile": form.tile, "positions": dot.positions, "row": dot.row,
        "weights": helium.LANES * dot.slices * dot.taps, "sums_bytes": dot.sums_bytes,
    }  # fmt: skip
    declared = f"NN_HELIUM_DOT({dot.name}, {', '.join(map(str, numbers))})"
    return Own("nn_conv_helium", own, dot.name, declared, dot.line)


def _of_windows(form: helium.Windows) -> Own:
    gather = form.gather
    assert gather is not None
    own = {
        "in_c": gather.width, "tile": form.at.out_w, "positions": 4, "row": gather.row, "weights": helium.LANES,
        "sums_bytes": gather.sums_bytes,
    }  # fmt: skip
    numbers = (gather.taps, gather.width, gather.step, gather.row)
    declared = f"NN_HELIUM_WINDOWS({gather.name}, {', '.join(map(str, numbers))})"
    return Own("nn_depthwise_helium", own, gather.name, declared, gather.line)
