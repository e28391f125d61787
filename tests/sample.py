"""The sample model of firmware_templates/c/sample in Python, and its images, built once a run for each board and compiler."""

from __future__ import annotations

import functools
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from toolchain import boards, data, firmware, tools
from toolchain.errors import MissingToolError
from toolchain.links import Link, open_link
from toolchain.project import Image, Project
from toolchain.protocol import Session

GRAPH_DIGEST = "5a3d1e00c0ffee0000000000000000000000000000000000000000000000beef"
X, ROUNDS, Y, TOTAL, ARENA = range(5)  # tensor numbers
STARTS = (0, 1, 2, 3)  # the state's initial value
EMULATED = (
    "qemu_mps2_an385",
    "qemu_mps2_an386",
    "qemu_mps2_an500",
    "qemu_mps2_an505",
    "qemu_mps3_an547",
    "qemu_microbit",
    "qemu_virt_rv32",
    "qemu_netduinoplus2",
    "rp2040js_pico",
    "simavr_uno",
    "unicorn_m4",
)
FAMILIES = ("gcc", "clang")


def inputs(seed: int = 0) -> bytes:
    return bytes((7 * i * i + 13 * seed + i) & 0xFF for i in range(300))


def _signed(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def expect(x: bytes, rounds: int, total: Sequence[int] = STARTS) -> tuple[int, ...]:
    """y, which is also the next total."""
    out = []
    for lane in range(4):
        value = lane + 1 + sum((b - 256 if b > 127 else b) * (i + 1) for i, b in enumerate(x))
        value %= 1 << 32
        for r in range(rounds):
            value = (value * 1664525 + 1013904223) % (1 << 32) if value & 1 else value >> 1 ^ r
        out.append(_signed(value + total[lane]))
    return tuple(out)


@dataclass(frozen=True)
class Toolbox:
    """toolchain.tools, insisting on one family of compilers."""

    family: str | None

    def compiler(self, kind: str, core: str) -> tools.Compiler:
        return tools.compiler(kind, core, self.family)  # type: ignore[arg-type]


def model_files() -> dict[str, str]:
    folder = data.folder("firmware_templates") / "c" / "sample"
    return {name: (folder / name).read_text() for name in ("model.h", "model_debug.h", "model.c")}


def project(board: str, defines: Sequence[str] = ()) -> Project:
    return firmware.project(boards.load(board), "sample", GRAPH_DIGEST, model_files(), defines)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bitwright-sample-")


@functools.cache
def _image(board: str, family: str | None, defines: Sequence[str]) -> Image | str:
    folder = Path(_scratch().name) / f"{board}-{family}-{len(list(Path(_scratch().name).iterdir()))}"
    try:
        return project(board, defines).build(folder, Toolbox(family))
    except MissingToolError as error:
        return str(error)


def image(board: str, family: str | None = None, defines: Sequence[str] = ()) -> Image:
    """The sample model's image; the test is skipped where its compiler is missing."""
    made = _image(board, family, tuple(defines))
    if isinstance(made, str):
        pytest.skip(made)
    return made


def open_board(board: str, family: str | None = None, defines: Sequence[str] = ()) -> Link:
    """A link to a freshly started board; the test is skipped where its emulator is missing."""
    made = image(board, family, defines)
    try:
        return open_link(made, boards.load(board))
    except MissingToolError as error:
        pytest.skip(str(error))


def run(session: Session, x: bytes, rounds: int) -> tuple[int, ...]:
    session.write(X, x)
    session.write(ROUNDS, struct.pack("<I", rounds))
    session.run()
    return struct.unpack("<4i", session.read(Y, 16))
