"""Dialects of quantized ONNX, rewritten to one: against onnxruntime on the original, and against exact integers."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest

from tests import onnx_files
from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import archive
from toolchain.frontends.qonnx.archive import Input, Model, Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.dialects import rewrite

T = onnx.TensorProto
F32 = np.float32


def read(proto: Any) -> Model:
    return rewrite(archive.read(proto))


def run(proto: Any, **fed: np.ndarray) -> np.ndarray:
    """The first output by onnxruntime, without its own optimizations."""
    runtime = pytest.importorskip("onnxruntime")
    chosen = runtime.SessionOptions()
    chosen.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen.intra_op_num_threads = 1
    return runtime.InferenceSession(proto.SerializeToString(), chosen).run(None, fed)[0]


def ops(made: Model) -> list[str]:
    return [node.op for node in made.nodes]


def qcdq(opset: int, kind: type = np.uint8, lo: int = 0, hi: int = 15, **scales: Any) -> Any:
    """A dense layer as Brevitas' export_onnx_qcdq writes it."""
    rng = np.random.default_rng(opset)
    constants = {
        "s": F32(0.25), "z": kind(3), "lo": kind(lo), "hi": kind(hi),
        "w": rng.integers(-7, 8, (3, 4)).astype(np.int8), "ws": np.asarray([0.5, 0.125, 0.25], F32), "wz": np.zeros(3, np.int8),
        "w_lo": np.int8(-7), "w_hi": np.int8(7), "b": rng.integers(-90, 90, 3).astype(np.int32), "bs": F32(0.0625), **scales,
    }  # fmt: skip
    return onnx_files.model(
        [
            ("QuantizeLinear", "x s z", "q"),
            ("Clip", "q lo hi", "c"),
            ("DequantizeLinear", "c s z", "d"),
            ("Clip", "w w_lo w_hi", "wc"),
            ("DequantizeLinear", "wc ws wz", "wd", {"axis": 0}),
            ("DequantizeLinear", "b bs", "bd"),
            ("Gemm", "d wd bd", "g", {"transB": 1}),
            ("Relu", "g", "y"),
        ],
        constants,
        opset=opset,
    )


@pytest.mark.parametrize("opset", [13, 17, 20, 21])
def test_qcdq(opset: int) -> None:
    proto = qcdq(opset)
    made = read(proto)
    assert ops(made) == ["QuantizeLinear", "DequantizeLinear", "Gemm", "Relu"]
    first = made.nodes[0]
    assert dict(first.attributes) == {"axis": 1, "lo": 0, "hi": 15} and first.outputs == ("c",)
    weight = made.constants[made.nodes[2].inputs[1]]
    assert weight.codes is not None and np.abs(weight.codes).max() <= 7 and weight.scale.shape == (3, 1)
    rng = np.random.default_rng(1)
    for x in rng.uniform(-4, 8, (50, 1, 4)).astype(F32):
        np.testing.assert_array_equal(onnx_files.interpret(made, {"x": x})["y"], run(proto, x=x))


def test_clips_that_stay() -> None:
    """A Clip is not merged when somebody else reads the integers too, or its bounds are not whole."""
    constants = {"s": F32(1), "z": np.int8(0), "lo": np.int8(-3), "hi": np.int8(3)}
    two = onnx_files.model(
        [("QuantizeLinear", "x s z", "q"), ("Clip", "q lo hi", "c"), ("Add", "c q", "y")], constants
    )  # fmt: skip
    made = read(onnx_files.typed(two, y=T.INT8))
    assert ops(made) == ["QuantizeLinear", "Clip", "Add"]
    assert made.nodes[0].attributes["lo"] == -128 and made.nodes[0].attributes["hi"] == 127
    out = read(onnx_files.model([("QuantizeLinear", "x s z", "q"), ("Clip", "q lo hi", "c")], constants, outputs="q c"))
    assert ops(out) == ["QuantizeLinear", "Clip"]
    chain = [("QuantizeLinear", "x s z", "q"), ("Clip", "q lo", "c"), ("Clip", "c - hi", "y")]
    one = read(onnx_files.model(chain, constants))
    assert ops(one) == ["QuantizeLinear"] and one.nodes[0].outputs == ("y",)
    assert (one.nodes[0].attributes["lo"], one.nodes[0].attributes["hi"]) == (-3, 3)
    clipped = Node("Clip", "c", "", ("q",), ("y",), {"min": -2.5, "max": 2.0}, 9)
    quantize = Node("QuantizeLinear", "q", "", ("x", "s"), ("q",), {}, 10)
    bare = Model("m", (Input("x", (1, 4), "float32"),), ("y",), (quantize, clipped), {"s": Constant(F32(1))}, 10)
    assert ops(rewrite(bare)) == ["QuantizeLinear", "Clip"]
    with pytest.raises(UnsupportedError, match=r"node Clip_1: clips to 3\.\.-3, must be a range"):
        read(onnx_files.model([("QuantizeLinear", "x s z", "q"), ("Clip", "q hi lo", "y")], constants))


