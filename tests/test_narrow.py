"""Weights of 4 bits, of 2 and of two values on cores with the DSP extension: against the reference, their bounds, what they cost.

BITWRIGHT_FULL=1 takes more of each.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.hls import joined, split
from tests.native import run_native
from tests.test_dsp import BOARDS, STEP, Draw, forced, known, layer
from toolchain import boards, flow, passes, reference
from toolchain.errors import MissingToolError
from toolchain.forms import dsp, narrow
from toolchain.forms._plane import row
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder

FULL = bool(os.environ.get("BITWRIGHT_FULL"))


def draw(bits: int, times: int = 1) -> Draw:
    def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        if bits == 4:
            return times * np.clip(np.round(rng.normal(0, 3, shape)), -8, 7).astype(int)
        if bits == 2:
            return times * rng.integers(-2, 2, shape)
        return times * np.array([[-1, 1], [0, 1], [-1, 0], [-3, 5]])[rng.integers(4)][rng.integers(2, size=shape)]

    return drawn


def narrow_layer(seed: int) -> Graph:
    """By turns of 4 bits, of 2 and of two values, some with a common factor; none depthwise."""
    kind = seed * 8 // 6 if seed % 6 != 4 else seed * 8 // 6 + 1
    graph = layer(kind + seed % 2, draw((4, 2, 1)[seed % 3], 1 if seed % 4 else 5))
    return replace(graph, name=f"layer_{seed}")


def narrowest(graph: Graph, board: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Graph, passes.Plan]:
    """The plan with the narrowest form wherever its bounds hold, whatever it costs."""
    monkeypatch.setattr(narrow, "ALLOWANCE", dict.fromkeys(narrow.ALLOWANCE, 1e9))
    return forced(graph, board, monkeypatch)


def parts_of(first: int) -> list[Graph]:
    return [g for g in map(narrow_layer, range(first, first + 30)) if "depthwise" not in str(type(g.ops[0])).lower()]


@pytest.mark.parametrize(
    ("board", "first"), [*((BOARDS[0], k) for k in range(0, 90 if FULL else 30, 30)), *((b, 0) for b in BOARDS[1:])]
)
def test_random_layers_equal_simulate(board: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(first)
    graph = joined(parts)
    samples = split([inputs_for(part, 12, first) for part in parts])
    plan = narrowest(graph, board, monkeypatch)
    assert list(plan[1].kernels.values()).count("narrow") >= len(parts) - 2 >= 15
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    try:
        found = flow.measure(graph, board, samples, runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert found.bit_exact, found.first_difference


@pytest.mark.parametrize("first", [30])
def test_the_portable_form_stays_within_its_memory(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(first)[: None if FULL else 8]
    graph = joined(parts)
    plan = narrowest(graph, "unicorn_m4", monkeypatch)
    samples = split([inputs_for(part, 12, first) for part in parts])
    expected, _ = reference.simulate(graph, samples)
    monkeypatch.setattr(passes, "run", lambda *_: plan)
    got = run_native(graph, samples, sanitize=True)
    for name, value in expected.items():
        assert_array_equal(got[name], value, err_msg=name)


def rows_of(weight: np.ndarray, positions: int = 1) -> dsp.Layer:
    n = weight.shape[1]
    return dsp.Layer(weight[:, None, :], row(positions, n), positions)


@pytest.mark.parametrize(("bits", "value", "most"), [(4, -8, 511), (2, -2, 511)])
def test_the_bounds_are_where_the_arithmetic_breaks(bits: int, value: int, most: int) -> None:
    """Of the last field, in the arithmetic of the cores: the most weights of the greatest size that fit, and one more."""
    for n, fits in ((most, True), (most + 1, False)):
        weight = np.zeros((16 // bits, n), int)
        weight[-1] = value
        assert narrow.Narrow(rows_of(weight), bits, 1, 128).fits is fits
        top, total = bits * (16 // bits - 1), int(weight[-1] @ np.full(n, -128))
        wrapped = ((total << top) + (1 << 31)) % (1 << 32) - (1 << 31)
        assert (wrapped >> top == total) is fits


def test_two_positions_share_words_while_both_fit() -> None:
    for n, shared in ((255, True), (256, False)):
        made = narrow.Narrow(rows_of(np.tile([-1, 1], (8, 128))[:, :n], 2), 1, 1, 128)
        assert made.shared is shared
        assert made.fits
    assert narrow.Narrow(rows_of(np.tile([-63, 1], (8, 300)), 2), 1, 1, 128).fits
    assert not narrow.Narrow(rows_of(np.tile([-64, 1], (8, 300)), 2), 1, 1, 128).fits  # four of them: 32,768


def test_where_a_bound_fails_the_next_form_is_used_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows too heavy for the last field of 2 bits go to 4 bits, for that to bytes."""
    for n, value, bits in ((500, -2, 2), (512, -2, 4), (512, -8, None)):
        b = GraphBuilder("beyond")
        weight = np.full((8, n), value)
        weight[0, 0] = 1 if value == -2 else 7
        weight[0, 1] = 0
        b.output(b.dense(b.input("x", (n,), QType(8, True, STEP)), b.const("w", weight), None, "acc"))
        graph = b.graph()
        plan = narrowest(graph, "unicorn_m4", monkeypatch)
        form = narrow.form_of(graph.ops[0])  # type: ignore[arg-type]
        assert (form.bits if form else None) == bits
        assert dict(plan[1].kernels) == {"acc": "narrow" if bits else "dsp"}
        monkeypatch.setattr(flow, "_plan", lambda *_, plan=plan: plan)
        assert flow.measure(graph, "unicorn_m4", inputs_for(graph, 12, 0), runs=1).bit_exact


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("alone", [True, False])
def test_packed_rows_hold_every_weight_once(bits: int, alone: bool) -> None:
    rng = np.random.default_rng(3)
    weight = draw(bits)(rng, (6, 5))
    made = narrow.Narrow(rows_of(weight, 1 if alone else 3), bits, 1, 128)
    halves = made.packed()  # blocks, segments, pairs, words, 2
    fields = np.stack([halves >> bits * f & (1 << bits) - 1 for f in range(made.fields)], axis=4)
    half = 1 << bits - 1
    fields[..., :-1, :] -= half
    fields[..., -1, :] = (fields[..., -1, :] + half) % (2 * half) - half
    back = fields.transpose(0, 3, 4, 1, 2, 5).reshape(-1, 6)
    assert_array_equal(back[:6, :5], weight)
    assert not back[6:].any()
    assert not back[:, 5:].any()
    assert halves.size == made.block * -(-6 // made.of)
    assert 2 * halves.size == made.weight_bytes


@pytest.mark.parametrize("bits", [4, 2, 1])
@pytest.mark.parametrize("at", [0, 5, 7] if FULL else [5])
def test_an_altered_bit_of_a_weight_is_seen(bits: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder("bits")
    x = b.input("x", (32,), QType(8, True, STEP))
    w = b.const("w", draw(bits)(np.random.default_rng(bits), (8, 32)))
    b.output(b.dense(x, w, None, "acc"))
    graph = b.graph()
    samples = inputs_for(graph, 12, 0)
    plan = narrowest(graph, "unicorn_m4", monkeypatch)
    assert dict(plan[1].kernels) == {"acc": "narrow"}
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    assert flow.measure(graph, "unicorn_m4", samples, runs=1).bit_exact
    whole = narrow.Narrow.packed

    def altered(self: narrow.Narrow) -> np.ndarray:
        assert self.bits == bits
        values = whole(self).copy()
        values.flat[at] ^= 1 << 2 * at
        return values

    monkeypatch.setattr(narrow.Narrow, "packed", altered)
    assert not flow.measure(graph, "unicorn_m4", samples, runs=1).bit_exact


# What they cost: instructions of whole inferences with one layer, as the emulator counts them, beside those with int8 weights.

TERNARY: Draw = lambda rng, shape: rng.integers(-1, 2, shape)  # noqa: E731
CASES: dict[str, tuple[Draw, int, int, float]] = {  # weights, bits of a field, halvings of the outputs, allowed
    "4-bit": (draw(4), 4, 3, 1.1),
    "2-bit": (draw(2), 2, 5, 1.2),
    "ternary": (TERNARY, 2, 5, 1.2),
    "binary": (lambda rng, shape: 2 * rng.integers(0, 2, shape) - 1, 1, 5, 1.0),
}
BYTES = {"fc": 81920, "pw": 4096}
COUNTS = {
    "fc": {"int8": 90610, "4-bit": 91312, "2-bit": 91408, "ternary": 91408, "binary": 81575},
    "pw": {"int8": 587275, "4-bit": 604930, "2-bit": 624248, "ternary": 624248, "binary": 431637},
}


@pytest.mark.parametrize("kind", COUNTS)
def test_instructions_beside_those_of_bytes(kind: str) -> None:
    try:
        base = flow.measure(known(kind), "unicorn_m4", inputs_for(known(kind), 4, 1), runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))
    counts = {"int8": base.count.median}
    for name, (drawn, bits, less, allowed) in CASES.items():
        graph = known(kind, drawn, less)
        form = narrow.form_of(graph.ops[0])  # type: ignore[arg-type]
        assert form is not None
        assert (form.bits, form.weight_bytes) == (bits, BYTES[kind] * bits // 8)
        assert dict(passes.run(graph, boards.load("unicorn_m4"))[1].kernels) == {"acc": "narrow"}
        found = flow.measure(graph, "unicorn_m4", inputs_for(graph, 4, 1), runs=1)
        assert found.bit_exact, found.first_difference
        assert found.count.median <= allowed * base.count.median
        counts[name] = found.count.median
    if any("arm-none-eabi-gcc" in name for name in base.versions):
        assert counts == COUNTS[kind]
