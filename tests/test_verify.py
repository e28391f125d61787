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
from toolchain import framework as fw
from toolchain.errors import ToolchainError
from toolchain.frontends import qkeras
from toolchain.ir import Graph, QType, exact, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.types import Const
from toolchain.options import LoadOptions
from toolchain.reference import trace

DIGITS = qkeras_env.ROOT / "examples" / "digits" / "model.h5"


def told(graph: Graph, stored: dict[str, np.ndarray]) -> dict[str, fw.Shown]:
    """What a framework that is right would say."""
    values = trace(graph, stored)
    reals = {t.name: inputs.dequantize(t, values[t.name]).astype(np.float32) for t in (op.output for op in graph.ops)}
    return {name: fw.Shown(name, f"layer_{name}", real) for name, real in reals.items()}


def shown(name: str, real: np.ndarray) -> list[fw.Shown]:
    return [fw.Shown(name, name, real)]


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
    found = verify.compare(graph, stored, right.values())
    assert found.equal and found.first is None and len(found.tensors) == len(graph.ops)
    assert found.not_compared == ("image",)
    wrong = verify.compare(corrupted(graph), stored, right.values())
    first = wrong.first
    assert not wrong.equal and first is not None and first.first is not None
    assert (first.tensor, first.layer) == ("conv2", "layer_conv2")
    at = first.first
    assert at.index[-1] == 3  # the channel of the weight
    assert at.framework != at.graph and at.framework_real == right["conv2"].real[at.index]
    text = json.loads(json.dumps(wrong.as_json()))
    assert text["causes"]["unexplained"] > 0 == text["causes"]["float32_tie"]
    assert text["equal"] is False and text["tensors"][3]["first"]["index"] == list(at.index)


def test_values_between_two_steps_are_off_the_grid() -> None:
    """A framework that computes 3.4 steps where the graph says 3 is not equal, though it rounds to the same integer."""
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 2)
    right = told(graph, stored)
    shifted = right["logits"].real.copy()
    shifted[1, 4] += 0.4 * float(graph.outputs[0].qtype.scales[0])
    found = verify.compare(graph, stored, {**right, "logits": replace(right["logits"], real=shifted)}.values())
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
    found = verify.compare(graph, stored, shown("y", one_off))
    assert (found.equal, found.causes["float32_range"], found.tensors[0].differ) == (True, 1, 1)
    far_off = np.array([[[(1 << 26) + 100]], [[100]]], np.float64)
    found = verify.compare(graph, stored, shown("y", far_off))
    assert (found.equal, found.causes["float32_range"], found.tensors[0].differ) == (False, 0, 1)
    small = {"x": np.array([[1 << 22], [100]])}
    found = verify.compare(graph, small, shown("y", np.array([[[(1 << 22) + 1]], [[100]]], np.float64)))
    assert (found.equal, found.causes["float32_range"], found.tensors[0].differ) == (False, 0, 1)


# --- what float32 rounds the other way: a dense layer of 27 terms with an odd scale, and a 6-bit relu ----------------

ODD = Fraction(float(np.float32(0.0123456)))


def rounding_graph(scale: Fraction = ODD, seed: int = 0) -> Graph:
    """dense -> requantize to s6 in steps of 1/16 -> threshold to -1, 0, 1 -> reshape."""
    b = GraphBuilder("rounding")
    x = b.input("x", (27,), QType(8, True, Fraction(1, 128)))
    w = np.random.default_rng(seed).integers(-15, 16, (5, 27))
    acc = b.dense(x, b.const("w", w, scale, bits=6), None, "acc")
    slope = acc.qtype.scales[0] * 16
    y = exact.affine(b, acc, QType(6, True, Fraction(1, 16)), [slope], [Fraction(0)], ops.Rounding.HALF_EVEN, "y")
    z = b.threshold(y, QType(2, True), [[-3, 1]], [[-1, 0, 1]], "z")
    b.output(b.reshape(z, (5, 1), "out"))
    return b.graph()


def relu(x: np.ndarray) -> np.ndarray:
    """The framework's quantizer of y."""
    return np.asarray(np.clip(np.rint(x * np.float32(16)), -32, 31) / 16, np.float32)


def ternary(x: np.ndarray) -> np.ndarray:
    """The framework's quantizer of z, on multiples of 1/16."""
    return np.where(x * 16 >= 1, 1, np.where(x * 16 < -3, -1, 0)).astype(np.float32)


