"""The MLPerf Tiny models: every output of theirs is TensorFlow Lite Micro's, in the reference and in C on a board.

Its one rule: the answers are the interpreter's own, stored beside the models; where the interpreter is installed, it is asked too.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import tflite_files
from tests.pages import needs, needs_compiler
from toolchain import boards, cli, flow, inputs, passes, reference
from toolchain.errors import MissingToolError
from toolchain.ir import Graph
from toolchain.layout import nbytes

MODELS = Path(__file__).with_name("models") / "mlperf_tiny"
NAMES = {"ad01_int8": (640,), "kws_ref_model": (49, 10, 1), "pretrainedResnet_quant": (32, 32, 3)}
MACS = {"ad01_int8": 264_192, "kws_ref_model": 2_656_768, "pretrainedResnet_quant": 12_501_632}
COUNT = 12
MOST_ON_M55 = {"ad01_int8": 0.161, "kws_ref_model": 0.292, "pretrainedResnet_quant": 0.175}  # by clang
MOST_PER_MAC = {"ad01_int8": 1.169, "kws_ref_model": 1.273, "pretrainedResnet_quant": 1.051}
MOST_CYCLES_PER_MAC = {"ad01_int8": 1.471, "kws_ref_model": 1.619, "pretrainedResnet_quant": 1.269}  # modelled

# the same on cores that multiply 32 bits and no less, with either GCC 12
MOST_ON = {
    "qemu_virt_rv32": {"ad01_int8": 2.017, "kws_ref_model": 3.230, "pretrainedResnet_quant": 2.429},
    "unicorn_m0plus": {"ad01_int8": 2.079, "kws_ref_model": 4.395, "pretrainedResnet_quant": 2.778},
    "qemu_mps2_an385": {"ad01_int8": 1.089, "kws_ref_model": 2.264, "pretrainedResnet_quant": 1.490},
}


@cache
def graph(name: str) -> Graph:
    return flow.load(MODELS / f"{name}.tflite")


def samples(name: str) -> np.ndarray:
    """Corners, and integers of a hash: the same on every machine and with every numpy."""
    shape = NAMES[name]
    places = np.arange(COUNT * int(np.prod(shape)), dtype=np.uint64)
    mixed = (places * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    found = ((mixed & np.uint64(255)).astype(np.int64) - 128).reshape(COUNT, *shape)
    found[0], found[1], found[2] = -128, 127, graph(name).inputs[0].qtype.zero_point
    found[3] = np.where(np.arange(found[3].size).reshape(shape) % 2, 127, -128)
    found[4] //= 16  # near zero
    return found


def simulated(name: str, x: np.ndarray) -> np.ndarray:
    (tensor,) = graph(name).outputs
    return reference.simulate(graph(name), {graph(name).inputs[0].name: x})[0][tensor.name]


@pytest.mark.parametrize("name", NAMES)
def test_every_output_is_tflms(name: str) -> None:
    with np.load(MODELS / "answers.npz") as answers:
        assert_array_equal(simulated(name, samples(name)), answers[name])


@pytest.mark.parametrize("name", NAMES)
def test_every_output_is_that_of_the_interpreter_here(name: str) -> None:
    made = inputs.made_up(graph(name), 24, seed=7)[graph(name).inputs[0].name]
    (answer,) = tflite_files.run((MODELS / f"{name}.tflite").read_bytes(), made)
    assert_array_equal(simulated(name, made), answer.reshape(len(made), -1))


def test_keywords_of_a_hundred_clips() -> None:
    with np.load(MODELS / "kws_first100.npz") as clips:
        found = simulated("kws_ref_model", clips["x"].astype(np.int64))
        assert_array_equal(found, clips["y_tflm"])
        assert (found != clips["y_xnnpack"]).any()  # another arithmetic: whose integers these are must be said
        assert (found.argmax(1) == clips["label"]).mean() > 0.9


def test_real_samples_are_quantized_by_the_inputs_scale() -> None:
    """As TFLite's own examples do: x / scale + zero point, rounded."""
    (tensor,) = graph("kws_ref_model").inputs
    x = np.random.default_rng(1).normal(0, 40, (5, 49, 10, 1))
    (stored,) = inputs.stored(graph("kws_ref_model"), x).values()
    assert_array_equal(stored, np.clip(np.rint(x / float(np.float32(0.5847029)) + 83), -128, 127))
    assert tensor.qtype.zero_point == 83


