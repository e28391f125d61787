"""From the neutral model to the integer graph: the walk over the operators, inputs and outputs.

Its one rule: every integer of the graph is the one that TensorFlow Lite Micro computes; what is real at the ends of the file
(QUANTIZE, DEQUANTIZE) becomes the type of the graph's end.
"""

from __future__ import annotations

from collections.abc import Callable

from toolchain.errors import ToolchainError, UnsupportedError, nearest
from toolchain.frontends.tflite import elementwise, moves, products, slices, softmax
from toolchain.frontends.tflite.archive import Model, Node, Tensor
from toolchain.frontends.tflite.context import CONVERT, KINDS, Context, clean, graph_shape, qtype, usable
from toolchain.frontends.tflite.flatbuffer import AGAIN
from toolchain.ir import Graph
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding

TABLE: dict[str, Callable[[Context, Node], None]] = {
    "ADD": elementwise.add,
    "AVERAGE_POOL_2D": moves.average_pool_2d,
    "CONCATENATION": moves.concatenation,
    "CONV_2D": products.conv_2d,
    "DEPTHWISE_CONV_2D": products.depthwise_conv_2d,
    "EXPAND_DIMS": moves.reshape,
    "FULLY_CONNECTED": products.fully_connected,
    "HARD_SWISH": elementwise.hard_swish,
    "LEAKY_RELU": elementwise.leaky_relu,
    "LOGISTIC": elementwise.logistic,
    "MAX_POOL_2D": moves.max_pool_2d,
    "MEAN": moves.mean,
    "MUL": elementwise.mul,
    "PACK": moves.concatenation,
    "PAD": moves.pad,
    "PADV2": moves.pad,
    "QUANTIZE": elementwise.quantize,
    "RELU": elementwise.relu,
    "RELU6": elementwise.relu6,
    "RESHAPE": moves.reshape,
    "RESIZE_NEAREST_NEIGHBOR": slices.resize_nearest_neighbor,
    "SLICE": slices.slice_,
    "SOFTMAX": softmax.softmax,
    "SPLIT": slices.split,
    "SPLIT_V": slices.split,
    "SQUEEZE": moves.reshape,
    "STRIDED_SLICE": slices.strided_slice,
    "SUB": elementwise.sub,
    "TANH": elementwise.tanh,
    "TRANSPOSE": moves.transpose,
    "UNPACK": slices.split,
}


def lower_model(model: Model) -> Graph:
    """The graph of a model; UnsupportedError names the operator and what is supported instead."""
    c = Context(GraphBuilder(model.name))
    skipped = _inputs(c, model)
    real: dict[int, Tensor] = {}  # by the number of what is real at the end: the integers that it is computed from
    made = {t.index for t in model.inputs}
    shapes: set[int] = set()  # tensors that hold shapes: known already, for the file says every tensor's
    for node in model.nodes:
        for y in node.outputs:
            if y.index in made or y.data is not None:
                raise ToolchainError(node.where, f"makes {y.where}, which is there already", AGAIN)
            made.add(y.index)
        if node.index in skipped or _of_shapes(node, shapes):
            continue
        if node.op == "DEQUANTIZE":
            real[_at_the_end(c, model, node).index] = c.input(node, 0, KINDS)[0]
        elif node.op in TABLE:
            TABLE[node.op](c, node)
        else:
            known = [*TABLE, "DEQUANTIZE"]
            hint = " ".join(filter(None, [nearest(node.op, known), f"supported: {', '.join(sorted(known))}"]))
            raise UnsupportedError(node.where, "is not supported", hint)
    for tensor in model.outputs:
        _output(c, tensor, real.get(tensor.index, tensor))
    return c.b.graph()


def _inputs(c: Context, model: Model) -> set[int]:
    """The graph's inputs, and the operators that did no more than make integers of them."""
    skipped: set[int] = set()
    for tensor in model.inputs:
        where = f"input {tensor.where}"
        if tensor.data is not None or tensor.index in c.values:
            raise ToolchainError(where, "is a constant or another input too", AGAIN)
        readers = [node for node in model.nodes if tensor in node.inputs]
        source = tensor
        if tensor.type == "float32" and not tensor.flaw:
            quantizers = [node for node in readers if node.op == "QUANTIZE" and node.outputs]
            found = [node.outputs[0] for node in quantizers]
            if (
                not readers
                or len(quantizers) < len(readers)
                or len({(t.type, t.scales, t.zero_points) for t in found}) != 1
            ):
                raise UnsupportedError(where, "is float32 and is not quantized first, by one scale", CONVERT)
            for node in quantizers:
                usable(node, node.outputs[0], ("int8", "int16"))
                if node.outputs[0].shape != tensor.shape:
                    raise ToolchainError(node.where, "its input and output have different shapes", AGAIN)
            source = found[0]
            skipped |= {node.index for node in quantizers}
        else:
            usable(Node(0, "input", (), (tensor,), {}), tensor, ("int8", "uint8", "int16"))
            found = [tensor]
        made = c.b.input(clean(tensor.name), graph_shape(source.shape), qtype(source))
        for t in found:
            c.values[t.index] = made
        if source is not tensor:
            c.b.notes.append(
                f"input {made.name}: the model's QUANTIZE rounds halves away from zero in float32, real samples are rounded half to even "
                f"here; give stored integers where that matters"
            )
    return skipped


def _of_shapes(node: Node, shapes: set[int]) -> bool:
    """Whether the operator computes a shape, as exporters write a Reshape of a model whose batch was open; no integer of data is in it."""
    kinds = {y.type for y in node.outputs}
    computed = [t for t in node.inputs if t is not None and t.data is None]
    if not node.outputs or kinds - {"int32", "int64"}:
        return False
    if node.op != "SHAPE" and (not computed or any(t.index not in shapes for t in computed)):
        return False
    shapes.update(y.index for y in node.outputs)
    return True


def _at_the_end(c: Context, model: Model, node: Node) -> Tensor:
    """What a DEQUANTIZE makes, which may come last alone."""
    if not node.outputs:
        raise ToolchainError(node.where, "has no output", AGAIN)
    y = node.outputs[0]
    c.input(node, 0, KINDS)
    reader = next((n for n in model.nodes if y in n.inputs), None)
    if reader is not None:
        what = f"its real values are read by {reader.where}; a graph holds integers alone"
        raise UnsupportedError(node.where, what, CONVERT)
    return y


def _output(c: Context, tensor: Tensor, source: Tensor) -> None:
    if source.index not in c.values:
        raise UnsupportedError(f"output {tensor.where}", "is a constant, or nothing makes it", "remove it")
    found, name = c.values[source.index], clean(tensor.name)
    if found in c.b.outputs or found in c.b.inputs:  # an output is a tensor of its own
        found = c.b.requantize(found, found.qtype, [1], [0], [0], Rounding.FLOOR, name)
    elif source is not tensor:
        before, found = found, c.b.renamed(found, name)
        c.values.update({index: found for index, t in c.values.items() if t == before})
    if source is not tensor:
        c.b.notes.append(
            f"output {found.name}: the model's DEQUANTIZE makes float32 of these integers; their type says their real values"
        )
    c.b.output(found)
