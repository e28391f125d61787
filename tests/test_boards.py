"""Board files: every one is loaded, checked and built; every mistake in one is named whole."""

from __future__ import annotations

import re

import pytest

from tests import sample
from toolchain import boards, data, tools
from toolchain.boards import Board
from toolchain.errors import ToolchainError
from toolchain.project import elf_segments

NAMED = {
    "native", "qemu_mps2_an385", "qemu_mps2_an386", "qemu_mps2_an500", "qemu_mps2_an505", "qemu_mps3_an547", "qemu_microbit",
    "qemu_virt_rv32", "unicorn_m4", "unicorn_m0plus", "nucleo_f446re", "nucleo_l4r5zi", "nucleo_h7a3zi_q", "netduinoplus2",
    "qemu_netduinoplus2", "raspberry_pi_pico", "rp2040js_pico", "microbit",
    "longan_nano", "esp32c3_devkit", "arduino_uno", "simavr_uno",
}  # fmt: skip
MICROCONTROLLERS = [name for name in boards.names() if boards.load(name).backend == "c"]


def test_what_is_known_by_file_name() -> None:
    assert {"process", "qemu", "rp2040js", "serial", "simavr", "unicorn"} <= set(boards.modules("links"))
    assert {"process", "cmsdk", "stm32_v1", "stm32_v2", "nrf51", "pl011", "16550", "esp32c3", "avr"} <= set(
        boards.uarts()
    )


def test_the_boards_by_their_names() -> None:
    assert set(boards.names()) >= NAMED


@pytest.mark.parametrize("name", boards.names())
def test_every_file_loads(name: str) -> None:
    board = boards.load(name)
    assert board.name == name
    assert board.part
    if board.backend == "c":
        assert boards.CORES[board.core] == board.compiler == tools.CORES[board.core].kind
    if board.link == "serial" and board.backend == "c":
        assert "{image}" in " ".join(board.flash_command)


@pytest.mark.parametrize("name", MICROCONTROLLERS)
@pytest.mark.parametrize("family", sample.FAMILIES)
def test_every_board_builds(name: str, family: str) -> None:
    board, image = boards.load(name), sample.image(name, family)
    if board.core != "host":
        assert 2_000 < image.sizes["flash_bytes"] < 10_000
        assert board.stack_bytes + board.largest_payload < image.sizes["ram_bytes"] < board.stack_bytes + 2_000
    assert image.board == boards.image_board(board).name
    assert list(image.versions.values()) == [tools.compiler(board.compiler, board.core, family).version]  # type: ignore[arg-type]


@pytest.mark.parametrize("family", sample.FAMILIES)
@pytest.mark.parametrize("name", ["qemu_netduinoplus2", "qemu_microbit", "rp2040js_pico", "simavr_uno"])
def test_the_emulated_twin_runs_the_very_same_image(name: str, family: str) -> None:
    silicon = boards.load(name).image_of
    assert sample.project(name) == sample.project(silicon)
    images = [sample.image(board, family).path.read_bytes() for board in (name, silicon)]
    assert elf_segments(images[0]) == elf_segments(images[1])  # what is loaded; zig names its temporary files elsewhere


def test_unicorn_m4_is_an386_but_for_its_name() -> None:
    one, other = sample.project("unicorn_m4"), sample.project("qemu_mps2_an386")
    assert {n for n in one.files if one.files[n] != other.files[n]} == {"board.h", "board.ld"}
    header = str(one.files["board.h"]).replace("unicorn_m4", "qemu_mps2_an386")
    assert header == other.files["board.h"]


def test_no_board_of_that_name() -> None:
    with pytest.raises(ToolchainError) as caught:
        boards.load("nucleo_f411")
    assert str(caught.value) == (
        "no board 'nucleo_f411'; did you mean 'nucleo_f446re'? to add one, write boards/nucleo_f411.toml"
    )


