"""The closed set of ops. Each docstring is the one-line meaning; docs/numerics.md is the specification, reference.py the definition.

In the formulas x is what is stored, zx its zero point. Every op names its inputs and its one output; accumulators are
tensors of their own, so that their width is visible and can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from .types import Const, Tensor

Padding = tuple[tuple[int, int], ...]  # (before, after) for each spatial axis


class Rounding(str, Enum):
    """How t / 2**shift becomes an integer; docs/numerics.md tabulates each at halves of both signs."""

    HALF_EVEN = "half_even"
    HALF_UP = "half_up"
    HALF_DOWN = "half_down"
    HALF_AWAY = "half_away"
    HALF_TOWARD_ZERO = "half_toward_zero"
    FLOOR = "floor"
    CEIL = "ceil"
    TOWARD_ZERO = "toward_zero"
    AWAY_FROM_ZERO = "away_from_zero"
    TFLM = "tflm"


@dataclass(frozen=True)
class Dense:
    """acc[o] = bias[o] + sum_i (x[i] - zx) * weight[o, i]; over the last axis, earlier axes are kept."""

    input: Tensor
    output: Tensor
    weight: Const
    bias: Const | None


@dataclass(frozen=True)
class Conv1D:
    """Conv2D with one spatial axis: input [length, in], weight [out, k, in/groups]."""

    input: Tensor
    output: Tensor
    weight: Const
    bias: Const | None
    strides: tuple[int, ...] = (1,)
    dilation: tuple[int, ...] = (1,)
    padding: Padding = ((0, 0),)
    groups: int = 1


@dataclass(frozen=True)
class Conv2D:
    """acc[h, w, o] = bias[o] + sum (x[h*sh + i*dh - top, w*sw + j*dw - left, c] - zx) * weight[o, i, j, c]; outside the input a term is 0."""

    input: Tensor
    output: Tensor
    weight: Const
    bias: Const | None
    strides: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    padding: Padding = ((0, 0), (0, 0))
    groups: int = 1


@dataclass(frozen=True)
class DepthwiseConv2D:
    """As Conv2D with one input channel for each output: weight [kh, kw, out], channel o reads input channel o // (out / in)."""

    input: Tensor
    output: Tensor
    weight: Const
    bias: Const | None
    strides: tuple[int, ...] = (1, 1)
    dilation: tuple[int, ...] = (1, 1)
    padding: Padding = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Requantize:
    """y = clamp(output_offset + round((acc * multiplier + offset) / 2**shift)); tuples of one, or one for each channel of the last axis."""

    input: Tensor
    output: Tensor
    multiplier: tuple[int, ...]
    offset: tuple[int, ...]
    shift: tuple[int, ...]
    output_offset: int
    rounding: Rounding
    clamp: tuple[int, int]


@dataclass(frozen=True)
class Threshold:
    """y = levels[c, number of t with x >= thresholds[c, t]]; thresholds ascend; [1 or channels, T] and [1 or channels, T + 1]."""

    input: Tensor
    output: Tensor
    thresholds: Const
    levels: Const


@dataclass(frozen=True)
class Lookup:
    """y = table[x - min(x's type)]; at most 12 input bits."""

    input: Tensor
    output: Tensor
    table: Const


@dataclass(frozen=True)
class Interpolate:
    """y = output_offset + round((table[i] * (n - r) + table[i + 1] * r) / 2**shift), where x - min(x's type) = i * n + r: a line from
    each entry to the next, n steps of x long."""

    input: Tensor
    output: Tensor
    table: Const
    shift: int
    rounding: Rounding
    output_offset: int


@dataclass(frozen=True)
class Add:
    """y = a + b; equal scales, zero points 0; axes of size 1 repeat."""

    a: Tensor
    b: Tensor
    output: Tensor


@dataclass(frozen=True)
class Sub:
    """y = a - b; equal scales, zero points 0; axes of size 1 repeat."""

    a: Tensor
    b: Tensor
    output: Tensor


