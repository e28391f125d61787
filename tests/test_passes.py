"""Passes: each keeps what a graph computes; the plan is frozen and its digest names every choice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any, cast

import numpy as np
import pytest

from tests.graphs import inputs_for, random_graph
from toolchain import measurement, passes, reference
from toolchain.errors import GraphError, ToolchainError
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import functions, tensors
from toolchain.passes import PIPELINE, Hls, Plan, dead, fusion

S8 = QType.of(8, True, 1)
ASCENDING = np.arange(-128, 128)


def test_passes_change_nothing_that_is_computed() -> None:
    for seed in range(40):
        graph = random_graph(seed, 10)
        refined, _ = passes.run(graph)
        inputs = inputs_for(graph, 4, seed)
        expected, states = reference.simulate(graph, inputs)
        got, after = reference.simulate(refined, inputs)
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])
        for name in states:
            np.testing.assert_array_equal(after[name], states[name])


def test_what_nobody_reads_goes_and_inputs_stay() -> None:
    b = GraphBuilder("net")
    x, unread = b.input("x", (4,), S8), b.input("unread", (4,), S8)
    y = b.lookup(x, S8, ASCENDING, "y")
    b.lookup(b.lookup(y, S8, ASCENDING, "lost"), S8, ASCENDING, "lost_too")
    h = b.state("h", [0] * 4, S8)
    b.next_state(h, b.lookup(unread, S8, ASCENDING, "for_state"))
    b.output(y)
    graph, _ = dead.run(b.graph(), Plan(), None)
    assert [op.output.name for op in graph.ops] == ["y", "for_state"]
    assert graph.inputs == (x, unread)
    assert dead.run(graph, Plan(), None)[0] == graph


def fused(build: Callable[[GraphBuilder], None]) -> frozenset[str]:
    b = GraphBuilder("net")
    build(b)
    return fusion.run(b.graph(), Plan(), None)[1].fused


def test_an_accumulator_read_once_is_never_stored() -> None:
    def build(b: GraphBuilder) -> None:
        x = b.input("x", (4,), S8)
        acc = b.dense(x, b.const("w", np.ones((3, 4), int)), None, "acc")
        b.output(b.threshold(acc, S8, [[0]], [[-1, 1]], "y"))

    assert fused(build) == {"acc"}


def test_what_is_read_twice_or_given_out_or_kept_is_stored() -> None:
    def build(b: GraphBuilder) -> None:
        x = b.input("x", (4,), S8)
        w = b.const("w", np.ones((4, 4), int))
        twice = b.dense(x, w, None, "twice")
        for name in ("one", "two"):
            b.output(b.requantize(twice, S8, [1], [0], [3], Rounding.FLOOR, name))
        out = b.dense(x, w, None, "out")
        b.output(out)
        b.output(b.requantize(out, S8, [1], [0], [3], Rounding.FLOOR, "three"))
        kept = b.dense(x, w, None, "kept")
        b.next_state(b.state("h", [0] * 4, kept.qtype), kept)
        b.output(b.requantize(kept, S8, [1], [0], [3], Rounding.FLOOR, "four"))
        squared = b.requantize(x, S8, [1], [0], [3], Rounding.FLOOR, "squared")
        b.output(b.multiply(squared, squared, "square"))

    assert fused(build) == set()


def test_chains_end_after_two_stages_and_begin_anew() -> None:
    def build(b: GraphBuilder) -> None:
        x = b.input("x", (4,), S8)
        value = b.dense(x, b.const("w", np.ones((4, 4), int)), None, "acc")
        value = b.requantize(value, S8, [1], [0], [3], Rounding.FLOOR, "s0")
        for k in range(1, 6):
            value = b.lookup(value, S8, ASCENDING, f"s{k}")
        b.output(value)

    assert fused(build) == {"acc", "s0", "s2", "s4"}


def test_moves_and_pools_of_the_largest_are_not_fused() -> None:
    def build(b: GraphBuilder) -> None:
        x = b.input("x", (4, 2), S8)
        most = b.max_pool(x, (2,), (2,), ((0, 0),), "most")
        b.output(b.requantize(b.reshape(most, (4,), "flat"), S8, [1], [0], [3], Rounding.FLOOR, "y"))

    assert fused(build) == set()


def test_a_wider_lookup_of_an_operand_is_taken_over_by_the_sum() -> None:
    """Not what is no wider, looked up again for each repetition, read by two or given out; nor is it the convolution's stage."""
    wide = QType.of(16, True, 1)

    def build(b: GraphBuilder) -> None:
        x, row = b.input("x", (3, 4), S8), b.input("row", (1, 4), S8)
        acc = b.dense(x, b.const("w", np.ones((4, 4), int)), None, "acc")
        stored = b.requantize(acc, S8, [1], [0], [3], Rounding.FLOOR, "stored")
        table = [9 * v for v in ASCENDING]
        a, c = b.lookup(stored, wide, table, "a"), b.lookup(x, wide, table, "c")
        y = b.requantize(b.add(a, c, "sum"), S8, [1], [0], [9], Rounding.FLOOR, "y")
        b.output(y)
        b.output(b.multiply(b.lookup(y, S8, ASCENDING, "narrow"), b.lookup(row, wide, table, "repeated"), "z"))
        two = b.lookup(y, wide, table, "two")
        b.output(b.sub(two, two, "nothing"))
        given = b.lookup(y, wide, table, "given")
        b.output(given)
        b.output(b.sub(given, b.lookup(x, wide, table, "d"), "more"))

    assert fused(build) == {"acc", "a", "c", "sum", "d"}
    b = GraphBuilder("net")
    build(b)
    graph, plan = passes.run(b.graph())
    found = {f.symbol: [t.name for t in f.inputs] for f in functions(graph, plan)}
    assert found["model_op1_add"] == ["stored", "x"]


