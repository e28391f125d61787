"""Kernels for Helium: random layers against the reference on an emulated Cortex-M55, the rounding at its corners, the fallbacks.

BITWRIGHT_FULL=1 takes more of each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.hls import joined, split
from tests.native import run_native
from tests.test_dsp import STEP, forced, known, layer, requantized
from tests.test_overlap import case, products, windows
from toolchain import flow, overlap, passes, reference, tools
from toolchain.errors import MissingToolError
from toolchain.forms import helium
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.measurement import Measurement
from toolchain.passes import Plan

BOARD = "qemu_mps3_an547"
FULL = bool(os.environ.get("BITWRIGHT_FULL"))
FAMILIES = ("gcc", "clang")


def measured(
    graph: Graph,
    samples: Mapping[str, np.ndarray] | np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    family: str | None = None,
    plan: tuple[Graph, Plan] | None = None,
) -> Measurement:
    if plan is not None:
        monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    monkeypatch.setattr(tools, "compiler", partial(tools.compiler, family=family))
    try:
        return flow.measure(graph, BOARD, samples, runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))


def shared(seed: int) -> Graph:
    """Windows whose neighbours share whole vectors, depthwise windows of other sizes, many channels, fewer than four positions, long sums."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder(f"shared_{seed}")
    q = QType(8, bool(seed % 3), STEP, zero_point=int(rng.integers(0, 100)) if seed % 2 else 0)

    def const(*shape: int) -> object:
        return b.const("w", rng.integers(-128, 128, shape))

    def at(kind: str, high: int, wide: int, c: int, out: int, window: tuple[int, int], stride: tuple[int, int]) -> None:
        x = b.input("x", (high, wide, c), q)
        pads = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in window)
        if kind == "depthwise":
            acc = b.depthwise_conv2d(x, const(*window, c), None, "acc", stride, (1, 1), pads)  # type: ignore[arg-type]
        else:
            acc = b.conv2d(x, const(out, *window, c), None, "acc", stride, (1, 1), pads)  # type: ignore[arg-type]
        b.output(requantized(b, acc, rng))

    cases = (
        ("conv", 5, 6, 16, 4, (3, 3), (1, 1)), ("conv", 4, 9, 16, 6, (2, 2), (1, 1)), ("conv", 5, 7, 8, 3, (4, 4), (1, 1)),
        ("conv", 9, 3, 16, 5, (1, 3), (1, 1)), ("conv", 3, 3, 4, 90, (3, 3), (2, 2)), ("conv", 6, 5, 48, 2, (4, 3), (1, 1)),
        ("depthwise", 7, 5, 24, 0, (3, 3), (1, 1)), ("depthwise", 6, 6, 3, 0, (4, 4), (2, 1)), ("depthwise", 3, 8, 18, 0, (1, 5), (1, 2)),
        ("depthwise", 2, 3, 5, 0, (2, 2), (1, 1)), ("depthwise", 9, 4, 17, 0, (5, 3), (3, 2)), ("depthwise", 5, 5, 1, 0, (3, 3), (2, 2)),
        ("conv", 1, 5, 800, 4, (1, 1), (1, 1)),
    )  # fmt: skip
    if seed < len(cases):
        at(*cases[seed])
        return b.graph()
    x = b.input("x", (1200,), q)
    b.output(requantized(b, b.dense(x, const(150, 1200), None, "acc"), rng))  # type: ignore[arg-type]
    return b.graph()


CASES = range(14)


