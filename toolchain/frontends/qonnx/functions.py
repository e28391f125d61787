"""Operators that a file defines in terms of others (FunctionProto): put in place, so that what follows sees plain nodes.

Its one rule: a definition of a QONNX quantizer is left out, for the operator is known by its own specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import archive
from toolchain.frontends.qonnx.constants import first_line

if TYPE_CHECKING:
    from onnx import ModelProto

QUANTIZERS = {"Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant", "MultiThreshold"}


def inlined(where: str, proto: ModelProto, notes: list[str]) -> ModelProto:
    """The model without local functions; the same object where it has none."""
    if not proto.functions:
        return proto
    from onnx import inliner

    kept = [(f.domain, f.name) for f in proto.functions if f.name in QUANTIZERS and archive.is_qonnx(f.domain)]
    names = {(f.domain, f.name) for f in proto.functions} - set(kept)
    try:
        flat: ModelProto = inliner.inline_selected_functions(proto, kept, exclude=True)
    except Exception as e:  # the library's C++ throws what it likes
        raise UnsupportedError(
            where, f"its functions cannot be put in place ({first_line(e)})", "export without functions"
        ) from None
    left = [node for node in flat.graph.node if (node.domain, node.op_type) in names]
    if left:
        raise UnsupportedError(
            where,
            f"function {left[0].domain}.{left[0].op_type} cannot be put in place: it is of another opset than the model",
            "export without functions",
        )
    if names:
        notes.append(f"{len(names)} functions of the file are put in place: {', '.join(sorted(n for _, n in names))}")
    return flat
