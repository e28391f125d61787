"""Kernels for cores that multiply 32 bits and no less: two values in a word against the reference, their runs, and what they cost.

BITWRIGHT_FULL=1 takes more of each.
"""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.hls import joined, split
from tests.native import run_native
from tests.test_dsp import forced, known, layer
from toolchain import boards, flow, passes, reference
from toolchain.errors import MissingToolError
from toolchain.forms import scalar
from toolchain.ir import Graph, QType, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.measurement import Measurement
from toolchain.passes import kernels

BOARDS = ("qemu_virt_rv32", "unicorn_m0plus", "qemu_mps2_an385")
FULL = bool(os.environ.get("BITWRIGHT_FULL"))
STEP = Fraction(1, 16)


def measured(graph: Graph, board: str, samples: dict[str, np.ndarray]) -> Measurement:
    try:
        return flow.measure(graph, board, samples, runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("first", range(0, 48, 24) if FULL else [0])
def test_random_layers_equal_simulate(board: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [layer(seed) for seed in range(first, first + 24)]
    graph = joined(parts)
    samples = split([inputs_for(part, 12, first) for part in parts])
    plan = forced(graph, board, monkeypatch)
    assert len(plan[1].kernels) == 24
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    found = measured(graph, board, samples)
    assert found.bit_exact, found.first_difference


def test_the_portable_form_stays_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model.c on this machine, under sanitizers: what is read and written of words and runs, and every number."""
    parts = [layer(seed) for seed in range(24, 48)]
    graph = joined(parts)
    plan = forced(graph, "qemu_virt_rv32", monkeypatch)
    samples = split([inputs_for(part, 12, 24) for part in parts])
    expected, _ = reference.simulate(graph, samples)
    monkeypatch.setattr(passes, "run", lambda *_: plan)
    got = run_native(graph, samples, sanitize=True)
    for name, value in expected.items():
        assert_array_equal(got[name], value, err_msg=name)


def word_sums(w: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[int, int]:
    """Both sums of one run, as the cores make them."""
    t = (32768 + int(w @ (low + 65536 * high)) + (1 << 31)) % (1 << 32) - (1 << 31)
    h = t >> 16
    return (t - (h << 16) + (1 << 31)) % (1 << 32) - (1 << 31) - 32768, h


@pytest.mark.parametrize(("bits", "signed"), [(8, True), (8, False), (4, False), (2, True)])
def test_runs_are_as_long_as_the_arithmetic_holds(bits: int, signed: bool) -> None:
    """At the extremes of every run both sums are exact; with one tap more, some input would break one of them."""
    rng = np.random.default_rng(bits)
    q = QType(bits, signed, STEP)
    less = 128 if scalar.flips(q) else 0
    low, high = q.min - less, q.max - less
    w = rng.integers(-128, 128, 200)
    lengths, at = scalar.runs(w[None], low, high), 0
    assert sum(lengths) == 200
    for n in lengths:
        for taps, holds in ((w[at : at + n], True), (w[at : at + n + 1], False)):
            most, least = np.where(taps > 0, high, low), np.where(taps > 0, low, high)
            exact = all(
                word_sums(taps, a, b) == (int(taps @ a), int(taps @ b)) for a in (most, least) for b in (most, least)
            )
            if holds:
                assert exact
            elif n < scalar.TAPS[-1] and at + n < 200:
                assert not exact
        at += n


@pytest.mark.parametrize("board", BOARDS)
def test_the_largest_weights_with_the_largest_inputs(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sum of a run at its bound or one tap below it, in both halves of a word and with every sign."""
    b = GraphBuilder("corners")
    q = QType(8, True, STEP)
    x = b.input("x", (4, 8, 6), q)
    w = np.where(np.arange(5)[:, None, None, None] % 2, -128, 127) * np.ones((5, 3, 3, 6), np.int64)
    w[2], w[3] = (
        np.where(np.arange(54).reshape(3, 3, 6) % 2, -128, 127),
        np.where(np.arange(54).reshape(3, 3, 6) % 3, 85, -86),
    )
    b.output(b.conv2d(x, b.const("w", w), None, "acc", (1, 1), (1, 1), ((1, 1), (1, 1))))
    flat = b.input("flat", (90,), q)
    b.output(
        b.dense(
            flat,
            b.const("v", np.repeat(np.array([127, -128, 127, 1, -128, 64, -64, 127, 3]), 90).reshape(9, 90)),
            None,
            "sums",
        )
    )
    graph = b.graph()
    plan = forced(graph, board, monkeypatch)
    assert set(plan[1].kernels.values()) == {"scalar"}
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    samples = {}
    for tensor in graph.inputs:
        n = tensor.size
        every = [
            np.full(n, -128),
            np.full(n, 127),
            np.where(np.arange(n) % 2, 127, -128),
            np.where(np.arange(n) % 12 < 6, 127, -128),
        ]
        samples[tensor.name] = np.stack(every).reshape(4, *tensor.shape)
    found = measured(graph, board, samples)
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("bits", "most"), [(9, 100), (8, 200)])
def test_where_values_are_wider_than_a_byte_the_general_kernel_is_used_and_right(
    board: str, bits: int, most: int
) -> None:
    """Inputs of 9 bits, or weights of 9."""
    b = GraphBuilder("beyond")
    x = b.input("x", (6, 8, 4), QType(bits, True, STEP))
    w = np.random.default_rng(0).integers(-most, most + 1, (4, 3, 3, 4))
    w[0, 0, 0, 0] = most
    b.output(b.conv2d(x, b.const("w", w), None, "acc", (1, 1), (1, 1), ((1, 1), (1, 1))))
    graph = b.graph()
    _, plan = passes.run(graph, boards.load(board))
    assert dict(plan.kernels) == {}
    assert measured(graph, board, inputs_for(graph, 4, 0)).bit_exact


def windows(w: np.ndarray, stride: int = 1, signed: bool = True) -> Graph:
    b = GraphBuilder("windows")
    x = b.input("x", (7, 5, w.shape[2]), QType(8, signed, STEP, zero_point=-7 if signed else 9))
    b.output(b.depthwise_conv2d(x, b.const("w", w), None, "acc", (stride, stride), (1, 1), ((1, 1), (1, 1))))
    return b.graph()


def extremes(graph: Graph) -> dict[str, np.ndarray]:
    """All lowest, all highest, and by turns."""
    (x,) = graph.inputs
    lo, hi, at = x.qtype.min, x.qtype.max, np.arange(x.size)
    every = [np.full(x.size, lo), np.full(x.size, hi), np.where(at % 2, hi, lo), np.where(at % 12 < 6, hi, lo)]
    return {x.name: np.stack(every).reshape(4, *x.shape)}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("stride", "signed"), [(1, True), (2, True), (1, False)])
