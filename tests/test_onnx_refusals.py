"""What the QONNX front end refuses: always a ToolchainError of one line that names the node or the tensor, never a traceback, never a wrong answer."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolchain
from tests.onnx_models import QONNX, Net, scales
from toolchain import cli
from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.options import LoadOptions

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {}  # name -> builder, words of the message


def refused(words: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def keep(build: Callable[[], Any]) -> Callable[[], Any]:
        REFUSED[build.__name__] = (build, words)
        return build

    return keep


def unchecked(n: Net, *outputs: str) -> Any:
    """A model that the oracle could not run: no shapes of the outputs."""
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(n.nodes, "model", n.inputs, infos, n.constants)
    domains = {"": n.opset, n.domain: n.version, **{x.domain: 1 for x in n.nodes if x.domain not in ("", n.domain)}}
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()], ir_version=8)


def head(n: Net, *shape: int) -> str:
    return n.quant(n.input(*(shape or (6,))), 0.25, 4)


def ended(n: Net, x: str) -> Any:
    return unchecked(n, n.quant(n.add("MatMul", x, n.weight((6, 4), 0.25)), 0.5, 5))


def one(op: str, *shape: int, domain: str = "", consts: Any = (), last: bool = True, **attributes: Any) -> Any:
    """The input quantizer, this node, a quantizer."""
    n = Net(seed=1)
    y = n.add(op, head(n, *shape), *(n.const(c, d) for c, d in consts), domain=domain, **attributes)
    return unchecked(n, n.quant(y, 0.5, 5) if last else y)


# --- quantizers ---------------------------------------------------------------------------------------------------------


@refused("FloatQuant_4")
def float_quant() -> Any:
    n = Net()
    parts = [n.const(v) for v in (1.0, 4.0, 3.0, 7.0, 448.0)]
    n.add("Identity", "x"), n.add("Identity", "t0"), n.add("Identity", "t1"), n.add("Identity", "t2")
    n.input(6)
    y = n.add(
        "FloatQuant",
        "t3",
        *parts,
        domain=QONNX,
        rounding_mode="ROUND",
        has_inf=0,
        has_nan=0,
        has_subnormal=1,
        saturation=1,
    )
    return unchecked(n, y)


@refused("Quant_3.*scale")
def scale_from_data() -> Any:
    n = Net()
    x = head(n)
    s = n.add("MatMul", n.add("Relu", x), n.const(np.ones((6, 1))))
    return unchecked(
        n, n.add("Quant", x, s, n.const(0.0), n.const(4.0), domain=QONNX, signed=1, narrow=0, rounding_mode="ROUND")
    )


@refused("Quant_2.*bit")
def bits_from_data() -> Any:
    n = Net()
    x = head(n, 1)
    b = n.add("Relu", x)
    return unchecked(
        n, n.add("Quant", x, n.const(1.0), n.const(0.0), b, domain=QONNX, signed=1, narrow=0, rounding_mode="ROUND")
    )


@refused("Quant_1.*zero")
def zero_point_from_data() -> Any:
    n = Net()
    x = head(n, 1)
    return unchecked(
        n, n.add("Quant", x, n.const(1.0), x, n.const(4.0), domain=QONNX, signed=1, narrow=0, rounding_mode="ROUND")
    )


def odd_quant(
    scale: Any = 0.5, bits: Any = 4, zero: Any = 0.0, mode: str = "ROUND", shape: tuple[int, ...] = (6,)
) -> Any:
    n = Net()
    x = head(n, *shape)
    return unchecked(n, n.quant(x, scale, bits, zero, mode=mode))


for name, words, how in (
    ("bits_fraction", "Quant_1.*bit", {"bits": 3.5}), ("bits_zero", "Quant_1.*bit", {"bits": 0}),
    ("bits_many", "Quant_1.*bit", {"bits": 80}), ("bits_negative", "Quant_1.*bit", {"bits": -3}),
    ("bits_nan", "Quant_1.*bit", {"bits": np.nan}), ("bits_per_channel", "Quant_1.*bit", {"bits": [4, 4, 4, 4, 3, 4]}),
    ("scale_zero", "Quant_1.*scale", {"scale": 0.0}), ("scale_negative", "Quant_1.*scale", {"scale": -0.5}),
    ("scale_nan", "Quant_1.*scale", {"scale": np.nan}), ("scale_infinite", "Quant_1.*scale", {"scale": np.inf}),
    ("scale_channel_zero", "Quant_1.*scale", {"scale": [[1.0, 1, 0, 1, 1, 1]]}),
    ("scale_shape", "Quant_1", {"scale": [1.0, 2.0]}), ("zero_fraction", "Quant_1.*zero", {"zero": 0.5}),
    ("zero_nan", "Quant_1.*zero", {"zero": np.nan}), ("mode_unknown", "Quant_1.*STOCHASTIC", {"mode": "STOCHASTIC"}),
    ("mode_learned", "Quant_1.*LEARNED_ROUND", {"mode": "LEARNED_ROUND"}),
):  # fmt: skip
    REFUSED[name] = (lambda how=how: odd_quant(**how), words)


@refused("Quant_1")
def quant_inputs_missing() -> Any:
    n = Net()
    return unchecked(n, n.add("Quant", head(n), n.const(1.0), domain=QONNX, signed=1, narrow=0, rounding_mode="ROUND"))


@refused("DynamicQuantizeLinear_0")
def dynamic_quantize() -> Any:
    n = Net()
    q, s, z = n.add("DynamicQuantizeLinear", n.input(6), count=3)
    return unchecked(n, n.add("DequantizeLinear", q, s, z))


@refused("QuantizeLinear_0.*block")
def block_quantize() -> Any:
    n = Net(21)
    y = n.add("QuantizeLinear", n.input(6), n.const([[0.5, 0.25]]), axis=1, block_size=3)
    return unchecked(n, n.add("DequantizeLinear", y, n.const([[0.5, 0.25]]), axis=1, block_size=3))


@refused("float8")
def float8() -> Any:
    n = Net(19)
    z = n.typed([0.0], TensorProto.FLOAT8E4M3FN)
    return unchecked(
        n, n.add("DequantizeLinear", n.add("QuantizeLinear", n.input(6), n.const([0.5]), z), n.const([0.5]), z)
    )


@refused("QuantizeLinear_2.*scale")
def qdq_scale_from_data() -> Any:
    n = Net()
    x = head(n)
    s = n.add("MatMul", x, n.const(np.ones((6, 1))))
    return unchecked(n, n.add("QuantizeLinear", x, s, n.const(0, np.int8)))


@refused("Trunc_1.*zero point")
def trunc_zero_point_between() -> Any:
    """5 / 8 of a step: the result lies on no grid of integers times its scale."""
    n = Net()
    x = n.quant(n.input(5), 0.125, 8, 5)
    given = (0.125, 5, 8, 1.0, 4)
    return unchecked(
        n, n.add("Trunc", x, *map(n.const, given), domain=QONNX, rounding_mode="FLOOR", signed=1, narrow=0)
    )


@refused("input x.*--input-type")
def bipolar_input() -> Any:
    """Two values of which the file does not say the integers."""
    n = Net()
    return ended(n, n.add("BipolarQuant", n.input(6), n.const(0.5), domain=QONNX))


@refused("LeakyRelu_1.*slope")
def leakyrelu_falls() -> Any:
    return one("LeakyRelu", alpha=-0.5)


@refused("PRelu_1.*slope")
def prelu_falls() -> Any:
    return one("PRelu", consts=[([0.5, 0.5, -0.5, 0.1, 0.1, 0.1], np.float32)])


@refused("MaxPool_1.*dilation")
def maxpool_dilations() -> Any:
    return one("MaxPool", 3, 7, 6, kernel_shape=[2, 2], dilations=[2, 1])


@refused("Transpose_1.*batch")
def gemm_of_the_batch() -> Any:
    n = Net()
    x = n.add("Transpose", head(n), perm=[1, 0])
    return unchecked(n, n.quant(n.add("Gemm", x, n.weight((6, 4), 0.25), transA=1), 0.5, 5))


@refused("MatMul_2")
def weight_first() -> Any:
    n = Net()
    x = head(n, 6, 3)
    return unchecked(n, n.quant(n.add("MatMul", n.weight((4, 6), 0.25), x), 0.5, 6))


@refused("DequantizeLinear_2.*zero point")
def zero_point_of_floats() -> Any:
    """ONNX: of the type of what is dequantized. 0.5 must not become 0."""
    n = Net()
    y = n.add(
        "DequantizeLinear",
        n.add("QuantizeLinear", head(n), n.const(0.5), n.const(0, np.int8)),
        n.const(0.5),
        n.const(0.5),
    )
    return unchecked(n, y)


@refused("Quant_0.*scale")
def scale_of_no_elements() -> Any:
    n = Net()
    return ended(n, n.quant(n.input(6), np.zeros(0), 4))


@refused("Quant_0.*zero point")
def zero_point_of_no_elements() -> Any:
    n = Net()
    return ended(n, n.quant(n.input(6), 0.5, 4, np.zeros(0)))


@refused("Quant_1")
def quant_of_nothing() -> Any:
    n = Net()
    x = head(n)
    w = n.add("Quant", "", *map(n.const, (0.25, 0.0, 4.0)), domain=QONNX, signed=1, narrow=1, rounding_mode="ROUND")
    return unchecked(n, n.quant(n.add("MatMul", x, w), 0.5, 5))


@refused("Clip_1.*(qonnx|domain)")
def clip_of_qonnx() -> Any:
    """QONNX has no Clip; ONNX's is another operator."""
    return one("Clip", domain=QONNX, consts=[(-0.5, np.float32), (0.5, np.float32)])


