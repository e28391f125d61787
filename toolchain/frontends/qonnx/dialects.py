"""One spelling for everything that the dialects of quantized ONNX say: QONNX, QCDQ (QuantizeLinear, Clip, DequantizeLinear), QOp.

Its one rule: a rewriting keeps the exact real-number meaning, so no two float32 numbers of the file are ever multiplied into a
third; what has no exact meaning in the canonical operators is refused by name. Constant subgraphs are folded on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx.archive import Model, Node
from toolchain.frontends.qonnx.constants import Constant, evaluate, type_range
from toolchain.frontends.qonnx.quantizers import integer_range, positive_scale, rounding_mode

REFUSED = {
    ("qonnx", "FloatQuant"): "minifloat quantization is not supported; use integer quantizers",
    ("", "DynamicQuantizeLinear"): "scales that depend on the data are not supported; use static quantization",
}
OUTPUT_TYPES = {
    2: (8, False),
    3: (8, True),
    4: (16, False),
    5: (16, True),
    21: (4, False),
    22: (4, True),
}  # TensorProto


def rewrite(model: Model) -> Model:
    """The model in canonical operators; see the module's tests and docs for the list."""
    for node in model.nodes:
        if (node.domain, node.op) in REFUSED:
            what, _, try_ = REFUSED[node.domain, node.op].partition("; ")
            raise UnsupportedError(node.where, what, try_)
        if node.attributes.get("block_size", 0) and node.op in ("QuantizeLinear", "DequantizeLinear"):
            raise UnsupportedError(
                node.where, f"blocked quantization (block_size {node.attributes['block_size']}) is not supported",
                "quantize per tensor or per channel",
            )  # fmt: skip
    writer = _Writer(model)
    for node in model.nodes:
        writer.add(_canonical(node))
    nodes = _clips(writer)
    used = {name for node in nodes for name in node.inputs} | set(model.outputs)
    constants = {name: c for name, c in writer.constants.items() if name in used}
    return replace(model, nodes=tuple(nodes), constants=constants, notes=(*model.notes, *writer.notes))


def _canonical(node: Node) -> Node:
    """QONNX operators by one name, with one spelling of their rounding mode."""
    if node.domain != "qonnx" or node.op not in ("Quant", "IntQuant", "Trunc"):
        return node
    given = node.attributes.get("rounding_mode", "FLOOR" if node.op == "Trunc" else "ROUND")
    mode = rounding_mode(node.where, str(given))
    op = "Quant" if node.op == "IntQuant" else node.op
    return replace(node, op=op, attributes={**node.attributes, "rounding_mode": mode})


