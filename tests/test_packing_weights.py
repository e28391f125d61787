"""Weights as streams of few bits, tables of values, or without their zeros: every format against the reference, its bytes, the choice."""

from __future__ import annotations

import dataclasses
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.hls import joined, split
from tests.native import run_native
from tests.pages import needs_compiler
from tests.test_dsp import STEP, layer
from toolchain import boards, cli, flow, forms, passes, reference, report
from toolchain.backends import c
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.forms import stored
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Mac, Rounding
from toolchain.ir.text import dump
from toolchain.passes import Plan, storage

WIDTHS = [f"{n}-bit" for n in range(1, 9)]
KINDS = (*WIDTHS, "ternary", "levels", "shared", "each", "bitmap", "index", "wide", "zero")


def weights(kind: str, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Weights of a kind; the first axis is the channel of all but depthwise convolutions."""
    match kind:
        case "ternary":
            return rng.integers(-1, 2, shape)
        case "levels":  # equally far apart, of any number
            levels = int(rng.choice([5, 6, 7, 9, 10, 11, 12, 13, 14]))
            return int(rng.integers(1, 8)) * (rng.integers(0, levels, shape) - levels // 2)
        case "shared":
            return rng.choice(np.arange(-127, 128), int(rng.integers(2, 17)), replace=False)[rng.integers(0, 2, shape)]
        case "each":
            codes = rng.integers(-127, 128, (shape[0], int(rng.integers(2, 17))))
            rows = rng.integers(0, codes.shape[1], (shape[0], int(np.prod(shape[1:]))))
            return np.take_along_axis(codes, rows, axis=1).reshape(shape)
        case "bitmap" | "index":
            kept = rng.random(shape) < (0.4 if kind == "bitmap" else 0.06)
            return kept * rng.integers(-127, 128, shape)
        case "wide":
            return rng.integers(-2000, 2000, shape)
        case "zero":
            return np.zeros(shape, int)
        case _:
            n = int(kind[0])
            return rng.integers(-(1 << n - 1), 1 << n - 1, shape)


def stored_layer(seed: int) -> Graph:
    kind = KINDS[seed % len(KINDS)]
    graph = layer(seed // 3, lambda rng, shape: weights(kind, rng, shape))
    return dataclasses.replace(graph, name=f"{kind}_{seed}")


def turn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A format that was not taken yet where there is one, the first, the last, one between in turns; what was taken is in the list that it gives."""
    taken: list[str] = []

    def chosen(op: Mac) -> stored.Stored:
        found = list(stored.formats(stored.flat(op)))
        new = [form for form in found if form.text not in taken] or found
        form = new[(0, -1, len(new) // 2)[len(taken) // len(KINDS) % 3]]
        taken.append(form.text)
        return form

    monkeypatch.setattr(storage.stored, "smallest", chosen)
    monkeypatch.setattr(storage, "DECODER", -1e9)
    monkeypatch.setattr(storage, "LEAST", -1e-9)
    monkeypatch.setattr(forms, "GENERAL", 1e9)
    return taken


def seen(taken: list[str]) -> None:
    """Of 36 layers, some of few weights: every way to write a number, and to leave out zeros with and without a table."""
    for what in ("ternary", "levels", "codebook", "per channel", "bitmap, codebook", "bits, codebook"):
        assert any(what in text for text in taken), what
    for zeros in ("bitmap, ", "index of ", ""):
        widths = [f"{n}-bit" for n in range(1, 8) if any(t.startswith(zeros) and t.endswith(f"{n}-bit") for t in taken)]
        assert len(widths) >= 3, zeros


@pytest.mark.parametrize("board", ["unicorn_m4"])
def test_random_layers_equal_simulate(board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = turn(monkeypatch)
    parts = [stored_layer(seed) for seed in range(36)]
    graph = joined(parts)
    samples = split([inputs_for(part, 12, 0) for part in parts])
    plan = passes.run(graph, boards.load(board), optimize="size")
    kinds = list(plan[1].kernels.values())
    assert kinds.count("stored") + kinds.count("stored_dsp") == 36
    assert kinds.count("stored_dsp") >= 8
    seen(taken)
    monkeypatch.setattr(flow, "_plan", lambda *_: plan)
    try:
        found = flow.measure(graph, board, samples, runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert found.bit_exact, found.first_difference


def test_nothing_is_read_or_written_beside_streams_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine, under sanitizers."""
    taken = turn(monkeypatch)
    parts = [stored_layer(seed) for seed in range(64, 100)]
    graph = joined(parts)
    plan = passes.run(graph, boards.load("unicorn_m4"), optimize="size")
    seen(taken)
    samples = split([inputs_for(part, 12, 0) for part in parts])
    expected, _ = reference.simulate(graph, samples)
    monkeypatch.setattr(passes, "run", lambda *_: plan)
    got = run_native(graph, samples, sanitize=True)
    for name, value in expected.items():
        assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_within_three_percent_of_the_bound(kind: str) -> None:
    """Of every format that the weights can lie in, tables and all; and what is stored is read back."""
    rng = np.random.default_rng(len(kind))
    for shape in ((128, 640), (64, 64), (7, 13)):
        weight = weights(kind, rng, shape)
        for form in stored.formats(weight):
            assert len(form.data) == form.stream_bytes, form.text
            assert form.weight_bytes <= ceil(1.03 * form.bound_bits / 8), form.text
            if weight.size < 10000:  # in Python, bit by bit
                assert_array_equal(stored.read(form.data, form), weight, err_msg=form.text)


def test_groups_of_numbers() -> None:
    """Each group holds the numbers that it says, and is within 2.5 % of what they are."""
    assert stored.group(3) == (5, 8)
    for levels in range(2, 17):
        digits, bits = stored.group(levels)
        assert levels**digits <= 1 << bits
        assert bits <= 1.025 * digits * np.log2(levels)
    assert stored.group(17) == (1, 5)
    assert stored.group(4000) == (1, 12)


EXPECTED = {  # of 128 rows of 640
    "1-bit": "1-bit", "2-bit": "2-bit", "3-bit": "3-bit", "4-bit": "4-bit", "5-bit": "5-bit", "6-bit": "6-bit", "7-bit": "7-bit", "8-bit": None,
    "ternary": "ternary, 5 in 8 bits", "wide": "12-bit",
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_format_comes_from_the_weights(kind: str) -> None:
    weight = weights(kind, np.random.default_rng(1), (128, 640))
    form = stored.smallest(dense(weight).ops[0])  # type: ignore[arg-type]
    assert (form.text if form else None) == EXPECTED[kind]


def test_a_pruned_and_a_clustered_layer_need_no_flag() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-127, 128, (128, 640))
    clustered = np.sort(rng.choice(np.arange(-127, 128), 12, replace=False))[rng.integers(0, 12, (128, 640))]
    for weight, text in (
        (values * (rng.random((128, 640)) < 0.5), "bitmap, 8-bit"),
        (values * (rng.random((128, 640)) < 0.05), "index of 6 bits, 8-bit"),
        (clustered, "codebook of 12, 5 in 18 bits"),
        (clustered * (rng.random((128, 640)) < 0.1), "index of 4 bits, codebook of 12, 4-bit"),
    ):
        form = stored.smallest(dense(weight).ops[0])  # type: ignore[arg-type]
        assert form is not None
        assert form.text == text


def dense(weight: np.ndarray) -> Graph:
    b = GraphBuilder("dense")
    b.output(b.dense(b.input("x", (weight.shape[1],), QType(8, True, STEP)), b.const("w", weight), None, "acc"))
    return b.graph()


@pytest.mark.parametrize("kind", [*WIDTHS[:7], "ternary", "levels", "shared", "each", "bitmap", "index", "wide"])
def test_an_altered_bit_is_seen(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first byte, one in the middle and the last but one, on this machine."""
    graph = dense(weights(kind, np.random.default_rng(5), (24, 40)))
    samples = inputs_for(graph, 12, 0)
    expected, _ = reference.simulate(graph, samples)
    monkeypatch.setattr(storage, "DECODER", -1e9)
    monkeypatch.setattr(storage, "LEAST", -1e-9)
    plan = passes.run(graph, boards.load("unicorn_m4"), optimize="size")
    assert dict(plan[1].kernels) == {"acc": "stored"}
    monkeypatch.setattr(passes, "run", lambda *_: plan)
    assert_array_equal(run_native(graph, samples)["acc"], expected["acc"])
    whole = stored.Stored.data.func  # type: ignore[attr-defined]
    size = len(whole(stored.smallest(graph.ops[0])))  # type: ignore[arg-type]
    for at in (0, size // 2, size - 2):

        def altered(self: stored.Stored, at: int = at) -> bytes:
            data = bytearray(whole(self))
            data[at] ^= 4
            return bytes(data)

        monkeypatch.setattr(stored.Stored, "data", property(altered))
        assert (run_native(graph, samples)["acc"] != expected["acc"]).any()


def test_for_speed_nothing_is_stored_so_while_flash_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it does not, the largest savings come first and only as many as it takes."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("two")
    x = b.input("x", (64,), QType(8, True, STEP))
    b.output(b.dense(x, b.const("small", rng.integers(-16, 16, (64, 64))), None, "less"))
    b.output(b.dense(x, b.const("large", rng.integers(-16, 16, (256, 64))), None, "more"))
    graph, board = b.graph(), boards.load("qemu_microbit")
    assert dict(passes.run(graph, board)[1].packing) == {}
    room = storage.CODE + 5 * 64 * 64 + storage.TABLES * (64 + 256)
    plan = [passes.run(graph, dataclasses.replace(board, flash_bytes=room - less))[1] for less in (0, 1, 6000)]
    assert [dict(p.packing) for p in plan] == [{}, {"large": "5-bit"}, {"large": "5-bit", "small": "5-bit"}]
    assert plan[1].scratch == {"less": 64}
    assert dict(passes.run(graph, board, optimize="size")[1].packing) == {"large": "5-bit", "small": "5-bit"}


def test_for_size_what_saves_little_stays_as_it_is() -> None:
    """A twelfth of the weights is 0: a bitmap would save nothing; a quarter is: one would save an eighth, and no more."""
    rng = np.random.default_rng(0)
    values = rng.choice([*range(-127, 0), *range(1, 128)], (128, 256))
    for zeros, kernels in ((12, "dsp"), (4.5, "dsp"), (3, "stored")):
        graph = dense(values * (rng.random(values.shape) > 1 / zeros))
        assert dict(passes.run(graph, boards.load("unicorn_m4"), optimize="size")[1].kernels) == {"acc": kernels}


def test_for_size_the_smaller_of_kernel_and_stream_is_taken() -> None:
    """4 bits side by side are as small as a stream of 4 bits; of 3 bits the stream is smaller."""
    rng = np.random.default_rng(0)
    board = boards.load("unicorn_m4")
    assert dict(passes.run(dense(weights("4-bit", rng, (128, 64))), board, optimize="size")[1].kernels) == {
        "acc": "narrow"
    }
    assert dict(passes.run(dense(weights("3-bit", rng, (128, 64))), board, optimize="size")[1].kernels) == {
        "acc": "stored"
    }


def test_what_is_asked_for_is_one_of_three() -> None:
    with pytest.raises(ToolchainError) as caught:
        Plan(optimize="power")
    assert str(caught.value) == "plan: optimize is 'power', must be one of speed, size, ram; correct it"
    assert len({Plan(optimize=o).digest() for o in ("speed", "size", "ram")}) == 3


def test_emit_says_what_packed_weights_lie_in() -> None:
    """By array, for people in model.c and in what the command line prints, for programs in its JSON."""
    rng = np.random.default_rng(0)
    for kind, optimize, name, form, size in (
        ("4-bit", "speed", "model_narrow_w", "4-bit fields of 4 rows", 4096),
        ("3-bit", "size", "model_stored_w", "3-bit", 3072),
    ):
        graph, board = dense(weights(kind, rng, (128, 64))), boards.load("unicorn_m4")
        project = c.emit(*passes.run(graph, board, optimize=optimize), board)
        assert project.weights == {name: {"format": form, "values": 8192, "bytes": size}}
        assert f"/* 8,192 weights in {size:,} bytes: {form} */" in str(project.files["model.c"])
        assert report.weights(project.weights) == f"{name} 8,192 weights in {size:,} bytes: {form}\n"
        both = flow.emit_several({"one": graph, "two": graph}, board, optimize=optimize)
        assert set(both.weights) == {name.replace("model", of) for of in ("one", "two")}
        assert f" one{name.removeprefix('model')}[" in str(both.files["one.c"])


def test_build_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs_compiler("arm", "cortex-m4f")
    graph = dense(weights("4-bit", np.random.default_rng(0), (128, 64)))
    (tmp_path / "net.graph").write_text(dump(graph))
    argv = ["build", str(tmp_path / "net.graph"), "--board", "unicorn_m4", "--out", str(tmp_path / "p")]
    assert cli.main(argv) == 0
    assert "model_narrow_w 8,192 weights in 4,096 bytes: 4-bit fields of 4 rows" in capsys.readouterr().out


@pytest.mark.parametrize("optimize", ["speed", "size", "ram"])
def test_a_board_with_too_little_memory_decodes_a_row_at_a_time(optimize: str) -> None:
    """What packs decoded rows for the DSP extension needs memory for them."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("wide")
    x = b.input("x", (20, 20, 32), QType(8, True, STEP))
    w = b.const("w", rng.integers(-4, 4, (64, 5, 5, 32)))
    acc = b.conv2d(x, w, None, "acc", (2, 2), (1, 1), ((2, 2), (2, 2)))
    b.output(b.requantize(acc, QType(8, True, STEP), [1], [0], [8], Rounding.FLOOR, "y"))
    graph, board = b.graph(), boards.load("unicorn_m4")
    small = dataclasses.replace(board, flash_bytes=40_000, ram_bytes=28_000, stack_bytes=1024)
    for memory, kernel, scratch in ((small.ram_bytes, "stored", 800), (1 << 16, "stored_dsp", 11_512)):
        made, plan = passes.run(graph, dataclasses.replace(small, ram_bytes=memory), optimize=optimize)
        if optimize == "ram":
            kernel, scratch = "stored", 800
        assert (plan.kernels, plan.scratch, plan.packing) == ({"acc": kernel}, {"acc": scratch}, {"w": "3-bit"})
        c.emit(made, plan, small if memory == small.ram_bytes else board)