@refused("QuantizeLinear_1.*(qonnx|domain)")
def quantize_linear_of_qonnx() -> Any:
    return one("QuantizeLinear", domain=QONNX, consts=[(0.5, np.float32), (0, np.int8)])


@refused("MultiThreshold_1")
def thresholds_scaled_by_nan() -> Any:
    return one(
        "MultiThreshold", domain=QONNX, consts=[([[0.5, 1.0]], np.float32)], out_dtype="UINT2", out_scale=float("nan")
    )


@refused("LeakyRelu_1")
def leakyrelu_of_nan() -> Any:
    return one("LeakyRelu", alpha=float("nan"))


# --- layers -------------------------------------------------------------------------------------------------------------


@refused("MatMul_2")
def matmul_of_two() -> Any:
    n = Net()
    x = head(n, 5, 5)
    y = n.add("Transpose", x, perm=[0, 2, 1])
    return unchecked(n, n.quant(n.add("MatMul", x, y), 0.5, 5))


@refused("Conv_1.*weight")
def conv_of_data() -> Any:
    n = Net()
    x = head(n, 3, 4, 4)
    return unchecked(n, n.quant(n.add("Conv", x, x), 0.5, 5))


@refused("Div_2")
def div_by_data() -> Any:
    n = Net()
    x = head(n)
    return unchecked(n, n.quant(n.add("Div", x, n.add("Relu", x)), 0.5, 5))


