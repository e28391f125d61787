"""Small ONNX and QONNX models by table: every op, quantizer, dialect and opset form that the front end reads, and random networks.

Its one rule: only onnx.helper makes them; what they mean is told by tests/onnx_exact.py alone. Dimensions differ from each other
wherever they can, so that a wrong layout cannot look right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from toolchain.options import LoadOptions

QONNX = "qonnx.custom_op.general"
MODES = ("ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN", "HALF_EVEN", "half_up", "round")
KINDS = ("po2", "float", "channel", "channel_po2")
INPUT_U8 = LoadOptions((8, False), Fraction(1, 64), 0)
INPUT_S8 = LoadOptions((8, True), Fraction(1, 16), 0)


@dataclass
class Net:
    """A model under construction: every method adds a node or a constant and returns the name of its tensor."""

    opset: int = 13
    seed: int = 0
    domain: str = QONNX
    version: int = 2
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, *shape: int, name: str = "x") -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *shape]))
        return name

    def const(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def typed(self, values: Any, data_type: int) -> str:
        """A constant of a type that numpy has not (int4, uint4)."""
        name, array = f"c{len(self.constants)}", np.asarray(values)
        self.constants.append(helper.make_tensor(name, data_type, array.shape, array.flatten().tolist()))
        return name

    def add(self, op: str, *inputs: str, count: int = 1, domain: str = "", **attributes: Any) -> Any:
        k = len(self.nodes)
        outputs = [f"t{k}" if i == 0 else f"t{k}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{op}_{k}", domain=domain, **attributes))
        return outputs[0] if count == 1 else tuple(outputs)

    def quant(
        self, x: str, scale: Any, bits: int = 8, zero: Any = 0, signed: int = 1, narrow: int = 0,
        mode: str | None = "ROUND", op: str = "Quant",
    ) -> str:  # fmt: skip
        extra = {} if mode is None else {"rounding_mode": mode}
        parts = (self.const(scale), self.const(zero), self.const(bits))
        return str(self.add(op, x, *parts, domain=self.domain, signed=signed, narrow=narrow, **extra))

    def weight(self, shape: Sequence[int], scale: Any, bits: int = 4, narrow: int = 1, **more: Any) -> str:
        """A quantized constant: floats that lie off their grid, as trained ones do."""
        top = 2 ** (bits - 1) - 1 if more.get("signed", 1) else 2**bits - 1
        codes = self.rng.integers(-top if more.get("signed", 1) else 0, top, shape, endpoint=True)
        off = self.rng.uniform(-0.4, 0.4, shape)
        return self.quant(self.const((codes + off) * scale), scale, bits, narrow=narrow, **more)

    def floats(self, *shape: int, lo: float = -1, hi: float = 1) -> np.ndarray:
        return np.asarray(self.rng.uniform(lo, hi, shape), np.float32)

    def model(self, *outputs: str, ir_version: int | None = None) -> Any:
        """The ModelProto; shapes of the outputs are what the oracle finds."""
        from tests.onnx_exact import Interpreter

        infos = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "model", self.inputs, infos, self.constants)
        domains = [helper.make_opsetid("", self.opset)]
        if any(n.domain for n in self.nodes):
            domains.append(helper.make_opsetid(self.domain, self.version))
        ir = ir_version or (10 if self.opset >= 21 else 8)
        made = helper.make_model(graph, opset_imports=domains, ir_version=ir)
        zeros = {i.name: np.zeros([d.dim_value for d in i.type.tensor_type.shape.dim], int) for i in self.inputs}
        found = Interpreter(made).run(zeros)
        del graph, made.graph.output[:]
        kinds = {n.output[0]: n for n in self.nodes}
        for name in outputs:
            integer = name.endswith("_1") or kinds[name].op_type == "ArgMax"
            kind = TensorProto.INT64 if integer else self.kind_of(kinds[name])
            made.graph.output.append(helper.make_tensor_value_info(name, kind, found[name].shape))
        return made

    def kind_of(self, node: Any) -> int:
        """The element type of an output, where it is not float."""
        known = {c.name: c.data_type for c in self.constants}
        zero = {"QuantizeLinear": 2, "QLinearConv": 7, "QLinearMatMul": 7}.get(node.op_type)
        if zero is not None:
            return known[node.input[zero]] if zero < len(node.input) else int(TensorProto.UINT8)
        return int(TensorProto.INT32 if node.op_type in ("ConvInteger", "MatMulInteger") else TensorProto.FLOAT)


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Any]
    options: LoadOptions | None = None

    def __str__(self) -> str:
        return self.name


def scales(kind: str, base: float, channels: int = 1, axis: int = 0, rank: int = 1) -> np.ndarray:
    """A scale near `base` (a power of two): one, or one for each channel along `axis`."""
    if kind == "po2":
        return np.float32(base)
    if kind == "float":
        return np.float32(base * 1.3719)
    shape = [1] * rank
    shape[axis] = channels
    factors = 2.0 ** (np.arange(channels) % 3 - 1) if kind == "channel_po2" else 0.6 + 0.1937 * np.arange(channels)
    return np.asarray(base * factors, np.float32).reshape(shape)


# --- quantizers ---------------------------------------------------------------------------------------------------------


def requantized(scale: Any, bits: int, zero: int, signed: int, narrow: int, mode: str | None, first: float) -> Any:
    """One quantizer after the input's: the input's steps fall on, beside and far outside its grid."""
    n = Net()
    x = n.quant(n.input(5), first, 8)
    return n.model(n.quant(x, scale, bits, zero, signed, narrow, mode))


def quantizers() -> Iterator[Case]:
    third = np.float32(0.3)
    for mode in MODES:
        for zero in (0, 3):
            for signed in (1, 0):
                name = f"quant-{mode}-zp{zero}-{'su'[1 - signed]}5"
                for kind, scale, first in (
                    ("po2", np.float32(0.5), 0.125),
                    ("float", third, third / 2),  # exactly twice: real ties at a float scale
                    ("apart", np.float32(0.37), 0.125),
                    ("channel", scales("channel", 0.5, 5, 1, 2), 0.125),
                    ("channel_po2", scales("channel_po2", 0.5, 5, 1, 2), 0.125),
                ):
                    yield Case(
                        f"{name}-{kind}",
                        lambda a=scale, f=first, m=mode, z=zero, s=signed: requantized(a, 5, z, s, 0, m, f),
                    )
    for bits in (*range(1, 17), 20, 24, 31, 32):
        for signed, narrow in ((1, 0), (1, 1), (0, 0), (0, 1)):
            if bits == 1 and (narrow or signed):
                continue  # one narrow value only; 1-bit signed is bipolar, below
            scale, first = 2.0 ** (5 - bits), 2.0**-2
            yield Case(
                f"quant-bits-{'su'[1 - signed]}{bits}{'-narrow' * narrow}",
                lambda a=scale, b=bits, s=signed, w=narrow, f=first: requantized(a, b, 0, s, w, "ROUND", f),
            )
    for zero in (-3, -128, 7, 127):
        yield Case(f"quant-zp{zero}", lambda z=zero: requantized(0.25, 8, z, 1, 0, "ROUND", 0.125))
    for zero in (1, 128, 255):
        yield Case(f"quant-u-zp{zero}", lambda z=zero: requantized(0.25, 8, z, 0, 0, "ROUND", 0.125))
    yield Case("quant-no-mode", lambda: requantized(0.25, 4, 0, 1, 0, None, 0.125))
    for bits in (1, 2, 3, 5, 12, 16):
        for signed in (0, 1):
            options = INPUT_S8 if bits == signed == 1 else None  # bipolar: the file does not say which integers
            yield Case(f"input-{'us'[signed]}{bits}", lambda b=bits, s=signed: only_input(b, s, 0.37), options)
    for zero in (-7, 3):
        yield Case(f"input-zp{zero}", lambda z=zero: only_input(4, 1, 0.5, z))
    yield Case("input-narrow", lambda: only_input(4, 1, 0.5, 0, 1))
    yield Case("bipolar-1bit-quant", lambda: bipolar_model("Quant", 0.5))
    yield Case("bipolar-1bit-quant-float", lambda: bipolar_model("Quant", 0.3))
    yield Case("bipolar", lambda: bipolar_model("BipolarQuant", 1.0))
    yield Case("bipolar-float", lambda: bipolar_model("BipolarQuant", 0.1))
    yield Case("bipolar-channel", lambda: bipolar_model("BipolarQuant", [[0.1, 0.5, 0.25, 0.7, 1.0]]))
    yield Case("bipolar-input", bipolar_input, INPUT_S8)
    yield Case("bipolar-weights", bipolar_weights)
    yield Case("quant-scale-per-row", scale_per_row)
    yield Case("intquant-name", lambda: named("IntQuant", QONNX, 2))
    yield Case("domain-brevitas", lambda: named("Quant", "onnx.brevitas", 1))
    yield Case("domain-finn", lambda: named("Quant", "finn.custom_op.general", 1))
    for version in (1, 2):
        for mode in ("FLOOR", "ROUND", "CEIL", "floor"):
            for zero in (0, 5 if version == 1 else 8):  # of version 2, a multiple of the truncated step
                yield Case(
                    f"trunc-v{version}-{mode}-zp{zero}", lambda v=version, m=mode, z=zero: trunc_model(v, m, 0.125, z)
                )
        yield Case(f"trunc-v{version}-float", lambda v=version: trunc_model(v, "FLOOR", 0.3, 0))
        yield Case(f"trunc-v{version}-pool", lambda v=version: trunc_pool(v))
    yield Case("trunc-v2-scale-off", lambda: trunc_model(2, "ROUND", 0.125, 0, 1.78))
    yield Case("trunc-v2-unsigned", lambda: trunc_model(2, "FLOOR", 0.125, 0, signed=0))
    yield Case("trunc-v2-narrow", lambda: trunc_model(2, "ROUND", 0.125, 0, narrow=1))
    for rank, layout in ((2, "NC"), (4, "NCHW"), (4, ""), (4, "NHWC"), (2, "")):
        for channels in ("one", "each"):
            yield Case(
                f"multithreshold-{layout or f'rank{rank}'}-{channels}",
                lambda r=rank, y=layout, c=channels: thresholds(r, y, c),
            )
    yield Case("multithreshold-bipolar", lambda: thresholds(2, "NC", "each", 1, 2.0, -1.0))
    yield Case("multithreshold-float-scale", lambda: thresholds(2, "NC", "each", 7, 0.3, -0.9))
    yield Case("multithreshold-255", lambda: thresholds(2, "NC", "each", 255, 1.0, 0.0))


def only_input(bits: int, signed: int, scale: float, zero: int = 0, narrow: int = 0) -> Any:
    n = Net()
    return n.model(n.add("MatMul", n.quant(n.input(5), scale, bits, zero, signed, narrow), n.weight((5, 3), 0.25)))


def bipolar_model(op: str, scale: Any) -> Any:
    n = Net()
    x = n.quant(n.input(5), 0.125, 5)
    if op == "Quant":
        return n.model(n.quant(x, scale, 1))
    return n.model(n.add(op, x, n.const(scale), domain=QONNX))


def scale_per_row() -> Any:
    """A scale along an axis that is no channel: of the image's rows."""
    n = Net(seed=2)
    x = n.quant(n.input(2, 3, 4), 0.125, 5)
    return n.model(n.quant(n.add("Relu", n.quant(x, np.array([[[[0.25], [0.3], [0.5]]]], np.float32), 4)), 0.5, 3))


