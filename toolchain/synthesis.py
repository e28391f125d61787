"""Runs the vendors' steps of a project that is on disk, one after another, and reads what their reports say.

Rule: a step is done when it ended well and made what it should, and only then is that written down (logs/NAME.done), with
what it was made from. A done step whose inputs are the same is not run again; one that failed, was stopped or is older
than its inputs is, and all after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from toolchain import children, resources, synthesis_log, tools
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.files import write_text
from toolchain.project import LOGS, Progress, Step, on_disk
from toolchain.resources import Label, Resources
from toolchain.tool_list import TOOLS

if TYPE_CHECKING:
    from toolchain.boards import Board

# what a report is of where it does not say so itself
OF_STEP: dict[str, Label] = {
    "csynth": "estimated",
    "cosim": "simulated",
    "implement": "post-route",
    "bitstream": "post-route",
}


def run(root: Path, steps: Sequence[Step], board: Board, progress: Progress | None = None) -> list[Resources]:
    """Runs what is not done yet; the figures of every step that has reports, in their order, files named from `root`.

    The caller holds the folder (Project.held). Where a tool is missing, the steps before the first that needs it are run,
    then MissingToolError names all that is missing. ToolchainError for a step that fails, and for a design that does not fit
    the board or misses its timing by the last figures there will be: a figure that a later step is to replace is no verdict.
    """
    root = root.resolve()
    digest = on_disk(root)[1]
    found: list[Resources] = []
    done = [_done(root, digest, step, steps[i + 1 :]) for i, step in enumerate(steps)]
    first = done.index(None) if None in done else len(steps)
    programs = {name: tools.find(name) for step in steps[first:] for name in _tools_of(step)}
    for i, (step, figures) in enumerate(zip(steps, done, strict=True)):
        if i < first and figures is not None:
            _at(progress, i / len(steps), f"{step.name}: done before")
        else:
            if any(programs[name].path is None for name in _tools_of(step)):
                raise _missing_tools(root, digest, steps[i:], programs, [earlier.name for earlier in steps[first:i]])
            for later in steps[i:]:
                _stamp(root, later).unlink(missing_ok=True)
            _run(root, digest, step, programs, partial(_at, progress, i / len(steps)))
            figures = _read(root, step)
            text: dict[str, object] = {"inputs": _inputs(digest, step)}
            text["made_with"] = {name: programs[name].version for name in _tools_of(step)}
            text["made"] = _digests(root, step, steps[i + 1 :])
            text["figures"] = [part.as_json() for part in figures]
            write_text(_stamp(root, step), json.dumps(text, indent=1) + "\n")
        if not any(OF_STEP.get(later.name) == "post-route" for later in steps[i + 1 :]):
            for part in figures:
                resources.check_fit(part, board)
        found += figures
    return found


def _tools_of(step: Step) -> tuple[str, ...]:
    """The rows of tool_list.py that a step needs."""
    return tuple(dict.fromkeys(name for name in (step.tool, *step.needs) if not name.startswith("./")))


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


def _done(root: Path, digest: str, step: Step, later: Sequence[Step]) -> list[Resources] | None:
    """The figures of a step that is done; None for one that is not, or not of these inputs, or whose files were changed."""
    try:
        stamp = json.loads(_stamp(root, step).read_text(encoding="utf-8"))
        figures = [Resources.from_json(part) for part in stamp["figures"]]
        same = stamp["inputs"] == _inputs(digest, step) and stamp["made"] == _digests(root, step, later)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures if same and not _missing(root, step) else None


def _digests(root: Path, step: Step, later: Sequence[Step]) -> dict[str, str]:
    """What the files are that a step made or reported and no later one does again; of a folder only that it is there."""
    again = {name for other in later for name in _files(other)}
    files = [name for name in _files(step) if name not in again and (root / name).is_file()]
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files}


def _files(step: Step) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*step.makes, *step.reports.values())))


def _missing(root: Path, step: Step) -> list[str]:
    return [name for name in _files(step) if not (root / name).exists()]


def _missing_tools(
    root: Path, digest: str, steps: Sequence[Step], programs: Mapping[str, tools.Tool], ran: Sequence[str]
) -> MissingToolError:
    """All that is missing for these steps, and how to run them elsewhere; `ran`: the steps that were run before."""
    names = dict.fromkeys(name for step in steps for name in _tools_of(step))
    missing = [programs[name] for name in names if programs[name].path is None]
    where = ", ".join(tool.name for tool in missing)
    what = "; ".join(dict.fromkeys(tool.problem for tool in missing))
    if ran:
        what += f"; {', '.join(ran)} ran to the end, the logs are in {root / LOGS}"
    advice = "; ".join(tools.advice(tool.name) for tool in missing)
    return MissingToolError(
        where, what, f"{advice}; or on a machine that has what is missing: {command_lines(root, digest, steps)}"
    )


def _run(
    root: Path, digest: str, step: Step, programs: Mapping[str, tools.Tool], progress: Callable[[str], None]
) -> None:
    for old in (root / name for name in step.makes):
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    folder, log = root / step.folder, root / LOGS / f"{step.name}.log"
    for each in (folder, log.parent):
        each.mkdir(parents=True, exist_ok=True)
    if log.exists():
        os.replace(log, log.with_suffix(".previous.log"))
    program = str(folder / step.tool) if step.tool.startswith("./") else str(programs[step.tool].path)
    # a tool finds the others where they were found: vitis-run calls vivado, make calls i++
    homes = dict.fromkeys(
        str(Path(str(programs[name].path)).parent) for name in (*step.needs, step.tool) if name in programs
    )
    path = os.pathsep.join([*homes, os.environ.get("PATH", "")])

    def tick(seconds: float) -> None:
        minutes, rest = divmod(int(seconds), 60)
        progress(f"{step.name}: {Path(program).name}, {minutes}:{rest:02}")

    with log.open("w", encoding="utf-8") as out:
        out.write(f"# {_shown(root, digest, step)}\n")
        out.flush()
        argv = [program, *_arguments(digest, step)]
        try:
            code = children.run(argv, folder, out, {**os.environ, "PATH": path}, tick)
        except OSError as error:
            raise ToolchainError(program, f"cannot be started: {error.strerror}", "run `bitwright doctor`") from None
    said = log.read_text(encoding="utf-8", errors="replace")
    missing = _missing(root, step)
    wrong = synthesis_log.wrong_part(said)
    if code or missing or wrong:
        raise synthesis_log.failure(str(log), step, code, missing, said)


def _read(root: Path, step: Step) -> list[Resources]:
    otherwise = OF_STEP.get(step.name, "post-synthesis")
    parts = []
    for kind, name in step.reports.items():
        part = resources.read(kind, root / name, otherwise)
        resources.check_whole(kind, part)
        parts.append(replace(part, files=(name,)))
    return resources.merge(parts)
