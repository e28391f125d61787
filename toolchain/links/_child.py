"""A child process with a pipe to it, for the links that start one.

Rule: it dies with this process, even if this process is killed; where the system cannot be asked for that, its pipe closing
and `atexit` must do.
"""

from __future__ import annotations

import atexit
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from toolchain import children
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.links import Link


class Child:
    """A process and the socket that is its serial line."""

    def __init__(
        self,
        where: str,
        argv: Sequence[str],
        own: socket.socket,
        theirs: socket.socket,
        stdio: bool,
        folder: Path | None = None,
    ) -> None:
        self.where, self._socket = where, own
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=theirs.fileno() if stdio else subprocess.DEVNULL,
                stdout=theirs.fileno() if stdio else self._log.fileno(),
                stderr=self._log.fileno(),
                pass_fds=() if stdio else (theirs.fileno(),),
                preexec_fn=children.die_with_parent(),
                cwd=folder,
            )
        except OSError as error:
            own.close()
            self._log.close()
            raise MissingToolError(
                where, f"{argv[0]} cannot be started: {error.strerror}", "run `bitwright doctor`"
            ) from None
        finally:
            theirs.close()
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, data: bytes, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while data:
            if not select.select([], [self._socket], [], max(0.0, deadline - time.monotonic()))[1]:
                raise ToolchainError(self.where, f"took no byte for {timeout_s:g} s", "it hangs; start again")
            try:
                data = data[self._socket.send(data) :]
            except OSError:
                raise self._ended() from None

    def recv(self, n: int, timeout_s: float) -> bytes:
        if not select.select([self._socket], [], [], max(0.0, timeout_s))[0]:
            return b""
        try:
            data = self._socket.recv(n)
        except OSError:
            data = b""
        if not data:
            raise self._ended()
        return data

    def _ended(self) -> ToolchainError:
        try:
            code: int | None = self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            code = None
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").splitlines()
        said = "\n".join([line for line in lines if "has no peer" not in line][:4])  # QEMU warns of its network card
        return ToolchainError(self.where, f"ended by itself (exit {code})" + (f": {said}" if said else ""))

    def close(self) -> None:
        atexit.unregister(self.close)
        self._socket.close()
        children.end(self._process)
        self._log.close()


class ChildLink(Link):
    """A link to a child process that is the board, or the emulator of one: whoever derives from it starts `child`."""

    child: Child

    def send(self, data: bytes) -> None:
        self.child.send(data)

    def recv(self, n: int, timeout_s: float) -> bytes:
        return self.child.recv(n, timeout_s)

    def close(self) -> None:
        self.child.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    own, theirs = socket.socketpair()
    own.setblocking(False)
    return own, theirs