@pytest.mark.parametrize("name", NAMES)
def test_inspect_says_what_the_benchmark_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(MODELS / f"{name}.tflite")]) == 0
    assert f"{MACS[name]:,}" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_c_of_the_host_computes_the_same(name: str) -> None:
    board = boards.load("native")
    needs_compiler(board.compiler, board.core)
    x = samples(name)
    found = flow.measure(graph(name), board, x, runs=1)
    assert found.bit_exact
    assert found.outputs_compared == simulated(name, x).size


@pytest.mark.parametrize("name", NAMES)
def test_an_emulated_cortex_m4_computes_the_same(name: str) -> None:
    """And executes no more instructions for a product, of the whole inference, than it did."""
    board = boards.load("unicorn_m4")
    needs_compiler(board.compiler, board.core)
    pytest.importorskip("unicorn")
    x = samples(name)[:2] if name == "pretrainedResnet_quant" else samples(name)[:6]
    found = flow.measure(graph(name), board, x, runs=1)
    assert found.bit_exact
    assert found.outputs_compared == simulated(name, x).size
    if any("arm-none-eabi-gcc 12" in f"{tool} {version}" for tool, version in found.versions.items()):
        assert found.count_per_mac is not None
        assert found.count_per_mac <= MOST_PER_MAC[name]
        pytest.importorskip("capstone")
        assert found.modelled_cycles_per_mac is not None
        assert found.count_per_mac < found.modelled_cycles_per_mac <= MOST_CYCLES_PER_MAC[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_emulated_cortex_m55_computes_the_same(name: str) -> None:
    board = boards.load("qemu_mps3_an547")
    needs_compiler(board.compiler, board.core)
    needs("qemu-system-arm")
    x = samples(name)[:2] if name == "pretrainedResnet_quant" else samples(name)[:6]
    found = flow.measure(graph(name), board, x, runs=1)
    assert found.bit_exact
    assert found.outputs_compared == simulated(name, x).size
    if any("zig cc 0.17" in f"{tool} {version}" for tool, version in found.versions.items()):
        assert found.count_per_mac is not None
        assert found.count_per_mac <= MOST_ON_M55[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("board", MOST_ON)
def test_cores_without_the_dsp_extension_compute_the_same(board: str, name: str) -> None:
    """And execute no more instructions for a product, of the whole inference, than they did."""
    if board.startswith("unicorn"):
        pytest.importorskip("unicorn")
    x = samples(name)[:2] if name == "pretrainedResnet_quant" else samples(name)[:6]
    try:
        found = flow.measure(graph(name), board, x, runs=1)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert found.bit_exact
    assert found.outputs_compared == simulated(name, x).size
    if any("gcc 12" in f"{tool} {version}" for tool, version in found.versions.items()):
        assert found.count_per_mac is not None
        assert found.count_per_mac <= MOST_ON[board][name]


if __name__ == "__main__":
    made = {n: tflite_files.run((MODELS / f"{n}.tflite").read_bytes(), samples(n))[0].reshape(COUNT, -1) for n in NAMES}
    np.savez_compressed(MODELS / "answers.npz", **made)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_less_than_the_interpreters(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """All that changes: the arena, with what kernels need while they run, inputs and outputs. The interpreter's own figure is of this
    machine, whose pointers are wider than a microcontroller's: so its tensors alone are compared too, where inputs share them."""
    _, plan = passes.run(graph(name), boards.load("unicorn_m4"))
    ends = sum(nbytes(t) for t in (*graph(name).inputs, *graph(name).outputs))
    ours = plan.arena_bytes + ends
    total, head = tflite_files.memory((MODELS / f"{name}.tflite").read_bytes(), capfd)
    assert ours < total
    assert (ours < head) == (name != "ad01_int8")
