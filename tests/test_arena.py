"""The arena planner: what is needed at once never overlaps, offsets are aligned, and the result is close to what is possible."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.graphs import random_graph
from toolchain import passes
from toolchain.ir import Graph, QType, Tensor
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding, inputs_of
from toolchain.layout import SIZES, chains, copies, ctype, nbytes
from toolchain.passes import Plan, arena
from toolchain.passes.arena import Buffer, buffers, lower_bound, pack

S8 = QType.of(8, True, 1)


def written_bytes(graph: Graph, plan: Plan) -> list[str]:
    """Run the plan on paper: each byte of the arena remembers who wrote it, and every read must find its own tensor.

    Independent of lifetimes as the planner sees them. Returns every wrong read. A Reshape that moves nothing renames.
    """
    memory: list[tuple[str, int] | None] = [None] * plan.arena_bytes
    same: dict[str, str] = {}
    wrong = []

    def holder(tensor: Tensor) -> str:
        return same.get(tensor.name, tensor.name)

    def place(tensor: Tensor) -> range | None:
        at = plan.arena.get(tensor.name)
        return None if at is None else range(at, at + nbytes(tensor))

    def read(tensor: Tensor, reader: str) -> None:
        for k, at in enumerate(place(tensor) or ()):
            if memory[at] != (holder(tensor), k):
                wrong.append(f"{reader} reads %{tensor.name} byte {k} at {at}, finds {memory[at]}")
                return

    for chain in chains(graph, plan.fused):
        out = chain[-1].output
        for tensor in inputs_of(chain[0]):
            read(tensor, out.name)
        if len(chain) == 1 and type(chain[0]).__name__ == "Reshape":
            source = inputs_of(chain[0])[0]
            if plan.place(source.name) == plan.place(out.name):
                same[out.name] = holder(source)
                continue
        for k, at in enumerate(place(out) or ()):
            memory[at] = (out.name, k)
    for tensor in (*copies(graph), *(s.output for s in graph.states)):
        read(tensor, "finish")
    return wrong


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_no_plan_loses_a_tensor(start: int) -> None:
    for seed in range(start, start + 50):
        graph, plan = passes.run(random_graph(seed, 12))
        assert written_bytes(graph, plan) == []
        for op in graph.ops:
            if op.output.name in plan.arena:
                assert plan.arena[op.output.name] % SIZES[ctype(op.output.qtype)] == 0
                assert plan.arena[op.output.name] + nbytes(op.output) <= plan.arena_bytes


def test_the_paper_run_notices_an_overlap() -> None:
    for seed in range(100):
        graph, plan = passes.run(random_graph(seed, 12))
        if len(set(plan.arena.values())) > 2:
            break
    wrong = Plan(plan.fused, dict.fromkeys(plan.arena, 0), plan.arena_bytes, plan.alias)
    assert written_bytes(graph, wrong)


def test_every_stored_tensor_has_one_place() -> None:
    for seed in range(100):
        graph, plan = passes.run(random_graph(seed, 10))
        own = {t.name for t in (*graph.inputs, *graph.outputs, *(s.input for s in graph.states))}
        for tensor in graph.tensors():
            places = (
                tensor.name in own,
                tensor.name in plan.arena,
                tensor.name in plan.alias,
                tensor.name in plan.fused,
            )
            assert sum(places) == 1, tensor.name
        assert set(plan.alias.values()) <= own


def test_close_to_the_lower_bound_on_random_graphs() -> None:
    """Never below it; and over many graphs within 1 % of it."""
    bytes_used = bound = 0
    for seed in range(120):
        graph, plan = passes.run(random_graph(seed, 14))
        least = min(lower_bound(buffers(graph, plan, in_place)[0]) for in_place in (True, False))
        assert plan.arena_bytes >= least
        bytes_used, bound = bytes_used + plan.arena_bytes, bound + least
    assert bytes_used <= 1.01 * bound


def spans(*rows: tuple[int, int, int]) -> list[Buffer]:
    return [Buffer(size, 1, first, last, [f"t{k}"]) for k, (size, first, last) in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([], 0),
        ([(10, 0, 1)], 10),
        ([(10, 0, 1), (20, 1, 2), (10, 2, 3)], 30),
        ([(100, 0, 1), (50, 1, 2), (100, 2, 3), (50, 3, 4)], 150),
        # largest first alone takes 17
        ([(3, 1, 3), (7, 1, 1), (8, 3, 5), (7, 4, 5), (9, 0, 0), (5, 0, 2)], 15),
        ([(8, 0, 9), (1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 3, 4)], 15),
    ],
)
def test_known_best(rows: list[tuple[int, int, int]], best: int) -> None:
    found = spans(*rows)
    offsets, total = pack(found)
    assert total == best == lower_bound(found)
    for a in found:
        for b in found:
            if a is not b and a.first <= b.last and b.first <= a.last:
                assert offsets[id(a)] + a.size <= offsets[id(b)] or offsets[id(b)] + b.size <= offsets[id(a)]


def test_alignment_leaves_room() -> None:
    found = [Buffer(3, 1, 0, 1, ["a"]), Buffer(8, 4, 0, 1, ["b"]), Buffer(2, 2, 0, 1, ["c"])]
    offsets, total = pack(found)
    assert [offsets[id(b)] % b.align for b in found] == [0, 0, 0]
    assert total == 13


def test_reshape_costs_nothing_and_elementwise_ops_work_in_place() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (4, 8), S8)
    w = b.const("w", np.arange(64).reshape(8, 8))
    one = b.requantize(b.dense(x, w, None, "acc"), S8, [1], [0], [9], Rounding.FLOOR, "one")
    flat = b.reshape(one, (32,), "flat")
    two = b.lookup(flat, S8, np.arange(-128, 128), "two")
    wide = b.requantize(two, QType.of(16, True, 1), [100], [0], [0], Rounding.FLOOR, "wide")  # chains with two
    kept = b.max_pool(b.reshape(wide, (4, 8), "square"), (2,), (2,), ((0, 0),), "kept")
    b.output(kept)
    graph, plan = passes.run(b.graph())
    assert plan.fused == {"acc", "two"}
    assert plan.arena["flat"] == plan.arena["one"]
    assert plan.arena["square"] == plan.arena["wide"]
    assert plan.arena_bytes == 32 + 64  # 16 bits do not go over 8: a write would reach what is still to be read
    _, stored = arena.run(graph, Plan(frozenset({"acc"})), None)
    assert stored.arena["two"] == stored.arena["flat"]  # 8 over 8 do


def test_what_is_read_later_is_not_written_over() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (8,), S8)
    one = b.lookup(x, S8, np.arange(-128, 128), "one")
    two = b.requantize(one, S8, [1], [1], [0], Rounding.FLOOR, "two")
    b.output(b.add(two, one, "sum"))
    graph, plan = passes.run(b.graph())
    assert plan.arena["one"] != plan.arena["two"]
    assert written_bytes(graph, plan) == []


def test_a_state_is_read_at_the_end() -> None:
    b = GraphBuilder("net")
    h = b.state("h", np.zeros(8, int), S8)
    x = b.input("x", (8,), S8)
    after = b.lookup(x, S8, np.arange(-128, 128), "after")
    b.next_state(h, after)
    one = b.requantize(after, S8, [1], [1], [0], Rounding.FLOOR, "one")
    two = b.max_pool(b.reshape(one, (8, 1), "tall"), (2,), (2,), ((0, 0),), "two")
    b.output(b.add(b.reshape(two, (4,), "flat"), b.reshape(b.max_pool(b.reshape(h, (8, 1), "old"), (2,), (2,),
             ((0, 0),), "most"), (4,), "flat_most"), "y"))  # fmt: skip
    graph, plan = passes.run(b.graph())
    assert plan.alias == {"old": "h"}
    assert written_bytes(graph, plan) == []


@pytest.mark.parametrize(("bits", "arena_bytes"), [(8, 40), (16, 120)])
def test_softmax_writes_over_what_it_reads_where_that_is_as_wide(bits: int, arena_bytes: int) -> None:
    b = GraphBuilder("share")
    small = b.requantize(b.input("x", (4, 10), S8), S8, [1], [0], [1], Rounding.FLOOR, "small")
    kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
    share = b.softmax(small, [(1 << 31) - 1, *[0] * 255], kind, "share")
    b.output(b.transpose(share, (1, 0), "y"))
    graph, plan = passes.run(b.graph())
    assert plan.arena_bytes == arena_bytes
    assert written_bytes(graph, plan) == []