def test_the_graph_is_checked_after_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(graph: Graph, plan: Plan, board: object) -> tuple[Graph, Plan]:
        return replace(graph, outputs=()), plan

    graph = random_graph(1)
    monkeypatch.setattr(passes, "PIPELINE", ((breaks, "to be caught"), *PIPELINE))
    with pytest.raises(GraphError, match="must have at least one input and one output"):
        passes.run(graph)


def test_every_pass_says_why_it_stands_where_it_does() -> None:
    assert [step.__module__.rpartition(".")[2] for step, _ in PIPELINE] == [
        "dead",
        "kernels",
        "storage",
        "fusion",
        "arena",
    ]
    assert all(reason for _, reason in PIPELINE)


def test_plan_is_frozen_and_its_digest_names_every_choice() -> None:
    plan = Plan(frozenset({"a", "b"}), {"c": 0, "d": 8}, 16, {"e": "x"}, {"w": "plain"})
    assert plan.digest() == Plan(frozenset({"b", "a"}), {"d": 8, "c": 0}, 16, {"e": "x"}, {"w": "plain"}).digest()
    others = [
        replace(plan, fused=frozenset({"a"})),
        replace(plan, arena={"c": 0, "d": 4}),
        replace(plan, arena_bytes=17),
        replace(plan, alias={}),
        replace(plan, packing={}),
        replace(plan, kernels={"f": "dsp"}),
        replace(plan, scratch={"f": 8}),
        replace(plan, scratch={"f": 8}, scratch_at={"f": 8}),
    ]
    assert len({p.digest() for p in (plan, *others)}) == 9
    assert len({plan, *others}) == 9
    with pytest.raises(FrozenInstanceError):
        plan.arena_bytes = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        plan.arena["c"] = 1  # type: ignore[index]


def test_hls_choices_are_in_the_digest_and_a_plan_without_them_keeps_its_own() -> None:
    plan = Plan(frozenset({"a"}))
    parts = {"fused": ["a"], "arena": {}, "arena_bytes": 0, "alias": {}, "packing": {}}
    assert plan.digest() == hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    hls = Hls("Vivado", "io_stream", {"": "Resource", "a": "Latency"}, {"": 4, "b": 2}, {"a": 9})
    same = Hls("Vivado", "io_stream", {"a": "Latency", "": "Resource"}, {"b": 2, "": 4}, {"a": 9})
    assert hls == same
    assert hash(hls) == hash(same)
    others = [
        Hls(),
        hls,
        replace(hls, tool="Vitis"),
        replace(hls, io="io_parallel"),
        replace(hls, strategy={"": "Resource"}),
        replace(hls, reuse_factor={"": 4}),
        replace(hls, fifo_depth={"a": 8}),
    ]
    digests = {replace(plan, hls=h).digest() for h in (None, *others)}
    assert len(digests) == len(others) + 1
    assert replace(plan, hls=same).digest() in digests
    with pytest.raises(TypeError):
        hls.reuse_factor["a"] = 1  # type: ignore[index]


def test_hls_choices_of_an_op_are_its_own_or_the_default() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (4,), S8)
    w = b.const("w", np.ones((4, 4), int))
    for name in ("one", "two"):
        b.output(b.dense(x, w, None, name))
    one, two = b.graph().ops
    assert [(Hls().reuse(op), Hls().strategy_of(op)) for op in (one, two)] == [(1, "Latency")] * 2
    hls = Hls(strategy={"": "Resource", "one": "Latency"}, reuse_factor={"": 4, "two": 2})
    assert [(hls.reuse(op), hls.strategy_of(op)) for op in (one, two)] == [(4, "Latency"), (2, "Resource")]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"io": "serial"}, "hls: io is 'serial', must be one of io_parallel, io_stream; correct it"),
        ({"strategy": {"y": "latency"}},
         "hls: strategy of y is 'latency', must be one of Latency, Resource, distributed_arithmetic; correct it"),
        ({"reuse_factor": {"": 0}}, "hls: reuse_factor of all is 0, must be at least 1; correct it"),
        ({"fifo_depth": {"y": -1}}, "hls: fifo_depth of y is -1, must be at least 1; correct it"),
    ],
)  # fmt: skip
def test_hls_choices_that_mean_nothing_are_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ToolchainError) as caught:
        Hls(**wrong)
    assert str(caught.value) == text


def test_the_same_graph_gives_the_same_plan() -> None:
    for seed in range(10):
        assert passes.run(random_graph(seed, 14))[1].digest() == passes.run(random_graph(seed, 14))[1].digest()


def test_the_tensor_table_starts_with_the_interface() -> None:
    graph, plan = passes.run(random_graph(3, 10))
    slots = tensors(graph, plan)
    names = [t.name for t in (*graph.inputs, *graph.outputs, *(s.input for s in graph.states))]
    assert [s.name for s in slots[: len(names)]] == names
    assert [s.index for s in slots] == list(range(len(slots)))
    made = [s.available_after_op for s in slots if s.role == "arena"]
    assert made == sorted(made)
    assert max(s.available_after_op for s in slots) < len(functions(graph, plan))


def test_measure_compares_all_that_the_loaded_graph_gives() -> None:
    """A pass that loses an output must not make a board exact."""
    graph = random_graph(1)
    x = graph.inputs[0]
    lost, none = replace(graph, outputs=(*graph.outputs, x)), cast(Any, None)
    with pytest.raises(AssertionError, match="not all of it would be compared"):
        measurement.measure(none, none, none, lost, graph, Plan(), {}, None, 1, none)
