"""The Brevitas zoo as HLS projects: the project's own C++ against `simulate`, 2,000 corner and random inputs of every model.

Every model on Vitis and Vivado, arrays and streams; several models are one network (tests/hls.py), so that a compilation serves them
all. Quartus and Catapult take every third model; BITWRIGHT_FULL=1 gives them all.
"""

from __future__ import annotations

import os

import pytest

from tests import graphs, hls, zoo
from toolchain import flow

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
AMD = [(tool, io) for io in ("io_stream", "io_parallel") for tool in ("Vitis", "Vivado")]
OTHERS = [(tool, io) for io in ("io_stream", "io_parallel") for tool in ("Quartus", "Catapult")]
SAMPLES = 2000
GROUP = 6


def grouped(names: list[str]) -> list[list[str]]:
    """Far neighbours together, so that the large models of a family are not all in one network."""
    count = -(-len(names) // GROUP)
    return [names[k::count] for k in range(count)]


def runs() -> list[tuple[list[str], str, str]]:
    amd = [(names, *each) for names in grouped(zoo.NAMES) for each in AMD]
    others = grouped(zoo.NAMES if FULL else zoo.NAMES[::3])
    return amd + [(names, *each) for names in others for each in OTHERS]


@pytest.mark.parametrize(("names", "tool", "io"), runs(), ids=lambda v: v if isinstance(v, str) else v[0])
def test_c_simulation_equals_simulate(names: list[str], tool: str, io: str) -> None:
    parts = [flow.load(zoo.ZOO / f"{name}.onnx", zoo.options(name)) for name in names]
    samples = hls.split([graphs.inputs_for(g, SAMPLES, 11) for g in parts])
    found = hls.simulated(hls.joined(parts), hls.choices(tool, io), samples)
    assert found.bit_exact, found.first_difference
    assert found.samples == SAMPLES
    assert found.outputs_compared == SAMPLES * sum(t.size for g in parts for t in g.outputs)
