"""simulate against docs/numerics.md: every op against the slow transcription, and what simulate itself guarantees."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import slow
from tests.graphs import graphs, inputs_for, random_graph
from toolchain import reference
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding, kind
from toolchain.reference import simulate, trace

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def same_as_slow(graph: Graph, inputs: dict[str, Any]) -> None:
    """Every tensor of every sample equals the transcription's; so do two steps with states."""
    batch = len(next(iter(inputs.values())))
    outputs, state = simulate(graph, inputs)
    every = trace(graph, inputs)
    second_outputs, second_state = simulate(graph, inputs, state)
    for i in range(batch):
        sample = {name: value[i] for name, value in inputs.items()}
        want_outputs, want_state, want_every = slow.simulate(graph, sample)
        for got, want in ((outputs, want_outputs), (state, want_state), (every, want_every)):
            assert set(got) == set(want)
            for name in want:
                np.testing.assert_array_equal(got[name][i], want[name], err_msg=name)
        if graph.states:
            want_outputs, want_state, _ = slow.simulate(graph, sample, want_state)
            for got, want in ((second_outputs, want_outputs), (second_state, want_state)):
                for name in want:
                    np.testing.assert_array_equal(got[name][i], want[name], err_msg=name)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_equal_the_transcription(seed: int) -> None:
    graph = random_graph(seed)
    same_as_slow(graph, inputs_for(graph, 9, seed))


@QUICK
@given(graphs(size=4), st.integers(0, 1000))
def test_graphs_of_hypothesis_equal_the_transcription(graph: Graph, seed: int) -> None:
    same_as_slow(graph, inputs_for(graph, 8, seed))


def test_the_generator_reaches_every_op_and_every_corner() -> None:
    seen: set[str] = set()
    widest = channels = most_states = 0
    ties: set[tuple[str, bool]] = set()
    for graph in map(random_graph, range(240)):
        values = trace(graph, inputs_for(graph, 10))
        most_states = max(most_states, len(graph.states))
        for op in graph.ops:
            seen.add(kind(op))
            widest = max(widest, op.output.qtype.bits)
            channels = max(channels, op.output.channels)
            if isinstance(op, ops.Requantize) and op.rounding is not Rounding.TFLM:
                m, o, s = (np.array(v, dtype=object) for v in (op.multiplier, op.offset, op.shift))
                t = values[op.input.name].astype(object) * m + o
                half = (2 * t % 2**s == 0) & (t % 2**s != 0)
                ties |= {(op.rounding.value, bool(v > 0)) for v in t[half].ravel()}
    assert seen == {kind.__name__.lower() for kind in ops.OPS}
    assert widest > 40
    assert channels > 64
    assert most_states == 2
    assert ties == {(r.value, sign) for r in Rounding if r is not Rounding.TFLM for sign in (True, False)}


def test_the_generator_is_deterministic_and_heeds_max_bits() -> None:
    assert random_graph(7) == random_graph(7)
    for seed in range(40):
        graph = random_graph(seed, max_bits=32)
        assert all(op.output.qtype.bits <= 32 for op in graph.ops)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("zero", [0, 3])
