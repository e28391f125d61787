"""The Brevitas zoo as HLS projects: the project's own C++ against `simulate`, 2,000 corner and random inputs of every model.

CI takes each model once, by turns on Vitis and Vivado, and some on Quartus and Catapult: streams, or arrays where there is no
convolution (unrolled, those compile for a minute each). BITWRIGHT_FULL=1 takes all four, arrays and streams, of every model.
"""

from __future__ import annotations

import os

import pytest

from tests import graphs, hls, zoo
from toolchain import flow
from toolchain.circuit import SPATIAL
from toolchain.ir import Graph

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
IOS = ("io_parallel", "io_stream")
TOOLS = ("Vitis", "Vivado", "Quartus", "Catapult")
SAMPLES = 2000


def load(name: str) -> Graph:
    return flow.load(zoo.ZOO / f"{name}.onnx", zoo.options(name))


def runs() -> list[tuple[str, str, str]]:
    """(model, tool, io); an empty io is the cheaper one."""
    if FULL:
        return [(name, tool, io) for name in zoo.NAMES for tool in TOOLS for io in IOS]
    turns = [(name, TOOLS[k % 2], "") for k, name in enumerate(zoo.NAMES)]
    return turns + [(name, TOOLS[2 + k % 2], "") for k, name in enumerate(zoo.NAMES[::6])]


@pytest.mark.parametrize(("name", "tool", "io"), runs())
def test_c_simulation_equals_simulate(name: str, tool: str, io: str) -> None:
    graph = load(name)
    cheap = "io_stream" if any(isinstance(op, SPATIAL) for op in graph.ops) else "io_parallel"
    found = hls.simulated(graph, hls.choices(tool, io or cheap), graphs.inputs_for(graph, SAMPLES, 11))
    assert found.bit_exact, found.first_difference
    assert found.samples == SAMPLES
