"""The TFLite front end: .tflite files quantized to int8 (and int16 activations with int8 weights), read without TensorFlow.

Its one rule: the graph computes what TensorFlow Lite Micro computes of the file, integer for integer; the rest is refused by name.
"""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import ToolchainError
from toolchain.ir import Graph
from toolchain.options import LoadOptions

SOURCES = ".tflite files (int8, int16x8)"


def accepts(source: object) -> bool:
    """True for a .tflite path."""
    return isinstance(source, (str, Path)) and str(source).lower().endswith(".tflite")


def load(source: object, options: LoadOptions | None = None) -> Graph:
    """The integer graph of the file; UnsupportedError names the operator and what is supported instead."""
    from toolchain.frontends.tflite import archive
    from toolchain.frontends.tflite.lowering import lower_model

    assert isinstance(source, (str, Path))
    if options is not None and options.input_type is not None:
        raise ToolchainError("--input-type", f"is given, but {source} says its own input types", "leave it out")
    return lower_model(archive.read(Path(source)))
