"""The Brevitas zoo as HLS projects: the project's own C++ against `simulate`, corner and random inputs.

CI takes each model once, by turns on Vitis and Vivado, arrays and streams; BITWRIGHT_FULL=1 takes all four of each, with 2,000 inputs.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests import graphs, hls, zoo
from toolchain import flow

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
EACH = [(tool, io) for io in ("io_stream", "io_parallel") for tool in ("Vitis", "Vivado")]
OTHERS = [(tool, io) for io in ("io_stream", "io_parallel") for tool in ("Quartus", "Catapult")]
SAMPLES = 2000


def runs() -> list[tuple[str, str, str]]:
    if FULL:
        return [(name, tool, io) for name in zoo.NAMES for tool, io in (*EACH, *OTHERS)]
    turns = [(name, *EACH[k % len(EACH)]) for k, name in enumerate(zoo.NAMES)]
    return turns + [(name, *OTHERS[k % len(OTHERS)]) for k, name in enumerate(zoo.NAMES[::9])]


@pytest.mark.parametrize(("name", "tool", "io"), runs())
def test_c_simulation_equals_simulate(name: str, tool: str, io: str) -> None:
    graph = flow.load(zoo.ZOO / f"{name}.onnx", zoo.options(name))
    samples = graphs.inputs_for(graph, SAMPLES, 11)
    assert all(
        np.array_equal(v[0], np.full(t.shape, t.qtype.min)) for t, v in zip(graph.inputs, samples.values(), strict=True)
    )
    found = hls.simulated(graph, hls.choices(tool, io), samples)
    assert found.bit_exact, found.first_difference
    assert found.samples == SAMPLES