GOOD = (data.folder("boards") / "nucleo_f446re.toml").read_text()
TWIN = (data.folder("boards") / "qemu_netduinoplus2.toml").read_text()
MISTAKES = {
    # what is replaced: by what: what is said after `boards/try.toml: `
    ("clock_hz = 16", "clock_hx = 16"): "unknown key 'clock_hx'; did you mean 'clock_hz'?",
    ('core = "cortex-m4f"\n', 'core = "cortex-m4"\n'): (
        "unknown core 'cortex-m4'; did you mean 'cortex-m4f'? known: host, cortex-m0, cortex-m0plus, cortex-m3, "
        "cortex-m4f, cortex-m7, cortex-m33, cortex-m55, rv32imac, rv32imc, atmega328p"
    ),
    ('uart = "stm32_v1"', 'uart = "stm32_v3"'): (
        f"unknown uart 'stm32_v3'; did you mean 'stm32_v2'? known: {', '.join(boards.uarts())}"
    ),
    ('counter = "dwt"', 'counter = "sistick"'): (
        "unknown counter 'sistick'; did you mean 'systick'? known: none, dwt, systick, mcycle, timer, mpccr, timer1, fpga"
    ),
    ('link = "serial"', 'link = "usb"'): f"unknown link 'usb'; known: {', '.join(boards.modules('links'))}",
    (
        'link = "serial"',
        'link = "qemu"',
    ): "a qemu board needs a machine; add machine = '...' as qemu-system -M names it",
    ('backend = "c"', 'backend = "C"'): f"unknown backend 'C'; known: {', '.join(boards.modules('backends'))}",
    ('part = "STM32F446RET6"\n', ""): "key 'part' is missing; add part = ...",
    ("ram_bytes = 131_072", "ram_bytes = '128K'"): "ram_bytes is '128K', must be int; correct the file",
    ("ram_bytes = 131_072", "ram_bytes = 131"): (
        "ram_bytes is 131 bytes, must be 4,096 to 1,073,741,824 bytes; correct the file"
    ),
    ("ram_bytes = 131_072", "ram_bytes = 131_073"): "ram_bytes is 0x20001, must be a multiple of 8; correct the file",
    ("ram_origin = 0x2000_0000", "ram_origin = 0x0804_0000"): "flash and RAM overlap; correct their origins or sizes",
    (
        "stack_bytes = 4_096",
        "stack_bytes = 96",
    ): "stack_bytes is 96 bytes, must be 512 to 65,536 bytes; correct the file",
    ("baud = 115_200", "baud = 1_300_000"): (
        "baud 1,300,000 is 2.6% off at 16,000,000 Hz, must be within 2.5%; choose another baud"
    ),
    ('baud = "ours; 16 MHz / 139 = 115108, 0.08 % off"', ""): "baud has no source; add baud = '...' under [source]",
    ("[source]", "[source]\nclock = 'x'"): "[source] names the unknown key 'clock'; did you mean 'clock_hz'?",
    ("clock_hz = 16_000_000", "clock_hz = 16_000_000, 1"): "is not TOML: ",
    ('what = "clear"', 'what = "reset"'): (
        "steps[2]: what is 'reset', must be one of set, clear, write, wait; correct the file"
    ),
    ('flash_command = ["openocd", ', "flash_command = [1, "): "flash_command is [1, ",
}


@pytest.mark.parametrize("change", MISTAKES, ids=lambda c: c[1][:24])
def test_a_mistake_is_named(change: tuple[str, str]) -> None:
    assert change[0] in GOOD
    with pytest.raises(ToolchainError) as caught:
        boards.parse("try", GOOD.replace(*change, 1))
    said, must = str(caught.value), MISTAKES[change]
    where = "boards/try.toml: "
    assert said == where + must or (must.endswith((": ", "[1, ")) and said.startswith(where + must))


def test_what_belongs_to_the_other_board() -> None:
    with pytest.raises(ToolchainError) as caught:
        boards.parse("try", "baud = 9600\n" + TWIN)
    assert str(caught.value) == (
        "boards/try.toml: baud belongs to 'netduinoplus2', whose image this board runs; remove it; may be here: image_of, "
        "part, link, machine, emulated_counter_hz, flash_command, source"
    )


def test_a_board_is_a_file_and_nothing_else() -> None:
    assert boards.parse("nucleo_f446re", GOOD) == boards.load("nucleo_f446re")
    assert isinstance(boards.load("native"), Board)


@pytest.mark.parametrize("name", MICROCONTROLLERS)
def test_what_the_firmware_is_told_is_what_the_file_says(name: str) -> None:
    """board.h and board.ld hold the file's numbers: the clock HELLO reports is the clock of the board file."""
    board = boards.image_board(boards.load(name))
    files = sample.project(name).files
    defines = dict(re.findall(r"#define BOARD_(\w+) (\S+)", str(files["board.h"])))
    assert defines["CLOCK_HZ"] == f"{board.clock_hz}u"
    assert defines["NAME"] == f'"{board.name}"'
    assert len(re.findall(r"\{STEP_", str(files["board.h"]))) == len(board.steps)
    if board.core != "host":
        assert int(defines["UART_BASE"][:-1], 16) == board.uart_base
    if board.compiler in ("arm", "riscv"):
        numbers = dict(re.findall(r"^(\w+) = 0x([0-9A-F]+);", str(files["board.ld"]), re.MULTILINE))
        assert {key: int(value, 16) for key, value in numbers.items()} == {
            key: getattr(board, key)
            for key in ("flash_origin", "flash_bytes", "ram_origin", "ram_bytes", "stack_bytes", "flash_data_origin")
            if key != "flash_data_origin" or board.flash_data_origin
        }
