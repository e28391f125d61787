"""Calls of the kernels of nn_narrow.h, and model_narrow.S, which makes an inner loop for each shape that the model has.

One rule: the bounds were checked by the pass that chose the kernel, and are asserted here again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain.forms import narrow
from toolchain.ir import ops

from . import dsp
from .stages import takes_twice
from .tables import fields

if TYPE_CHECKING:
    from .calls import Context

SOURCE = "nn_narrow.S"
GUARD = dsp.GUARD
TYPES = {4: "uint16_t", 2: "uint16_t", 1: "uint32_t"}


def header(op: ops.Mac) -> str:
    return "nn_narrow.h"


def call(op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""
    short = bool(rest) and takes_twice(rest[0], c.ranges[op.output.name])
    form = narrow.smallest(op) if c.plan.optimize == "size" else narrow.form_of(op)
    assert form is not None and form.fits, op.output.name
    layer = form.layer
    values = form.packed().ravel().tolist()
    weight = c.tables.array(f"narrow_{op.weight.tensor.name}", TYPES[form.bits], values)
    c.tables.forms[weight] = form.text, op.weight.tensor.size
    start = dsp.start(op, layer.weight.astype(object).sum(axis=(1, 2)), 2 if short else 1)
    low, high = form.values
    how = {"bits": form.bits, "pairs": layer.pairs, "times": form.times}
    if form.bits == 1:
        how |= {"run": layer.run, "low": low, "step": high - low, "shared": int(form.shared)}
    shape = f"(nn_dsp_shape){dsp.shape(op, layer, form.block, short)}, (nn_narrow_form){fields(**how)}"
    dots = tuple(dot.small() for dot in form.dots) if c.plan.optimize == "size" and form.bits > 1 else form.dots
    made = (form.lookups,) if form.bits == 1 else dots
    for function in made:
        c.declare(function.name, function.declared)
        c.assemble(narrow.NAME, function.line)
    names = [function.name for function in made]
    kernel, end = "nn_dense_narrow", "model_scratch"
    if form.bits == 1:
        kernel, end = "nn_conv_subsets", f"model_scratch, model_scratch + {form.rows_bytes // 2}"
    elif not layer.alone:
        kernel, names = "nn_conv_narrow", [*names, "0"][:2]
    return [
        f"{kernel}({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', start)}, {y},",
        f"    {shape},",
        f"    {stages}, {', '.join(names)}, {end});",
    ]
