"""FPGA designs for the tests: their graphs, and simulations of them, built once a run."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests import zoo
from toolchain import bitstream, boards, flow, passes, tools
from toolchain.backends.c import model_files
from toolchain.boards import Board
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.links.verilator import VerilatorLink
from toolchain.passes.plan import Hls, Plan
from toolchain.project import Image

FAST = 8  # clocks for a bit
REAL = 868  # 115,200 baud at 100 MHz


def two_inputs() -> Graph:
    """Two inputs of 8 and 16 bits, two outputs of 16 and 32 bits."""
    rng = np.random.default_rng(5)
    b = GraphBuilder("two_inputs")
    a, c = b.input("a", (5,), QType(8, True)), b.input("c", (3,), QType(13, True))
    x = b.dense(a, b.const("wa", rng.integers(-8, 8, (4, 5))), None, "xa")
    y = b.dense(c, b.const("wc", rng.integers(-8, 8, (4, 3))), None, "xc")
    total = b.add(x, y, "total")
    b.output(b.requantize(total, QType(11, True), [3], [5], [4], Rounding.HALF_EVEN, "small"))
    b.output(b.dense(total, b.const("w", rng.integers(-8, 8, (3, 4))), None, "large"))
    return b.graph()


def positions() -> Graph:
    """256 positions of 2 bytes in, as many of 3 16-bit words out: a stream of many words at both ends."""
    rng = np.random.default_rng(6)
    b = GraphBuilder("positions")
    x = b.input("x", (16, 16, 2), QType(8, True))
    weight = b.const("w", rng.integers(-8, 8, (3, 3, 3, 2)))
    b.output(b.conv2d(x, weight, None, "y", padding=((1, 1), (1, 1))))
    return b.graph()


def convolution() -> Graph:
    return flow.load(zoo.ZOO / "digits_cnn_4.onnx", zoo.options("digits_cnn_4"))


GRAPHS = {"two_inputs": two_inputs, "positions": positions, "convolution": convolution}


def board(clocks_per_bit: int = FAST) -> Board:
    """The simulated board at another line speed."""
    found = boards.load("verilator_arty_a7_35")
    return dataclasses.replace(found, baud=round(found.clock_hz / clocks_per_bit))


@functools.cache
def refined(name: str, io: str) -> tuple[Graph, Plan]:
    return passes.run(GRAPHS[name](), board(), Hls(io=io))


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bitwright-fpga-")


def model(name: str) -> bitstream.Model:
    """The network by the C back end."""
    return bitstream.Model(model_files(*passes.run(GRAPHS[name](), None), "native")[0])


@functools.cache
def image(name: str, io: str, clocks_per_bit: int = FAST) -> Image:
    if not tools.find("verilator").path:
        pytest.skip("verilator is missing")
    graph, plan = refined(name, io)
    on = board(clocks_per_bit)
    made = bitstream.simulation_project(graph, plan, on, model(name))
    return made.build(Path(_scratch().name) / f"{name}-{io}-{clocks_per_bit}")


def open_simulation(
    name: str, io: str = "io_parallel", clocks_per_bit: int = FAST, arguments: Sequence[str] = ()
) -> VerilatorLink:
    return VerilatorLink(image(name, io, clocks_per_bit), board(clocks_per_bit), arguments)
