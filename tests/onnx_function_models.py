"""ONNX test models: BatchNorm, activations and constants between a layer and its quantizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tests.onnx_net import INPUT_U8, KINDS, QONNX, Case, Net, scales


def batchnorm(opset: int, where: str, exact: bool = False, kind: str = "po2", after: str = "") -> Any:
    n = Net(opset, seed=14)
    channels = 4
    if where == "input":
        x = n.input(channels, 5, 3)
    elif where == "dense":
        x = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, channels), scales(kind, 0.25, channels, 1, 2)))
    else:
        w = n.weight((channels, 2, 2, 3), scales(kind, 0.25, channels, 0, 4))
        x = n.add("Conv", n.quant(n.input(2, 6, 5), 0.125, 5), w)
    gamma = np.array([0.75, -1.5, 0.0, 1.25])  # falling, and constant
    if exact:
        values, eps = (gamma, [0.5, -0.25, 0.375, 0], [1, 0.5, -2, 0.25], [2.0, 3.75, 0.75, 0.3125]), 0.25
    else:
        values, eps = (gamma * 1.1, n.floats(4), n.floats(4), n.floats(4, lo=0.3, hi=2)), 1e-5
    extra = {"epsilon": eps}
    x = n.add("BatchNormalization", x, *map(n.const, values), **extra)
    if after:
        x = n.add(after, x)
    return n.model(n.quant(x, 0.25, 5, signed=0 if after == "Relu" else 1))


def batchnorms() -> Iterator[Case]:
    for opset in (9, 13, 14, 15, 21):
        yield Case(f"batchnorm-conv-{opset}", lambda o=opset: batchnorm(o, "conv"))
    for kind in KINDS:
        yield Case(f"batchnorm-conv-{kind}", lambda k=kind: batchnorm(13, "conv", kind=k, after="Relu"))
        yield Case(f"batchnorm-dense-{kind}", lambda k=kind: batchnorm(13, "dense", kind=k))
    yield Case("batchnorm-exact", lambda: batchnorm(13, "dense", exact=True))
    yield Case("batchnorm-exact-relu", lambda: batchnorm(13, "conv", exact=True, after="Relu"))
    yield Case("batchnorm-input", lambda: batchnorm(13, "input"), INPUT_U8)
    yield Case("batchnorm-bipolar", batchnorm_bipolar)
    for op, bounds in (
        ("Clip", (-1.0, 1.0)),
        ("Clip", (-1.0, -0.1)),
        ("Relu", ()),
        ("HardSigmoid", ()),
        ("LeakyRelu", ()),
    ):
        name = f"batchnorm-{op.lower()}{list(bounds) or ''}-bipolar"
        yield Case(name, lambda o=op, b=bounds: batchnorm_then_sign(o, b))
    for factor, added in ((0.3, 0.7), (-1.7, 0.1)):
        yield Case(f"batchnorm-clip-affine-{factor}", lambda f=factor, a=added: batchnorm_clip_affine(f, a))
    yield Case("batchnorm-flattened", batchnorm_flattened)
    yield Case("batchnorm-wide", batchnorm_wide)
    yield Case("batchnorm-then-conv", batchnorm_then_conv)


def batchnorm_bipolar() -> Any:
    n = Net(seed=15)
    w = n.add("BipolarQuant", n.const(n.floats(9, 4)), n.const(1.0), domain=QONNX)
    y = n.add("MatMul", n.quant(n.input(9), 0.5, 2), w)
    given = (n.floats(4), n.floats(4), n.floats(4), n.floats(4, lo=0.5, hi=2))
    y = n.add("BatchNormalization", y, *map(n.const, given))
    return n.model(n.add("BipolarQuant", y, n.const(1.0), domain=QONNX))


def batchnorm_then_sign(op: str, bounds: Sequence[float]) -> Any:
    """BatchNorm, hard tanh, sign: what binarized networks are made of."""
    n = Net(seed=65)
    y = n.add("MatMul", n.quant(n.input(6), 0.25, 4), n.weight((6, 3), 0.25))
    given = (n.floats(3), n.floats(3), n.floats(3), n.floats(3, lo=0.5, hi=2))
    y = n.add(op, n.add("BatchNormalization", y, *map(n.const, given)), *map(n.const, bounds))
    return n.model(n.add("BipolarQuant", y, n.const(1.0), domain=QONNX))


def batchnorm_clip_affine(factor: float, added: float) -> Any:
    """What is clipped goes on through a factor and a sum, which may turn it upside down."""
    n = Net(seed=67)
    y = n.add("MatMul", n.quant(n.input(6), 0.25, 4), n.weight((6, 3), 0.25))
    given = (n.floats(3), n.floats(3), n.floats(3), n.floats(3, lo=0.5, hi=2))
    y = n.add("Clip", n.add("BatchNormalization", y, *map(n.const, given)), n.const(-0.4), n.const(0.9))
    y = n.add("Add", n.add("Mul", y, n.const(factor)), n.const(added))
    return n.model(n.quant(y, 0.1, 5))


def batchnorm_flattened() -> Any:
    """Numbers for each feature of a flattened image: they follow the file's order."""
    n = Net(seed=66)
    y = n.quant(n.add("Conv", n.quant(n.input(2, 4, 3), 0.125, 4), n.weight((3, 2, 2, 2), 0.25)), 0.5, 4)
    given = (n.floats(18, lo=0.5), n.floats(18), n.floats(18), n.floats(18, lo=0.5, hi=2))
    y = n.quant(n.add("BatchNormalization", n.add("Flatten", y), *map(n.const, given)), 0.3, 5)
    return n.model(n.quant(n.add("MatMul", y, n.weight((18, 3), 0.25)), 0.5, 6))