@refused("Div_1")
def div_by_zero() -> Any:
    return one("Div", consts=[([1.0, 0, 1, 1, 1, 1], np.float32)])


@refused("Div_1")
def const_by_data() -> Any:
    n = Net()
    return unchecked(n, n.quant(n.add("Div", n.const(1.0), head(n)), 0.5, 5))


@refused("MatMul_1.*weight")
def float_weights() -> Any:
    n = Net()
    return unchecked(n, n.quant(n.add("MatMul", head(n), n.const(n.floats(6, 4))), 0.5, 5))


@refused("Conv_1.*weight")
def float_weights_conv() -> Any:
    n = Net()
    return unchecked(n, n.quant(n.add("Conv", head(n, 3, 5, 4), n.const(n.floats(4, 3, 2, 2))), 0.5, 5))


@refused("MatMul_1.*(NaN|nan|finite)")
def weights_nan() -> Any:
    n = Net()
    w = np.ones((6, 4))
    w[2, 1] = np.nan
    return unchecked(n, n.quant(n.add("MatMul", head(n), n.const(w)), 0.5, 5))


@refused("(Quant_1|MatMul_2).*")
def quantized_weights_nan() -> Any:
    n = Net()
    w = np.ones((6, 4))
    w[2, 1] = np.inf * 0
    x = head(n)
    return unchecked(n, n.quant(n.add("MatMul", x, n.quant(n.const(w), 0.5, 4)), 0.5, 5))


