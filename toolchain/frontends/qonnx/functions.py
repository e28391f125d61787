"""Operators that a file defines in terms of others (FunctionProto): put in place, so that what follows sees plain nodes.

Its one rule: a definition of a QONNX quantizer is left out, for the operator is known by its own specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import archive
from toolchain.frontends.qonnx.constants import first_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_TRY = "export without functions"
MOST_NODES = 100_000
QUANTIZERS = {"Quant", "IntQuant", "BipolarQuant", "Trunc", "FloatQuant", "MultiThreshold"}


def inlined(where: str, proto: ModelProto, notes: list[str]) -> ModelProto:
    """The model without local functions; the same object where it has none."""
    if not proto.functions:
        return proto
    from onnx import inliner

    kept = [(f.domain, f.name) for f in proto.functions if f.name in QUANTIZERS and archive.is_qonnx(f.domain)]
    names = {(f.domain, f.name) for f in proto.functions} - set(kept)
    _check_size(where, proto)
    try:
        flat: ModelProto = inliner.inline_selected_functions(proto, kept, exclude=True)
    except Exception as e:  # the library's C++ throws what it likes
        raise UnsupportedError(where, f"its functions cannot be put in place ({first_line(e)})", _TRY) from None
    left = [node for node in flat.graph.node if (node.domain, node.op_type) in names]
    if left:
        raise UnsupportedError(
            where,
            f"function {left[0].domain}.{left[0].op_type} cannot be put in place: it is of another opset than the model",
            _TRY,
        )
    if names:
        notes.append(f"functions of the file are put in place: {', '.join(sorted(n for _, n in names))}")
    return flat


def _check_size(where: str, proto: ModelProto) -> None:
    """Refuses functions that call themselves, on which the inliner's C++ would end the process, and those without end."""
    functions = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    open_: set[tuple[str, str]] = set()

    def size(nodes: Iterable[NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                if key in open_ or len(open_) > 50:
                    raise UnsupportedError(where, f"function {'.'.join(key)} calls itself, or too many others", _TRY)
                open_.add(key)
                sizes[key] = size(functions[key].node)
                open_.discard(key)
            total += sizes.get(key, 1)
        return total

    for name in functions:  # also those that nothing calls: the inliner reads them all
        size(functions[name].node)
    if size(proto.graph.node) > MOST_NODES:
        raise UnsupportedError(where, f"its functions in place make more than {MOST_NODES:,} nodes", _TRY)
