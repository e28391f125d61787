"""External tools on this machine: where each is, its version, and which compiler makes code for which core.

Its one rule: looking never imports a framework and never installs anything; a tool is a row of tool_list.py.
A path in a tool's environment variable goes before PATH, PATH before a Python package that ships the program.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from toolchain.errors import MissingToolError, ToolchainError, nearest
from toolchain.tool_list import TOOLS, Spec

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["host", "host-cxx", "arm", "riscv", "avr"]
Family = Literal["gcc", "clang"]


@dataclass(frozen=True)
class Tool:
    """What was found on this machine. `path` is None where the tool is missing, and `problem` then says why."""

    name: str
    path: str | None
    version: str | None
    found_via: str
    problem: str
    needed_for: str
    without: str
    how_to_get: str


def _says(program: str, args: tuple[str, ...]) -> str:
    """What a program prints of itself; nothing where it does not answer."""
    try:
        done = subprocess.run(
            [program, *args], capture_output=True, text=True, errors="replace", timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _version_in(text: str) -> str | None:
    """The first version number; Debian's package version stands in parentheses before the program's own."""
    match = re.search(r"\d+(\.\d+)+", re.sub(r"\([^)]*\)", "", text))
    return match.group() if match else None


def _locate(spec: Spec) -> tuple[str | None, str, str | None]:
    """(path, found via, why not) of a tool."""
    override = os.environ.get(spec.env) if spec.env else None
    if override:
        path = shutil.which(override)
        return (path, spec.env, None) if path else (None, "", f"{spec.env} is {override!r}, which is no program")
    for program in spec.programs:
        path = shutil.which(program)
        if path:
            return path, "PATH", None
    if spec.distribution:
        try:
            distribution = importlib.metadata.distribution(spec.distribution)
        except importlib.metadata.PackageNotFoundError:
            pass
        else:
            return str(Path(str(distribution.locate_file(spec.shipped)))), f"package {spec.distribution}", None
    if spec.overlay:
        folder = Path(sys.prefix) / spec.overlay
        return (
            (str(folder), "overlay", None) if folder.is_dir() else (None, "", f"no {spec.overlay} in this environment")
        )
    return None, "", "not found on PATH" if spec.programs else "not installed in this Python"


def _version(spec: Spec, path: str, found_via: str) -> str | None:
    if found_via.startswith("package "):
        return importlib.metadata.version(spec.distribution)
    if spec.overlay and (Path(path) / "package.json").is_file():  # of npm
        found = json.loads((Path(path) / "package.json").read_text(encoding="utf-8")).get("version")
        return str(found) if found else None
    if spec.overlay:
        return next((d.version for d in importlib.metadata.distributions(path=[path])), None)
    return _version_in(_says(path, spec.version_args))


def _spec(name: str) -> Spec:
    if name not in TOOLS:
        raise ToolchainError(f"tool {name!r}", f"is none of {', '.join(TOOLS)}", nearest(name, TOOLS))
    return TOOLS[name]


def find(name: str) -> Tool:
    """The tool called `name`, found or not; an unknown name is refused."""
    spec = _spec(name)
    path, via, problem = _locate(spec)
    version = _version(spec, path, via) if path else None
    return Tool(name, path, version, via, problem or "", spec.needed_for, spec.without, spec.how_to_get)


def require(name: str) -> Tool:
    """The tool called `name`, or an error that says what to do."""
    tool = find(name)
    if tool.path is None:
        raise MissingToolError(name, tool.problem, advice(name))
    return tool


def advice(name: str) -> str:
    """What to do where a tool is missing."""
    spec = _spec(name)
    if not spec.env:
        return spec.how_to_get
    if os.environ.get(spec.env):
        return f"correct {spec.env} or unset it"
    return f"set {spec.env} to its path, or {spec.how_to_get}"


@dataclass(frozen=True)
class Compiler:
    """`[*argv, *flags, ..., *link]`: flags before the sources; link after them, where an image is linked."""

    argv: tuple[str, ...]
    flags: tuple[str, ...]
    link: tuple[str, ...]
    family: Family
    version: str


@dataclass(frozen=True)
class _Core:
    kind: Kind
    gcc: tuple[str, ...]
    zig: tuple[str, ...]
    prefers: Family = "gcc"  # which makes fewer instructions, of what is found


def _cortex(name: str, fpu: str = "") -> _Core:
    abi = ("-mfloat-abi=hard", f"-mfpu={fpu}") if fpu else ("-mfloat-abi=soft",)
    target = "thumb-freestanding-eabihf" if fpu else "thumb-freestanding-eabi"
    return _Core("arm", (f"-mcpu={name}", "-mthumb", *abi), ("-target", target, f"-mcpu={name.replace('-', '_')}"))


CORES: dict[str, _Core] = {
    "host": _Core("host", (), ()),
    "cortex-m0": _cortex("cortex-m0"),
    "cortex-m0plus": _cortex("cortex-m0plus"),
    "cortex-m3": _cortex("cortex-m3"),
    "cortex-m4f": _cortex("cortex-m4", "fpv4-sp-d16"),
    "cortex-m7": _cortex("cortex-m7", "fpv5-d16"),
    "cortex-m33": _cortex("cortex-m33", "fpv5-sp-d16"),
    # GCC derives the FPU and Helium from the core's name; clang's plain cortex_m55 has no Helium. GCC 12 makes little vector code of C:
    # its keyword spotting, anomaly detection and image classification take more instructions than clang's (docs/kernels.md).
    "cortex-m55": _Core(
        "arm",
        ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
        # without its own gathers and scatters: zig 0.17.1 makes loops without an end around them (seen in nn_helium.h, at -O1 too)
        (
            "-target",
            "thumb-freestanding-eabihf",
            "-mcpu=cortex_m55+mve+mve_fp",
            "-mllvm",
            "-enable-arm-maskedgatscat=false",
        ),
        prefers="clang",
    ),
    # mcycle needs Zicsr. GCC 12 finds no libgcc for -march=rv32imac_zicsr and links the one of rv64; the older
    # specification has Zicsr within I.
    "rv32imac": _Core(
        "riscv",
        ("-march=rv32imac", "-misa-spec=2.2", "-mabi=ilp32"),
        ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+a+c+zicsr", "-mabi=ilp32"),
    ),
    "rv32imc": _Core(
        "riscv",
        ("-march=rv32imc", "-misa-spec=2.2", "-mabi=ilp32"),
        ("-target", "riscv32-freestanding-none", "-mcpu=generic_rv32+m+c+zicsr", "-mabi=ilp32"),
    ),
    "atmega328p": _Core("avr", ("-mmcu=atmega328p",), ()),
}
_GCC: dict[Kind, str] = {
    "host": "host-cc",
    "host-cxx": "host-cxx",
    "arm": "arm-none-eabi-gcc",
    "riscv": "riscv64-unknown-elf-gcc",
    "avr": "avr-gcc",
}
# Freestanding, yet with built-ins: else every 4-byte memcpy is a call. zig's clang inlines them only with -fhosted.
_BARE: dict[Family, tuple[str, ...]] = {"gcc": ("-ffreestanding", "-fbuiltin"), "clang": ("-fhosted", "-g1")}


def compiler(kind: Kind, core: str = "host", family: Family | None = None) -> Compiler:
    """The compiler for a core: GCC where it is found, else zig's clang, or the other way round where the core prefers that and no
    variable names a GCC; `family` insists on one of them.

    Kind host-cxx is the host's C++ compiler, which has no stand-in: the emulated types of HLS projects need GNU's library.
    Both take the same sources: freestanding headers only (no string.h), small memcpy and memset inlined, long division
    from the compiler's own library.
    """
    if core not in CORES:
        raise ToolchainError(f"core {core!r}", f"is none of {', '.join(CORES)}", nearest(core, CORES))
    if CORES[core].kind != kind.removesuffix("-cxx"):
        raise ToolchainError(f"core {core!r}", f"is compiled by kind {CORES[core].kind!r}, not {kind!r}")
    name = _GCC[kind]
    if os.environ.get(TOOLS[name].env):
        require(name)  # an override that leads nowhere is a mistake, not a reason to take another compiler
    gcc, zig = find(name), find("zig")
    if family is None and CORES[core].prefers == "clang" and zig.path and not os.environ.get(TOOLS[name].env):
        family = "clang"
    if gcc.path is not None:
        own: Family = "clang" if kind in ("host", "host-cxx") and "clang" in _says(gcc.path, ("--version",)) else "gcc"
        if family in (None, own):
            return _compiler((gcc.path,), CORES[core].gcc, kind, own, gcc)
    if kind in ("host-cxx", "avr"):
        raise MissingToolError(name, gcc.problem or "is not what was asked for", advice(name))
    if zig.path is not None and family != "gcc":
        return _compiler((zig.path, "cc"), CORES[core].zig, kind, "clang", zig)
    if family == "clang":
        require("zig")
    other = "" if family == "gcc" else f", or {zig.how_to_get}"
    raise MissingToolError(name, gcc.problem or "is not GCC", advice(name) + other)


def _compiler(argv: tuple[str, ...], arch: tuple[str, ...], kind: Kind, family: Family, tool: Tool) -> Compiler:
    hosted = kind in ("host", "host-cxx", "avr")  # an AVR has avr-libc's start-up and its own linker script
    bare = () if hosted else _BARE[family]
    link = () if hosted else ("-nostdlib", "-lgcc")  # zig takes -lgcc to mean its own compiler-rt
    return Compiler(argv, (*arch, *bare), link, family, tool.version or "unknown")


def doctor() -> tuple[Tool, ...]:
    """Every tool, in the order of TOOLS."""
    return tuple(find(name) for name in TOOLS)


def doctor_json() -> dict[str, object]:
    """What `bitwright doctor --json` prints."""
    return {"python": sys.version.split()[0], "tools": [asdict(tool) for tool in doctor()]}


def render_doctor(console: Console) -> None:
    """The table that `bitwright doctor` prints."""
    from rich.table import Table

    table = Table("tool", "version", "found", "needed for", "without it", "how to get it")
    for tool in doctor():
        found = f"{tool.path} ({tool.found_via})" if tool.path else f"[yellow]{tool.problem}[/yellow]"
        rest = ("", "") if tool.path else (tool.without, tool.how_to_get.replace("[", r"\["))
        table.add_row(tool.name, tool.version or "", found, tool.needed_for, *rest)
    console.print(table)
