"""Saved and live models read into one neutral description: every weight by name against the live model; bad files, one error each."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import qkeras_env
from toolchain.errors import ToolchainError
from toolchain.frontends import qkeras
from toolchain.frontends.qkeras import archive
from toolchain.options import LoadOptions

DIGITS = qkeras_env.ROOT / "examples" / "digits" / "model.h5"
SAVE = "save the whole model with model.save('name.h5') (QKeras 0.9, tf_keras) or model.save('name.keras') (qkeras-v3)"


@pytest.mark.parametrize("framework", ["qkeras-0.9", "qkeras-v3"])
def test_every_weight_of_every_layer_kind_is_found_by_name(framework: str, tmp_path: Path) -> None:
    qkeras_env.run(framework, "qkeras_zoo.py", str(tmp_path))
    told = np.load(tmp_path / "weights.npz")
    order = json.loads((tmp_path / "layers.json").read_text())
    files = sorted(tmp_path.glob("zoo.*"))
    assert [f.suffix for f in files] == ([".h5"] if framework == "qkeras-0.9" else [".h5", ".keras"])
    for path in files:
        model = archive.read(path)
        assert model.keras == (2 if framework == "qkeras-0.9" else 3)
        found = {f"{layer.name}:{k}": w for layer in model.layers for k, w in layer.weights.items() if k != "iteration"}
        assert set(found) == set(told.files)
        for name, w in found.items():
            np.testing.assert_array_equal(w, told[name], err_msg=f"{path.name} {name}")
        assert [r.layer for r in model.inputs] == order["inputs"]
        assert [r.layer for r in model.outputs] == order["outputs"]
        calls = {layer.name: [[[r.layer, r.node, r.tensor] for r in c] for c in layer.calls] for layer in model.layers}
        assert {k: calls[k] for k in order["calls"]} == order["calls"]


def test_the_digits_model_is_read() -> None:
    model = archive.read(DIGITS)
    assert model.inputs == (archive.Ref("image"),) and model.outputs == (archive.Ref("logits"),)
    assert model.layer("conv1").weights["kernel"].shape == (3, 3, 1, 8)


def refused(path: Path, message: str) -> None:
    with pytest.raises(ToolchainError) as e:
        qkeras.load(path, LoadOptions())
    assert str(e.value) == message.replace("FILE", str(path))


@pytest.mark.parametrize("keep", [9, 4096, 20000])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(DIGITS.read_bytes()[:keep])
    with pytest.raises(ToolchainError) as e:
        qkeras.load(path, LoadOptions())
    assert str(e.value).startswith(f"{path}: a truncated or damaged HDF5 file (")
    assert str(e.value).endswith("); save or copy it again")


def test_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"hello world, no model")
    refused(path, f"FILE: neither an HDF5 file nor a .keras zip archive (it begins with b'hell'); {SAVE}")
    with h5py.File(path, "w") as f:
        f["data"] = np.zeros(3)
    refused(path, f"FILE: an HDF5 file without attribute model_config: not a Keras model; {SAVE}")
    with h5py.File(path, "w") as f:
        f.attrs["layer_names"] = ["a"]
    refused(path, f"FILE: an HDF5 file without attribute model_config: weights only; {SAVE}")
    with h5py.File(path, "w") as f:
        f.attrs["model_config"] = "{"
    with pytest.raises(ToolchainError, match="its architecture is not readable JSON"):
        qkeras.load(path, LoadOptions())
    with h5py.File(path, "w") as f:
        f.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
    refused(path, f"FILE: the file holds an architecture but no weights; {SAVE}")
    refused(tmp_path / "none.h5", "FILE: there is no such file; give the path of a saved .h5 or .keras model")


def test_zip_archives_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a.txt", "hello")
    refused(path, f"FILE: a zip archive without config.json: not a .keras model; {SAVE}")
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("config.json", '{"class_name": "Functional", "config": {}}')
    refused(path, f"FILE: the archive holds an architecture but no model.weights.h5; {SAVE}")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ToolchainError, match=r"a truncated or damaged \.keras archive"):
        qkeras.load(path, LoadOptions())


def edited(tmp_path: Path, change: object) -> Path:
    """The digits model with its architecture or weights changed by `change(file)`."""
    path = tmp_path / "edited.h5"
    path.write_bytes(DIGITS.read_bytes())
    with h5py.File(path, "r+") as f:
        change(f)  # type: ignore[operator]
    return path


def test_nan_weights_name_layer_and_place(tmp_path: Path) -> None:
    def change(f: h5py.File) -> None:
        f["model_weights/conv2/conv2/kernel:0"][1, 2, 0, 3] = np.nan

    refused(
        edited(tmp_path, change),
        "layer conv2: weight 'kernel' holds 1 NaN or infinite values, the first at (1, 2, 0, 3); train or restore it again",
    )


def config(tmp_path: Path, edit: object) -> Path:
    def change(f: h5py.File) -> None:
        c = json.loads(f.attrs["model_config"])
        edit({layer["config"]["name"]: layer for layer in c["config"]["layers"]})  # type: ignore[operator]
        f.attrs["model_config"] = json.dumps(c)

    return edited(tmp_path, change)


INPUT = "start the model with a QActivation, or say it: --input-type u8 --input-scale 1/255 --input-zero-point 0 (and --input-mean, --input-std)"


@pytest.mark.parametrize(
    ("layer", "key", "value", "message"),
    [
        ("pool1", "class", "LSTM", "layer pool1: LSTM is not supported; supported: "),
        (
            "pool1",
            "class",
            "MaxPoling2D",
            "layer pool1: MaxPoling2D is not supported; did you mean 'MaxPooling2D'? supported: QDense, Dense, ",
        ),
        ("conv2", "padding", "weird", "layer conv2: padding 'weird'; use 'valid' or 'same'"),
        ("conv2", "data_format", "channels_first", "layer conv2: channels_first; use channels_last"),
        ("conv2", "dtype", "mixed_float16", "layer conv2: dtype mixed_float16; only float32 models are read"),
        (
            "pixels",
            "activation",
            "linear",
            f"input image: no quantizer reads it first, so the model does not say its integers; {INPUT}",
        ),
        (
            "pixels",
            "activation",
            "binary(alpha=1)",
            f"input image: its quantizer is no plain rounding, so the model does not say its integers; {INPUT}",
        ),
        (
            "relu1",
            "activation",
            "quantized_bits(4,0,alpha='auto')",
            "layer relu1: alpha 'auto' on an activation makes the result depend on the other rows of the batch; give alpha as a number",
        ),
        (
            "relu1",
            "activation",
            "softmax",
            "layer relu1: softmax before layer pool1; softmax, sigmoid and tanh can only be the model's last",
        ),
        (
            "conv2",
            "kernel_quantizer",
            None,
            "layer conv2: a weight tensor without a quantizer needs 37 stored bits; 16 are supported: give the layer a quantizer (QDense, QConv2D, ...), or round the values to a coarser grid",
        ),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    tmp_path: Path, layer: str, key: str, value: object, message: str
) -> None:
    def edit(layers: dict[str, dict[str, object]]) -> None:
        if key == "class":
            layers[layer]["class_name"] = value
        else:
            layers[layer]["config"][key] = value  # type: ignore[index]

    with pytest.raises(ToolchainError) as e:
        qkeras.load(config(tmp_path, edit), LoadOptions())
    assert str(e.value).startswith(message) if message.endswith(" ") else str(e.value) == message


def test_a_last_softmax_is_left_to_the_host_and_recorded(tmp_path: Path) -> None:
    def edit(layers: dict[str, dict[str, object]]) -> None:
        layers["logits"]["config"]["activation"] = "softmax"  # type: ignore[index]

    graph = qkeras.load(config(tmp_path, edit), LoadOptions())
    plain = qkeras.load(DIGITS, LoadOptions())
    assert graph.digest() == plain.digest()
    assert graph.notes == (
        "layer logits: softmax is left to the host; output %logits holds what it reads (argmax is unchanged)",
    )
