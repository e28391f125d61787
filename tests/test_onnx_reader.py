"""Small files on which the loaded graph once meant something else than the file, found by reading the front end with a hostile eye."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import toolchain
from tests.onnx_net import Net
from tests.test_onnx_exact import compare
from toolchain.errors import UnsupportedError

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
    assert any("softmax is left to the host" in note for note in notes)


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


REFUSED = {
    r"node Squeeze_1: no axes, which takes the batch from \[1, 3, 4, 1\] too; give it the axes": refused_squeeze,
    "node Resize_1: policy 'not_larger'; give scales, or stretch": refused_policy,
    r"node Dropout_1: drops values at random \(training_mode\); export the model in eval mode": refused_dropout,
    "node BatchNormalization_1: more outputs than one, as in training; export the model in eval mode": refused_training,
}


@pytest.mark.parametrize("text", REFUSED)
def test_is_refused(text: str) -> None:
    n, y = REFUSED[text]()
    with pytest.raises(UnsupportedError, match=f"^{text}$"):
        toolchain.load(n.model(y))