@refused("Add_3.*NaN")
def bias_infinite() -> Any:
    n = Net()
    x = head(n)
    y = n.add(
        "MatMul",
        x,
        n.add("Quant", n.const(n.floats(6, 4)), *(n.const(v) for v in (0.25, 0, 4)), domain=QONNX, signed=1, narrow=1),
    )
    n.nodes[-1], n.nodes[-2] = n.nodes[-1], n.nodes[-2]
    return unchecked(n, n.quant(n.add("Add", y, n.const([1.0, np.inf, 0, 0])), 0.5, 5))


@refused("MatMul_2.*weight")
def scale_along_the_sum() -> Any:
    """A scale for each input of a dense layer: no integer sum has it."""
    n = Net()
    x = head(n)
    w = n.weight((6, 4), np.array([[0.1], [0.2], [0.3], [0.4], [0.5], [0.7]], np.float32))
    return unchecked(n, n.quant(n.add("MatMul", x, w), 0.5, 5))


def weighted(op: str, data: tuple[int, ...], weight: tuple[int, ...]) -> Any:
    """One sum of products between quantizers."""
    n = Net()
    x = head(n, *data)
    return unchecked(n, n.quant(n.add(op, x, n.weight(weight, 0.25)), 0.5, 5))


@refused("Conv_2")
def conv3d() -> Any:
    return weighted("Conv", (2, 4, 4, 4), (3, 2, 2, 2, 2))


@refused("t2.*channels")
def conv_channels_differ() -> Any:
    return weighted("Conv", (2, 4, 4), (3, 5, 2, 2))


@refused("MatMul_2")
def matmul_sizes_differ() -> Any:
    return weighted("MatMul", (5,), (6, 4))


@refused("Reshape_1")
def reshape_impossible() -> Any:
    return one("Reshape", 3, 4, consts=[([1, 5, 5], np.int64)])


@refused("Reshape_1")
def reshape_takes_the_batch() -> Any:
    return one("Reshape", 3, 4, consts=[([12], np.int64)])


@refused("Transpose_1")
def transpose_takes_the_batch() -> Any:
    return one("Transpose", 3, 4, perm=[1, 0, 2])


@refused("Flatten_1")
def flatten_axis_two() -> Any:
    return one("Flatten", 3, 4, 5, axis=2)


@refused("ConvTranspose_2")
def conv_transpose() -> Any:
    return weighted("ConvTranspose", (3, 4, 4), (3, 2, 2, 2))


@refused("BatchNormalization_1.*training")
def batchnorm_training() -> Any:
    n = Net(14)
    y = n.add("BatchNormalization", head(n), *(n.const([1.0] * 6) for _ in range(4)), training_mode=1)
    return unchecked(n, n.quant(y, 0.5, 5))


@refused("BatchNormalization_1.*varian")
def batchnorm_negative_variance() -> Any:
    return one("BatchNormalization", 4, consts=[([1.0] * 4, np.float32)] * 3 + [([1.0, -2, 1, 1], np.float32)])


@refused("t1_1")
def maxpool_indices() -> Any:
    n = Net()
    _, index = n.add("MaxPool", head(n, 3, 4, 4), count=2, kernel_shape=[2, 2])
    return unchecked(n, index)


@refused("Resize_1.*linear")
def resize_linear() -> Any:
    n = Net()
    y = n.add("Resize", head(n, 3, 4, 4), "", n.const([1, 1, 2, 2]), mode="linear")
    return unchecked(n, n.quant(y, 0.5, 5))


@refused("Resize_1")
def resize_fraction() -> Any:
    n = Net()
    y = n.add("Resize", head(n, 3, 4, 4), "", n.const([1, 1, 1.5, 1.5]), mode="nearest")
    return unchecked(n, n.quant(y, 0.5, 5))


