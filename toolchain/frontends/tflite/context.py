"""What every operator's lowering is given: the graph so far, and how tensors of the file and of the graph belong together.

Its one rule: a tensor of the graph holds the integers of the file's tensor in its order, under its type; a first axis of 1, the
batch, is left out wherever another is left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.tflite import arithmetic, schema
from toolchain.frontends.tflite.archive import Node, Tensor
from toolchain.frontends.tflite.arithmetic import Factor
from toolchain.frontends.tflite.flatbuffer import AGAIN
from toolchain.ir import types
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.ir.types import QType

BITS = {"int8": (8, True), "uint8": (8, False), "int16": (16, True)}
CONVERT = "convert with full integer quantization (int8, or int16 activations with int8 weights)"
ACTIVATIONS = ("int8", "int16")
SMALLEST = 2.0**-60  # scale of data
KINDS = ("int8", "uint8", "int16")  # of what only moves integers


@dataclass
class Context:
    b: GraphBuilder
    values: dict[int, types.Tensor] = field(default_factory=dict)  # by the number of the file's tensor
    tables: dict[str, types.Const] = field(default_factory=dict)  # that several operators read

    def input(self, node: Node, position: int = 0, kinds: Sequence[str] = ACTIVATIONS) -> tuple[Tensor, types.Tensor]:
        """An input that must be computed, with one scale: the file's tensor and the graph's."""
        found = node.inputs[position] if position < len(node.inputs) else None
        if found is None:
            raise ToolchainError(node.where, f"has no input {position}", AGAIN)
        usable(node, found, kinds)
        if found.data is not None:
            raise UnsupportedError(node.where, f"input {found.where} is a constant", "fold it before export")
        if found.index not in self.values:
            raise ToolchainError(node.where, f"reads {found.where}, which nothing before it makes", AGAIN)
        return found, self.values[found.index]

    def output(self, node: Node, position: int = 0, kinds: Sequence[str] = ACTIVATIONS) -> Tensor:
        """The file's tensor that the operator makes."""
        if position >= len(node.outputs):
            raise ToolchainError(node.where, f"has no output {position}", AGAIN)
        found = node.outputs[position]
        usable(node, found, kinds)
        return found

    def same_type(self, node: Node, x: Tensor, kinds: Sequence[str] = ACTIVATIONS) -> Tensor:
        """The output, which must be of the input's type."""
        y = self.output(node, 0, kinds)
        if y.type != x.type:
            raise UnsupportedError(node.where, f"makes {y.type} of {x.type}, must be one type", CONVERT)
        return y

    def put(self, y: Tensor, made: types.Tensor) -> None:
        """`made` is what the operator makes: it gets the file's shape, and the file's type where that is another."""
        name = clean(y.name)
        made = self.b.reshape(made, graph_shape(y.shape), f"{name}_shape" if made.qtype != qtype(y) else name)
        if made.qtype != qtype(y):  # the same integers: TFLM moves them whatever their scales
            made = self.b.requantize(made, qtype(y), [1], [0], [0], Rounding.FLOOR, name)
        self.values[y.index] = made

    def requantized(
        self, node: Node, x: types.Tensor, y: Tensor, factors: Sequence[Factor], clamp: tuple[int, int], name: str
    ) -> types.Tensor:
        """MultiplyByQuantizedMultiplier of 32 bits, zero point, clamp."""
        self.fits32(node, x)
        multipliers, shifts = [f.multiplier for f in factors], [f.shift for f in factors]
        zeros = [0] * len(factors)
        return self.b.requantize(x, qtype(y), multipliers, zeros, shifts, Rounding.TFLM, name, clamp, y.zero_point)

    def fits32(self, node: Node, x: types.Tensor) -> None:
        lo, hi = self.b.range(x).whole
        if not -(1 << 31) <= lo <= hi < 1 << 31:
            what = f"its sums reach {lo}..{hi}, where TensorFlow Lite Micro's 32 bits overflow"
            raise UnsupportedError(node.where, what, "use fewer inputs, or weights and biases that are smaller")

    def table(self, y: QType, x: types.Tensor, function: Callable[[int], int], name: str) -> types.Tensor:
        """y = function(stored x), which has 8 bits, as a lookup."""
        return self.b.lookup(x, y, [function(v) for v in range(x.qtype.min, x.qtype.max + 1)], name)


