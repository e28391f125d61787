"""The Verilog top of an FPGA board, simulated clock by clock, its UART at bit level on a pseudo-terminal.

Rule: what answers is the RTL, but its core is a stand-in whose clocks somebody chose: nothing here is a count of the network.
"""

from __future__ import annotations

import atexit
import os
import pty
import subprocess
import tempfile
import time
import tty
from collections.abc import Sequence

from toolchain import children
from toolchain.boards import Board
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.links import CountKind, Link
from toolchain.links.serial import SerialLink
from toolchain.project import Image

LOOK_S = 0.2  # between two looks whether the simulation still runs
TERMINAL_BAUD = 115_200  # of a pseudo-terminal, where it means nothing


class VerilatorLink(Link):
    """The simulation holds the terminal's master side; this end opens its slave by name, as it would a board's port."""

    count_kind: CountKind = "none"

    def __init__(self, image: Image, board: Board, arguments: Sequence[str] = ()) -> None:
        """`arguments` go to the program: clocks per bit of the line, where they are not the design's."""
        self.where = board.name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        master, self._slave = pty.openpty()
        tty.setraw(self._slave)  # before the first byte: a cooked terminal would echo it
        try:
            self._process = subprocess.Popen(
                [str(image.path.resolve()), str(master), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=self._log.fileno(),
                stderr=self._log.fileno(),
                pass_fds=(master,),
                cwd=image.path.resolve().parent,  # hls4ml's C++ reads its constants from the project's folder
                preexec_fn=children.die_with_parent(),
            )
        except OSError as error:
            os.close(self._slave)
            self._log.close()
            what = f"{image.path} cannot be started: {error.strerror}"
            raise MissingToolError(board.name, what, "build it again") from None
        finally:
            os.close(master)
        atexit.register(self.close)
        self.port = os.ttyname(self._slave)
        self._serial = SerialLink(self.port, TERMINAL_BAUD)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, data: bytes) -> None:
        try:
            self._serial.send(data)
        except ToolchainError as error:
            raise self._ended(error) from None

    def recv(self, n: int, timeout_s: float) -> bytes:
        """This end keeps the terminal open, so nothing hangs up when the simulation ends: it is looked after."""
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self._process.poll() is not None
            try:
                data = self._serial.recv(n, max(0.0, min(LOOK_S, deadline - time.monotonic())))
            except ToolchainError as error:
                raise self._ended(error) from None
            if data:
                return data
            if ended:
                raise self._ended(None)
            if time.monotonic() >= deadline:
                return b""

    def _ended(self, error: ToolchainError | None) -> ToolchainError:
        code = self._process.poll()
        if code is None and error is not None:
            return error
        self._log.seek(0)
        said = "\n".join(self._log.read().decode("utf-8", "replace").splitlines()[:4])
        return ToolchainError(
            self.where, f"the simulation ended by itself (exit {code})" + (f": {said}" if said else "")
        )

    def close(self) -> None:
        atexit.unregister(self.close)
        if self._log.closed:
            return
        self._serial.close()
        os.close(self._slave)
        children.end(self._process)
        self._log.close()


def open(image: Image, board: Board, port: str | None = None) -> VerilatorLink:  # noqa: A001
    return VerilatorLink(image, board)
