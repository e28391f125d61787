"""What a TFLite model may not have: each refusal's whole text. None of them is a traceback, none a wrong graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tflite_files import OPERATORS, Node, T, constant, model, one_op
from toolchain import cli, flow
from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.options import LoadOptions

CONVERT = "convert with full integer quantization (int8, or int16 activations with int8 weights)"
WINDOW = {"padding": "same", "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "activation": "none"}


def x(
    shape: tuple[int, ...] = (1, 4), kind: str = "int8", scale: float | None = 0.5, zero: int = 0, name: str = "x"
) -> T:
    return T(shape, kind, scale, zero, name=name)


def y(*arguments: Any, **more: Any) -> T:
    return x(*arguments, **{"name": "y", **more})


def w(shape: tuple[int, ...], scale: float | list[float] = 0.25, zero: int = 0, axis: int = 0, kind: str = "int8") -> T:
    return constant(np.ones(shape), kind, scale=scale, zero_point=zero, axis=axis)


def dense(weights: T, bias: T | None = None, **more: Any) -> bytes:
    return one_op("FULLY_CONNECTED", [x(), weights, bias], [y((1, weights.shape[0]))], **{"activation": "none", **more})


def unknown() -> bytes:
    OPERATORS["FLOOR_DIV"] = (90, 0, {})
    try:
        return one_op("FLOOR_DIV", [x(), x(name="b")], [y()])
    finally:
        del OPERATORS["FLOOR_DIV"]


def big(count: int) -> bytes:
    weights = constant(np.full((1, count), 127), "int8", scale=0.25)
    bias = constant([(1 << 31) - 1], "int32", scale=0.125)
    return one_op("FULLY_CONNECTED", [x((1, count)), weights, bias], [y((1, 1))], activation="none")


def middle() -> bytes:
    a, b, c = x(), T((1, 4), "float32", name="b"), T((1, 4), "int8", 0.25, name="c")
    return model([Node("DEQUANTIZE", [a], [b]), Node("QUANTIZE", [b], [c])])


FLOAT = T((1, 4), "float32", name="x")
WIDE = T((1, 4), "int16", 2.0**-15, name="t")
REFUSED: dict[str, tuple[bytes, str]] = {
    "float": (
        one_op("RELU", [FLOAT], [T((1, 4), "float32", name="y")]),
        f"input tensor 0 (x): is float32 and is not quantized first, by one scale; {CONVERT}",
    ),
    "uint8": (
        one_op("RELU", [x(kind="uint8")], [y(kind="uint8")]),
        f"operator 0 RELU (y): tensor 0 (x) is uint8; supported here: int8, int16; {CONVERT}",
    ),
    "integers without a scale": (
        one_op("RESHAPE", [x(scale=None), constant([4])], [y((4,), scale=None)]),
        "tensor 0 (x): has 0 scales, must have one; convert with full integer quantization",
    ),
    "real values in the middle": (
        middle(),
        f"operator 0 DEQUANTIZE (b): its real values are read by operator 1 QUANTIZE (c); a graph holds integers alone; {CONVERT}",
    ),
    "hybrid": (
        one_op("FULLY_CONNECTED", [x(), w((2, 4), kind="int16"), None], [y((1, 2))], activation="none"),
        f"operator 0 FULLY_CONNECTED (y): tensor 1 (t1) is int16; supported here: int8; {CONVERT}",
    ),
    "weights with a zero point": (
        dense(w((2, 4), zero=3)),
        "operator 0 FULLY_CONNECTED (y): its weights have a zero point, must have 0; quantize weights symmetrically",
    ),
    "weights that are computed": (
        one_op("FULLY_CONNECTED", [x(), x((2, 4), name="w"), None], [y((1, 2))], activation="none"),
        "operator 0 FULLY_CONNECTED (y): weights tensor 1 (w) is computed, must be a constant; export with fixed shapes",
    ),
    "weight scales along another axis": (
        dense(w((2, 4), scale=[0.25, 0.5, 0.1, 0.2], axis=1)),
        "operator 0 FULLY_CONNECTED (y): has 4 weight scales along axis 1, must be 1, or 2 along axis 0; quantize weights per output channel",
    ),
    "bias of another type": (
        dense(w((2, 4)), constant([1, 2], "int64", scale=0.125)),
        "operator 0 FULLY_CONNECTED (y): bias tensor 2 (t2) is int64, must be int32; convert with the converter's own bias type",
    ),
    "shuffled weights": (
        dense(w((2, 4)), weights_format=1),
        "operator 0 FULLY_CONNECTED (y): its weights are stored shuffled; export with weights_format DEFAULT",
    ),
    "a fused tanh": (
        dense(w((2, 4)), activation="tanh"),
        "operator 0 FULLY_CONNECTED (y): fuses tanh; supported: relu, relu6, relu_n1_to_1",
    ),
    "sums beyond 32 bits": (
        big(4),
        "operator 0 FULLY_CONNECTED (y): its sums reach 2147418623..2147548163, where TensorFlow Lite Micro's 32 bits overflow; "
        "use fewer inputs, or weights and biases that are smaller",
    ),
    "a batch of 2": (
        one_op("CONV_2D", [x((2, 4, 4, 1)), w((1, 3, 3, 1)), None], [y((2, 4, 4, 1))], **WINDOW),
        "operator 0 CONV_2D (y): has a batch of 2, must be 1; export with a batch of 1",
    ),
    "a shape that is not the operator's": (
        one_op("CONV_2D", [x((1, 4, 4, 1)), w((1, 3, 3, 1)), None], [y((1, 4, 5, 1))], **WINDOW),
        "operator 0 CONV_2D (y): makes [1, 4, 4, 1], but the file says [1, 4, 5, 1]; export or copy the model again",
    ),
    "strides of 0": (
        one_op("CONV_2D", [x((1, 4, 4, 1)), w((1, 3, 3, 1)), None], [y((1, 4, 4, 1))], **{**WINDOW, "stride_w": 0}),
        "operator 0 CONV_2D (y): strides [1, 0], must be 1 to 4096; export or copy the model again",
    ),
    "an output scale that is too fine": (
        one_op("ADD", [x(), x(name="b")], [y(scale=2.0**-21)], activation="none"),
        "operator 0 ADD (y): its output scale 4.76837e-07 is too fine for inputs of scale 0.5: TensorFlow Lite Micro refuses it; "
        "quantize the model again",
    ),
    "a constant that is larger than the input": (
        one_op("ADD", [x((1, 1)), w((1, 4))], [y((1, 4))], activation="none"),
        "operator 0 ADD (y): its constant is larger than its input; repeat the input before it",
    ),
    "pooling to another scale": (
        one_op("MAX_POOL_2D", [x((1, 2, 2, 1))], [y((1, 1, 1, 1), scale=0.25)], padding="valid", stride_h=2, stride_w=2, filter_h=2, filter_w=2,
               activation="none"),
        "operator 0 MAX_POOL_2D (y): its input and output have different scales or zero points, which TensorFlow Lite Micro refuses; "
        "quantize the model again",
    ),
    "a mean over axes apart": (
        one_op("MEAN", [x((1, 2, 3, 4)), constant([1, 3])], [y((1, 1, 3, 1))], keep_dims=True),
        "operator 0 MEAN (y): a mean over axes [1, 3] of [1, 2, 3, 4]; transpose, so that they are neighbours",
    ),
    "a tanh of 16 bits to another scale": (
        one_op("TANH", [x(kind="int16")], [y(kind="int16")]),
        "operator 0 TANH (y): its output has scale 0.5, must have 2**-15; quantize the model again",
    ),
    "a logistic of 16 bits that overflows": (
        one_op("LOGISTIC", [x(kind="int16", scale=5.34)], [WIDE]),
        "operator 0 LOGISTIC (t): its input has scale 5.34, where TensorFlow Lite Micro's 32 bits overflow; must be 2**-44 to 16/3; "
        "quantize the model again",
    ),
    "a tanh of 16 bits that vanishes": (
        one_op("TANH", [x(kind="int16", scale=2.0**-45)], [WIDE]),
        "operator 0 TANH (t): its input has scale 2.84217e-14, where TensorFlow Lite Micro's 32 bits overflow; must be 2**-44 to 16/3; "
        "quantize the model again",
    ),
    "a softmax of 16 bits that overflows": (
        one_op("SOFTMAX", [x(kind="int16", scale=2.0)], [WIDE], beta=2.6),
        "operator 0 SOFTMAX (t): its input's scale times beta is 5.2, where TensorFlow Lite Micro's 32 bits overflow; must be 5 or less; "
        "quantize the model again",
    ),
    "a softmax of 16 bits to 8": (
        one_op("SOFTMAX", [x(kind="int16")], [y(scale=1 / 256, zero=-128)], beta=1.0),
        f"operator 0 SOFTMAX (y): tensor 1 (y) is int8; supported here: int16; {CONVERT}",
    ),
    "a softmax of 16 bits to another scale": (
        one_op("SOFTMAX", [x(kind="int16")], [y(kind="int16", scale=1 / 65536)], beta=1.0),
        "operator 0 SOFTMAX (y): its output has scale 1.52588e-05 and zero point 0, must have 3.05176e-05 and 0; convert again",
    ),
    "a hard swish of 16 bits": (
        one_op("HARD_SWISH", [x(kind="int16")], [y(kind="int16")]),
        f"operator 0 HARD_SWISH (y): tensor 0 (x) is int16; supported here: int8; {CONVERT}",
    ),
    "a concatenation of several scales": (
        one_op("CONCATENATION", [x(), x(scale=0.25, name="b")], [y((1, 8))], axis=1),
        "operator 0 CONCATENATION (y): its inputs and output have different scales or zero points, which TensorFlow Lite Micro refuses; "
        "quantize the model again",
    ),
    "a reversing slice": (
        one_op("STRIDED_SLICE", [x(), constant([0, 3]), constant([1, 0]), constant([1, -1])], [y((1, 3))], begin_mask=0, end_mask=0),
        "operator 0 STRIDED_SLICE (y): strides [1, -1], must be 1 or more; reverse before it",
    ),
    "a resize by a fraction": (
        one_op("RESIZE_NEAREST_NEIGHBOR", [x((1, 2, 2, 1)), constant([3, 4])], [y((1, 3, 4, 1))], align_corners=False),
        "operator 0 RESIZE_NEAREST_NEIGHBOR (y): makes 3 of 2 along axis 1, must repeat or leave out by a whole factor; "
        "resize by a whole factor",
    ),
    "a softmax to another scale": (
        one_op("SOFTMAX", [x()], [y(scale=0.01)], beta=1.0),
        "operator 0 SOFTMAX (y): its output has scale 0.01 and zero point 0, must have 0.00390625 and -128; convert again",
    ),
    "an output that is a constant": (
        model([Node("RELU", [x()], [y()])], outputs=[w((1, 4))]),
        "output tensor 2 (t2): is a constant, or nothing makes it; remove it",
    ),
}  # fmt: skip


def refusal(folder: Path, file: bytes) -> str:
    path = folder / "m.tflite"
    path.write_bytes(file)
    with pytest.raises(ToolchainError) as caught:
        flow.load(path)
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path) -> None:
    file, text = REFUSED[name]
    assert refusal(tmp_path, file) == text


def test_an_operator_that_is_not_read_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path, unknown())
    assert said.startswith("operator 0 FLOOR_DIV (y): is not supported; supported: ADD, AVERAGE_POOL_2D, ")


def test_what_runs_out_of_order_is_refused(tmp_path: Path) -> None:
    a, b, c = x(), T((1, 4), "int8", 0.5, name="b"), T((1, 4), "int8", 0.5, name="c")
    said = refusal(tmp_path, model([Node("RELU", [b], [c]), Node("RELU", [a], [b])], [a], [c]))
    assert (
        said == "operator 0 RELU (c): reads tensor 1 (b), which nothing before it makes; export or copy the model again"
    )
    twice = refusal(tmp_path, model([Node("RELU", [a], [b]), Node("RELU", [a], [b])], [a], [b]))
    assert twice == "operator 1 RELU (b): makes tensor 1 (b), which is there already; export or copy the model again"


def test_options_of_the_input_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(one_op("RELU", [x()], [y()]))
    with pytest.raises(ToolchainError) as caught:
        flow.load(path, LoadOptions(input_type="u8", input_scale="1/255"))  # type: ignore[arg-type]
    assert str(caught.value) == f"--input-type: is given, but {path} says its own input types; leave it out"


def test_the_command_line_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\0" * 40)
    assert cli.main(["inspect", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
    assert UnsupportedError.exit_code == 2
