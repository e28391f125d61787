"""What the tests of ONNX files share: models in a few words, and a float64 interpreter of what the front end makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from toolchain.frontends.qonnx.archive import Model
from toolchain.frontends.qonnx.constants import Constant, evaluate

Spec = tuple[Any, ...]  # op, inputs, output or outputs, then attributes as a dict if any


def nodes(specs: Sequence[Spec]) -> list[NodeProto]:
    """("Quant", "x s z b", "y", {...}): "-" is an input left out; an op of another domain is "domain::op"."""
    made = []
    for op, read, written, *rest in specs:
        domain, _, kind = op.rpartition("::")
        names = ["" if name == "-" else name for name in read.split()]
        made.append(helper.make_node(kind, names, written.split(), domain=domain, **(rest[0] if rest else {})))
    return made


def model(
    specs: Sequence[Spec],
    constants: Mapping[str, Any],
    inputs: Mapping[str, Any] | None = None,
    outputs: str = "y",
    opset: int = 13,
    ir: int = 8,
    **domains: int,
) -> ModelProto:
    """A ModelProto; an input is a shape (float32) or a pair of element type and shape; domains have "__" for "."."""
    given = {"x": [1, 4]} if inputs is None else inputs
    infos = [
        helper.make_tensor_value_info(n, *(v if isinstance(v, tuple) else (TensorProto.FLOAT, v)))
        for n, v in given.items()
    ]
    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    ends = [helper.make_empty_tensor_value_info(name) for name in outputs.split()]
    for end in ends:
        end.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(nodes(specs), "made", infos, ends, stored)
    imports = [helper.make_opsetid("", opset)] if opset else []
    imports += [helper.make_opsetid(name.replace("__", "."), version) for name, version in domains.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def typed(proto: ModelProto, **kinds: int) -> ModelProto:
    """The model with these element types of its outputs, which onnxruntime wants to know."""
    for end in proto.graph.output:
        end.type.tensor_type.elem_type = kinds.get(end.name, end.type.tensor_type.elem_type)
    return proto


def interpret(made: Model, fed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor in float64: real numbers, each node by its definition, constants by what they mean."""
    known = {name: np.asarray(v, np.float64) for name, v in fed.items()}

    def real(name: str) -> np.ndarray | None:
        if not name or name in known:
            return known.get(name)
        constant = made.constants[name]
        if constant.codes is not None and constant.scale is not None:
            return np.asarray(constant.codes * constant.scale)
        return constant.value.astype(np.float64) if constant.value.dtype.kind == "f" else constant.value

    for node in made.nodes:
        values = [real(name) for name in node.inputs]
        if not node.domain and node.op in ("QuantizeLinear", "DequantizeLinear"):
            x, scale, zero = (*values, None)[:3]
            assert x is not None and scale is not None
            zero = np.zeros((), np.float64) if zero is None else zero.astype(np.float64)
            axis, count = int(node.attributes["axis"]), max(scale.size, zero.size)
            shape = [count if a == axis % x.ndim else 1 for a in range(x.ndim)] if count > 1 else [1] * x.ndim
            scale, zero = (np.broadcast_to(v.reshape(-1), (count,)).reshape(shape) for v in (scale, zero))
            if node.op == "DequantizeLinear":
                known[node.outputs[0]] = (x - zero) * scale
            else:
                made_codes = np.round(x / scale) + zero
                known[node.outputs[0]] = np.clip(made_codes, node.attributes["lo"], node.attributes["hi"])
            continue
        found = evaluate(node, [None if v is None else Constant(v) for v in values], [])
        known.update(zip(node.outputs, (c.value for c in found), strict=True))
    return known
