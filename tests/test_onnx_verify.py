"""verify on ONNX files: qonnx and onnxruntime run them in batches as they do one at a time, and a corrupted graph is located.

The quick run takes every 12th model of the table; BITWRIGHT_FULL=1 all of it, random networks, and 10,000 samples of the zoo.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import onnx_files, onnx_models
from tests.zoo import NAMES, ZOO, options
from toolchain import LoadOptions, cli, flow, inputs, verify
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.frontends.qonnx import archive, executor
from toolchain.ir import Graph, ops
from toolchain.ir.types import Const
from toolchain.reference import trace

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
MISSING = [m for m in ("qonnx", "onnxruntime") if importlib.util.find_spec(m) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")
TABLE = onnx_models.table()
RANDOM = [onnx_models.Case(f"random-{s}", lambda s=s: onnx_models.random_model(s)) for s in range(400 if FULL else 6)]


def checked(source: Any, samples: int, options: LoadOptions | None = None) -> verify.Verification:
    graph = flow.load(source, options)
    return flow.verify(source, graph, inputs.made_up(graph, samples), options)


# --- equal ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", (TABLE if FULL else TABLE[::12]) + RANDOM, ids=str)
def test_every_operator_and_random_networks_are_equal(case: onnx_models.Case) -> None:
    model = case.make()
    try:
        flow.load(model, case.options)
    except ToolchainError:
        if FULL and case in RANDOM:  # some of many are refused, which tests/test_onnx_exact.py is about
            pytest.skip("a random network that is refused")
        raise
    found = checked(model, 40, case.options)
    assert found.equal, found.first
    assert all(0 <= o.argmax_equal <= 1 for o in found.outputs)


def test_operators_that_sum_and_round_in_one_are_asked_near_their_ties() -> None:
    """onnxruntime multiplies by one float32 factor, whose rounding is told from a wrong graph without seeing the sum."""
    case = next(c for c in TABLE if c.name == "qlinearconv-channel")
    found = checked(case.make(), 500, case.options)
    assert found.equal and found.causes["float32_tie"] > 100 and not found.causes["unexplained"]


@pytest.mark.parametrize("name", NAMES)
def test_the_zoo_is_equal(name: str) -> None:
    found = checked(ZOO / f"{name}.onnx", 10_000 if FULL else 200, options(name))
    total, began = sum(t.compared for t in found.tensors), sum(t.differ - t.follows for t in found.tensors)
    assert found.equal and began <= total / 10_000
    assert all(t.largest <= 1 for t in found.tensors) and all(o.argmax_equal == 1 for o in found.outputs)


def test_ten_thousand_samples_of_a_file_made_elsewhere(shared: Path) -> None:
    path = shared / "data" / "qonnx" / "TFC_2W2A.onnx"
    found = checked(path, 10_000 if FULL else 500)
    assert found.equal and not any(found.causes.values()) and found.outputs[0].argmax_equal == 1


# --- the executor is the framework's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_cnn_4_po2", "digits_cnn_1", "digits_mlp_3_bn"])
def test_batches_give_what_qonnx_gives_for_one_sample(name: str) -> None:
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    path = ZOO / f"{name}.onnx"
    opened = archive.opened(path, LoadOptions(), [])
    mine = executor.Executor(opened)
    wrapper = cleanup_model(ModelWrapper(str(path)))
    [given] = opened.inputs
    shape = [d.dim_value for d in given.type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(0).normal(size=(200, *shape)).astype(np.float32)
    [out] = [o.name for o in opened.proto.graph.output]
    answers = mine.run({given.name: x}, mine.live)
    assert mine.batched
    for i in (0, 1, 127, 128, 199):
        theirs = execute_onnx(wrapper, {wrapper.graph.input[0].name: x[i : i + 1]})
        [real] = theirs.values()
        close = np.testing.assert_array_equal if name.endswith("po2") else np.testing.assert_allclose
        kwargs = {} if name.endswith("po2") else {"rtol": 1e-5, "atol": 1e-5}
        close(answers[out][i : i + 1], real, **kwargs)


def test_one_tensor_is_asked_again_from_another() -> None:
    opened = archive.opened(ZOO / "digits_cnn_4_po2.onnx", LoadOptions(), [])
    e = executor.Executor(opened)
    x = np.random.default_rng(0).uniform(0, 1, (5, *[d.dim_value for d in opened.inputs[0].type.tensor_type.shape.dim][1:])).astype(np.float32)  # fmt: skip
    values = e.run({opened.inputs[0].name: x}, e.live)
    quants = [n for n in e.data if n.op_type == "Quant"]
    for node in quants:
        np.testing.assert_array_equal(e.again(node.input[0], node.output[0], values[node.input[0]]), values[node.output[0]])  # fmt: skip


def baked(batch: int, shape: list[int]) -> Any:
    """A file whose batch stands in a Reshape."""
    f = np.float32
    return onnx_files.model(
        [
            ("qonnx.custom_op.general::Quant", "x s z b", "q", {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}),
            ("Reshape", "q shape", "r"),
            ("MatMul", "r w", "m"),
            ("qonnx.custom_op.general::Quant", "m t z b", "y", {"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"}),
        ],
        {"s": f(0.125), "t": f(0.5), "z": f(0), "b": f(6), "w": np.eye(6, 4, dtype=f) * 2, "shape": np.array(shape)},
        {"x": [batch, 2, 3]},
        **{"qonnx__custom_op__general": 2},
    )


@pytest.mark.parametrize(
    ("batch", "shape", "batched"),
    [(1, [1, 6], True), (1, [1, -1], True), (1, [-1, 6], True), (1, [0, 6], True), (4, [4, 6], True)],
)
def test_a_batch_in_a_shape_does_not_matter(batch: int, shape: list[int], batched: bool) -> None:
    model = baked(batch, shape)
    options = LoadOptions(batch=1)
    e = executor.Executor(archive.opened(model, options, []))
    x = np.random.default_rng(1).normal(size=(9, 2, 3)).astype(np.float32)
    y = e.run({"x": x}, ["y"])["y"]
    assert e.batched is batched
    np.testing.assert_array_equal(y, np.clip(np.floor(np.clip(np.rint(x * 8), -32, 31).reshape(9, 6)[:, :4] / 8 * 2 / 0.5), -32, 31) * 0.5)  # fmt: skip
    assert checked(model, 9, options).equal


def test_a_file_that_runs_on_its_own_batch_alone_is_run_so() -> None:
    """Slice by number of samples: nothing else than the file's batch fits; the last samples are padded."""
    f = np.float32
    model = onnx_files.model(
        [
            ("qonnx.custom_op.general::Quant", "x s z b", "q", {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}),
            ("Add", "q ones", "y"),
        ],
        {"s": f(0.125), "z": f(0), "b": f(6), "ones": np.ones((4, 3), f)},
        {"x": [4, 3]},
        **{"qonnx__custom_op__general": 2},
    )  # fmt: skip
    e = executor.Executor(archive.opened(model, LoadOptions(batch=1), []))
    x = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    y = e.run({"x": x}, ["y"])["y"]
    assert e.batched is False
    np.testing.assert_array_equal(y, np.clip(np.rint(x * 8), -32, 31) / 8 + 1)