@refused("Resize_1")
def resize_channels() -> Any:
    n = Net()
    y = n.add("Resize", head(n, 3, 4, 4), "", n.const([1, 2, 1, 1]), mode="nearest")
    return unchecked(n, n.quant(y, 0.5, 5))


@refused("Pad_1.*reflect")
def pad_reflect() -> Any:
    return one("Pad", 3, 4, 4, consts=[([0, 0, 1, 1, 0, 0, 1, 1], np.int64)], mode="reflect")


@refused("Pad_1")
def pad_batch() -> Any:
    return one("Pad", 3, 4, 4, consts=[([1, 0, 0, 0, 0, 0, 0, 0], np.int64)])


@refused("MatMul_3.*softmax")
def softmax_inside() -> Any:
    n = Net()
    return ended(n, n.add("Softmax", head(n), axis=1))


@refused("ArgMax_3.*softmax")
def softmax_rounded_then_argmax() -> Any:
    n = Net()
    x = n.quant(n.add("Softmax", head(n), axis=1), 1 / 256, 8, signed=0)
    return unchecked(n, n.add("ArgMax", x, axis=1))


@refused("Exp_1")
def unquantizable_op() -> Any:
    return one("Exp", last=False)


@refused("LSTM_1")
def lstm() -> Any:
    n = Net()
    y = n.add("LSTM", head(n, 4, 3), n.const(n.floats(1, 8, 3)), n.const(n.floats(1, 8, 2)), hidden_size=2)
    return unchecked(n, n.quant(y, 0.5, 5))


@refused("If_1")
def control_flow() -> Any:
    n = Net()
    x = head(n)
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 6])
    branch = helper.make_graph([helper.make_node("Identity", [x], ["o"])], "b", [], [out])
    y = n.add("If", n.const(True, bool), then_branch=branch, else_branch=branch)
    return unchecked(n, n.quant(y, 0.5, 5))


@refused("MatMul_3.*tanh")
def tanh_then_layer() -> Any:
    n = Net()
    return ended(n, n.add("Tanh", head(n)))


@refused("Widget_1.*com.acme")
def unknown_domain() -> Any:
    return one("Widget", domain="com.acme")


@refused("Gizmo_1")
def unknown_op() -> Any:
    return one("Gizmo")


@refused("XnorPopcountMatMul_1")
def unknown_qonnx_op() -> Any:
    return one("XnorPopcountMatMul", domain=QONNX)


@refused("FusedConv_1.*com.microsoft")
def microsoft() -> Any:
    return one("FusedConv", 3, 4, 4, domain="com.microsoft")


# --- files --------------------------------------------------------------------------------------------------------------


def with_input(dims: Any) -> Any:
    n = Net()
    n.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, dims))
    y = n.add("GlobalAveragePool", n.quant("x", 0.25, 4))
    return unchecked(n, n.quant(y, 0.125, 5))


@refused("x.*dynamic")
def dynamic_height() -> Any:
    return with_input([1, 3, "height", 5])


@refused("x.*shape")
def no_shape() -> Any:
    return with_input(None)


@refused("x.*batch.*--batch 1")
def batch_of_four() -> Any:
    return with_input([4, 3, 6, 5])


@refused("x")
def input_of_strings() -> Any:
    made = with_input([1, 3, 6, 5])
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    return made


@refused("x.*--input-type")
def input_without_type() -> Any:
    n = Net()
    return unchecked(n, n.quant(n.add("MatMul", n.input(6), n.weight((6, 4), 0.25)), 0.5, 5))


@refused("nothing")
def undefined_tensor() -> Any:
    n = Net()
    head(n)
    return unchecked(n, n.quant("nothing", 0.5, 5))


@refused("t9")
def undefined_output() -> Any:
    n = Net()
    head(n)
    return unchecked(n, "t9")


@refused("(t1|t2|Relu_1|Relu_2)")
def cycle() -> Any:
    n = Net()
    head(n)
    n.add("Relu", "t2")
    n.add("Relu", "t1")
    return unchecked(n, "t2")


