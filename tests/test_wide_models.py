"""Keras models of 16 bits (int16x8) end to end: TensorFlow converts, TensorFlow Lite Micro's interpreter says what is right.

BITWRIGHT_FULL=1 takes more models; the quick run takes four, converted by one process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import keras16
from tests.native import run_native
from tests.qkeras_env import env_of
from tests.test_tflite_ops import compare
from toolchain import boards, flow, inputs, reference, tools
from toolchain.frontends.tflite import archive

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
NAMES = [*keras16.MODELS, *(f"{name}_{seed}" for name in keras16.MODELS for seed in range(1, 6) if FULL)]
ON_A_BOARD = "inside"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not importlib.util.find_spec("tensorflow"):
        pytest.skip("needs tensorflow, which converts Keras models")
    made = tmp_path_factory.mktemp("keras16")
    env = {**env_of("qkeras-0.9"), "TF_USE_LEGACY_KERAS": "0"}
    done = subprocess.run([sys.executable, keras16.__file__, made, *NAMES], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_keras_model_is_tflms_and_its_c_code_is_it(folder: Path, tmp_path: Path, name: str) -> None:
    path = folder / f"{name}.tflite"
    found = {node.op for node in archive.read(path).nodes}
    graph = flow.load(path)
    assert {"LOGISTIC", "TANH", "SOFTMAX"} & found
    assert graph.outputs[0].qtype.bits == 16 and graph.notes == ()
    rng = np.random.default_rng(1)
    given = np.concatenate(
        [rng.integers(-32768, 32768, (12, 8, 8, 2)), (rng.normal(size=(60, 8, 8, 2)) * 9000).astype(int)]
    )
    given = np.clip(given, -32768, 32767)
    compare(tmp_path, path.read_bytes(), given[:, None])
    stored = {graph.inputs[0].name: given}
    want, _ = reference.simulate(graph, stored)
    for output, values in run_native(graph, stored).items():
        assert_array_equal(values, want[output])
        assert len(np.unique(values)) > 20, "says nothing"


def test_each_of_them_is_inside_a_model_and_at_the_end_of_one(folder: Path) -> None:
    nodes = [archive.read(folder / f"{name}.tflite").nodes for name in keras16.MODELS]
    three = {"LOGISTIC", "SOFTMAX", "TANH"}
    assert {node.op for found in nodes for node in found[:-1]} >= three
    assert {found[-1].op for found in nodes} == three


def test_a_keras_model_on_a_board(folder: Path) -> None:
    if not tools.find("unicorn").path:
        pytest.skip(f"needs unicorn: {tools.advice('unicorn')}")
    graph = flow.load(folder / f"{ON_A_BOARD}.tflite")
    found = flow.measure(graph, boards.load("unicorn_m4"), inputs.made_up(graph, 6), runs=1)
    assert found.bit_exact
