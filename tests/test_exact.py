"""Real factors as integers, against exact Fraction arithmetic at every reachable value, or at every step where there are many."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import slow
from toolchain.errors import UnsupportedError
from toolchain.ir import Graph, QType, Tensor, ops
from toolchain.ir import exact as exact_module
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.exact import affine, dyadic, solve, stairs, tabulate
from toolchain.ir.ops import Rounding
from toolchain.reference import simulate

PLAIN = [r for r in Rounding if r is not Rounding.TFLM]
QUICK = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
F = Fraction


def wanted(x: int, a: Fraction, b: Fraction, rounding: Rounding, clamp: tuple[int, int], output_offset: int) -> int:
    return min(max(output_offset + slow.round_real(a * x + b, rounding.value), clamp[0]), clamp[1])


def made(
    x: QType, y: QType, slope: list[Fraction], intercept: list[Fraction], rounding: Rounding, **more: Any
) -> tuple[Graph, ops.Op]:
    b = GraphBuilder("affine")
    channels = max(len(slope), len(intercept))
    b.output(affine(b, b.input("x", (channels,), x), y, slope, intercept, rounding, "y", **more))
    graph = b.graph()
    return graph, graph.ops[-1]


def compare(graph: Graph, xs: list[int], slope: list[Fraction], intercept: list[Fraction], rounding: Rounding, y: QType,
            clamp: tuple[int, int] | None = None, output_offset: int = 0) -> None:  # fmt: skip
    channels = graph.inputs[0].shape[-1]
    got = simulate(graph, {"x": np.repeat(np.array(xs)[:, None], channels, axis=1)})[0]["y"]
    limits = clamp or (y.min, y.max)
    for c in range(channels):
        a, i = slope[c % len(slope)], intercept[c % len(intercept)]
        want = [wanted(v, a, i, rounding, limits, output_offset) for v in xs]
        assert got[:, c].tolist() == want, (a, i, rounding)


ratios = st.builds(Fraction, st.integers(-60, 60), st.integers(1, 60))


@QUICK
@given(st.data())
def test_affine_everywhere(data: st.DataObject) -> None:
    """All x of 1 to 8 bits, positive, negative and zero slopes, dyadic or not, 1 to 3 channels, clamps and offsets."""
    x = QType(data.draw(st.integers(1, 8)), data.draw(st.booleans()))
    y = QType(data.draw(st.integers(1, 9)), data.draw(st.booleans()))
    slope = data.draw(st.lists(ratios, min_size=1, max_size=3))
    intercept = data.draw(st.lists(ratios, min_size=len(slope), max_size=len(slope)))
    rounding = data.draw(st.sampled_from(PLAIN))
    clamp = data.draw(
        st.none() | st.tuples(st.integers(y.min, y.max), st.integers(y.min, y.max)).map(lambda c: (min(c), max(c)))
    )
    offset = data.draw(st.sampled_from([0, 0, 1, -3, 100]))
    graph, _ = made(x, y, slope, intercept, rounding, clamp=clamp, output_offset=offset)
    compare(graph, list(range(x.min, x.max + 1)), slope, intercept, rounding, y, clamp, offset)


@pytest.mark.parametrize("rounding", PLAIN)
def test_ties_on_every_grid(rounding: Rounding) -> None:
    """Slopes k/n with intercepts that put exact halves and exact integers on many x, of both signs."""
    x, y = QType(6, True), QType(8, True)
    ties: set[bool] = set()
    for n in (2, 3, 5, 6, 7, 10):
        slope = [F(s * k, n) for k in (1, 2, 3) for s in (1, -1)]
        for intercept in (F(0), F(1, 2), F(1, 3), F(-5, 2), F(1, 2 * n)):
            graph, _ = made(x, y, slope, [intercept], rounding)
            compare(graph, list(range(-32, 32)), slope, [intercept], rounding, y)
            ties |= {a * v + intercept > 0 for a in slope for v in range(-32, 32) if (2 * (a * v + intercept)).denominator == 1
                     and (a * v + intercept).denominator == 2}  # fmt: skip
    assert ties == {True, False}


def beside_every_step(
    lo: int, hi: int, a: Fraction, b: Fraction, rounding: Rounding, clamp: tuple[int, int]
) -> list[int]:
    """x at and beside each step, found from the inverse function and not by the code under test, and the ends."""
    xs = {lo, hi}
    for k in range(clamp[0] - 1, clamp[1] + 2):
        for edge in (k - 1, k - F(1, 2), F(k)):
            at = (edge - b) / a
            xs |= {v for v in range(int(at) - 2, int(at) + 3) if lo <= v <= hi}
    return sorted(xs)


@pytest.mark.parametrize("rounding", PLAIN)
@pytest.mark.parametrize("bits", [20, 31, 36])
def test_wide_accumulators_at_every_step(rounding: Rounding, bits: int) -> None:
    x, y = QType(bits, True), QType(6, True)
    rng = np.random.default_rng(bits)
    for sign in (1, -1):
        a = F(sign * int(rng.integers(1 << 20, 1 << 21)), int(rng.integers(1 << 20, 1 << 21))) * F(40, 1 << bits)
        b = F(int(rng.integers(-99, 99)), int(rng.integers(1, 99)))
        graph, op = made(x, y, [a], [b], rounding)
        assert bits > 30 or isinstance(op, ops.Requantize)  # 2 * 31 bits of precision leave int64: then it is a ladder
        compare(graph, beside_every_step(x.min, x.max, a, b, rounding, (y.min, y.max)), [a], [b], rounding, y)


def test_floats_of_a_batch_normalization() -> None:
    """float64 ratios have denominators of 2**50 and more: exact, and too long for the dyadic way."""
    rng = np.random.default_rng(3)
    x, y = QType(18, True), QType(8, False)
    slope = [F(float(v)) for v in rng.normal(0, 1e-3, 5)]
    intercept = [F(float(v)) for v in rng.normal(0, 50, 5)]
    for rounding in (Rounding.HALF_EVEN, Rounding.HALF_UP, Rounding.HALF_AWAY):
        graph, op = made(x, y, slope, intercept, rounding)
        assert isinstance(op, ops.Requantize)
        assert op.rounding is Rounding.FLOOR  # the tie rule is in the offset
        for c in range(5):
            xs = beside_every_step(x.min, x.max, slope[c], intercept[c], rounding, (0, 255))
            compare(graph, xs, slope, intercept, rounding, y)


def test_powers_of_two_keep_the_wanted_rounding() -> None:
    _, op = made(QType(8, True), QType(4, True), [F(1, 4), F(-3, 8)], [F(1, 2), F(0)], Rounding.HALF_EVEN)
    assert isinstance(op, ops.Requantize)
    assert (op.multiplier, op.offset, op.shift, op.rounding) == ((1, -3), (2, 0), (2, 3), Rounding.HALF_EVEN)
    assert dyadic(F(1, 3), F(0), -8, 7) is None
    assert dyadic(F(1), F(1, 3), -8, 7) is None
    assert dyadic(F(1 << 50), F(0), -8, 7) is None  # multiplier
    assert dyadic(F(1, 1 << 63), F(0), -8, 7) is None  # shift
    assert dyadic(F(1 << 40), F(-(1 << 62)), 1 << 22, (1 << 22) + 1) is None  # small sums of products that do not fit


@pytest.mark.parametrize("rounding", PLAIN)
def test_the_ladder_when_no_multiplier_will_do(rounding: Rounding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_module, "solve", lambda s, rounding: None)
    x, y = QType(6, True), QType(5, True)
    slope, intercept = [F(1, 3), F(-2, 5), F(0), F(7, 3), F(-1, 99)], [F(1, 7), F(1, 2), F(1, 3), F(-20), F(1, 2)]
    for clamp, offset in ((None, 0), ((-3, 9), 0), ((-10, 10), 4)):
        graph, op = made(x, y, slope, intercept, rounding, clamp=clamp, output_offset=offset)
        assert isinstance(op, ops.Threshold)
        compare(graph, list(range(-32, 32)), slope, intercept, rounding, y, clamp, offset)


def test_a_ladder_is_used_where_half_even_has_ties_no_slope_can_keep() -> None:
    """x / 6: 3 must not reach 1, 9 must reach 2, 15 must not reach 3: steeper than 1/6, then flatter. No multiplier is both."""
    x, y = QType(8, True), QType(8, True)
    for rounding, kind in ((Rounding.HALF_EVEN, ops.Threshold), (Rounding.HALF_UP, ops.Requantize)):
        graph, op = made(x, y, [F(1, 6)], [F(0)], rounding)
        assert isinstance(op, kind)
        compare(graph, list(range(-128, 128)), [F(1, 6)], [F(0)], rounding, y)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exact_module, "MAX_MULTIPLIER", 3)
        graph, op = made(x, y, [F(1, 7)], [F(0)], Rounding.FLOOR)
    assert isinstance(op, ops.Threshold)
    compare(graph, list(range(-128, 128)), [F(1, 7)], [F(0)], Rounding.FLOOR, y)


def test_solve_finds_nothing_rather_than_leaving_int64() -> None:
    s = stairs(-(1 << 60), 1 << 60, F(1, 3) / (1 << 50), F(1, 7), Rounding.HALF_EVEN, (-128, 127))
    step = solve(s, Rounding.FLOOR)
    if step is not None:
        m, o, shift = step
        assert max(abs(m * x + o) for x in (s.lo, s.hi)) + (1 << shift) < 1 << 63


def test_fits_is_about_every_step_on_the_way() -> None:
    fits = exact_module._fits
    assert fits(1 << 30, 0, 10, -(1 << 31), (1 << 31) - 1)
    assert not fits(1 << 31, 0, 10, -(1 << 31), (1 << 31) - 1)  # the product
    assert not fits(1, 1 << 62, 10, 0, 0)  # the offset
    assert not fits(1 << 30, -(1 << 61), 10, -(1 << 31), 0)  # their sum
    assert not fits(1, 0, 62, -1, 1)  # what rounding adds


def test_refusals() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exact_module, "solve", lambda s, rounding: None)
        patched.setattr(exact_module, "MAX_LADDER", 30)
        error = (
            "%y: no 48-bit multiplier reproduces this real factor exactly and a ladder would need 31 thresholds, at most 30; "
            "use fewer output bits or a power-of-two scale"
        )
        with pytest.raises(UnsupportedError, match=f"^{re.escape(error)}$"):
            made(QType(8, True), QType(5, True), [F(1, 3)], [F(0)], Rounding.FLOOR)
    error = (
        "%y: 1431655766 output values over -2147483648..2147483647 by a factor that is no fraction of a power of two, "
        "at most 1048577 are proved; use fewer output bits or a power-of-two scale"
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(error)}$"):
        made(QType(32, True), QType(32, True), [F(1, 3)], [F(0)], Rounding.FLOOR)


def tabulated(x: QType, y: QType, function: Callable[[Any], Any]) -> tuple[Graph, ops.Op]:
    b = GraphBuilder("table")
    b.output(tabulate(b, b.input("x", (1,), x), y, function, "y"))
    graph = b.graph()
    return graph, graph.ops[-1]


def run(graph: Graph, xs: Any) -> Any:
    return simulate(graph, {"x": np.asarray(xs)[:, None]})[0]["y"][:, 0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 7, 12])
def test_tabulate_narrow_is_a_lookup_of_any_function(bits: int, signed: bool) -> None:
    x = QType(bits, signed)
    graph, op = tabulated(x, QType(8, True), lambda v: v * v % 101 - 50)
    assert isinstance(op, ops.Lookup)
    xs = np.arange(x.min, x.max + 1)
    np.testing.assert_array_equal(run(graph, xs), xs * xs % 101 - 50)


@pytest.mark.parametrize(
    "function",
    [
        lambda v: np.round(100 * np.tanh(v / 9000)).astype(np.int64),
        lambda v: -np.round(100 * np.tanh(v / 9000)).astype(np.int64),
        lambda v: np.where(v >= 17, 1, -1),
        lambda v: np.where(v >= 17, -1, 1),
        lambda v: np.where(v > -32768, 5, -5),
        lambda v: np.where(v == 32767, 5, -5),
        lambda v: v * 0 + 7,
        lambda v: np.clip(v, -100, 100),
        lambda v: (v >> 13) * 30,
    ],
)
def test_tabulate_wide_is_a_ladder_of_a_monotone_function(function: Any) -> None:
    graph, op = tabulated(QType(16, True), QType(8, True), function)
    assert isinstance(op, ops.Threshold)
    xs = np.arange(-32768, 32768)
    np.testing.assert_array_equal(run(graph, xs), function(xs))


def test_tabulate_over_more_than_is_compared() -> None:
    graph, op = tabulated(QType(40, True), QType(8, True), lambda v: np.clip(v >> 32, -100, 100))
    assert isinstance(op, ops.Threshold)
    xs = np.array([k * (1 << 32) + d for k in range(-128, 128) for d in (-1, 0, 1) if k > -128 or d >= 0])
    np.testing.assert_array_equal(run(graph, xs), np.clip(xs >> 32, -100, 100))


@pytest.mark.parametrize(
    "function", [lambda v: np.abs(v) >> 9, lambda v: np.where(v == 5, 1, 0), lambda v: np.where(v == -1, 9, v >> 10)]
)
def test_tabulate_refuses_what_is_wide_and_not_monotone(function: Any) -> None:
    error = "%y: the function is not monotone over -32768..32767; requantize to 12 bits or fewer before it"
    with pytest.raises(UnsupportedError, match=f"^{re.escape(error)}$"):
        tabulated(QType(16, True), QType(8, True), function)


def test_tabulate_refuses_too_many_values() -> None:
    error = "%y: the function takes 131072 values, at most 65537; use fewer output bits"
    with pytest.raises(UnsupportedError, match=f"^{re.escape(error)}$"):
        tabulated(QType(17, True), QType(17, True), lambda v: v)


def test_a_table_is_asked_for_reachable_values_only() -> None:
    b = GraphBuilder("reachable")
    x = b.requantize(b.input("x", (1,), QType(4, True)), QType(5, True), [1], [0], [0], Rounding.FLOOR, "x2", (1, 7))

    def inverse(v: Any) -> Any:
        assert v.min() >= 1
        assert v.max() <= 7
        return 100 // v

    b.output(tabulate(b, x, QType(8, True), inverse, "y"))
    assert run(b.graph(), [-8, 1, 2, 7]).tolist() == [100, 100, 50, 14]


def test_narrowed_ranges_make_smaller_tables() -> None:
    b = GraphBuilder("narrow")
    x = b.input("x", (2,), QType(8, True))
    x = b.requantize(x, QType(14, True), [1], [0], [0], Rounding.FLOOR, "x2", (-3, 4))
    y: Tensor = tabulate(b, x, QType(8, True), lambda v: v * 3, "y")
    b.output(y)
    op = b.graph().ops[-1]
    assert isinstance(op, ops.Threshold)
    assert op.thresholds.array.tolist() == [[-2, -1, 0, 1, 2, 3, 4]]
    assert op.levels.array.tolist() == [[-9, -6, -3, 0, 3, 6, 9, 12]]
