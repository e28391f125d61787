"""A board emulated by QEMU, its UART on a socket this process holds the other end of.

Rule: under -icount shift=7 an instruction is exactly 128 ns of virtual time, so a tick count is an instruction count
after rounding; each counter interrupt cost 5 instructions (firmware/counter.c), which are taken off.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from toolchain import tools
from toolchain.boards import Board
from toolchain.links import CountKind
from toolchain.links._child import Child, ChildLink, socket_pair
from toolchain.project import Image
from toolchain.protocol import Hello

ICOUNT_SHIFT = 7
INTERRUPT_INSTRUCTIONS = 5
PROGRAMS = {"arm": "qemu-system-arm", "riscv": "qemu-system-riscv32"}


def ticks_per_instruction(board: Board) -> Fraction:
    """The emulator's counter runs on virtual time, at the clock of the board's file."""
    return Fraction((board.emulated_counter_hz or board.clock_hz) << ICOUNT_SHIFT, 1_000_000_000)


class QemuLink(ChildLink):
    count_kind: CountKind = "instructions"

    def __init__(self, image: Image, board: Board) -> None:
        self.where, self._board = board.name, board
        self._tool = tools.require(PROGRAMS[board.compiler])
        own, theirs = socket_pair()
        argv = [str(self._tool.path), "-M", board.machine, "-nodefaults", "-display", "none", "-monitor", "none"]
        argv += ["-bios", "none"] if board.compiler == "riscv" else []
        argv += ["-icount", f"shift={ICOUNT_SHIFT}", "-chardev", f"socket,id=line,fd={theirs.fileno()}"]
        argv += ["-serial", "chardev:line", "-kernel", str(image.path.resolve())]
        self.child = Child(self.where, argv, own, theirs, stdio=False)

    @property
    def versions(self) -> Mapping[str, str]:
        return {self._tool.name: self._tool.version or "unknown"}

    def to_count(self, ticks: int, interrupts: int, hello: Hello) -> int:
        net = super().to_count(ticks, interrupts, hello)
        return round(net / ticks_per_instruction(self._board)) - INTERRUPT_INSTRUCTIONS * interrupts


def open(image: Image, board: Board, port: str | None = None) -> QemuLink:  # noqa: A001
    return QemuLink(image, board)
