"""The arena planner: what is needed at once never overlaps, offsets are aligned, and the result is close to what is possible."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from math import prod
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import inputs_for, random_graph
from tests.native import run_native, run_tensors
from tests.zoo import NAMES, ZOO, options
from toolchain import boards, flow, overlap, passes
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType, Tensor, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import SIZES, chains, copies, ctype, functions, head, nbytes, reads
from toolchain.passes import Plan, arena
from toolchain.reference import simulate

S8 = QType.of(8, True, 1)


def written_bytes(graph: Graph, plan: Plan) -> list[str]:
    """Run the plan on paper: each byte of memory remembers who wrote it, and every read must find what its tensor is made of.

    Independent of lifetimes as the planner sees them. Returns every wrong read. A Reshape that moves nothing renames, and a
    Concat writes only what is not where it belongs. Within an op all is read first: tests/test_overlap.py looks closer.
    """
    memory: dict[tuple[str, int], tuple[str, int]] = {}
    made_of: dict[str, list[tuple[str, int]]] = {}
    own = {t.name for t in (*graph.inputs, *(s.input for s in graph.states))}
    wrong = []

    def place(tensor: Tensor) -> list[tuple[str, int]]:
        space, at = plan.place(tensor.name)
        return [(space, at + k) for k in range(nbytes(tensor))]

    def read(tensor: Tensor, reader: str) -> None:
        if plan.place(tensor.name)[0] in own:
            return
        for at, must in zip(place(tensor), made_of[tensor.name], strict=True):
            if memory.get(at) != must:
                wrong.append(f"{reader} reads %{tensor.name} {must} at {at}, finds {memory.get(at)}")
                return

    for chain in chains(graph, plan.fused):
        op, out = head(chain), chain[-1].output
        at, size = plan.scratch_at.get(op.output.name, 0), plan.scratch.get(op.output.name, 0)
        scratch = {("", at + k): (f"scratch of {out.name}", k) for k in range(size)}
        memory |= scratch  # before it reads, and after it has written: it lies over nothing of either
        if at + size > plan.arena_bytes:
            wrong.append(f"scratch of {out.name} ends beyond the arena")
        for tensor in reads(chain):
            read(tensor, out.name)
        bytes_of = [(out.name, k) for k in range(nbytes(out))]
        writes = [True] * len(bytes_of)
        if isinstance(op, ops.Reshape) and plan.place(op.input.name) == plan.place(out.name):
            bytes_of, writes = made_of.get(op.input.name, bytes_of), [False] * len(bytes_of)
        if isinstance(op, ops.Slice) and set(place(out)) <= set(place(op.input)) and op.input.name in made_of:
            part = np.arange(op.input.size).reshape(op.input.shape)
            for n, begin, count, step in zip(range(9), op.begin, out.shape, op.strides, strict=False):
                part = part.take(begin + step * np.arange(count), axis=n)
            size = SIZES[ctype(out.qtype)]
            elements = [made_of[op.input.name][size * e + b] for e in part.ravel() for b in range(size)]
            bytes_of, writes = elements, [False] * len(bytes_of)
        if isinstance(op, ops.Concat) and prod(out.shape[: op.axis]) == 1:
            start, size = 0, SIZES[ctype(out.qtype)]
            for t in op.inputs:
                end = start + t.size * size
                if place(t) == place(out)[start:end]:
                    bytes_of[start:end], writes[start:end] = made_of[t.name], [False] * (end - start)
                start = end
        made_of[out.name] = bytes_of
        memory |= {at: byte for at, byte, written in zip(place(out), bytes_of, writes, strict=True) if written}
        memory |= scratch
    for tensor in (*copies(graph), *(s.output for s in graph.states), *graph.outputs):
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
    wrong = replace(plan, arena=dict.fromkeys(plan.arena, 0))
    assert written_bytes(graph, wrong)
    with pytest.raises(ToolchainError, match=r"which is still to be read; let the planner place it$"):
        overlap.check(graph, wrong)


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


def test_what_is_said_of_random_graphs() -> None:
    """The bound is never above the arena, and nearly always what is said is that nothing smaller exists."""
    optimal = 0
    for seed in range(120):
        _, plan = passes.run(random_graph(seed, 14))
        assert plan.arena_lower_bound <= plan.arena_proved <= plan.arena_bytes
        optimal += plan.arena_proved == plan.arena_bytes
    assert optimal >= 117


@pytest.mark.parametrize("name", [*NAMES, "digits"])
def test_every_model_of_the_zoo_is_optimal(name: str) -> None:
    path = ZOO / f"{name}.onnx" if name in NAMES else ZOO.parent / "digits" / "model.h5"
    graph, plan = passes.run(flow.load(path, options(name)))
    assert plan.arena_proved == plan.arena_bytes > 0
    assert written_bytes(graph, plan) == []


@pytest.mark.parametrize(
    ("name", "board", "arena"),
    [
        ("ad01_int8", "native", 256),
        ("ad01_int8", "unicorn_m4", 1408),
        ("kws_ref_model", "native", 9788),
        ("kws_ref_model", "unicorn_m4", 9728),
        ("pretrainedResnet_quant", "native", 33311),
        ("pretrainedResnet_quant", "unicorn_m4", 36080),
    ],
)
def test_every_mlperf_tiny_model_is_optimal(name: str, board: str, arena: int) -> None:
    """With what kernels need while they run."""
    graph, plan = passes.run(
        flow.load(Path(__file__).with_name("models") / "mlperf_tiny" / f"{name}.tflite"), boards.load(board)
    )
    assert written_bytes(graph, plan) == []
    assert (plan.arena_bytes, plan.arena_proved) == (arena, arena)


def test_the_arena_says_how_good_it_is() -> None:
    assert Plan(arena_bytes=1640, arena_lower_bound=1640, arena_proved=1640).arena_text == (
        "arena 1,640 bytes (lower bound 1,640: optimal)"
    )
    assert Plan(arena_bytes=607, arena_lower_bound=527, arena_proved=607).arena_text == (
        "arena 607 bytes (lower bound 527, by search 607: optimal)"
    )
    assert Plan(arena_bytes=618, arena_lower_bound=608, arena_proved=608).arena_text == (
        "arena 618 bytes (lower bound 608: at most 10 above the optimum)"
    )
    assert Plan(arena_bytes=64, arena_lower_bound=64, arena_proved=64, arena_for_speed=128).arena_text == (
        "arena 64 bytes (lower bound 64: optimal; made for less memory, for speed alone it takes 128)"
    )


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
    # 16 bits over 8: each write ends before what is still to be read, if the output begins 31 bytes before its input
    assert (plan.arena["one"] - plan.arena["wide"], plan.arena_bytes) == (31, 64)
    stored = Plan(frozenset({"acc"}))
    needs, _ = arena.problem(graph, stored, arena.Views(graph, stored))
    assert needs.over["two", "one"] == 0  # 8 over 8, at the very place


def joined(spread: bool) -> Graph:
    b = GraphBuilder("net")
    x = b.input("x", (1, 8, 2), S8)
    one = b.requantize(x, S8, [1], [0], [1], Rounding.FLOOR, "one")
    two = b.max_pool(x, (1, 2), (1, 2), ((0, 0), (0, 0)), "two")
    # the channels of `up` would lie between those of `one`
    both = b.concat([one, b.upsample(two, (1, 2), "up")], 2, "both") if spread else b.concat([one, two], 1, "both")
    b.output(b.max_pool(both, (1, 4), (1, 4), ((0, 0), (0, 0)), "most"))
    return b.graph()


def test_a_concat_is_written_in_place() -> None:
    graph, plan = passes.run(joined(False))
    assert (plan.arena["one"], plan.arena["two"], plan.arena["both"]) == (0, 16, 0)
    assert plan.arena_bytes == 24
    assert [f.kind for f in functions(graph, plan)] == ["requantize", "maxpool", "maxpool"]
    graph, plan = passes.run(joined(True))
    assert [f.kind for f in functions(graph, plan)] == ["requantize", "maxpool", "upsample", "concat", "maxpool"]


def test_a_concat_is_written_into_an_output() -> None:
    """To its place within memory that is not the arena's, under the names of reshapes too."""
    b = GraphBuilder("net")
    x = b.input("x", (6,), QType.of(16, True, 1))
    one = b.requantize(x, QType.of(16, True, 1), [3], [0], [1], Rounding.FLOOR, "one", clamp=(-900, 900))
    two = b.requantize(x, QType.of(16, True, 1), [5], [0], [1], Rounding.FLOOR, "two", clamp=(-900, 900))
    both = b.concat(
        [b.reshape(one, (3, 2), "tall"), b.reshape(two, (3, 2), "high"), b.reshape(one, (3, 2), "more")], 0, "both"
    )
    b.output(b.reshape(both, (18,), "y"))
    b.output(b.argmax(b.reshape(two, (6,), "flat"), "index"))
    graph, plan = passes.run(b.graph())
    assert plan.arena == {}
    assert plan.place("two") == plan.place("high") == ("y", 12)
    assert plan.place("one") == ("y", 0)
    assert [f.kind for f in functions(graph, plan)] == ["requantize", "requantize", "concat", "argmax"]
    samples = inputs_for(graph, 12)
    got, expected = run_native(graph, samples, sanitize=True), simulate(graph, samples)[0]
    for name in ("y", "index"):
        np.testing.assert_array_equal(got[name], expected[name])
    for slot, values in run_tensors(graph, plan, samples).items():
        if slot == 1:
            np.testing.assert_array_equal(values, expected["y"])


