"""The QKeras front end: .h5 and .keras files and live keras.Model objects, read without any framework.

Its one rule: QKeras' own arithmetic is reproduced, not guessed; what is not supported is refused by name.
"""

from __future__ import annotations

from pathlib import Path

from toolchain.frontends.qkeras import archive

__all__ = ["accepts"]


def accepts(source: object) -> bool:
    """True for a .h5, .hdf5 or .keras path and for a live keras.Model."""
    if archive.is_live(source):
        return True
    return isinstance(source, (str, Path)) and str(source).endswith((".h5", ".hdf5", ".keras"))
