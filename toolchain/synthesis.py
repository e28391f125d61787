"""Runs the vendors' steps of a project that is on disk, one after another, and reads what their reports say.

Rule: a step is done when it ended well and made what it should, and only then is that written down (logs/NAME.done), with
what it was made from. A done step whose inputs are the same is not run again; one that failed, was stopped or is older
than its inputs is, and all after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from toolchain import resources, synthesis_log, tools
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.files import write_text
from toolchain.links._child import die_with_parent
from toolchain.project import Progress, Step, on_disk
from toolchain.resources import Label, Resources
from toolchain.tool_list import TOOLS

if TYPE_CHECKING:
    from toolchain.boards import Board

LOGS = "logs"
PATIENCE_S = 10.0  # between asking a tool to end and ending it
# what a report is of where it does not say so itself
OF_STEP: dict[str, Label] = {
    "csynth": "estimated",
    "cosim": "simulated",
    "implement": "post-route",
    "bitstream": "post-route",
}


def run(root: Path, steps: Sequence[Step], board: Board, progress: Progress | None = None) -> list[Resources]:
    """Runs what is not done yet; the figures of every step that has reports, in their order, files named from `root`.

    MissingToolError before anything runs where a tool of any step still to do is missing. ToolchainError for a step that
    fails, and for a design that does not fit the board or misses its timing by the last figures there will be: a figure
    that a later step is to replace is no verdict.
    """
    root = root.resolve()
    digest = on_disk(root)[1]
    found: list[Resources] = []
    with _alone(root):
        done = [_done(root, digest, step) for step in steps]
        first = done.index(None) if None in done else len(steps)
        programs = _programs(root, digest, steps[first:])
        for i, (step, figures) in enumerate(zip(steps, done, strict=True)):
            if i < first and figures is not None:
                _at(progress, i / len(steps), f"{step.name}: done before")
            else:
                for later in steps[i:]:
                    _stamp(root, later).unlink(missing_ok=True)
                _run(root, digest, step, programs, partial(_at, progress, i / len(steps)))
                figures = _read(root, step)
                text = {"inputs": _inputs(digest, step), "figures": [part.as_json() for part in figures]}
                write_text(_stamp(root, step), json.dumps(text, indent=1) + "\n")
            if not any(OF_STEP.get(later.name) == "post-route" for later in steps[i + 1 :]):
                for part in figures:
                    resources.check_fit(part, board)
            found += figures
    return found


def _at(progress: Progress | None, done: float, what: str) -> None:
    if progress is not None:
        progress(what, done)


def command_lines(root: Path, digest: str, steps: Sequence[Step]) -> str:
    """What to type on a machine that has the tools, in the folder that `root` is in there."""
    return " && ".join(f"({_shown(root, digest, step)})" for step in steps)


def _shown(root: Path, digest: str, step: Step) -> str:
    folder = root / step.folder
    words = [step.tool if step.tool.startswith("./") else TOOLS[step.tool].programs[0], *_arguments(digest, step)]
    made = "" if not step.folder.endswith("build") else f"mkdir -p {shlex.quote(str(folder))} && "
    return f"{made}cd {shlex.quote(str(folder))} && {shlex.join(words)}"


def _arguments(digest: str, step: Step) -> list[str]:
    return [argument.replace("{project_digest}", digest) for argument in step.arguments]


def _inputs(digest: str, step: Step) -> str:
    return hashlib.sha256(f"{digest}\n{json.dumps(asdict(step), sort_keys=True)}".encode()).hexdigest()


def _stamp(root: Path, step: Step) -> Path:
    return root / LOGS / f"{step.name}.done"


def _done(root: Path, digest: str, step: Step) -> list[Resources] | None:
    """The figures of a step that is done; None for one that is not, or not of these inputs."""
    try:
        stamp = json.loads(_stamp(root, step).read_text(encoding="utf-8"))
        figures = [Resources.from_json(part) for part in stamp["figures"]]
        same = stamp["inputs"] == _inputs(digest, step)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures if same and not _missing(root, step) else None


def _missing(root: Path, step: Step) -> list[str]:
    return [name for name in dict.fromkeys((*step.makes, *step.reports.values())) if not (root / name).exists()]


def _programs(root: Path, digest: str, steps: Sequence[Step]) -> dict[str, str]:
    """Where each tool is; MissingToolError that names all that are not, and how to run the steps elsewhere."""
    names = dict.fromkeys(n for step in steps for n in (step.tool, *step.needs) if not n.startswith("./"))
    found = {name: tools.find(name) for name in names}
    missing = [tool for tool in found.values() if tool.path is None]
    if missing:
        where = ", ".join(tool.name for tool in missing)
        what = "; ".join(dict.fromkeys(tool.problem for tool in missing))
        advice = "; ".join(tools.advice(tool.name) for tool in missing)
        raise MissingToolError(
            where, what, f"{advice}; or on a machine that has what is missing: {command_lines(root, digest, steps)}"
        )
    return {name: str(tool.path) for name, tool in found.items()}


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One run in a folder at a time: the tools' own folders are not made for two."""
    try:
        (root / LOGS).mkdir(exist_ok=True)
        lock = (root / LOGS / "lock").open("w")
    except OSError as error:
        raise ToolchainError(
            str(root / LOGS), f"cannot be written: {error.strerror}", "choose another folder"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ToolchainError(str(root), "another build runs in this folder", "wait for it, or end it") from None
        yield


def _run(root: Path, digest: str, step: Step, programs: dict[str, str], progress: Callable[[str], None]) -> None:
    for old in (root / name for name in step.makes):
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    folder, log = root / step.folder, root / LOGS / f"{step.name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_suffix(".previous.log"))
    program = str(folder / step.tool) if step.tool.startswith("./") else programs[step.tool]
    # a tool finds the others where they were found: vitis-run calls vivado, make calls i++
    homes = dict.fromkeys(str(Path(programs[name]).parent) for name in (step.tool, *step.needs) if name in programs)
    path = os.pathsep.join([*homes, os.environ.get("PATH", "")])
    with log.open("w", encoding="utf-8") as out:
        out.write(f"# {_shown(root, digest, step)}\n")
        out.flush()
        code = _wait([program, *_arguments(digest, step)], folder, {**os.environ, "PATH": path}, out, step, progress)
    said = log.read_text(encoding="utf-8", errors="replace")
    missing = _missing(root, step)
    wrong = synthesis_log.wrong_part(said)
    if code or missing or wrong:
        raise synthesis_log.failure(str(log), step, code, missing, said)


def _wait(
    argv: list[str], folder: Path, env: dict[str, str], out: Any, step: Step, progress: Callable[[str], None]
) -> int:
    """The exit code of a tool. However this process leaves, by Ctrl-C, by SIGTERM or by an error, the tool and what it
    started leave too: they are a process group of their own."""
    started = time.monotonic()
    with _terminated():
        try:
            child = subprocess.Popen(
                argv,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        except OSError as error:
            raise ToolchainError(argv[0], f"cannot be started: {error.strerror}", "run `bitwright doctor`") from None
        try:
            while True:
                minutes, seconds = divmod(int(time.monotonic() - started), 60)
                progress(f"{step.name}: {Path(argv[0]).name}, {minutes}:{seconds:02}")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(1.0)
        finally:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Asks the group to end, then ends it; what the tool left behind when it ended by itself too."""
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


def _read(root: Path, step: Step) -> list[Resources]:
    otherwise = OF_STEP.get(step.name, "post-synthesis")
    parts = [
        replace(resources.read(kind, root / name, otherwise), files=(name,)) for kind, name in step.reports.items()
    ]
    return resources.merge(parts)