def test_a_part_of_a_concat_is_no_whole() -> None:
    """What is joined twice, or given out as well, is copied: one place is not two. (A seed that went wrong once.)"""
    b = GraphBuilder("net")
    x = b.input("x", (4,), S8)
    one = b.requantize(x, S8, [1], [0], [1], Rounding.FLOOR, "one")
    pair = b.concat([one, one], 0, "pair")
    four = b.concat([pair, pair], 0, "four")
    b.output(b.reshape(pair, (2, 4), "square"))
    b.output(b.reshape(four, (4, 4), "large"))
    b.output(b.argmax(one, "index"))
    graph, plan = passes.run(b.graph())
    assert written_bytes(graph, plan) == []
    samples = inputs_for(graph, 6)
    got, expected = run_native(graph, samples, sanitize=True), simulate(graph, samples)[0]
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


def test_some_inputs_of_a_concat_are_joined_and_others_copied() -> None:
    """In place, `one` would hold its third of `all` while that is long over, and `small` could not lie in it."""
    b = GraphBuilder("net")
    x = b.input("x", (1, 12), QType.of(16, True, 1))
    one = b.requantize(x, QType.of(16, True, 1), [3], [0], [1], Rounding.FLOOR, "one", clamp=(-900, 900))
    everything = b.concat([one, one, one], 0, "all")
    small = b.requantize(everything, S8, [1], [0], [4], Rounding.FLOOR, "small")
    flat = b.max_pool(small, (3,), (3,), ((0, 0),), "most")
    b.output(b.add(one, b.requantize(flat, QType.of(16, True, 1), [1], [0], [0], Rounding.FLOOR, "wide"), "y"))
    graph, plan = passes.run(b.graph())
    assert overlap.check(graph, plan) is None
    assert plan.arena_bytes == plan.arena_proved
    kinds: dict[frozenset[tuple[str, int]] | None, Plan] = {
        join: arena.planned(graph, replace(plan, arena={}), arena.Views(graph, plan, join))
        for join in (None, frozenset())
    }
    assert [p.arena_bytes for p in kinds.values()] == [108, 96]
    assert plan.arena_bytes == 72  # one of the three in its place


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


