"""The models of examples/zoo, and what their files do not say of their inputs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from toolchain.options import LoadOptions

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"
NAMES = sorted(path.stem for path in ZOO.glob("*.onnx"))
# no quantizer reads their input first; one step of it in the data's own units
RAW = {"digits_bare_4": 16, "digits_centred_2": 16, "fashion_bare_4": 255}


def options(name: str) -> LoadOptions:
    return LoadOptions((8, False), Fraction(1, RAW[name])) if name in RAW else LoadOptions()
