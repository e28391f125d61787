"""Ranges against brute force: over every input of tiny ops no value lies outside, and both ends of every channel are reached."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest

from tests.graphs import inputs_for, random_graph
from toolchain.errors import GraphError
from toolchain.ir import Graph, QType, Tensor, check, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.check import check_with_ranges
from toolchain.ir.ops import Rounding
from toolchain.ir.ranges import partial_range
from toolchain.ir.types import bits_for
from toolchain.reference import trace

Build = Callable[[GraphBuilder], Tensor]


def every_input(graph: Graph) -> dict[str, np.ndarray]:
    """All inputs at once: the batch is the product of every element's values."""
    values = [range(t.qtype.min, t.qtype.max + 1) for t in graph.inputs for _ in range(t.size)]
    total = int(np.prod([len(v) for v in values]))
    assert total <= 1 << 17, f"{total} inputs are too many to try"
    table = np.array(list(product(*values)))
    found, start = {}, 0
    for t in graph.inputs:
        found[t.name] = table[:, start : start + t.size].reshape(-1, *t.shape)
        start += t.size
    return found


def reached(build: Build) -> None:
    b = GraphBuilder("tiny")
    y = build(b)
    b.output(y)
    graph = b.graph()
    value = trace(graph, every_input(graph))[y.name]
    columns = value.reshape(-1, y.shape[-1])
    want = list(zip(columns.min(axis=0).tolist(), columns.max(axis=0).tolist(), strict=True))
    assert list(check_with_ranges(graph)[y.name].channels(y.shape[-1])) == want


def q(bits: int, signed: bool, zero: int = 0) -> QType:
    return QType(bits, signed, Fraction(1), None, zero)


def test_dense() -> None:
    for zero in (0, 1, 3):
        reached(lambda b, z=zero: b.dense(b.input("x", (3,), q(2, False, z)), b.const("w", [[1, -2, 3], [-1, -1, -1], [0, 2, 2]]),
                                          b.const("bias", [10, -3, 0]), "y"))  # fmt: skip


@pytest.mark.parametrize("zero", [0, -2, 1])
@pytest.mark.parametrize(
    ("length", "kernel", "stride", "dilation", "pad"),
    [(4, 3, 1, 1, (1, 1)), (2, 3, 1, 1, (1, 1)), (3, 2, 2, 2, (2, 0)), (3, 2, 1, 1, (0, 0)), (2, 2, 3, 1, (2, 2)), (1, 3, 1, 1, (2, 2))],
)  # fmt: skip
def test_conv1d(zero: int, length: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]) -> None:
    weights = np.random.default_rng(length).integers(-3, 4, (3, kernel, 1))
    bias = [5, 0, -7]
    reached(lambda b: b.conv1d(b.input("x", (length, 1), q(2, True, zero)), b.const("w", weights), b.const("bias", bias), "y",
                               (stride,), (dilation,), (pad,)))  # fmt: skip


def test_conv_whose_input_is_never_zero() -> None:
    """After a clamp to 2..3 padding is the only zero, and it comes only in windows at the edge."""

    def build(b: GraphBuilder) -> Tensor:
        x = b.input("x", (4, 2), q(1, False))
        x = b.requantize(x, q(3, True), [1, -1], [2, -2], [0, 0], Rounding.FLOOR, "x2")
        return b.conv1d(x, b.const("w", [[[1, 2], [3, -1]], [[-1, 1], [2, 2]]]), None, "y", padding=((1, 0),))

    reached(build)


def test_grouped_and_depthwise() -> None:
    weights = [[[[1], [-2]]], [[[3], [1]]], [[[-1], [1]]], [[[2], [2]]]]
    reached(lambda b: b.conv2d(b.input("x", (1, 3, 2), q(2, True)), b.const("w", weights), None, "y", groups=2))

    def depthwise(b: GraphBuilder) -> Tensor:
        x = b.input("x", (2, 2, 2), q(1, False))
        x = b.requantize(x, q(4, True), [1, -3], [1, 2], [0, 0], Rounding.FLOOR, "x2")
        w = b.const("w", np.arange(-6, 10).reshape(2, 2, 4))
        return b.depthwise_conv2d(x, w, None, "y", padding=((1, 1), (0, 1)))

    reached(depthwise)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_requantize(rounding: Rounding) -> None:
    def build(b: GraphBuilder) -> Tensor:
        x = b.input("x", (2,), q(5, True))
        if rounding is Rounding.TFLM:
            return b.requantize(x, q(6, True, 1), [1 << 30, 3 << 29], [0, 0], [31, 32], rounding, "y", output_offset=1)
        return b.requantize(x, q(6, True, 1), [3, -5], [1, 0], [1, 2], rounding, "y", (-20, 9), 1)

    reached(build)