def batchnorm_wide() -> Any:
    """12-bit data, 16-bit results: thresholds are many, a multiplier must be found."""
    n = Net(seed=16)
    y = n.add("MatMul", n.quant(n.input(6), 0.37, 12), n.weight((6, 4), 0.013, 8))
    given = (n.floats(4, lo=0.5), n.floats(4), n.floats(4), n.floats(4, lo=0.5, hi=2))
    y = n.add("BatchNormalization", y, *map(n.const, given))
    return n.model(n.quant(y, 0.011, 16))


def batchnorm_then_conv() -> Any:
    n = Net(seed=17)
    x = n.quant(n.input(3, 5, 6), 0.125, 5)
    given = (n.floats(3), n.floats(3), n.floats(3), n.floats(3, lo=0.5, hi=2))
    x = n.quant(n.add("BatchNormalization", x, *map(n.const, given)), 0.25, 4)
    return n.model(n.quant(n.add("Conv", x, n.weight((4, 3, 2, 2), 0.25), pads=[0, 0, 1, 1]), 0.5, 5))


def activation(
    op: str, opset: int = 13, consts: Sequence[Any] = (), bits: int = 4, signed: int = 1, **more: Any
) -> Any:
    n = Net(opset, seed=18)
    x = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, 4), more.pop("step", 0.25)))
    given = ["" if c is None else n.const(c) for c in consts]
    scale = more.pop("scale", 0.25)
    return n.model(n.quant(n.add(op, x, *given, **more), scale, bits, signed=signed))


