#!/usr/bin/env python3
"""Set up a checkout: `python3 scripts/setup.py demo|full`, what `make demo` and `make test` call first.

Its one rule: it needs Python 3.10 and its standard library, nothing else. No root and no python3-venv: pip comes from
ensurepip, else from a pip that some Python here has, else from Debian's package of it, fetched and unpacked as the
ordinary user. `full` also asks apt for compilers and emulators where it may; where it may not, it says which tests are
skipped.
The plan is pure data made from a Machine, so that tests plan for machines that are not this one.
"""

import argparse
import dataclasses
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, FrozenSet, List, Mapping, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
INPUTS = ("pyproject.toml", "constraints.txt", "scripts/setup.py")
OVERLAYS = {  # folder -> package without its dependencies, outside site-packages
    "qkeras3": "qkeras-v3==1.2.1",  # the same module name as qkeras: reached by PYTHONPATH only, in a subprocess
    "aeon": "aeon==1.6.0",  # read for its data, never imported: no numba that it wants works with numpy 2.4
}
NPM = "scripts/npm"  # package.json and its lock: emulators that run under Node.js
LEVELS = ("demo", "full")
OLDEST = (3, 10)
PIP_INSTALL = ("install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt")
PIP = ("--no-compile", "pip")  # to compile it takes longer than the few times it runs
PIP_OLDEST = (22, 3)  # the first with --python
PIP_FROM = range(15, 7, -1)  # python3.N on PATH whose pip may serve; it runs under the venv's Python, not its own
FRAMEWORKS = ((3, 11), (3, 13))  # Keras 3.15 needs 3.11, TensorFlow 2.21 has no wheel after 3.13


@dataclasses.dataclass(frozen=True)
class Native:
    """A program that pip does not bring, or data: its Debian packages, and what happens to the tests without it."""

    packages: Tuple[str, ...]
    without: str
    folder: str = ""
    """Of data: what is there once its package is. A program is looked for on PATH."""


NATIVE = {
    "arm-none-eabi-gcc": Native(
        ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi"), "tests of GCC's Cortex-M firmware are skipped; zig's run"
    ),
    "qemu-system-arm": Native(("qemu-system-arm",), "tests on QEMU's Cortex-M boards are skipped; unicorn_m4 runs"),
    "qemu-system-riscv32": Native(("qemu-system-misc",), "tests on qemu_virt_rv32 are skipped"),
    "riscv64-unknown-elf-gcc": Native(
        ("gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf"),
        "tests of GCC's RV32 firmware are skipped; zig's run",
    ),
    "gcc": Native(("gcc", "libc6-dev"), "tests that compile for the host use zig; those of UBSan and ASan are skipped"),
    "g++": Native(("g++",), "tests of the C simulation of HLS projects are skipped"),
    "verilator": Native(("verilator", "make"), "tests of the FPGA design at its pins are skipped"),
    "avr-gcc": Native(("gcc-avr", "avr-libc"), "tests of ATmega328P firmware are skipped"),
    "simavr": Native(("simavr", "libsimavr-dev"), "tests on simavr_uno are skipped"),
    "npm": Native(("nodejs", "npm"), "tests on rp2040js_pico are skipped"),
    "fashion-mnist": Native(
        ("dataset-fashion-mnist",),
        "its models in examples/zoo cannot be trained anew; tests of that are skipped",
        "/usr/share/datasets/fashion-mnist",
    ),
}
STAND_INS = {"arm-none-eabi-gcc": "compiler", "qemu-system-arm": "emulator"}  # program -> extra that stands in for it
OVERRIDES = {"arm-none-eabi-gcc": "ARM_NONE_EABI_GCC", "qemu-system-arm": "QEMU_SYSTEM_ARM"}  # as in toolchain/tools.py


class SetupError(Exception):
    """What stands in the way and what to do; printed without a traceback."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """All that the plan depends on."""

    python: Tuple[int, int]
    programs: FrozenSet[str]
    """Which of NATIVE are there."""
    apt: Optional[Tuple[str, ...]]
    """How to call apt-get: () as root, ("sudo", "-n") where sudo asks no password, None where neither or no apt-get."""


@dataclasses.dataclass(frozen=True)
class Means:
    """Where a first pip may come from. Looked for only when a venv is to be made: it takes some tenths of a second."""

    ensurepip: bool
    pip: str
    """A Python whose pip can fill another's venv; "" if there is none."""
    debs: bool
    """Whether apt-get and dpkg-deb are there: both also work for an ordinary user in folders of their own."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One command. Where `else_note` is set, a failure is told with it and the set-up goes on."""

    title: str
    argv: Tuple[str, ...]
    else_note: str = ""


