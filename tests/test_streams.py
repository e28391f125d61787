"""FIFO depths: every network is run token by token, by a simulator of its own, at the depths derived and one below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from tests.graphs import graphs, random_graph
from toolchain import fifos, reference, streams
from toolchain.errors import UnsupportedError
from toolchain.ir import Graph, QType, Tensor
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Op, Reshape, Rounding, inputs_of
from toolchain.streams import FLOOR, Network

S8 = QType.of(8, True, 1)


class Maker:
    """Branched graphs of small integers; every tensor that is added or joined has one type."""

    def __init__(self, name: str = "net") -> None:
        self.b = GraphBuilder(name)

    def input(self, *shape: int, name: str = "x") -> Tensor:
        return self.b.input(name, shape, S8)

    def conv(self, x: Tensor, k: int = 3, stride: int = 1, out: int | None = None, same: bool = True) -> Tensor:
        out = out or x.channels
        pad = ((k // 2, k // 2),) * 2 if same else ((0, 0),) * 2
        w = self.b.const("w", np.ones((out, k, k, x.channels), int))
        return self.act(self.b.conv2d(x, w, None, "acc", (stride, stride), (1, 1), pad))

    def dense(self, x: Tensor, out: int) -> Tensor:
        return self.act(self.b.dense(x, self.b.const("w", np.ones((out, x.channels), int)), None, "acc"))

    def act(self, x: Tensor, name: str = "y") -> Tensor:
        return self.b.requantize(x, S8, [1], [0], [4], Rounding.FLOOR, name)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self.act(self.b.add(a, b, "sum"), "res")

    def done(self, *outputs: Tensor) -> Graph:
        for tensor in outputs:
            self.b.output(tensor)
        return self.b.graph()


def chain() -> Graph:
    m = Maker()
    x = m.conv(m.conv(m.input(8, 8, 2)), stride=2)
    return m.done(m.dense(m.b.reshape(x, (x.size,), "flat"), 3))


def residual(k: int = 3, size: int = 8) -> Graph:
    m = Maker()
    x = m.input(size, size, 2)
    return m.done(m.add(x, m.conv(x, k)))


def residual_strided() -> Graph:
    m = Maker()
    x = m.act(m.input(8, 8, 2))
    return m.done(m.add(m.conv(x, 1, 2, 4), m.conv(m.conv(x, 3, 2, 4), 3)))


def nested() -> Graph:
    m = Maker()
    x = m.input(6, 7, 2)
    y = m.conv(x)
    inner = m.add(y, m.conv(m.conv(y)))
    return m.done(m.add(x, m.conv(inner)))


def dense_net() -> Graph:
    m = Maker()
    x = m.input(6, 6, 2)
    for _ in range(3):
        x = m.b.concat([x, m.conv(x, out=2)], 2, "cat")
    return m.done(x)


def squeeze_excite() -> Graph:
    m = Maker()
    x = m.conv(m.input(6, 6, 3))
    pooled = m.act(m.b.sum_pool(x, (6, 6), (6, 6), ((0, 0), (0, 0)), "pooled"))
    gate = m.dense(m.dense(m.b.reshape(pooled, (3,), "flat"), 2), 3)
    return m.done(m.act(m.b.multiply(x, m.b.reshape(gate, (1, 1, 3), "gate"), "scaled")))


def two_outputs() -> Graph:
    m = Maker()
    x = m.input(5, 5, 2)
    y = m.conv(x)
    return m.done(m.conv(y), m.conv(y, stride=2), y)


def two_inputs() -> Graph:
    m = Maker()
    a, b = m.input(5, 5, 2, name="a"), m.input(5, 5, 2, name="b")
    return m.done(m.add(m.conv(b), a))


def joined(axis: int) -> Graph:
    m = Maker()
    x = m.input(4, 5, 2)
    return m.done(m.b.concat([m.conv(x), x], axis, "cat"))


def moved() -> Graph:
    """Transpose, upsampling, a reshape that repacks, argmax and a pad between clone and sum."""
    m = Maker()
    x = m.input(4, 4, 2)
    turned = m.b.transpose(m.b.transpose(x, (1, 0, 2), "t1"), (1, 0, 2), "t2")
    large = m.b.upsample(m.b.max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)), "pool"), (2, 2), "up")
    packed = m.b.reshape(m.b.reshape(x, (8, 4), "packed"), (4, 4, 2), "unpacked")
    padded = m.b.max_pool(m.b.pad(x, ((1, 0), (0, 1), (0, 0)), "pad"), (2, 2), (1, 1), ((0, 0), (0, 0)), "most")
    y = m.add(m.add(turned, large), m.add(packed, padded))
    return m.done(m.b.argmax(y, "index"), m.b.argmax(m.b.reshape(x, (32,), "flat"), "one"))


def branched(seed: int) -> Graph:
    """Residual, joining and gating blocks at random, one after another and inside each other."""
    rng = np.random.default_rng(seed)
    m = Maker()

    def block(x: Tensor, depth: int) -> Tensor:
        kind = rng.integers(0, 6)
        if depth == 0 or kind == 0:
            return m.conv(x, int(rng.choice([1, 3])), 1, x.channels)
        if kind == 1:
            return m.act(x)
        if kind == 2:
            return both(x, block(x, depth - 1))
        if kind == 3:
            other, axis = block(x, depth - 1), int(rng.integers(0, 3))
            fits = other.shape[:axis] + other.shape[axis + 1 :] == x.shape[:axis] + x.shape[axis + 1 :]
            return m.conv(m.b.concat([x, other], axis, "cat"), 1, 1, x.channels) if fits else other
        if kind == 4:
            least = m.b.max_pool(x, x.shape[:2], (1, 1), ((0, 0), (0, 0)), "most")
            return m.act(m.b.multiply(least, block(x, depth - 1), "scaled"))
        return both(block(x, depth - 1), block(x, depth - 1))

    def both(a: Tensor, b: Tensor) -> Tensor:
        return m.add(a, b) if a.shape == b.shape else m.act(a)

    x = m.input(int(rng.integers(2, 7)), int(rng.integers(2, 7)), 2)
    for _ in range(2):
        x = block(x, 2)
    return m.done(x, m.act(x)) if rng.integers(0, 3) == 0 else m.done(x)


NAMED = {
    "chain": chain(),
    "residual": residual(),
    "residual_strided": residual_strided(),
    "nested": nested(),
    "dense_net": dense_net(),
    "squeeze_excite": squeeze_excite(),
    "two_outputs": two_outputs(),
    "two_inputs": two_inputs(),
    **{f"joined_{axis}": joined(axis) for axis in range(3)},
    "moved": moved(),
}


# the simulator: one token a move, nothing shared with fifos.py


Action = tuple[tuple[int, ...], tuple[int, ...]]  # FIFOs read, FIFOs written


def program(net: Network, p: int, inferences: int) -> list[Action]:
    one: list[Action] = []
    for firing in net.processes[p].firings:
        reads = tuple(f for f, count in firing.reads for _ in range(count))
        writes = tuple(f for f, count in firing.writes for _ in range(count))
        one += [(reads, writes)] * firing.times
    return one * inferences


def late(actions: list[Action], lag: int) -> list[Action]:
    """The same where a pipeline holds each result back until `lag` more steps were taken, or the inference ends."""
    n = len(actions)
    return [
        (actions[i][0] if i < n else (), actions[i - lag][1] if i >= lag else ())
        for i in range(n + lag)
        if i < n or (i >= lag and actions[i - lag][1])
    ]


def apart(actions: list[Action], rng: np.random.Generator) -> list[Action]:
    """The same with the reads and writes of one step one by one, in any order: what a kernel's C++ says in sequence."""
    found: list[Action] = []
    for reads, writes in actions:
        found += [((reads[k],), ()) for k in rng.permutation(len(reads))]
        found += [((), (writes[k],)) for k in rng.permutation(len(writes))]
    return found


