"""ONNX test models: the QCDQ and QOp dialects, and how a model may begin and end."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.onnx_layer_models import dense
from tests.onnx_net import INPUT_S8, INPUT_U8, Case, Net, qdq, scales
from toolchain.options import LoadOptions


def qcdq(
    opset: int, dtype: Any, zero: int, clip: tuple[int, int] | None, per_channel: bool, image: bool, scale: float = 0.1
) -> Any:
    n = Net(opset, seed=47)
    x = qdq(n, n.input(2, 5, 4) if image else n.input(6), scale, zero, dtype, clip)
    shape = (3, 2, 2, 3) if image else (6, 3)
    codes = n.rng.integers(-7, 8, shape)
    if per_channel:
        w = n.add(
            "DequantizeLinear",
            n.const(codes, np.int8),
            n.const([0.1, 0.2, 0.37]),
            n.const([0, 0, 0], np.int8),
            axis=0 if image else 1,
        )
        step = np.float32(scale) * np.array([0.1, 0.2, 0.37], np.float32)
    else:
        w = n.add("DequantizeLinear", n.const(codes, np.int8), n.const(0.25))
        step = np.float32(scale) * np.array([0.25] * 3, np.float32)
    b = n.const(n.rng.integers(-100, 100, 3), np.int32)
    more = {"axis": 0} if opset >= 13 else {}
    b = n.add(
        "DequantizeLinear",
        b,
        n.const(step if opset >= 13 else step[0]),
        n.const([0, 0, 0] if opset >= 13 else 0, np.int32),
        **more,
    )
    y = n.add("Conv", x, w, b) if image else n.add("Gemm", x, w, b)
    return n.model(qdq(n, n.add("Relu", y), scale * 2, zero, dtype, clip))


def qlinear_conv(
    dtype: Any, zeros: tuple[int, int, int], per_channel: bool, bias: bool, edge: bool = True, **attributes: Any
) -> Any:
    n = Net(13, seed=48)
    groups = attributes.get("group", 1)
    sx, sy = n.const(0.1), n.const(0.5)
    zx, zw, zy = n.const(zeros[0], dtype), zeros[1], n.const(zeros[2], dtype)
    x = n.add("QuantizeLinear", n.input(4, 5, 6), sx, zx)
    codes = n.rng.integers(-9 if dtype is np.int8 else 0, 10, (6, 4 // groups, 2, 3))
    scale = [0.1, 0.2, 0.3, 0.05, 0.25, 0.125] if per_channel else 0.2
    w = (n.const(codes, dtype), n.const(scale), n.const([zw] * 6 if per_channel else zw, dtype))
    b = [n.const(n.rng.integers(-50, 50, 6), np.int32)] if bias else []
    y = n.add("QLinearConv", x, sx, zx, *w, sy, zy, *b, **attributes)
    return n.model(n.add("DequantizeLinear", y, sy, zy) if edge else y)


def qlinear_matmul(dtype: Any, zeros: tuple[int, int, int], per_channel: bool = False) -> Any:
    n = Net(13, seed=49)
    sx, sy = n.const(0.1), n.const(0.5)
    zx, zy = n.const(zeros[0], dtype), n.const(zeros[2], dtype)
    x = n.add("QuantizeLinear", n.input(6), sx, zx)
    codes = n.rng.integers(-9 if dtype is np.int8 else 0, 10, (6, 4))
    w = (n.const(codes, dtype), n.const([0.1, 0.2, 0.3, 0.05] if per_channel else 0.2))
    zw = n.const([zeros[1]] * 4 if per_channel else zeros[1], dtype)
    y = n.add("QLinearMatMul", x, sx, zx, *w, zw, sy, zy)
    return n.model(n.add("DequantizeLinear", y, sy, zy))


def integer_op(op: str, zeros: bool, cast: bool = True) -> Any:
    n = Net(13, seed=50)
    image = op == "ConvInteger"
    z = n.const(7, np.uint8)
    x = n.add("QuantizeLinear", n.input(2, 5, 4) if image else n.input(6), n.const(0.1), z)
    w = n.const(n.rng.integers(0, 20, (3, 2, 2, 3) if image else (6, 3)), np.uint8)
    more = [z, n.const(10, np.uint8)] if zeros else []
    y = n.add(op, x, w, *more, **({"pads": [1, 0, 0, 1]} if image else {}))
    if not cast:
        return n.model(y)
    y = n.add("Mul", n.add("Cast", y, to=TensorProto.FLOAT), n.const(0.02))
    y = n.add("QuantizeLinear", y, n.const(0.3), z)
    return n.model(n.add("DequantizeLinear", y, n.const(0.3), z))


def int4(opset: int = 21) -> Any:
    n = Net(opset, seed=51)
    s, z = n.const(0.1), n.typed(2, TensorProto.INT4)
    x = n.add("DequantizeLinear", n.add("QuantizeLinear", n.input(6), s, z), s, z)
    w = n.add("DequantizeLinear", n.typed(n.rng.integers(-8, 8, (6, 4)), TensorProto.INT4), n.const(0.25))
    u = n.typed(3, TensorProto.UINT4)
    y = n.add("QuantizeLinear", n.add("MatMul", x, w), n.const(0.5), u)
    return n.model(n.add("DequantizeLinear", y, n.const(0.5), u))


def int16() -> Any:
    n = Net(21, seed=52)
    s, z = n.const(0.001), n.const(-5, np.int16)
    x = n.add("DequantizeLinear", n.add("QuantizeLinear", n.input(6), s, z), s, z)
    w = n.add("DequantizeLinear", n.const(n.rng.integers(-100, 100, (6, 4)), np.int8), n.const(0.03))
    y = n.add("QuantizeLinear", n.add("MatMul", x, w), n.const(0.01), output_dtype=TensorProto.UINT16)
    return n.model(n.add("DequantizeLinear", y, n.const(0.01)))


def dialects() -> Iterator[Case]:
    for image in (False, True):
        word = "conv" if image else "gemm"
        for name, dtype, zero, clip in (
            ("s8", np.int8, 0, None), ("u8", np.uint8, 128, None), ("s8-zp", np.int8, -3, None), ("s4", np.int8, 0, (-8, 7)),
            ("u3", np.uint8, 0, (0, 7)), ("s4-narrow", np.int8, 0, (-7, 7)),
        ):  # fmt: skip
            yield Case(f"qcdq-{word}-{name}", lambda d=dtype, z=zero, c=clip, i=image: qcdq(13, d, z, c, False, i))
        yield Case(f"qcdq-{word}-po2", lambda i=image: qcdq(13, np.int8, 0, (-16, 15), False, i, 0.125))
        yield Case(f"qcdq-{word}-channel", lambda i=image: qcdq(13, np.int8, 0, None, True, i))
        yield Case(f"qcdq-{word}-21", lambda i=image: qcdq(21, np.uint8, 3, None, True, i))
        yield Case(f"qcdq-{word}-10", lambda i=image: qcdq(10, np.int8, 0, None, False, i))
    for name, dtype, zeros in (
        ("s8", np.int8, (0, 0, 0)),
        ("s8-zp", np.int8, (5, -3, 7)),
        ("u8", np.uint8, (128, 3, 100)),
    ):
        yield Case(f"qlinearmatmul-{name}", lambda d=dtype, z=zeros: qlinear_matmul(d, z))
        yield Case(f"qlinearconv-{name}", lambda d=dtype, z=zeros: qlinear_conv(d, z, False, True))
        yield Case(f"qlinearconv-{name}-integers", lambda d=dtype, z=zeros: qlinear_conv(d, z, False, False, False))
        yield Case(
            f"qlinearconv-{name}-pads", lambda d=dtype, z=zeros: qlinear_conv(d, z, False, True, pads=[1, 0, 1, 2])
        )
    yield Case("qlinearmatmul-channel", lambda: qlinear_matmul(np.int8, (1, 0, 0), True))
    yield Case("qlinearconv-channel", lambda: qlinear_conv(np.int8, (1, 0, 2), True, True))
    yield Case("qlinearconv-groups", lambda: qlinear_conv(np.int8, (1, 0, 2), True, True, group=2, strides=[2, 1]))
    for op in ("ConvInteger", "MatMulInteger"):
        yield Case(f"{op.lower()}", lambda o=op: integer_op(o, False))
        yield Case(f"{op.lower()}-zp", lambda o=op: integer_op(o, True))
        yield Case(f"{op.lower()}-raw", lambda o=op: integer_op(o, True, False))
    yield Case("int4", int4)
    yield Case("int16", int16)


def ended(
    op: str, *consts: Any, image: bool = False, last: bool = True, opset: int = 13, count: int = 1, **attributes: Any
) -> Any:
    n = Net(opset, seed=53)
    if image:
        x = n.add("Conv", n.quant(n.input(3, 5, 4), 0.125, 4), n.weight((6, 3, 2, 2), 0.25))
    else:
        x = n.add("MatMul", n.quant(n.input(6), 0.125, 4), n.weight((6, 5), 0.25))
    x = n.quant(x, 0.5, 3) if last else x
    found = n.add(op, x, *(n.const(c, np.int64) for c in consts), count=count, **attributes)
    return n.model(*(found if count > 1 else (found,)))


def ends() -> Iterator[Case]:
    yield Case("argmax", lambda: ended("ArgMax", axis=1))
    yield Case("argmax-flat", lambda: ended("ArgMax", axis=-1, keepdims=0))
    yield Case("argmax-accumulator", lambda: ended("ArgMax", last=False, axis=1))
    yield Case("argmax-image", lambda: ended("ArgMax", image=True, axis=1))
    yield Case("argmax-image-flat", lambda: ended("ArgMax", image=True, axis=1, keepdims=0))
    yield Case("argmax-quantized", argmax_quantized)
    yield Case("topk-indices", topk_indices)
    yield Case("softmax", lambda: ended("Softmax", axis=1))
    yield Case("softmax-accumulator", lambda: ended("Softmax", last=False, axis=-1))
    yield Case("raw-accumulator", lambda: raw("po2", None))
    yield Case("raw-accumulator-float", lambda: raw("float", None))
    yield Case("raw-accumulator-channel", lambda: raw("channel", None))
    yield Case("raw-float-bias", lambda: raw("po2", "float"))
    yield Case("raw-float-bias-float", lambda: raw("float", "float"))
    yield Case("raw-float-bias-channel", lambda: raw("channel", "float"))
    yield Case("raw-wide-channel", lambda: raw_wide("channel"))
    yield Case("raw-wide-float", lambda: raw_wide("float"))
    yield Case("raw-batchnorm", raw_batchnorm)
    yield Case("raw-relu", lambda: raw("float", "float", "Relu"))
    yield Case("raw-conv", lambda: raw_conv("float"))
    yield Case("raw-conv-channel", lambda: raw_conv("channel"))
    yield Case("no-quantizer-first", no_quantizer_first, INPUT_S8)
    yield Case("no-quantizer-first-u8", no_quantizer_first, INPUT_U8)
    yield Case("no-quantizer-first-conv", no_quantizer_conv, INPUT_U8)
    yield Case("scaled-first", scaled_first, LoadOptions((8, False), Fraction(1, 255), 0))
    yield Case("shared-quantizer", shared_quantizer)
    yield Case("old-initializer-inputs", old_inputs)
    yield Case("unnamed-nodes", unnamed)
    yield Case("constant-nodes", constant_nodes)


def argmax_quantized() -> Any:
    n = Net(seed=62)
    x = n.quant(n.add("MatMul", n.quant(n.input(6), 0.125, 4), n.weight((6, 5), 0.25)), 0.5, 3)
    return n.model(n.quant(n.add("ArgMax", x, axis=1), 0.3, 3))


def topk_indices() -> Any:
    """FINN's last node: the index of the largest."""
    n = Net(seed=54)
    x = n.quant(n.add("MatMul", n.quant(n.input(6), 0.125, 4), n.weight((6, 5), 0.25)), 0.5, 3)
    _, index = n.add("TopK", x, n.const([1], np.int64), count=2, axis=-1, largest=1, sorted=1)
    return n.model(index)


