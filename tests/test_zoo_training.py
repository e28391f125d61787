"""examples/zoo: its scripts train and export, its files are what Brevitas predicted, its data are those of the packages.

Brevitas runs in processes of its own: the scripts have short module names, and torch is large.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.modules import load

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "examples" / "zoo"
SETS = ("digits", "fashion", "motions")
FILES = sorted(path.stem for path in ZOO.glob("*.onnx"))

# one model of each network, two steps each: twice with one seed, once with another; dynamo's exporter is slow, one is enough
TRAIN = """
import sys
folder, zoo, kind = sys.argv[1:]
sys.path.insert(0, zoo)
import train
rows = [(e.network, name) for name, e in train.ZOO.items() if e.data == kind]
names = dict(sorted(rows, key=lambda row: not train.ZOO[row[1]].dynamo)).values()
for run, seed in (("a", 0), ("b", 0), ("c", 1)):
    code = train.main([*names, "--epochs", "0", "--seed", str(seed), "--out", f"{folder}/{run}"])
    if code:
        sys.exit(code)
"""
TABLE = """
import sys
sys.path.insert(0, sys.argv[2])
import table
table.write_table(table.Path(sys.argv[1]), table.held_out_of(table.Path(sys.argv[2])))
"""
NO_DATA = 2  # train.main's answer where a package is missing


def need_brevitas() -> None:
    absent = [m for m in ("torch", "brevitas", "qonnx", "onnxruntime") if importlib.util.find_spec(m) is None]
    if absent:
        pytest.skip(f"Brevitas' models need {', '.join(absent)}, not installed here")


def python(code: str, *args: object) -> None:
    argv = [sys.executable, "-B", "-c", code, *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == NO_DATA:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-4000:]


def datasets() -> ModuleType:
    return load("zoo_datasets", "examples/zoo/datasets.py")


@pytest.mark.parametrize("kind", SETS if os.environ.get("BITWRIGHT_FULL") else SETS[:1])
def test_every_network_trains_and_the_seed_decides(tmp_path: Path, kind: str) -> None:
    need_brevitas()
    python(TRAIN, tmp_path, ZOO, kind)
    same, again, other = (tmp_path / run for run in "abc")
    names = sorted(path.name for path in same.glob("*.onnx"))
    assert len(names) > 1
    for name in names:
        assert (same / name).read_bytes() == (again / name).read_bytes(), name
        assert (same / name).read_bytes() != (other / name).read_bytes(), name
    for name in same.glob("*.onnx.data"):
        assert name.read_bytes() == (again / name.name).read_bytes(), name
    assert (same / f"data-{kind}.npz").read_bytes() == (again / f"data-{kind}.npz").read_bytes()
    for name in names:
        check(same, name.removesuffix(".onnx"), samples=2)


@pytest.mark.parametrize("kind", SETS)
def test_held_out_data_are_those_of_the_package(kind: str) -> None:
    module = datasets()
    try:
        data = module.SETS[kind]()
    except module.MissingDataError as error:
        pytest.skip(str(error))
    held = np.load(ZOO / f"data-{kind}.npz")
    np.testing.assert_array_equal(held["inputs"], data.test_x)
    assert held["inputs"].dtype == data.test_x.dtype
    np.testing.assert_array_equal(held["labels"], data.test_y)
    assert held["divisor"] == data.divisor
    train = {image.tobytes() for image in data.train_x}
    assert not any(image.tobytes() in train for image in data.test_x)


def test_each_file_has_its_logits() -> None:
    logits = {name for kind in SETS for name in np.load(ZOO / f"data-{kind}.npz").files}
    assert sorted(logits - {"inputs", "labels", "divisor"}) == FILES
    for name in FILES:
        held = np.load(ZOO / f"data-{name.split('_')[0]}.npz")
        assert np.mean(held[name].argmax(1) == held["labels"]) > 0.8, name


@pytest.mark.parametrize("name", FILES)
def test_each_file_says_what_brevitas_predicted(name: str) -> None:
    need_brevitas()
    check(ZOO, name, samples=4)


def test_the_page_is_that_of_the_files(tmp_path: Path) -> None:
    need_brevitas()
    python(TABLE, tmp_path / "README.md", ZOO)
    assert (tmp_path / "README.md").read_text() == (ZOO / "README.md").read_text()


def test_nothing_of_the_machine_that_trained_is_in_a_file() -> None:
    for name in FILES:
        text = (ZOO / f"{name}.onnx").read_bytes()
        assert not any(part in text for part in (b"site-packages", b"dist-packages", b"/home/", b'File "')), name


def power_of_two(path: Path) -> bool:
    """Whether every scale of a QONNX file is one, and no BatchNorm between them rounds in float32."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales = [known[node.input[1]] for node in graph.node if node.op_type in ("Quant", "BipolarQuant")]
    norms = any(node.op_type == "BatchNormalization" for node in graph.node)
    return not norms and all((np.frexp(scale)[0] == 0.5).all() for scale in scales)


def check(folder: Path, name: str, samples: int) -> None:
    """qonnx's own execution against the logits: equal where scales are powers of two, else to float32's last digits, but for
    one sample at most where a sum fell on the other side of a tie."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    held = np.load(folder / f"data-{name.split('_')[0]}.npz")
    model = ModelWrapper(str(folder / f"{name}.onnx")).transform(InferShapes())
    source, sink = model.graph.input[0].name, model.graph.output[0].name
    inputs = held["inputs"][:samples].astype(np.float32) / np.float32(held["divisor"])
    found = np.concatenate([execute_onnx(model, {source: row[None]})[sink] for row in inputs])
    wanted = held[name][:samples]
    if power_of_two(folder / f"{name}.onnx"):
        np.testing.assert_array_equal(found, wanted)
    else:
        off = np.abs(found - wanted).max(axis=1) > 1e-5 * np.abs(wanted).max()
        assert np.count_nonzero(off) <= 1