@refused("t0")
def made_twice() -> Any:
    n = Net()
    x = head(n)
    n.nodes.append(helper.make_node("Relu", [x], [x], name="again"))
    return unchecked(n, x)


@refused("output")
def no_outputs() -> Any:
    n = Net()
    head(n)
    return unchecked(n)


@refused("input")
def no_inputs() -> Any:
    n = Net()
    return unchecked(n, n.quant(n.const(n.floats(1, 4)), 0.5, 5))


@refused("opset 6")
def opset_too_old() -> Any:
    made = with_input([1, 3, 6, 5])
    made.opset_import[0].version = 6
    return made


@refused("opset 99")
def opset_too_new() -> Any:
    made = with_input([1, 3, 6, 5])
    made.opset_import[0].version = 99
    return made


@refused("c0.*weights.bin")
def external_data_of_a_live_model() -> Any:
    n = Net()
    x = head(n)
    w = n.weight((6, 4), 0.25)
    made = unchecked(n, n.quant(n.add("MatMul", x, w), 0.5, 5))
    t = made.graph.initializer[0]
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    t.external_data.add(key="location", value="weights.bin")
    return made


@refused("c0")
def damaged_initializer() -> Any:
    n = Net()
    x = head(n)
    made = unchecked(n, n.quant(n.add("MatMul", x, n.weight((6, 4), 0.25)), 0.5, 5))
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-1]
    return made


@refused("(TopK_1)")
def topk_values_inside() -> Any:
    n = Net()
    values, _ = n.add("TopK", head(n), n.const([3], np.int64), count=2)
    return unchecked(n, n.quant(values, 0.5, 5))


@refused("ArgMax_1.*last")
def argmax_last_index() -> Any:
    return one("ArgMax", axis=1, select_last_index=1, last=False)


@contextlib.contextmanager
def refusals_kept(told: list[str], name: str = "") -> Iterator[None]:
    try:
        yield
    except ToolchainError as error:
        told.append(f"{name}{error}")
        raise


def message(error: ToolchainError, words: str) -> None:
    """One line, that says where and what, in the house's form."""
    text = str(error)
    assert "\n" not in text and "Traceback" not in text and len(text) < 600, text
    assert re.search(words, text), (words, text)
    assert not re.search(r"0x[0-9a-f]{6}|<class|array\(", text), text
    assert error.exit_code == 2


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    build, words = REFUSED[name]
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(build())
    message(raised.value, words)


def test_the_whole_texts(golden: Callable[[str, str], None]) -> None:
    """Every refusal word for word; `make golden` and the diff show what a change of wording does."""
    lines = []
    for name, (build, _) in REFUSED.items():
        with contextlib.suppress(Exception), refusals_kept(lines, f"{name}: "):  # another error fails the test above
            toolchain.load(build())
    golden("onnx_refusals.txt", "\n".join(lines) + "\n")