def ends(programs: list[list[Action]], depths: list[int], rng: np.random.Generator | None = None) -> bool:
    """Whether every program comes to its end, processes taking turns (in random order with `rng`)."""
    level, at = [0] * len(depths), [0] * len(programs)
    moved = True
    while moved:
        moved = False
        order = range(len(programs)) if rng is None else rng.permutation(len(programs))
        for p in order:
            while at[p] < len(programs[p]):
                reads, writes = programs[p][at[p]]
                if any(level[f] < reads.count(f) for f in reads):
                    break
                if any(level[f] + writes.count(f) > depths[f] for f in writes):
                    break
                for f in reads:
                    level[f] -= 1
                for f in writes:
                    level[f] += 1
                at[p] += 1
                moved = True
                if rng is not None and rng.integers(0, 2):
                    break
    done = all(a == len(program) for a, program in zip(at, programs, strict=True))
    assert not done or not any(level)
    return done


def prove(graph: Graph, seed: int = 0) -> int:
    """How many FIFOs are deeper than the floor; each of them is as shallow as can be, and all together are enough."""
    net, rng = streams.network(graph), np.random.default_rng(seed)
    depths = fifos.smallest(net)
    programs = [program(net, p, 2) for p in range(len(net.processes))]
    assert ends(programs, depths)
    assert ends([apart(actions, rng) for actions in programs], depths, rng)
    assert fifos.stuck(net, depths) == []
    deep = [f for f, depth in enumerate(depths) if depth > FLOOR]
    for f in deep:
        less = [depth - (g == f) for g, depth in enumerate(depths)]
        assert not ends(programs, less), net.fifos[f].name
        assert fifos.stuck(net, less)
    assert all(d <= max(f.tokens, FLOOR) for f, d in zip(net.fifos, depths, strict=True))
    return len(deep)


