"""Samples: floats are real values, integers stored ones; every misuse is one clear error."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from toolchain import files, inputs
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType, Tensor
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.graph import channels_first_note


def graph(*names: str) -> Graph:
    b = GraphBuilder("g")
    made = [b.input(name, (2, 3), QType(4, True, Fraction(1, 4), None, 1)) for name in names]
    for tensor in made:
        b.output(b.reshape(tensor, (6,), f"{tensor.name}_flat"))
    return b.graph()


def test_real_values_round_to_nearest_even_and_clamp() -> None:
    real = np.array([[[0.0, 0.125, 0.375], [-0.125, 100.0, -100.0]]])
    expected = [[[1, 1, 3], [1, 7, -8]]]  # halves: 0.5 -> 0, 1.5 -> 2, -0.5 -> 0, then the zero point
    assert_array_equal(inputs.stored(graph("x"), real)["x"], expected)


def test_integers_are_stored_values() -> None:
    given = np.array([[[-8, 7, 0], [1, 2, 3]]], np.int8)
    assert_array_equal(inputs.stored(graph("x"), given)["x"], given)


def test_one_sample_needs_no_batch_axis() -> None:
    assert inputs.stored(graph("x"), np.zeros((2, 3), np.int8))["x"].shape == (1, 2, 3)


def test_dequantize_is_the_inverse_on_the_grid() -> None:
    g = graph("x")
    stored = np.arange(-8, 8).reshape(-1, 1, 1).repeat(2, 1).repeat(3, 2)
    assert_array_equal(inputs.stored(g, inputs.dequantize(g.inputs[0], stored))["x"], stored)


def test_made_up_samples_hold_the_corners_and_repeat_by_seed() -> None:
    g = graph("x", "y")
    made = inputs.made_up(g, 8, seed=3)
    assert_array_equal(made["x"][0], np.full((2, 3), -8))
    assert_array_equal(made["x"][1], np.full((2, 3), 7))
    assert_array_equal(made["x"][2], np.full((2, 3), 1))
    assert_array_equal(made["x"][3].ravel(), [-8, 7, -8, 7, -8, 7])
    assert_array_equal(made["y"], inputs.made_up(g, 8, seed=3)["y"])
    assert (made["x"] != inputs.made_up(g, 8, seed=4)["x"]).any()
    assert inputs.made_up(g, 1)["x"].shape == (1, 2, 3)


def test_npz_feeds_inputs_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((5, 2, 3), np.int8), y=np.zeros((5, 2, 3)))
    found = inputs.read(graph("x", "y"), tmp_path / "x.npz")
    assert_array_equal(found["x"], np.ones((5, 2, 3)))
    assert_array_equal(found["y"], np.ones((5, 2, 3)))  # real 0 is the zero point, 1


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.full((1, 2, 3), np.nan), "x.npy: input 'x': holds NaN or infinity, must be finite"),
        (np.zeros((1, 3, 2), np.int8), "x.npy: input 'x': shape [1, 3, 2], must be [batch, 2, 3]"),
        (np.full((1, 2, 3), 8, np.int8), "x.npy: input 'x': values 8..8, must be in -8..7 (s4)"),
        (np.zeros((0, 2, 3), np.int8), "x.npy: inputs: hold no sample, must hold at least one"),
        (
            np.zeros((1, 2, 3), complex),
            "x.npy: input 'x': holds complex128, must be floats (real values) or integers (stored values)",
        ),
    ],
)
def test_wrong_samples_are_one_clear_error(tmp_path: Path, array: np.ndarray, text: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ToolchainError) as error:
        inputs.read(graph("x"), tmp_path / "x.npy")
    assert str(error.value).removeprefix(f"{tmp_path}/") == text


@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00v\x00{'descr"])
def test_foreign_and_cut_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ToolchainError, match=r"x\.npy: is not an \.npy or \.npz file of numbers, or is cut short$"):
        inputs.read(graph("x"), tmp_path / "x.npy")


@pytest.mark.parametrize("damage", ["cut", "flipped", "pickled", "packed"])
def test_damaged_archives(tmp_path: Path, damage: str) -> None:
    """np.load reads the members of an .npz only when asked for them."""
    path, array = tmp_path / "x.npz", np.zeros((1, 2, 3), np.int64)
    if damage == "pickled":
        np.savez(path, x=np.array([{}], dtype=object))
    else:
        (np.savez_compressed if damage == "packed" else np.savez)(path, x=array)
        data = bytearray(path.read_bytes())
        if damage == "packed":
            data[40:80] = bytes(255 - v for v in data[40:80])
        else:
            data = data[: len(data) // 2] if damage == "cut" else data[:120] + bytes([data[120] ^ 255]) + data[121:]
        path.write_bytes(data)
    with pytest.raises(ToolchainError, match=r"x\.npz: is not an \.npy or \.npz file of numbers, or is cut short$"):
        inputs.read(graph("x"), path)


def test_the_ends_of_wide_types() -> None:
    """As a float64 the largest value of 63 bits is 2**63, which int64 does not hold."""
    real = np.array([1e30, -1e30, 2.0**63, 3.0])
    for bits, signed, expected in ((64, True, [(1 << 63) - 1, -(1 << 63), (1 << 63) - 1, 3]),
                                   (63, False, [(1 << 63) - 1, 0, (1 << 63) - 1, 3])):  # fmt: skip
        assert_array_equal(inputs.quantize(Tensor("x", (4,), QType(bits, signed)), real), expected)


def test_outputs_of_any_name_are_written(tmp_path: Path) -> None:
    given = {name: np.arange(3) for name in ("file", "allow_pickle", "args", "y")}
    files.write_npz(tmp_path / "y.npz", given)
    with np.load(tmp_path / "y.npz") as found:
        assert sorted(found.files) == sorted(given)
        for name in given:
            assert_array_equal(found[name], given[name])


def test_absent_file_and_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"x\.npy: does not exist, must be an \.npy or \.npz file$"):
        inputs.read(graph("x"), tmp_path / "x.npy")
    np.savez(tmp_path / "z.npz", z=np.zeros((1, 2, 3)))
    with pytest.raises(ToolchainError, match=r"/z\.npz: inputs: no input 'z', the graph has 'x'$"):
        inputs.read(graph("x"), tmp_path / "z.npz")
    np.save(tmp_path / "a.npy", np.zeros((1, 2, 3)))
    text = "is one array but the graph has the inputs x, y; give an .npz with an array for each"
    with pytest.raises(ToolchainError, match=re.escape(text) + "$"):
        inputs.read(graph("x", "y"), tmp_path / "a.npy")


def test_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([1, 2], np.uint8))
    assert_array_equal(inputs.read_labels(tmp_path / "y.npy", 2), [1, 2])
    np.savez(tmp_path / "n.npz")
    with pytest.raises(ToolchainError, match=r"n\.npz: holds 0 arrays, must hold one, a class for each sample$"):
        inputs.read_labels(tmp_path / "n.npz", 2)
    with pytest.raises(ToolchainError, match=r"holds uint8 \[2\], must be integers \[3\], a class for each sample$"):
        inputs.read_labels(tmp_path / "y.npy", 3)


def test_real_values_beyond_the_type_are_noted_and_integers_are_not(tmp_path: Path) -> None:
    notes: list[str] = []
    real = np.zeros((1, 2, 3))
    real[0, 0, 0] = 255.0
    np.save(tmp_path / "x.npy", real)
    inputs.read(graph("x"), tmp_path / "x.npy", notes)
    assert notes == ["16.7% of input x lies outside -2.25..1.5 and is clamped; is it normalised as in training?"]
    np.save(tmp_path / "y.npy", np.full((1, 2, 3), 1.5))  # the largest there is
    np.save(tmp_path / "z.npy", np.full((1, 2, 3), 7))
    for name in ("y.npy", "z.npy"):
        inputs.read(graph("x"), tmp_path / name, notes)
    assert len(notes) == 1


def test_truth_values_are_no_samples() -> None:
    with pytest.raises(
        ToolchainError, match=r"holds bool, must be floats \(real values\) or integers \(stored values\)$"
    ):
        inputs.stored(graph("x"), np.zeros((1, 2, 3), bool))


def test_samples_channels_first_are_taken_where_the_model_has_them_so() -> None:
    b = GraphBuilder("image")
    b.output(b.argmax(b.input("x", (4, 5, 3), QType(8, True)), "y"))
    known = replace(b.graph(), notes=(channels_first_note("x"),))
    x = np.arange(120).reshape(2, 4, 5, 3) % 100
    for given in (x, x.transpose(0, 3, 1, 2)):
        assert_array_equal(inputs.stored(known, given)["x"], x)
    assert_array_equal(inputs.stored(known, x[0].transpose(2, 0, 1))["x"], x[:1])
    with pytest.raises(ToolchainError, match=r"shape \[2, 3, 4, 5\], must be \[batch, 4, 5, 3\]$"):
        inputs.stored(b.graph(), x.transpose(0, 3, 1, 2))  # this model has channels last
    with pytest.raises(ToolchainError, match=r"must be \[batch, 4, 5, 3\]$"):
        inputs.stored(known, x.transpose(0, 2, 1, 3))


def test_where_both_orders_have_one_shape_the_order_must_be_said(tmp_path: Path) -> None:
    b = GraphBuilder("square")
    b.output(b.argmax(b.input("x", (3, 3), QType(8, True, Fraction(1, 4))), "y"))
    known = replace(b.graph(), notes=(channels_first_note("x"),))
    x = np.arange(18).reshape(2, 3, 3) / 4
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ToolchainError) as raised:
        inputs.read(known, tmp_path / "x.npy")
    assert str(raised.value) == (
        f"{tmp_path / 'x.npy'}: input 'x': shape [2, 3, 3] may be channels first, as the model has it, or last; say which: "
        "--channels first or --channels last (in Python inputs.stored(graph, x, channels='first'))"
    )
    last = np.arange(18).reshape(2, 3, 3)
    assert_array_equal(inputs.read(known, tmp_path / "x.npy", channels="last")["x"], last)
    assert_array_equal(inputs.read(known, tmp_path / "x.npy", channels="first")["x"], last.transpose(0, 2, 1))
    assert_array_equal(inputs.stored(known, last)["x"], last)  # integers are the graph's own


def test_values_that_float32_puts_into_the_next_step_are_counted(tmp_path: Path) -> None:
    scale = Fraction(float(np.float32(0.1)))  # 0.75 is below 7.5 steps, and in float32 it is 7.5
    b = GraphBuilder("edge")
    b.output(b.argmax(b.input("x", (3,), QType(8, False, scale)), "y"))
    np.save(tmp_path / "x.npy", np.array([[0.75, 0.5, 0.1]], np.float32))
    notes: list[str] = []
    inputs.read(b.graph(), tmp_path / "x.npy", notes, edges=True)
    (note,) = notes
    assert note.startswith("1 of 3 values of input x lie so near the edge of a step that float32 takes the next one")
    np.save(tmp_path / "x.npy", np.array([[0.2, 0.4, 0.1]], np.float32))
    inputs.read(b.graph(), tmp_path / "x.npy", none := [], edges=True)
    assert none == []