def test_pools_in_every_small_geometry(ceil_mode: bool, include: bool, zero: int) -> None:
    built = 0
    for n in range(1, 7):
        for k in range(1, 5):
            for s in range(1, 5):
                for pad in [(0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]:
                    b = GraphBuilder("pools")
                    x = b.input("x", (n, 2), QType(4, True, Fraction(1, 2), None, zero))
                    try:
                        b.output(b.max_pool(x, (k,), (s,), (pad,), "most", ceil_mode))
                        b.output(b.sum_pool(x, (k,), (s,), (pad,), "average", ceil_mode, include))
                    except ToolchainError:
                        continue
                    built += 1
                    graph = b.graph()
                    same_as_slow(graph, {"x": inputs_for(graph, 9)["x"][[0, 1, 7]]})
    assert built > 150


def test_the_pool_examples_of_the_page() -> None:
    b = GraphBuilder("page")
    x = b.input("x", (3, 1), QType(8, True))
    b.output(b.sum_pool(x, (2,), (2,), ((0, 0),), "partial", ceil_mode=True))
    b.output(b.sum_pool(x, (2,), (2,), ((1, 1),), "padded", count_include_pad=True))
    outputs, _ = simulate(b.graph(), {"x": np.array([[[5], [7], [-9]]])})
    assert outputs["partial"].tolist() == [[[12], [-18]]]
    assert outputs["padded"].tolist() == [[[5], [-2]]]


def test_the_integer_path_equals_the_float_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        graph = random_graph(seed)
        inputs = inputs_for(graph, 12, seed)
        fast = trace(graph, inputs)
        with monkeypatch.context() as patched:
            patched.setattr(reference, "EXACT_FLOAT32", 0)
            patched.setattr(reference, "EXACT_FLOAT64", 0)
            exact = trace(graph, inputs)
        for name, value in fast.items():
            assert value.dtype == np.int64
            np.testing.assert_array_equal(value, exact[name])


def test_sums_at_the_edge_of_float64_are_exact() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", (3,), QType(30, True))
    big = (1 << 24) - 1
    b.output(b.dense(x, b.const("w", [[big, big, 1], [-big, big, -1]]), None, "acc"))
    graph = b.graph()
    for top in (1 << 27, 1 << 28, (1 << 29) - 1):
        inputs = {"x": np.array([[top, top - 1, 1], [-top, top, 1], [top, -top, -1]])}
        same_as_slow(graph, inputs)


def test_sums_at_the_edge_of_float32_are_exact() -> None:
    """Odd sums on both sides of 2**24, where float32 has no odd integers left."""
    for n in (1, 2, 3, 64):
        b = GraphBuilder("edge")
        x = b.input("x", (n, 1), QType(17, True))
        w = np.full((1, 3, 1), 85)
        b.output(b.conv1d(x, b.const("w", w), None, "acc", padding=((1, 1),)))
        b.output(b.dense(b.reshape(x, (n,), "flat"), b.const("w2", np.full((1, n), 257)), None, "acc2"))
        graph = b.graph()
        for top in (1 << 24) // 255, (1 << 23) // 255, (1 << 24) // 257 // n:
            same_as_slow(graph, {"x": np.clip(np.array([[[top + d]] * n for d in (-1, 0, 1, 2)]), -65536, 65535)})


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        graph = random_graph(seed)
        inputs = inputs_for(graph, 11, seed)
        whole = simulate(graph, inputs)
        with monkeypatch.context() as patched:
            patched.setattr(reference, "CHUNK_ELEMENTS", 3 * max(op.output.size for op in graph.ops))
            parts = simulate(graph, inputs)
        for a, b in zip(whole, parts, strict=True):
            assert set(a) == set(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


def small_graph() -> Graph:
    b = GraphBuilder("small")
    x = b.input("x", (2, 3), QType(4, False))
    y = b.input("y", (3,), QType(4, True))
    h = b.state("h", [1, 2, 3], QType(4, True))
    b.output(b.reshape(x, (6,), "flat"))
    b.output(b.concat([y, h], 0, "both"))
    b.next_state(h, y)
    return b.graph()


GOOD = {"x": np.zeros((2, 2, 3), np.uint8), "y": np.zeros((2, 3), np.int64)}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"z": np.zeros((2, 3), int)}, "inputs: no input 'z', the graph has 'x', 'y'"),
        ({"x": None}, "input 'x': is missing, must be integers [batch, 2, 3]"),
        (
            {"y": np.zeros((2, 3))},
            "input 'y': holds float64, must be stored integers; real values are quantized first (flow.simulate does)",
        ),
        ({"y": np.zeros((2, 4), int)}, "input 'y': shape [2, 4], must be [batch, 3]"),
        ({"y": np.zeros(3, int)}, "input 'y': shape [3], must be [batch, 3]"),
        ({"y": np.array(3)}, "input 'y': shape [], must be [batch, 3]"),
        ({"y": np.full((2, 3), 8)}, "input 'y': values 8..8, must be in -8..7 (s4)"),
        ({"y": np.full((2, 3), -9)}, "input 'y': values -9..-9, must be in -8..7 (s4)"),
        (
            {"x": np.full((2, 2, 3), 1 << 63, np.uint64)},
            "input 'x': values 9223372036854775808..9223372036854775808, must be in 0..15 (u4)",
        ),
        ({"y": np.zeros((3, 3), int)}, "inputs: batch sizes {'x': 2, 'y': 3}, must be equal"),
        ({"x": np.zeros((0, 2, 3), int), "y": np.zeros((0, 3), int)}, "inputs: hold no sample, must hold at least one"),
    ],
)
@pytest.mark.parametrize("call", [simulate, trace])
def test_input_errors(call: Any, change: dict[str, Any], text: str) -> None:
    inputs = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(ToolchainError, match=f"^{re.escape(text)}$"):
        call(small_graph(), inputs)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "state 'h': is missing, must be integers [batch, 3]"),
        ({"h": np.zeros((2, 3), int), "g": np.zeros(3, int)}, "state: no state 'g', the graph has 'h'"),
        ({"h": np.zeros((2, 2), int)}, "state 'h': shape [2, 2], must be [batch, 3]"),
        ({"h": np.zeros((1, 3), int)}, "state 'h': batch of 1, must be that of the inputs, 2"),
        ({"h": np.full((2, 3), 8)}, "state 'h': values 8..8, must be in -8..7 (s4)"),
    ],
)
@pytest.mark.parametrize("call", [simulate, trace])
def test_state_errors(call: Any, state: dict[str, Any], text: str) -> None:
    with pytest.raises(ToolchainError, match=f"^{re.escape(text)}$"):
        call(small_graph(), GOOD, state)


