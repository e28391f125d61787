"""verify: equal where it is equal, the first difference located where it is not, one clear error without the framework."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests import qkeras_env
from toolchain import cli, flow, inputs, report, verify
from toolchain.errors import ToolchainError
from toolchain.frontends import qkeras
from toolchain.ir import Graph, QType, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.types import Const
from toolchain.options import LoadOptions
from toolchain.reference import trace

DIGITS = qkeras_env.ROOT / "examples" / "digits" / "model.h5"


def told(graph: Graph, stored: dict[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """What a framework that is right would say."""
    values = trace(graph, stored)
    outputs = [op.output for op in graph.ops]
    return {t.name: (f"layer_{t.name}", inputs.dequantize(t, values[t.name]).astype(np.float32)) for t in outputs}


def corrupted(graph: Graph) -> Graph:
    """One weight of conv2 one step off."""
    changed = []
    for op in graph.ops:
        if isinstance(op, ops.Conv2D) and op.output.name == "conv2":
            w = op.weight.array.copy()
            w[3, 1, 1, 2] += 1 if w[3, 1, 1, 2] < 7 else -1
            op = replace(op, weight=Const.of(op.weight.tensor.name, w, op.weight.tensor.qtype))
        changed.append(op)
    return replace(graph, ops=tuple(changed))


def test_equal_is_equal_and_a_corrupted_weight_is_located() -> None:
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 16)
    right = told(graph, stored)
    found = verify.compare(graph, stored, right)
    assert found.equal and found.first is None and len(found.tensors) == len(graph.ops)
    assert found.not_compared == ("image",)
    wrong = verify.compare(corrupted(graph), stored, right)
    first = wrong.first
    assert not wrong.equal and first is not None and first.first is not None
    assert (first.tensor, first.layer) == ("conv2", "layer_conv2")
    at = first.first
    assert at.index[-1] == 3  # the channel of the weight
    assert at.framework != at.graph and at.framework_real == right["conv2"][1][at.index]
    text = json.loads(json.dumps(wrong.as_json()))
    assert text["equal"] is False and text["tensors"][3]["first"]["index"] == list(at.index)


def test_values_between_two_steps_are_off_the_grid() -> None:
    """A framework that computes 3.4 steps where the graph says 3 is not equal, though it rounds to the same integer."""
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 2)
    right = told(graph, stored)
    layer, real = right["logits"]
    shifted = real.copy()
    shifted[1, 4] += 0.4 * float(graph.outputs[0].qtype.scales[0])
    found = verify.compare(graph, stored, {**right, "logits": (layer, shifted)})
    assert not found.equal
    assert found.first is not None and found.first.first is not None
    assert (found.first.tensor, found.first.differ, found.first.off_grid) == ("logits", 0, 1)
    assert found.first.first.index == (1, 4)


def test_only_what_float32_cannot_hold_is_owed_to_it() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", (1,), QType(28, True))
    b.output(b.reshape(x, (1, 1), "y"))
    graph = b.graph()
    stored = {"x": np.array([[1 << 26], [100]])}
    one_off = np.array([[[(1 << 26) + 1]], [[100]]], np.float64)
    found = verify.compare(graph, stored, {"y": ("y", one_off)})
    assert (found.equal, found.owed_to_float32, found.tensors[0].differ) == (True, 1, 1)
    far_off = np.array([[[(1 << 26) + 100]], [[100]]], np.float64)
    found = verify.compare(graph, stored, {"y": ("y", far_off)})
    assert (found.equal, found.owed_to_float32, found.tensors[0].differ) == (False, 0, 1)
    small = {"x": np.array([[1 << 22], [100]])}
    found = verify.compare(graph, small, {"y": ("y", np.array([[[(1 << 22) + 1]], [[100]]], np.float64))})
    assert (found.equal, found.owed_to_float32, found.tensors[0].differ) == (False, 0, 1)


def test_a_framework_of_another_shape_is_named() -> None:
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 2)
    with pytest.raises(ToolchainError) as e:
        verify.compare(graph, stored, {"logits": ("logits", np.zeros((2, 9)))})
    assert str(e.value) == "layer logits: the framework gives [2, 9], the graph [2, 10]"


def test_equal_is_never_said_of_nothing() -> None:
    """No tensor to compare, values between the integers, and NaN, which equals nothing."""
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 2)
    for given, text in (
        ({}, f"graph {graph.name}: the framework shows none of its tensors, so nothing was compared"),
        ({"logits": ("l", np.full((2, 10), np.nan))}, "layer l: the framework gives NaN or infinity; verify with other inputs"),
    ):  # fmt: skip
        with pytest.raises(ToolchainError) as e:
            verify.compare(graph, stored, given)
        assert str(e.value) == text
    layer, real = told(graph, stored)["logits"]
    scale = float({t.name: t for t in graph.outputs}["logits"].qtype.scales[0])
    found = verify.compare(graph, stored, {"logits": (layer, real + 0.375 * scale)})
    assert found.tensors[0].differ == 0 and found.tensors[0].residue == 0.375
    assert not found.equal and found.as_json()["equal"] is False
    console = Console(record=True, width=160, file=io.StringIO())
    report.verification(console, found)
    said = console.export_text()
    assert (
        "is no whole number of steps, off by up to 0.375" in said
        and "\nnot equal: " in said
        and "\nequal: " not in said
    )


def test_the_inputs_are_normalised_as_the_options_say() -> None:
    options = LoadOptions((8, False), Fraction(1, 255), 0, (Fraction(1, 10),), (Fraction(1, 2),))
    graph = qkeras.load(DIGITS, options)
    real = verify.real_inputs(graph, {"image": np.full((1, 8, 8, 1), 51)}, options)
    np.testing.assert_array_equal(real["image"], np.full((1, 8, 8, 1), np.float32((51 / 255 - 0.1) / 0.5)))


def test_the_command_runs_the_framework(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    qkeras_env.need("qkeras-0.9")
    assert cli.main(["verify", str(DIGITS), "--json", str(tmp_path / "v.json")]) == 0
    found = json.loads((tmp_path / "v.json").read_text())
    assert found["equal"] is True and {t["tensor"] for t in found["tensors"]} >= {"conv1", "relu2", "logits"}
    assert "first difference" not in capsys.readouterr().out


def test_a_front_end_without_a_framework_says_so(tmp_path: Path) -> None:
    path = tmp_path / "g.graph"
    path.write_text("x")
    graph = qkeras.load(DIGITS, LoadOptions())
    with pytest.raises(ToolchainError) as e:
        flow.verify(path, graph, inputs.made_up(graph, 1))
    assert str(e.value) == f"{path}: no framework to compare with: its front end runs none; verify a QKeras model"