def test_samples_compared_in_parts_make_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """With powers of two: float32 is exact there, so that nothing depends on the batch."""
    path = ZOO / "digits_cnn_4_po2.onnx"
    graph = flow.load(path)
    stored = inputs.made_up(graph, 150)
    wrong = next(corruptions(graph))[1]
    whole = [flow.verify(path, g, stored) for g in (graph, wrong)]
    monkeypatch.setattr(verify, "AT_ONCE", 40 * sum(t.size for t in (*graph.inputs, *(op.output for op in graph.ops))))
    parts = [flow.verify(path, g, stored) for g in (graph, wrong)]
    for part, all_of_it in zip(parts, whole, strict=True):
        assert part.samples == 150
        assert part.tensors == all_of_it.tensors
        for a, b in zip(part.outputs, all_of_it.outputs, strict=True):  # shares, averaged over the parts
            assert (round(a.integers_equal * 1500), round(a.argmax_equal * 150)) == (round(b.integers_equal * 1500), round(b.argmax_equal * 150))  # fmt: skip
    assert parts[0].equal and not parts[1].equal


def test_the_first_difference_is_counted_on_from_part_to_part(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ZOO / "digits_cnn_4_po2.onnx"
    graph = flow.load(path)
    [(name, x)] = inputs.made_up(graph, 60).items()
    x[:50] = 0  # no weight matters there
    tensor, wrong, _ = next(corruptions(graph))
    monkeypatch.setattr(verify, "AT_ONCE", 20 * sum(t.size for t in (*graph.inputs, *(op.output for op in graph.ops))))
    first = flow.verify(path, wrong, {name: x}).first
    assert first is not None and first.first is not None
    assert first.tensor == tensor and first.first.index[0] >= 50


def test_without_the_framework_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ZOO / "digits_cnn_8.onnx"
    graph = flow.load(path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingToolError) as e:
        flow.verify(path, graph, inputs.made_up(graph, 1))
    assert str(e.value) == (
        f"{path}: qonnx, which runs the model, is not installed (import of onnxruntime halted; None in sys.modules); "
        "pip install 'bitwright[brevitas]'; load and simulate do not need it"
    )


def test_the_command_runs_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(ZOO / "digits_mlp_4.onnx")]) == 0
    assert "\nequal: " in capsys.readouterr().out


# --- a corrupted graph is located -------------------------------------------------------------------------------------------


def changed(c: Const, index: tuple[int, ...], by: int) -> Const:
    values = c.array.copy()
    values[index] += by if c.tensor.qtype.min <= values[index] + by <= c.tensor.qtype.max else -by
    return Const.of(c.tensor.name, values, c.tensor.qtype)


