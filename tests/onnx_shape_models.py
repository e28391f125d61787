"""ONNX test models: flattening, reshaping, transposing, padding, enlarging: the order of the elements is the point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tests.onnx_net import KINDS, Case, Net, scales


def conv_then_dense(flat: Callable[[Net, str], str], opset: int = 13, kind: str = "po2", size: int = 60) -> Any:
    """The order of a flattened image is NCHW in the file: weights of the dense layer after it must follow."""
    n = Net(opset, seed=33)
    x = n.quant(n.input(2, 6, 5), 0.125, 4)
    x = n.add("Conv", x, n.weight((3, 2, 2, 2), 0.25))  # [3, 5, 4]
    x = n.quant(n.add("Relu", x), scales("float" if kind in ("float", "channel") else "po2", 0.25), 3, signed=0)
    x = flat(n, x)
    y = n.add("MatMul", x, n.weight((size, 4), scales(kind, 0.25, 4, 1, 2)))
    return n.model(n.quant(y, 1.0, 6))


def flat_by_shape(n: Net, x: str) -> str:
    """x.view(x.size(0), -1) as torch exports it."""
    first = n.add("Gather", n.add("Shape", x), n.const(0, np.int64), axis=0)
    axes = {} if n.opset >= 13 else {"axes": [0]}
    first = n.add("Unsqueeze", first, *([] if axes else [n.const([0], np.int64)]), **axes)
    return str(n.add("Reshape", x, n.add("Concat", first, n.const([-1], np.int64), axis=0)))


def shapes() -> Iterator[Case]:
    def reshaped(*to: int) -> Callable[[Net, str], str]:
        return lambda n, x: str(n.add("Reshape", x, n.const(to, np.int64)))

    def squeezed(n: Net, x: str) -> str:
        x = n.add("GlobalAveragePool", x)
        if n.opset >= 13:
            return str(n.add("Squeeze", x, n.const([2, 3], np.int64)))
        return str(n.add("Squeeze", x, axes=[2, 3]))

    def unsqueezed(n: Net, x: str) -> str:
        x = n.add("Flatten", x)
        if n.opset >= 13:
            return str(n.add("Squeeze", n.add("Unsqueeze", x, n.const([1], np.int64)), n.const([1], np.int64)))
        return str(n.add("Squeeze", n.add("Unsqueeze", x, axes=[1]), axes=[1]))

    def permuted(*perm: int) -> Callable[[Net, str], str]:
        return lambda n, x: str(n.add("Flatten", n.add("Transpose", x, perm=list(perm))))

    def dropped(n: Net, x: str) -> str:
        x = n.add("Dropout", x, ratio=0.5) if n.opset < 12 else n.add("Dropout", x, n.const(0.5))
        return str(n.add("Flatten", n.add("Identity", x)))

    def padded(value: float | None) -> Callable[[Net, str], str]:
        def add(n: Net, x: str) -> str:
            pads = [0, 0, 1, 0, 0, 0, 0, 2]
            if n.opset < 11:
                x = n.add("Pad", x, pads=pads, value=value or 0.0)
            else:
                more = [] if value is None else [n.const(value)]
                x = n.add("Pad", x, n.const(pads, np.int64), *more)
            return str(n.add("Flatten", x))

        return add

    yield Case("flatten", lambda: conv_then_dense(lambda n, x: str(n.add("Flatten", x))))
    yield Case("flatten-9", lambda: conv_then_dense(lambda n, x: str(n.add("Flatten", x, axis=1)), 9))
    yield Case("flatten-negative", lambda: conv_then_dense(lambda n, x: str(n.add("Flatten", x, axis=-3))))
    for kind in KINDS:
        yield Case(f"flatten-{kind}", lambda k=kind: conv_then_dense(lambda n, x: str(n.add("Flatten", x)), kind=k))
    for to in ((1, -1), (1, 60), (0, -1), (-1, 60)):
        yield Case(f"reshape-{to}", lambda t=to: conv_then_dense(reshaped(*t)))
    yield Case("reshape-21", lambda: conv_then_dense(reshaped(1, -1), 21))
    yield Case("reshape-twice", lambda: conv_then_dense(lambda n, x: reshaped(1, 60)(n, reshaped(1, 3, 20)(n, x))))
    yield Case("reshape-by-shape", lambda: conv_then_dense(flat_by_shape))
    yield Case("reshape-by-shape-11", lambda: conv_then_dense(flat_by_shape, 11))
    for opset in (9, 11, 13, 21):
        yield Case(f"squeeze-{opset}", lambda o=opset: conv_then_dense(squeezed, o, size=3))
        yield Case(f"unsqueeze-{opset}", lambda o=opset: conv_then_dense(unsqueezed, o))
        yield Case(f"dropout-{opset}", lambda o=opset: conv_then_dense(dropped, o))
    for perm in ((0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 3, 2), (0, 2, 1, 3)):
        yield Case(f"transpose-{perm}", lambda p=perm: conv_then_dense(permuted(*perm_of(p))))
    for opset in (9, 11, 13, 18, 21):
        yield Case(f"pad-{opset}", lambda o=opset: conv_then_dense(padded(0.0), o, size=108))
    yield Case("pad-none", lambda: conv_then_dense(padded(None), size=108))
    yield Case("pad-value", lambda: conv_then_dense(padded(0.5), size=108))
    yield Case("pad-axes-18", pad_axes)
    yield Case("pad-then-conv", pad_then_conv)
    yield Case("flatten-then-conv-back", flatten_back)
    yield Case("reshape-to-image", reshape_to_image)
    yield Case("rank3-input-dense", rank3_dense)
    yield Case("nhwc-input", nhwc_input)
    yield Case("transpose-output", transpose_output)
    yield Case("conv1d-flatten", conv1d_flatten)
    yield Case("conv1d-from-2d", conv1d_from_2d)
    yield Case("image-to-sequence", image_to_sequence)
    for name, how in UPSAMPLES.items():
        yield Case(f"upsample-{name}", lambda h=how: upsampled(*h))
    yield Case("tokens", tokens)
    yield Case("gemm-bias-of-two-axes", gemm_bias)
    yield Case("flatten-image-only", flatten_image_only)
    yield Case("dense-scale-per-feature-after-flatten", flat_scaled)


def perm_of(p: Sequence[int]) -> Sequence[int]:
    return p


UPSAMPLES: dict[str, tuple[Any, ...]] = {
    "9": (9, "Upsample", ([1, 1, 2, 3],), {"mode": "nearest"}),
    "resize-10": (10, "Resize", ([1, 1, 2, 3],), {"mode": "nearest"}),
    "resize-11-asymmetric": (
        11, "Resize", ([], [1, 1, 3, 2]),
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "resize-13": (13, "Resize", (None, [1, 1, 2, 2]), {"mode": "nearest"}),
    "resize-13-sizes": (13, "Resize", (None, None, [1, 3, 12, 10]), {"mode": "nearest"}),
    "resize-19-pytorch": (
        19, "Resize", (None, [1, 1, 2, 2]),
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "resize-21": (21, "Resize", (None, [1, 1, 3, 2]), {"mode": "nearest"}),
}  # fmt: skip


def upsampled(opset: int, op: str, consts: tuple[Any, ...], attributes: dict[str, Any]) -> Any:
    n = Net(opset, seed=34)
    x = n.quant(n.input(3, 4, 5), 0.125, 4)
    given = ["" if c is None else n.const(c, np.int64 if i == 2 else np.float32) for i, c in enumerate(consts)]
    x = n.add(op, x, *given, **attributes)
    return n.model(n.quant(n.add("Conv", x, n.weight((2, 3, 2, 2), 0.25)), 0.5, 5))


def pad_axes() -> Any:
    n = Net(18, seed=35)
    x = n.quant(n.input(3, 4, 5), 0.125, 4)
    x = n.add("Pad", x, n.const([1, 0, 0, 2], np.int64), n.const(0.0), n.const([-1, 2], np.int64))
    return n.model(n.quant(n.add("Conv", x, n.weight((2, 3, 2, 2), 0.25)), 0.5, 5))


def pad_then_conv() -> Any:
    n = Net(seed=36)
    x = n.quant(n.input(3, 4, 5), 0.125, 4, 3)
    x = n.add("Pad", x, n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    return n.model(n.quant(n.add("Conv", x, n.weight((2, 3, 3, 3), 0.25)), 0.5, 5))


def flatten_back() -> Any:
    """Flat, dense, and an image again: the dense layer's rows are in NCHW order."""
    n = Net(seed=37)
    x = n.quant(n.input(2, 3, 4), 0.125, 4)
    x = n.add("MatMul", n.add("Flatten", x), n.weight((24, 30), 0.25))
    x = n.add("Reshape", n.quant(x, 0.5, 4), n.const([1, 3, 5, 2], np.int64))
    return n.model(n.quant(n.add("Conv", x, n.weight((4, 3, 2, 1), 0.25)), 0.5, 5))


