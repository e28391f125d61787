"""Kernels for cores with the DSP extension: packed rows against the reference, their bounds, and what they cost."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.hls import joined, split
from tests.native import run_native
from tests.pages import needs_compiler
from toolchain import boards, flow, forms, passes, reference, special_kernels
from toolchain.errors import MissingToolError
from toolchain.forms import dsp as packed
from toolchain.forms._plane import Plane, row
from toolchain.ir import Graph, QType, Tensor, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
BOARDS = ("unicorn_m4", "qemu_mps2_an500", "qemu_mps2_an505")  # M4, M7, M33
STEP = Fraction(1, 16)


def requantized(b: GraphBuilder, acc: Tensor, rng: np.random.Generator) -> Tensor:
    """Sums through any rounding, among them TensorFlow Lite Micro's, with one multiplier or one for each channel."""
    n = acc.channels
    lo, hi = b.range(acc).whole
    bits = max(-lo, hi, 1).bit_length()
    q = QType(8, bool(rng.integers(2)), STEP)
    rounding = list(Rounding)[rng.integers(len(Rounding))]
    size = n if rng.integers(2) else 1
    if rounding is Rounding.TFLM:
        m = rng.integers(1 << 30, (1 << 31) - 1, size).tolist()
        shift = rng.integers(31 + max(bits - 9, 0), 31 + max(bits - 6, 2), size).tolist()
        return b.requantize(acc, q, m, [0] * size, shift, rounding, "y", (q.min, q.max), int(rng.integers(-3, 4)))
    m = rng.integers(-(1 << 12), 1 << 12, size).tolist()
    shift = [12 + max(bits - 8, 0)] * size
    return b.requantize(acc, q, m, rng.integers(-99, 99, size).tolist(), shift, rounding, "y", (q.min, q.max), 0)


Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def layer(seed: int, draw: Draw | None = None) -> Graph:
    """A dense layer or a convolution with odd sizes, one channel, large windows, strides, paddings and zero points by turns."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder(f"layer_{seed}")
    kind = ("dense", "positions", "conv1d", "conv2d", "depthwise", "conv2d", "depthwise", "point")[seed % 8]
    bits = int(rng.choice([2, 4, 7, 8, 8, 8]))
    q = QType(bits, bool(rng.integers(2)), STEP, zero_point=0)
    q = replace(q, zero_point=int(rng.integers(q.min, q.max + 1)) if rng.integers(2) else 0)
    c, out = int(rng.choice([1, 2, 3, 4, 5, 8, 16])), int(rng.choice([1, 2, 3, 4, 6, 8, 9, 16]))
    high, wide = int(rng.integers(1, 8)), int(rng.integers(1, 12))
    window = [int(min(rng.choice([1, 2, 3, 3, 5, 7]), n + 2)) for n in (high, wide)]
    strides = [int(rng.choice([1, 1, 2, 3])) for _ in range(2)]
    pads = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in window)
    pads = tuple((a, z + max(k - n - a - z, 0)) for (a, z), k, n in zip(pads, window, (high, wide), strict=True))

    def const(name: str, *shape: int, most: int = 127) -> object:
        values = (
            draw(rng, shape) if draw else np.clip(np.round(rng.normal(0, most / 3, shape)), -most, most).astype(int)
        )
        return b.const(name, values)

    bias = b.const("bias", rng.integers(-3000, 3000, out), STEP) if rng.integers(2) else None
    match kind:
        case "dense":
            x = b.input("x", (int(rng.integers(1, 70)),), q)
            acc = b.dense(x, const("w", out, x.channels), bias, "acc")  # type: ignore[arg-type]
        case "positions":
            x = b.input("x", (int(rng.integers(2, 20)), c), q)
            acc = b.dense(x, const("w", out, c), bias, "acc")  # type: ignore[arg-type]
        case "conv1d":
            x = b.input("x", (wide, c), q)
            acc = b.conv1d(x, const("w", out, window[1], c), bias, "acc", strides[1:], (1,), pads[1:])  # type: ignore[arg-type]
        case "depthwise":
            x = b.input("x", (high, wide, c), q)
            stride, pads = (
                int(rng.integers(1, 3)),
                tuple((int(rng.integers(0, 3)), int(rng.integers(0, 3))) for _ in "hw"),
            )
            pads = tuple((a, z + max(3 - n - a - z, 0)) for (a, z), n in zip(pads, (high, wide), strict=True))
            bias = None if bias is None or out != c else bias
            acc = b.depthwise_conv2d(x, const("w", 3, 3, c), bias, "acc", (stride, stride), (1, 1), pads)  # type: ignore[arg-type]
        case "point":
            x = b.input("x", (high, wide, c), q)
            acc = b.conv2d(x, const("w", out, 1, 1, c), bias, "acc", (1, 1), (1, 1), ((0, 0), (0, 0)))  # type: ignore[arg-type]
        case _:
            x = b.input("x", (high, wide, c), q)
            acc = b.conv2d(x, const("w", out, *window, c), bias, "acc", strides, (1, 1), pads)  # type: ignore[arg-type]
    b.output(requantized(b, acc, rng))
    return b.graph()


def forced(graph: Graph, board: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Graph, passes.Plan]:
    """The plan with the packed kernel wherever its bounds hold, however few products there are."""
    monkeypatch.setattr(forms, "GENERAL", 1e9)
    return passes.run(graph, boards.load(board))


@pytest.mark.parametrize(
    ("board", "first"), [(b, k) for k in range(0, 96, 24) for b in (BOARDS if FULL or not k else BOARDS[:1])]
)
def test_random_layers_equal_simulate(board: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [layer(seed) for seed in range(first, first + 24)]
    graph = joined(parts)
    samples = split([inputs_for(part, 12, first) for part in parts])
    plan = forced(graph, board, monkeypatch)
    assert len(plan[1].kernels) >= 22
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    try:
        found = flow.measure(graph, board, samples, runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("first", [24])  # all 96 layers passed once; each 24 compile for half a minute
def test_the_portable_form_stays_within_its_memory(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model.c on this machine, under sanitizers: what is read and written of rows and planes, and every number."""
    parts = [layer(seed) for seed in range(first, first + (24 if FULL else 12))]
    graph = joined(parts)
    plan = forced(graph, "unicorn_m4", monkeypatch)
    samples = split([inputs_for(part, 12, first) for part in parts])
    expected, _ = reference.simulate(graph, samples)
    monkeypatch.setattr(passes, "run", lambda *_: plan)
    got = run_native(graph, samples, sanitize=True)
    for name, value in expected.items():
        assert_array_equal(got[name], value, err_msg=name)