def test_threshold_with_ties_and_levels_out_of_reach() -> None:
    ladder = [[-5, -1, -1, 2, 2, 2, 9], [-2, -2, 0, 1, 1, 3, 3]]
    levels = [[7, 1, -8, 0, 6, 6, 2, -7], [-8, 7, 0, -1, 5, 1, 6, -3]]
    reached(lambda b: b.threshold(b.input("x", (2,), q(3, True)), q(4, True), ladder, levels, "y"))
    reached(lambda b: b.threshold(b.input("x", (2,), q(3, True)), q(4, True), ladder[:1], levels, "y"))
    reached(lambda b: b.threshold(b.input("x", (1,), q(3, True)), q(2, True), [[0]], [[1, -1]], "y"))
    reached(lambda b: b.threshold(b.input("x", (1,), q(3, True)), q(4, True), [[-4, 0, 3, 4]], [[7, 0, 1, 2, -8]], "y"))


def test_lookup_within_the_reachable_part() -> None:
    def build(b: GraphBuilder) -> Tensor:
        x = b.requantize(b.input("x", (2,), q(3, True)), q(4, True), [1], [0], [0], Rounding.FLOOR, "x2", (-2, 3))
        return b.lookup(x, q(8, True), (np.arange(16) - 8) ** 2 * 2 - 100, "y")

    reached(build)


@pytest.mark.parametrize("kind", ["add", "sub", "multiply"])
def test_pairs(kind: str) -> None:
    zero = 1 if kind == "multiply" else 0

    def build(b: GraphBuilder) -> Tensor:
        x, y = b.input("x", (1, 2), q(3, True, zero)), b.input("y", (2, 1), q(2, False, 2 * zero))
        return getattr(b, kind)(x, y, "z")

    reached(build)


def two_ranges(b: GraphBuilder, shape: tuple[int, ...]) -> Tensor:
    """Two channels, one in 0..1 and one in 4..5."""
    x = b.input("x", shape, q(1, False))
    return b.requantize(x, q(4, True), [1, 1], [0, 4], [0, 0], Rounding.FLOOR, "x2")


def test_moves_keep_each_channels_range() -> None:
    reached(lambda b: b.reshape(two_ranges(b, (3, 2)), (6,), "y"))
    reached(lambda b: b.reshape(two_ranges(b, (3, 2)), (2, 3), "y"))
    reached(lambda b: b.reshape(two_ranges(b, (2, 2, 2)), (4, 2), "y"))
    reached(lambda b: b.transpose(two_ranges(b, (3, 2)), (1, 0), "y"))
    reached(lambda b: b.transpose(two_ranges(b, (2, 3, 2)), (1, 0, 2), "y"))
    reached(lambda b: b.pad(two_ranges(b, (2, 2)), ((0, 0), (1, 2)), "y", -3))
    reached(lambda b: b.pad(two_ranges(b, (2, 2)), ((1, 0), (0, 1)), "y", -3))
    reached(lambda b: b.pad(two_ranges(b, (2, 2)), ((0, 0), (0, 0)), "y", -3))
    reached(lambda b: b.upsample(two_ranges(b, (2, 2)), (3,), "y"))
    reached(lambda b: b.max_pool(two_ranges(b, (4, 2)), (2,), (2,), ((1, 0),), "y"))


def test_concat() -> None:
    def build(axis: int) -> Build:
        def made(b: GraphBuilder) -> Tensor:
            x = two_ranges(b, (2, 2))
            return b.concat([x, b.input("z", (2, 2), q(2, True))], axis, "y")

        return made

    reached(build(0))
    reached(build(1))


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("pad", [(0, 0), (1, 0), (1, 1)])
def test_sum_pool(ceil_mode: bool, include: bool, pad: tuple[int, int]) -> None:
    for zero in (0, 5, 8):  # all values above, on both sides, or below the zero point

        def build(b: GraphBuilder, zero: int = zero) -> Tensor:
            x = b.input("x", (5, 2), q(1, False))
            x = b.requantize(x, q(4, False, zero), [1, 3], [2, 4], [0, 0], Rounding.FLOOR, "x2")
            return b.sum_pool(x, (2,), (2,), (pad,), "y", ceil_mode, include)

        reached(build)


def test_slice_keeps_the_ranges_of_the_channels_it_takes() -> None:
    def build(b: GraphBuilder) -> Tensor:
        x = b.input("x", (2, 5), q(1, False))
        x = b.requantize(x, q(5, True), [1, -1, 2, 3, -4], [0, 3, 5, -9, 1], [0] * 5, Rounding.FLOOR, "x2")
        return b.slice(x, (1, 1), (1, 2), (1, 2), "y")

    reached(build)


