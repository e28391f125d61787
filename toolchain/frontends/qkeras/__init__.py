"""The QKeras front end: .h5 and .keras files and live keras.Model objects, read without any framework.

Its one rule: QKeras' own arithmetic is reproduced, not guessed; what is not supported is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.frontends.qkeras import archive
from toolchain.ir import Graph
from toolchain.options import LoadOptions

if TYPE_CHECKING:
    from toolchain.framework import Program, Run

SOURCES = ".h5 and .keras files, live keras.Model objects"


def accepts(source: object) -> bool:
    """True for a .h5, .hdf5 or .keras path and for a live keras.Model."""
    if archive.is_live(source):
        return True
    return isinstance(source, (str, Path)) and str(source).lower().endswith((".h5", ".hdf5", ".keras"))


def load(source: object, options: LoadOptions | None = None) -> Graph:
    """The integer graph of the model; UnsupportedError names the layer and what is supported instead."""
    from toolchain.frontends.qkeras.lowering import lower_model

    return lower_model(archive.read(source), options or LoadOptions()).graph


def framework(source: object, options: LoadOptions, program: Program | None = None) -> Run:
    """For verify: what to call for what QKeras computes of each layer that the graph has a tensor for. Needs it installed."""
    from toolchain.frontends.qkeras import oracle

    return oracle.run(source, options)