@dataclass(frozen=True)
class Multiply:
    """y = (a - za) * (b - zb); the scale is the product; axes of size 1 repeat."""

    a: Tensor
    b: Tensor
    output: Tensor


@dataclass(frozen=True)
class Concat:
    """The inputs one after another along `axis`."""

    inputs: tuple[Tensor, ...]
    output: Tensor
    axis: int


@dataclass(frozen=True)
class MaxPool:
    """y = the largest x of each window; what lies outside the input does not take part. One or two spatial axes."""

    input: Tensor
    output: Tensor
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Padding
    ceil_mode: bool


@dataclass(frozen=True)
class SumPool:
    """y = sum(x - zx) * L / count of each window, L the lcm of all counts; so the real value is the average, at scale / L."""

    input: Tensor
    output: Tensor
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Padding
    ceil_mode: bool
    count_include_pad: bool


@dataclass(frozen=True)
class Reshape:
    """The same integers in C order under another shape (flatten is one)."""

    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class Transpose:
    """Axis k of the output is axis permutation[k] of the input."""

    input: Tensor
    output: Tensor
    permutation: tuple[int, ...]


@dataclass(frozen=True)
class Pad:
    """`value` (stored) before and after each axis, spatial or not."""

    input: Tensor
    output: Tensor
    padding: Padding
    value: int


@dataclass(frozen=True)
class UpSample:
    """Each element repeated factors[k] times along spatial axis k (nearest neighbour)."""

    input: Tensor
    output: Tensor
    factors: tuple[int, ...]


@dataclass(frozen=True)
class ArgMax:
    """The index of the largest along the last axis, the first of equals; that axis becomes 1."""

    input: Tensor
    output: Tensor


@dataclass(frozen=True)
class Slice:
    """y[i] = x[begin + i * strides] on every axis; as many as the output's shape says."""

    input: Tensor
    output: Tensor
    begin: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Softmax:
    """TensorFlow Lite Micro's integer softmax over the last axis; table[d] is exp of d steps below the largest, in Q0.31."""

    input: Tensor
    output: Tensor
    table: Const


@dataclass(frozen=True)
class Softmax16:
    """TensorFlow Lite Micro's softmax of 16 bits over the last axis; both tables are read as Interpolate reads one: exp from -10 to 0
    and 1 / (1 + x) from 0 to 1, in Q15. The distance from the largest is scaled by multiplier and shift, rounding mode tflm."""

    input: Tensor
    output: Tensor
    table: Const
    reciprocal: Const
    multiplier: int
    shift: int


Op = (
    Dense
    | Conv1D
    | Conv2D
    | DepthwiseConv2D
    | Requantize
    | Threshold
    | Lookup
    | Interpolate
    | Add
    | Sub
    | Multiply
    | Concat
    | MaxPool
    | SumPool
    | Reshape
    | Transpose
    | Pad
    | UpSample
    | ArgMax
    | Slice
    | Softmax
    | Softmax16
)
OPS: tuple[type[Op], ...] = Op.__args__
Mac = Dense | Conv1D | Conv2D | DepthwiseConv2D


def kind(op: Op) -> str:
    """The op's name in the text form and in every message: `conv2d`, `requantize`."""
    return type(op).__name__.lower()


def where(op: Op) -> str:
    """How errors name an op: its kind and its output."""
    return f"{kind(op)} %{op.output.name}"


def inputs_of(op: Op) -> tuple[Tensor, ...]:
    """The tensors the op reads, constants aside, in the order of its fields."""
    found: list[Tensor] = []
    for field in fields(op):
        value = getattr(op, field.name)
        if field.name == "output":
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple):
            found += [v for v in value if isinstance(v, Tensor)]
    return tuple(found)


def consts_of(op: Op) -> tuple[Const, ...]:
    """The constants the op reads, in the order of its fields."""
    return tuple(v for v in vars(op).values() if isinstance(v, Const))
