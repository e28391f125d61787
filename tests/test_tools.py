"""toolchain/tools.py on machines that are made up, every error text whole; then the compilers that are really here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from toolchain import tools
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.tool_list import TOOLS

ARM_HELP = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"
ZIG_HELP = "pip install 'bitwright[compiler]'"

Plant = Callable[[str, str], Path]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    """A machine with nothing on PATH, no override and no Python package; `plant(name, says)` puts a program there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for spec in TOOLS.values():
        if spec.env:
            monkeypatch.delenv(spec.env, raising=False)

    def absent(name: str) -> object:
        raise tools.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(tools.importlib.metadata, "distribution", absent)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))

    def put(name: str, says: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return path

    return put


@pytest.mark.parametrize(
    ("name", "says", "version"),
    [
        ("arm-none-eabi-gcc", "arm-none-eabi-gcc (15:12.2.rel1-1) 12.2.1 20221205", "12.2.1"),
        ("host-cc", "gcc (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"),
        ("host-cc", "Debian clang version 14.0.6", "14.0.6"),
        ("qemu-system-arm", "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("openocd", "Open On-Chip Debugger 0.12.0", "0.12.0"),
        ("picotool", "picotool v2.1.1 (Linux, GNU-12.2.0, Release)", "2.1.1"),
        ("zig", "0.17.1", "0.17.1"),
        ("qemu-system-riscv32", "no number", None),
    ],
)
def test_a_program_on_path_is_found(plant: Plant, name: str, says: str, version: str | None) -> None:
    path = plant(TOOLS[name].programs[0], says)
    tool = tools.find(name)
    assert (tool.path, tool.version, tool.found_via, tool.problem) == (str(path), version, "PATH", "")


def test_an_override_goes_before_path(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant("arm-none-eabi-gcc", "1.0.0")
    other = plant("other", "2.0.0").rename(tmp_path / "other")
    monkeypatch.setenv("ARM_NONE_EABI_GCC", str(other))
    tool = tools.require("arm-none-eabi-gcc")
    assert (tool.path, tool.version, tool.found_via) == (str(other), "2.0.0", "ARM_NONE_EABI_GCC")


def test_a_program_that_hangs_or_fails_has_no_version(plant: Plant) -> None:
    plant("openocd", "").write_text("#!/no/such/interpreter\n")
    tool = tools.find("openocd")
    assert tool.path is not None
    assert tool.version is None


MISSING = {
    "arm-none-eabi-gcc": f"not found on PATH; set ARM_NONE_EABI_GCC to its path, or {ARM_HELP}",
    "qemu-system-arm": "not found on PATH; set QEMU_SYSTEM_ARM to its path, or apt-get install qemu-system-arm",
    "host-cc": "not found on PATH; set HOST_CC to its path, or apt-get install gcc libc6-dev",
    "zig": f"not found on PATH; set ZIG to its path, or {ZIG_HELP}",
    "unicorn": "not installed in this Python; pip install 'bitwright[emulator]'",
    "tensorflow": "not installed in this Python; pip install 'bitwright[qkeras]'",
    "qkeras-v3": "no overlays/qkeras3 in this environment; python3 scripts/setup.py full",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_tool_is_refused(plant: Plant, name: str) -> None:
    with pytest.raises(MissingToolError) as error:
        tools.require(name)
    assert str(error.value) == f"{name}: {MISSING[name]}"
    assert error.value.exit_code == 3


def test_a_wrong_override_is_refused_though_path_has_one(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant("arm-none-eabi-gcc", "1.0.0")
    plant("zig", "1.0.0")
    monkeypatch.setenv("ARM_NONE_EABI_GCC", "/nowhere/gcc")
    text = (
        "arm-none-eabi-gcc: ARM_NONE_EABI_GCC is '/nowhere/gcc', which is no program; "
        "correct ARM_NONE_EABI_GCC or unset it"
    )
    for use in (lambda: tools.require("arm-none-eabi-gcc"), lambda: tools.compiler("arm", "cortex-m4f")):
        with pytest.raises(MissingToolError) as error:
            use()
        assert str(error.value) == text


def test_unknown_names_are_refused(plant: Plant) -> None:
    with pytest.raises(ToolchainError) as error:
        tools.require("qemu-system-amr")
    assert str(error.value) == (
        f"tool 'qemu-system-amr': is none of {', '.join(TOOLS)}; did you mean 'qemu-system-arm'?"
    )
    with pytest.raises(ToolchainError) as error:
        tools.compiler("arm", "cortex-m4")
    assert str(error.value) == (
        "core 'cortex-m4': is none of host, cortex-m0, cortex-m0plus, cortex-m3, cortex-m4f, cortex-m7, cortex-m33, "
        "cortex-m55, rv32imac, rv32imc, atmega328p; did you mean 'cortex-m4f'?"
    )
    with pytest.raises(ToolchainError) as error:
        tools.compiler("riscv", "cortex-m3")
    assert str(error.value) == "core 'cortex-m3': is compiled by kind 'arm', not 'riscv'"


def test_zig_stands_in_where_there_is_no_gcc(plant: Plant) -> None:
    with pytest.raises(MissingToolError) as error:
        tools.compiler("arm", "cortex-m4f")
    advice = f"arm-none-eabi-gcc: not found on PATH; set ARM_NONE_EABI_GCC to its path, or {ARM_HELP}"
    assert str(error.value) == f"{advice}, or {ZIG_HELP}"

    zig = plant("zig", "0.17.1")
    chosen = tools.compiler("arm", "cortex-m4f")
    assert (chosen.argv, chosen.family, chosen.version) == ((str(zig), "cc"), "clang", "0.17.1")
    assert chosen.flags == ("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4", "-fhosted", "-g1")
    with pytest.raises(MissingToolError) as error:
        tools.compiler("arm", "cortex-m4f", "gcc")
    assert str(error.value) == advice

    gcc = plant("arm-none-eabi-gcc", "12.2.1")
    chosen = tools.compiler("arm", "cortex-m4f")
    assert (chosen.argv, chosen.family, chosen.version) == ((str(gcc),), "gcc", "12.2.1")
    assert tools.compiler("arm", "cortex-m4f", "clang").argv == (str(zig), "cc")


def test_a_cortex_m55_prefers_clang(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes fewer instructions of vector code; who names a GCC by the variable means it."""
    gcc = plant("arm-none-eabi-gcc", "12.2.1")
    assert tools.compiler("arm", "cortex-m55").argv == (str(gcc),)
    zig = plant("zig", "0.17.1")
    chosen = tools.compiler("arm", "cortex-m55")
    assert (chosen.argv, chosen.family) == ((str(zig), "cc"), "clang")
    assert "-mcpu=cortex_m55+mve+mve_fp" in chosen.flags
    assert tools.compiler("arm", "cortex-m55", "gcc").argv == (str(gcc),)
    monkeypatch.setenv("ARM_NONE_EABI_GCC", str(gcc))
    assert tools.compiler("arm", "cortex-m55").argv == (str(gcc),)


def test_a_host_cc_that_is_clang_is_called_so(plant: Plant) -> None:
    path = plant("cc", "Apple clang version 15.0.0")
    assert tools.compiler("host") == tools.Compiler((str(path),), (), (), "clang", "15.0.0")


def test_doctor_lists_every_tool(plant: Plant) -> None:
    plant("openocd", "0.12.0")
    assert [tool.name for tool in tools.doctor()] == list(TOOLS)
    listed = json.loads(json.dumps(tools.doctor_json()))["tools"]
    assert {tool["name"]: tool["version"] for tool in listed if tool["path"]} == {"openocd": "0.12.0"}
    for tool in listed:
        assert all(tool[field] for field in ("needed_for", "without", "how_to_get"))
    console = Console(width=240, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    tools.render_doctor(console)
    text = console.export_text()
    assert all(name in text for name in TOOLS)
    assert "pip install 'bitwright[compiler]'" in text


def test_looking_imports_no_framework() -> None:
    heavy = "tensorflow", "torch", "brevitas", "qkeras", "hls4ml", "unicorn", "numpy"
    code = f"import sys; from toolchain import tools; tools.doctor(); print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


FREESTANDING = """
#include <stdint.h>
#include <stddef.h>
volatile uint64_t a, b;
uint32_t words[2];
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void _start(void)
{
    uint32_t word;
    memcpy(&word, &words[1], sizeof word); /* must be inlined: nothing here defines memcpy */
    a = (a / b) << (word & 31u);
#if defined(__riscv)
    __asm__ volatile("csrr %0, mcycle" : "=r"(word));
#endif
    b = word;
    for (;;) {
    }
}
"""
SCRIPT = """
ENTRY(_start)
MEMORY { FLASH (rx) : ORIGIN = flash_origin, LENGTH = 64K  RAM (rw) : ORIGIN = 0x20000000, LENGTH = 4K }
SECTIONS
{
    .text : { *(.text*) *(.rodata*) } > FLASH
    .ARM.exidx : { *(.ARM.exidx*) } > FLASH
    .data : { *(.data*) *(.sdata*) } > RAM AT > FLASH
    .bss (NOLOAD) : { *(.bss*) *(.sbss*) *(COMMON) } > RAM
}
"""
E_FLAGS_RVC, EM_ARM, EM_AVR, EM_RISCV = 1, 40, 83, 243


@pytest.mark.parametrize("family", ["gcc", "clang"])
@pytest.mark.parametrize("core", [core for core in tools.CORES if core != "host"])
def test_every_core_compiles_and_links(tmp_path: Path, core: str, family: tools.Family) -> None:
    kind = tools.CORES[core].kind
    try:
        compiler = tools.compiler(kind, core, family)
    except MissingToolError as error:
        pytest.skip(str(error))
    source, image = tmp_path / "t.c", tmp_path / "t.elf"
    source.write_text(FREESTANDING)
    warn = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wconversion")
    (tmp_path / "template.ld").write_text(SCRIPT)
    # zig's driver refuses --defsym, -Map and -Ttext: the numbers of a board go into a script that includes the template
    (tmp_path / "t.ld").write_text('flash_origin = 0x8000000;\nINCLUDE "template.ld"\n')
    link = ("-T", "t.ld", "-Wl,--gc-sections", *compiler.link)
    argv = [*compiler.argv, *compiler.flags, *warn, str(source), "-o", str(image), *link]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    header = image.read_bytes()[:52]
    assert header[:5] == b"\x7fELF\x01"  # 32 bits
    assert 0x8000000 <= int.from_bytes(header[24:28], "little") < 0x8010000  # entry
    assert int.from_bytes(header[18:20], "little") == {"arm": EM_ARM, "avr": EM_AVR, "riscv": EM_RISCV}[kind]
    if kind == "riscv":
        assert int.from_bytes(header[36:40], "little") == E_FLAGS_RVC  # compressed, and the float ABI is soft


@pytest.mark.parametrize("family", ["gcc", "clang"])
def test_the_host_compiles_and_runs(tmp_path: Path, family: tools.Family) -> None:
    try:
        compiler = tools.compiler("host", "host", family)
    except MissingToolError as error:
        pytest.skip(str(error))
    source, program = tmp_path / "t.c", tmp_path / "t"
    source.write_text('#include <stdio.h>\nint main(void) { return printf("%d\\n", 6 * 7) < 0; }\n')
    subprocess.run(
        [*compiler.argv, *compiler.flags, "-O2", str(source), "-o", str(program), *compiler.link], check=True
    )
    assert subprocess.run([str(program)], capture_output=True, check=True).stdout == b"42\n"
