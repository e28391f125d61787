"""The text of a graph (`bitwright inspect MODEL --text > model.graph`) as a model: for golden files, tests and hand-written graphs."""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import GraphError, ToolchainError
from toolchain.ir import Graph, parse
from toolchain.options import LoadOptions

SOURCES = ".graph text files"


def accepts(source: object) -> bool:
    return isinstance(source, Path) and source.suffix == ".graph"


def load(source: object, options: LoadOptions) -> Graph:
    """The graph that the file holds; GraphError with its line where it is not one."""
    assert isinstance(source, Path)
    if options.input_type:
        raise ToolchainError(str(source), "says its own input type", "leave out --input-type")
    try:
        return parse(source.read_text())
    except GraphError as error:
        raise GraphError(str(source), str(error)) from None
    except UnicodeDecodeError:
        raise ToolchainError(str(source), "is not text, must be the text of a graph") from None
