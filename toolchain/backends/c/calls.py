"""One C call for each function of a model: which kernel, with which shape, tables and stages.

One rule: what a kernel is told here is a literal or a table; nothing is decided on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm, prod

from toolchain.errors import UnsupportedError, assert_never
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.geometry import pool_counts
from toolchain.ir.ops import Op, where
from toolchain.ir.ranges import Range
from toolchain.layout import SIZES, STAGES, Function, ctype, head, in_place
from toolchain.passes.plan import Plan
from toolchain.special_kernels import special

from .families import FAMILIES
from .general import general
from .names import field_name
from .stages import lookup_args, stage
from .tables import CODES, INT32, Tables, fields, number

BINARY_AXES = 4  # NN_BINARY_AXES
MOVE_AXES = 6  # NN_MOVE_AXES


@dataclass(frozen=True)
class Context:
    graph: Graph
    plan: Plan
    ranges: Mapping[str, Range]
    tables: Tables
    instance: bool = False  # whether all that is written is the caller's: `self`, in and out
    declared: dict[str, str] = field(
        default_factory=dict
    )  # what model.c says before its functions, by what it declares
    assembled: dict[str, dict[str, None]] = field(default_factory=dict)  # lines of assembly by the family of kernels

    @property
    def self(self) -> tuple[str, ...]:
        return ("self",) if self.instance else ()

    @property
    def takes(self) -> str:
        """How a function's parameters begin, and, `passes`, a call's arguments."""
        return "model_instance *self, " if self.instance else ""

    @property
    def passes(self) -> str:
        return "self, " if self.instance else ""

    @property
    def states(self) -> str:
        return "self->states" if self.instance else "model_states"

    @property
    def next_states(self) -> str:
        return "self->next_states" if self.instance else "model_next_states"

    def declare(self, name: str, text: str) -> None:
        """Say this in model.c before the functions, one time however often it is asked for."""
        self.declared[name] = text

    def assemble(self, family: str, line: str) -> None:
        """Have this line in model_<family>.S, one time however often it is asked for."""
        self.assembled.setdefault(family, {})[line] = None

    def wide(self, tensor: Tensor) -> int:
        """1 where the values of a tensor need int64."""
        lo, hi = self.ranges[tensor.name].whole
        return int(lo < INT32[0] or hi > INT32[1])

    def at(self, tensor: Tensor, offset: int = 0) -> str:
        """The C expression of where a tensor lies, `offset` elements in. An input that is an output too is read as the input."""
        space, at = self.plan.place(tensor.name)
        size = SIZES[ctype(tensor.qtype)]
        if not space:
            return f"model_arena + {at + offset * size}"
        base, offset = self.own(space), offset + at // size
        return f"{base} + {offset}" if offset else base

    def own(self, name: str) -> str:
        if any(t.name == name for t in self.graph.inputs):
            return f"in->{field_name(name)}"
        if any(s.input.name == name for s in self.graph.states):
            return f"{self.states}.{field_name(name)}"
        return f"out->{field_name(name)}"


def code(tensor: Tensor) -> str:
    return CODES[ctype(tensor.qtype)]


def call(function: Function, c: Context) -> list[str]:
    """The statements of a function's body."""
    op = head(function.ops)
    first = function.ops.index(op)
    before, rest = function.ops[:first], function.ops[first + 1 :]
    name = f"op{function.index}"
    if isinstance(op, STAGES):
        rest = function.ops
    stages, by_channel = _stages(rest, name, function.ops[-1].output, c)
    match op:
        case ops.Requantize() | ops.Threshold() | ops.Lookup() | ops.Interpolate():
            x, y = op.input, function.ops[-1].output
            rows, channels = (x.size // x.channels, x.channels) if by_channel else (1, x.size)
            return [f"nn_map({c.at(x)}, {code(x)}, {c.at(y)}, {rows}, {channels},", f"    {stages});"]
        case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            return _mac(op, rest, name, function.ops[-1].output, stages, c)
        case ops.Add() | ops.Sub() | ops.Multiply():
            return _binary(op, before, function.ops[-1].output, stages, by_channel, c)
        case ops.SumPool() | ops.MaxPool():
            return _pool(op, name, function.ops[-1].output, stages, c)
        case ops.Reshape() | ops.Transpose() | ops.UpSample() | ops.Pad() | ops.Concat() | ops.Slice():
            return _moves(op, c)
        case ops.ArgMax():
            x = op.input
            return [
                f"nn_argmax({c.at(x)}, {code(x)}, {c.at(op.output)}, {code(op.output)}, "
                f"{x.size // x.channels}, {x.channels});"
            ]
        case ops.Softmax():
            x, (table, _) = op.input, c.tables.const(op.table)
            return [
                f"nn_softmax({c.at(x)}, {code(x)}, {c.at(op.output)}, {code(op.output)}, {table}, "
                f"{x.size // x.channels}, {x.channels});"
            ]
        case ops.Softmax16():
            x, tables = op.input, ", ".join(", ".join(c.tables.const(const)) for const in (op.table, op.reciprocal))
            return [
                f"nn_softmax16({c.at(x)}, {c.at(op.output)}, {tables}, {number(op.multiplier)}, {op.shift}, "
                f"{x.size // x.channels}, {x.channels});"
            ]
        case _:
            raise assert_never(op)


def kernel(op: Op, plan: Plan) -> str:
    """The header of the kernel that an op's function is made with."""
    if isinstance(op, ops.Mac) and (found := special(op)):
        return f"{found}.h"
    if isinstance(op, ops.Mac) and op.output.name in plan.kernels:
        return FAMILIES[plan.kernels[op.output.name]].header(op)
    match op:
        case ops.Dense():
            return "nn_dense.h"
        case ops.Conv1D() | ops.Conv2D():
            return "nn_conv.h"
        case ops.DepthwiseConv2D():
            return "nn_depthwise.h"
        case ops.SumPool() | ops.MaxPool():
            return "nn_pool.h"
        case ops.Requantize() | ops.Threshold() | ops.Lookup() | ops.Interpolate():
            return "nn_elementwise.h"
        case ops.Add() | ops.Sub() | ops.Multiply():
            return "nn_elementwise.h"
        case ops.Reshape() | ops.Transpose() | ops.UpSample() | ops.Pad() | ops.Concat() | ops.Slice():
            return "nn_move.h"
        case ops.ArgMax():
            return "nn_argmax.h"
        case ops.Softmax():
            return "nn_softmax.h"
        case ops.Softmax16():
            return "nn_softmax16.h"
        case _:
            raise assert_never(op)


def _stages(chain: Sequence[Op], name: str, y: Tensor, c: Context) -> tuple[str, bool]:
    parts, by_channel = [], False
    for slot, op in zip(("first", "second"), chain, strict=False):
        assert isinstance(op, STAGES)
        text, tables = stage(op, c.ranges[op.input.name], f"{name}_{slot}", c.tables)
        parts.append(f".{slot} = {text},\n        ")
        by_channel |= tables
    return f"(nn_stages){{{''.join(parts)}.type = {code(y)}}}", by_channel


def _mac(op: ops.Mac, rest: Sequence[Op], name: str, y: Tensor, stages: str, c: Context) -> list[str]:
    if op.output.name in c.plan.kernels:
        return FAMILIES[c.plan.kernels[op.output.name]].call(op, rest, name, c.at(y), stages, c)
    weight, weight_code = c.tables.const(op.weight)
    kernel_name, start, shape = general(op, weight_code, name, c)
    return [
        f"{special(op) or kernel_name}({c.at(op.input)}, {weight}, (nn_param){start}, {c.at(y)},",
        f"    {shape},",
        f"    {stages});",
    ]


def _pool(op: ops.SumPool | ops.MaxPool, name: str, y: Tensor, stages: str, c: Context) -> list[str]:
    lift = len(op.kernel) == 1
    sizes = {
        "in": op.input.shape[:-1],
        "out": op.output.shape[:-1],
        "k": op.kernel,
        "stride": op.strides,
    }
    values: dict[str, object] = {}
    for prefix, pair in sizes.items():
        h, w = (1, *pair) if lift else pair
        values |= {f"{prefix}_h": h, f"{prefix}_w": w}
    top, left = (0, op.padding[0][0]) if lift else (op.padding[0][0], op.padding[1][0])
    values |= {"channels": op.input.shape[-1], "top": top, "left": left, "x_type": code(op.input)}
    if isinstance(op, ops.MaxPool):
        return [f"nn_max_pool({c.at(op.input)}, {c.at(y)},", f"    (nn_pool_shape){fields(**values)});"]
    counts = pool_counts(op)
    factors = [[lcm(*axis) // n for n in axis] for axis in ([(1,), *counts] if lift else counts)]
    for axis, numbers in zip("hw", factors, strict=True):
        values[f"factor_{axis}"] = c.tables.param(f"{name}_factor_{axis}", numbers)
    values |= {"zero_point": op.input.qtype.zero_point, "wide": c.wide(op.output)}
    return [
        f"nn_sum_pool({c.at(op.input)}, {c.at(y)},",
        f"    (nn_pool_shape){fields(**values)},",
        f"    {stages});",
    ]


def steps_of(shape: Sequence[int]) -> list[int]:
    """Elements from one index of each axis to the next, in C order."""
    return [prod(shape[k + 1 :]) for k in range(len(shape))]


def merged(shape: Sequence[int], *steps: Sequence[int], keep_last: bool = False) -> tuple[list[int], list[list[int]]]:
    """The same walk over fewer axes: an axis of 1 goes, neighbours that are one run in every operand become one."""
    sizes: list[int] = []
    walks: list[list[int]] = [[] for _ in steps]
    for k, n in enumerate(shape):
        last = keep_last and k == len(shape) - 1
        if n == 1 and not last:
            continue
        now = [s[k] for s in steps]
        if sizes and not last and all(w[-1] == s * n for w, s in zip(walks, now, strict=True)):
            sizes[-1] *= n
            for w, s in zip(walks, now, strict=True):
                w[-1] = s
            continue
        sizes.append(n)
        for w, s in zip(walks, now, strict=True):
            w.append(s)
    return sizes, walks


def _axes(op: Op, most: int, sizes: list[int], walks: list[list[int]]) -> tuple[str, list[str]]:
    if len(sizes) > most:
        raise UnsupportedError(
            where(op),
            f"walks over {len(sizes)} separate axes, the C back end has {most}",
            "split it, or reorder its axes",
        )
    front = most - len(sizes)
    last = 0 if sizes else 1  # of no axis at all, one element

    def braces(values: list[int], fill: int) -> str:
        return "{" + ", ".join(map(str, [fill] * (front - last) + ([1] if last else []) + values)) + "}"

    return braces(sizes, 1), [braces(w, 0) for w in walks]


def _binary(
    op: ops.Add | ops.Sub | ops.Multiply, before: Sequence[Op], y: Tensor, stages: str, by_channel: bool, c: Context
) -> list[str]:
    walks = []
    looked_up = {lookup.output.name: lookup for lookup in before if isinstance(lookup, ops.Lookup)}
    given = [looked_up[t.name].input if t.name in looked_up else t for t in (op.a, op.b)]
    tables = {
        f"{side}_lookup": lookup_args(looked_up[t.name], c.tables)
        for side, t in zip("ab", (op.a, op.b), strict=True)
        if t.name in looked_up
    }
    for t in (op.a, op.b):
        walks.append([0 if n == 1 else s for n, s in zip(t.shape, steps_of(t.shape), strict=True)])
    sizes, found = merged(op.output.shape, *walks, keep_last=by_channel)
    size, (a_step, b_step) = _axes(op, BINARY_AXES, sizes, found)
    multiply = isinstance(op, ops.Multiply)
    shape = fields(
        kind={ops.Add: "NN_ADD", ops.Sub: "NN_SUB", ops.Multiply: "NN_MULTIPLY"}[type(op)],
        size=size,
        a_step=a_step,
        b_step=b_step,
        a_type=code(given[0]),
        b_type=code(given[1]),
        a_zero=op.a.qtype.zero_point if multiply else 0,
        b_zero=op.b.qtype.zero_point if multiply else 0,
        wide=c.wide(op.output),
        **tables,
    )
    return [
        f"nn_binary({c.at(given[0])}, {c.at(given[1])}, {c.at(y)},",
        f"    (nn_binary_shape){shape},",
        f"    {stages});",
    ]


def move(
    op: Op, x: str, y: str, types: tuple[str, str], walk: tuple[Sequence[int], Sequence[int], Sequence[int]]
) -> list[str]:
    """One nn_move: over `walk` = sizes, steps in x, steps in y."""
    sizes, found = merged(*walk)
    size, (x_step, y_step) = _axes(op, MOVE_AXES, sizes, found)
    shape = fields(size=size, x_step=x_step, y_step=y_step, x_type=types[0], y_type=types[1])
    return [f"nn_move({x}, {y},", f"    (nn_move_shape){shape});"]


def _moves(op: ops.Reshape | ops.Transpose | ops.UpSample | ops.Pad | ops.Concat | ops.Slice, c: Context) -> list[str]:
    y = op.output
    y_steps = steps_of(y.shape)
    if isinstance(op, ops.Concat):
        lines, offset = [], 0
        for t, there in zip(op.inputs, in_place(op, c.plan), strict=True):
            walk = (t.shape, steps_of(t.shape), y_steps)
            lines += [] if there else move(op, c.at(t), c.at(y, offset), (code(t), code(y)), walk)
            offset += t.shape[op.axis] * y_steps[op.axis]
        return lines
    x, types = op.input, (code(op.input), code(y))
    x_steps = steps_of(x.shape)
    match op:
        case ops.Reshape():
            return move(op, c.at(x), c.at(y), types, ((x.size,), (1,), (1,)))
        case ops.Transpose():
            return move(op, c.at(x), c.at(y), types, (y.shape, [x_steps[k] for k in op.permutation], y_steps))
        case ops.UpSample():
            sizes, ins, outs = [], [], []
            for n, f, i, o in zip(x.shape, (*op.factors, 1), x_steps, y_steps, strict=True):
                sizes += [n, f]
                ins += [i, 0]
                outs += [o * f, o]
            return move(op, c.at(x), c.at(y), types, (sizes, ins, outs))
        case ops.Pad():
            first = sum(before * s for (before, _), s in zip(op.padding, y_steps, strict=True))
            fill = f"nn_fill({c.at(y)}, {code(y)}, {y.size}, {number(op.value)});"
            return [fill, *move(op, c.at(x), c.at(y, first), types, (x.shape, x_steps, y_steps))]
        case ops.Slice():
            first = sum(begin * s for begin, s in zip(op.begin, x_steps, strict=True))
            steps = [stride * s for stride, s in zip(op.strides, x_steps, strict=True)]
            return move(op, c.at(x, first), c.at(y), types, (y.shape, steps, y_steps))
        case _:
            raise assert_never(op)


__all__ = ["Context", "call", "code", "kernel", "move"]
