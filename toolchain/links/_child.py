"""A child process with a pipe to it, for the links that start one.

Rule: it dies with this process, even if this process is killed: Linux is asked to (PR_SET_PDEATHSIG), and elsewhere
its pipe closing and `atexit` must do.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from toolchain.errors import MissingToolError, ToolchainError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> Callable[[], None] | None:
    """What to run in the child before exec."""
    if _libc is None:
        return None
    parent = os.getpid()

    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask


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
                preexec_fn=die_with_parent(),
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
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    own, theirs = socket.socketpair()
    own.setblocking(False)
    return own, theirs