@pytest.mark.parametrize(
    ("first", "family"), [(0, "gcc"), (24, "clang"), (48, "gcc"), (72, "clang")][: 4 if FULL else 2]
)
def test_random_layers_equal_simulate(first: int, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 96 of tests/test_dsp.py passed with both compilers."""
    parts = [layer(seed) for seed in range(first, first + 24)]
    graph = joined(parts)
    samples = split([inputs_for(part, 12, first) for part in parts])
    plan = forced(graph, BOARD, monkeypatch)
    assert set(plan[1].kernels.values()) == {"helium"}
    assert len(plan[1].kernels) == 24
    found = measured(graph, samples, monkeypatch, family, plan)
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("family", FAMILIES)
def test_chosen_shapes_equal_simulate(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [shared(seed) for seed in CASES]
    forms = [helium.form_of(part.ops[0]) for part in parts]  # type: ignore[arg-type]
    dots = [form.dot for form in forms if isinstance(form, helium.Layer)]
    assert {dot.taps for dot in dots} == {1, 2, 3, 4}
    assert {dot.positions for dot in dots if dot.loops[0] and dot.loops[2]} == {1, 4}
    assert any(form.at.swapped for form in forms if form is not None)
    graph = joined(parts)
    plan = forced(graph, BOARD, monkeypatch)
    assert len(plan[1].kernels) == len(parts)
    found = measured(graph, split([inputs_for(part, 12, 5) for part in parts]), monkeypatch, family, plan)
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("first", [24, None] if FULL else [None])
def test_the_portable_form_stays_within_its_memory(first: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model.c on this machine, under sanitizers: what is read and written of columns and sums, and every number."""
    parts = [shared(seed) for seed in CASES] if first is None else [layer(seed) for seed in range(first, first + 24)]
    graph = joined(parts)
    plan = forced(graph, BOARD, monkeypatch)
    assert len(plan[1].kernels) == len(parts)
    samples = split([inputs_for(part, 12, 3) for part in parts])
    expected, _ = reference.simulate(graph, samples)
    monkeypatch.setattr(passes, "run", lambda *_: plan)
    got = run_native(graph, samples, sanitize=True)
    for name, value in expected.items():
        assert_array_equal(got[name], value, err_msg=name)


def corners(wide: bool) -> Graph:
    """Sums at the ends of 32 bits, near 0 and on ties, through TensorFlow Lite Micro's rounding with every shift there is, right of 31 and
    left; or, not wide, sums and shifts for the short form of it."""
    rng = np.random.default_rng(2)
    n = 512
    b = GraphBuilder("corners")
    x = b.input("x", (1,), QType(8, True, STEP))
    near = rng.integers(-300, 301, n)
    most = (1 << 31) - 40_000 if wide else (1 << 29)
    far = rng.choice([-most, most], n) + rng.integers(-100, 101, n)
    start = np.where(rng.integers(2, size=n), near, far)
    m = np.where(rng.integers(2, size=n), 1 << 30, rng.integers(0, 1 << 31, n))
    m[:4] = [0, 1, (1 << 31) - 1, (1 << 31) - 1]
    shift = rng.integers(0, 63, n) if wide else rng.integers(32, 62, n)
    shift[::3] = rng.integers(30 if wide else 32, 36, len(shift[::3]))
    weight = b.const("w", rng.integers(-128, 128, (n, 1)))
    acc = b.dense(x, weight, b.const("bias", start, STEP), "acc")
    q = QType(32, True, STEP)
    b.output(b.requantize(acc, q, m.tolist(), [0] * n, shift.tolist(), Rounding.TFLM, "y", (q.min, q.max), 0))
    return b.graph()


@pytest.mark.parametrize("wide", [True, False])
def test_the_rounding_is_tflms_at_every_corner(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = corners(wide)
    samples = np.arange(-128, 128).reshape(-1, 1)[:: 1 if wide else 3]
    plan = forced(graph, BOARD, monkeypatch)  # a product for an output is not worth it
    assert dict(plan[1].kernels) == {"acc": "helium"}
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    text = str(flow.emit(graph, BOARD).files["model.c"])
    assert ("NN_TFLM," in text, "NN_TFLM_SHORT," in text) == (wide, not wide)
    found = measured(graph, samples, monkeypatch)
    assert found.bit_exact, found.first_difference


def beyond() -> list[Graph]:
    """What this family has no form for."""
    rng = np.random.default_rng(0)
    found = []
    for kind in ("groups", "dilation", "wide input", "wide weights", "taps", "multiplier"):
        b = GraphBuilder(kind.replace(" ", "_"))
        x = b.input("x", (6, 6, 4), QType(16 if kind == "wide input" else 8, True, STEP))
        most, size = (300 if kind == "wide weights" else 127), (5 if kind == "taps" else 3)
        pads = ((1, 1), (2, 2))
        if kind in ("taps", "multiplier"):
            out = 8 if kind == "multiplier" else 4
            w = b.const("w", rng.integers(-most, most, (size, size, out)))
            b.output(b.depthwise_conv2d(x, w, None, "acc", (1, 1), (1, 1), pads))
        else:
            w = b.const("w", rng.integers(-most, most, (4, 3, 3, 2 if kind == "groups" else 4)))
            dilation = (2, 1) if kind == "dilation" else (1, 1)
            groups = 2 if kind == "groups" else 1
            b.output(b.conv2d(x, w, None, "acc", (1, 1), dilation, pads, groups))
        found.append(b.graph())
    return found


def test_where_there_is_no_form_the_general_kernel_is_used_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = beyond()
    graph = joined(parts)
    plan = forced(graph, BOARD, monkeypatch)
    assert dict(plan[1].kernels) == {}
    found = measured(graph, split([inputs_for(part, 12, 0) for part in parts]), monkeypatch, None, plan)
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize(("kind", "at"), [("conv", 5), ("fc", 81_919), ("dw2", 24)])
def test_an_altered_bit_of_a_weight_is_seen(kind: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = known(kind)
    samples = inputs_for(graph, 6, 0)
    assert measured(graph, samples, monkeypatch).bit_exact
    form = helium.Windows if kind.startswith("dw") else helium.Layer
    whole = form.packed

    def altered(self: helium.Layer) -> np.ndarray:
        values = whole(self).copy()  # type: ignore[arg-type]
        values.flat[at] ^= 64
        return values

    monkeypatch.setattr(form, "packed", altered)
    assert not measured(graph, samples, monkeypatch).bit_exact


@pytest.mark.parametrize("native", [True, False] if FULL else [False])
def test_outputs_lie_over_their_inputs_as_near_as_forms_say(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = case([windows, products], 40, 5, board=BOARD)
    assert set(given.plan.kernels.values()) == {"helium"}
    assert len(given.plan.kernels) == 40
    found = [overlap.exact(step, given.plan.kernels) for step in given.steps[::2]]
    assert None in found and 0 in found and max(d for d in found if d is not None) > 0
    overlap.check(given.graph, given.plan)
    samples = inputs_for(given.graph, 12, 5)
    if not native:
        result = measured(given.graph, samples, monkeypatch, None, (given.graph, given.plan))
        assert result.bit_exact, result.first_difference
        return
    expected, _ = reference.simulate(given.graph, samples)
    got = run_native(given.graph, samples, plan=given.plan, sanitize=True)
    for name, value in expected.items():
        assert_array_equal(got[name], value, err_msg=name)


KNOWN = {"gcc": "arm-none-eabi-gcc 12", "clang": "zig cc 0.17"}  # whose figures these are
MOST = {
    "gcc": {"conv": 0.143, "pw": 0.197, "fc": 0.142, "dw1": 1.118, "dw2": 1.460},
    "clang": {"conv": 0.137, "pw": 0.178, "fc": 0.142, "dw1": 1.043, "dw2": 1.414},
}  # instructions for a product


@pytest.mark.parametrize("family", FAMILIES if FULL else ["clang"])
@pytest.mark.parametrize("kind", ["conv", "pw", "fc", "dw1", "dw2"])
def test_instructions_for_a_product(kind: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = known(kind)
    found = measured(graph, inputs_for(graph, 4, 1), monkeypatch, family)
    assert found.bit_exact, found.first_difference
    if any(KNOWN[family] in f"{tool} {version}" for tool, version in found.versions.items()):
        assert found.count_per_mac is not None
        assert found.count_per_mac <= MOST[family][kind]