@pytest.mark.parametrize(
    ("zero", "attributes", "want"),
    [
        (None, {}, (0, 255)),
        (np.uint8(3), {}, (0, 255)),
        (np.int8(3), {}, (-128, 127)),
        (np.int16(3), {}, (-32768, 32767)),
        (np.uint16(3), {}, (0, 65535)),
        ("INT4", {}, (-8, 7)),
        ("UINT4", {}, (0, 15)),
        (None, {"output_dtype": T.INT16}, (-32768, 32767)),
        (None, {"output_dtype": T.INT4}, (-8, 7)),
        (None, {"output_dtype": T.UINT4}, (0, 15)),
    ],
    ids=str,
)
def test_stored_range(zero: Any, attributes: dict[str, int], want: tuple[int, int]) -> None:
    constants = {"s": F32(1)} | ({"z": zero} if isinstance(zero, np.integer) else {})
    reads = "x s" if zero is None else "x s z"
    proto = onnx_files.model([("QuantizeLinear", reads, "y", attributes)], constants, opset=21, ir=10)
    if isinstance(zero, str):
        proto.graph.initializer.append(onnx.helper.make_tensor("z", getattr(T, zero), [], [3]))
    [node] = read(proto).nodes
    assert (node.attributes["lo"], node.attributes["hi"]) == want


def test_per_axis_is_said() -> None:
    constants = {"s": np.ones(4, F32), "z": np.zeros(4, np.int8)}
    [node] = read(onnx_files.model([("QuantizeLinear", "x s z", "y", {"axis": -1})], constants)).nodes
    assert node.attributes["axis"] == -1
    [node] = read(onnx_files.model([("QuantizeLinear", "x s z", "y")], constants)).nodes
    assert node.attributes["axis"] == 1


def qlinear_conv(rng: np.random.Generator, power_of_two: bool, opset: int, channels: bool, unsigned: bool) -> Any:
    kind = np.uint8 if unsigned else np.int8
    scale = (lambda *n: 2.0 ** rng.integers(-4, 0, n)) if power_of_two else (lambda *n: rng.uniform(0.01, 0.5, n))
    w_zero = np.zeros(4, np.int8) if channels else np.int8(0)
    constants = {
        "xs": F32(scale()), "xz": kind(rng.integers(0, 20)), "w": rng.integers(-127, 128, (4, 1, 3, 3)).astype(np.int8),
        "ws": scale(4).astype(F32) if channels else F32(scale()), "wz": w_zero,
        "ys": F32(64 * scale()), "yz": kind(rng.integers(0, 20)), "b": rng.integers(-3000, 3000, 4).astype(np.int32),
    }  # fmt: skip
    proto = onnx_files.model(
        [("QLinearConv", "x xs xz w ws wz ys yz b", "y", {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]})],
        constants, {"x": (T.UINT8 if unsigned else T.INT8, [1, 2, 5, 6])}, opset=opset,
    )  # fmt: skip
    return onnx_files.typed(proto, y=T.UINT8 if unsigned else T.INT8), constants


@pytest.mark.parametrize("opset", [10, 13, 21])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("unsigned", [False, True])
def test_qlinear_conv(opset: int, channels: bool, unsigned: bool) -> None:
    """Power-of-two scales equal onnxruntime; float ones equal round(acc * xs * ws / ys) in Fraction, which float32 only nears."""
    rng = np.random.default_rng(opset * 4 + channels * 2 + unsigned)
    for power_of_two in (True, False):
        proto, constants = qlinear_conv(rng, power_of_two, opset, channels, unsigned)
        made = read(proto)
        assert ops(made) == ["DequantizeLinear", "Conv", "QuantizeLinear"]
        assert made.nodes[-1].outputs == ("y",) and made.nodes[-1].name == "QLinearConv_0"
        bias = made.constants[made.nodes[1].inputs[2]]
        exact = [Fraction(float(constants["xs"])) * Fraction(float(s)) for s in np.resize(constants["ws"], 4)]
        assert [Fraction(float(s)) for s in np.resize(bias.scale, 4)] == exact
        np.testing.assert_array_equal(bias.codes, constants["b"])
        for _ in range(4):
            low, high = (0, 256) if unsigned else (-128, 128)
            x = rng.integers(low, high, (1, 2, 5, 6)).astype(np.uint8 if unsigned else np.int8)
            found = onnx_files.interpret(made, {"x": x})["y"]
            if power_of_two:
                np.testing.assert_array_equal(found, run(proto, x=x))
            acc = (
                accumulate(x.astype(int) - int(constants["xz"]), constants["w"].astype(int))
                + constants["b"][:, None, None]
            )
            ratio = np.asarray([e / Fraction(float(constants["ys"])) for e in exact])[:, None, None]
            want = np.vectorize(round, otypes=[int])(acc * ratio) + int(constants["yz"])
            np.testing.assert_array_equal(found, np.clip(want, low, high - 1))


