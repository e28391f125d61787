"""The QONNX front end: .onnx files and ModelProto objects in QONNX, QCDQ and QOp dialects, read with the onnx package alone.

Its one rule: the graph is the exact real meaning of the file; what is not supported is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolchain.ir import Graph
from toolchain.options import LoadOptions

if TYPE_CHECKING:
    from toolchain.framework import Shown

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


def framework(source: object, options: LoadOptions, reals: Mapping[str, np.ndarray]) -> list[Shown]:
    """For verify: what qonnx or onnxruntime computes of each tensor that the graph has. Needs them installed."""
    from toolchain.frontends.qonnx import oracle

    return oracle.run(source, options, reals)
