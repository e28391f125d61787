"""A board emulated by QEMU, its UART on a socket this process holds the other end of.

Rule: under -icount shift=7 an instruction is exactly 128 ns of virtual time, so a tick count is an instruction count
after rounding; each counter interrupt cost 5 instructions (firmware/counter.c), which are taken off.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from fractions import Fraction

from toolchain.boards import Board
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.links import CountKind, Link
from toolchain.links._child import Child, socket_pair
from toolchain.project import Image
from toolchain.protocol import Hello

ICOUNT_SHIFT = 7
INTERRUPT_INSTRUCTIONS = 5
PROGRAMS = {"arm": ("qemu-system-arm", "QEMU_SYSTEM_ARM"), "riscv": ("qemu-system-riscv32", "QEMU_SYSTEM_RISCV32")}


def ticks_per_instruction(board: Board, counter: str) -> Fraction:
    """QEMU's mcycle counts virtual nanoseconds, its other counters their own clock."""
    hz = 1_000_000_000 if counter == "mcycle" else board.emulated_counter_hz or board.clock_hz
    return Fraction(hz << ICOUNT_SHIFT, 1_000_000_000)


class QemuLink(Link):
    count_kind: CountKind = "instructions"

    def __init__(self, image: Image, board: Board) -> None:
        self.where, self._board = board.name, board
        name, variable = PROGRAMS[board.compiler]
        program = os.environ.get(variable) or shutil.which(name)
        if not program:
            raise MissingToolError(
                name, "not found on PATH", f"set {variable} to its path, or use board unicorn_m4 or native"
            )
        self._program, self._program_name = program, name
        own, theirs = socket_pair()
        argv = [program, "-M", board.machine, "-nodefaults", "-display", "none", "-monitor", "none"]
        argv += ["-bios", "none"] if board.compiler == "riscv" else []
        argv += ["-icount", f"shift={ICOUNT_SHIFT}", "-chardev", f"socket,id=line,fd={theirs.fileno()}"]
        argv += ["-serial", "chardev:line", "-kernel", str(image.path.resolve())]
        self.child = Child(self.where, argv, own, theirs, stdio=False)

    def send(self, data: bytes) -> None:
        self.child.send(data)

    def recv(self, n: int, timeout_s: float) -> bytes:
        return self.child.recv(n, timeout_s)

    def close(self) -> None:
        self.child.close()

    @property
    def versions(self) -> Mapping[str, str]:
        try:
            said = subprocess.run([self._program, "--version"], capture_output=True, text=True, timeout=10).stdout
        except (OSError, subprocess.TimeoutExpired):
            return {}
        found = re.search(r"version (\S+)", said)
        return {self._program_name: found[1] if found else "unknown"}

    def to_count(self, ticks: int, interrupts: int, hello: Hello) -> int:
        net = super().to_count(ticks, interrupts, hello)
        return round(net / ticks_per_instruction(self._board, hello.counter)) - INTERRUPT_INSTRUCTIONS * interrupts


def open(image: Image, board: Board, port: str | None = None) -> QemuLink:  # noqa: A001
    if port is not None:
        raise ToolchainError(board.name, "has no port: it is emulated", "leave --port out")
    return QemuLink(image, board)