@pytest.mark.parametrize(("bits", "arena_bytes"), [(8, 40), (16, 80)])
def test_softmax_writes_over_what_it_reads(bits: int, arena_bytes: int) -> None:
    b = GraphBuilder("share")
    small = b.requantize(b.input("x", (4, 10), S8), S8, [1], [0], [1], Rounding.FLOOR, "small")
    kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
    share = b.softmax(small, [(1 << 31) - 1, *[0] * 255], kind, "share")
    b.output(b.transpose(share, (1, 0), "y"))
    graph, plan = passes.run(b.graph())
    assert plan.arena_bytes == arena_bytes
    assert written_bytes(graph, plan) == []


def test_scratch_lies_over_nothing_that_is_needed() -> None:
    """Over what its kernel reads, what it writes and what is read later; the check before code is emitted refuses each, and the
    paper run finds it."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("scratch")
    x = b.lookup(b.input("x", (8, 8, 8), S8), S8, np.arange(-128, 128)[::-1], "turned")
    w = b.const("w", rng.integers(-64, 64, (8, 3, 3, 8)))
    y = b.requantize(b.conv2d(x, w, None, "acc"), S8, [1], [0], [6], Rounding.FLOOR, "small", (-128, 127))
    left = b.slice(x, (1, 1, 0), (6, 6, 8), None, "middle")
    b.output(b.requantize(b.add(y, left, "sum"), S8, [1], [0], [1], Rounding.FLOOR, "y", (-128, 127)))
    graph, plan = passes.run(b.graph(), boards.load("unicorn_m4"))
    assert plan.kernels == {"acc": "dsp"}
    assert written_bytes(graph, plan) == []
    assert overlap.check(graph, plan) is None
    for name in ("turned", "small"):
        wrong = replace(plan, scratch_at={"acc": plan.arena[name]}, arena_bytes=1 << 14)
        assert written_bytes(graph, wrong)
        with pytest.raises(ToolchainError, match=rf"needs \d+ bytes at .* while it runs, over %{name} at"):
            overlap.check(graph, wrong)
    assert written_bytes(graph, replace(plan, arena_bytes=plan.scratch_at["acc"])) != []


def concats(seed: int) -> Graph:
    """Products and transposes among Concats of what was there before, some of them of the same tensors."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("concats")
    live = [b.input("x", (int(rng.integers(1, 40)),), S8)]
    for k in range(int(rng.integers(6, 14))):
        x = live[-1] if rng.integers(0, 3) else live[int(rng.integers(len(live)))]
        kind = rng.integers(0, 4)
        if kind < 2:
            acc = b.dense(x, b.const(f"w{k}", rng.integers(-3, 4, (int(rng.integers(1, 60)), x.size))), None, f"acc{k}")
            y = b.requantize(acc, S8, [1], [0], [4], Rounding.FLOOR, f"y{k}", (-128, 127))
        elif kind == 2:
            y = b.concat([live[int(i)] for i in rng.integers(0, len(live), int(rng.integers(2, 4)))], 0, f"c{k}")
        else:
            turned = b.transpose(b.reshape(x, (x.size, 1), f"r{k}"), (1, 0), f"t{k}")
            y = b.reshape(turned, (x.size,), f"rr{k}")
        live += [y] if y.size < 200 else []
    b.output(live[-1])
    return b.graph()


def test_no_choice_of_inputs_in_place_is_below_what_is_proved() -> None:
    """Nor is the plan above the best of them, where there are few enough to try all."""
    seen = 0
    for seed in range(60):
        graph, plan = passes.run(concats(seed))
        assert written_bytes(graph, plan) == []
        joins = [op for op in graph.ops if isinstance(op, ops.Concat)]
        inputs = [(op.output.name, k) for op in joins for k in range(len(op.inputs))]
        if not 1 <= len(inputs) <= arena.INPUTS + 2:
            continue
        seen += 1
        bare = replace(plan, arena={}, alias={}, within={})
        for count in range(len(inputs) + 1):
            for join in combinations(inputs, count):
                other = arena.planned(graph, bare, arena.Views(graph, bare, frozenset(join)))
                assert plan.arena_lower_bound <= plan.arena_proved <= other.arena_bytes, (seed, join)
                assert len(inputs) > arena.INPUTS or plan.arena_bytes <= other.arena_bytes, (seed, join)
    assert seen > 15