def framework(graph: Graph, x: np.ndarray, push: dict[tuple[int, int], float] | None = None) -> list[fw.Shown]:
    """What a framework shows that holds sums in float32, each of `push` off by so much (in steps of 1/16)."""
    values = trace(graph, {"x": x})
    tensors = {op.output.name: op.output for op in graph.ops}
    exactly = inputs.dequantize(tensors["acc"], values["acc"])
    acc = exactly.astype(np.float32)
    for at, by in (push or {}).items():
        acc[at] = exactly[at] + by / 16
    y = relu(acc)
    z = ternary(y)
    made_y = fw.Rounded("acc", fw.PLAIN, acc, relu)
    made_z = fw.Rounded("y", fw.PLAIN, y, ternary)
    return [
        fw.Shown("acc", "dense", acc),
        fw.Shown("y", "relu", y, rounded=made_y),
        fw.Shown("z", "ternary", z, rounded=made_z),
        fw.Shown("out", "flat", z.reshape(-1, 5, 1)),
    ]


def near_tie(graph: Graph, x: np.ndarray) -> tuple[tuple[int, int], float]:
    """The sum that lies nearest to a rounding boundary, and by how many steps of 1/16."""
    acc = inputs.dequantize(graph.ops[0].output, trace(graph, {"x": x})["acc"]) * 16
    edge = np.floor(acc) + 0.5
    distance = np.where(np.abs(acc) < 30, np.abs(acc - edge), np.inf)
    at = np.unravel_index(int(np.argmin(distance)), distance.shape)
    return (int(at[0]), int(at[1])), float((edge - acc)[at])


def samples(count: int = 4000) -> np.ndarray:
    return np.random.default_rng(1).integers(-128, 128, (count, 27))


def test_a_tie_that_float32_rounds_the_other_way_is_explained_and_what_it_causes_follows() -> None:
    graph, x = rounding_graph(), samples()
    at, by = near_tie(graph, x)  # between 0 and 1, where z turns too
    assert 0 < by < 4e-6
    found = verify.compare(graph, {"x": x}, framework(graph, x, {at: by + 1e-6}))
    assert found.equal and found.causes == {"follows": 2, "float32_tie": 1, "float32_range": 0, "unexplained": 0}
    y = next(t for t in found.tensors if t.tensor == "y")
    assert y.float32_tie == y.differ == y.largest == 1 and y.first is not None and y.first.index == at
    console = Console(record=True, width=160, file=io.StringIO())
    report.verification(console, found)
    said = console.export_text()
    assert "equal but for 1 that float32 rounds the other way (and 2 that follow): " in said
    assert "not compared: x" in said and "% of argmax are equal" in said and "99.99" in said


def test_what_is_further_from_the_boundary_than_float32s_noise_is_unexplained() -> None:
    graph, x = rounding_graph(), samples(10)
    at, by = near_tie(graph, x)
    assert abs(by) > 1e-3  # the noise of these sums is 1e-5
    found = verify.compare(graph, {"x": x}, framework(graph, x, {at: by * 1.01}))
    assert not found.equal and found.first is not None
    assert found.tensors[1].tensor == "y" and found.tensors[1].unexplained == 1 and not found.causes["float32_tie"]


def test_exact_sums_have_no_ties() -> None:
    """With power-of-two scales float32 is exact, so one bit off is no noise."""
    graph, x = rounding_graph(Fraction(1, 512)), samples()
    at, by = near_tie(graph, x)
    assert abs(by) < 1e-3
    found = verify.compare(graph, {"x": x}, framework(graph, x, {at: by + np.sign(by or 1) * 2e-6}))
    assert found.causes["float32_tie"] == 0 and not found.equal


def altered(graph: Graph, name: str, **change: object) -> Graph:
    return replace(graph, ops=tuple(replace(op, **change) if op.output.name == name else op for op in graph.ops))


@pytest.mark.parametrize("scale", [ODD, Fraction(1, 64)])
def test_a_corrupted_weight_multiplier_or_threshold_is_never_explained(scale: Fraction) -> None:
    graph, x = rounding_graph(scale), samples()
    right = framework(graph, x)
    assert verify.compare(graph, {"x": x}, right).causes["unexplained"] == 0
    dense, requantize, threshold = graph.ops[:3]
    assert isinstance(dense, ops.Dense) and isinstance(requantize, ops.Requantize)
    assert isinstance(threshold, ops.Threshold)
    w = dense.weight.array.copy()
    w[2, 3] += 1
    edges = threshold.thresholds.array + np.array([[0, 1]])
    m, o = requantize.multiplier[0], requantize.offset[0]
    moved = next(  # the least change of the offset that moves a step of these samples
        altered(graph, "y", offset=(o + by,))
        for by in (1 << k for k in range(60))
        if (trace(altered(graph, "y", offset=(o + by,)), {"x": x})["y"] != trace(graph, {"x": x})["y"]).any()
    )
    factor = next(
        altered(graph, "y", multiplier=(m + by,))
        for by in (1 << k for k in range(40))
        if (trace(altered(graph, "y", multiplier=(m + by,)), {"x": x})["y"] != trace(graph, {"x": x})["y"]).any()
    )
    for wrong, tensor in (
        (altered(graph, "acc", weight=Const.of("w", w, dense.weight.tensor.qtype)), "acc"),
        (moved, "y"),
        (factor, "y"),
        (altered(graph, "z", thresholds=Const.of("t", edges, threshold.thresholds.tensor.qtype)), "z"),
    ):
        found = verify.compare(wrong, {"x": x}, right)
        assert not found.equal and found.first is not None and found.first.tensor == tensor
        assert found.first.unexplained > 0 == found.causes["float32_tie"]


