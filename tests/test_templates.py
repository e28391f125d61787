"""`make templates`: every C file of firmware_templates is a source file its own language accepts, alone, by every compiler here.

Each is compiled as C99 with the warnings of the build as errors, a header by a file that only includes it, against
firmware_templates/c/sample; then the sample and the firmware are linked by the linker script, and the image must have a
vector table at the start of flash.
"""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from toolchain import boards, firmware, tools
from toolchain.boards import Board
from toolchain.errors import MissingToolError
from toolchain.project import elf_segments

ROOT = Path(__file__).resolve().parents[1]
C = ROOT / "firmware_templates" / "c"
FILES = sorted(path.relative_to(C).as_posix() for path in C.rglob("*") if path.suffix in (".c", ".h", ".S"))
BARE = {"arm", "riscv"}
AVR = {f"kernels/nn{name}.h" for name in (
    "", "_argmax", "_conv", "_dense", "_depthwise", "_elementwise", "_interpolate", "_lookup", "_move", "_pool", "_requantize", "_softmax",
    "_softmax16", "_stages", "_threshold",
)} | {f"firmware/{name}" for name in ("counter.c", "counter.h", "main.c", "port.h", "protocol.c", "protocol.h")}  # fmt: skip
KINDS = {
    "ports/process.c": {"host"},
    "ports/startup_cortex_m.c": {"arm"},
    "ports/startup_rv32.c": {"riscv"},
    "ports/startup_avr.c": {"avr"},
    "ports/uart_avr.c": {"avr"},
    "ports/gd32vf103_boot.c": {"riscv"},
    "ports/esp32c3_boot.c": {"riscv"},
    "ports/rp2040_boot2.c": {"arm"},
    "ports/rp2040_boot2.S": {"arm"},
    "firmware/memory.c": BARE,
}  # what is not for every kind of compiler; of ports/ the rest is bare metal
COMPILERS = [
    ("host", "host", "gcc"),
    ("host", "host", "clang"),
    ("arm", "cortex-m0", "gcc"),
    ("arm", "cortex-m4f", "gcc"),
    ("arm", "cortex-m7", "gcc"),
    ("arm", "cortex-m33", "gcc"),
    ("arm", "cortex-m55", "gcc"),
    ("arm", "cortex-m55", "clang"),
    ("arm", "cortex-m4f", "clang"),
    ("riscv", "rv32imac", "gcc"),
    ("riscv", "rv32imac", "clang"),
    ("riscv", "rv32imc", "gcc"),
    ("riscv", "rv32imc", "clang"),
    ("avr", "atmega328p", "gcc"),
]
FLAGS = ("-std=c99", *firmware.WARNINGS, "-O2", f'-DPROJECT_DIGEST="{"0" * 64}"')


def kinds(name: str) -> set[str]:
    found = KINDS.get(name, BARE if name.startswith("ports/") else BARE | {"host"})
    return found | {"avr"} if name in AVR else found


def board_of(core: str) -> Board:
    """A board of this core: its numbers are those of an emulated one, which serve any."""
    if core == "host":
        return boards.load("native")
    counter = {"rv32imac": "mcycle", "rv32imc": "mpccr", "atmega328p": "timer1", "cortex-m0": "systick"}.get(
        core, "dwt"
    )
    return dataclasses.replace(boards.load("qemu_mps2_an386"), core=core, counter=counter)


def compiler(kind: Any, core: str, family: Any) -> tools.Compiler:
    try:
        return tools.compiler(kind, core, family)
    except MissingToolError as error:
        pytest.skip(str(error))


def compile_alone(made: tools.Compiler, core: str, names: list[str], folder: Path, templates: Path = C) -> str:
    """Each file a translation unit of its own; what the compiler says, nothing where it accepts all."""
    (folder / "board.h").write_text(firmware.board_header(board_of(core)))
    units = []
    for name in names:
        unit = templates / name
        if unit.suffix == ".h":
            unit = folder / f"{name.replace('/', '_').replace('.', '_')}.c"
            unit.write_text(f'#include "{name}"\n')
        units.append(str(unit))
    bare = () if core in ("host", "atmega328p") else (f"-I{templates}/ports/include",)
    includes = [f"-I{folder}", *(f"-I{templates}/{part}" for part in ("", "firmware", "ports", "sample")), *bare]
    command = [*made.argv, *made.flags, *FLAGS, *includes, "-c"]
    together = (
        [units] if made.family == "gcc" else [[unit] for unit in units]
    )  # zig would link what it is given at once
    return "".join(_said([*command, *part], folder) for part in together)


def _said(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


@pytest.mark.parametrize(("kind", "core", "family"), COMPILERS, ids=["-".join(c[1:]) for c in COMPILERS])
def test_every_file_compiles_alone(tmp_path: Path, kind: str, core: str, family: str) -> None:
    names = [name for name in FILES if kind in kinds(name)]
    assert len(names) > (15 if kind == "avr" else 20)
    assert compile_alone(compiler(kind, core, family), core, names, tmp_path) == ""


def test_every_file_is_for_some_compiler() -> None:
    assert set(KINDS) - {"ports/rp2040_boot2.c", "ports/rp2040_boot2.S"} <= set(FILES)
    assert all(kinds(name) for name in FILES)


@pytest.mark.parametrize(("kind", "core", "family"), [COMPILERS[0], COMPILERS[3], COMPILERS[6]])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("uint8_t fault(int x);\nuint8_t fault(int x) { return x; }", "conversion"),
        ("void fault(int x);\nvoid fault(int x) { }", "unused"),
        ("int fault(void);\nint fault(void) { int x; return x; }", "uninitialized"),
        ("int fault(void);\nint fault(void) { int x = 1 return x; }", "expected"),
    ],
)
def test_a_faulty_template_is_refused(tmp_path: Path, kind: str, core: str, family: str, fault: str, said: str) -> None:
    """The teeth: the flags above do catch what they are there for, in each family of compilers."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "nn_fault.c").write_text(f"#include <stdint.h>\n{fault}\n")
    told = compile_alone(compiler(kind, core, family), core, ["kernels/nn_fault.c"], tmp_path, tmp_path)
    assert "nn_fault.c" in told
    assert said in told


LINKED = [c for c in COMPILERS if c[0] in BARE]


@pytest.mark.parametrize(("kind", "core", "family"), LINKED, ids=["-".join(c[1:]) for c in LINKED])
def test_the_linker_script_links_the_sample(tmp_path: Path, kind: str, core: str, family: str) -> None:
    board = board_of(core)
    files = firmware.firmware_files(board)
    files |= {name: (C / "sample" / name).read_text() for name in ("model.c", "model.h", "model_debug.h")}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    made = compiler(kind, core, family)
    for command in firmware.compile_commands(board, (*made.argv, *made.flags), files):
        argv = [a for arg in command for a in (made.link if arg.startswith("{link:") else (arg,))]
        argv = [arg.replace("{project_digest}", "0" * 64) for arg in argv]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    segments = elf_segments((tmp_path / firmware.product(board)).read_bytes())
    address, first = segments[0]
    assert address == board.flash_origin
    if kind == "arm":  # the initial stack pointer is the end of RAM, the reset vector an odd address in flash
        stack, reset = (int.from_bytes(first[k : k + 4], "little") for k in (0, 4))
        assert stack == board.ram_origin + board.ram_bytes
        assert reset & 1
        assert board.flash_origin <= reset < board.flash_origin + board.flash_bytes
