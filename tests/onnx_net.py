"""The builder of the ONNX test models, and what a test case is. Only onnx.helper makes them; what they mean is told by tests/onnx_exact.py alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def qdq(n: Net, x: str, scale: float, zero: int = 0, dtype: Any = np.int8, clip: tuple[int, int] | None = None) -> str:
    s, z = n.const(scale), n.const(zero, dtype)
    y = n.add("QuantizeLinear", x, s, z)
    if clip:
        y = n.add("Clip", y, n.const(clip[0], dtype), n.const(clip[1], dtype))
    return str(n.add("DequantizeLinear", y, s, z))
