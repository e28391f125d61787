"""The table [fpga] of a board file: every mistake in one is named whole; every FPGA board agrees with what others say of it."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from toolchain import boards, data, fpga_boards
from toolchain.boards import Board, Fpga
from toolchain.errors import ToolchainError

GOOD = """
backend = "hls4ml"
part = "xc7a35ticsg324-1L"
link = "serial"
clock_hz = 100_000_000
baud = 115_200
counter = "fpga"

[fpga]
tool = "Vitis"
tools = ["Vitis", "Vivado"]
luts = 20_800
ffs = 41_600
dsps = 90
brams = 100
bram_bits = 18_432
core_clock_hz = 100_000_000

[fpga.pins]
clk = "E3"
uart_rx = "A9"
uart_tx = "D10"

[source]
all = "a test"
"""


def fpga(board: Board) -> Fpga:
    assert board.fpga
    return board.fpga


def said(text: str) -> str:
    with pytest.raises(ToolchainError) as caught:
        boards.parse("try", text)
    return str(caught.value)


def test_a_board_with_gates() -> None:
    board = boards.parse("try", GOOD)
    assert board.core == ""
    assert board.fpga == Fpga(
        tool="Vitis",
        tools=("Vitis", "Vivado"),
        luts=20_800,
        ffs=41_600,
        dsps=90,
        brams=100,
        bram_bits=18_432,
        core_clock_hz=100_000_000,
        pins={"clk": "E3", "uart_rx": "A9", "uart_tx": "D10"},
    )
    assert (board.fpga.urams, board.fpga.top, board.fpga.constraints, board.fpga.accelerator) == (0, "", "", "")


MISTAKES = {
    ("luts = ", "lut = "): "[fpga]: unknown key 'lut'; did you mean 'luts'?",
    ("luts = 20_800", 'luts = "20k"'): "[fpga]: luts is '20k', must be int; correct the file",
    ("luts = 20_800", "luts = 208"): "[fpga]: luts is 208, must be 1,000 to 10,000,000; correct the file",
    ("ffs = 41_600\n", ""): "[fpga]: key 'ffs' is missing; add ffs = ...",
    ("dsps = 90", "dsps = -1"): "[fpga]: dsps is -1, must be 0 to 20,000; correct the file",
    ("bram_bits = 18_432", "bram_bits = 18"): "[fpga]: bram_bits is 18, must be 256 to 65,536; correct the file",
    ("core_clock_hz = 100_000_000", "core_clock_hz = 100"): (
        "[fpga]: core_clock_hz is 100, must be 1,000,000 to 1,000,000,000; correct the file"
    ),
    ("\nclock_hz = 100_000_000", "\nclock_hz = 100"): (
        "clock_hz is 100 Hz, must be 1,000,000 to 2,000,000,000 Hz; correct the file"
    ),
    ("baud = 115_200", "baud = 9"): "baud is 9, must be 1,200 to 3,000,000; correct the file",
    ('counter = "fpga"', 'counter = "fgpa"'): (
        "unknown counter 'fgpa'; did you mean 'fpga'? known: none, dwt, systick, mcycle, timer, mpccr, timer1, fpga"
    ),
    ('tool = "Vitis"', 'tool = "vitis"'): (
        "[fpga]: unknown tool 'vitis'; did you mean 'Vitis'? "
        "known: Vitis, Vivado, VivadoAccelerator, Catapult, Quartus, oneAPI, Libero"
    ),
    ('tools = ["Vitis", "Vivado"]', 'tools = ["Vivado"]'): (
        "[fpga]: tool is 'Vitis', must be one of tools; correct the file"
    ),
    ('tools = ["Vitis", "Vivado"]', 'tools = "Vitis"'): "[fpga]: tools is 'Vitis', must be a list of texts; correct the file",
    ('"Vivado"]', '"Quartus"]'): (
        "[fpga]: tool 'Quartus' makes nothing for xc7a35ticsg324-1L; "
        "xc7a35ticsg324-1L is served by Vitis, Vivado, VivadoAccelerator, Catapult"
    ),
    ('"Vivado"]', '"VivadoAccelerator"]'): (
        "[fpga]: VivadoAccelerator needs the board's name in hls4ml's supported_boards.json; "
        "add accelerator = '...', or take the tool out of tools"
    ),
    ('part = "xc7a35ticsg324-1L"', 'part = "Arty"'): (
        "[fpga]: part 'Arty' is of no known vendor; an orderable name begins with xc, 5C, 10, 1S, AG, MPF"
    ),
    ("core_clock_hz", 'top = "arty"\ncore_clock_hz'): "[fpga]: unknown top 'arty'; known: '', 'artix', 'zynq'",
    ("core_clock_hz", 'constraints = "no.xdc"\ncore_clock_hz'): (
        "[fpga]: constraints names 'no.xdc', which is no file of boards/; add it"
    ),
    ("core_clock_hz", 'top = "artix"\ncore_clock_hz'): (
        "[fpga]: top 'artix' needs constraints; add constraints = '<board>.xdc' and the file"
    ),
    ('clk = "E3"', 'clock = "E3"'): "[fpga]: unknown pin 'clock'; did you mean 'clk'?",
    ('clk = "E3"', 'clk = "e3"'): "[fpga]: pin clk is 'e3', must be a package pin; write it as E3, AG13 or 42",
    ('clk = "E3"', 'clk = "A9"'): "[fpga]: two pins are the same package pin; correct the file",
    ('clk = "E3"', "clk = 3"): (
        "[fpga]: pins is {'clk': 3, 'uart_rx': 'A9', 'uart_tx': 'D10'}, must be a table of texts; correct the file"
    ),
    ('all = "a test"', 'luts = "a test"'): "clock_hz has no source; add clock_hz = '...' under [source]",
    ('all = "a test"', 'all = "a test"\nlut = "a test"'): "[source] names the unknown key 'lut'; did you mean 'luts'?",
    ('backend = "hls4ml"', 'backend = "c"\ncore = "host"'): (
        "[fpga] is for boards whose back end makes gates; remove it, or correct backend"
    ),
    ('backend = "hls4ml"', 'backend = "c"'): "key 'core' is missing; add core = ...",
    ('backend = "hls4ml"', 'backend = "hls4ml"\ncore = "cortex-m4"'): (
        "unknown core 'cortex-m4'; did you mean 'cortex-m4f'? known: host, cortex-m0, cortex-m0plus, cortex-m3, "
        "cortex-m4f, cortex-m7, cortex-m33, cortex-m55, rv32imac, rv32imc, atmega328p"
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", MISTAKES, ids=lambda c: c[1][:24])
def test_a_mistake_is_named(change: tuple[str, str]) -> None:
    assert change[0] in GOOD
    assert said(GOOD.replace(*change, 1)) == f"boards/try.toml: {MISTAKES[change]}"


def test_a_top_needs_its_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("core_clock_hz", 'top = "artix"\ncore_clock_hz').replace('uart_tx = "D10"\n', "")
    assert said(text) == "boards/try.toml: [fpga]: top 'artix' needs pin uart_tx; add it to pins"


def test_the_table_is_needed() -> None:
    assert said(GOOD[: GOOD.index("[fpga]")] + "[source]\nall = 'a test'\n") == (
        "boards/try.toml: table [fpga] is missing; add [fpga] with tool, tools, luts, ffs, ..."
    )


@pytest.mark.parametrize(
    "key", ["clock_hz", "baud", *(f.name for f in dataclasses.fields(Fpga) if f.type == "int"), "pins"]
)
def test_every_number_needs_its_source(key: str) -> None:
    keys = ["clock_hz", "baud", "luts", "ffs", "dsps", "brams", "bram_bits", "urams", "core_clock_hz", "pins"]
    sources = "\n".join(f"{k} = 'a test'" for k in keys if k != key)
    text = GOOD.replace("core_clock_hz", "urams = 4\ncore_clock_hz").replace('all = "a test"', sources)
    assert said(text) == f"boards/try.toml: {key} has no source; add {key} = '...' under [source]"


# The boards themselves

GATES = {
    name: board
    for name in boards.names()
    if (board := boards.load(name)).fpga and not (board.image_of or board.emulated)
}
NAMED = {
    "pynq_z2", "zcu102", "kv260", "arty_a7_35", "arty_a7_100", "basys3", "alveo_u250", "de10_nano", "arria10_kit", "polarfire_kit",
}  # fmt: skip
ARTIX = [name for name, board in GATES.items() if fpga(board).top == "artix"]


def test_the_boards_by_their_names() -> None:
    assert set(GATES) >= NAMED
    assert {"arty_a7_35", "arty_a7_100", "basys3"} == set(ARTIX)


@pytest.mark.parametrize("name", GATES)
def test_a_board_is_whole(name: str) -> None:
    board = GATES[name]
    assert (board.counter == "fpga") == bool(fpga(board).top)
    assert bool(board.flash_command) == (fpga(board).top == "artix")
    assert "from memory" not in board.source_of("pins")
    if fpga(board).top == "zynq":
        assert fpga(board).tool == "VivadoAccelerator"


@pytest.mark.parametrize("name", ARTIX)
def test_the_constraint_file_has_the_pins_and_the_clock(name: str) -> None:
    board = GATES[name]
    text = (data.folder("boards") / fpga(board).constraints).read_text()
    ports = dict(re.findall(r"^set_property .* PACKAGE_PIN (\w+) .*\[get_ports (\w+)\]$", text, re.MULTILINE))
    assert {port: pin for pin, port in ports.items()} == fpga(board).pins
    assert set(fpga(board).pins) == set(fpga_boards.PINS)
    (period,) = re.findall(r"^create_clock -name clk -period ([\d.]+) \[get_ports clk\]$", text, re.MULTILINE)
    assert round(1e9 / float(period)) == board.clock_hz
    for line in text.splitlines():
        assert line.startswith(("#", "set_property ", "create_clock ", "set_false_path "))
        assert line.count("{") == line.count("}") and line.count("[") == line.count("]")


def test_the_parts_are_those_of_hls4ml() -> None:
    found = importlib.util.find_spec("hls4ml")
    if found is None or found.origin is None:
        pytest.skip("needs hls4ml: make test")
    path = Path(found.origin).parent / "backends" / "vivado_accelerator" / "supported_boards.json"
    known = json.loads(path.read_text())
    named = {fpga(board).accelerator: board.part for board in GATES.values() if fpga(board).accelerator}
    assert named == {name: known[name]["part"] for name in named}
    assert set(named) == {"pynq-z2", "zcu102", "alveo-u250"}


AMARANTH = {
    "arty_a7_35": ("arty_a7", "ArtyA7_35Platform"),
    "de10_nano": ("de10_nano", "DE10NanoPlatform"),
}


@pytest.mark.parametrize("name", AMARANTH)
def test_amaranth_boards_says_the_same(name: str) -> None:
    pytest.importorskip("amaranth_boards", reason="needs amaranth-boards")
    module, kind = AMARANTH[name]
    platform = getattr(importlib.import_module(f"amaranth_boards.{module}"), kind)
    board, pins = GATES[name], fpga(GATES[name]).pins
    assert plain(board.part) == plain(platform.device + platform.package + platform.speed)

    def resource(kind: str) -> Any:
        return next(r for r in platform.resources if (r.name, r.number) == (kind, 0))

    clock = resource(platform.default_clk)
    assert (pins["clk"], board.clock_hz) == (clock.ios[0].names[0], clock.clock.frequency)
    assert pins["led"] == resource("led").ios[0].names[0]
    if "uart_rx" in pins:
        uart = {io.name: io.ios[0].names[0] for io in resource("uart").ios}
        assert (pins["uart_rx"], pins["uart_tx"], pins["reset"]) == (
            uart["rx"],
            uart["tx"],
            resource("button").ios[0].names[0],
        )


# module, variant, name of the clock, of the button that resets
LITEX = {
    "arty_a7_35": ("digilent_arty", "a7-35", "clk100", "user_btn"),
    "arty_a7_100": ("digilent_arty", "a7-100", "clk100", "user_btn"),
    "basys3": ("digilent_basys3", "", "clk100", "user_btnc"),
    "pynq_z2": ("tul_pynq_z2", "", "clk125", ""),
    "zcu102": ("xilinx_zcu102", "", "clk125", ""),
    "kv260": ("xilinx_kv260", "", "", ""),
    "alveo_u250": ("xilinx_alveo_u250", "", "clk300", ""),
    "de10_nano": ("terasic_de10nano", "", "clk50", ""),
}


@pytest.mark.parametrize("name", LITEX)
def test_litex_boards_says_the_same(name: str) -> None:
    pytest.importorskip("litex_boards", reason="needs litex-boards, litex, migen")
    module, variant, clock, button = LITEX[name]
    room = importlib.import_module(f"litex_boards.platforms.{module}")
    platform = room.Platform(*([variant] if variant else []))
    board, pins = GATES[name], fpga(GATES[name]).pins
    ours, theirs = plain(board.part), plain(platform.device)
    assert (ours[:-1], ours[-1:] in "ei") == (theirs[:-1], True) if name == "zcu102" else ours == theirs  # two grades

    def pin(kind: str, signal: str = "") -> str:
        entry = next(e for e in room._io if e[:2] == (kind, 0))
        parts = [p for p in entry[2:] if getattr(p, "name", "") == signal] if signal else entry[2:]
        found = parts[0].constraints[0] if signal else parts[0]
        return str(found.identifiers[0])

    if clock:
        assert board.clock_hz == round(1e9 / platform.default_clk_period)
    if "clk" in pins:
        assert pins["clk"] == pin(clock)
    if "led" in pins:
        assert pins["led"] == pin("user_led")
    if button:
        assert (pins["uart_rx"], pins["uart_tx"]) == (pin("serial", "rx"), pin("serial", "tx"))
        assert pins["reset"] == pin(button)


def plain(part: str) -> str:
    return part.replace("-", "").lower()
