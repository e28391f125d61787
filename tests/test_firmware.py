"""What is particular in the templates: the interrupt of five instructions, the RP2040's second stage, the linker script."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests import sample
from toolchain import boards, data, firmware, tools
from toolchain.links.qemu import INTERRUPT_INSTRUCTIONS
from toolchain.project import elf_sections, elf_symbols

PORTS = data.folder("firmware_templates") / "c" / "ports"


def crc32_mpeg2(data: bytes) -> int:
    """Polynomial 04C11DB7, most significant bit first, from all ones: what the RP2040's ROM computes (datasheet 2.8.1.3.1)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def test_the_crc_of_the_rom() -> None:
    assert crc32_mpeg2(b"123456789") == 0x0376E6E7


@pytest.mark.parametrize("family", sample.FAMILIES)
def test_the_second_stage_is_its_source_assembled(family: str, tmp_path: Path) -> None:
    image = sample.image("raspberry_pi_pico", family)
    content = image.path.read_bytes()
    section = elf_sections(content)[".boot2"]
    boot = content[section.offset : section.offset + section.size]
    assert (section.address, section.size) == (0x1000_0000, 256)
    compiler = tools.compiler("arm", "cortex-m0plus", family)  # type: ignore[arg-type]
    argv = [*compiler.argv, *compiler.flags, "-c", str(PORTS / "rp2040_boot2.S"), "-o", str(tmp_path / "boot2.o")]
    subprocess.run(argv, check=True)
    made = (tmp_path / "boot2.o").read_bytes()
    code = elf_sections(made)[".text"]
    assert boot[:252] == made[code.offset : code.offset + code.size].ljust(252, b"\0")
    assert struct.unpack("<I", boot[252:])[0] == crc32_mpeg2(boot[:252])
    vectors = elf_sections(content)[".vectors"]
    assert vectors.address == 0x1000_0100  # where the second stage looks, and 256-byte aligned for VTOR
    stack, reset = struct.unpack_from("<II", content, vectors.offset)
    board = boards.load("raspberry_pi_pico")
    assert stack == board.ram_origin + board.ram_bytes
    assert reset & 1


@pytest.mark.parametrize("family", sample.FAMILIES)
@pytest.mark.parametrize("board", ["qemu_mps2_an385", "qemu_mps2_an386", "raspberry_pi_pico"])
def test_the_systick_handler_is_five_instructions(board: str, family: str) -> None:
    """Read from the image: four 16-bit instructions and bx lr, then the literal."""
    content = sample.image(board, family).path.read_bytes()
    sections = elf_sections(content)
    symbols = elf_symbols(content, sections)
    text, start = sections[".text"], symbols["SysTick_Handler"] & ~1
    words = struct.unpack_from("<5H", content, text.offset + start - text.address)
    assert words[0] & 0xFF00 == 0x4800  # ldr r0, [pc, #n]
    assert words[1:] == (0x6801, 0x1C49, 0x6001, 0x4770) or words[1:] == (0x6801, 0x3101, 0x6001, 0x4770)
    literal = (start + 4 & ~3) + 4 * (words[0] & 0xFF)
    assert struct.unpack_from("<I", content, text.offset + literal - text.address)[0] == symbols["counter_wraps"]
    assert len(words) == INTERRUPT_INSTRUCTIONS


def test_the_linker_script_alone_takes_its_numbers_from_defsym(tmp_path: Path) -> None:
    """As a developer with GNU ld would use it, without the generated board.ld."""
    if not tools.find("arm-none-eabi-gcc").path:
        pytest.skip("arm-none-eabi-gcc is missing")
    root = sample.project("qemu_mps2_an386").write(tmp_path / "p")
    board = boards.load("qemu_mps2_an386")
    keys = ("flash_origin", "flash_bytes", "ram_origin", "ram_bytes", "stack_bytes")
    compiler = tools.compiler("arm", board.core, "gcc")
    argv = [*compiler.argv, *compiler.flags, "-I.", "-Ifirmware", "-Iports", "-Iports/include", "-O2", "-std=c99"]
    argv += ['-DPROJECT_DIGEST="' + "0" * 64 + '"', *(str(p) for p in root.rglob("*.c"))]
    argv += [f"-Wl,--defsym={key}={getattr(board, key)}" for key in keys]
    done = subprocess.run([*argv, "-Wl,-T,ports/link.ld", *compiler.link, "-o", "x.elf"], cwd=root, check=False)
    assert done.returncode == 0


def test_files_of_a_board() -> None:
    files = firmware.firmware_files(boards.load("qemu_virt_rv32"))
    assert list(files) == [
        "board.h", "board.ld", "firmware/counter.c", "firmware/counter.h", "firmware/main.c", "firmware/memory.c",
        "firmware/port.h", "firmware/protocol.c", "firmware/protocol.h", "ports/include/string.h", "ports/link.ld",
        "ports/stack.c", "ports/startup.h", "ports/startup_rv32.c", "ports/uart.h", "ports/uart_16550.c",
    ]  # fmt: skip
    for name, text in files.items():
        if name not in ("board.h", "board.ld"):
            assert text == (PORTS.parent / name).read_text()
        else:
            assert text.startswith("/* Made from boards/qemu_virt_rv32.toml. Do not edit. */\n")


def test_every_template_belongs_to_a_board() -> None:
    used = {
        name
        for board in boards.names()
        if boards.load(board).backend == "c"
        for name in firmware.firmware_files(boards.load(board))
    }
    folder = PORTS.parent
    there = {
        str(p.relative_to(folder)) for part in ("firmware", "ports") for p in (folder / part).rglob("*") if p.is_file()
    }
    assert there - used == {"ports/rp2040_boot2.S"}


def test_sources_use_no_float_and_no_heap() -> None:
    for path in sorted(PORTS.parent.rglob("*.[ch]")):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert not re.search(r"\b(float|double|malloc|calloc|free|printf)\b", code), path


def test_no_library_is_needed(tmp_path: Path) -> None:
    """Every undefined symbol of the firmware's objects is another object's or a linker symbol."""
    if not tools.find("arm-none-eabi-gcc").path:
        pytest.skip("arm-none-eabi-gcc is missing")
    made = sample.project("qemu_mps2_an386")
    root = made.write(tmp_path / "p")
    compiler = tools.compiler("arm", "cortex-m4f", "gcc")
    names = [name for name in made.files if name.endswith(".c")]
    argv = [*compiler.argv, *compiler.flags, "-std=c99", "-O2", "-I.", "-Ifirmware", "-Iports", "-Iports/include"]
    subprocess.run([*argv, '-DPROJECT_DIGEST="' + "0" * 64 + '"', "-c", *names], cwd=root, check=True)
    nm = compiler.argv[0].removesuffix("gcc") + "nm"
    objects = [path.name for path in root.glob("*.o")]
    out = subprocess.run([nm, *objects], cwd=root, capture_output=True, text=True, check=True)
    symbols = [line.split() for line in out.stdout.splitlines() if line and not line.endswith(":")]
    defined = {s[-1] for s in symbols if s[-2] != "U"}
    wanted = {s[-1] for s in symbols if s[-2] == "U"} - defined
    assert len(objects) == len(names)
    assert wanted <= {"_sidata", "_sdata", "_edata", "_sbss", "_ebss", "_estack", "_stack_bottom"}
