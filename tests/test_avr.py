"""The ATmega328P: tables in flash, what does not fit refused by name, and every op right where int has 16 bits."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest

from tests import slow
from tests.graphs import inputs_for, random_graph
from toolchain import boards, data, flow, tools
from toolchain.errors import ToolchainError
from toolchain.frontends.tflite import wide
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.project import elf_sections, elf_symbols

BOARD = "simavr_uno"
SEEDS = (2000, 2001, 2004, *range(2006, 2012))  # whose image fits 32 KB and memory 2 KB


def needs(*names: str) -> None:
    for name in names:
        if not tools.find(name).path:
            pytest.skip(f"{BOARD} needs {name}: {tools.advice(name)}")


def digits() -> Graph:
    return flow.load(data.folder("examples") / "digits" / "model.h5")


def test_tables_are_in_flash_and_nowhere_else(tmp_path: Path) -> None:
    needs("avr-gcc")
    project = flow.emit(digits(), BOARD)
    text = str(project.files["model.c"])
    tables = re.findall(r"^static const \w+ (\w+_in_flash)\[\d+\]", text, re.MULTILINE)
    assert len(tables) == len(re.findall(r"^#define \w+ NN_TABLE\(", text, re.MULTILINE)) == 6
    assert not re.search(r"^static const \w+ \w+(?<!_in_flash)\[", text, re.MULTILINE)
    image = flow.build(project, tmp_path / "project").path.read_bytes()
    sections = elf_sections(image)
    symbols = elf_symbols(image, sections)
    code = sections[".text"]
    assert {name for name in tables if code.address <= symbols[name] < code.address + code.size} == set(tables)
    assert sections[".data"].size < 700  # the firmware's texts


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_are_exact(seed: int) -> None:
    """Over every op, corners included."""
    needs("avr-gcc", "simavr")
    graph = random_graph(seed)
    found = flow.measure(graph, BOARD, inputs_for(graph, 6, seed), runs=1)
    assert found.first_difference is None
    assert found.bit_exact


@pytest.mark.parametrize("bits", [8, 16])
def test_a_softmax_is_exact(bits: int) -> None:
    needs("avr-gcc", "simavr")
    b = GraphBuilder("share")
    x = b.input("x", (2, 11), QType(8, True, Fraction(1, 8)))
    kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
    b.output(b.softmax(x, slow.softmax_table(0.125, bits / 8), kind, "share"))
    graph = b.graph()
    assert flow.measure(graph, BOARD, inputs_for(graph, 8, bits), runs=1).bit_exact


def test_functions_of_16_bits_are_exact() -> None:
    """Tables in flash, read by lpm; exponentials kept where their shares will be."""
    needs("avr-gcc", "simavr")
    b = GraphBuilder("wide")
    x = b.input("x", (2, 11), QType(16, True, Fraction(1, 4096)))
    fine = b.requantize(
        x, QType(17, True, Fraction(1, 12288)), [3], [0], [0], Rounding.HALF_UP, "fine", (-65279, 65279)
    )
    b.output(b.interpolate(fine, wide.Q15, b.const("tanh", wide.sigmoid()), 8, Rounding.HALF_AWAY, "tanh"))
    exp, reciprocal = wide.line_table(wide._exp, -10.0, 0.0), wide.line_table(wide._reciprocal, 0.0, 1.0)
    b.output(b.softmax16(x, b.const("exp", exp), b.const("r", reciprocal), 1717986918, 31, wide.Q15, "share"))
    graph = b.graph()
    assert flow.measure(graph, BOARD, inputs_for(graph, 8, 16), runs=1).bit_exact


def test_what_does_not_fit_is_refused_by_name() -> None:
    model = Path(__file__).parent / "models" / "mlperf_tiny" / "kws_ref_model.tflite"
    what = r"needs 9,788 bytes of arena but simavr_uno has 2,048 bytes of RAM; largest buffers: "
    with pytest.raises(ToolchainError, match=what):
        flow.emit(flow.load(model), BOARD)


def test_a_larger_avr_is_refused_for_its_flash_needs_another_mark() -> None:
    """Bit 15 of an address says flash: kernels/nn.h."""
    text = (data.folder("boards") / "arduino_uno.toml").read_text()
    with pytest.raises(ToolchainError) as caught:
        boards.parse("try", text.replace("flash_bytes = 32_256", "flash_bytes = 65_536"))
    assert str(caught.value) == (
        "boards/try.toml: flash_bytes is 65,536 bytes, must be 8,192 to 32,768 bytes; correct the file"
    )