def corruptions(graph: Graph, seed: int = 0) -> Iterator[tuple[str, Graph, int | None]]:
    """One weight, bias, threshold, multiplier or offset off; the tensor it makes, and the channel if it is one alone."""
    rng = np.random.default_rng(seed)
    for k, op in enumerate(graph.ops):
        made: list[tuple[Any, int | None]] = []
        match op:
            case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
                at = tuple(int(rng.integers(n)) for n in op.weight.array.shape)
                channel = at[-1] if isinstance(op, ops.DepthwiseConv2D) else at[0]
                made.append((replace(op, weight=changed(op.weight, at, 1)), channel))
                if op.bias is not None:
                    made.append((replace(op, bias=changed(op.bias, (channel,), 1)), channel))
            case ops.Threshold():
                rows = len(op.thresholds.array)
                at = (int(rng.integers(rows)), int(rng.integers(op.thresholds.array.shape[1])))
                made.append((replace(op, thresholds=changed(op.thresholds, at, 1)), at[0] if rows > 1 else None))
            case ops.Requantize() if op.shift[0] > 0:
                c = int(rng.integers(len(op.multiplier)))
                grown = tuple(m + (abs(m) // 16 + 1) * (i == c) for i, m in enumerate(op.multiplier))
                made.append((replace(op, multiplier=grown), c if len(grown) > 1 else None))
                half = op.shift[c if len(op.shift) > 1 else 0] - 1
                c = int(rng.integers(len(op.offset)))
                moved = tuple(o + (1 << max(half, 0)) * (i == c) for i, o in enumerate(op.offset))
                made.append((replace(op, offset=moved), c if len(moved) > 1 else None))
        for wrong, channel in made:
            yield op.output.name, replace(graph, ops=(*graph.ops[:k], wrong, *graph.ops[k + 1 :])), channel


def located(source: Any, graph: Graph, stored: dict[str, np.ndarray], options: LoadOptions | None = None) -> int:
    """Every corruption that changes an integer of these samples is found, at its op and channel; how many."""
    right = trace(graph, stored)
    count = 0
    for tensor, wrong, channel in corruptions(graph):
        off = np.abs(trace(wrong, stored)[tensor] - right[tensor]).max()
        if off <= np.abs(right[tensor]).max() / 2**20:  # nothing, or less than float32 can tell
            continue
        count += 1
        found = flow.verify(source, wrong, stored, options)
        assert not found.equal, tensor
        first = found.first
        assert first is not None and first.first is not None
        after = [op.output.name for op in graph.ops]
        shown = {t.tensor for t in found.tensors}
        assert first.tensor == next(t for t in after[after.index(tensor) :] if t in shown)
        if channel is not None and first.tensor == tensor:
            assert first.first.index[-1] == channel
    return count


@pytest.mark.parametrize("name", ["digits_cnn_4_bn", "digits_cnn_4_po2", "digits_cnn_8", "digits_mlp_3_bn", "motions_cnn_4_bn"])  # fmt: skip
def test_a_corrupted_zoo_is_never_explained(name: str) -> None:
    path = ZOO / f"{name}.onnx"
    graph = flow.load(path)
    assert located(path, graph, inputs.made_up(graph, 60)) >= 4


@pytest.mark.parametrize("case", [c for c in TABLE if c.name in (
    "qcdq-gemm-s8", "qcdq-conv-channel", "qlinearconv-channel", "qlinearmatmul-u8", "residual", "chain", "multithreshold-float-scale",
)] + RANDOM[: len(RANDOM) // 2], ids=str)  # fmt: skip
def test_a_corrupted_network_is_never_explained(case: onnx_models.Case) -> None:
    model = case.make()
    try:
        graph = flow.load(model, case.options)
    except Exception:
        pytest.skip("a random network that is refused")
    located(model, graph, inputs.made_up(graph, 200), case.options)


def test_a_bias_on_a_fine_grid_that_is_off_by_more_than_float32_is_found() -> None:
    """The output's steps are finer than float32's: what is off by far less than a step of the accumulator is still seen."""
    path = ZOO / "digits_cnn_8.onnx"
    graph = flow.load(path)
    stored = inputs.made_up(graph, 40)
    last = graph.ops[-1]
    assert isinstance(last, ops.Requantize)
    size = 1 << last.shift[0]
    step = float(graph.outputs[0].qtype.scales[0])
    by = max(1, int(1e-3 / step))  # a thousandth of a unit of the logits
    wrong = replace(graph, ops=(*graph.ops[:-1], replace(last, offset=tuple(o + by * size * (i == 0) for i, o in enumerate(last.offset)))))  # fmt: skip
    found = flow.verify(path, wrong, stored)
    assert not found.equal and found.first is not None and found.first.tensor == graph.outputs[0].name
