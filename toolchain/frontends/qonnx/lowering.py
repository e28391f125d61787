"""From the neutral model to the integer graph: constants folded, the input edge, the walk over the nodes, the outputs.

Its one rule: every tensor of the graph has an exact real meaning that the file (and the user's options) state; where
they do not, the error says which option states it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from toolchain.errors import ToolchainError, UnsupportedError, nearest
from toolchain.framework import Affine
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Input, Model, Node
from toolchain.frontends.qonnx.constants import Constant, evaluate
from toolchain.frontends.qonnx.layers import TABLE, Context, Inputs, carried_out
from toolchain.frontends.qonnx.layouts import SOFTMAX, Data, Function, channels_last, fractions, settled
from toolchain.frontends.qonnx.moves import KEEPS_FUNCTION, MOVES
from toolchain.frontends.qonnx.quantizers import BIPOLAR
from toolchain.ir import Graph
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.graph import channels_first_note
from toolchain.ir.ops import Rounding
from toolchain.ir.types import QType, Tensor, bits_for
from toolchain.ir.values import Value, fine_grid, try_exact
from toolchain.options import TRY_INPUT, LoadOptions, declared_input

OF_QONNX = {"Quant", "BipolarQuant", "Trunc", "MultiThreshold"}
QUANTIZERS = {"Quant", "BipolarQuant", "QuantizeLinear"}
EXPORTERS = {"export_handler", "act_quant", "input_quant", "output_quant"}  # Brevitas' parts of a name that say nothing
SAME = {"Identity", "Dropout"}
SHAPES_ONLY = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", *SAME}
CHANNELS_FIRST = {
    "Conv",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "BatchNormalization",
    "Upsample",
    "Resize",
}
HOST = {
    "softmax": "argmax is unchanged",
    "logsoftmax": "argmax is unchanged",
    "sigmoid": "it is monotone, so argmax is unchanged",
    "tanh": "it is monotone, so argmax is unchanged",
}


@dataclass(frozen=True)
class OutputMeaning:
    """What a graph output on a fine grid was before it was rounded to it."""

    tensor: str  # of the graph
    meaning: Affine


@dataclass(frozen=True)
class Lowered:
    """The graph, and what each tensor of the model became (for verify)."""

    graph: Graph
    values: Mapping[str, Data]  # by the model's name
    host: Mapping[str, str]  # outputs of the model left to the host, with what they are
    before: Mapping[str, Data]  # graph tensor that a quantizer made -> what it rounded
    outputs: Mapping[str, OutputMeaning]  # the graph's outputs that are on a fine grid
    names: Mapping[str, str]  # graph output -> output of the model


def lower_model(model: Model, options: LoadOptions) -> Lowered:
    """`model` in canonical operators; UnsupportedError names the node and what is supported instead."""
    b = GraphBuilder(model.name)
    b.notes += model.notes
    for node in model.nodes:
        if (node.domain == "qonnx") != (node.op in OF_QONNX):
            domain = f"the domain {node.domain!r}" if node.domain else "the standard domain"
            raise UnsupportedError(node.where, f"{node.op} is no operator of {domain}", "export the model again")
    constants, nodes = _fold(model, b.notes)
    model = replace(model, nodes=nodes, constants=constants)
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    c = Context(b, b.notes)
    values: dict[str, Data] = {}
    for given in model.inputs:
        values[given.name] = _input(b, model, given, readers, options)
    for node in nodes:
        _lower(c, model, node, values, constants)
    host: dict[str, str] = {}
    fine: dict[str, OutputMeaning] = {}
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


def _fold(model: Model, notes: list[str]) -> tuple[dict[str, Constant], tuple[Node, ...]]:
    """Nodes that read constants alone become constants; Shape of an input too, since shapes are fixed."""
    constants = dict(model.constants)
    shapes = {i.name: i.shape for i in model.inputs}
    left = []
    for node in model.nodes:
        if node.op == "Shape" and node.inputs[0] in shapes:
            constants[node.outputs[0]] = _shape(node, shapes[node.inputs[0]])
        elif node.inputs and all(not n or n in constants for n in node.inputs):
            found = evaluate(node, [constants[n] if n else None for n in node.inputs], notes)
            constants.update(zip(node.outputs, found, strict=False))
        else:
            left.append(node)
    return constants, tuple(left)


def _shape(node: Node, shape: tuple[int, ...]) -> Constant:
    part = slice(int(node.attributes.get("start", 0)), node.attributes.get("end"))
    return Constant(np.array(shape[part], dtype=np.int64))


def _lower(c: Context, model: Model, node: Node, values: dict[str, Data], constants: dict[str, Constant]) -> None:
    if node.op == "Shape" and node.inputs[0] in values:  # what is computed from it is known now too
        constants[node.outputs[0]] = _shape(node, (1, *values[node.inputs[0]].shape))
        return
    if all(not n or n in constants for n in node.inputs):
        found = evaluate(node, [constants[n] if n else None for n in node.inputs], c.notes)
        constants.update(zip(node.outputs, found, strict=False))
        return
    inputs: Inputs = [None if not n else _read(model, values, node, n) for n in node.inputs]
    function = TABLE.get(node.op) or MOVES.get(node.op)
    data = [x for x in inputs if isinstance(x, Data)]
    name = _name(node, model.outputs)
    if node.op == "Cast":
        values[node.outputs[0]] = _cast(node, data[0])
        return
    if node.op in ("Softmax", "LogSoftmax"):
        values[node.outputs[0]] = _softmax(c, node, carried_out(c, node, data[0], name))
        return
    if function is None:
        known = sorted({*TABLE, *MOVES, "Softmax", "LogSoftmax", "Cast", "Shape"})
        raise UnsupportedError(
            node.where,
            f"{node.op} is not supported",
            " ".join(filter(None, [nearest(node.op, known), "supported: " + ", ".join(known)])),
        )
    if not _may_wait(node, data):
        inputs = [carried_out(c, node, x, f"{name}_{i}") if isinstance(x, Data) else x for i, x in enumerate(inputs)]
    made = function(c, node, inputs, name)
    values[node.outputs[1] if node.op == "TopK" else node.outputs[0]] = made


def _may_wait(node: Node, data: list[Data]) -> bool:
    """Whether a pending function goes on through the node, or ends in it."""
    if any(d.function and d.function.kind in SOFTMAX for d in data):
        return node.op in SHAPES_ONLY or node.op in ("ArgMax", "TopK")
    if node.op in ("ArgMax", "TopK"):  # what increases, and all channels alike, leaves the largest where it is
        return all(d.function is None or (0 not in d.function.slope and len(d.function.slope) < 2) for d in data)
    return node.op in QUANTIZERS | KEEPS_FUNCTION | SAME


def _read(model: Model, values: Mapping[str, Data], node: Node, name: str) -> Data | Constant:
    if name in values:
        return values[name]
    if name in model.constants:
        return model.constants[name]
    raise UnsupportedError(
        node.where, f"reads {name}, an output of its node that is not supported", "export the model in eval mode"
    )


def _name(node: Node, outputs: tuple[str, ...]) -> str:
    """What the graph calls the node's output; one that is an output of the model leaves that name for what is rounded last."""
    out = node.outputs[1] if node.op == "TopK" and len(node.outputs) > 1 else node.outputs[0]
    return _clean(out, node.name) + ("_acc" if out in outputs else "")