@pytest.mark.parametrize("name", NAMED)
def test_depths_are_enough_and_one_less_is_not(name: str) -> None:
    assert (prove(NAMED[name]) > 0) == (name != "chain")


def test_depths_of_random_branched_graphs_are_enough_and_one_less_is_not() -> None:
    deep = [prove(branched(seed), seed) for seed in range(40)]
    assert sum(d > 0 for d in deep) > 20


def streamed(seed: int) -> Graph:
    graph = random_graph(seed, 7)
    return graph if not graph.states else random_graph(seed + 1000, 7)


def test_depths_of_random_graphs_of_every_op_are_enough_and_one_less_is_not() -> None:
    found = [prove(graph, seed) for seed in range(80) if not (graph := streamed(seed)).states]
    assert len(found) > 50
    assert sum(d > 0 for d in found) > 20


@given(graphs(max_bits=32))
@settings(max_examples=30, deadline=None)
def test_depths_of_drawn_graphs_are_enough(graph: Graph) -> None:
    if not graph.states:
        prove(graph)


def test_a_skip_over_one_convolution_waits_for_a_row_and_two() -> None:
    """3x3 on rows of 8: the first sum needs 8 + 2 tokens of x; the FIFOs of the long way hold FLOOR each while it waits."""
    found = fifos.depths(residual(3, 8))
    assert {name: d for name, d in found.items() if d > FLOOR} == {"x_cpy2": 10}
    assert {n: d for n, d in fifos.depths(residual(5, 8)).items() if d > FLOOR} == {"x_cpy2": 2 * 8 + 3}
    assert {n: d for n, d in fifos.depths(residual(1, 8)).items() if d > FLOOR} == {}


def test_what_is_gated_waits_for_the_whole_tensor() -> None:
    found = {n: d for n, d in fifos.depths(squeeze_excite()).items() if d > FLOOR}
    assert list(found.values()) == [36]


