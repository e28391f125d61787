"""An ATmega328P simulated cycle by cycle by simavr: its USART0 on a pipe, through simavr_run.c, compiled for this machine.

Rule: ticks are cycles of the simulated core, which has neither cache nor wait states; each interrupt of the counter took always as
many, which are taken off.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from toolchain import tools
from toolchain.boards import Board
from toolchain.errors import MissingToolError
from toolchain.links import CountKind
from toolchain.links._child import Child, ChildLink, socket_pair
from toolchain.project import Image
from toolchain.protocol import Hello

INTERRUPT_CYCLES = 37  # of firmware/counter.c: 3 for the jump of the vector table, 34 behind it; simavr enters it in no time, silicon in 4


@functools.cache
def _runner() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """simavr_run.c, compiled once for this process, and the folder that goes with it."""
    compiler = tools.compiler("host", "host")
    folder = tempfile.TemporaryDirectory(prefix="bitwright-simavr-")
    product = Path(folder.name) / "simavr_run"
    source = Path(__file__).with_name("simavr_run.c")
    argv = [*compiler.argv, *compiler.flags, "-O2", str(source), "-lsimavr", "-o", str(product)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        said = next(
            (line for line in done.stderr.splitlines() if "error" in line or "cannot find" in line), "it failed"
        )
        raise MissingToolError("libsimavr", f"cannot be compiled against: {said}", "apt-get install libsimavr-dev gcc")
    return folder, product


class SimavrLink(ChildLink):
    count_kind: CountKind = "simulated"

    def __init__(self, image: Image, board: Board) -> None:
        self.where = board.name
        self._tool = tools.require("simavr")
        _, runner = _runner()
        own, theirs = socket_pair()
        argv = [str(runner), str(image.path.resolve()), board.core, str(board.clock_hz)]
        self.child = Child(self.where, argv, own, theirs, stdio=True)

    @property
    def versions(self) -> Mapping[str, str]:
        return {"simavr": self._tool.version or "unknown"}

    def to_count(self, ticks: int, interrupts: int, hello: Hello) -> int:
        return super().to_count(ticks, interrupts, hello) - INTERRUPT_CYCLES * interrupts


def open(image: Image, board: Board, port: str | None = None) -> SimavrLink:  # noqa: A001
    return SimavrLink(image, board)