def _clean(name: str, other: str) -> str:
    """The file's name without what exporters add, or the other (a node's) where it is a number: /0/act_quant/Quant_output_0 is Quant_0."""
    parts = [p for p in name.removesuffix("_output_0").split("/") if p and p not in EXPORTERS]
    if len(parts) > 1 and parts[0][0].isdigit():
        parts = [parts[-1], *parts[:-1]]
    found = "_".join(parts)
    return _clean(other, f"tensor{other}") if found.isdigit() and other != name else found or "tensor"


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


# --- the input edge --------------------------------------------------------------------------------------------------


def _input(
    b: GraphBuilder, model: Model, given: Input, readers: Mapping[str, list[Node]], options: LoadOptions
) -> Data:
    shape = given.shape[1:]
    where = f"input {given.name}"
    if not shape:
        raise UnsupportedError(where, f"shape {list(given.shape)}", "give it an axis besides the batch")
    first = len(shape) == 3 or (len(shape) == 2 and _reads_channels_first(readers, given.name))
    axes = channels_last(len(shape)) if first else tuple(range(len(shape)))
    ours = tuple(shape[a] for a in axes)
    name = _clean(given.name, "input")
    real = given.dtype in ("float32", "float64")
    if options.input_type is not None and not any(i.dtype in ("float32", "float64") for i in model.inputs):
        raise ToolchainError(
            "--input-type", f"is given, but {where} holds {given.dtype} integers already", "leave it out"
        )
    if options.input_type is not None and real:
        value = declared_input(b, name, ours, options)
    elif real:
        value = Value(b.input(name, ours, _type_of_input(model, given, readers)))
        modes = {node.attributes.get("rounding_mode", "ROUND") for node in _rounds_first(model, given, readers)}
        if modes != {"ROUND"}:
            b.notes.append(
                f"input {value.tensor.name}: the model's quantizer rounds it by {' and '.join(sorted(modes))}, real samples are "
                f"rounded half to even here; give stored integers where that matters"
            )
    else:
        value = _integer_input(b, model, given, readers, name, ours)
    d = Data(value, shape, axes, shape)
    if first and not (d.natural and ours == shape):
        b.notes.append(channels_first_note(value.tensor.name))
    return d


