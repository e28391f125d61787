"""Calls of nn_stored_dsp.h: convolutions of nn_dsp.h whose weights lie in flash as toolchain/forms/stored.py says.

One rule: the format is the one that the Plan names; the bounds are those of toolchain/forms/dsp.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain.forms import stored as streams
from toolchain.ir import ops

from . import dsp, stored
from .stages import takes_twice

if TYPE_CHECKING:
    from .calls import Context

SOURCE = dsp.SOURCE
GUARD = dsp.GUARD


def header(op: ops.Mac) -> str:
    return "nn_stored_dsp.h"


def call(op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""
    short = bool(rest) and takes_twice(rest[0], c.ranges[op.output.name])
    layer = streams.layer(op)
    assert layer is not None, op.output.name
    form = streams.form_of(op, c.plan.packing[op.weight.tensor.name])
    data, how = stored.form(op, form, c)
    starts = dsp.start(op, layer.weight.astype(object).sum(axis=(1, 2)), 2 if short else 1)
    dot = dsp.dot(layer.dot, c)
    block = streams.words(layer.scratch_bytes) // 2
    row = block + streams.words(2 * layer.block) // 2
    return [
        f"nn_conv_stored_dsp({c.at(op.input)}, {data}, (nn_param){c.tables.param(f'{name}_bias', starts)}, {y},",
        f"    (nn_dsp_shape){dsp.shape(op, layer, layer.block, short)},",
        f"    {stages}, {how}, {dot},",
        f"    model_scratch, model_scratch + {block}, model_scratch + {row});",
    ]
