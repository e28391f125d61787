"""An RP2040 emulated by rp2040js under Node.js: the image of a Pico, its UART0 on a pipe.

Rule: ticks are cycles of rp2040js's model of the Cortex-M0+, no measurement: it has no cache misses of the flash, and it enters
and leaves an interrupt in no time, so that each SysTick interrupt cost the cycles of its five instructions, which are taken off.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from toolchain import tools
from toolchain.boards import Board
from toolchain.errors import ToolchainError
from toolchain.links import CountKind
from toolchain.links._child import Child, ChildLink, socket_pair
from toolchain.project import Image, elf_segments
from toolchain.protocol import Hello

START_S = 60.0  # Node.js on a busy machine; only then does the time of a request begin
INTERRUPT_CYCLES = 9  # of firmware/counter.c: ldr, ldr, adds, str, bx


class Rp2040jsLink(ChildLink):
    count_kind: CountKind = "modelled"

    def __init__(self, image: Image, board: Board) -> None:
        self.where = board.name
        self._tools = tools.require("node"), tools.require("rp2040js")
        node, package = (tool.path for tool in self._tools)
        own, theirs = socket_pair()
        script = Path(__file__).with_name("rp2040js_run.mjs")
        self.child = Child(self.where, [str(node), str(script), str(package)], own, theirs, stdio=True)
        flash = bytearray()
        for address, data in elf_segments(image.path.read_bytes()):
            at = address - board.flash_origin
            flash += bytes(max(0, at + len(data) - len(flash)))
            flash[at : at + len(data)] = data
        self.child.send(struct.pack("<I", len(flash)) + flash)
        if self.child.recv(1, START_S) != b"\0":
            self.child.close()
            raise ToolchainError(
                self.where, f"rp2040js did not start within {START_S:g} s", "is this machine very busy?"
            )

    @property
    def versions(self) -> Mapping[str, str]:
        return {tool.name: tool.version or "unknown" for tool in self._tools}

    def to_count(self, ticks: int, interrupts: int, hello: Hello) -> int:
        return super().to_count(ticks, interrupts, hello) - INTERRUPT_CYCLES * interrupts


def open(image: Image, board: Board, port: str | None = None) -> Rp2040jsLink:  # noqa: A001
    return Rp2040jsLink(image, board)
