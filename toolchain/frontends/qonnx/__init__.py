"""The QONNX front end: .onnx files and ModelProto objects in QONNX, QCDQ and QOp dialects, read with the onnx package alone.

Its one rule: the graph is the exact real meaning of the file; what is not supported is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.ir import Graph
from toolchain.options import LoadOptions

if TYPE_CHECKING:
    from toolchain.framework import Program, Run

SOURCES = ".onnx files and live onnx.ModelProto objects (QONNX, QCDQ, QOp)"


def accepts(source: object) -> bool:
    """True for a .onnx path and for a live onnx.ModelProto."""
    if isinstance(source, (str, Path)):
        return str(source).lower().endswith(".onnx")
    return type(source).__name__ == "ModelProto" and type(source).__module__.startswith("onnx")


def load(source: object, options: LoadOptions | None = None) -> Graph:
    """The integer graph of the model; UnsupportedError names the node and what is supported instead."""
    from toolchain.frontends.qonnx import archive, dialects
    from toolchain.frontends.qonnx.lowering import lower_model

    chosen = options or LoadOptions()
    return lower_model(dialects.rewrite(archive.read(source, chosen)), chosen).graph


def framework(source: object, options: LoadOptions, program: Program | None = None) -> Run:
    """For verify: what to call for what qonnx and onnxruntime compute of each tensor that the graph has; or what `program`
    does, the source that this one was converted from."""
    from toolchain.frontends.qonnx import oracle

    return oracle.run(source, options, program)