def test_the_bounds_are_where_the_arithmetic_breaks() -> None:
    """The last sum that fits and the first that does not, in the arithmetic of the cores; a halfword that does not hold 256 a + b."""
    for n, fits in ((516, True), (517, False)):
        weight = np.array([[127] * n, [-127] * n])[:, None, :]
        made = packed.Layer(weight, row(1, n), 1)
        assert made.fits(128) is fits
        x = np.full(n, -128)
        s = int((256 * weight[0, 0] + weight[1, 0]) @ x)
        low = int(weight[1, 0] @ x)
        wrapped = (s - low + (1 << 31)) % (1 << 32) - (1 << 31)
        assert (wrapped >> 8 == int(weight[0, 0] @ x)) is fits
    assert not packed.Layer(np.array([[[-128]], [[-1]]]), row(1, 1), 1).fits(1)
    assert packed.Layer(np.array([[[-128]], [[1]]]), row(1, 1), 1).fits(1)


def test_where_the_bound_fails_the_general_kernel_is_used_and_right() -> None:
    b = GraphBuilder("beyond")
    x = b.input("x", (600,), QType(8, True, STEP))
    acc = b.dense(x, b.const("w", np.full((3, 600), 127)), None, "acc")
    b.output(b.requantize(acc, QType(8, True, STEP), [1], [0], [17], Rounding.HALF_EVEN, "y", (-128, 127), 0))
    graph = b.graph()
    _, plan = passes.run(graph, boards.load("unicorn_m4"))
    assert dict(plan.kernels) == {}
    assert flow.measure(graph, "unicorn_m4", inputs_for(graph, 12, 0), runs=1).bit_exact