def bipolar_input() -> Any:
    n = Net(seed=3)
    x = n.add("BipolarQuant", n.input(6), n.const(0.5), domain=QONNX)
    y = n.add("MatMul", x, n.weight((6, 4), 0.25))
    return n.model(n.quant(y, 0.5, 3))


def bipolar_weights() -> Any:
    n = Net(seed=4)
    x = n.quant(n.input(6), 0.25, 4)
    w = n.add("BipolarQuant", n.const(n.floats(4, 6)), n.const(0.1), domain=QONNX)
    y = n.add("MatMul", x, n.add("Transpose", w, perm=[1, 0]))
    return n.model(n.quant(y, 0.3, 5))


def named(op: str, domain: str, version: int) -> Any:
    n = Net(domain=domain, version=version)
    y = n.add("MatMul", n.quant(n.input(5), 0.25, op=op), n.weight((5, 3), 0.25, op=op))
    return n.model(n.quant(y, 0.5, 4, op=op))


def trunc_node(n: Net, x: str, scale: float, zero: int, bits: tuple[int, int], out: float, **attributes: Any) -> str:
    if n.version == 1:
        attributes = {"rounding_mode": attributes["rounding_mode"]}
        return str(n.add("Trunc", x, *map(n.const, (scale, zero, bits[0], bits[1])), domain=n.domain, **attributes))
    given = (scale, zero, bits[0], out, bits[1])
    return str(n.add("Trunc", x, *map(n.const, given), domain=n.domain, **attributes))