UNSUPPORTED = [
    "float_quant", "scale_from_data", "dynamic_quantize", "block_quantize", "matmul_of_two", "conv3d", "float_weights",
    "lstm", "control_flow", "unknown_domain", "unknown_op", "unknown_qonnx_op", "resize_linear", "pad_reflect", "conv_transpose",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_we_do_not_do_is_unsupported(name: str) -> None:
    """Not the file's fault: UnsupportedError, so that a caller can tell."""
    with pytest.raises(UnsupportedError):
        toolchain.load(REFUSED[name][0]())


@pytest.mark.parametrize(
    "name",
    [
        "float_quant",
        "batch_of_four",
        "dynamic_height",
        "unknown_domain",
        "matmul_of_two",
        "input_without_type",
        "undefined_tensor",
    ],
)
def test_the_command_line_says_the_same(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, words = REFUSED[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(build().SerializeToString())
    assert cli.main(["inspect", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ") and told.err.count("\n") == 1
    assert re.search(words, told.err), told.err


def file_of(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    return path


def good() -> Any:
    n = Net(seed=2)
    x = head(n)
    return n.model(n.quant(n.add("MatMul", x, n.weight((6, 4), 0.25)), 0.5, 5))


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 400, -1, -20])
def test_a_damaged_file(cut: int, tmp_path: Path) -> None:
    data = good().SerializeToString()
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(file_of(tmp_path, data[:cut]))
    message(raised.value, r"model\.onnx")


@pytest.mark.parametrize(
    "data", [b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(50), bytes(1000), b"{}"]
)
def test_a_file_of_something_else(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(file_of(tmp_path, data))
    message(raised.value, r"model\.onnx")


def test_bytes_turned_at_random(tmp_path: Path) -> None:
    """A damaged model is refused or still a model; never another error, and never one of many lines."""
    data = good().SerializeToString()
    rng = np.random.default_rng(0)
    told = []
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
            broken[at] = int(rng.integers(0, 256))
        with contextlib.suppress(ToolchainError), refusals_kept(told):
            toolchain.load(file_of(tmp_path, bytes(broken)))
    assert len(told) > 20
    assert [text for text in told if "\n" in text] == []


def external(tmp_path: Path, location: str, **more: str) -> Path:
    made = good()
    t = next(t for t in made.graph.initializer if len(t.dims) == 2)
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        t.external_data.add(key=key, value=value)
    return file_of(tmp_path, made.SerializeToString())


@pytest.mark.parametrize(
    "location", ["../weights.bin", "sub/../../weights.bin", "/etc/hostname", "link.bin", "missing.bin", ""]
)
def test_external_data_outside_the_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(96))
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(external(folder, location))
    message(raised.value, "c3.*(lie|file)")


@pytest.mark.parametrize(
    "more", [{"offset": "90"}, {"offset": "-4"}, {"length": "1000"}, {"offset": "x"}, {"length": "95"}]
)
def test_external_data_cut_short(more: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(96))
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(external(tmp_path, "weights.bin", **more))
    message(raised.value, "weights.bin|external")


def test_external_data_inside_the_folder_is_read(tmp_path: Path) -> None:
    made = good()
    t = next(t for t in made.graph.initializer if len(t.dims) == 2)
    values = numpy_helper.to_array(t)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.bin").write_bytes(bytes(8) + values.tobytes() + bytes(3))
    path = external(tmp_path, "data/weights.bin", offset="8", length=str(values.nbytes))
    assert toolchain.load(path).digest() == toolchain.load(good()).digest()


def test_a_batch_that_has_a_name_is_one_or_refused_by_name() -> None:
    """A symbolic batch: read as one sample, the same graph as with batch 1; or refused with what to do."""
    try:
        graph = toolchain.load(with_input(["N", 3, 6, 5]))
    except ToolchainError as error:
        message(error, "x.*--batch 1")
    else:
        assert graph.digest() == toolchain.load(with_input([1, 3, 6, 5])).digest()


def test_too_wide_is_refused_not_wrong() -> None:
    """32-bit data times 32-bit weights, a hundred of them: beyond int64."""
    n = Net(seed=3)
    x = n.quant(n.input(100), 2.0**-20, 32)
    w = n.quant(n.const(n.floats(100, 3) * 2.0**31), 1.0, 32)
    made = n.model(n.quant(n.add("MatMul", x, w), 2.0**-3, 16))
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(made)
    message(raised.value, "t2.*bits")


def test_an_input_scale_for_each_row_is_refused() -> None:
    n = Net(seed=4)
    step = scales("channel", 0.25, 4, 2, 4)
    x = n.quant(n.input(3, 4, 5), step, 4)
    with pytest.raises(ToolchainError) as raised:
        toolchain.load(unchecked(n, n.quant(n.add("Conv", x, n.weight((2, 3, 2, 2), 0.25)), 0.5, 5)))
    message(raised.value, "input x")


def test_options_do_not_silence_the_file() -> None:
    """An input type beside the model's own input quantizer: one of them, never a mixture of both."""
    try:
        graph = toolchain.load(good(), LoadOptions((8, False), None, 0))
    except ToolchainError as error:
        message(error, "x")
    else:
        assert graph.inputs[0].qtype.bits in (4, 8)


assert onnx
