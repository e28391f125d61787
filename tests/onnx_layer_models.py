"""ONNX test models: dense layers and convolutions, their weights and biases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.onnx_net import KINDS, Case, Net, scales


def dense(kind: str, bias: str, **gemm: Any) -> Any:
    n = Net(seed=7)
    x = n.quant(n.input(7), scales("float" if kind in ("float", "channel") else "po2", 0.125), 6)
    trans = gemm.get("transB", 0)
    shape = (4, 7) if trans else (7, 4)
    step = scales(kind, 0.25, 4, 0 if trans else 1, 2)
    w = n.weight(shape, step, 4)
    if gemm.pop("matmul", 0):
        y = n.add("MatMul", x, w)
        y = n.add("Add", y, n.const(n.floats(4))) if bias == "float" else y
        return n.model(n.quant(y, 0.5, 5))
    parts = [x, w]
    if bias == "float":
        parts.append(n.const(n.floats(4)))
    if bias == "scalar":
        parts.append(n.const(0.375))
    if bias == "quant":
        by = np.asarray(np.float32(0.125 * (1.3719 if kind in ("float", "channel") else 1)) * step.reshape(-1))
        parts.append(n.quant(n.const(n.floats(4, lo=-3, hi=3)), by if by.size > 1 else by.reshape(1), 16))
    return n.model(n.quant(n.add("Gemm", *parts, **gemm), 0.5, 5))


def denses() -> Iterator[Case]:
    for kind in KINDS:
        for bias in ("none", "float", "quant", "scalar"):
            yield Case(f"gemm-{kind}-{bias}", lambda k=kind, b=bias: dense(k, b, transB=1))
        yield Case(f"matmul-{kind}", lambda k=kind: dense(k, "none", matmul=1))
        yield Case(f"matmul-add-{kind}", lambda k=kind: dense(k, "float", matmul=1))
    yield Case("gemm-alpha-beta", lambda: dense("po2", "float", transB=1, alpha=0.5, beta=2.0))
    yield Case("gemm-alpha-beta-float", lambda: dense("float", "float", transB=0, alpha=0.3, beta=-0.7))
    for bits in (1, 2, 3, 8, 12, 16):
        yield Case(f"weights-{bits}", lambda b=bits: wide_weights(b))
    yield Case("weights-unsigned-zp", lambda: wide_weights(4, signed=0, zero=7, narrow=0))
    yield Case("weights-clipped", lambda: wide_weights(3, stretch=2.5))
    for mode in ("CEIL", "FLOOR", "HALF_UP", "DOWN"):
        yield Case(f"weights-{mode}", lambda m=mode: wide_weights(4, mode=m))
    yield Case("weights-raw-integers", raw_integers)
    yield Case("matmul-rank3", matmul_rank3)
    yield Case("input-zp-odd", lambda: zero_point_conv(3))
    yield Case("input-zp-pad", lambda: zero_point_conv(-5))


def wide_weights(bits: int, stretch: float = 1.0, **more: Any) -> Any:
    n = Net(seed=9)
    x = n.quant(n.input(6), 0.25, 5)
    step = 2.0 ** (1 - bits)
    shape = (4, 6)
    if bits == 1:
        w = n.quant(n.const(n.floats(*shape)), 0.25, 1, narrow=1)
    elif stretch != 1:
        w = n.quant(n.const(n.floats(*shape) * stretch), step, bits)
    else:
        w = n.weight(shape, step, bits, **more)
    return n.model(n.quant(n.add("Gemm", x, w, transB=1), 0.25, 6))


def raw_integers() -> Any:
    """Weights that are integers already, with no quantizer: TFC_2W2A and FINN write them so."""
    n = Net(seed=10)
    x = n.quant(n.input(6), 1.0, 4)
    y = n.add("MatMul", x, n.const(n.rng.integers(-3, 4, (6, 4))))
    return n.model(n.quant(y, 2.0, 5))


def matmul_rank3() -> Any:
    n = Net(seed=11)
    x = n.quant(n.input(5, 6), 0.25, 5)
    return n.model(n.quant(n.add("MatMul", x, n.weight((6, 4), 0.25)), 0.5, 6))


def zero_point_conv(zero: int) -> Any:
    """Padding is the real value 0, whatever the zero point."""
    n = Net(seed=12)
    x = n.quant(n.input(2, 5, 4), 0.25, 5, zero)
    y = n.add("Conv", x, n.weight((3, 2, 3, 3), 0.25), pads=[1, 1, 1, 1])
    return n.model(n.quant(y, 0.5, 5, 3, 0))


def convolution(
    size: tuple[int, ...], shape: tuple[int, ...], kind: str, bias: str = "none", out: str = "po2", **attributes: Any
) -> Any:
    n = Net(seed=13)
    x = n.quant(n.input(*size), scales("float" if kind in ("float", "channel") else "po2", 0.125), 5, signed=0)
    w = n.weight(shape, scales(kind, 0.25, shape[0], 0, len(shape)), 3)
    parts = [x, w]
    if bias == "float":
        parts.append(n.const(n.floats(shape[0])))
    y = n.add("Conv", *parts, **attributes)
    return n.model(n.quant(y, scales(out, 0.5, shape[0], 1, len(shape)), 4))


def convolutions() -> Iterator[Case]:
    size, plain = (4, 7, 6), (5, 4, 3, 2)
    for kind in KINDS:
        yield Case(f"conv-{kind}", lambda k=kind: convolution(size, plain, k))
        yield Case(f"conv-{kind}-bias", lambda k=kind: convolution(size, plain, k, "float", pads=[1, 0, 2, 1]))
        yield Case(f"depthwise-{kind}", lambda k=kind: convolution(size, (4, 1, 3, 3), k, "float", group=4))
        yield Case(f"conv1d-{kind}", lambda k=kind: convolution((4, 9), (5, 4, 3), k, "float", pads=[1, 2]))
    yield Case("conv-out-channel", lambda: convolution(size, plain, "po2", out="channel_po2"))
    forms: dict[str, dict[str, Any]] = {
        "strides": {"strides": [2, 3]}, "dilations": {"dilations": [2, 3]}, "pads": {"pads": [0, 2, 1, 0]},
        "same-upper": {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        "same-lower": {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, "valid": {"auto_pad": "VALID", "strides": [2, 1]},
        "same-1": {"auto_pad": "SAME_UPPER"}, "notset": {"auto_pad": "NOTSET", "pads": [1, 1, 1, 1]},
        "kernel-shape": {"kernel_shape": [3, 2]},
    }  # fmt: skip
    for name, form in forms.items():
        yield Case(f"conv-{name}", lambda f=form: convolution(size, plain, "po2", **f))
    yield Case("conv-groups", lambda: convolution(size, (6, 2, 3, 2), "channel_po2", "float", group=2))
    yield Case("depthwise-multiplier", lambda: convolution(size, (8, 1, 3, 2), "channel", group=4, pads=[1, 1, 1, 1]))
    yield Case("conv-pointwise", lambda: convolution(size, (5, 4, 1, 1), "po2", "float"))
    yield Case("conv1d-strides", lambda: convolution((4, 9), (5, 4, 3), "po2", strides=[2], dilations=[2]))
    yield Case("conv1d-depthwise", lambda: convolution((4, 9), (4, 1, 3), "po2", group=4, auto_pad="SAME_UPPER"))
    yield Case("conv1d-groups", lambda: convolution((4, 9), (6, 2, 3), "float", group=2))
