"""docs/extending.md, run: its files written into a copy of the checkout, its commands typed there, each integer compared.

Files and commands are taken from the page as they stand, so the page cannot rot.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import pages
from tests.pages import needs, needs_compiler
from toolchain import boards, flow, forms, inputs, protocol, reference
from toolchain.ir import parse

PAGE = pages.ROOT / "docs" / "extending.md"
HEADINGS = ("A model to try things on", "A board", "A front end", "A back end", "A link", "A kernel")


class Checkout(pages.Checkout):
    """With the page's files of some sections; the commands are the last one's."""

    def __init__(self, root: Path, *headings: str) -> None:
        found = pages.sections(PAGE)
        super().__init__(root, [found[heading] for heading in (HEADINGS[0], *headings)])


def assert_exact(measured: dict[str, Any], board: str) -> None:
    assert measured["board"] == board
    assert measured["bit_exact"] is True
    assert measured["first_difference"] is None
    assert measured["outputs_compared"] > 0


def test_every_section_is_run() -> None:
    assert tuple(pages.sections(PAGE)) == HEADINGS


def test_a_board(tmp_path: Path) -> None:
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    checkout = Checkout(tmp_path, "A board")
    listed, built, _ = checkout.run_all()
    assert "nucleo_f411re" in listed
    assert "small_m4" in listed
    assert "of 524,288 bytes" in built
    measured = checkout.json("small_m4.json")
    assert_exact(measured, "small_m4")
    assert measured["count"]["min"] == measured["count"]["max"] > 0


TINY_ROWS = 400


def tiny_by_hand(model: dict[str, Any], rows: list[list[int]]) -> list[list[int]]:
    """The real meaning of the page's JSON in exact fractions, rounded half to even: no code of ours but the samples."""
    answers = []
    for row in rows:
        x, scale = [Fraction(v) * Fraction(model["scale"]) for v in row], Fraction(model["scale"])
        for layer in model["layers"]:
            step = Fraction(layer["scale"])
            weight_scale = Fraction(layer["weight_scale"])
            sums = [
                sum(a * w for a, w in zip(x, weights, strict=True)) * weight_scale + b * scale * weight_scale
                for weights, b in zip(layer["weight"], layer["bias"], strict=True)
            ]
            bits = layer["bits"]
            low, high = (0, 2**bits - 1) if layer["relu"] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            stored = [min(max(round(s / step), low), high) for s in sums]  # Python's round is half to even
            x, scale = [v * step for v in stored], step
        answers.append(stored)
    return answers


def test_a_front_end(tmp_path: Path) -> None:
    needs_compiler("host", "host")
    checkout = Checkout(tmp_path, "A front end")
    inspected, _, _ = checkout.run_all()
    assert "graph tiny" in inspected
    assert_exact(checkout.json("tiny_measured.json"), "native")
    rng = np.random.default_rng(5)
    rows = rng.integers(-128, 127, (TINY_ROWS, 4), endpoint=True)
    np.save(tmp_path / "x.npy", rows)
    checkout.run("bitwright simulate tiny.json --inputs x.npy --out y.npz")
    with np.load(tmp_path / "y.npz") as saved:
        answered = saved["y1"]
    expected = tiny_by_hand(checkout.json("tiny.json"), rows.tolist())
    assert len({tuple(row) for row in expected}) > 50
    assert_array_equal(answered, expected)


def test_a_front_end_names_what_is_no_model(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "A front end")
    (tmp_path / "broken.json").write_text('{"inputs": 4}')
    with pytest.raises(
        AssertionError, match=r"error: broken\.json: is not a model of dense layers: KeyError\('scale'\)"
    ):
        checkout.run("bitwright inspect broken.json")


def test_a_back_end(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "A front end", "A back end")
    _, shown = checkout.run_all()
    rows = np.random.default_rng(6).integers(-128, 127, (TINY_ROWS, 4), endpoint=True)
    rows[0] = [1, -2, 3, 127]
    np.save(tmp_path / "x.npy", rows)
    checkout.run("bitwright simulate tiny.json --inputs x.npy --out y.npz")
    with np.load(tmp_path / "y.npz") as saved:
        expected = saved["y1"]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"x": row}) + "\n" for row in rows.tolist()))
    lines = checkout.run("python3 out/python/model.py < x.jsonl").splitlines()
    assert_array_equal([json.loads(line)["y1"] for line in lines], expected)
    assert json.loads(shown)["y1"] == expected[0].tolist()


def test_a_back_end_refuses_by_name(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "A back end")
    text = r"error: conv2d %acc: is not known to the python back end; known: dense, requantize, threshold"
    with pytest.raises(AssertionError, match=text):
        checkout.run("bitwright emit pointwise.graph --board python --out out/python")
    assert not (tmp_path / "out").exists()


def test_a_link(tmp_path: Path) -> None:
    needs_compiler("host", "host")
    checkout = Checkout(tmp_path, "A link")
    checkout.run_all()
    assert_exact(checkout.json("recorded.json"), "recorded")
    frames: dict[str, list[protocol.Frame]] = {">": [], "<": []}
    decoders = {way: protocol.Decoder() for way in frames}
    for line in (tmp_path / "out/recorded/wire.txt").read_text().splitlines():
        way, _, data = line.partition(" ")
        frames[way] += decoders[way].feed(bytes.fromhex(data))
    assert [d.rejected for d in decoders.values()] == [0, 0]
    graph = parse((tmp_path / "pointwise.graph").read_text())
    samples = inputs.made_up(graph, 16)
    sent = [f for f in frames[">"] if f.type == protocol.Message.WRITE]
    assert [f.payload[protocol.WRITE_REQUEST.size :] for f in sent] == [
        row.astype(np.uint8).tobytes() for row in samples["x"]
    ]
    got = [f.payload for f in frames["<"] if f.type == protocol.Message.READ | protocol.REPLY]
    expected = reference.simulate(graph, samples)[0]["y"]
    assert_array_equal([np.frombuffer(data, np.int8).reshape(3, 4, 7) for data in got], expected)


def test_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler("host", "host")
    needs_compiler("arm", "cortex-m3")
    needs("qemu-system-arm")
    checkout = Checkout(tmp_path, "A kernel")
    _, call, _, _ = checkout.run_all()
    assert "    nn_conv_1x1(in->x," in call
    assert_exact(checkout.json("native.json"), "native")
    special = checkout.json("m3.json")
    assert_exact(special, "qemu_mps2_an385")
    graph = parse((tmp_path / "pointwise.graph").read_text())
    monkeypatch.setattr(forms, "FAMILIES", ())  # which are faster than the example
    general = flow.measure(graph, boards.load("qemu_mps2_an385"), inputs.made_up(graph, 16))
    assert general.count is not None
    assert special["graph"] == general.graph
    assert special["count"]["median"] < general.count.median
