"""The layers of docs/architecture.md, read from the imports themselves.

`ir` knows numpy only; front ends and back ends never know each other; only flow and cli know everything; frameworks are
imported inside the function that needs them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

HEAVY = {
    "brevitas", "capstone", "h5py", "hls4ml", "keras", "onnx", "onnxoptimizer", "onnxruntime", "qkeras", "qonnx", "serial", "tensorflow", "tf_keras", "torch",
    "unicorn",
}  # fmt: skip

# A room and the rooms it may import besides itself. Plan is pure data that the passes make and the back ends read.
CORE = {"ir", "project", "boards", "errors"}
ROOMS = {
    "errors": set[str](),
    "ir": {"errors"},
    "reference": CORE,
    "passes": CORE | {"estimate", "fifos", "folding", "forms", "layout", "overlap", "special_kernels"},
    "frontends": CORE | {"framework", "options"},
    "backends": CORE
    | {
        "__version__",
        "bitstream",
        "data",
        "firmware",
        "forms",
        "fpga_boards",
        "layout",
        "overlap",
        "passes.plan",
        "special_kernels",
        "vendor_steps",
    },
    "forms": {"ir"},
    "compress": CORE,
}
ONLY = {"errors": set[str](), "ir": {"numpy"}}  # the third-party packages of a room that may not have any
TOP = {"", "__init__", "__main__", "cli", "demo", "flow"}  # these import all; demo is a verb too long for cli
PLUGINS = {"frontends", "backends"}


def imports(path: Path, package: tuple[str, ...]) -> Iterator[tuple[int, str, bool]]:
    """(line, absolute dotted name, whether it runs when the module is imported) of each import in a file."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, at_import) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = package[: len(package) - child.level + 1] if child.level else ()
                base = ".".join((*above, *((child.module,) if child.module else ())))
                yield from ((child.lineno, f"{base}.{alias.name}", at_import) for alias in child.names)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(ast.Module(child.body, []), False)
                yield from walk(ast.Module(child.orelse, []), at_import)
            else:
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, at_import and not function)

    yield from walk(ast.parse(path.read_text(), str(path)), True)


def plugin(parts: tuple[str, ...]) -> str:
    """The front end or back end that a module belongs to: qkeras, qkeras_layers, qkeras/...; _common belongs to all."""
    return parts[1].split("_")[0] if len(parts) > 1 and parts[0] in PLUGINS else ""


def judge(room: str, own: str, name: str, known: set[str]) -> str:
    """What is wrong with a module of `room` (and plug-in `own`) importing toolchain.`name`; empty where all is well."""
    if room in TOP:
        return ""
    parts = tuple(name.split("."))
    other = plugin(parts)
    if parts[0] == room:
        in_known = ".".join(parts[:2]) in known
        return f"{own} and {other} may not know each other" if own and other and in_known and own != other else ""
    if room not in ROOMS:
        return "only flow and cli import it" if other or parts[0] in {"flow", "cli"} else ""
    allowed = ROOMS[room]
    if parts[0] in allowed or ".".join(parts[:2]) in allowed or not parts[0]:
        return ""
    return f"{room} may import only {', '.join(sorted(allowed)) or 'nothing'} of toolchain"


def violations(package: Path) -> list[str]:
    """Every import below `package` (a folder called toolchain) that breaks a layer."""
    found = []
    paths = sorted(package.rglob("*.py"))
    known = {".".join(path.relative_to(package).with_suffix("").parts) for path in paths}
    known |= {name.removesuffix(".__init__") for name in known}
    for path in paths:
        parts = path.relative_to(package).with_suffix("").parts
        room, own = parts[0], plugin(parts)
        for line, name, at_import in imports(path, (package.name, *parts[:-1])):
            top, _, rest = name.partition(".")
            where = f"{path.relative_to(package.parent)}:{line}: imports {name}: "
            if top == package.name:
                wrong = judge(room, own, rest, known)
            elif top in HEAVY and at_import:
                wrong = "import it inside the function that needs it"
            elif room in ONLY and top not in ONLY[room] and top not in sys.stdlib_module_names:
                wrong = f"{room} may import only {', '.join(['the standard library', *sorted(ONLY[room])])}"
            else:
                wrong = ""
            if wrong:
                found.append(where + wrong)
    return found


