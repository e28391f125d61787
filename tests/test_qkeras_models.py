"""Whole QKeras models against live predict, in both frameworks: every layer kind with every quantizer, integers compared.

The quick run takes a model of most pairs, mostly eagerly; BITWRIGHT_FULL=1 takes 200 of each, compiled (about two
hours a framework on an idle core). What a run never met (ties of both signs, saturation) it has not tested, so that is counted and asserted too.
"""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import qkeras_env
from toolchain import inputs
from toolchain.errors import ToolchainError
from toolchain.frontends import qkeras
from toolchain.ir import Graph, ops
from toolchain.options import LoadOptions
from toolchain.reference import simulate, trace

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
MODELS, DRAWS = (10, 20) if FULL else (1, 1)
DIGITS = qkeras_env.ROOT / "examples" / "digits"


@pytest.mark.parametrize("framework", ["qkeras-0.9", "qkeras-v3"])
def test_every_pair_equals_predict(framework: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    which = () if FULL else ("quick",)
    qkeras_env.run(
        framework, "qkeras_models.py", str(out), str(MODELS), str(DRAWS), *which, timeout=12 * 3600 if FULL else 3600
    )
    report = json.loads(out.read_text())
    assert {pair: r["failure"] for pair, r in report.items() if "failure" in r} == {}
    assert len(report) > (150 if FULL else 80)
    total = {key: sum(r[key] for r in report.values()) for key in next(iter(report.values()))}
    assert total["models"] == MODELS * DRAWS * len(report)
    assert total["noted"] < total["models"] / 20
    assert total["differ"] < total["values"] * 1e-4  # float32 beside a tie, where a scale is no power of two
    assert min(total[k] for k in ("tie_up", "tie_down", "clamped")) > 1000, total
    if FULL:
        weighted = {p: r for p, r in report.items() if "-" in p and not p.startswith("QActivation")}
        never = [p for p, r in weighted.items() if not (r["tie_up"] and r["tie_down"] and r["clamped"])]
        assert all("auto" in p or "atchnorm" in p for p in never), never


def test_a_corrupted_weight_is_seen(tmp_path: Path) -> None:
    """The comparison has teeth: one weight of the digits model moved by one step changes what simulate says."""
    given = np.load(DIGITS / "test.npz")
    images = given["images"].reshape(-1, 8, 8, 1).astype(np.int64)
    path = tmp_path / "model.h5"
    path.write_bytes((DIGITS / "model.h5").read_bytes())
    assert (logits(path, images) == given["qkeras_logits"]).all()
    with h5py.File(path, "r+") as f:
        kernel = f["model_weights/logits/logits/kernel:0"]
        kernel[3, 2] = kernel[3, 2] + (0.125 if kernel[3, 2] < 0 else -0.125)
    assert (logits(path, images) != given["qkeras_logits"]).any()


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    graph = qkeras.load(path, LoadOptions())
    out, _ = simulate(graph, {graph.inputs[0].name: images})
    return inputs.dequantize(graph.outputs[0], out[graph.outputs[0].name])


# --- an oracle of its own for sums that float32 cannot hold -------------------------------------------------------------


def wide_model(rng: np.random.Generator, path: Path, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """A dense model with `bits`-bit inputs and weights, written as Keras 2 writes it: sums far beyond float32's 24 bits."""
    n, out = int(rng.integers(30, 80)), 5
    w = rng.uniform(-1, 1, (n, out)).astype(np.float32)
    b = rng.uniform(-1, 1, out).astype(np.float32)
    q = {"class_name": "quantized_bits", "config": {"bits": bits, "integer": 0, "alpha": 1.0}}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, n]}, "inbound_nodes": []},
        {
            "class_name": "QActivation",
            "config": {"name": "q", "activation": f"quantized_bits({bits},0,alpha=1.0)"},
            "inbound_nodes": [[["x", 0, 0, {}]]],
        },
        {
            "class_name": "QDense",
            "config": {"name": "d", "kernel_quantizer": q, "bias_quantizer": q, "use_bias": True},
            "inbound_nodes": [[["q", 0, 0, {}]]],
        },
        {
            "class_name": "QActivation",
            "config": {"name": "y", "activation": "quantized_bits(12,3,1,alpha=1.0)"},
            "inbound_nodes": [[["d", 0, 0, {}]]],
        },
    ]
    for layer in layers:
        layer["name"] = layer["config"]["name"]  # type: ignore[index]
    config = {
        "name": "wide",
        "layers": layers,
        "input_layers": [["x", 0, 0]],
        "output_layers": [["d", 0, 0], ["y", 0, 0]],
    }
    with h5py.File(path, "w") as f:
        f.attrs["keras_version"] = "2.21.0"
        f.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        for layer in layers:
            g = f.create_group(f"model_weights/{layer['name']}")
            names = [b"d/kernel:0", b"d/bias:0"] if layer["name"] == "d" else []
            g.attrs["weight_names"] = np.array(names, dtype="S16")
        f["model_weights/d/d/kernel:0"] = w
        f["model_weights/d/d/bias:0"] = b
    return w, b