def test_where_several_could_wait_the_narrowest_token_does() -> None:
    m = Maker()
    x = m.input(6, 6, 2)
    narrow = m.b.requantize(x, QType.of(2, True, 1), [1], [0], [4], Rounding.FLOOR, "narrow")
    wide = m.b.requantize(narrow, S8, [1], [0], [0], Rounding.FLOOR, "wide")
    found = fifos.depths(m.done(m.add(wide, m.conv(x))))
    assert found["narrow"] > FLOOR
    assert {found[name] for name in ("x_cpy1", "x_cpy2", "wide")} == {FLOOR}


def test_names_of_copies_follow_the_readers_and_an_output_comes_first() -> None:
    m = Maker()
    x = m.input(3, 3, 2)
    y = m.act(x)
    z = m.b.add(y, y, "twice")
    net = streams.network(m.done(y, z))
    assert [f.name for f in net.fifos] == ["x", "y", "y_cpy1", "y_cpy2", "y_cpy3", "twice"]
    reader = {f: p.name for p in net.processes for firing in p.firings for f, _ in firing.reads}
    assert [reader[f] for f in range(6)] == ["y", "y_clone", "sink", "twice", "twice", "sink"]


def test_a_flattened_tensor_is_gathered_by_its_reader() -> None:
    net = streams.network(chain())
    assert "flat" not in [f.name for f in net.fifos] + [p.name for p in net.processes]
    dense = next(p for p in net.processes if p.name == "acc_3")
    assert [(bool(f.reads), bool(f.writes), f.times) for f in dense.firings] == [(True, False, 16), (False, True, 1)]


def test_what_nobody_reads_has_no_process() -> None:
    m = Maker()
    x = m.input(4, 4, 2)
    m.b.input("unread", (3,), S8)
    m.conv(m.act(x, "lost"))
    graph = m.done(m.act(x, "kept"))
    assert [p.name for p in streams.network(graph).processes] == ["source", "kept", "sink"]
    assert prove(graph) == 0


def test_states_are_refused() -> None:
    m = Maker()
    h = m.b.state("h", [0, 0], S8)
    x = m.input(2)
    m.b.next_state(h, x)
    with pytest.raises(UnsupportedError) as caught:
        streams.network(m.done(m.add(x, h)))
    assert str(caught.value) == "graph net: keeps state %h, which a stream cannot; use --io parallel"


# what is read before what is written: causal, by the reference


def made(net: Network, fifo: int, allowed: int) -> int:
    """Tokens that the sink receives of the only output when the source gives `allowed` tokens of one FIFO and all of the others."""
    programs = [program(net, p, 1) for p in range(len(net.processes))]
    source = [a for a in programs[0] if a[1] != (fifo,)]
    programs[0] = source + [((), (fifo,))] * allowed
    level, at = [0] * len(net.fifos), [0] * len(programs)
    moved = True
    while moved:
        moved = False
        for p, actions in enumerate(programs):
            while at[p] < len(actions) and all(level[f] >= actions[at[p]][0].count(f) for f in actions[at[p]][0]):
                for f in actions[at[p]][0]:
                    level[f] -= 1
                for f in actions[at[p]][1]:
                    level[f] += 1
                at[p] += 1
                moved = True
    return at[-1]


def alone(op: Op) -> Graph:
    inputs = tuple({t.name: t for t in inputs_of(op)}.values())
    return Graph("one", inputs, (op.output,), (op,))


def by_token(tensor: Tensor, array: np.ndarray) -> np.ndarray:
    return array.reshape(streams.tokens(tensor), tensor.channels)