def test_a_special_kernel_goes_before_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing of this one is in model.c, where what is not used is a compiler's error."""
    monkeypatch.setattr(special_kernels, "SPECIAL", (("nn_dense", lambda op: isinstance(op, ops.Dense)),))
    graph = known("fc")
    _, plan = passes.run(graph, boards.load("unicorn_m4"))
    assert dict(plan.kernels) == {}
    assert flow.measure(graph, "unicorn_m4", inputs_for(graph, 4, 0), runs=1).bit_exact


def test_packed_rows_hold_every_weight_once() -> None:
    rng = np.random.default_rng(3)
    weight = rng.integers(-127, 128, (6, 3, 5))
    made = packed.Layer(weight, Plane(9, 9, 5, 7, 9, 3, 1, 1, 1, 0, 0), 9)
    halves = made.packed()
    assert halves.shape == (2, 3, 3, 2, 2)
    low = (halves + 128) % 256 - 128
    high = (halves - low) // 256
    rows = np.stack([high, low], axis=4)  # block, segment, pair, two rows, which of them, value of the pair
    back = rows.transpose(0, 3, 4, 1, 2, 5).reshape(8, 3, 6)
    assert_array_equal(back[:6, :, :5], weight)
    assert not back[6:].any()
    assert not back[:, :, 5:].any()