@pytest.mark.parametrize("rounding", [r for r in Rounding if r is not Rounding.TFLM])
def test_interpolate_turns_at_entries_alone(rounding: Rounding) -> None:
    """Ends of the input's range between entries, beside them and on them; the peak inside, reached or just not."""
    for lo, hi in ((-8, 7), (-7, 3), (-3, -2), (0, 0), (-4, 0), (-3, 5), (1, 7)):

        def build(b: GraphBuilder, lo: int = lo, hi: int = hi) -> Tensor:
            x = b.requantize(b.input("x", (1,), q(4, True)), q(4, True), [1], [0], [0], Rounding.FLOOR, "x2", (lo, hi))
            return b.interpolate(x, q(8, True), b.const("t", [-9, 21, -30, 7, 50]), 2, rounding, "y", -5)

        reached(build)


def test_softmax16_has_the_range_of_q15() -> None:
    b = GraphBuilder("share")
    exp, r = b.const("exp", [9] * 513), b.const("r", [9] * 513)
    y = b.softmax16(b.input("x", (3,), q(16, True)), exp, r, 1 << 30, 31, QType(16, True, Fraction(1, 1 << 15)), "y")
    assert b.range(y).whole == (0, 32767)


@pytest.mark.parametrize("bits", [8, 16])
def test_softmax_has_the_range_of_its_type_in_the_builder_too(bits: int) -> None:
    b = GraphBuilder("share")
    kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
    y = b.softmax(b.input("x", (3,), q(8, True)), [(1 << 31) - 1, *[0] * 255], kind, "y")
    b.output(y)
    assert b.range(y).whole == check_with_ranges(b.graph())["y"].whole == (kind.min, kind.max)


def test_argmax_names_only_indices_that_can_win() -> None:
    def build(b: GraphBuilder, low: list[int]) -> Tensor:
        x = b.input("x", (4,), q(1, False))
        return b.argmax(b.requantize(x, q(5, True), [1] * 4, low, [0] * 4, Rounding.FLOOR, "x2"), "y")

    for low in ([0, 0, 0, 0], [0, 1, 0, 0], [0, 5, 5, 0], [1, 0, 0, 0], [0, 0, 1, 1], [-3, 0, -3, 0], [0, 0, 0, 1]):
        reached(lambda b, low=low: build(b, low))


def test_no_value_of_random_graphs_leaves_its_channels_range() -> None:
    for seed in range(80):
        graph = random_graph(seed)
        ranges = check_with_ranges(graph)
        for name, value in trace(graph, inputs_for(graph, 12, seed)).items():
            columns = value.reshape(-1, value.shape[-1])
            for c, (lo, hi) in enumerate(ranges[name].channels(value.shape[-1])):
                assert lo <= columns[:, c].min() <= columns[:, c].max() <= hi, (seed, name, c)


@pytest.mark.parametrize(("bias", "narrow", "bits"), [(-9, 4, 6), (9, 6, 6), (0, 5, 6), (30, 7, 7)])
def test_accumulators_hold_every_partial_sum_in_every_order(bias: int, narrow: int, bits: int) -> None:
    b = GraphBuilder("partial")
    x = b.input("x", (3,), q(1, False))
    x = b.requantize(x, q(3, False), [1], [4], [0], Rounding.FLOOR, "x2")  # 4..5, never 0
    y = b.dense(x, b.const("w", [[3, -3, 1]]), b.const("bias", [bias]), "y")
    b.output(y)
    graph = b.graph()
    ranges = check_with_ranges(graph)
    op = graph.ops[-1]
    assert isinstance(op, ops.Dense)
    weights = [3, -3, 1]
    sums, results = set(), set()
    for xs in product([4, 5], repeat=3):
        terms = [v * w for v, w in zip(xs, weights, strict=True)] + [bias]
        for order in permutations(terms):
            sums |= {sum(order[:i]) for i in range(5)}
            results.add(sum(order))
    assert partial_range(op, ranges) == (min(sums), max(sums))
    assert ranges["y"].whole == (min(results), max(results))
    assert bits_for(*ranges["y"].whole, signed=True) == (narrow, True)  # what the result alone would do with
    assert y.qtype.bits == bits
    too_narrow = replace(op, output=replace(op.output, qtype=QType(bits - 1, True)))
    error = f"dense %y: values {min(sums)}..{max(sums)} do not fit s{bits - 1}"
    with pytest.raises(GraphError, match=f"^{re.escape(error)} "):
        check(replace(graph, ops=(*graph.ops[:-1], too_narrow), outputs=(too_narrow.output,)))


def test_wide_sums_are_python_integers() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", (2,), q(40, True))
    y = b.dense(x, b.const("w", [[1 << 21, -(1 << 21)], [(1 << 22) - 1, 0]]), None, "y")
    assert b.range(y).channels(2) == (
        (-(1 << 60) - ((1 << 39) - 1) * (1 << 21), (1 << 60) + ((1 << 39) - 1) * (1 << 21)),
        (-((1 << 22) - 1) << 39, ((1 << 22) - 1) * ((1 << 39) - 1)),
    )
    assert y.qtype.bits == 62
