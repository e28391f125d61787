"""Every model of examples/zoo: what Brevitas predicted, the reference, native C and an emulated Cortex-M4 agree.

Brevitas computes in float32 and the graph exactly, so with float scales a value beside a rounding boundary may end on its
other side; `verify` explains each (tests/test_onnx_verify.py). Here the logits that Brevitas saved are compared.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.native import run_native
from tests.pages import needs_compiler
from tests.zoo import NAMES, RAW, ZOO, options
from toolchain import boards, flow, inputs, reference
from toolchain.frontends.qonnx import archive, dialects
from toolchain.frontends.qonnx.lowering import lower_model
from toolchain.ir import Graph

# models whose scales are powers of two throughout: every logit of Brevitas is equal, not only close
EXACT = {
    "digits_avg_4", "digits_cnn_4_po2", "digits_mlp_3", "digits_mlp_4", "digits_res_4", "fashion_cnn_8",
    "motions_cnn_8",
}  # fmt: skip


@cache
def graph(name: str) -> Graph:
    return flow.load(ZOO / f"{name}.onnx", options(name))


@cache
def held_out(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real inputs as the model has them, labels, and Brevitas' logits."""
    with np.load(ZOO / f"data-{name.partition('_')[0]}.npz") as data:
        return data["inputs"].astype(np.float32) / np.float32(data["divisor"]), data["labels"], data[name]


def corners_and_samples(name: str, real: int) -> dict[str, np.ndarray]:
    """Corner and random integers, then held-out samples."""
    made = inputs.made_up(graph(name), 8, seed=1)
    given = inputs.stored(graph(name), held_out(name)[0][:real])
    return {n: np.concatenate([made[n], given[n]]) for n in made}


def test_the_zoo_is_there() -> None:
    assert len(NAMES) > 40
    assert EXACT | set(RAW) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_brevitas_logits_and_accuracy(name: str) -> None:
    x, labels, logits = held_out(name)
    (out,) = graph(name).outputs
    found = inputs.dequantize(out, flow.simulate(graph(name), x)[0][out.name])
    if name in EXACT:
        assert_array_equal(found, logits.astype(np.float64))
        return
    # a fine grid and float32's own noise are far below this; an integer that differs anywhere before is above it
    near = np.abs(found - logits).max(axis=1) <= 2e-5 * max(1.0, float(np.abs(logits).max()))
    assert near.mean() >= 0.99
    assert (found.argmax(axis=1) != logits.argmax(axis=1)).sum() <= 1
    accuracy = (found.argmax(axis=1) == labels).mean(), (logits.argmax(axis=1) == labels).mean()
    assert abs(accuracy[0] - accuracy[1]) <= 1 / len(labels)


@pytest.mark.parametrize("name", NAMES)
def test_native_c_is_the_reference(name: str) -> None:
    needs_compiler("host", "host")
    samples = corners_and_samples(name, 64)
    expected, _ = reference.simulate(graph(name), samples)
    got = run_native(graph(name), samples)
    for out, values in expected.items():
        assert_array_equal(got[out], values)


@pytest.mark.parametrize("name", NAMES)
def test_an_emulated_cortex_m4_is_the_reference(name: str) -> None:
    needs_compiler("arm", "cortex-m4f")
    found = flow.measure(graph(name), boards.load("unicorn_m4"), corners_and_samples(name, 4), runs=1)
    assert found.bit_exact
    assert found.outputs_compared == 12 * sum(t.size for t in graph(name).outputs)


@pytest.mark.parametrize("name", ["digits_cnn_4_bn", "digits_res_4", "motions_dw_3_bn"])
def test_a_wrong_weight_is_noticed(name: str) -> None:
    """The teeth of all of the above: one weight of the file a step off, and the logits differ."""
    model = archive.read(ZOO / f"{name}.onnx", options(name))
    rewritten = dialects.rewrite(model)
    weights = [n.inputs[1] for n in rewritten.nodes if n.op in ("Conv", "Gemm", "MatMul")]
    constant = next(rewritten.constants[w] for w in weights if w in rewritten.constants)
    assert constant.codes is not None
    constant.codes.flags.writeable = True
    constant.codes.flat[0] += 1 if constant.codes.flat[0] <= 0 else -1
    broken = lower_model(rewritten, options(name)).graph
    x = held_out(name)[0]
    ours, theirs = (flow.simulate(g, x)[0] for g in (graph(name), broken))
    assert any((ours[out] != theirs[out]).any() for out in ours)