def test_each_way_to_cut_the_sums_of_a_window(
    board: str, stride: int, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights as large as each way allows: 28 nine times, 51 and 63, 85 in threes, 127 in twos."""
    most = np.array([28, 51, 85, 127])
    sign = np.where(np.arange(9)[:, None] % 2, 1, -1) * np.array([1, -1, 1, -1])
    w = np.concatenate([most * np.ones((9, 1), np.int64), most * sign], axis=1).astype(int).reshape(3, 3, 8)
    graph = windows(w, stride, signed)
    plan = forced(graph, board, monkeypatch)
    assert dict(plan[1].kernels) == {"acc": "scalar"}
    made = scalar.form_of(next(op for op in graph.ops if isinstance(op, ops.Mac)))
    assert isinstance(made, scalar.Windows)
    assert made.cuts() == [0, 1, 2, 3, 0, 1, 2, 3]
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    found = measured(graph, board, extremes(graph))
    assert found.bit_exact, found.first_difference


def test_a_cut_that_the_bound_forbids_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = windows(np.full((3, 3, 2), 29))
    plan = forced(graph, "qemu_virt_rv32", monkeypatch)
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    assert measured(graph, "qemu_virt_rv32", extremes(graph)).bit_exact
    monkeypatch.setattr(scalar.Windows, "cuts", lambda _: [0, 0])
    assert not measured(graph, "qemu_virt_rv32", extremes(graph)).bit_exact


@pytest.mark.parametrize("board", BOARDS)
def test_where_no_cut_is_allowed_the_general_kernel_is_used_and_right(board: str) -> None:
    """Two weights of -128 with two inputs of -128 are 32768."""
    graph = windows(np.full((3, 3, 2), -128))
    _, plan = passes.run(graph, boards.load(board))
    assert dict(plan.kernels) == {}
    assert measured(graph, board, extremes(graph)).bit_exact


def test_a_board_with_too_little_memory_keeps_the_general_kernel() -> None:
    """Where weights would take twice their bytes, and that more than a quarter of the flash."""
    board, graph = boards.load("unicorn_m0plus"), known("fc")
    for have, chosen in ((4 * 640 * 128, {"acc": "scalar"}), (4 * 640 * 128 - 4, {})):
        _, plan = kernels.run(graph, passes.Plan(), replace(board, flash_bytes=have))
        assert dict(plan.kernels) == chosen


@pytest.mark.parametrize("board", BOARDS)
def test_tflms_rounding_of_any_accumulator(board: str) -> None:
    """Where no multiplication has a high half it is made of four: at the ends of the range and on both sides of ties."""
    b = GraphBuilder("rounding")
    x = b.input("x", (4096,), QType(31, True, STEP))
    rng = np.random.default_rng(0)
    multipliers = [1 << 30, (1 << 31) - 1, 0x5FFF_FFFF, 0x7FFF_8000, int(rng.integers(1 << 30, 1 << 31))]
    for k, m in enumerate(multipliers):
        b.output(
            b.requantize(x, QType(8, True, STEP), [m], [0], [31 + 1 + 7 * k], Rounding.TFLM, f"y{k}", (-128, 127), 3)
        )
    graph = b.graph()
    ends = [-(1 << 30), (1 << 30) - 1, -1, 0, 1, 65535, 65536, -65536, -65537, (1 << 30) - 65536, 65535 - (1 << 30)]
    halves = [((2 * n + 1) << s) + d for s in (1, 3, 8, 15, 22) for n in range(-64, 64) for d in (-1, 0, 1)]
    values = np.array([*ends, *(v for v in halves if -(1 << 30) <= v < 1 << 30)])
    values = np.concatenate([values, rng.integers(-(1 << 30), 1 << 30, 4096 - len(values))])
    found = measured(graph, board, {"x": values[None]})
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("other", ["groups", "dilation"])
def test_groups_and_dilation_are_left_to_the_general_kernel(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder(other)
    x = b.input("x", (6, 8, 4), QType(8, True, STEP))
    groups, dilation = (2, 1) if other == "groups" else (1, 2)
    w = np.random.default_rng(0).integers(-99, 100, (4, 3, 3, 4 // groups))
    pads = ((dilation, dilation), (dilation, dilation))
    b.output(b.conv2d(x, b.const("w", w), None, "acc", (1, 1), (dilation, dilation), pads, groups))
    graph = b.graph()
    assert dict(forced(graph, "qemu_virt_rv32", monkeypatch)[1].kernels) == {}


@pytest.mark.parametrize("board", BOARDS if FULL else BOARDS[1:2])
@pytest.mark.parametrize("kind", ["dense", "conv", "depthwise"])
def test_an_altered_bit_of_a_weight_is_seen(board: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder("bits")
    q = QType(8, True, STEP)
    if kind == "dense":
        b.output(b.dense(b.input("x", (16,), q), b.const("w", np.arange(-64, 64).reshape(8, 16)), None, "acc"))
    elif kind == "depthwise":
        w = b.const("w", np.arange(-36, 36).reshape(3, 3, 8))
        b.output(b.depthwise_conv2d(b.input("x", (4, 8, 8), q), w, None, "acc", (1, 1), (1, 1), ((1, 1), (1, 1))))
    else:
        w = b.const("w", np.arange(-72, 72).reshape(8, 3, 3, 2))
        b.output(b.conv2d(b.input("x", (4, 8, 2), q), w, None, "acc", (1, 1), (1, 1), ((1, 1), (1, 1))))
    graph = b.graph()
    samples = inputs_for(graph, 12, 0)
    plan = forced(graph, board, monkeypatch)
    assert dict(plan[1].kernels) == {"acc": "scalar"}
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    assert measured(graph, board, samples).bit_exact
    whole = scalar.form_of

    def altered(op: ops.Mac) -> scalar.Layer | scalar.Windows | None:
        made = whole(op)
        assert made is not None
        weight = made.weight.copy()
        weight.flat[37] ^= 1
        object.__setattr__(made, "weight", weight)
        return made

    monkeypatch.setattr(scalar, "form_of", altered)
    assert not measured(graph, board, samples).bit_exact


@pytest.mark.parametrize("short", [0, 1])
def test_a_run_that_is_too_long_is_seen(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is not idle: with runs of one tap more than it allows, corner inputs give other sums."""
    b = GraphBuilder("long")
    x = b.input("x", (64,), QType(8, True, STEP))
    b.output(b.dense(x, b.const("w", np.full((8, 64), 127)), None, "acc"))
    graph = b.graph()
    monkeypatch.setattr(scalar, "runs", lambda *_: [2] * 32 if short else [4] * 16)
    plan = forced(graph, "qemu_virt_rv32", monkeypatch)
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    samples: dict[str, Any] = {"x": np.full((1, 64), 127)}
    assert measured(graph, "qemu_virt_rv32", samples).bit_exact is bool(short)


# what they cost: instructions counted by the emulator, of whole inferences with one layer, TFLM's rounding by channel

MOST = {
    "qemu_virt_rv32": {"conv": 2.325, "pw": 2.584, "fc": 2.225, "dw1": 4.723, "dw2": 5.957},
    "unicorn_m0plus": {"conv": 2.562, "pw": 3.074, "fc": 2.343, "dw1": 8.895, "dw2": 10.431},
    "qemu_mps2_an385": {"conv": 1.405, "pw": 1.587, "fc": 1.35, "dw1": 4.214, "dw2": 4.653},
}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("kind", ["conv", "pw", "fc", "dw1", "dw2"] if FULL else ["conv", "dw1"])
def test_instructions_for_a_product(board: str, kind: str) -> None:
    graph = known(kind)
    found = measured(graph, board, inputs_for(graph, 4, 1))
    assert found.bit_exact, found.first_difference
    if any("gcc 12" in f"{tool} {version}" for tool, version in found.versions.items()):
        assert found.count_per_mac is not None
        assert found.count_per_mac <= MOST[board][kind]