def _reads_channels_first(readers: Mapping[str, list[Node]], name: str) -> bool:
    """Whether what first depends on the axes' order takes them as [channels, length]."""
    for node in readers.get(name, ()):
        if node.op in CHANNELS_FIRST:
            return True
        if node.op not in ("MatMul", "Gemm", "Transpose", "Flatten", "Reshape") and _reads_channels_first(
            readers, node.outputs[0]
        ):
            return True
    return False


def _first_quantizers(model: Model, readers: Mapping[str, list[Node]], name: str, slope: Fraction, intercept: Fraction) -> Iterator[tuple[Node, Fraction, Fraction] | None]:  # fmt: skip
    """What first makes integers of this input, and of which function of it; None where something else reads it."""
    for node in readers.get(name, ()):
        constant = next((model.constants[n] for n in node.inputs if n in model.constants), None)
        if node.op in SHAPES_ONLY or node.op == "Cast":
            yield from _first_quantizers(model, readers, node.outputs[0], slope, intercept)
        elif (
            node.op in ("Add", "Sub", "Mul", "Div")
            and constant is not None
            and constant.value.size == 1
            and node.inputs[0] == name
        ):
            k = Fraction(float(constant.value.ravel()[0]))
            if not k or not np.isfinite(constant.value).all():
                yield None
                continue
            after = {"Add": (slope, intercept + k), "Sub": (slope, intercept - k), "Mul": (slope * k, intercept * k), "Div": (slope / k, intercept / k)}  # fmt: skip
            yield from _first_quantizers(model, readers, node.outputs[0], *after[node.op])
        elif node.op in QUANTIZERS and node.inputs[0] == name:
            yield node, slope, intercept
        else:
            yield None
    if name in model.outputs:
        yield None


def _rounds_first(model: Model, given: Input, readers: Mapping[str, list[Node]]) -> list[Node]:
    found = _first_quantizers(model, readers, given.name, Fraction(1), Fraction(0))
    return [entry[0] for entry in found if entry is not None]


