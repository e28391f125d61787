"""The batch axis of a model's inputs, which is 1 in everything that follows; other axes are numbers.

Its one rule: a batch other than 1 is rewritten only on request, and only where every tensor then keeps its shape but for
its first axis, which shape inference proves before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.qonnx import tensors
from toolchain.frontends.qonnx.constants import first_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

_FIXED = "export with an example of fixed shape and a batch of 1"
INT64 = 7  # TensorProto.INT64: shapes, which may be as long as the batch is large


def to_one(
    where: str, proto: ModelProto, batch: int | None, notes: list[str]
) -> tuple[ModelProto, list[ValueInfoProto]]:
    """The model with a batch of 1, and its real inputs (old files list the initializers among them)."""
    given = inputs(proto)
    if not given:
        raise UnsupportedError(where, "has no inputs", "export a model that reads something")
    sizes = {value.name: _batch(value) for value in given}
    baked = sorted({size for size in sizes.values() if size not in (None, 1)})
    symbolic = [name for name, size in sizes.items() if size is None]
    if symbolic:
        notes.append(f"the batch axis of {', '.join(symbolic)} has no fixed size in the file, and is 1")
    if baked and batch is None:
        name = next(name for name, size in sizes.items() if size == baked[0])
        raise UnsupportedError(
            f"input {name}",
            f"a batch of {baked[0]} is baked in, must be 1",
            f"give --batch 1 (or LoadOptions(batch=1)) to rewrite it, or {_FIXED}",
        )
    if len(baked) > 1:
        raise UnsupportedError(where, f"its inputs have batches of {' and '.join(map(str, baked))}, must be 1", _FIXED)
    if not symbolic and not baked:
        return proto, given
    before = _shapes(proto) if baked else {}
    one = type(proto)()
    one.CopyFrom(proto)
    for value in inputs(one):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    if baked:
        _rewrite(one, baked[0])
        _prove(one, baked[0], before)
        notes.append(f"rewritten from a batch of {baked[0]} to 1")
    return one, inputs(one)


def inputs(proto: ModelProto) -> list[ValueInfoProto]:
    """What the model reads: its inputs but for the initializers."""
    stored = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def _batch(value: ValueInfoProto) -> int | None:
    """The size of the first axis, None where the file does not say; refuses every shape that is not batch and numbers."""
    where = f"input {value.name}"
    if not value.type.HasField("tensor_type"):
        raise UnsupportedError(
            where, f"is a {value.type.WhichOneof('value') or 'value without a type'}, must be a tensor"
        )
    if not value.type.tensor_type.HasField("shape"):
        raise UnsupportedError(where, "its shape is not in the file", _FIXED)
    dims = list(value.type.tensor_type.shape.dim)
    if len(dims) < 2:
        raise UnsupportedError(where, f"has {len(dims)} axes, must be a batch of 1 and at least one more", _FIXED)
    for axis, dim in enumerate(dims):
        size = dim.dim_value if dim.HasField("dim_value") else None
        if axis and (size is None or size < 1):
            what = dim.dim_param if size is None else size
            raise UnsupportedError(where, f"axis {axis} is dynamic ({what or 'unknown'}), must be a number", _FIXED)
    first = dims[0].dim_value
    return int(first) if first > 0 else None


def _shapes(proto: ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element type and shape of every tensor that ONNX's own shape inference knows, from the inputs alone."""
    from onnx import shape_inference

    plain = type(proto)()
    plain.CopyFrom(proto)
    graph = plain.graph
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):  # quantizers keep the shape of what they read
            node.op_type, node.domain = "Identity", ""
            del node.input[1:], node.attribute[:]
    try:
        found = shape_inference.infer_shapes(plain, data_prop=True).graph
    except Exception as e:  # C++ exceptions of every kind
        raise ToolchainError("--batch 1", f"shape inference fails ({first_line(e)})", _FIXED) from None
    shapes = {}
    for value in (*found.value_info, *found.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = (int(kind.elem_type), tuple(int(d.dim_value) for d in kind.shape.dim))
    return shapes


def _live(proto: ModelProto) -> set[str]:
    """Tensors that depend on an input."""
    live = {value.name for value in inputs(proto)}
    for _ in proto.graph.node:  # as often as a file in the worst order needs
        size = len(live)
        for node in proto.graph.node:
            if any(name in live for name in node.input):
                live.update(node.output)
        if len(live) == size:
            break
    return live


def _rewrite(proto: ModelProto, batch: int) -> None:
    """Target shapes of Reshape and Expand that begin with the old batch begin with 1."""
    live = _live(proto)
    makers = {name: node for node in proto.graph.node for name in node.output}
    for number, node in enumerate(list(proto.graph.node)):
        if node.op_type in ("Reshape", "Expand") and not node.domain and len(node.input) > 1 and node.input[0] in live:
            name = node.input[1]
            maker = makers.get(name)
            if maker is not None and maker.op_type == "Concat":
                _replace(proto, makers, maker, 0, batch, f"{maker.input[0]}/batch_1/{number}")
            else:
                _replace(proto, makers, node, 1, batch, f"{name}/batch_1/{number}")


def _replace(
    proto: ModelProto, makers: Mapping[str, NodeProto], node: NodeProto, at: int, batch: int, name: str
) -> None:
    """Input `at` of the node becomes a constant of its own, with 1 where the shared one began with the batch."""
    from onnx import numpy_helper

    stored: Any = next((t for t in proto.graph.initializer if t.name == node.input[at]), None)
    maker = makers.get(node.input[at])
    if stored is None and maker is not None and maker.op_type == "Constant":
        stored = next((a.t for a in maker.attribute if a.name == "value"), None)
    if stored is None or tensors.external(stored):
        return
    shape = numpy_helper.to_array(stored).copy()
    if shape.ndim == 1 and shape.size and shape[0] == batch:
        shape[0] = 1
        proto.graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[at] = name


def _prove(proto: ModelProto, batch: int, before: Mapping[str, tuple[int, tuple[int, ...]]]) -> None:
    """Every tensor that depends on an input has its old shape with 1 for the batch, or the rewriting is refused by name."""
    after, live = _shapes(proto), _live(proto)
    for node in proto.graph.node:
        for name in node.output:
            if name not in live or name not in before:
                continue
            kind, old = before[name]
            new = after[name][1] if name in after else None
            good = [(1, *old[1:])] if old[:1] == (batch,) else [old]
            if kind == INT64:
                good.append(old)
            if new not in good:
                raise UnsupportedError(
                    f"node {node.name or node.op_type} ({node.op_type})",
                    f"a batch of {batch} cannot be rewritten to 1: its output {list(old)} would become {list(new) if new else 'impossible'}",
                    _FIXED,
                )
