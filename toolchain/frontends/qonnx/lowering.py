"""From the neutral model to the integer graph: the walk over the nodes, the outputs.

Its one rule: every tensor of the graph has an exact real meaning that the file (and the user's options) state; where
they do not, the error says which option states it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError, nearest
from toolchain.frontends.qonnx.archive import Model, Node
from toolchain.frontends.qonnx.constants import Constant, evaluate
from toolchain.frontends.qonnx.context import Context, Inputs
from toolchain.frontends.qonnx.edge import QUANTIZERS, SAME, SHAPES_ONLY, clean, input_of
from toolchain.frontends.qonnx.elementwise import ELEMENTWISE, carried_out
from toolchain.frontends.qonnx.layouts import SOFTMAX, Data, Function, channels_last, settled
from toolchain.frontends.qonnx.moves import KEEPS_FUNCTION, MOVES
from toolchain.frontends.qonnx.products import PRODUCTS
from toolchain.ir import Graph
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.ir.types import Tensor
from toolchain.ir.values import fine_grid, try_exact
from toolchain.options import LoadOptions

TABLE = {**ELEMENTWISE, **PRODUCTS, **MOVES}
OF_QONNX = {"Quant", "BipolarQuant", "Trunc", "MultiThreshold"}
ROUNDED = "softmax and its quantizer"  # at the end of a model: both are the host's
HOST = {
    ROUNDED: "the largest is among those that rounding leaves equal",
    "softmax": "argmax is unchanged",
    "logsoftmax": "argmax is unchanged",
    "sigmoid": "it is monotone, so argmax is unchanged",
    "tanh": "it is monotone, so argmax is unchanged",
}


@dataclass(frozen=True)
class Lowered:
    """The graph, and what each tensor of the model became (for verify)."""

    graph: Graph
    values: Mapping[str, Data]  # by the model's name
    host: Mapping[str, str]  # outputs of the model left to the host, with what they are
    before: Mapping[str, Data]  # graph tensor that a quantizer made -> what it rounded
    fine: Set[str]  # the graph's outputs that are on a fine grid
    names: Mapping[str, str]  # graph output -> output of the model


def lower_model(model: Model, options: LoadOptions) -> Lowered:
    """`model` in canonical operators; UnsupportedError names the node and what is supported instead."""
    b = GraphBuilder(model.name)
    b.notes += model.notes
    for node in model.nodes:
        if (node.domain == "qonnx") != (node.op in OF_QONNX):
            domain = f"the domain {node.domain!r}" if node.domain else "the standard domain"
            raise UnsupportedError(node.where, f"{node.op} is no operator of {domain}", "export the model again")
    constants = dict(model.constants)  # and what is computed from shapes on the way
    readers: dict[str, list[Node]] = {}
    for node in model.nodes:
        for name in node.inputs if node.op != "Shape" else ():  # a shape is known without the data
            readers.setdefault(name, []).append(node)
    c = Context(b)
    values: dict[str, Data] = {}
    for given in model.inputs:
        values[given.name] = input_of(b, model, given, readers, options)
    for node in model.nodes:
        _lower(c, model, node, values, constants)
    host: dict[str, str] = {}
    fine: set[str] = set()
    names = {}
    for name in model.outputs:
        if name not in values:
            raise UnsupportedError(
                f"output {name}", "is a constant, or an output of its node that is not supported", "remove it"
            )
        before = values[name].tensor
        made = _output(c, values[name], name, host, fine)
        names[made.name] = name
        if made.qtype == before.qtype and made.shape == before.shape and c.b.ops and c.b.ops[-1].output == made:
            _rename(c, values, before, made)
    return Lowered(b.graph(), values, host, c.before, fine, names)


def _rename(c: Context, values: dict[str, Data], before: Tensor, made: Tensor) -> None:
    """What was called `before` is called `made` wherever it is spoken of, unless it still is there."""
    if any(op.output == before for op in c.b.ops) or before in c.b.inputs:
        return
    for name, d in values.items():
        if d.tensor == before:
            values[name] = d.with_value(replace(d.value, tensor=made))
    if before.name in c.before:
        c.before[made.name] = c.before.pop(before.name)


def _shape(node: Node, shape: tuple[int, ...]) -> Constant:
    part = slice(int(node.attributes.get("start", 0)), node.attributes.get("end"))
    return Constant(np.array(shape[part], dtype=np.int64))


def _lower(c: Context, model: Model, node: Node, values: dict[str, Data], constants: dict[str, Constant]) -> None:
    if node.op == "Shape" and node.inputs[0] in values:  # what is computed from it is known now too
        constants[node.outputs[0]] = _shape(node, (1, *values[node.inputs[0]].shape))
        return
    if all(not n or n in constants for n in node.inputs):
        found = evaluate(node, [constants[n] if n else None for n in node.inputs], c.b.notes)
        constants.update(zip(node.outputs, found, strict=False))
        return
    inputs: Inputs = [None if not n else _read(constants, values, node, n) for n in node.inputs]
    function = TABLE.get(node.op)
    data = [x for x in inputs if isinstance(x, Data)]
    name = _name(node, model.outputs)
    if node.op == "Cast":
        values[node.outputs[0]] = _cast(node, data[0])
        return
    if node.op in ("Softmax", "LogSoftmax"):
        values[node.outputs[0]] = _softmax(c, node, carried_out(c, node, data[0], name))
        return
    if function is None:
        known = sorted({*TABLE, "Softmax", "LogSoftmax", "Cast", "Shape"})
        raise UnsupportedError(
            node.where,
            f"{node.op} is not supported",
            " ".join(filter(None, [nearest(node.op, known), "supported: " + ", ".join(known)])),
        )
    if (
        node.op in QUANTIZERS | {"DequantizeLinear"}
        and data[0].function
        and data[0].function.kind in (*SOFTMAX, ROUNDED)
    ):
        values[node.outputs[0]] = replace(data[0], function=replace(data[0].function, kind=ROUNDED))
        return
    if not _may_wait(node, data):
        inputs = [carried_out(c, node, x, f"{name}_{i}") if isinstance(x, Data) else x for i, x in enumerate(inputs)]
    made = function(c, node, inputs, name)
    values[node.outputs[1] if node.op == "TopK" else node.outputs[0]] = made


def _may_wait(node: Node, data: list[Data]) -> bool:
    """Whether a pending function goes on through the node, or ends in it."""
    if any(d.function and d.function.kind == ROUNDED for d in data):
        return node.op in SHAPES_ONLY
    if any(d.function and d.function.kind in SOFTMAX for d in data):
        return node.op in SHAPES_ONLY or node.op in ("ArgMax", "TopK")
    if node.op in ("ArgMax", "TopK"):  # what increases, and all channels alike, leaves the largest where it is
        return all(d.function is None or (0 not in d.function.slope and len(d.function.slope) < 2) for d in data)
    return node.op in QUANTIZERS | KEEPS_FUNCTION | SAME


def _read(constants: Mapping[str, Constant], values: Mapping[str, Data], node: Node, name: str) -> Data | Constant:
    if name in values:
        return values[name]
    if name in constants:
        return constants[name]
    raise UnsupportedError(
        node.where, f"reads {name}, an output of its node that is not supported", "export the model in eval mode"
    )


def _name(node: Node, outputs: tuple[str, ...]) -> str:
    """What the graph calls the node's output; one that is an output of the model leaves that name for what is rounded last."""
    out = node.outputs[1] if node.op == "TopK" and len(node.outputs) > 1 else node.outputs[0]
    return clean(out, node.name) + ("_acc" if out in outputs else "")