def has_frameworks(machine: Machine) -> bool:
    """Whether TensorFlow, torch and their kin have wheels for this Python."""
    return FRAMEWORKS[0] <= machine.python <= FRAMEWORKS[1]


def extras(level: str, machine: Machine) -> Tuple[str, ...]:
    """What `pip install .[...]` takes: in a demo only stand-ins for what the machine lacks."""
    if level == "full":
        return ("all", "test") if has_frameworks(machine) else ("compiler", "emulator", "test")
    return tuple(extra for program, extra in STAND_INS.items() if program not in machine.programs)


def apt_steps(machine: Machine) -> Tuple[List[Step], List[str]]:
    """Steps that bring the missing programs, and a note for each that stays missing."""
    missing = [name for name in NATIVE if name not in machine.programs]
    if not missing:
        return [], []
    if machine.apt is None:
        packages = " ".join(package for name in missing for package in NATIVE[name].packages)
        notes = [f"no {name}: {NATIVE[name].without}" for name in missing]
        return [], [*notes, f"to have them, as root: apt-get install {packages}"]
    apt = (*machine.apt, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get")
    install = (*apt, "install", "-y", "--no-install-recommends")
    steps = [Step("apt-get update", (*apt, "update", "-q"), "apt-get update failed; its old lists are used")]
    for name in missing:
        native = NATIVE[name]
        steps.append(Step(f"apt-get install {name}", (*install, *native.packages), f"no {name}: {native.without}"))
    return steps, []


def venv_ways(means: Means, python: str, venv: str) -> List[List[Step]]:
    """Ways to a venv with some pip in it, to be tried in order; each begins with an empty venv."""
    make = (python, "-m", "venv", "--clear")
    bare = Step("venv", (*make, "--without-pip", venv))
    ways = []
    if means.ensurepip:
        ways.append([Step("venv with ensurepip's pip", (*make, venv))])
    if means.pip:
        serve = (means.pip, "-m", "pip", "--python", f"{venv}/bin/python", *PIP_INSTALL, *PIP)
        ways.append([bare, Step(f"pip by that of {means.pip}", serve)])
    if means.debs:
        folder = f"{venv}/apt"
        apt = (
            *("env", "-C", folder, "apt-get", "-q", "-o", f"Dir::State={folder}/state"),
            *("-o", f"Dir::Cache={folder}/cache", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),
            *("-o", "Acquire::Languages=none", "-o", "Debug::NoLocking=1"),
            *("-o", "APT::Sandbox::User=root"),  # root's apt would become _apt, which may not enter the folder
        )
        partial = (f"{folder}/state/lists/partial", f"{folder}/cache/archives/partial")
        # the shell only finds names that hold a version
        unpack = ("sh", "-c", 'exec dpkg-deb -x "$1"/python3-pip-whl_*.deb "$1"', "sh", folder)
        wheel = 'folder=$1; python=$2; shift 2; set -- "$folder"/usr/share/python-wheels/pip-*.whl "$@"; '
        wheel += 'wheel=$1; shift; exec "$python" "$wheel/pip" "$@"'
        ways.append(
            [
                bare,
                Step("folders for apt", ("mkdir", "-p", *partial)),
                Step("apt-get update there", (*apt, "update")),
                Step("apt-get download python3-pip-whl", (*apt, "download", "python3-pip-whl")),
                Step("unpack it", unpack),
                Step("pip by it", ("sh", "-c", wheel, "sh", folder, f"{venv}/bin/python", *PIP_INSTALL, *PIP)),
                Step("remove the folders", ("rm", "-rf", folder)),
            ]
        )
    return ways


def no_pip(means: Means, venv: str, failures: List[str]) -> str:
    """Why there is no venv, and the one thing to do."""
    lines = [*failures, f"no pip for {venv}:"]
    lines.append("  ensurepip " + ("failed" if means.ensurepip else "is missing from this Python"))
    lines.append(
        "  pip of %s failed" % means.pip if means.pip else "  no python3.N on PATH has pip %d.%d or newer" % PIP_OLDEST
    )
    lines.append(
        "  fetching Debian's python3-pip-whl failed: has apt its network and Debian's own sources?"
        if means.debs
        else "  no apt-get and dpkg-deb to fetch one with"
    )
    lines.append("mend one of them, then run it again; on Debian and Ubuntu, as root: apt-get install python3-venv")
    return "\n".join(lines)


def pip_steps(level: str, machine: Machine, venv: str) -> List[Step]:
    """Steps that fill a venv that has some pip: ours, torch before what would pick another, then the project."""
    python = f"{venv}/bin/python"
    install = (python, "-m", "pip", *PIP_INSTALL)
    steps = [Step("pip as pinned", (*install, *PIP))]
    frameworks = level == "full" and has_frameworks(machine)
    if frameworks:
        steps.append(Step("torch (PyPI's own build brings CUDA)", (*install, "torch")))
    chosen = extras(level, machine)
    steps.append(Step("bitwright and what it needs", (*install, "-e", f".[{','.join(chosen)}]" if chosen else ".")))
    if frameworks:
        for folder, package in OVERLAYS.items():
            target = ("--no-deps", "--upgrade", "--target", f"{venv}/overlays/{folder}", package)
            steps.append(Step(f"overlay {folder}", (*install, *target)))
    return steps


def npm_steps(level: str, venv: Path) -> List[Step]:
    """What Node.js runs, as locked, into a folder of the venv; nothing where it is there already."""
    lock, folder = ROOT / NPM / "package-lock.json", venv / "npm"
    done = (folder / "node_modules/.package-lock.json").is_file()  # what npm writes last
    same = done and (folder / lock.name).read_bytes() == lock.read_bytes()
    if level != "full" or same:
        return []
    fill = (
        'mkdir -p "$2" && cp "$1/package.json" "$1/package-lock.json" "$2" && exec npm ci --prefix "$2" "$3" "$4" "$5"'
    )
    flags = ("--ignore-scripts", "--no-audit", "--no-fund")
    argv = ("sh", "-c", fill, "sh", NPM, str(folder), *flags)
    return [Step("what runs under Node.js, by npm", argv, f"no rp2040js: {NATIVE['npm'].without}")]


def key(level: str, machine: Machine, venv: str, inputs: Mapping[str, bytes]) -> str:
    """Names what a venv was filled with; a stamp holding it means there is nothing to do."""
    digest = hashlib.sha256()
    for step in pip_steps(level, machine, venv):
        digest.update(repr(step.argv).encode())
    for name in sorted(inputs):
        digest.update(hashlib.sha256(inputs[name]).digest())
    return digest.hexdigest()


def is_there(name: str) -> bool:
    """Whether this machine has one of NATIVE."""
    folder = NATIVE[name].folder
    return Path(folder).is_dir() if folder else bool(os.environ.get(OVERRIDES.get(name, "")) or shutil.which(name))


def look() -> Machine:
    """This machine."""
    found = {name for name in NATIVE if is_there(name)}
    apt: Optional[Tuple[str, ...]] = None
    if shutil.which("apt-get"):
        if os.geteuid() == 0:
            apt = ()
        elif (
            shutil.which("sudo")
            and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
        ):
            apt = ("sudo", "-n")
    return Machine((sys.version_info[0], sys.version_info[1]), frozenset(found), apt)


def has_pip(python: str) -> bool:
    """Whether this Python has a pip that knows --python."""
    argv = [python, "-m", "pip", "--version"]
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True, check=False
        )
    except OSError:
        return False
    version = re.match(r"pip (\d+)\.(\d+)", done.stdout)
    return version is not None and (int(version.group(1)), int(version.group(2))) >= PIP_OLDEST


