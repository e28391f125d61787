"""The Brevitas front end: a live torch.nn.Module, exported to QONNX in memory and dispatched again.

Its one rule: what Brevitas' exporter gets wrong is put right here and nowhere else; what no QONNX file can say is refused with
the module's path. The module itself is only ever copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.options import LoadOptions

if TYPE_CHECKING:
    from toolchain.framework import Program

SOURCES = "live torch.nn.Module objects built with Brevitas"


def accepts(source: object) -> bool:
    """True for a live torch.nn.Module, told without importing torch."""
    return any(c.__name__ == "Module" and c.__module__.startswith("torch.nn.") for c in type(source).__mro__)


def load(source: object, options: LoadOptions | None = None) -> Any:
    """The module as an onnx.ModelProto, to be dispatched again; UnsupportedError names the module's path."""
    from toolchain.frontends.brevitas import export

    return export.run(source, options or LoadOptions()).model


def program(source: object, options: LoadOptions) -> tuple[Any, Program]:
    """For verify: what load() gives, and what the module itself computes, by the names of the tensors of that file."""
    from toolchain.frontends.brevitas import export, oracle

    exported = export.run(source, options)
    return exported.model, oracle.program(source, exported)
