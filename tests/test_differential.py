"""Random graphs over every op: the reference equals native C, QEMU's Cortex-M4 and RV32, rp2040js, simavr and unicorn, integer for integer."""

from __future__ import annotations

import os
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings

from tests import slow
from tests.graphs import graphs, inputs_for, random_graph
from toolchain import boards, flow, tools
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder

SAMPLES = 12
MORE = int(os.environ.get("BITWRIGHT_MORE", "1"))  # times as many graphs, for a long run by hand
BOARDS = {
    "qemu_mps2_an386": "qemu-system-arm",
    "qemu_virt_rv32": "qemu-system-riscv32",
    "rp2040js_pico": "rp2040js",
    "simavr_uno": "simavr",
    "unicorn_m4": "unicorn",
}


def shares() -> Graph:
    """A part of a tensor, and softmax of rows of 1 to 200: of 8 and of 16 bits, over its own input and not."""
    b = GraphBuilder("shares")
    for n in (1, 2, 11, 200):
        x = b.input("x", (3, n + 1), QType(8, True, Fraction(1, 8)))
        part = b.slice(x, (0, 1), (2, n), (2, 1), "part")
        for bits in (8, 16):
            kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
            share = b.softmax(part, slow.softmax_table(0.125, bits / 8), kind, "share")
            b.output(b.reshape(share, (2 * n,), "y"))
    return b.graph()


def equal_on(board: str, graph: Graph, seed: int) -> None:
    found = flow.measure(graph, boards.load(board), inputs_for(graph, SAMPLES, seed), runs=1)
    assert found.first_difference is None
    assert found.bit_exact
    times = 2 if graph.states else 1  # from the initial state each, then as one stream
    assert found.outputs_compared == times * SAMPLES * sum(t.size for t in graph.outputs)


@settings(max_examples=10 * MORE, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_native(graph: Graph) -> None:
    equal_on("native", graph, 0)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("seed", range(4 * MORE))
def test_emulated(board: str, seed: int) -> None:
    if not tools.find(BOARDS[board]).path:
        pytest.skip(f"{board} needs {BOARDS[board]}: {tools.advice(BOARDS[board])}")
    equal_on(board, random_graph(1000 + seed), seed)


@pytest.mark.parametrize("board", [name for name in BOARDS if name != "simavr_uno"])  # it has not the RAM
def test_softmax_and_slice(board: str) -> None:
    if not tools.find(BOARDS[board]).path:
        pytest.skip(f"{board} needs {BOARDS[board]}: {tools.advice(BOARDS[board])}")
    equal_on(board, shares(), 5)