def test_a_framework_of_another_shape_is_named() -> None:
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 2)
    with pytest.raises(ToolchainError) as e:
        verify.compare(graph, stored, shown("logits", np.zeros((2, 9))))
    assert str(e.value) == "layer logits: the framework gives [2, 9], the graph [2, 10]"


def test_equal_is_never_said_of_nothing() -> None:
    """No tensor to compare, values between the integers, and NaN, which equals nothing."""
    graph = qkeras.load(DIGITS, LoadOptions())
    stored = inputs.made_up(graph, 2)
    for given, text in (
        ([], f"graph {graph.name}: the framework shows none of its tensors, so nothing was compared"),
        (
            [told(graph, stored)["conv2"]],
            "graph output logits: the framework does not show it, so it was not compared",
        ),
        (shown("logits", np.full((2, 10), np.nan)), "layer logits: the framework gives NaN or infinity; verify with other inputs"),
    ):  # fmt: skip
        with pytest.raises(ToolchainError) as e:
            verify.compare(graph, stored, given)
        assert str(e.value) == text
    real = told(graph, stored)["logits"].real
    scale = float({t.name: t for t in graph.outputs}["logits"].qtype.scales[0])
    found = verify.compare(graph, stored, shown("logits", real + 0.375 * scale))
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


def test_an_output_aligned_from_mixed_scales_is_compared_and_its_corruption_found() -> None:
    """alpha="auto" and a bias: the output is a tensor of its own, which no layer of the framework holds as integers."""
    qkeras_env.need("qkeras-0.9")
    import qkeras as q
    from tensorflow.keras.layers import Input
    from tensorflow.keras.models import Model

    def bits(n: int, **more: object) -> object:
        return q.quantized_bits(n, 0, 1, **more)

    i = Input((16,))
    x = q.QActivation(bits(8, alpha=1), name="in")(i)
    x = q.QDense(12, kernel_quantizer=bits(5, alpha="auto"), bias_quantizer=bits(6, alpha=1),
                 activation=q.quantized_relu(6, 1), name="hidden")(x)  # fmt: skip
    x = q.QDense(3, kernel_quantizer=bits(5, alpha="auto"), bias_quantizer=bits(6, alpha=1), name="last")(x)
    model = Model(i, x)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(-0.9, 0.9, w.shape) for w in model.get_weights()])
    graph = flow.load(model)
    stored = inputs.made_up(graph, 64)
    found = flow.verify(model, graph, stored)
    assert found.equal and [t.tensor for t in found.tensors][-2:] == ["last", "last_out"]
    assert [o.tensor for o in found.outputs] == ["last_out"] and found.outputs[0].argmax_equal == 1
    last = graph.ops[-1]
    assert isinstance(last, ops.Requantize)
    wrong = altered(graph, "last_out", multiplier=(*last.multiplier[:2], last.multiplier[2] * 17 // 16))
    first = flow.verify(model, wrong, stored).first
    assert first is not None and first.tensor == "last_out"
    hidden = next(op for op in graph.ops if op.output.name == "hidden")
    assert isinstance(hidden, ops.Requantize)
    wrong = altered(graph, "hidden", multiplier=tuple(m + m // 64 for m in hidden.multiplier))
    assert (trace(wrong, stored)["hidden"] != trace(graph, stored)["hidden"]).any()
    first = flow.verify(model, wrong, stored).first
    assert first is not None and first.tensor == "hidden" and first.unexplained


def test_a_front_end_without_a_framework_says_so(tmp_path: Path) -> None:
    path = tmp_path / "g.graph"
    path.write_text("x")
    graph = qkeras.load(DIGITS, LoadOptions())
    with pytest.raises(ToolchainError) as e:
        flow.verify(path, graph, inputs.made_up(graph, 1))
    assert (
        str(e.value)
        == f"{path}: no framework to compare with: its front end runs none; verify a QKeras, Brevitas or ONNX model"
    )
