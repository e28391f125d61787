"""ONNX test models: branches that meet, residuals, concatenations; pools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tests.onnx_net import Case, Net, scales


def branches(op: str, a: Any, b: Any, out: Any = 0.25, rank: int = 4, bits: int = 5, **more: Any) -> Any:
    """Two quantized branches of one input, joined."""
    n = Net(seed=23)
    size, first, second = ((3, 5, 4), (4, 3, 3, 3), (4, 3, 1, 1)) if rank == 4 else ((6,), (6, 4), (6, 4))
    x = n.quant(n.input(*size), 0.125, 4)
    if rank == 4:
        p = n.add("Conv", x, n.weight(first, 0.25), pads=[1, 1, 1, 1])
        q = n.add("Conv", x, n.weight(second, 0.25))
    else:
        p, q = n.add("MatMul", x, n.weight(first, 0.25)), n.add("MatMul", x, n.weight(second, 0.25))
    p, q = n.quant(p, a, 4, more.pop("zero", 0)), n.quant(q, b, 4)
    y = n.add(op, p, q, **more)
    return n.model(y if out is None else n.quant(y, out, bits))


def joined() -> Iterator[Case]:
    apart = (np.float32(0.3), np.float32(0.17))
    for op in ("Add", "Sub", "Mul"):
        yield Case(f"branch-{op.lower()}-equal", lambda o=op: branches(o, 0.25, 0.25))
        yield Case(f"branch-{op.lower()}-po2", lambda o=op: branches(o, 0.25, 0.0625))
        yield Case(f"branch-{op.lower()}-float", lambda o=op: branches(o, *apart))
        yield Case(f"branch-{op.lower()}-float-equal", lambda o=op: branches(o, apart[0], apart[0], 0.41))
        yield Case(f"branch-{op.lower()}-dense", lambda o=op: branches(o, 0.25, 0.5, rank=2))
        yield Case(f"branch-{op.lower()}-zp", lambda o=op: branches(o, 0.25, 0.5, zero=3))
        yield Case(f"branch-{op.lower()}-raw", lambda o=op: branches(o, 0.25, 0.5, None))
    channel = scales("channel", 0.25, 4, 1, 4)
    yield Case("branch-add-channel", lambda: branches("Add", channel, 0.25))
    yield Case("branch-add-channels-po2", lambda: branches("Add", scales("channel_po2", 0.25, 4, 1, 4), 0.25))
    yield Case("concat-equal", lambda: branches("Concat", 0.25, 0.25, axis=1))
    yield Case("concat-po2", lambda: branches("Concat", 0.25, 0.0625, axis=1))
    yield Case("concat-float", lambda: branches("Concat", *apart, axis=1))
    yield Case("concat-float-raw", lambda: branches("Concat", *apart, None, axis=1))
    yield Case("concat-raw", lambda: branches("Concat", 0.25, 0.25, None, axis=1))
    yield Case("concat-negative-axis", lambda: branches("Concat", 0.25, 0.125, axis=-3))
    yield Case("concat-spatial", lambda: branches("Concat", 0.25, 0.25, axis=2))
    yield Case("concat-spatial-float", lambda: branches("Concat", *apart, axis=3))
    yield Case("concat-dense", lambda: branches("Concat", *apart, rank=2, axis=1))
    yield Case("concat-zp", lambda: branches("Concat", 0.25, 0.5, zero=3, axis=1))
    yield Case("concat-then-conv", concat_then_conv)
    yield Case("add-accumulators", lambda: add_accumulators(0.25, 0.25))
    yield Case("add-accumulators-float", lambda: add_accumulators(0.3, 0.17))
    yield Case("residual", residual)
    for op in ("Mul", "Add", "Sub"):
        yield Case(f"excite-{op.lower()}", lambda o=op: excite(o))
        yield Case(f"excite-{op.lower()}-first", lambda o=op: excite(o, True))
    yield Case("concat-flat", concat_flat)
    yield Case("unet", unet)
    yield Case("two-inputs", two_inputs)
    yield Case("two-outputs", two_outputs)
    yield Case("add-with-itself", with_itself)


def concat_then_conv() -> Any:
    n = Net(seed=24)
    x = n.quant(n.input(3, 5, 4), 0.125, 4)
    p = n.quant(n.add("Conv", x, n.weight((2, 3, 1, 1), 0.25)), 0.3, 4)
    y = n.quant(n.add("Concat", p, x, axis=1), 0.21, 5)
    return n.model(n.quant(n.add("Conv", y, n.weight((4, 5, 2, 2), 0.3)), 0.4, 4))


def add_accumulators(a: float, b: float) -> Any:
    n = Net(seed=25)
    x = n.quant(n.input(6), 0.125, 4)
    y = n.add("Add", n.add("MatMul", x, n.weight((6, 4), a)), n.add("MatMul", x, n.weight((6, 4), b)))
    return n.model(n.quant(y, 0.5, 5))


def residual() -> Any:
    n = Net(seed=26)
    x = n.quant(n.input(3, 5, 4), 0.0937, 5)
    y = n.add("Conv", x, n.weight((3, 3, 3, 3), scales("channel", 0.25, 3, 0, 4)), pads=[1, 1, 1, 1])
    given = (n.floats(3), n.floats(3), n.floats(3), n.floats(3, lo=0.5, hi=2))
    y = n.quant(n.add("Relu", n.add("BatchNormalization", y, *map(n.const, given))), 0.11, 4, signed=0)
    y = n.add("Conv", y, n.weight((3, 3, 3, 3), 0.0713), pads=[1, 1, 1, 1])
    y = n.add("Add", n.quant(y, 0.19, 5), x)
    return n.model(n.quant(n.add("Relu", y), 0.12, 4, signed=0))


def excite(op: str, first: bool = False) -> Any:
    """Squeeze and excite: a factor for each channel, reckoned from the image itself."""
    n = Net(seed=68)
    x = n.quant(n.input(3, 5, 4), 0.125, 4)
    y = n.quant(n.add("GlobalAveragePool", x), 0.1, 5)
    y = n.add("Sigmoid", n.add("Conv", y, n.weight((3, 3, 1, 1), 0.5), n.const(n.floats(3))))
    y = n.quant(y, 1 / 16, 4, signed=0)
    return n.model(n.quant(n.add(op, *((y, x) if first else (x, y))), 0.07, 5))


def concat_flat() -> Any:
    """A flattened image beside another row of features."""
    n = Net(seed=69)
    x = n.quant(n.input(3, 5, 4), 0.125, 4)
    a = n.quant(n.add("Conv", x, n.weight((2, 3, 3, 2), 0.25)), 0.5, 4)  # [2, 3, 3]
    y = n.add("Concat", n.add("Flatten", a), n.add("Flatten", n.add("GlobalMaxPool", x)), axis=1)
    return n.model(n.quant(n.add("MatMul", n.quant(y, 0.3, 4), n.weight((21, 4), 0.25)), 0.5, 6))


def unet() -> Any:
    n = Net(seed=70)
    x = n.quant(n.input(3, 6, 4), 0.125, 4)
    y = n.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    y = n.quant(n.add("Relu", n.add("Conv", y, n.weight((2, 3, 3, 3), 0.3), pads=[1, 1, 1, 1])), 0.37, 4, signed=0)
    y = n.add("Concat", n.add("Resize", y, "", n.const([1, 1, 2, 2]), mode="nearest"), x, axis=1)
    y = n.add("Conv", n.quant(y, 0.2, 4), n.weight((4, 5, 1, 1), 0.25), n.const(n.floats(4)))
    return n.model(n.add("ArgMax", y, axis=1))


def two_inputs() -> Any:
    n = Net(seed=27)
    a, b = n.quant(n.input(4, name="a"), 0.25, 4), n.quant(n.input(4, name="b"), 0.125, 5, signed=0)
    return n.model(n.quant(n.add("Add", a, b), 0.5, 4))


def two_outputs() -> Any:
    n = Net(seed=28)
    x = n.quant(n.input(6), 0.125, 5)
    y = n.quant(n.add("MatMul", x, n.weight((6, 4), 0.25)), 0.5, 5)
    return n.model(y, n.quant(n.add("MatMul", y, n.weight((4, 3), 0.25)), 0.5, 5))


def with_itself() -> Any:
    n = Net(seed=29)
    x = n.quant(n.input(6), 0.125, 5)
    return n.model(n.quant(n.add("Add", x, x), 0.5, 4))


def pooled(
    op: str, out: Any = 0.25, size: tuple[int, ...] = (3, 7, 6), opset: int = 13, scale: Any = 0.125, consts: Sequence[Any] = (),
    **attributes: Any,
) -> Any:  # fmt: skip
    n = Net(opset, seed=30)
    x = n.quant(n.input(*size), scale, 5)
    y = n.add(op, x, *(n.const(c, np.int64) for c in consts), **attributes)
    return n.model(y if out is None else n.quant(y, out, 5))


def pools() -> Iterator[Case]:
    k = {"kernel_shape": [3, 2]}
    forms: dict[str, dict[str, Any]] = {
        "plain": k, "strides": {**k, "strides": [2, 2]}, "pads": {**k, "pads": [1, 0, 1, 1]},
        "ceil": {**k, "strides": [3, 4], "ceil_mode": 1}, "ceil-pads": {**k, "strides": [2, 3], "pads": [1, 1, 1, 0], "ceil_mode": 1},
        "same-upper": {**k, "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        "same-lower": {**k, "strides": [2, 2], "auto_pad": "SAME_LOWER"},
        "valid": {**k, "strides": [2, 1], "auto_pad": "VALID"},
    }  # fmt: skip
    for name, form in forms.items():
        yield Case(f"averagepool-{name}", lambda f=form: pooled("AveragePool", **f))
        yield Case(f"averagepool-{name}-padded", lambda f=form: pooled("AveragePool", count_include_pad=1, **f))
        yield Case(f"maxpool-{name}", lambda f=form: pooled("MaxPool", None, **f))
    yield Case("averagepool-raw", lambda: pooled("AveragePool", None, **k))
    yield Case("averagepool-pads-raw", lambda: pooled("AveragePool", None, **forms["pads"]))
    yield Case("averagepool-float", lambda: pooled("AveragePool", 0.17, scale=0.1, **forms["pads"]))
    yield Case("averagepool-1d", lambda: pooled("AveragePool", size=(3, 11), kernel_shape=[4], strides=[2]))
    yield Case("maxpool-1d", lambda: pooled("MaxPool", None, size=(3, 9), kernel_shape=[3], strides=[2], pads=[1, 0]))
    yield Case("maxpool-requantized", lambda: pooled("MaxPool", **k))
    yield Case("globalaverage", lambda: pooled("GlobalAveragePool"))
    yield Case("globalaverage-raw", lambda: pooled("GlobalAveragePool", None))
    yield Case("globalaverage-1d", lambda: pooled("GlobalAveragePool", size=(3, 9)))
    yield Case("globalaverage-float", lambda: pooled("GlobalAveragePool", 0.0917, scale=0.1))
    yield Case("globalmax", lambda: pooled("GlobalMaxPool"))
    yield Case("reducemean-13", lambda: pooled("ReduceMean", axes=[2, 3], keepdims=0))
    yield Case("reducemean-13-keep", lambda: pooled("ReduceMean", axes=[2, 3], keepdims=1))
    yield Case("reducemean-negative", lambda: pooled("ReduceMean", axes=[-1, -2], keepdims=0))
    yield Case("reducemean-18", lambda: pooled("ReduceMean", opset=18, consts=[[2, 3]], keepdims=0))
    yield Case("reducemean-21-keep", lambda: pooled("ReduceMean", opset=21, consts=[[2, 3]]))
    yield Case("averagepool-of-accumulator", pool_accumulator)
    yield Case("maxpool-of-accumulator", lambda: pool_accumulator("MaxPool"))
    yield Case("maxpool-after-relu", maxpool_after_relu)


def pool_accumulator(op: str = "AveragePool") -> Any:
    n = Net(seed=31)
    y = n.add("Conv", n.quant(n.input(3, 6, 5), 0.125, 4), n.weight((4, 3, 2, 2), 0.25), n.const(n.floats(4)))
    y = n.add(op, n.add("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    return n.model(n.quant(y, 0.25, 4, signed=0))


def maxpool_after_relu() -> Any:
    n = Net(seed=32)
    y = n.add("Conv", n.quant(n.input(3, 6, 5), 0.125, 4), n.weight((4, 3, 2, 2), 0.3))
    y = n.quant(n.add("Relu", y), 0.27, 4, signed=0)
    return n.model(n.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0]))