def trunc_model(
    version: int, mode: str, scale: float, zero: int, off: float = 1.0, signed: int = 1, narrow: int = 0
) -> Any:
    n = Net(version=version)
    x = n.quant(n.input(5), scale, 8, zero)
    s = float(np.float32(scale))
    return n.model(trunc_node(n, x, s, zero, (8, 4), s * 8 * off, rounding_mode=mode, signed=signed, narrow=narrow))


def trunc_pool(version: int) -> Any:
    """Brevitas' TruncAvgPool2d with a 2x2 window."""
    n = Net(version=version, seed=5)
    x = n.quant(n.input(3, 4, 6), 0.125, 4, signed=0)
    x = n.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return n.model(trunc_node(n, x, 0.125 / 4, 0, (6, 4), 0.125, rounding_mode="floor", signed=0, narrow=0))


def thresholds(rank: int, layout: str, channels: str, steps: int = 7, scale: float = 1.0, bias: float = 0.0) -> Any:
    n = Net(seed=6)
    shape = {"NC": (5,), "NCHW": (5, 3, 4), "NHWC": (5, 3, 4), "": (5,) if rank == 2 else (5, 3, 4)}[layout]
    count = {"one": 1, "each": shape[-1] if layout == "NHWC" else 5}[channels]
    x = n.quant(n.input(*shape), 0.125, 8)
    t = np.sort(np.round(n.rng.uniform(-120, 120, (count, steps))) / 8, axis=1)
    attributes = {"data_layout": layout} if layout else {}
    kind = "BIPOLAR" if steps == 1 else "UINT8"
    y = n.add(
        "MultiThreshold", x, n.const(t), domain=QONNX, out_dtype=kind, out_scale=scale, out_bias=bias, **attributes
    )
    return n.model(y)