def reshape_to_image() -> Any:
    n = Net(seed=38)
    x = n.add("Reshape", n.quant(n.input(60), 0.125, 4), n.const([1, 3, 4, 5], np.int64))
    return n.model(n.quant(n.add("Conv", x, n.weight((4, 3, 2, 2), 0.25)), 0.5, 5))


def rank3_dense() -> Any:
    n = Net(seed=39)
    x = n.add("Flatten", n.quant(n.input(4, 5), 0.125, 4))
    return n.model(n.quant(n.add("MatMul", x, n.weight((20, 3), 0.25)), 0.5, 5))


def nhwc_input() -> Any:
    """An NHWC input that the file itself turns to NCHW, as Keras exporters write."""
    n = Net(seed=40)
    x = n.add("Transpose", n.quant(n.input(5, 4, 3), 0.125, 4), perm=[0, 3, 1, 2])
    y = n.quant(n.add("Conv", x, n.weight((2, 3, 2, 2), 0.25)), 0.5, 5)
    y = n.add("Reshape", n.add("Transpose", y, perm=[0, 2, 3, 1]), n.const([1, -1], np.int64))
    return n.model(n.quant(n.add("MatMul", y, n.weight((24, 3), 0.25)), 1.0, 6))


def transpose_output() -> Any:
    n = Net(seed=41)
    y = n.quant(n.add("Conv", n.quant(n.input(3, 5, 4), 0.125, 4), n.weight((2, 3, 2, 2), 0.25)), 0.5, 5)
    return n.model(n.add("Flatten", n.add("Transpose", y, perm=[0, 2, 3, 1])))