def test_layers() -> None:
    assert violations(ROOT / "toolchain") == []


PLANTED = {
    ("ir/graph.py", "import rich"): "ir may import only the standard library, numpy",
    ("ir/graph.py", "from toolchain.boards import Board"): "ir may import only errors of toolchain",
    ("ir/graph.py", "def f():\n    from .. import flow"): "ir may import only errors of toolchain",
    ("errors.py", "import numpy"): "errors may import only the standard library",
    ("reference.py", "from toolchain import flow"): (
        "reference may import only boards, errors, ir, project of toolchain"
    ),
    ("passes/fusion.py", "from toolchain.backends import c"): (
        "passes may import only boards, errors, estimate, fifos, folding, forms, ir, layout, overlap, project, special_kernels of toolchain"
    ),
    ("backends/c.py", "from toolchain.passes import fusion"): (
        "backends may import only __version__, bitstream, boards, data, errors, firmware, forms, fpga_boards, ir, layout, overlap, passes.plan, project, special_kernels, vendor_steps of toolchain"
    ),
    ("backends/c.py", "from .verilog import emit"): "c and verilog may not know each other",
    ("frontends/qkeras.py", "from toolchain.frontends.brevitas import load"): (
        "qkeras and brevitas may not know each other"
    ),
    ("frontends/qkeras.py", "from . import brevitas"): "qkeras and brevitas may not know each other",
    ("frontends/qkeras.py", "from toolchain.backends import c"): (
        "frontends may import only boards, errors, framework, ir, options, project of toolchain"
    ),
    ("measure.py", "def f():\n    from toolchain.backends.c import emit"): "only flow and cli import it",
    ("measure.py", "from toolchain.flow import load"): "only flow and cli import it",
    ("links/serial.py", "import serial"): "import it inside the function that needs it",
    ("cli.py", "try:\n    import tensorflow.keras\nexcept ImportError:\n    pass"): (
        "import it inside the function that needs it"
    ),
    ("flow.py", "class A:\n    from onnx import load"): "import it inside the function that needs it",
}

ALLOWED = {
    "ir/graph.py": "import numpy as np\nimport ast\nfrom toolchain.errors import GraphError\nfrom .types import QType",
    "backends/c.py": "from toolchain.passes.plan import Plan\nfrom ._common import f\nfrom ..layout import tensors",
    "frontends/qkeras/load.py": "from . import layers\nfrom toolchain.frontends import Loaded\nfrom .._common import f",
    "frontends/qkeras_layers.py": "from .qkeras import load",
    "frontends/qonnx.py": "def load(path):\n    import onnx",
    "links/serial.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import serial",
    "flow.py": "from toolchain.backends import c\nfrom toolchain.frontends import qkeras",
    "__init__.py": "from toolchain.flow import load",
}


def plant(root: Path, files: dict[str, str]) -> Path:
    package = root / "toolchain"
    for name in ("backends/c.py", "backends/verilog.py", "frontends/qkeras.py", "frontends/brevitas.py"):
        files = {name: "", **files}
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize(("name", "text"), PLANTED, ids=lambda value: value.split("\n")[-1])
def test_a_planted_violation_is_found(tmp_path: Path, name: str, text: str) -> None:
    found = violations(plant(tmp_path, {name: text}))
    assert len(found) == 1
    assert found[0].startswith(f"toolchain/{name}:")
    assert found[0].endswith(f": {PLANTED[name, text]}")


def test_what_is_allowed_is_not_found(tmp_path: Path) -> None:
    assert violations(plant(tmp_path, dict(ALLOWED))) == []
