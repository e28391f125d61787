"""The batch axis of a model's inputs, which is 1 in everything that follows; other axes are numbers.

Its one rule: a batch other than 1 is rewritten only on request, and only where every tensor then keeps its shape but for
its first axis, which running the model on zeros shows, before and after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx.constants import Constant, run

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from toolchain.frontends.qonnx.archive import Model, Node

_FIXED = "export with an example of fixed shape and a batch of 1"


def inputs(proto: ModelProto) -> list[ValueInfoProto]:
    """What the model reads: its inputs but for the initializers, which old files list among them."""
    stored = {t.name for t in proto.graph.initializer} | {t.values.name for t in proto.graph.sparse_initializer}
    return [value for value in proto.graph.input if value.name not in stored]


def baked_in(where: str, given: Sequence[ValueInfoProto], batch: int | None, notes: list[str]) -> int:
    """The one batch of all inputs that have a size for it; a batch other than 1 is refused if `batch` does not ask for 1."""
    if not given:
        raise UnsupportedError(where, "has no inputs", "export a model that reads something")
    sizes = {value.name: _batch(value) for value in given}
    baked = sorted({size for size in sizes.values() if size not in (None, 1)})
    if symbolic := [name for name, size in sizes.items() if size is None]:
        notes.append(f"the batch axis of {', '.join(symbolic)} has no fixed size in the file, and is 1")
    if not baked:
        return 1
    if batch is None:
        name = next(name for name, size in sizes.items() if size == baked[0])
        raise UnsupportedError(
            f"input {name}",
            f"a batch of {baked[0]} is baked in, must be 1",
            f"give --batch 1 (or LoadOptions(batch=1)) to rewrite it, or {_FIXED}",
        )
    if len(baked) > 1 or 1 in sizes.values():
        found = sorted({size for size in sizes.values() if size is not None})
        raise UnsupportedError(where, f"its inputs have batches of {' and '.join(map(str, found))}, must be 1", _FIXED)
    return baked[0] or 1


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
            what = dim.dim_param or "unknown" if size is None else size
            raise UnsupportedError(where, f"axis {axis} is dynamic ({what}), must be a number", _FIXED)
    return int(dims[0].dim_value) if dims[0].dim_value > 0 else None


def rewritten(model: Model, batch: int) -> Model:
    """The model, made for this batch, for a batch of 1: target shapes that begin with the old batch begin with 1."""
    live = {value.name for value in model.inputs}
    constants, nodes = dict(model.constants), list(model.nodes)
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        makers.update(dict.fromkeys(node.outputs, i))
        if not live.intersection(node.inputs):
            continue
        live.update(node.outputs)
        if node.op not in ("Reshape", "Expand") or node.domain or len(node.inputs) < 2:
            continue
        at, slot = i, 1
        maker = makers.get(node.inputs[1])
        if maker is not None and nodes[maker].op == "Concat":  # of the batch and the rest
            at, slot = maker, 0
        name = nodes[at].inputs[slot]
        shape = constants[name].value if name in constants else np.zeros(0)
        if shape.ndim == 1 and shape.size and shape[0] == batch:
            own = f"{name}/batch_1/{i}"  # others may read the same numbers
            constants[own] = Constant(np.concatenate([shape[:1] // batch, shape[1:]]))
            read = tuple(own if k == slot else n for k, n in enumerate(nodes[at].inputs))
            nodes[at] = replace(nodes[at], inputs=read)
    notes = (*model.notes, f"rewritten from a batch of {batch} to 1")
    made = replace(model, nodes=tuple(nodes), constants=constants, notes=notes)
    before, after = _run(model, batch, batch), _run(made, 1, batch)
    for node in made.nodes:
        for name in live.intersection(node.outputs):
            old, new = before[name].shape, after[name].shape
            if old[:1] == (batch,) and new == (1, *old[1:]):
                continue
            if (
                new == old and len(old) < 2 and (old != (batch,) or before[name].dtype == np.int64)
            ):  # arithmetic of shapes
                continue
            raise _impossible(node, batch, f"its output is {list(old)} with {batch} and {list(new)} with 1, must change in its "
                              f"first axis alone")  # fmt: skip
    return made


def _impossible(node: Node, batch: int, why: str) -> UnsupportedError:
    return UnsupportedError(node.where, f"a batch of {batch} cannot be rewritten to 1: {why}", _FIXED)


def _run(model: Model, batch: int, old: int) -> dict[str, np.ndarray]:
    """Every tensor of the model on zeros, for its shape; quantizers keep that of what they read."""
    known = {name: c.value for name, c in model.constants.items()}
    for value in model.inputs:
        dtype = {"int4": "int8", "uint4": "uint8"}.get(value.dtype, value.dtype)
        known[value.name] = np.zeros((batch, *value.shape[1:]), dtype)
    for node in model.nodes:
        if node.domain:
            known[node.outputs[0]] = known[node.inputs[0]]
            continue
        try:
            made = run(node, [known[name] if name else None for name in node.inputs])
        except UnsupportedError as e:
            raise _impossible(node, old, f"with a batch of {batch} it {e.what}") from None
        known.update(zip(node.outputs, made, strict=True))
    return known