def look_for_pip() -> Means:
    """Where this machine has a first pip."""
    found = [shutil.which(name) for name in ("python3", *("python3.%d" % minor for minor in PIP_FROM))]
    pythons = (python for python in [sys.executable, *found] if python and has_pip(python))
    debs = bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))
    return Means(importlib.util.find_spec("ensurepip") is not None, next(pythons, ""), debs)


def right_python(level: str) -> None:
    """Go on under a Python that the level wants: this one, else the newest such on PATH, else this one."""
    here = (sys.version_info[0], sys.version_info[1])
    low, high = FRAMEWORKS if level == "full" else (OLDEST, here)
    if low <= here <= high:
        return
    for minor in range(FRAMEWORKS[1][1], low[1] - 1, -1):
        other = shutil.which("python3.%d" % minor)
        if other and subprocess.run([other, "-c", "pass"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            os.execv(other, [other, *sys.argv])
    if here < OLDEST:
        raise SetupError("python3 is %d.%d, 3.10 or newer is needed; install one as python3.N on PATH" % here)


def python_of(venv: Path) -> Optional[Tuple[int, int]]:
    """The Python of a venv that was made here (its scripts hold absolute paths) and still works; None for any other."""
    home, python = venv / ".bitwright-home", venv / "bin/python"
    if not home.is_file() or home.read_text() != str(ROOT) or not python.exists():
        return None
    libraries = [p.name for p in (venv / "lib").glob("python3.*")]
    return (3, int(libraries[0][len("python3.") :])) if len(libraries) == 1 else None


def run(step: Step) -> bool:
    """Do one step, its time beside it; what it printed only if it failed."""
    print(f"  {step.title} ...", end="", flush=True)
    start = time.monotonic()
    # apt and pip must not ask: no standard input
    done = subprocess.run(
        step.argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    print(f" {time.monotonic() - start:.1f} s" if done.returncode == 0 else f" failed ({done.returncode})", flush=True)
    if done.returncode == 0:
        return True
    text = done.stdout.decode(errors="replace").strip()
    if not step.else_note:
        raise SetupError(
            f"{shlex.join(step.argv)}\n{text}\nfailed with exit code {done.returncode}; mend it, run it again"
        )
    print("\n".join(text.splitlines()[-3:]))
    print(f"  {step.else_note}", flush=True)
    return False


def make_venv(venv: Path, means: Means) -> None:
    """A venv with some pip in it, the first way that works. It counts as made only when the last line is done."""
    failures = []
    for way in venv_ways(means, sys.executable, str(venv)):
        try:
            for step in way:
                run(step)
            break
        except SetupError as error:
            failures.append(str(error))
    else:
        raise SetupError(no_pip(means, venv.name, failures))
    (venv / ".bitwright-home").write_text(str(ROOT))


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="set up a checkout of bitwright in .venv")
    parser.add_argument("level", choices=LEVELS)
    parser.add_argument("--dry-run", action="store_true", help="print the steps, do none")
    options = parser.parse_args(argv)
    try:
        right_python(options.level)
        return set_up(options.level, options.dry_run)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2


def set_up(level: str, dry_run: bool) -> int:
    venv, machine = ROOT / ".venv", look()
    made_with = python_of(venv)
    if level == "demo" and made_with:
        machine = dataclasses.replace(machine, python=made_with)  # a full venv of another Python serves the demo
    system, notes = apt_steps(machine) if level == "full" else ([], [])
    if level == "full" and not has_frameworks(machine):
        notes.append(
            "Python %d.%d has no wheels of TensorFlow or torch as pinned: their tests are skipped; "
            "for them, install Python 3.11 .. 3.13 as python3.N on PATH" % machine.python
        )
    if dry_run:
        ways = [] if made_with == machine.python else venv_ways(look_for_pip(), sys.executable, ".venv")
        steps = [*pip_steps(level, machine, ".venv"), *npm_steps(level, Path(".venv"))]
        for step in [*system, *(ways[0] if ways else []), *steps]:
            print(shlex.join(step.argv))
        for note in notes:
            print(note)
        return 0
    for step in system:
        run(step)
    for note in notes:
        print(f"  {note}")
    fresh = made_with == machine.python
    inputs: Dict[str, bytes] = {name: (ROOT / name).read_bytes() for name in INPUTS}
    keys = {name: key(name, machine, ".venv", inputs) for name in ("full", level)}  # full has all that a demo needs
    stamps = {name: venv / f".bitwright-{name}" for name in keys}
    if fresh and any(stamps[name].is_file() and stamps[name].read_text() == keys[name] for name in keys):
        for step in npm_steps(level, Path(".venv")):
            run(step)
        return 0
    print(f"set-up of .venv for {level}, Python {sys.version_info[0]}.{sys.version_info[1]}", flush=True)
    if not fresh:
        make_venv(venv, look_for_pip())
    for stamp in stamps.values():
        stamp.unlink(missing_ok=True)
    for step in [*pip_steps(level, machine, ".venv"), *npm_steps(level, Path(".venv"))]:
        run(step)
    stamps[level].write_text(keys[level])
    return 0


if __name__ == "__main__":
    sys.exit(main())
