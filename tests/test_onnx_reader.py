"""Small files on which the loaded graph once meant something else than the file, found by reading the front end with a hostile eye."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import toolchain
from tests.onnx_net import INPUT_U8, Net
from tests.test_onnx_exact import compare
from toolchain.errors import ToolchainError, UnsupportedError

SLOPES = [0.25, 0.5, 0.125]


def net(*shape: int, opset: int = 13) -> tuple[Net, str]:
    n = Net(opset, seed=3)
    return n, n.quant(n.input(*shape), 0.125, 6)


def clip_upside_down(end: str) -> Any:
    """A minimum above the maximum: all are the maximum."""
    n, x = net(6)
    y = n.add("Clip", x, n.const(1.0), n.const(-0.5))
    if end == "quant":
        return n.model(n.quant(y, 0.25, 5))
    return n.model(n.add("MultiThreshold", y, n.const([[-1, 0, 0.5, 2]]), domain=n.domain))


def prelu(end: str) -> Any:
    """A slope for each channel, and what comes after it reads other channels, of as many or more."""
    n, x = net(3, 3, 3)
    y = n.add("PRelu", x, n.const(np.reshape(SLOPES, (3, 1, 1))))
    match end:
        case "pool":
            y = n.add("MaxPool", n.add("Transpose", y, perm=[0, 2, 1, 3]), kernel_shape=[2, 2])
            return n.model(n.quant(y, 0.25, 5))
        case "transpose":
            y = n.add("Transpose", n.add("Reshape", y, n.const([1, 9, 3], np.int64)), perm=[0, 2, 1])
            return n.model(n.quant(y, 0.25, 5))
        case "scale":
            return n.model(n.quant(y, np.reshape([0.25, 0.5, 1], (1, 3, 1)), 5))
        case _:
            return n.model(n.quant(n.add("Flatten", y), n.floats(27, lo=0.1, hi=1), 5))


def argmax_of_slopes() -> Any:
    n, x = net(3)
    return n.model(n.add("ArgMax", n.add("PRelu", x, n.const(SLOPES)), axis=1))


def steep(slope: Any) -> Any:
    """A slope above 1, and no quantizer after it."""
    n, x = net(4)
    if isinstance(slope, float):
        return n.model(n.add("LeakyRelu", x, alpha=slope))
    return n.model(n.add("PRelu", x, n.const(slope)))


def crossed(scale: tuple[int, ...], zero: tuple[int, ...]) -> Any:
    """Scales along one axis, zero points along another of the same size."""
    n, x = net(3, 3, 3)
    return n.model(n.quant(x, np.reshape([0.25, 0.5, 0.125], scale), 5, np.reshape([-2.0, 0, 3], zero)))


def more_axes(op: str) -> Any:
    """A constant of more axes than the data: the data has as many from there on."""
    n, x = net(4)
    match op:
        case "scalar":
            y = n.add("Mul", x, n.const([[[0.5]]]))
        case "vector":
            y = n.add("Mul", x, n.const([[[1.0, 2, 3, 4]]]))
        case "scale":
            y = n.quant(x, [[[0.25]]], 5)
        case _:
            y = n.quant(x, 0.25, 5, [[[1.0]]])
    return n.model(n.add("ArgMax", y, axis=1))


def gemm_of_nothing() -> Any:
    n, x = net(4)
    return n.model(n.quant(n.add("Gemm", x, n.weight((4, 3), 0.25), n.const([1, 2, 3]), alpha=0.0), 0.5, 5))


def conv_of_nothing() -> Any:
    n, x = net(3, 4, 4)
    y = n.add("Conv", n.add("Mul", x, n.const(0.0)), n.weight((2, 3, 2, 2), 0.25), n.const([1, 2]))
    return n.model(n.quant(y, 0.5, 5))


def enlarged(by: str, axes: list[int]) -> Any:
    n, x = net(3, 2, 3, opset=18)
    rows = {2: 4, 3: 9}
    given = [n.const([], np.float32), n.const([rows[a % 4] for a in axes], np.int64)]
    if by == "scales":
        given = [n.const([2.0 if a % 4 == 2 else 3.0 for a in axes])]
    return n.model(n.add("Resize", x, "", *given, mode="nearest", axes=axes))


def one_channel_and_scales() -> Any:
    """A tensor of one channel added to one with a scale for each channel."""
    n = Net(seed=5)
    a = n.quant(
        n.add("Relu", n.quant(n.input(3, 4, 4, name="a"), 0.125, 5)), np.reshape([0.25, 0.5, 0.0625], (3, 1, 1)), 5
    )
    return n.model(n.quant(n.add("Add", a, n.quant(n.input(1, 4, 4, name="b"), 0.125, 5)), 0.5, 5))


MODELS: dict[str, Callable[[], Any]] = {
    "clip-quant": lambda: clip_upside_down("quant"),
    "clip-thresholds": lambda: clip_upside_down("thresholds"),
    "prelu-flat": lambda: prelu("flat"),
    "prelu-argmax": argmax_of_slopes,
    "leaky-2": lambda: steep(2.0),
    "prelu-mixed": lambda: steep([0.5, 2, 1, 0]),
    "prelu-steep": lambda: steep([1.5, 2, 1, 4]),
    "scales-and-zero-points": lambda: crossed((1, 3, 1, 1), (1, 1, 3, 1)),
    "scales-and-zero-points-channels-last": lambda: crossed((1, 1, 1, 3), (1, 3, 1, 1)),
    "scales-and-zero-points-everywhere": lambda: crossed((1, 1, 3, 1), (1, 1, 1, 3)),
    **{f"more-axes-{op}": (lambda o=op: more_axes(o)) for op in ("scalar", "vector", "scale", "zero point")},
    "gemm-alpha-0": gemm_of_nothing,
    "conv-of-zeros": conv_of_nothing,
    **{
        f"resize-{by}-{axes}": (lambda b=by, a=axes: enlarged(b, a))
        for by in ("sizes", "scales")
        for axes in ([2, 3], [3, 2], [-1], [-1, -2])
    },
    "one-channel-and-scales": one_channel_and_scales,
}


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_exact_meaning(name: str) -> None:
    compare(MODELS[name](), None, 1)


@pytest.mark.parametrize("end", ["pool", "transpose", "scale"])
def test_slopes_of_channels_that_are_moved_are_refused(end: str) -> None:
    with pytest.raises(
        UnsupportedError, match="needs the integers that leaky has no quantizer for; quantize after leaky"
    ):
        toolchain.load(prelu(end))


def softmax(*moves: Callable[[Net, str], str], axis: int = 1, argmax: int | None = 1) -> Any:
    n, x = net(3, 4, 2)
    y = n.add("Softmax", x, axis=axis)
    for move in moves:
        y = move(n, y)
    return n.model(y if argmax is None else n.add("ArgMax", y, axis=argmax))


def turned(*perm: int) -> Callable[[Net, str], str]:
    return lambda n, y: str(n.add("Transpose", y, perm=perm))


def reshaped(*shape: int) -> Callable[[Net, str], str]:
    return lambda n, y: str(n.add("Reshape", y, n.const([1, *shape], np.int64)))


@pytest.mark.parametrize(
    ("moves", "argmax"),
    [
        ((turned(0, 2, 3, 1),), 3),
        ((turned(0, 3, 1, 2),), 2),
        ((reshaped(3, 8),), 1),
        ((reshaped(1, 3, 4, 2),), 2),
        ((reshaped(3, 1, 8), turned(0, 2, 3, 1)), 3),
    ],
)
def test_the_softmax_axis_moves_with_the_tensor(moves: Any, argmax: int) -> None:
    compare(softmax(*moves, argmax=argmax), None, 1)  # the oracle's softmax is nothing: the largest is the same


@pytest.mark.parametrize(
    "moves",
    [
        (turned(0, 2, 3, 1),),
        (reshaped(6, 4),),
        (reshaped(24),),
        (reshaped(2, 3, 4),),
        (reshaped(6, 4), reshaped(3, 4, 2)),
    ],
)
def test_the_largest_along_another_axis_than_the_softmax_is_refused(moves: Any) -> None:
    with pytest.raises(UnsupportedError, match="the largest of another axis than the softmax before it; use one axis"):
        toolchain.load(softmax(*moves))


def test_a_softmax_whose_axis_is_taken_apart_is_not_left_to_the_host() -> None:
    with pytest.raises(UnsupportedError, match="softmax along an axis that a reshape takes apart; reshape before it"):
        toolchain.load(softmax(reshaped(24), argmax=None))
    notes = toolchain.load(softmax(reshaped(3, 8), argmax=None)).notes
    assert any("softmax along axis 1 of the model's [1, 3, 8] is left to the host" in note for note in notes)


def test_a_log_softmax_is_called_so() -> None:
    n, x = net(4)
    model = n.model(n.add("MatMul", x, n.weight((4, 3), 0.25)))
    n.add("LogSoftmax", model.graph.output[0].name, axis=1)
    model.graph.node.append(n.nodes[-1])
    model.graph.output[0].name = n.nodes[-1].output[0]
    assert any(
        "logsoftmax is left to the host; it holds what logsoftmax reads" in m for m in toolchain.load(model).notes
    )


def refused_squeeze() -> Any:
    n, x = net(3, 4, 1)
    return n, n.add("Squeeze", x)


def refused_policy() -> Any:
    n, x = net(3, 2, 3, opset=18)
    sizes = n.const([1, 3, 4, 9], np.int64)
    return n, n.add("Resize", x, "", "", sizes, mode="nearest", keep_aspect_ratio_policy="not_larger")


def refused_dropout() -> Any:
    n, x = net(4)
    return n, n.add("Dropout", x, n.const(0.5), n.const(True, bool))


def refused_training() -> Any:
    n, x = net(4, opset=9)
    given = (n.floats(4), n.floats(4), n.floats(4), n.floats(4, lo=0.5, hi=2))
    return n, n.add("BatchNormalization", x, *map(n.const, given), count=5)[0]


def refused_layout() -> Any:
    n, x = net(3)
    y = n.add("MultiThreshold", x, n.const(np.sort(n.floats(3, 4), axis=1)), domain=n.domain)
    model = n.model(y)
    model.graph.node[-1].attribute.append(helper.make_attribute("data_layout", "NHWC"))
    return model


def refused_steps() -> Any:
    n, x = net(3)
    return n, n.quant(n.add("Sigmoid", x), 2.0**-20, 24, signed=0)


def odd_kernel() -> Any:
    n, x = net(3, 4, 4)
    model = n.model(n.add("Conv", x, n.weight((2, 3, 2, 2), 0.25)))
    model.graph.node[-1].attribute.append(helper.make_attribute("kernel_shape", [1, 1]))
    return model


def odd_bias() -> Any:
    n, x = net(4)
    model = n.model(n.add("Gemm", x, n.weight((4, 3), 0.25), n.const([1, 2, 3])))
    model.graph.initializer[-1].dims[:] = [3, 1]
    return model


def odd_bound() -> Any:
    n, x = net(4)
    return n, n.add("Clip", x, n.const([0, 0.25, 0.5, 0]))


REFUSED = {
    r"node Conv_2: kernel_shape \[1, 1\] with the weight \[2, 3, 2, 2\]; export again": odd_kernel,
    r"node Gemm_2: a bias \[3, 1\] for 3 outputs; give one for each output": odd_bias,
    r"node Clip_1: its min has the shape \[4\], must be one value; export again": odd_bound,
    r"node MultiThreshold_1: data_layout NHWC of \[1, 3\]; export the model again": refused_layout,
    "node Quant_2: steps of 9.54e-07 after sigmoid; use fewer bits": refused_steps,
    r"node Squeeze_1: no axes, which takes the batch from \[1, 3, 4, 1\] too; give it the axes": refused_squeeze,
    "node Resize_1: policy 'not_larger'; give scales, or stretch": refused_policy,
    r"node Dropout_1: drops values at random \(training_mode\); export the model in eval mode": refused_dropout,
    "node BatchNormalization_1: more outputs than one, as in training; export the model in eval mode": refused_training,
}


@pytest.mark.parametrize("text", REFUSED)
def test_is_refused(text: str) -> None:
    made = REFUSED[text]()
    with pytest.raises(UnsupportedError, match=f"^{text}$"):
        toolchain.load(made[0].model(made[1]) if isinstance(made, tuple) else made)


def test_a_wide_quantizer_of_a_sigmoid_has_the_steps_that_the_sigmoid_reaches() -> None:
    n, x = net(3)
    model = n.model(n.quant(n.add("Sigmoid", x), 1 / 256, 32))  # 2**32 codes, of which 257 are reached
    compare(model, None, 1)


def of_integers(*more: str) -> Any:
    """An input of int8 that the model dequantizes, and others of real numbers."""
    n = Net(seed=5)
    n.inputs.append(helper.make_tensor_value_info("x", TensorProto.INT8, [1, 4]))
    y = n.add("DequantizeLinear", "x", n.const(0.25), n.const(3, np.int8))
    for name in more:
        y = n.add("Add", y, n.input(4, name=name))
    return n.model(n.quant(y, 0.5, 4))


def test_input_type_is_for_inputs_of_real_numbers() -> None:
    graph = toolchain.load(of_integers("y"), INPUT_U8)
    assert [(t.name, t.qtype.text, t.qtype.scale, t.qtype.zero_point) for t in graph.inputs] == [
        ("x", "s8", Fraction(1, 4), 3),
        ("y", "u8", Fraction(1, 64), 0),
    ]
    with pytest.raises(
        ToolchainError, match=r"^--input-type: is given, but input x holds int8 integers already; leave it out$"
    ):
        toolchain.load(of_integers(), INPUT_U8)


@pytest.mark.parametrize("mode", ["FLOOR", "CEIL", "HALF_UP", "ROUND"])
def test_an_input_that_is_not_rounded_half_to_even_is_noted(mode: str) -> None:
    n = Net(seed=5)
    graph = toolchain.load(n.model(n.quant(n.input(4), 0.25, 5, mode=mode)))
    said = f"input x: the model's quantizer rounds it by {mode}, real samples are rounded half to even here; give stored integers"
    assert [note.startswith(said) for note in graph.notes] == ([True] if mode != "ROUND" else [])


def test_a_quantized_softmax_at_the_end_is_left_to_the_host() -> None:
    """As onnxruntime's quantize_static writes it by default."""
    n = Net(seed=3)
    logits = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, 4), 0.25))
    soft = n.add("Softmax", logits, axis=1)
    scale, zero = n.const(1 / 256), n.const(0, np.uint8)
    out = n.add("DequantizeLinear", n.add("QuantizeLinear", soft, scale, zero), scale, zero)
    graph = toolchain.load(n.model(out))
    assert any("softmax and its quantizer are left to the host" in note for note in graph.notes)
    (output,) = graph.outputs
    assert output.qtype.scales == (Fraction(1, 32),)  # the logits' own unit
