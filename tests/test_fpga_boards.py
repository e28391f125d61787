"""The table [fpga] of a board file: every mistake in one is named whole; every FPGA board agrees with what others say of it."""

from __future__ import annotations

import dataclasses

import pytest

from toolchain import boards
from toolchain.boards import Fpga
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
        "unknown counter 'fgpa'; did you mean 'fpga'? known: none, dwt, systick, mcycle, timer, fpga"
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
        "cortex-m4f, cortex-m7, cortex-m33, rv32imac"
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