# --- layers -------------------------------------------------------------------------------------------------------------


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


# --- BatchNorm, activations, constants ----------------------------------------------------------------------------------


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


# --- branches -----------------------------------------------------------------------------------------------------------


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


# --- pools --------------------------------------------------------------------------------------------------------------


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


# --- shapes -------------------------------------------------------------------------------------------------------------


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


# --- dialects -----------------------------------------------------------------------------------------------------------


def qdq(n: Net, x: str, scale: float, zero: int = 0, dtype: Any = np.int8, clip: tuple[int, int] | None = None) -> str:
    s, z = n.const(scale), n.const(zero, dtype)
    y = n.add("QuantizeLinear", x, s, z)
    if clip:
        y = n.add("Clip", y, n.const(clip[0], dtype), n.const(clip[1], dtype))
    return str(n.add("DequantizeLinear", y, s, z))


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


# --- ends ---------------------------------------------------------------------------------------------------------------


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


def table() -> list[Case]:
    """Every case, names unique."""
    found = [
        case
        for family in (
            quantizers, denses, convolutions, batchnorms, activations, joined, pools, shapes, dialects, ends,
        )
        for case in family()
    ]  # fmt: skip
    assert len({c.name for c in found}) == len(found)
    return found


# --- random networks ----------------------------------------------------------------------------------------------------