def conv1d_flatten() -> Any:
    n = Net(seed=42)
    y = n.quant(n.add("Conv", n.quant(n.input(3, 9), 0.1, 4), n.weight((4, 3, 3), 0.3), strides=[2]), 0.4, 4)
    return n.model(n.quant(n.add("MatMul", n.add("Flatten", y), n.weight((16, 3), 0.3)), 0.5, 6))


def conv1d_from_2d() -> Any:
    """[1, 1, C, L] squeezed to a sequence: the axis of the channel appears late."""
    n = Net(seed=43)
    x = n.add("Squeeze", n.quant(n.input(1, 3, 9), 0.125, 4), n.const([1], np.int64))
    return n.model(n.quant(n.add("Conv", x, n.weight((4, 3, 3), 0.25)), 0.5, 5))


def image_to_sequence() -> Any:
    n = Net(seed=44)
    x = n.quant(n.add("Conv", n.quant(n.input(2, 5, 4), 0.125, 4), n.weight((3, 2, 2, 2), 0.25)), 0.5, 4)
    x = n.add("Reshape", x, n.const([1, 3, 12], np.int64))
    return n.model(n.quant(n.add("Conv", x, n.weight((5, 3, 2), 0.25)), 0.5, 5))


def tokens() -> Any:
    """Positions of an image as rows of a matrix product."""
    n = Net(seed=71)
    x = n.quant(n.add("Conv", n.quant(n.input(2, 5, 4), 0.125, 4), n.weight((3, 2, 2, 2), 0.25)), 0.5, 4)
    x = n.add("Transpose", n.add("Reshape", x, n.const([1, 3, 12], np.int64)), perm=[0, 2, 1])
    x = n.quant(n.add("Add", n.add("MatMul", x, n.weight((3, 5), 0.25)), n.const(n.floats(5))), 0.3, 5)
    return n.model(n.quant(n.add("MatMul", n.add("Flatten", x), n.weight((60, 4), 0.25)), 0.5, 6))


def gemm_bias() -> Any:
    n = Net(seed=72)
    y = n.add("Gemm", n.quant(n.input(6), 0.25, 4), n.weight((6, 4), 0.25), n.const(n.floats(1, 4)))
    return n.model(n.quant(y, 0.5, 6))


def flatten_image_only() -> Any:
    n = Net(seed=45)
    return n.model(n.add("Flatten", n.quant(n.input(3, 5, 4), 0.125, 4)))


def flat_scaled() -> Any:
    """A constant for each feature of a flattened image."""
    n = Net(seed=46)
    y = n.quant(n.add("Conv", n.quant(n.input(2, 4, 3), 0.125, 4), n.weight((3, 2, 2, 2), 0.25)), 0.5, 4)
    y = n.quant(n.add("Mul", n.add("Flatten", y), n.const(n.floats(18))), 0.3, 5)
    return n.model(n.quant(n.add("MatMul", y, n.weight((18, 3), 0.25)), 0.5, 6))