def raw(kind: str, bias: str | None, after: str = "") -> Any:
    n = Net(seed=55)
    x = n.quant(n.input(7), scales("po2" if kind == "po2" else "float", 0.125), 6)
    parts = [x, n.weight((4, 7), scales(kind, 0.25, 4, 0, 2), 4)]
    if bias:
        parts.append(n.const(n.floats(4)))
    y = n.add("Gemm", *parts, transB=1)
    return n.model(n.add(after, y) if after else y)


def raw_wide(kind: str) -> Any:
    """Sums of 28 bits with a scale for each output: a common grid for them must be fine and still right."""
    n = Net(seed=63)
    x = n.quant(n.input(7), 0.0137, 16)
    return n.model(n.add("Gemm", x, n.weight((4, 7), scales(kind, 0.03125, 4, 0, 2), 10), transB=1))


def raw_batchnorm() -> Any:
    n = Net(seed=56)
    y = n.add("MatMul", n.quant(n.input(6), 0.125, 5), n.weight((6, 4), 0.25))
    given = (n.floats(4), n.floats(4), n.floats(4), n.floats(4, lo=0.5, hi=2))
    return n.model(n.add("BatchNormalization", y, *map(n.const, given)))


def raw_conv(kind: str) -> Any:
    n = Net(seed=57)
    x = n.quant(n.input(3, 5, 4), 0.1, 4)
    return n.model(n.add("Conv", x, n.weight((5, 3, 2, 2), scales(kind, 0.25, 5, 0, 4)), n.const(n.floats(5))))


