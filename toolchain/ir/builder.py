"""GraphBuilder: how front ends write graphs. Shapes, scales and widths of results are derived here and nowhere else.

Every method takes tensors that the builder returned and gives the new one, as narrow as the values it can hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from toolchain.errors import GraphError

from . import ops
from .check import check, check_op
from .geometry import output_shape
from .graph import Graph, State
from .ops import Op, Padding, Rounding, where
from .ranges import Range, held_range, output_range, type_range
from .scales import output_scales
from .types import MAX_BITS, Const, QType, Tensor, bits_for

WIDEST = QType(64, True)


class GraphBuilder:
    def __init__(self, name: str) -> None:
        self.name = identifier(name)
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.states: list[State] = []
        self.ops: list[Op] = []
        self.notes: list[str] = []
        self.ranges: dict[str, Range] = {}
        self.taken: set[str] = set()

    def fresh(self, name: str) -> str:
        """`name` made a legal identifier that nothing in the graph has yet, whatever its case."""
        wanted = base = identifier(name)
        number = 1
        while wanted.lower() in self.taken:
            number += 1
            wanted = f"{base}_{number}"
        self.taken.add(wanted.lower())
        return wanted

    def range(self, tensor: Tensor) -> Range:
        """The values the tensor can hold."""
        return self.ranges[tensor.name]

    def input(self, name: str, shape: Sequence[int], qtype: QType) -> Tensor:
        tensor = Tensor(self.fresh(name), tuple(shape), qtype)
        self.inputs.append(tensor)
        self.ranges[tensor.name] = type_range(tensor)
        return tensor

    def state(self, name: str, initial: npt.ArrayLike, qtype: QType) -> Tensor:
        """The value kept from the last inference; `next_state` says what replaces it."""
        array = np.asarray(initial)
        tensor = Tensor(self.fresh(name), array.shape, qtype)
        self.states.append(State(tensor, tensor, Const.of(self.fresh(f"{name}_initial"), array, qtype)))
        self.ranges[tensor.name] = type_range(tensor)
        return tensor

    def next_state(self, state: Tensor, value: Tensor) -> None:
        assert state in [s.input for s in self.states], f"%{state.name} is not a state of this graph"
        self.states = [replace(s, output=value) if s.input == state else s for s in self.states]

    def const(
        self,
        name: str,
        array: npt.ArrayLike,
        scale: Any = 1,
        axis: int = 0,
        bits: int | None = None,
        signed: bool | None = None,
    ) -> Const:
        """A constant in the narrowest type, or in `bits` bits; `scale` is one or a sequence along `axis`."""
        given = np.asarray(array)
        need, is_signed = bits_for(int(given.min(initial=0)), int(given.max(initial=0)), signed)
        return Const.of(self.fresh(name), given, QType.of(bits or need, is_signed, scale, axis))

    def output(self, tensor: Tensor) -> None:
        self.outputs.append(tensor)

    def renamed(self, tensor: Tensor, name: str) -> Tensor:
        """The output of the last op under another name, which nothing has read yet; any other tensor stays what it is."""
        if not self.ops or self.ops[-1].output != tensor or tensor in self.outputs:
            return tensor
        self.taken.discard(tensor.name.lower())
        made = replace(tensor, name=self.fresh(name))
        self.ops[-1] = replace(self.ops[-1], output=made)
        self.ranges[made.name] = self.ranges.pop(tensor.name)
        return made

    def graph(self) -> Graph:
        """The finished graph, checked."""
        return check(
            Graph(
                self.name,
                tuple(self.inputs),
                tuple(self.outputs),
                tuple(self.ops),
                tuple(self.states),
                tuple(self.notes),
            )
        )

    def add_op(self, op: Op, name: str, qtype: QType | None = None, signed: bool | None = None) -> Tensor:
        """Append `op`, whose output is a placeholder: its shape, scale and width are derived, or `qtype` is used as it is."""
        op = replace(op, output=Tensor(self.fresh(name), op.output.shape, op.output.qtype))
        op = replace(op, output=replace(op.output, shape=output_shape(op)))
        found = output_range(op, self.ranges)
        if qtype is None:
            scales = output_scales(op)
            assert scales is not None, "requantize, threshold and lookup say their own type"
            lo, hi = held_range(op, self.ranges)
            bits, is_signed = bits_for(lo, hi, signed)
            if bits > MAX_BITS - (not is_signed):
                raise GraphError(
                    where(op), f"values {lo}..{hi} need {bits} bits, at most {MAX_BITS}; lower the bits before it"
                )
            qtype = QType.of(bits, is_signed, scales, len(op.output.shape) - 1)
        op = replace(op, output=replace(op.output, qtype=qtype))
        check_op(op, self.ranges)
        self.ops.append(op)
        self.ranges[op.output.name] = found
        return op.output

    # accumulators

    def dense(self, x: Tensor, weight: Const, bias: Const | None, name: str) -> Tensor:
        return self.add_op(ops.Dense(x, _later(), weight, bias), name, signed=True)

    def conv1d(self, x: Tensor, weight: Const, bias: Const | None, name: str, strides: Sequence[int] = (1,), dilation: Sequence[int] = (1,),
               padding: Padding = ((0, 0),), groups: int = 1) -> Tensor:  # fmt: skip
        return self.add_op(
            ops.Conv1D(x, _later(), weight, bias, tuple(strides), tuple(dilation), padding, groups), name, signed=True
        )

    def conv2d(self, x: Tensor, weight: Const, bias: Const | None, name: str, strides: Sequence[int] = (1, 1), dilation: Sequence[int] = (1, 1),
               padding: Padding = ((0, 0), (0, 0)), groups: int = 1) -> Tensor:  # fmt: skip
        return self.add_op(
            ops.Conv2D(x, _later(), weight, bias, tuple(strides), tuple(dilation), padding, groups), name, signed=True
        )

    def depthwise_conv2d(self, x: Tensor, weight: Const, bias: Const | None, name: str, strides: Sequence[int] = (1, 1),
                         dilation: Sequence[int] = (1, 1), padding: Padding = ((0, 0), (0, 0))) -> Tensor:  # fmt: skip
        return self.add_op(
            ops.DepthwiseConv2D(x, _later(), weight, bias, tuple(strides), tuple(dilation), padding), name, signed=True
        )

    # to another type

    def requantize(self, x: Tensor, qtype: QType, multiplier: Sequence[int], offset: Sequence[int], shift: Sequence[int], rounding: Rounding, name: str,
                   clamp: tuple[int, int] | None = None, output_offset: int = 0) -> Tensor:  # fmt: skip
        columns = [tuple(map(int, v)) for v in (multiplier, offset, shift)]
        if all(len(set(c)) == 1 for c in columns):
            columns = [c[:1] for c in columns]
        limits = clamp or (qtype.min, qtype.max)
        return self.add_op(
            ops.Requantize(x, _later(), columns[0], columns[1], columns[2], output_offset, rounding, limits),
            name,
            qtype,
        )

    def threshold(self, x: Tensor, qtype: QType, thresholds: npt.ArrayLike, levels: npt.ArrayLike, name: str) -> Tensor:
        """`thresholds` [1 or channels, T] ascending, `levels` [1 or channels, T + 1] stored integers of `qtype`."""
        ladder = self.const(f"{name}_thresholds", thresholds, signed=True)
        level = self.const(f"{name}_levels", levels, bits=qtype.bits, signed=qtype.signed)
        return self.add_op(ops.Threshold(x, _later(), ladder, level), name, qtype)

    def lookup(self, x: Tensor, qtype: QType, table: npt.ArrayLike, name: str) -> Tensor:
        """`table` [2**bits of x]: the stored integer of `qtype` for each stored x from the smallest up."""
        return self.add_op(
            ops.Lookup(x, _later(), self.const(f"{name}_table", table, bits=qtype.bits, signed=qtype.signed)),
            name,
            qtype,
        )

    def interpolate(
        self, x: Tensor, qtype: QType, table: Const, shift: int, rounding: Rounding, name: str, output_offset: int = 0
    ) -> Tensor:
        """`table` [2**k + 1]: entries at equal distances over the values of x's type, the last one beyond the largest."""
        return self.add_op(ops.Interpolate(x, _later(), table, shift, rounding, output_offset), name, qtype)

    # of two or more

    def add(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        return self.add_op(ops.Add(a, b, _later()), name)

    def sub(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        return self.add_op(ops.Sub(a, b, _later()), name)

    def multiply(self, a: Tensor, b: Tensor, name: str) -> Tensor:
        return self.add_op(ops.Multiply(a, b, _later()), name)

    def concat(self, inputs: Sequence[Tensor], axis: int, name: str) -> Tensor:
        """`axis` without the batch. Zero points must be equal; the result holds the widest of the inputs."""
        op = ops.Concat(tuple(inputs), _later(), axis)
        op = replace(op, output=Tensor("later", output_shape(op), WIDEST))
        scales = output_scales(op)
        assert scales is not None
        bits, signed = bits_for(min(t.qtype.min for t in inputs), max(t.qtype.max for t in inputs))
        qtype = QType.of(bits, signed, scales, len(op.output.shape) - 1, inputs[0].qtype.zero_point)
        return self.add_op(op, name, qtype)

    def scale_up(self, x: Tensor, factor: Sequence[int] | int, name: str) -> Tensor:
        """x - zero point times a positive integer (one, or one for each channel) at a scale divided by it: the same real values, exactly."""
        factors = (factor,) if isinstance(factor, int) else tuple(factor)
        zero = x.qtype.zero_point
        if set(factors) == {1} and not zero:
            return x
        size = max(len(factors), len(x.qtype.scales), len(self.range(x).lo))
        every = factors * size if len(factors) == 1 else factors
        ends = [(end - zero) * f for pair, f in zip(self.range(x).channels(size), every, strict=True) for end in pair]
        scales = [s / f for s, f in zip(x.qtype.scale_list(size), every, strict=True)]
        qtype = QType.of(*bits_for(min(ends), max(ends)), scales, len(x.shape) - 1)
        return self.requantize(
            x, qtype, factors, [-zero * f for f in factors], [0] * len(factors), Rounding.FLOOR, name
        )

    # moving and pooling

    def max_pool(
        self,
        x: Tensor,
        kernel: Sequence[int],
        strides: Sequence[int],
        padding: Padding,
        name: str,
        ceil_mode: bool = False,
    ) -> Tensor:
        return self.add_op(ops.MaxPool(x, _later(), tuple(kernel), tuple(strides), padding, ceil_mode), name, x.qtype)

    def sum_pool(self, x: Tensor, kernel: Sequence[int], strides: Sequence[int], padding: Padding, name: str, ceil_mode: bool = False,
                 count_include_pad: bool = False) -> Tensor:  # fmt: skip
        return self.add_op(
            ops.SumPool(x, _later(), tuple(kernel), tuple(strides), padding, ceil_mode, count_include_pad), name
        )

    def reshape(self, x: Tensor, shape: Sequence[int], name: str) -> Tensor:
        if tuple(shape) == x.shape:
            return x
        axis = None if x.qtype.axis is None else len(shape) - 1
        return self.add_op(ops.Reshape(x, Tensor("later", tuple(shape), WIDEST)), name, replace(x.qtype, axis=axis))

    def transpose(self, x: Tensor, permutation: Sequence[int], name: str) -> Tensor:
        return self.add_op(ops.Transpose(x, _later(), tuple(permutation)), name, x.qtype)

    def pad(self, x: Tensor, padding: Padding, name: str, value: int | None = None) -> Tensor:
        """`padding` for every axis; `value` is a stored integer, the zero point when not given."""
        return self.add_op(ops.Pad(x, _later(), padding, x.qtype.zero_point if value is None else value), name, x.qtype)

    def upsample(self, x: Tensor, factors: Sequence[int], name: str) -> Tensor:
        return self.add_op(ops.UpSample(x, _later(), tuple(factors)), name, x.qtype)

    def argmax(self, x: Tensor, name: str) -> Tensor:
        return self.add_op(ops.ArgMax(x, _later()), name)

    def slice(
        self, x: Tensor, begin: Sequence[int], sizes: Sequence[int], strides: Sequence[int] | None, name: str
    ) -> Tensor:
        """`sizes` elements of each axis, from `begin` on, `strides` apart (1 when not given)."""
        steps = (1,) * len(x.shape) if strides is None else tuple(strides)
        op = ops.Slice(x, Tensor("later", tuple(sizes), WIDEST), tuple(begin), steps)
        output_shape(op)
        scales = output_scales(op)
        assert scales is not None
        qtype = QType.of(x.qtype.bits, x.qtype.signed, scales, len(x.shape) - 1, x.qtype.zero_point)
        return self.add_op(op, name, qtype)

    def softmax(self, x: Tensor, table: npt.ArrayLike, qtype: QType, name: str) -> Tensor:
        """`table` [256]: exp of 0, -1, -2 ... steps of x in Q0.31; `qtype` is s8 at 1/256 or s16 at 1/65536, 0 its least value."""
        const = self.const(f"{name}_table", table, Fraction(1, 1 << 31), bits=32, signed=True)
        return self.add_op(
            ops.Softmax(x, replace(_later(), qtype=qtype), const), name, qtype
        )  # its range is its type's

    def softmax16(
        self, x: Tensor, table: Const, reciprocal: Const, multiplier: int, shift: int, qtype: QType, name: str
    ) -> Tensor:
        """`table` and `reciprocal` [513]: exp from -10 to 0, 1 / (1 + x) from 0 to 1, in Q15; `qtype` is s16 at 1/32768."""
        return self.add_op(ops.Softmax16(x, _later(), table, reciprocal, multiplier, shift), name, qtype)


def _later() -> Tensor:
    return Tensor("later", (), WIDEST)


def identifier(name: str) -> str:
    """`name` with everything but letters, digits and _ replaced, and not starting with a digit."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    return f"_{clean}" if clean[0].isdigit() else clean