class _Writer:
    """The nodes and constants so far. What is added is split into canonical nodes, or folded if all it reads is constant."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.nodes: list[Node] = []
        self.constants: dict[str, Constant] = dict(model.constants)
        self.notes: list[str] = []
        self.names = {name for node in model.nodes for name in (node.name, *node.outputs)} | set(model.constants)
        self.names |= {value.name for value in model.inputs}

    def add(self, node: Node) -> None:
        if not node.domain and node.op in SPLIT:
            SPLIT[node.op](self, node)
        elif all(name in self.constants for name in node.inputs if name):
            inputs = [self.constants[name] if name else None for name in node.inputs]
            self.constants.update(zip(node.outputs, evaluate(node, inputs, self.notes), strict=True))
        elif not node.domain and node.op == "QuantizeLinear":
            lo, hi = self.stored_range(node)
            self.nodes.append(_with(node, axis=node.attributes.get("axis", 1), lo=lo, hi=hi))
        elif not node.domain and node.op == "DequantizeLinear":
            self.nodes.append(_with(node, axis=node.attributes.get("axis", 1)))
        else:
            self.nodes.append(node)

    def stored_range(self, node: Node) -> tuple[int, int]:
        """What the integers of a QuantizeLinear may be: by the type of its zero point, else as it says, else uint8."""
        zero = node.inputs[2] if len(node.inputs) > 2 else ""
        said = int(node.attributes.get("output_dtype", 0)) or 2
        if zero and zero not in self.constants:
            raise UnsupportedError(node.where, "its zero point is not a constant", "use static quantization")
        if zero:
            return type_range(node.where, self.constants[zero].value, self.constants[zero].bits)
        if said not in OUTPUT_TYPES:
            from toolchain.frontends.qonnx.tensors import kind

            raise UnsupportedError(
                node.where, f"its output is {kind(said).lower()}, must be integers of 4, 8 or 16 bits"
            )
        bits, signed = OUTPUT_TYPES[said]
        return integer_range(bits, signed, False)

    def fresh(self, name: str) -> str:
        """A name of node or tensor that nothing has."""
        chosen, number = name, 1
        while chosen in self.names:
            number += 1
            chosen = f"{name}_{number}"
        self.names.add(chosen)
        return chosen

    def constant(self, name: str, value: Constant) -> str:
        chosen = self.fresh(name)
        self.constants[chosen] = value
        return chosen

    def known(self, node: Node, name: str, what: str) -> Constant:
        if name not in self.constants:
            raise UnsupportedError(node.where, f"its {what} is not a constant", "use static quantization")
        return self.constants[name]

    def make(self, of: Node, op: str, part: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """One of the nodes that `of` becomes; the one that makes its output keeps its name."""
        name = of.name if output else self.fresh(f"{of.name}/{part}")
        made = output or self.fresh(f"{of.outputs[0]}/{part}")
        self.add(Node(op, name, "", tuple(inputs), (made,), attributes, of.opset))
        return made

    def dequantized(self, of: Node, part: str, parameters: Sequence[str], axis: int | None) -> str:
        """x, scale, zero point (or "") as real numbers; without an axis there must be one scale."""
        names = dict(zip(("scale", "zero point"), parameters[1:], strict=True))
        for what, name in names.items():
            if name and axis is None and self.known(of, name, f"{part} {what}").value.size > 1:
                raise UnsupportedError(
                    of.where, f"its {part} has one {what} for each row, must have one", "quantize it per tensor"
                )
        return self.make(of, "DequantizeLinear", part, parameters, axis=1 if axis is None else axis)


def _with(node: Node, **attributes: Any) -> Node:
    return replace(node, attributes={**node.attributes, **attributes})


def _input(node: Node, index: int) -> str:
    return node.inputs[index] if index < len(node.inputs) else ""


def _qlinear_conv(w: _Writer, node: Node) -> None:
    x, x_scale, x_zero, weight, w_scale, w_zero, y_scale, y_zero = node.inputs[:8]
    read = [
        w.dequantized(node, "x", (x, x_scale, x_zero), None),
        w.dequantized(node, "w", (weight, w_scale, w_zero), 0),
    ]
    if bias := _input(node, 8):
        codes = w.known(node, bias, "bias").value.astype(np.int64)
        scales = [positive_scale(node.where, f"{n} scale", w.known(node, s, f"{n} scale").value)
                  for n, s in (("x", x_scale), ("w", w_scale))]  # fmt: skip
        scale = scales[0].astype(np.float64).reshape(-1) * scales[1].astype(np.float64).reshape(-1)  # 48 bits: exact
        if scale.size not in (1, codes.size):
            raise UnsupportedError(node.where, f"{codes.size} biases and {scale.size} scales, must be as many")
        value = (codes * scale).astype(np.float32)
        read.append(w.constant(f"{node.outputs[0]}/bias", Constant(value, codes, scale, 32)))
    made = w.make(node, "Conv", "conv", read, **node.attributes)
    w.make(node, "QuantizeLinear", "y", (made, y_scale, y_zero), node.outputs[0], axis=1)


def _qlinear_matmul(w: _Writer, node: Node) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.inputs[:8]
    if w.known(node, y_scale, "y scale").value.size > 1:
        raise UnsupportedError(node.where, "its y has one scale for each row, must have one", "quantize it per tensor")
    read = w.dequantized(node, "a", (a, a_scale, a_zero), None), w.dequantized(node, "b", (b, b_scale, b_zero), -1)
    made = w.make(node, "MatMul", "matmul", read)
    w.make(node, "QuantizeLinear", "y", (made, y_scale, y_zero), node.outputs[0], axis=1)


def _integer(w: _Writer, node: Node, op: str, axis: int, attributes: Mapping[str, Any]) -> None:
    """ConvInteger and MatMulInteger: integers less their zero points, which are real numbers of scale 1."""
    one = w.constant(f"{node.outputs[0]}/one", Constant(np.ones((), np.float32)))
    x = w.dequantized(node, "x", (node.inputs[0], one, _input(node, 2)), None)
    weight = w.dequantized(node, "w", (node.inputs[1], one, _input(node, 3)), axis)
    w.make(node, op, "", (x, weight), node.outputs[0], **attributes)


SPLIT: dict[str, Callable[[_Writer, Node], None]] = {
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "ConvInteger": lambda w, node: _integer(w, node, "Conv", 0, node.attributes),
    "MatMulInteger": lambda w, node: _integer(w, node, "MatMul", -1, {}),
}


def _clips(w: _Writer) -> list[Node]:
    """The nodes, with a Clip that alone reads a QuantizeLinear put into that one's lo and hi."""
    nodes = list(w.nodes)
    readers: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        for name in node.inputs:
            readers.setdefault(name, []).append(i)
    gone: set[int] = set()
    for i, node in enumerate(nodes):
        if node.domain or node.op != "QuantizeLinear":
            continue
        while nodes[i].outputs[0] not in w.model.outputs and len(at := readers.get(nodes[i].outputs[0], [])) == 1:
            bounds = _bounds(w, nodes[at[0]], nodes[i].outputs[0])
            if bounds is None:
                break
            lo, hi = (int(nodes[i].attributes[key]) for key in ("lo", "hi"))
            lo, hi = (min(max(v, lo), hi) for v in bounds)  # a bound beyond the type clips nothing, or all
            if lo > hi:
                raise UnsupportedError(nodes[at[0]].where, f"clips to {lo}..{hi}, must be a range", "export it again")
            nodes[i] = replace(_with(nodes[i], lo=lo, hi=hi), outputs=nodes[at[0]].outputs)
            gone.add(at[0])
    return [node for i, node in enumerate(nodes) if i not in gone]


def _bounds(w: _Writer, node: Node, read: str) -> tuple[int, int] | None:
    """Constant whole bounds of a Clip of this tensor, one beyond 63 bits where there is none; None where it is no such Clip."""
    if node.domain or node.op != "Clip" or node.inputs[0] != read:
        return None
    found = []
    for index, key, default in ((1, "min", -(2**63)), (2, "max", 2**63)):
        name = _input(node, index)
        if name and (name not in w.constants or w.constants[name].value.size != 1):
            return None
        value = w.constants[name].value.item() if name else node.attributes.get(key, default)
        if isinstance(value, float) and not value.is_integer():
            return None
        found.append(int(value))
    return found[0], found[1]