@pytest.mark.parametrize("at", [0, 5, 31])
def test_an_altered_bit_of_a_weight_is_seen(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder("bits")
    x = b.input("x", (16,), QType(8, True, STEP))
    b.output(b.dense(x, b.const("w", np.arange(-64, 64).reshape(8, 16)), None, "acc"))
    graph = b.graph()
    samples = inputs_for(graph, 12, 0)
    plan = forced(graph, "unicorn_m4", monkeypatch)
    assert dict(plan[1].kernels) == {"acc": "dsp"}
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    assert flow.measure(graph, "unicorn_m4", samples, runs=1).bit_exact
    whole = packed.Layer.packed

    def altered(self: packed.Layer) -> np.ndarray:
        values = whole(self).copy()
        values.flat[at] ^= 1
        return values

    monkeypatch.setattr(packed.Layer, "packed", altered)
    assert not flow.measure(graph, "unicorn_m4", samples, runs=1).bit_exact


# what they cost: instructions counted by the emulator, of whole inferences with one layer, TFLM's rounding by channel


def known(kind: str, draw: Draw | None = None, less: int = 0) -> Graph:
    """One layer with int8 weights, or with those drawn, whose outputs are 2**less times smaller."""
    rng = np.random.default_rng(0)
    b = GraphBuilder(kind)
    q = QType(8, True, STEP, zero_point=-5)
    shape, rows, e = {"conv": ((32, 32, 16), (16, 3, 3, 16), 9), "pw": ((25, 5, 64), (64, 1, 1, 64), 8),
                      "fc": ((640,), (128, 640), 10), "dw1": ((25, 5, 64), (3, 3, 64), 7), "dw2": ((48, 48, 8), (3, 3, 8), 7)}[kind]  # fmt: skip
    n = rows[-1] if kind.startswith("dw") else rows[0]
    x = b.input("x", shape, q)
    w = b.const("w", draw(rng, rows) if draw else np.clip(np.round(rng.normal(0, 35, rows)), -127, 127).astype(int))
    pad = (0, 0) if kind == "pw" else (0, 1) if kind == "dw2" else (1, 1)
    if kind == "fc":
        acc = b.dense(x, w, None, "acc")
    elif kind.startswith("dw"):
        stride = int(kind[-1])
        acc = b.depthwise_conv2d(x, w, None, "acc", (stride, stride), (1, 1), (pad, pad))
    else:
        acc = b.conv2d(x, w, None, "acc", (1, 1), (1, 1), (pad, pad))
    m = rng.integers(1 << 30, (1 << 31) - 1, n).tolist()
    shift = (31 + rng.integers(e - less - 1, e - less + 2, n)).tolist()
    y = QType(8, True, STEP, zero_point=-3)
    b.output(b.requantize(acc, y, m, [0] * n, shift, Rounding.TFLM, "y", (-128, 127), -3))
    return b.graph()


MOST = {"conv": 1.02, "pw": 1.15, "fc": 1.11, "dw1": 1.75, "dw2": 2.5}  # instructions for a product


@pytest.mark.parametrize("kind", MOST)
def test_instructions_for_a_product(kind: str) -> None:
    graph = known(kind)
    try:
        found = flow.measure(graph, "unicorn_m4", inputs_for(graph, 4, 1), runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert found.bit_exact, found.first_difference
    if any("arm-none-eabi-gcc" in name for name in found.versions):
        assert found.count_per_mac is not None
        assert found.count_per_mac <= MOST[kind]


def test_a_window_of_the_whole_input() -> None:
    """One position with a window of several is a dense layer of them all; with padding before it, it is a convolution."""
    board = boards.load("unicorn_m4")
    for kernel, stride, pad in ((5, 1, (0, 0)), (5, 3, (1, 0)), (3, 3, (0, 0))):
        b = GraphBuilder("window")
        x = b.input("x", (5, 3), QType(8, True))
        w = b.const("w", np.random.default_rng(3).integers(-90, 90, (10, kernel, 3)))
        b.output(
            b.requantize(
                b.conv1d(x, w, None, "acc", (stride,), (1,), (pad,)),
                QType(8, True),
                [3],
                [0],
                [9],
                Rounding.HALF_UP,
                "y",
            )
        )
        graph = b.graph()
        _, plan = passes.run(graph, board)
        assert plan.kernels == {"acc": "dsp"}
        assert flow.measure(graph, board, inputs_for(graph, 12), runs=1).bit_exact


@pytest.mark.parametrize("stride", [1, 2])
def test_small_planes_near_the_arenas_end_compile(stride: int, tmp_path: Path) -> None:
    """Stores of wider types, which never run, were refused by GCC as beyond the arena."""
    needs_compiler("arm", "cortex-m4f")
    rng = np.random.default_rng(0)
    q = QType(8, True, STEP)

    def small(b: GraphBuilder, x: Tensor, out: int, name: str) -> Tensor:
        acc = b.dense(x, b.const(f"w_{name}", rng.integers(-9, 9, (out, x.channels))), None, f"acc_{name}")
        return b.requantize(acc, q, [1], [0], [4], Rounding.FLOOR, name)

    for high, wide, channels, out in ((1, 4, 8, 24), (1, 4, 8, 48), (4, 4, 64, 96)):
        b = GraphBuilder("near")
        x = b.input("x", (high, wide, channels), q)
        w = b.const("w", rng.integers(-64, 64, (3, 3, channels)))
        acc = b.depthwise_conv2d(x, w, None, "acc", (stride, stride), (1, 1), ((1, 1), (1, 1)))
        y = b.requantize(
            acc, q, [1 + k % 3 for k in range(channels)], [0] * channels, [7] * channels, Rounding.HALF_UP, "y"
        )
        b.output(b.pad(small(b, y, out, "big"), ((0, 0), (0, 1), (0, 0)), "p"))
        b.output(small(b, y, 3, "z"))
        graph = b.graph()
        assert passes.run(graph, boards.load("unicorn_m4"))[1].kernels["acc"] == "dsp"
        flow.build(flow.emit(graph, "unicorn_m4"), tmp_path / f"{wide}_{out}")
