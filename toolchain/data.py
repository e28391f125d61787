"""Where the data folders are: boards, firmware_templates, examples.

Its one rule: a checkout keeps them beside the package, a wheel inside it (`_data`); nobody else joins such a path.
"""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import ToolchainError, nearest

FOLDERS = ("boards", "examples", "firmware_templates")


def folder(name: str) -> Path:
    """The folder `name`, from the checkout that this package is in, else from the installed wheel."""
    if name not in FOLDERS:
        raise ToolchainError(f"data folder {name!r}", f"is none of {', '.join(FOLDERS)}", nearest(name, FOLDERS))
    package = Path(__file__).resolve().parent
    for candidate in (package.parent / name, package / "_data" / name):
        if candidate.is_dir():
            return candidate
    raise ToolchainError(
        f"data folder {name!r}", f"is neither beside {package} nor in {package / '_data'}", "install bitwright again"
    )
