"""Writing files so that an interrupted or failed command leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from toolchain.errors import ToolchainError


def write_text(path: Path, text: str) -> None:
    _replace(path, lambda file: file.write(text.encode()))


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Member by member: np.savez takes the names as keywords, so that an output named `file` fails and one named
    `allow_pickle` is left out."""
    import zipfile

    import numpy as np

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)

    _replace(path, write)


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ToolchainError(str(path), f"cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if isinstance(error, OSError):
            raise ToolchainError(str(path), f"cannot be written: {error.strerror}") from None
        raise
