"""Bitwright: one quantized model, one integer meaning, proved equal at every step.

The public surface: load, simulate, emit, build, measure; Graph, Board, Project, Image, Measurement; boards. Names are imported
when first used, so that `import toolchain` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from toolchain import boards
    from toolchain.boards import Board
    from toolchain.errors import ToolchainError
    from toolchain.flow import build, emit, load, measure, simulate
    from toolchain.ir import Graph
    from toolchain.measurement import Measurement
    from toolchain.options import LoadOptions
    from toolchain.project import Image, Project

__all__ = [
    "Board",
    "Graph",
    "Image",
    "LoadOptions",
    "Measurement",
    "Project",
    "ToolchainError",
    "__version__",
    "boards",
    "build",
    "emit",
    "load",
    "measure",
    "simulate",
]

_HOMES = {
    "Board": "boards",
    "Graph": "ir",
    "Image": "project",
    "LoadOptions": "options",
    "Measurement": "measurement",
    "Project": "project",
    "ToolchainError": "errors",
    **dict.fromkeys(("build", "emit", "load", "measure", "simulate"), "flow"),
}


def __getattr__(name: str) -> object:
    if name == "boards":
        return import_module("toolchain.boards")
    if name in _HOMES:
        return getattr(import_module(f"toolchain.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'toolchain' has no attribute {name!r}")
