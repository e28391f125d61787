"""Programs that this one starts, and that leave when it does.

Rule: however this process leaves, by Ctrl-C, by SIGTERM, by an error or killed, what it started leaves too: Linux is asked to
end a child with us (PR_SET_PDEATHSIG), and a program that starts others is the head of a process group that is ended whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

PATIENCE_S = 10.0  # between asking a group to end and ending it
QUICKLY_S = 2.0  # the same for a child that has nothing to clear away
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


def end(child: subprocess.Popen[bytes]) -> None:
    """Asks one child to end, then ends it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(QUICKLY_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def run(
    argv: Sequence[str], folder: Path, out: Any, env: Mapping[str, str] | None = None,
    tick: Callable[[float], None] = lambda seconds: None,
) -> int:  # fmt: skip
    """The exit code of a program that may start others; what it says goes to the file `out`. `tick` is called about once a
    second with the seconds so far; what it raises ends the group. Raises OSError where the program cannot be started."""
    started = time.monotonic()
    with _terminated():
        child = subprocess.Popen(
            argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=die_with_parent(),
        )  # fmt: skip
        try:
            while True:
                tick(time.monotonic() - started)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(1.0)
        finally:
            _end_group(child)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Asks the group to end, then ends it; what the program left behind when it ended by itself too."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        child.poll()
        if not _lives(child.pid):
            break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sign)
        deadline = time.monotonic() + PATIENCE_S
        while _lives(child.pid) and time.monotonic() < deadline:
            child.poll()
            time.sleep(0.05)
    child.wait()


def _lives(group: int) -> bool:
    """Whether a process of the group runs. Where /proc tells, the dead that nobody has buried do not count: in a container
    there may be no init to bury them."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    found = [path / "stat" for path in Path("/proc").glob("[0-9]*")]
    for path in found:
        with contextlib.suppress(OSError):
            state, _, of = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                return True
    return not found


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM and SIGHUP leave as Ctrl-C does, so that what `finally` says is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