def no_quantizer_first() -> Any:
    n = Net(seed=58)
    return n.model(n.quant(n.add("MatMul", n.input(6), n.weight((6, 4), 0.25)), 0.5, 5))


def no_quantizer_conv() -> Any:
    n = Net(seed=59)
    return n.model(n.quant(n.add("Conv", n.input(3, 5, 4), n.weight((5, 3, 2, 2), 0.3), pads=[1, 1, 1, 1]), 0.5, 5))


def scaled_first() -> Any:
    """TFC_2W2A: 2 * x - 1, then a quantizer."""
    n = Net(seed=60)
    x = n.add("Sub", n.add("Mul", n.input(6), n.const(2.0)), n.const(1.0))
    return n.model(n.quant(n.add("MatMul", n.quant(x, 0.25, 4), n.weight((6, 4), 0.25)), 0.5, 5))


def shared_quantizer() -> Any:
    """One quantized tensor read by two layers, and one scale by two quantizers."""
    n = Net(seed=61)
    x = n.quant(n.input(6), 0.125, 5)
    w = n.weight((6, 6), 0.25)
    y = n.quant(n.add("MatMul", x, w), 0.5, 5)
    return n.model(n.quant(n.add("Add", n.add("MatMul", y, w), n.add("MatMul", x, w)), 0.5, 6))


def old_inputs() -> Any:
    """IR version 3 lists the initializers among the inputs."""
    made = dense("po2", "float", transB=1)
    for c in made.graph.initializer:
        made.graph.input.append(helper.make_tensor_value_info(c.name, c.data_type, c.dims))
    return made


def unnamed() -> Any:
    made = dense("po2", "float", transB=1)
    for node in made.graph.node:
        node.name = ""
    return made


def constant_nodes() -> Any:
    """Constants as nodes, as torch writes them."""
    made = dense("float", "quant", transB=1)
    nodes = [helper.make_node("Constant", [], [c.name], value=c) for c in made.graph.initializer]
    nodes += list(made.graph.node)
    del made.graph.initializer[:], made.graph.node[:]
    made.graph.node.extend(nodes)
    return made