def _cast(node: Node, d: Data) -> Data:
    if int(node.attributes.get("to", 1)) not in (1, 11):
        raise UnsupportedError(
            node.where, "a cast of data to another type than float", "quantize with Quant or QuantizeLinear"
        )
    return d


def _softmax(c: Context, node: Node, d: Data) -> Data:
    default = -1 if node.opset >= 13 else 1
    axis = int(node.attributes.get("axis", default)) % (len(d.shape) + 1) - 1
    if axis < 0 or (node.opset < 13 and axis != len(d.shape) - 1):
        raise UnsupportedError(node.where, f"softmax over axis {axis + 1} of {[1, *d.shape]}", "use the last axis")
    return replace(d, function=Function(node.op.lower(), axis=axis))


# --- outputs ---------------------------------------------------------------------------------------------------------


def _output(c: Context, d: Data, name: str, host: dict[str, str], fine: set[str]) -> Tensor:
    b = c.b
    ours = clean(name, "output")
    where = f"output {name}"
    left = d.function.kind if d.function is not None else None
    if left in SOFTMAX and d.function is not None and d.function.axis < 0:
        raise UnsupportedError(where, f"{left} along an axis that a reshape takes apart", "reshape before it")
    along = ""
    if left in SOFTMAX and d.function is not None and len(d.shape) > 1:
        along = f" along axis {d.function.axis + 1} of the model's {[1, *d.shape]}"
    if left in HOST:
        host[name] = str(left)
        d = replace(d, function=None)
    d = carried_out(c, Node("output", name, "", (), (), {}, 0), d, ours)
    last = channels_last(len(d.shape)) if d.shape else ()
    if d.base != d.shape or d.axes != last or d.tensor.shape != tuple(d.shape[a] for a in last):
        d = settled(b, d, last if len(d.shape) == 3 else tuple(range(len(d.shape))), ours, where)
    v = d.value
    if v.columns() == [(Fraction(1), Fraction(0))] and v.lo is v.hi is None and not v.plain:
        t = v.tensor  # the file's output is these integers themselves (QuantizeLinear at the end)
        note = "the model's output is these integers themselves"
    else:
        found = try_exact(b, v, ours, single=True, widest=32)
        note = ""
        if found is None:
            found, step = fine_grid(b, v, ours)
            fine.add(found.name)
            note = f"no integer grid holds its real values; rounded to steps of {float(step):.3g}"
        t = found
    if t in b.outputs or t in b.inputs:  # an output is a tensor of its own
        t = b.requantize(t, t.qtype, [1], [0], [0], Rounding.FLOOR, ours)
    elif t is v.tensor:
        t = b.renamed(t, ours)
    if note:
        b.notes.append(f"output {t.name}: {note}")
    if len(last) > 1 and d.axes == last and not (d.natural and t.shape == d.shape):
        b.notes.append(f"output {t.name}: channels come first in the model and last here")
    if left in HOST:
        verb, function = ("are", "softmax") if left == ROUNDED else ("is", left)
        b.notes.append(
            f"output {t.name}: {left}{along} {verb} left to the host; it holds what {function} reads ({HOST[str(left)]})"
        )
    b.output(t)
    return t
