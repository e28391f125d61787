"""HLS projects by C simulation: every kind of op, random networks, QKeras models, both io types, every back end of hls4ml that compiles.

Networks are joined (tests/hls.py), so that one compilation serves many. BITWRIGHT_FULL=1 takes many more of each.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import graphs, hls, qkeras_env
from toolchain import flow
from toolchain.backends.hls4ml.lowering import lower
from toolchain.errors import UnsupportedError
from toolchain.ir import Graph, QType, Tensor, parse
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Concat, Rounding

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
IOS = ("io_parallel", "io_stream")
TOOLS = ("Vitis", "Vivado", "Quartus", "Catapult")
EACH = [(tool, io) for tool in TOOLS for io in IOS]
ONE = Fraction(1)


def networks(first: int, count: int, stream: bool) -> list[Graph]:
    """Random graphs from seed `first` on that hls4ml's networks can be."""
    found: list[Graph] = []
    seed = first
    while len(found) < count:
        graph = graphs.random_graph(seed)
        seed += 1
        if graph.states:
            continue
        try:
            lower(graph, stream)
        except UnsupportedError:
            continue
        found.append(graph)
    return found


@pytest.mark.parametrize(("tool", "io"), EACH)
def test_random_networks_equal_simulate(tool: str, io: str) -> None:
    first = 1000 * EACH.index((tool, io))  # other graphs for each
    for start in range(first, first + (300 if FULL else 1), 30):
        parts = networks(start, 16 if FULL else 6, io == "io_stream")
        samples = hls.split([graphs.inputs_for(g, 40, start) for g in parts])
        found = hls.simulated(hls.joined(parts), hls.choices(tool, io), samples)
        assert found.bit_exact, found.first_difference
        assert found.outputs_compared > 2_000
        assert found.count is None  # C++ on this machine says nothing of a circuit's clocks
        assert found.count_kind == "none"


def every_requantize() -> Graph:
    """All ten roundings, with one multiplier and one for each channel, over inputs that meet exact halves of both signs."""
    b = GraphBuilder("requantize")
    wide = None  # which tflm does not read, and a stream must be read
    for k, mode in enumerate(Rounding):
        if k % 3 == 0:  # hls4ml copies a stream seven times at most
            x = b.input(f"x{k}", (6,), QType(13, True, ONE))
            wide = wide if mode is Rounding.TFLM else b.input(f"wide{k}", (3,), QType(40, True, ONE))
        tflm = mode is Rounding.TFLM
        m = (1 << 30) if tflm else 1
        shift = [31 + 4, 31 + 4, 31, 30, 35, 36] if tflm else [4, 1, 0, 12, 3, 5]
        out = QType(8, True, ONE)
        offset = [0] * 6 if tflm else [0, 1, -3, 2, 0, -16]
        multiplier = [m, m, m + tflm, m, m, m + 3 * tflm] if tflm else [1, -1, 1, 3, -7, 5]
        b.output(b.requantize(x, out, multiplier, offset, shift, mode, f"each_{mode.value}"))
        b.output(b.requantize(x, out, [m], [0], [shift[0]], mode, f"one_{mode.value}"))
        if not tflm:
            b.output(
                b.requantize(wide, QType(20, False, ONE), [4_000_001], [1 << 50], [40], mode, f"wide_{mode.value}")
            )
    return b.graph()


def slices() -> Graph:
    """Of one to three axes: the first and the last of each, every second and third, one element, all, and ends left out."""
    b = GraphBuilder("slices")
    for k, (shape, begin, sizes, strides) in enumerate(
        [
            ((7,), (2,), (3,), (2,)),
            ((7,), (6,), (1,), (1,)),
            ((5, 4), (1, 0), (2, 4), (3, 1)),
            ((5, 4), (0, 1), (5, 2), (1, 2)),
            ((4, 5, 6), (1, 2, 3), (2, 2, 1), (2, 2, 3)),
            ((4, 5, 6), (0, 0, 0), (2, 3, 2), (3, 2, 4)),
            ((4, 5, 6), (3, 4, 5), (1, 1, 1), (1, 1, 1)),
            ((2, 3, 2), (0, 0, 0), (2, 3, 2), (1, 1, 1)),
            ((6, 7, 2), (1, 0, 0), (2, 2, 2), (1, 3, 1)),
        ]
    ):
        x = b.input(f"x{k}", shape, QType(5 + k, bool(k % 2), ONE))
        b.output(b.slice(x, begin, sizes, strides, f"y{k}"))
    return b.graph()


@pytest.mark.parametrize(("tool", "io"), EACH)
def test_slices(tool: str, io: str) -> None:
    found = hls.simulated(slices(), hls.choices(tool, io), graphs.inputs_for(slices(), 40, 6))
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize(("tool", "io"), EACH)
def test_every_rounding(tool: str, io: str) -> None:
    graph = every_requantize()
    every = np.arange(-4096, 4096)
    x = np.stack([np.roll(every, k) for k in range(6)], axis=1)[:: 1 if FULL else 5]
    samples = graphs.inputs_for(graph, len(x), 3) | {t.name: x for t in graph.inputs if t.name.startswith("x")}
    found = hls.simulated(graph, hls.choices(tool, io), samples)
    assert found.bit_exact, found.first_difference