def test_no_token_leaves_before_the_tokens_that_decide_it() -> None:
    """Inputs are changed from some token on: what the model says was written before that may not change."""
    rng = np.random.default_rng(0)
    kinds: dict[str, int] = {}
    ops = [op for seed in range(150) for op in random_graph(seed, 6, 24).ops]
    for op in ops:
        graph = alone(op)
        net = streams.network(graph)
        for tensor in graph.inputs:
            n = int(rng.integers(0, streams.tokens(tensor) + 1))
            fifo = next(k for k, f in enumerate(net.fifos) if f.name == tensor.name)
            done = made(net, fifo, n)
            first = {t.name: rng.integers(t.qtype.min, t.qtype.max, (1, *t.shape), endpoint=True) for t in graph.inputs}
            other = rng.integers(tensor.qtype.min, tensor.qtype.max, tensor.shape, endpoint=True)
            changed = by_token(tensor, first[tensor.name][0].copy())
            changed[n:] = by_token(tensor, other)[n:]
            second = {**first, tensor.name: changed.reshape(1, *tensor.shape)}
            a, b = (reference.simulate(graph, given)[0][op.output.name][0] for given in (first, second))
            np.testing.assert_array_equal(by_token(op.output, a)[:done], by_token(op.output, b)[:done])
            kinds[type(op).__name__] = kinds.get(type(op).__name__, 0) + (0 < done < streams.tokens(op.output))
    exercised = {name for name, count in kinds.items() if count}
    assert exercised >= {
        "Conv1D",
        "Conv2D",
        "DepthwiseConv2D",
        "MaxPool",
        "SumPool",
        "Pad",
        "Concat",
        "UpSample",
        "Reshape",
    }
    assert exercised >= {"Dense", "Requantize", "Threshold", "Lookup", "Add", "Sub", "Multiply"}


def test_every_token_that_windows_allow_leaves_at_once() -> None:
    """Line buffers wait for nothing they do not need: a window's output follows its last token, in the same step."""
    m = Maker()
    net = streams.network(m.done(m.b.max_pool(m.input(3, 4, 1), (2, 2), (1, 2), ((0, 0), (0, 0)), "most")))
    writes = [bool(action[1]) for action in program(net, 1, 1)]
    assert writes == [False] * 4 + [False, True, False, True] * 2


# pipelines that hold tokens back


def test_depths_with_tokens_in_flight_survive_any_lag() -> None:
    rng = np.random.default_rng(1)
    graphs = [*NAMED.values(), *(branched(seed) for seed in range(20))]
    fell = 0
    for graph in graphs:
        net = streams.network(graph)
        lags = {p.name: int(rng.integers(0, 12)) for p in net.processes}
        given = fifos.depths(graph, lags)
        depths = [given.get(f.name, FLOOR) for f in net.fifos]
        for _ in range(3):
            held = [int(rng.integers(0, lags[p.name] + 1)) for p in net.processes]
            programs = [late(program(net, p, 1), lag) * 2 for p, lag in enumerate(held)]
            assert ends(programs, depths), graph.name
            fell += not ends(programs, fifos.smallest(net))
        assert all(given[f.name] <= max(f.tokens, FLOOR) for f in net.fifos if not f.own)
    assert fell > 5


def given_less(graph: Graph, name: str) -> Mapping[str, int]:
    return {name: fifos.depths(graph)[name] - 1}


def test_check_names_who_blocks() -> None:
    graph = residual()
    assert fifos.check(graph, {}) == []
    assert fifos.check(graph, fifos.depths(graph)) == []
    assert "x_clone" in fifos.check(graph, given_less(graph, "x_cpy2"))


def test_the_depths_are_the_same_every_time_and_of_equal_graphs() -> None:
    for seed in range(5):
        assert list(fifos.depths(branched(seed)).items()) == list(fifos.depths(branched(seed)).items())
    scaled = replace(residual(), notes=("a note",))
    assert fifos.depths(scaled) == fifos.depths(residual())


def test_in_place_reshapes_are_those_to_one_axis_inside() -> None:
    graph = moved()
    assert streams.in_place(graph) == {"flat"}
    assert [op.output.name for op in graph.ops if isinstance(op, Reshape)] == ["packed", "unpacked", "flat"]
