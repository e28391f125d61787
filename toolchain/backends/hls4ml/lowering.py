"""A graph as layers for hls4ml: its kernels for sums of products and moves, ours for what it has no exact one for.

One rule: a lowering is equal as integers for every input, or the op is refused by name.
"""

from __future__ import annotations

from collections.abc import Container

from toolchain.errors import UnsupportedError, assert_never
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.ops import where
from toolchain.passes.plan import no_circuit, unread

from . import moves, products, stages
from .builder import Builder, Value
from .layers import Int, Network


def lower(graph: Graph, stream: bool, depthwise: bool = True, shared: Container[str] = ()) -> Network:
    """The network of a graph; `stream` for io_stream, where a tensor is a sequence of tokens of all channels of a position;
    `depthwise` where hls4ml has kernels for that; `shared` are the ops of strategy Resource, by name of their output."""
    if graph.states:
        at, what = f"state %{graph.states[0].input.name}", "is kept between inferences, which hls4ml's networks do not"
        raise UnsupportedError(at, what, "use a board whose back end is 'c'")
    b = Builder(stream, depthwise, shared)
    values: dict[str, Value] = {}
    for k, tensor in enumerate(graph.inputs):
        _axes(f"input %{tensor.name}", tensor)
        b.begin(f"in{k}", tensor.name)
        shape = tensor.shape
        values[tensor.name] = b.add(
            "InputLayer", [], shape, Int.of(tensor.qtype), attributes={"input_shape": list(shape)}
        )
    inputs = tuple(v.layer for v in values.values())
    if stream:
        _all_read(graph)
    for k, op in enumerate(graph.ops):
        _axes(where(op), op.output)
        b.begin(f"op{k}_{ops.kind(op)}", op.output.name)
        value = _lower(b, graph, op, [values[t.name] for t in ops.inputs_of(op)])
        assert (value.shape, value.type) == (op.output.shape, Int.of(op.output.qtype)), f"{where(op)}: {value}"
        values[op.output.name] = value
    outputs = []
    for k, tensor in enumerate(graph.outputs):
        value = values[tensor.name]
        if value.layer in inputs or value.layer in outputs:  # what leaves the network is made by a layer of its own
            b.begin(f"out{k}", tensor.name)
            value = moves.copy(b, value, value.shape)
        outputs.append(value.layer)
    return Network(tuple(b.layers), inputs, tuple(outputs))


def _all_read(graph: Graph) -> None:
    """A stream that nobody empties fills up, and whoever feeds it waits for ever: in a circuit at the second inference or so."""
    for tensor in graph.unread_inputs():
        raise unread(tensor)


def _axes(at: str, tensor: Tensor) -> None:
    if not 1 <= len(tensor.shape) <= 3:
        what = f"has shape {list(tensor.shape)}, must have one to three axes: hls4ml's kernels know no more"
        raise UnsupportedError(at, what, "reshape it in the model")


def _lower(b: Builder, graph: Graph, op: ops.Op, args: list[Value]) -> Value:
    x = args[0]
    match op:
        case ops.Dense():
            return products.dense(b, op, x)
        case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            return products.conv(b, op, x)
        case ops.Requantize():
            return stages.requantize(b, op, x)
        case ops.Threshold():
            return stages.threshold(b, op, x)
        case ops.Lookup():
            return stages.lookup(b, op, x)
        case ops.Add():
            return moves.merge(b, op, "add", args)
        case ops.Sub():
            return moves.merge(b, op, "subtract", args)
        case ops.Multiply():
            zeros = (op.a.qtype.zero_point, op.b.qtype.zero_point)
            shifted = [b.minus(v, z, what) for v, z, what in zip(args, zeros, ("a_zero", "b_zero"), strict=True)]
            return moves.merge(b, op, "multiply", shifted)
        case ops.Concat():
            return moves.concat(b, op, args)
        case ops.MaxPool() | ops.SumPool():
            return moves.pool(b, op, x)
        case ops.Reshape():
            return moves.reshape(b, op, x, _free(b, graph, op.output))
        case ops.Transpose():
            return moves.transpose(b, op, x)
        case ops.Pad():
            return moves.pad(b, x, op.padding, op.value)
        case ops.UpSample():
            return moves.repeat(b, x, op.output.shape)
        case ops.ArgMax():
            return stages.argmax(b, op, x)
        case ops.Slice():
            return moves.part(b, op, x)
        case ops.Softmax() | ops.Softmax16() | ops.Interpolate():
            error = no_circuit(op)
            assert error is not None
            raise error
        case _:
            raise assert_never(op)


def _free(b: Builder, graph: Graph, tensor: Tensor) -> bool:
    """Whether a reshaped tensor needs no copy: an array never does, a stream where one Dense reads the tokens as they come.

    What leaves the network is copied: hls4ml would leave a last Reshape out."""
    if tensor in graph.outputs:
        return False
    readers = [op for op in graph.ops if tensor in ops.inputs_of(op)]
    flat = len(tensor.shape) == 1 and len(readers) == 1 and isinstance(readers[0], ops.Dense)
    return flat or not b.stream