def random_model(seed: int) -> Any:
    """A whole network: MLP, CNN, 1-D CNN, with residuals; 3 to 10 layers of any kind, any scales. The seed decides all."""
    n = Net(int(np.random.default_rng(seed).choice([9, 11, 13, 17, 21])), seed)
    rng = n.rng
    kind = rng.choice(["mlp", "cnn", "cnn1d", "residual"])
    pick = Picker(n)
    shape: tuple[int, ...] = (int(rng.integers(3, 9)),)
    if kind == "cnn1d":
        shape = (int(rng.integers(1, 4)), int(rng.integers(6, 12)))
    elif kind != "mlp":
        shape = (int(rng.integers(1, 4)), int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    x = pick.quant(n.input(*shape), shape, first=True)
    for _ in range(int(rng.integers(1, 4))):
        x, shape = pick.block(x, shape, residual=kind == "residual")
    if len(shape) > 1:
        x, shape = pick.head(x, shape)
    x, shape = pick.dense(x, shape)
    if pick.chance(0.7):
        x = pick.quant(pick.between(x, shape) if pick.chance(0.3) else x, shape)
    return n.model(x)


@dataclass
class Picker:
    """Random layers with random numbers in them; scales fit what the oracle finds, so that values stay alive."""

    n: Net

    def chance(self, p: float) -> bool:
        return bool(self.n.rng.random() < p)

    def step(self, base: float, channels: int = 1, axis: int = 0, rank: int = 1) -> Any:
        kinds = ["po2", "po2", "float", "channel", "channel_po2"] if channels > 1 else ["po2", "float"]
        return scales(str(self.n.rng.choice(kinds)), base, channels, axis, rank)

    def size_of(self, x: str) -> float:
        """The largest magnitude of a tensor on a few samples."""
        from tests.onnx_exact import Interpreter

        domains = [helper.make_opsetid("", self.n.opset), helper.make_opsetid(self.n.domain, self.n.version)]
        out = [helper.make_empty_tensor_value_info(x)]
        graph = helper.make_graph(self.n.nodes, "part", self.n.inputs, out, self.n.constants)
        dims = [d.dim_value for d in self.n.inputs[0].type.tensor_type.shape.dim]
        given = np.random.default_rng(0).normal(0, 1, (3, *dims[1:])).astype(np.float32)
        found = Interpreter(helper.make_model(graph, opset_imports=domains)).run_batch({self.n.inputs[0].name: given})
        return max(float(abs(v)) for v in found[x].flat)

    def quant(self, x: str, shape: tuple[int, ...], first: bool = False) -> str:
        rng = self.n.rng
        bits = int(rng.integers(2, 7))
        size = 2.0 if first else self.size_of(x)
        base = 2.0 ** round(np.log2((size or 1.0) / 2 ** (bits - 1)) + rng.uniform(-0.9, 0.4))
        signed = int(rng.random() < 0.7)
        zero = int(rng.integers(-2, 3)) if signed else int(rng.integers(0, 3))
        zero = zero if self.chance(0.25) and bits > 3 else 0
        if not signed:
            base /= 2
        if self.n.opset >= 13 and self.chance(0.15):
            dtype = np.int8 if signed else np.uint8
            low = -(2 ** (bits - 1)) if signed else 0
            return qdq(self.n, x, float(self.step(base)), zero, dtype, (low, low + 2**bits - 1))
        if not first and self.chance(0.06):
            return str(self.n.add("BipolarQuant", x, self.n.const(base), domain=self.n.domain))
        mode = str(rng.choice(MODES)) if self.chance(0.3) and not first else "ROUND"
        scale = self.step(base) if first or self.chance(0.8) else self.step(base, shape[0], 1, len(shape) + 1)
        return self.n.quant(x, scale, bits, zero, signed, int(self.chance(0.2)) if not first else 0, mode)

    def block(self, x: str, shape: tuple[int, ...], residual: bool) -> tuple[str, tuple[int, ...]]:
        n = self.n
        before, old = x, shape
        if len(shape) == 1:
            x, shape = self.dense(x, shape, old[0] if residual else 0)
        else:
            x, shape = self.conv(x, shape, same=residual)
        x = self.quant(self.between(x, shape), shape)
        if residual and shape == old:
            op = str(n.rng.choice(["Add", "Add", "Sub", "Mul"]))
            return self.quant(n.add(op, *((x, before) if self.chance(0.5) else (before, x))), shape), shape
        if len(shape) > 1:
            return self.moved(x, shape)
        return x, shape

    def moved(self, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """Pools, concatenation, padding, enlarging; or nothing."""
        n, dims, more = self.n, len(shape) - 1, []
        if min(shape[1:]) >= 4:
            more += ["MaxPool", "AveragePool"]
        match str(n.rng.choice(["none", "none", "Concat", "Pad", "Upsample", *more, *more])):
            case "Concat":
                other = self.quant(n.add("Relu", x), shape)
                x = n.add("Concat", x, other, axis=1)
                shape = (2 * shape[0], *shape[1:])
                return self.quant(x, shape) if self.chance(0.8) else x, shape
            case "Pad":
                pads = [0, 0, *[1] * dims, 0, 0, *[0] * dims]
                x = n.add("Pad", x, pads=pads) if n.opset < 11 else n.add("Pad", x, n.const(pads, np.int64))
                return x, (shape[0], *(s + 1 for s in shape[1:]))
            case "Upsample" if max(shape[1:]) < 6:
                how = n.const([1.0, 1.0, *[2.0] * dims])
                if n.opset < 10:
                    x = n.add("Upsample", x, how, mode="nearest")
                else:
                    x = n.add("Resize", x, *([] if n.opset < 11 else [n.const([])]), how, mode="nearest")
                return x, (shape[0], *(2 * s for s in shape[1:]))
            case ("MaxPool" | "AveragePool") as op:
                pads = [int(n.rng.integers(0, 2)) for _ in range(2 * dims)] if self.chance(0.3) else [0] * 2 * dims
                include = {"count_include_pad": int(n.rng.integers(0, 2))} if op == "AveragePool" else {}
                x = n.add(op, x, kernel_shape=[2] * dims, strides=[2] * dims, pads=pads, **include)
                shape = (shape[0], *((s + pads[i] + pads[i + dims]) // 2 for i, s in enumerate(shape[1:])))
                return self.quant(x, shape) if op == "AveragePool" or self.chance(0.2) else x, shape
        return x, shape

    def head(self, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """From an image to a row, in the order of the file or in another."""
        n = self.n
        if self.chance(0.3):
            op = str(n.rng.choice(["GlobalAveragePool", "GlobalMaxPool"]))
            x, shape = n.add(op, x), (shape[0], *[1] * (len(shape) - 1))
            x = self.quant(x, shape) if op == "GlobalAveragePool" else x
        if self.chance(0.2):
            x = n.add("Transpose", x, perm=[0, *range(len(shape), 0, -1)])
        x = n.add("Flatten", x) if self.chance(0.5) else n.add("Reshape", x, n.const([1, -1], np.int64))
        return x, (int(np.prod(shape)),)

    def dense(self, x: str, shape: tuple[int, ...], out: int = 0) -> tuple[str, tuple[int, ...]]:
        n, rng = self.n, self.n.rng
        out = out or int(rng.integers(2, 7))
        bits = int(rng.integers(2, 6))
        base = 2.0 ** (1 - bits)
        if self.chance(0.5):
            y = n.add("MatMul", x, n.weight((shape[0], out), self.step(base, out, 1, 2), bits))
        else:
            parts = [x, n.weight((out, shape[0]), self.step(base, out, 0, 2), bits)]
            parts += [n.const(n.floats(out))] if self.chance(0.6) or n.opset < 11 else []
            y = n.add("Gemm", *parts, transB=1)
        return y, (out,)

    def conv(self, x: str, shape: tuple[int, ...], same: bool) -> tuple[str, tuple[int, ...]]:
        n, rng = self.n, self.n.rng
        dims = len(shape) - 1
        kernel = [1 + 2 * int(rng.integers(0, 2)) if same else min(int(rng.integers(1, 4)), s) for s in shape[1:]]
        pads = [int(rng.integers(0, 2)) if k > 1 else 0 for k in kernel * 2]
        pads = [(k - 1) // 2 for k in kernel] * 2 if same else pads
        strides = [1] * dims if same else [int(rng.integers(1, 3)) for _ in range(dims)]
        depthwise = self.chance(0.3)
        out = shape[0] if same or depthwise else int(rng.integers(2, 6))
        bits = int(rng.integers(2, 5))
        scale = self.step(2.0 ** (1 - bits), out, 0, dims + 2)
        parts = [x, n.weight((out, 1 if depthwise else shape[0], *kernel), scale, bits)]
        parts += [n.const(n.floats(out))] if self.chance(0.4) else []
        y = n.add("Conv", *parts, pads=pads, strides=strides, group=shape[0] if depthwise else 1)
        sizes = ((s + pads[i] + pads[i + dims] - kernel[i]) // strides[i] + 1 for i, s in enumerate(shape[1:]))
        return y, (out, *sizes)

    def between(self, x: str, shape: tuple[int, ...]) -> str:
        """What stands between a layer and its quantizer."""
        n, rng, c = self.n, self.n.rng, shape[0]
        each = (c, *[1] * (len(shape) - 1))
        if self.chance(0.4):
            given = (n.floats(c, lo=-1.5, hi=1.5), n.floats(c), n.floats(c), n.floats(c, lo=0.3, hi=2))
            x = n.add("BatchNormalization", x, *map(n.const, given))
        known = [
            "none",
            "Relu",
            "Relu",
            "LeakyRelu",
            "Clip",
            "Mul",
            "Add",
            "Tanh",
            "Sigmoid",
            "HardSigmoid",
            "PRelu",
            "Div",
            "Neg",
        ]
        match str(rng.choice(known)):
            case ("Relu" | "Tanh" | "Sigmoid" | "HardSigmoid" | "Neg") as op:
                return str(n.add(op, x))
            case "LeakyRelu":
                return str(n.add("LeakyRelu", x, alpha=float(rng.choice([0.125, 0.1]))))
            case "PRelu":
                return str(n.add("PRelu", x, n.const(n.floats(*each, lo=0))))
            case "Clip" if n.opset < 11:
                return str(n.add("Clip", x, min=-1.0, max=1.6))
            case "Clip":
                return str(n.add("Clip", x, n.const(-1.0), n.const(1.6)))
            case ("Mul" | "Add") as op:
                return str(n.add(op, x, n.const(n.floats(*each))))
            case "Div":
                return str(n.add("Div", x, n.const(n.floats(*each, lo=0.4, hi=2))))
        return x