def window_networks() -> list[Graph]:
    """Convolutions of every small window and stride: among them those that hls4ml's streams get wrong by themselves."""
    found = []
    rng = np.random.default_rng(5)
    for kh in (1, 2, 3):
        for kw in (1, 2, 3):
            for strides in ((1, 1), (2, 1), (1, 2), (3, 2)):
                b = GraphBuilder("windows")
                x = b.input("x", (5, 6, 2), QType(4, True, ONE))
                if (kh + kw + strides[0]) % 2:
                    y = b.conv2d(x, b.const("w", rng.integers(-8, 8, (3, kh, kw, 2)), ONE), None, "y", strides)
                else:
                    y = b.depthwise_conv2d(x, b.const("w", rng.integers(-8, 8, (kh, kw, 2)), ONE), None, "y", strides)
                b.output(y)
                found.append(b.graph())
    b = GraphBuilder("wider")  # one tensor joined with nothing, in a type of more bits
    x = b.input("x", (2, 3), QType(4, True, ONE))
    y = Tensor("y", x.shape, QType(8, True, ONE))
    b.ops.append(Concat((x,), y, 0))
    b.output(y)
    return [*found, b.graph()]


@pytest.mark.parametrize(("tool", "io"), [(tool, "io_stream") for tool in TOOLS])
def test_windows_of_every_shape(tool: str, io: str) -> None:
    parts = window_networks()
    samples = hls.split([graphs.inputs_for(g, 30, 1) for g in parts])
    found = hls.simulated(hls.joined(parts), hls.choices(tool, io), samples)
    assert found.bit_exact, found.first_difference


def test_catapults_arrays() -> None:
    """Its kernel for depthwise convolutions takes every stride for 1; its convolutions need our types also where no kernel is ours."""
    b = GraphBuilder("catapult")
    rng = np.random.default_rng(6)
    x = b.input("x", (7, 5, 2), QType(4, True, ONE))
    b.output(b.depthwise_conv2d(x, b.const("w", rng.integers(-8, 8, (3, 2, 2)), ONE), None, "y", (2, 3)))
    b.output(b.conv2d(x, b.const("v", rng.integers(-8, 8, (3, 2, 2, 2)), ONE), None, "z", (1, 2)))
    found = hls.simulated(b.graph(), hls.choices("Catapult", "io_parallel"), graphs.inputs_for(b.graph(), 40, 2))
    assert found.bit_exact, found.first_difference


def test_shared_multipliers_of_a_depthwise_convolution() -> None:
    """hls4ml's kernel for arrays is empty with strategy Resource."""
    b = GraphBuilder("shared")
    x = b.input("x", (6, 5, 2), QType(8, True, ONE))
    weight = np.random.default_rng(7).integers(-128, 128, (3, 2, 2))
    b.output(b.depthwise_conv2d(x, b.const("w", weight, ONE), None, "y", (2, 1)))
    choice = hls.choices("Vitis", "io_parallel", "Resource", reuse_factor={"": 6})
    found = hls.simulated(b.graph(), choice, graphs.inputs_for(b.graph(), 40, 2))
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("least", [-1, -2])
def test_two_bit_weights(least: int) -> None:
    """hls4ml multiplies by an int<2> without a multiplier, which is right for -1, 0, 1 and wrong for -2."""
    b = GraphBuilder("two_bits")
    x = b.input("x", (9,), QType(6, True, ONE))
    weight = np.random.default_rng(2).integers(least, 2, (5, 9))
    weight[0, 0] = least
    b.output(b.dense(x, b.const("w", weight, ONE), None, "y"))
    found = hls.simulated(b.graph(), hls.choices("Vitis", "io_parallel"), graphs.inputs_for(b.graph(), 200, 4))
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("strategy", ["Resource", "distributed_arithmetic"])
@pytest.mark.parametrize("io", IOS)
def test_other_strategies(strategy: str, io: str) -> None:
    if strategy == "distributed_arithmetic":
        pytest.importorskip("da4ml")
    graph = flow.load(Path("examples/digits/model.h5"))
    reuse = {"reuse_factor": {graph.outputs[0].name: 64}} if strategy == "Resource" else {}
    found = hls.simulated(graph, hls.choices("Vitis", io, strategy, **reuse), graphs.inputs_for(graph, 300, 4))
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize(("tool", "io"), EACH if FULL else [("Vitis", "io_parallel"), ("Vivado", "io_stream")])
def test_qkeras_models(tool: str, io: str, qkeras_graphs: list[Graph]) -> None:
    chosen = qkeras_graphs if FULL else qkeras_graphs[EACH.index((tool, io)) % 4 :: 4]  # others for each
    for start in range(0, len(chosen), 25):
        parts = chosen[start : start + 25]
        samples = hls.split([graphs.inputs_for(g, 60, start) for g in parts])
        found = hls.simulated(hls.joined(parts), hls.choices(tool, io), samples)
        assert found.bit_exact, found.first_difference


@pytest.fixture(scope="module")
def qkeras_graphs(tmp_path_factory: pytest.TempPathFactory) -> list[Graph]:
    folder = tmp_path_factory.mktemp("qkeras")
    qkeras_env.run("qkeras-0.9", "qkeras_hls.py", str(folder), timeout=1200)
    found = [parse(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.graph"))]
    assert len(found) > 80
    return found


def test_joined_networks_compute_what_each_does() -> None:
    from toolchain.reference import simulate

    parts = networks(0, 3, stream=False)
    samples = [graphs.inputs_for(g, 5, 1) for g in parts]
    whole, _ = simulate(hls.joined(parts), hls.split(samples))
    for k, (graph, given) in enumerate(zip(parts, samples, strict=True)):
        for name, value in simulate(graph, given)[0].items():
            assert_array_equal(whole[f"g{k}_{name}"], value)