def accumulate(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Depthwise-like group convolution (2 groups, pads 1, strides 2 and 1) in plain integers: [1, 4, oh, ow]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((1, 4, 3, 6), int)
    for o in range(4):
        for i in range(3):
            for j in range(6):
                out[0, o, i, j] = (padded[0, o // 2, 2 * i : 2 * i + 3, j : j + 3] * w[o, 0]).sum()
    return out


@pytest.mark.parametrize("columns", [False, True])
def test_qlinear_matmul(columns: bool) -> None:
    rng = np.random.default_rng(columns)
    for power_of_two in (True, False):
        scale: Callable[..., Any] = (lambda *n: 2.0 ** rng.integers(-4, 0, n)) if power_of_two else (lambda *n: rng.uniform(0.01, 0.5, n))  # fmt: skip
        constants = {
            "as": F32(scale()), "az": np.uint8(7), "b": rng.integers(-127, 128, (4, 3)).astype(np.int8),
            "bs": scale(3).astype(F32) if columns else F32(scale()), "bz": np.zeros(3, np.int8) if columns else np.int8(0),
            "ys": F32(16 * scale()), "yz": np.uint8(5),
        }  # fmt: skip
        proto = onnx_files.model([("QLinearMatMul", "x as az b bs bz ys yz", "y")], constants, {"x": (T.UINT8, [1, 4])})
        proto = onnx_files.typed(proto, y=T.UINT8)
        made = read(proto)
        assert ops(made) == ["DequantizeLinear", "MatMul", "QuantizeLinear"]
        exact = [Fraction(float(constants["as"])) * Fraction(float(s)) / Fraction(float(constants["ys"])) for s in np.resize(constants["bs"], 3)]  # fmt: skip
        for x in rng.integers(0, 256, (30, 1, 4)).astype(np.uint8):
            found = onnx_files.interpret(made, {"x": x})["y"]
            if power_of_two:
                np.testing.assert_array_equal(found, run(proto, x=x))
            acc = (x.astype(int) - 7) @ constants["b"].astype(int)
            want = [[round(int(a) * e) + 5 for a, e in zip(acc[0], exact, strict=True)]]
            np.testing.assert_array_equal(found, np.clip(want, 0, 255))


def test_integer_ops() -> None:
    rng = np.random.default_rng(2)
    w = rng.integers(0, 256, (2, 1, 3)).astype(np.uint8)
    conv = onnx_files.model(
        [("ConvInteger", "x w xz wz", "y")], {"w": w, "xz": np.uint8(9), "wz": np.uint8(100)}, {"x": (T.UINT8, [1, 1, 7])}
    )  # fmt: skip
    bare = onnx_files.model([("ConvInteger", "x w", "y")], {"w": w}, {"x": (T.UINT8, [1, 1, 7])})
    m = rng.integers(-128, 128, (7, 2)).astype(np.int8)
    matmul = onnx_files.model(
        [("MatMulInteger", "x m xz mz", "y")], {"m": m, "xz": np.uint8(9), "mz": np.asarray([1, -2], np.int8)},
        {"x": (T.UINT8, [1, 7])},
    )  # fmt: skip
    for proto, kind, shape in ((conv, "Conv", (1, 1, 7)), (bare, "Conv", (1, 1, 7)), (matmul, "MatMul", (1, 7))):
        proto = onnx_files.typed(proto, y=T.INT32)
        made = read(proto)
        assert ops(made) == ["DequantizeLinear", kind]
        weight = made.constants[made.nodes[1].inputs[1]]
        assert weight.codes is not None and (weight.scale == 1).all()
        for _ in range(10):
            x = rng.integers(0, 256, shape).astype(np.uint8)
            np.testing.assert_array_equal(onnx_files.interpret(made, {"x": x})["y"], run(proto, x=x))


def test_qonnx_names() -> None:
    constants = {"s": F32(1), "z": F32(0), "b": F32(4)}
    flags = {"signed": 1, "narrow": 0}
    specs = [
        ("qonnx.custom_op.intquant::IntQuant", "x s z b", "a", {**flags, "rounding_mode": "half_even"}),
        ("qonnx.custom_op.general::Quant", "a s z b", "c", flags),
        ("onnx.brevitas::Quant", "c s z b", "d", {**flags, "rounding_mode": "round_to_zero"}),
        ("qonnx.custom_op.general::Trunc", "d s z b s b", "e"),
        ("qonnx.custom_op.general::Trunc", "e s z b s b", "y", {"rounding_mode": "round"}),
    ]
    made = read(onnx_files.model(specs, constants, qonnx__custom_op__general=2))
    assert [(n.op, n.domain, n.attributes["rounding_mode"], n.opset) for n in made.nodes] == [
        ("Quant", "qonnx", "ROUND", 1),
        ("Quant", "qonnx", "ROUND", 2),
        ("Quant", "qonnx", "DOWN", 1),
        ("Trunc", "qonnx", "FLOOR", 2),
        ("Trunc", "qonnx", "ROUND", 2),
    ]
    specs[0][3]["rounding_mode"] = "DPU"
    with pytest.raises(UnsupportedError, match=r"^node IntQuant_0: rounding_mode is 'DPU', must be one of ROUND, CEIL"):
        read(onnx_files.model(specs, constants, qonnx__custom_op__general=2))


def test_constants_are_folded_with_their_codes() -> None:
    constants = {"w": np.asarray([[0.4, -0.3, 9], [1, 2, 3]], F32), "s": F32(0.5), "z": F32(0), "b": F32(3)}
    specs = [
        ("qonnx.custom_op.general::Quant", "w s z b", "q", {"signed": 1, "narrow": 1}),
        ("Transpose", "q", "t"),
        ("MatMul", "x t", "y"),
    ]
    made = read(onnx_files.model(specs, constants, {"x": [1, 3]}, qonnx__custom_op__general=1))
    assert ops(made) == ["MatMul"] and list(made.constants) == ["t"]
    assert made.constants["t"].codes.tolist() == [[1, 2], [-1, 3], [3, 3]]
    tie = {**constants, "w": np.asarray([[0.5 * F32(0.1)] * 3], F32), "s": F32(0.1)}
    noted = read(onnx_files.model(specs, tie, {"x": [1, 3]}, qonnx__custom_op__general=1)).notes
    assert len(noted) <= 1 and all("in float32" in note for note in noted)


REFUSED = {
    "float": (
        [("qonnx.custom_op.general::FloatQuant", "x s", "y")],
        "node FloatQuant_0: minifloat quantization is not supported; use integer quantizers",
    ),
    "dynamic": (
        [("DynamicQuantizeLinear", "x", "y a b")],
        "node DynamicQuantizeLinear_0: scales that depend on the data are not supported; use static quantization",
    ),
    "blocked": (
        [("QuantizeLinear", "x s", "y", {"block_size": 2})],
        "node QuantizeLinear_0: blocked quantization (block_size 2) is not supported; quantize per tensor or per channel",
    ),
    "rows": (
        [("QLinearMatMul", "i r z w s z8 s z", "y")],
        "node QLinearMatMul_0: its a has one scale for each row, must have one; quantize it per tensor",
    ),
    "y rows": (
        [("QLinearMatMul", "i s z w s z8 r z", "y")],
        "node QLinearMatMul_0: its y has one scale for each row, must have one; quantize it per tensor",
    ),
    "scale that is data": (
        [("ReduceMax", "x", "m", {"keepdims": 0}), ("QLinearMatMul", "i m z w s z8 s z", "y")],
        "node QLinearMatMul_1: its a scale is not a constant; use static quantization",
    ),
    "float8": (
        [("QuantizeLinear", "x s", "y", {"output_dtype": T.FLOAT8E4M3FN})],
        "node QuantizeLinear_0: its output is float8e4m3fn, must be integers of 4, 8 or 16 bits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    specs, said = REFUSED[name]
    constants = {
        "s": F32(1), "r": np.ones(3, F32), "z": np.uint8(0), "z8": np.int8(0), "w": np.ones((4, 3), np.int8)
    }  # fmt: skip
    inputs = {"x": [1, 4], "i": (T.UINT8, [1, 4])}
    with pytest.raises(UnsupportedError) as caught:
        read(onnx_files.model(specs, constants, inputs, opset=21 if name in ("blocked", "float8") else 13))
    assert str(caught.value) == said