def test_outputs_share_no_memory_with_inputs() -> None:
    b = GraphBuilder("through")
    x = b.input("x", (2,), QType(8, True))
    h = b.state("h", [1, 2], QType(8, True))
    b.output(x)
    b.output(h)
    given = np.array([[3, 4]])
    outputs, state = simulate(b.graph(), {"x": given})
    for value in chain(outputs.values(), state.values()):
        value[...] = 9
    assert given.tolist() == [[3, 4]]
    again, _ = simulate(b.graph(), {"x": given})
    assert again["h"].tolist() == [[1, 2]]


def test_states_are_replaced_at_once_after_all_ops() -> None:
    q = QType(8, True)
    b = GraphBuilder("states")
    x = b.input("x", (1,), q)
    left, right = b.state("left", [1], q), b.state("right", [2], q)
    kept, last = b.state("kept", [5], q), b.state("last", [0], q)
    total = b.state("total", [0], QType(10, True))
    summed = b.requantize(b.add(total, x, "sum"), total.qtype, [1], [0], [0], Rounding.FLOOR, "summed")
    for state, value in ((left, right), (right, left), (last, x), (total, summed)):
        b.next_state(state, value)
    for tensor in (left, right, kept, last, summed, total):
        b.output(tensor)
    graph = b.graph()
    rows, state = [], None
    for step in ([[10], [20]], [[11], [21]], [[12], [22]]):  # two streams
        outputs, state = simulate(graph, {"x": np.array(step)}, state)
        rows.append({name: value.ravel().tolist() for name, value in outputs.items()})
    assert [r["left"] for r in rows] == [[1, 1], [2, 2], [1, 1]]
    assert [r["right"] for r in rows] == [[2, 2], [1, 1], [2, 2]]
    assert [r["kept"] for r in rows] == [[5, 5]] * 3
    assert [r["last"] for r in rows] == [[0, 0], [10, 20], [11, 21]]
    assert [r["total"] for r in rows] == [[0, 0], [10, 20], [21, 41]]
    assert [r["summed"] for r in rows] == [[10, 20], [21, 41], [33, 63]]
    assert state is not None
    assert state["last"].tolist() == [[12], [22]]