def _type_of_input(model: Model, given: Input, readers: Mapping[str, list[Node]]) -> QType:
    """The integers that the first quantizer makes of this input."""
    where = f"input {given.name}"
    found = list(_first_quantizers(model, readers, given.name, Fraction(1), Fraction(0)))
    if not found:
        raise ToolchainError(where, "nothing reads it", "export the model without it")
    if None in found:
        raise ToolchainError(where, "no quantizer reads it first, so the model does not say its integers", TRY_INPUT)
    types = set()
    for entry in found:
        assert entry is not None
        node, slope, intercept = entry
        q = quant.of_node(node, [model.constants.get(n) for n in node.inputs], len(given.shape))
        scales, zeros = fractions(q.scale), fractions(q.zero_point)
        why = "has one bit" if q.rounding == BIPOLAR else "has a scale for each channel" if len(scales) > 1 else ""
        why = why or (
            "has several zero points" if len(zeros) > 1 else "reads a falling function of it" if slope <= 0 else ""
        )
        if why:
            raise ToolchainError(where, f"its quantizer {why}, so the model does not say its integers", TRY_INPUT)
        zero = zeros[0] + intercept / scales[0]
        bits, signed = bits_for(q.lo, q.hi)
        if zero.denominator != 1 or not q.lo <= zero <= q.hi:
            raise ToolchainError(
                where, f"its quantizer's zero point would be {float(zero):g}, none of its integers", TRY_INPUT
            )
        types.add(QType(bits, signed, scales[0] / slope, None, int(zero)))
    if len(types) > 1:
        raise ToolchainError(where, "several quantizers read it, so the model does not say its integers", TRY_INPUT)
    return types.pop()


def _integer_input(b: GraphBuilder, model: Model, given: Input, readers: Mapping[str, list[Node]], name: str, ours: tuple[int, ...]) -> Value:  # fmt: skip
    """An input of integers, which the model reads as they are; where it dequantizes them, the type says what they are worth."""
    digits = given.dtype.lstrip("uint")
    if not digits.isdigit() or not given.dtype.startswith(("int", "uint")) or int(digits) > 32:
        raise UnsupportedError(
            f"input {given.name}", f"of {given.dtype}", "float32 and integers of 4 to 32 bits are supported"
        )
    bits, signed = int(digits), given.dtype.startswith("int")
    worth = {_worth(model, node) for node in readers.get(given.name, ())}
    pair = worth.pop() if len(worth) == 1 else None
    if pair is None:
        return Value(b.input(name, ours, QType(bits, signed)))
    scale_of, zero_of = pair
    return Value(
        b.input(name, ours, QType(bits, signed, scale_of, None, zero_of)), (1 / scale_of,), (Fraction(zero_of),)
    )


def _worth(model: Model, node: Node) -> tuple[Fraction, int] | None:
    """Scale and zero point of a DequantizeLinear that has one of each; what is wrong with them its own lowering says."""
    scale, zero = (model.constants.get(n) for n in (*node.inputs[1:], "", "")[:2])
    if node.op != "DequantizeLinear" or scale is None or scale.value.size != 1 or (zero and zero.value.size != 1):
        return None
    worth = float(scale.value.ravel()[0])
    return (Fraction(worth), int(zero.value.ravel()[0]) if zero else 0) if 0 < worth < np.inf else None


# --- outputs ---------------------------------------------------------------------------------------------------------


def _output(c: Context, d: Data, name: str, host: dict[str, str], fine: dict[str, OutputMeaning]) -> Tensor:
    b = c.b
    ours = _clean(name, "output")
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
            fine[found.name] = OutputMeaning(v.tensor.name, Affine(v.slope, v.intercept, v.lo, v.hi))
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
        b.notes.append(
            f"output {t.name}: {left}{along} is left to the host; it holds what {left} reads ({HOST[str(left)]})"
        )
    b.output(t)
    return t
