"""Calls of the kernels of nn_dsp.h, and model_dsp.S, which makes an inner loop for each shape that the model has.

One rule: the bounds were checked by the pass that chose the kernel, and are asserted here again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from toolchain.forms import dsp as packed
from toolchain.ir import ops
from toolchain.layout import ctype

from .stages import takes_twice
from .tables import fields, wrapped

if TYPE_CHECKING:
    from .calls import Context

SOURCE = "nn_dsp.S"
GUARD = "__ARM_FEATURE_DSP"
ROWS = "const nn_s16 *plane, nn_s8 *y, const nn_u32 *w, const nn_s8 *end, int32_t multiplier, int32_t start"
MOST_SHIFT = 12  # of NN_DSP_SHIFT


def header(op: ops.Mac) -> str:
    return "nn_dsp_depthwise.h" if isinstance(op, ops.DepthwiseConv2D) else "nn_dsp.h"


def call(op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""
    short = bool(rest) and takes_twice(rest[0], c.ranges[op.output.name])
    if isinstance(op, ops.DepthwiseConv2D):
        return _depthwise(op, rest, short, name, y, stages, c)
    layer = packed.layer(op)
    q = op.input.qtype
    assert layer is not None and layer.fits(max(-q.min, q.max)), op.output.name
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "int16_t", layer.packed().ravel().tolist())
    starts = start(op, layer.weight.astype(object).sum(axis=(1, 2)), 2 if short else 1)
    made = dot(layer.dot, c)
    function = "nn_dense_dsp" if layer.alone else "nn_conv_dsp"
    return [
        f"{function}({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', starts)}, {y},",
        f"    (nn_dsp_shape){shape(op, layer, layer.block, short)},",
        f"    {stages}, {made}, model_scratch);",
    ]


def shape(op: ops.Mac, layer: packed.Layer, block: int, short: bool) -> str:
    """nn_dsp_shape."""
    q = op.input.qtype
    return fields(
        **layer.at._asdict(), out_c=layer.rows, tile=layer.tile, pitch=layer.pitch, block=block, zero_point=q.zero_point,
        x_signed=int(q.signed), twice=int(short),
    )  # fmt: skip


def start(op: ops.Mac, sums: Iterable[int], times: int = 1) -> list[int]:
    """What the sums start from: the bias, less what the zero point of x adds; or a multiple of it."""
    zero, rows = op.input.qtype.zero_point, op.output.channels
    bias = [0] * rows if op.bias is None else op.bias.array.tolist()
    return [wrapped(times * (b - zero * int(s)), False) for b, s in zip(bias, sums, strict=True)]


def _depthwise(
    op: ops.DepthwiseConv2D, rest: Sequence[ops.Op], short: bool, name: str, y: str, stages: str, c: Context
) -> list[str]:
    form, q = packed.windows(op), op.input.qtype
    assert form is not None, op.output.name
    shifts = _shifts(rest[0]) if short and form.doubles else 0
    twice = 2 if shifts else 1
    weight = c.tables.array(f"packed_{op.weight.tensor.name}", "uint32_t", form.packed(twice).ravel().tolist())
    starts = start(op, form.weight.astype(object).sum(axis=(0, 1)), twice)
    shape = fields(
        in_h=form.in_h, in_w=form.in_w, out_h=form.out_h, out_w=form.out_w, channels=form.channels, stride=form.stride,
        top=form.top, left=form.left, strip=form.strip, pitch=form.pitch, zero_point=q.zero_point, x_signed=int(q.signed),
        shifts=shifts,
    )  # fmt: skip
    rows = _rows(form, rest[0], c.plan.optimize == "size") if shifts and len(rest) == 1 else {}
    if rows:
        _declare(name, rows, c)
    return [
        f"nn_depthwise_dsp({c.at(op.input)}, {weight}, (nn_param){c.tables.param(f'{name}_bias', starts)}, {y},",
        f"    (nn_dsp_depthwise_shape){shape},",
        f"    {stages}, model_scratch, {f'{name}_rows' if rows else 0});",
    ]


def _rows(form: packed.Windows, first: ops.Op, small: bool) -> dict[int, packed.Rows]:
    """By shift, the functions of nn_dsp.S that do it all; empty where one of them cannot."""
    assert isinstance(first, ops.Requantize)
    found = {
        shift - 31: packed.Rows(form, shift - 31, first.output_offset, small) for shift in sorted(set(first.shift))
    }
    whole = first.clamp == (-128, 127) and ctype(first.output.qtype) == "int8_t"
    return found if whole and all(made.reaches for made in found.values()) else {}


def _shifts(first: ops.Op) -> int:
    """Bit n for each second shift of TensorFlow Lite Micro's, where the kernel has a case for each; else 0. The output's offset is
    added before that shift, to less than 2**30: what they make together stays within 32 bits."""
    assert isinstance(first, ops.Requantize)
    found = {shift - 31 for shift in first.shift}
    fits = max(found) <= MOST_SHIFT and abs(first.output_offset) << max(found) < 1 << 29
    return sum(1 << n for n in found) if fits else 0


def dot(dot: packed.Dot, c: Context) -> str:
    """Have this inner loop in model_dsp.S, or one of less code where that is wanted; its name."""
    dot = dot.small() if c.plan.optimize == "size" else dot
    of, positions = (4, 2) if dot.form == "4X2" else (8, 1)
    numbers = (of, positions, dot.pairs, dot.segments, dot.skip, dot.step)
    c.declare(dot.name, f"NN_DSP_DOT({dot.name}, {', '.join(map(str, numbers))})")
    c.assemble(packed.NAME, dot.line)
    return dot.name


def _declare(name: str, rows: Mapping[int, packed.Rows], c: Context) -> None:
    """The functions of a depthwise convolution, and the one that chooses among them by the shift."""
    for row in rows.values():
        declared = f"void {row.name}({ROWS});"
        c.declare(row.name, f"#ifdef {GUARD} /* model_dsp.S */\n{declared}\n#endif")
        c.assemble(packed.NAME, row.line)
    lines = [
        f"#ifdef {GUARD}",
        f"static void {name}_rows({ROWS}, int32_t right) {{",
        "    switch (right) {",
        *(f"    case {shift}: {row.name}(plane, y, w, end, multiplier, start); break;" for shift, row in rows.items()),
        "    default: break;",
        "    }",
        "}",
        "#else",
        f"#define {name}_rows 0",
        "#endif",
    ]
    c.declare(f"{name}_rows", "\n".join(lines))
