"""Calls of the kernels of nn_stored.h: the general ones, with weights that lie in flash as toolchain/forms/stored.py says.

One rule: the format is the one that the Plan names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain.forms import stored
from toolchain.ir import ops
from toolchain.layout import SIZES, ctype

from .general import general
from .tables import CODES, fields

if TYPE_CHECKING:
    from .calls import Context

SOURCE = ""
GUARD = ""
ZEROS = {stored.ALL: "NN_ALL_VALUES", stored.BITMAP: "NN_BITMAP", stored.INDEX: "NN_INDEX"}


def header(op: ops.Mac) -> str:
    return "nn_stored.h"


def call(op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
    """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""
    data, how = form(op, stored.form_of(op, c.plan.packing[op.weight.tensor.name]), c)
    wide = bool(c.wide(op.output))
    scratch = stored.scratch_bytes(op, stored.NAME, SIZES[ctype(op.weight.tensor.qtype)], wide)
    kernel, start, shape = general(op, CODES[ctype(op.weight.tensor.qtype)], name, c)
    return [
        f"{kernel}_stored({c.at(op.input)}, {data}, (nn_param){start}, {y},",
        f"    {shape},",
        f"    {stages},",
        f"    {how}, {'model_scratch' if scratch else '0'});",
    ]


def form(op: ops.Mac, form: stored.Stored, c: Context) -> tuple[str, str]:
    """The C name of the stream, and nn_stored_form."""
    data, table, table_code = c.tables.packed(op.weight, form)
    digits, bits = form.group
    how: dict[str, object] = {"levels": form.levels, "digits": digits, "bits": bits, "low": form.low, "step": form.step}
    if form.tables is not None:
        how |= {"table": table, "table_type": table_code, "each": form.levels if len(form.tables) > 1 else 0}
    how |= {"zeros": ZEROS[form.zeros], "gap": form.gap, "type": CODES[ctype(op.weight.tensor.qtype)]}
    how["bytes"] = form.stream_bytes
    return data, f"(nn_stored_form){fields(**how)}"