def nearest(x: Fraction, step: Fraction, lo: int, hi: int) -> int:
    """QKeras' rule from its own page: round half to even in units of the step, then clip. Python's round is half to even."""
    return min(max(round(x / step), lo), hi)


@pytest.mark.parametrize("bits", [13, 14, 16])
def test_sums_beyond_float32_equal_exact_fractions(tmp_path: Path, bits: int) -> None:
    rng = np.random.default_rng(bits)
    top = 2 ** (bits - 1)
    step = Fraction(1, top)
    widest = 0
    for number in range(8):
        w, b = wide_model(rng, tmp_path / "wide.h5", bits)
        graph = qkeras.load(tmp_path / "wide.h5", LoadOptions())
        x = rng.integers(-top, top, (8, len(w)))
        x[0], x[1] = top - 1, -top
        ours, _ = simulate(graph, {"x": x})
        quantized = [[nearest(Fraction(float(v)), step, -top, top - 1) for v in row] for row in w]
        offsets = [nearest(Fraction(float(v)), step, -top, top - 1) * step for v in b]
        for row in range(len(x)):
            for o in range(w.shape[1]):
                total = sum((int(x[row, i]) * quantized[i][o] for i in range(len(w))), 0) * step * step + offsets[o]
                widest = max(widest, abs(int(total / step / step)).bit_length())
                d = Fraction(int(ours["d"][row, o])) * graph.outputs[0].qtype.scales[0]
                assert d == total, (number, row, o)
                y = nearest(total, Fraction(1, 256), -2047, 2047)
                assert int(ours["y"][row, o]) == y, (number, row, o)
    assert widest > 24


# --- the input edge -------------------------------------------------------------------------------------------------------


def test_a_camera_is_requantized_on_the_device() -> None:
    """uint8 pixels with mean and std, as Fractions: (u8 / 255 - mean) / std through the model's own input quantizer."""
    options = LoadOptions((8, False), Fraction(1, 255), 0, (Fraction(1, 10),), (Fraction(1, 2),))
    graph = qkeras.load(DIGITS / "model.h5", options)
    assert graph.inputs[0].qtype.text == "u8" and graph.inputs[0].qtype.scale == Fraction(1, 255)
    pixels = np.arange(256, dtype=np.int64).reshape(4, 8, 8, 1)
    values = trace(graph, {graph.inputs[0].name: pixels})
    first = graph.ops[0]
    assert isinstance(first, (ops.Requantize, ops.Lookup, ops.Threshold))
    expected = [min(max(round((Fraction(p, 255) - Fraction(1, 10)) / Fraction(1, 2) * 16), 0), 31) for p in range(256)]
    np.testing.assert_array_equal(values[first.output.name].reshape(-1), expected)


def test_options_that_do_not_fit_the_input() -> None:
    with pytest.raises(ToolchainError) as e:
        qkeras.load(DIGITS / "model.h5", LoadOptions((8, False), Fraction(1, 255), 0, (Fraction(0),) * 3))
    assert str(e.value) == "--input-mean: has 3 values, must have 1 or 1 for input image"


def kinds(graph: Graph) -> list[str]:
    return [type(op).__name__ for op in graph.ops]


def test_the_digits_graph_has_no_superfluous_op() -> None:
    graph = qkeras.load(DIGITS / "model.h5", LoadOptions())
    expected = ["Conv2D", "Requantize", "MaxPool", "Conv2D", "Requantize", "MaxPool", "Reshape", "Dense"]
    assert kinds(graph) == expected
