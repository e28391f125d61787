"""A board on a serial port, through pyserial.

Rule: the port is named by the user and opened as it is; if it is not there, the error lists those that are.
"""

from __future__ import annotations

import importlib
from typing import Any

from toolchain.boards import Board
from toolchain.errors import MissingToolError, ToolchainError, nearest
from toolchain.links import CountKind, Link
from toolchain.project import Image


def ports() -> tuple[str, ...]:
    """The serial ports of this machine."""
    list_ports: Any = importlib.import_module("serial.tools.list_ports")
    return tuple(sorted(port.device for port in list_ports.comports()))


class SerialLink(Link):
    count_kind: CountKind = "counted"

    def __init__(self, port: str, baud: int) -> None:
        try:
            serial: Any = importlib.import_module("serial")
        except ImportError:
            raise MissingToolError("pyserial", "not installed", "pip install pyserial") from None
        self.where = port
        self._fault: type[Exception] = serial.SerialException
        try:
            # exclusive: two commands on one board would take each other's answers
            self._port: Any = serial.serial_for_url(port, baud, timeout=0, write_timeout=10, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as error:
            raise _cannot_open(port, error) from None
        self._port.reset_input_buffer()

    def send(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (self._fault, OSError) as error:
            raise ToolchainError(self.where, f"cannot be written: {error}", "is the board still plugged in?") from None

    def recv(self, n: int, timeout_s: float) -> bytes:
        try:
            self._port.timeout = timeout_s
            data = bytes(self._port.read(1))
            self._port.timeout = 0
            return data + bytes(self._port.read(n - 1)) if data and n > 1 else data
        except (self._fault, OSError) as error:
            raise ToolchainError(self.where, f"cannot be read: {error}", "is the board still plugged in?") from None

    def close(self) -> None:
        self._port.close()


def _cannot_open(port: str, error: Exception) -> ToolchainError:
    found = ports()
    if port not in found and getattr(error, "errno", None) in (None, 2):
        there = f"ports on this machine: {', '.join(found)}" if found else "this machine has no serial port"
        return ToolchainError(port, "no such port", " ".join(filter(None, [nearest(port, found), there])))
    return ToolchainError(
        port, f"cannot be opened: {error}", "is another program using it, and may you (group dialout)?"
    )


def open(image: Image, board: Board, port: str | None = None) -> SerialLink:  # noqa: A001
    if port is None:
        found = ports()
        there = f"ports on this machine: {', '.join(found)}" if found else "this machine has no serial port"
        raise ToolchainError(board.name, "is reached over a serial port and none was named", f"give --port; {there}")
    return SerialLink(port, board.baud)
