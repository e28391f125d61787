"""passes/reuse.py: the choice meets its target or fits its board, is at the edge, and the same however it is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.test_streams import NAMED, Maker, branched
from toolchain import boards, estimate, folding, lint
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType
from toolchain.ir.ops import Dense, Mac
from toolchain.passes.plan import Hls
from toolchain.passes.reuse import choose

PYNQ = boards.load("pynq_z2")
S12 = QType.of(12, True, 1)


def net(seed: int = 0) -> Graph:
    rng = np.random.default_rng(seed)
    m = Maker()

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-2000, 2000, shape)

    x = m.b.input("x", (6, 6, 4), S12)
    y = m.act(m.b.conv2d(x, m.b.const("w", weights(8, 3, 3, 4)), None, "conv"))
    z = m.act(m.b.conv2d(y, m.b.const("w", weights(6, 1, 1, 8)), None, "point"))
    flat = m.b.reshape(z, (z.size,), "flat")
    return m.done(m.act(m.b.dense(flat, m.b.const("w", weights(10, z.size)), None, "last")))


def board(**room: int) -> boards.Board:
    return replace(PYNQ, fpga=replace(PYNQ.fpga, **room))  # type: ignore[type-var]


def latency(graph: Graph, hls: Hls, on: boards.Board = PYNQ) -> float:
    return estimate.estimate(graph, on, hls).latency_us


def factors(graph: Graph, hls: Hls) -> dict[str, int]:
    return {op.output.name: hls.reuse(op) for op in graph.ops if isinstance(op, Mac)}


LARGE = board(luts=10**7, ffs=10**7, dsps=10**6, brams=10**5)


@pytest.mark.parametrize("io", ["io_parallel", "io_stream"])
def test_a_target_is_met_and_no_factor_can_be_raised(io: str) -> None:
    graph, hls = net(), Hls(io=io)
    fastest = latency(graph, hls)
    seen = set()
    for target in (fastest, fastest * 1.3, fastest * 2, fastest * 5, fastest * 1000):
        found = choose(graph, LARGE, hls, target)
        assert latency(graph, found, LARGE) <= target
        for op in (op for op in graph.ops if isinstance(op, Mac)):
            choices = folding.choices(op, hls.stream)
            assert found.reuse(op) in choices
            assert found.strategy_of(op) == ("Latency" if found.reuse(op) == 1 else "Resource")
            more = [rf for rf in choices if rf > found.reuse(op)]
            if more:
                name = op.output.name
                raised = replace(
                    found,
                    reuse_factor={**found.reuse_factor, name: more[0]},
                    strategy={**found.strategy, name: "Resource"},
                )
                assert latency(graph, raised, LARGE) > target
        seen.add(tuple(factors(graph, found).values()))
    assert len(seen) >= 4
    assert max(f[0] for f in seen) == (36 if io == "io_parallel" else 36 * 8)  # beyond n_in only in streams


def test_a_dense_over_positions_is_a_convolution_and_shares_no_more_than_one_can() -> None:
    m = Maker()
    y = m.b.dense(m.input(3, 6), m.b.const("w", np.ones((4, 6), int)), None, "acc")
    assert y.shape == (3, 4)
    (op,) = m.b.ops
    assert isinstance(op, Dense)
    assert folding.choices(op, stream=False) == [1, 2, 3, 6]
    assert folding.choices(op, stream=True) == [1, 2, 3, 6, 12, 24]


@pytest.mark.parametrize("io", ["io_parallel", "io_stream"])
def test_without_a_target_the_board_is_filled_and_no_factor_can_be_lowered(io: str) -> None:
    graph, hls = net(), Hls(io=io)
    assert set(factors(graph, choose(graph, LARGE, hls)).values()) == {1}
    for dsps in (20, 45, 60, 90, 130, 200, 250):
        filled(graph, board(dsps=dsps, luts=10**7, ffs=10**7), hls)


def filled(graph: Graph, small: boards.Board, hls: Hls) -> None:
    found = choose(graph, small, hls)
    assert not estimate.estimate(graph, small, found).over()
    assert max(factors(graph, found).values()) > 1
    for op in (op for op in graph.ops if isinstance(op, Mac)):
        less = [rf for rf in folding.choices(op, hls.stream) if rf < found.reuse(op)]
        for rf in less[-1:]:
            name = op.output.name
            lowered = replace(
                found,
                reuse_factor={**found.reuse_factor, name: rf},
                strategy={**found.strategy, name: "Latency" if rf == 1 else "Resource"},
            )
            assert estimate.estimate(graph, small, lowered).over()


def test_the_linter_has_nothing_against_the_factors_chosen() -> None:
    for seed in range(3):
        for io in ("io_parallel", "io_stream"):
            found = choose(net(seed), board(dsps=60, luts=10**7, ffs=10**7), Hls(io=io))
            assert [str(f) for f in lint.lint(net(seed), LARGE, found)] == []


def test_products_beyond_what_is_unrolled_are_never_chosen() -> None:
    m = Maker()
    x = m.input(100)
    graph = m.done(m.act(m.b.dense(x, m.b.const("w", np.ones((100, 100), int)), None, "acc")))
    found = choose(graph, LARGE, Hls("Vivado"))
    assert factors(graph, found) == {"acc": 4}
    assert folding.choices(graph.ops[0], True)[0] == 4  # type: ignore[arg-type]


def test_what_was_given_by_name_is_kept() -> None:
    graph = net()
    hls = Hls(strategy={"": "Resource"}, reuse_factor={"conv": 9, "": 4})
    found = choose(graph, LARGE, hls)
    assert factors(graph, found) == {"conv": 9, "point": 1, "last": 1}
    assert [found.strategy_of(op) for op in graph.ops if isinstance(op, Mac)] == ["Resource", "Latency", "Latency"]
    da = Hls(strategy={"last": "distributed_arithmetic"})
    slow = choose(graph, LARGE, da, 1e6)
    assert (slow.strategy["last"], slow.reuse_factor["last"]) == ("distributed_arithmetic", 1)
    intel = choose(graph, replace(LARGE, part="10AX115S2F45I1SG"), Hls("oneAPI", strategy={"": "Resource"}))
    assert {intel.strategy_of(op) for op in graph.ops if isinstance(op, Mac)} == {"Resource"}


def test_the_order_of_mappings_does_not_matter() -> None:
    graph, target = net(), 20.0
    one = Hls(strategy={"": "Latency", "conv": "Resource"}, reuse_factor={"conv": 9, "": 2})
    other = Hls(strategy={"conv": "Resource", "": "Latency"}, reuse_factor={"": 2, "conv": 9})
    assert choose(graph, LARGE, one, target) == choose(graph, LARGE, other, target)
    assert choose(graph, LARGE, Hls(), target) == choose(graph, LARGE, Hls(), target)


def test_graphs_of_every_shape_are_chosen_for() -> None:
    for graph in (*NAMED.values(), *(branched(seed) for seed in range(6))):
        for io in ("io_parallel", "io_stream"):
            found = choose(graph, LARGE, Hls(io=io), latency(graph, Hls(io=io), LARGE) * 3)
            assert latency(graph, found, LARGE) <= latency(graph, Hls(io=io), LARGE) * 3


def refused(graph: Graph, on: boards.Board, target: float | None = None) -> str:
    with pytest.raises(ToolchainError) as caught:
        choose(graph, on, Hls(io="io_stream"), target)
    return str(caught.value)


def test_a_target_beyond_reach_says_by_how_much_and_the_best() -> None:
    graph = net()
    best = latency(graph, Hls(io="io_stream"))
    assert refused(graph, PYNQ, best / 2) == (
        f"board pynq_z2: latency is {best:,.3f} us (modelled) with every product at once, must be at most {best / 2:,.3f} us: "
        f"{best - best / 2:,.3f} us too long; choose a faster board or clock, or a smaller model"
    )


def test_a_board_too_small_says_what_is_too_much() -> None:
    text = refused(net(), board(luts=100))
    assert text.startswith("board pynq_z2: the graph needs ")
    assert " luts of 100 (" in text
    assert text.endswith(
        " with the largest reuse factors; choose a larger board or a smaller model; or, since this is only a model, give --reuse-factor yourself"
    )


def test_a_target_that_does_not_fit_says_the_fastest_that_does() -> None:
    graph, small = net(), board(dsps=60, luts=10**7, ffs=10**7)
    fits = latency(graph, choose(graph, small, Hls(io="io_stream")), small)
    text = refused(graph, small, latency(graph, Hls(io="io_stream")))
    assert f"board pynq_z2: a latency of {latency(graph, Hls(io='io_stream')):,.3f} us needs " in text
    assert " dsps of 60 (" in text
    assert text.endswith(
        f"; the fastest that fits takes {fits:,.3f} us (modelled); allow more time, or choose a larger board"
    )


def test_where_nothing_fits_no_more_time_is_asked_for() -> None:
    with pytest.raises(ToolchainError) as error:
        choose(net(), board(luts=10), Hls(io="io_stream"), 1e6)
    assert str(error.value).endswith("; nothing fits, whatever the latency; choose a larger board, or a smaller model")