def usable(node: Node, tensor: Tensor, kinds: Sequence[str] = ACTIVATIONS) -> None:
    if tensor.flaw or tensor.type not in kinds:
        what = f"{tensor.where} {tensor.flaw or f'is {tensor.type}'}; supported here: {', '.join(kinds)}"
        raise UnsupportedError(node.where, what, CONVERT)
    assert tensor.type in BITS
    if not SMALLEST <= tensor.scale <= 1 / SMALLEST:
        raise UnsupportedError(
            node.where, f"{tensor.where} has scale {tensor.scale:g}, must be 2**-60 to 2**60", CONVERT
        )
    lo, hi = arithmetic.LIMITS[tensor.type]
    if not lo <= tensor.zero_point <= hi:
        raise ToolchainError(
            node.where, f"{tensor.where} has zero point {tensor.zero_point}, none of its integers", AGAIN
        )
    if tensor.type == "int16" and tensor.zero_point and node.op not in ("SOFTMAX", "DEQUANTIZE"):
        what = f"{tensor.where} is int16 with zero point {tensor.zero_point}, must be 0"
        raise UnsupportedError(node.where, what, CONVERT)


def qtype(tensor: Tensor) -> QType:
    bits, signed = BITS[tensor.type]
    return QType(bits, signed, Fraction(float(tensor.scale)), None, tensor.zero_point)


def graph_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The graph's shape of a tensor: without a first axis of 1, and with an axis at least."""
    kept = tuple(shape[1:]) if len(shape) > 1 and shape[0] == 1 else tuple(shape)
    return kept or (1,)


def full(c: Context, x: types.Tensor, of: Tensor, name: str) -> types.Tensor:
    """The tensor under the file's own shape, where an operator works along its first axis."""
    return c.b.reshape(x, of.shape or (1,), f"{name}_full")


def same_size(node: Node, y: Tensor, shape: Sequence[int]) -> None:
    """The shape that the operator makes must be the file's."""
    if tuple(shape) != y.shape:
        raise ToolchainError(node.where, f"makes {list(shape)}, but the file says {list(y.shape)}", AGAIN)


def one_batch(node: Node, tensor: Tensor, rank: int) -> tuple[int, ...]:
    """The shape of a tensor of `rank` axes, without the batch, which must be 1."""
    if len(tensor.shape) != rank:
        raise UnsupportedError(node.where, f"{tensor.where} has shape {list(tensor.shape)}, must have {rank} axes")
    if tensor.shape[0] != 1:
        raise UnsupportedError(node.where, f"has a batch of {tensor.shape[0]}, must be 1", "export with a batch of 1")
    return tensor.shape[1:]


def same_count(node: Node, x: Tensor, y: Tensor) -> None:
    if prod(x.shape) != prod(y.shape):
        raise ToolchainError(node.where, f"makes {list(y.shape)} of {list(x.shape)}", AGAIN)


def same_shape(node: Node, x: Tensor, y: Tensor) -> None:
    same_size(node, y, x.shape)


def activation(node: Node, y: Tensor) -> tuple[int, int]:
    """The clamp that the operator's fused activation is."""
    return arithmetic.activation_range(node, node.choice("activation", schema.ACTIVATIONS), y)


def clean(name: str) -> str:
    """The file's name without what exporters add: model/dense_1/Relu;model/dense_1/BiasAdd is dense_1_Relu."""
    first = name.split(";")[0].removeprefix("serving_default_").removesuffix(":0")
    if first.startswith("StatefulPartitionedCall"):
        return "output" + first.removeprefix("StatefulPartitionedCall").replace(":", "_")
    parts = [p for p in first.split("/") if p]
    return "_".join(parts[-2:])[:60] or "tensor"


def axis_of(node: Node, axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ToolchainError(node.where, f"axis {axis} of {rank}", AGAIN)
    return axis % rank