def activations() -> Iterator[Case]:
    yield Case("relu", lambda: activation("Relu", signed=0))
    yield Case("relu-signed", lambda: activation("Relu"))
    yield Case("relu-float", lambda: activation("Relu", signed=0, step=0.3, scale=0.7))
    for slope in (0.25, 0.1, 0.0, 1.5):
        yield Case(f"leakyrelu-{slope}", lambda a=slope: activation("LeakyRelu", bits=6, alpha=a))
    yield Case("leakyrelu-default", lambda: activation("LeakyRelu", bits=8))
    yield Case("leakyrelu-float", lambda: activation("LeakyRelu", bits=6, step=0.3, scale=0.17, alpha=0.2))
    yield Case("prelu", lambda: activation("PRelu", consts=[[0.25, 0.1, 0.0, 2.0]], bits=6))
    yield Case("prelu-scalar", lambda: activation("PRelu", consts=[[0.125]], bits=6))
    yield Case("clip-9", lambda: activation("Clip", 9, min=-0.6, max=1.7))
    yield Case("clip-9-max", lambda: activation("Clip", 9, max=1.5))
    yield Case("clip-13", lambda: activation("Clip", 13, [-0.6, 1.7]))
    yield Case("clip-13-min", lambda: activation("Clip", 13, [-0.55]))
    yield Case("clip-13-max", lambda: activation("Clip", 13, [None, 1.05]))
    yield Case("clip-relu6", lambda: activation("Clip", 13, [0.0, 6.0], 8, 0, scale=6 / 255))
    yield Case("clip-hardtanh", lambda: activation("Clip", 13, [-1.0, 1.0], 8, scale=1 / 128))
    for op in ("Sigmoid", "Tanh"):
        for bits in (2, 4, 8):
            yield Case(f"{op.lower()}-{bits}", lambda o=op, b=bits: activation(o, bits=b, scale=2.0 ** (1 - b)))
        yield Case(f"{op.lower()}-float", lambda o=op: activation(o, bits=8, scale=0.0073, step=0.017))
    yield Case("sigmoid-unsigned", lambda: activation("Sigmoid", signed=0, bits=8, scale=1 / 256))
    yield Case("hardsigmoid", lambda: activation("HardSigmoid", signed=0, bits=6, scale=1 / 64))
    yield Case(
        "hardsigmoid-po2", lambda: activation("HardSigmoid", signed=0, bits=6, scale=1 / 64, alpha=0.25, beta=0.5)
    )
    for name, bounds in (("inside", (-0.3, 0.4)), ("partly", (-1.0, 1.6))):
        yield Case(f"clip-channel-{name}", lambda b=bounds: clip_channel(b))
        yield Case(f"clip-channel-{name}-weights", lambda b=bounds: clip_channel(b, "channel"))
    yield Case("neg", lambda: activation("Neg"))
    each = [0.5, -0.75, 1.0, 3.0]
    for op in ("Add", "Sub", "Mul", "Div"):
        yield Case(f"{op.lower()}-scalar", lambda o=op: activation(o, consts=[0.375], bits=6))
        yield Case(f"{op.lower()}-channel", lambda o=op: activation(o, consts=[each], bits=6))
        yield Case(f"{op.lower()}-float", lambda o=op: activation(o, consts=[[0.1, -0.7, 1.3, 2.9]], bits=6, scale=0.3))
        if op != "Div":
            yield Case(f"{op.lower()}-const-first", lambda o=op: const_first(o))
    yield Case("mul-zero", lambda: activation("Mul", consts=[[0.0, 1.0, -1.0, 0.5]]))
    for op in ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "LeakyRelu"):
        yield Case(f"{op.lower()}-bipolar", lambda o=op: then_bipolar(o))
    yield Case("chain", chain)
    yield Case("add-spatial-channel", add_spatial)
    yield Case("relu-twice", relu_twice)
    yield Case("leakyrelu-after-batchnorm", lambda: batchnorm(13, "conv", after="LeakyRelu"))


def clip_channel(bounds: tuple[float, float], kind: str = "po2") -> Any:
    """Bounds that are another integer for each channel of the quantizer."""
    n = Net(seed=67)
    x = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, 4), scales(kind, 0.25, 4, 1, 2)))
    x = n.add("Clip", x, n.const(bounds[0]), n.const(bounds[1]))
    return n.model(n.quant(x, np.array([[0.05, 0.1, 0.25, 0.4]], np.float32), 5))


def const_first(op: str) -> Any:
    n = Net(seed=19)
    x = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, 4), 0.25))
    return n.model(n.quant(n.add(op, n.const([0.5, -0.75, 1.0, 3.0]), x), 0.25, 6))


def then_bipolar(op: str) -> Any:
    """The sign of what is never negative is +1."""
    n = Net(seed=64)
    x = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, 4), 0.25))
    return n.model(n.add("BipolarQuant", n.add(op, x), n.const(0.5), domain=QONNX))


def chain() -> Any:
    """Mul, Add, Sub, Neg, Relu, Div, Clip: one real function of the accumulator."""
    n = Net(seed=20)
    x = n.add("Conv", n.quant(n.input(3, 4, 5), 0.1, 5), n.weight((4, 3, 2, 2), 0.3))
    x = n.add("Mul", x, n.const(n.floats(4, 1, 1)))
    x = n.add("Add", x, n.const(n.floats(4, 1, 1)))
    x = n.add("Neg", n.add("Sub", x, n.const(0.3)))
    x = n.add("Div", n.add("LeakyRelu", x, alpha=0.3), n.const(n.floats(1, 4, 1, 1, lo=0.5, hi=2)))
    x = n.add("Clip", x, n.const(-0.8), n.const(2.1))
    return n.model(n.quant(x, 0.13, 6))


def add_spatial() -> Any:
    n = Net(seed=21)
    x = n.add("Conv", n.quant(n.input(3, 4, 5), 0.125, 5), n.weight((4, 3, 2, 2), 0.25))
    return n.model(n.quant(n.add("Add", x, n.const(n.floats(1, 4, 1, 1))), 0.5, 5))


def relu_twice() -> Any:
    n = Net(seed=22)
    x = n.add("Relu", n.quant(n.add("Relu", n.quant(n.input(6), 0.125, 5)), 0.25, 4, signed=0))
    return n.model(n.quant(n.add("Relu", n.add("MatMul", x, n.weight((6, 4), 0.25))), 0.5, 3, signed=0))
