"""simulate: the living definition of every op. What a back end emits must equal this, bit for bit.

int64 throughout; `check` has proved that no result is wider. Sums whose every partial sum is below 2**53 (2**24) go through
float64 (float32) matrix products, which are then exact integer arithmetic, in any order of summation, and many times faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from toolchain.errors import ToolchainError, assert_never
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.geometry import kept, pool_counts, pool_lcm, table_steps
from toolchain.ir.ops import Rounding
from toolchain.ir.rounding import interpolated, requantize, tflm
from toolchain.ir.types import Ints

EXACT_FLOAT32, EXACT_FLOAT64 = 1 << 24, 1 << 53
CHUNK_ELEMENTS = 1 << 23  # of the widest unfolded tensor: bounds memory, not meaning

Values = Mapping[str, np.ndarray]


def simulate(graph: Graph, inputs: Values, state: Values | None = None) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """Run the graph on stored integers: `inputs` by name, each [batch, *shape]; returns outputs and next states by name.

    `state` is what a previous call returned, or None for the initial values. Every element of the batch is an inference
    of its own (with a state of its own). Raises ToolchainError for a wrong name, shape, dtype or value out of range.
    """
    values, batch = _start(graph, inputs, state)
    wanted = {t.name for t in graph.outputs} | {s.output.name for s in graph.states}
    results: dict[str, list[Ints]] = {name: [] for name in sorted(wanted)}
    for part in _chunks(graph, values, batch):
        for name, value in run(graph, part).items():
            if name in results:
                results[name].append(value)
    whole = {name: np.concatenate(parts) for name, parts in results.items()}
    outputs = {t.name: whole[t.name] for t in graph.outputs}
    return outputs, {s.input.name: whole[s.output.name] for s in graph.states}


def trace(graph: Graph, inputs: Values, state: Values | None = None) -> dict[str, Ints]:
    """As `simulate`, keeping every tensor by name: for verify, and to locate a first difference."""
    return run(graph, _start(graph, inputs, state)[0])


def _start(graph: Graph, inputs: Values, state: Values | None) -> tuple[dict[str, Ints], int]:
    """What the ops read: inputs and states as int64, checked; and the size of the batch."""
    values = check_inputs(graph, inputs)
    batch = len(next(iter(values.values())))
    known = {s.input.name: s for s in graph.states}
    for name in state or ():
        if name not in known:
            raise ToolchainError("state", f"no state {name!r}, the graph has {', '.join(map(repr, known)) or 'none'}")
    for name, s in known.items():
        if state is None:
            values[name] = np.broadcast_to(s.initial.array, (batch, *s.input.shape))
            continue
        values[name] = _check_value(f"state {name!r}", s.input, state.get(name))
        if len(values[name]) != batch:
            raise ToolchainError(
                f"state {name!r}", f"batch of {len(values[name])}, must be that of the inputs, {batch}"
            )
    return values, batch


def check_inputs(graph: Graph, inputs: Values) -> dict[str, Ints]:
    """The inputs as int64, or ToolchainError: names, shapes, integer dtype, range and one batch size."""
    known = {t.name: t for t in graph.inputs}
    for name in inputs:
        if name not in known:
            raise ToolchainError("inputs", f"no input {name!r}, the graph has {', '.join(map(repr, known))}")
    values = {name: _check_value(f"input {name!r}", t, inputs.get(name)) for name, t in known.items()}
    sizes = {name: len(v) for name, v in values.items()}
    if len(set(sizes.values())) != 1:
        raise ToolchainError("inputs", f"batch sizes {sizes}, must be equal")
    if not next(iter(sizes.values())):
        raise ToolchainError("inputs", "hold no sample, must hold at least one")
    return values


def _check_value(at: str, tensor: Tensor, value: np.ndarray | None) -> Ints:
    if value is None:
        raise ToolchainError(at, f"is missing, must be integers [batch, {', '.join(map(str, tensor.shape))}]")
    value = np.asarray(value)
    if value.dtype.kind not in "iub":
        raise ToolchainError(
            at, f"holds {value.dtype}, must be stored integers; real values are quantized first (flow.simulate does)"
        )
    if value.shape[1:] != tensor.shape:
        raise ToolchainError(at, f"shape {list(value.shape)}, must be [batch, {', '.join(map(str, tensor.shape))}]")
    if value.size:
        lo, hi = int(value.min()), int(value.max())
        if lo < tensor.qtype.min or hi > tensor.qtype.max:
            raise ToolchainError(
                at, f"values {lo}..{hi}, must be in {tensor.qtype.min}..{tensor.qtype.max} ({tensor.qtype.text})"
            )
    return value.astype(np.int64)


def _chunks(graph: Graph, values: dict[str, Ints], batch: int) -> Iterator[dict[str, Ints]]:
    widest = max((_footprint(op) for op in graph.ops), default=1)
    step = max(1, CHUNK_ELEMENTS // widest)
    for start in range(0, batch, step):
        yield {name: value[start : start + step] for name, value in values.items()}


def _footprint(op: ops.Op) -> int:
    if isinstance(op, ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D):
        taps = op.weight.tensor.size // max(op.output.channels, 1)
        return (
            op.output.size
            // op.output.channels
            * taps
            * (op.groups if not isinstance(op, ops.DepthwiseConv2D) else op.input.channels)
        )
    if isinstance(op, ops.MaxPool | ops.SumPool):
        return op.output.size * prod(op.kernel)
    return op.output.size


def run(graph: Graph, values: Values) -> dict[str, Ints]:
    """Every tensor of the graph, from checked int64 inputs and states."""
    known = dict(values)
    for op in graph.ops:
        known[op.output.name] = evaluate(op, *(known[t.name] for t in ops.inputs_of(op)))
    return known


def evaluate(op: ops.Op, *args: Ints) -> Any:
    """One op on int64 arrays with a leading batch axis."""
    x = args[0]
    match op:
        case ops.Dense():
            x = x - op.input.qtype.zero_point
            return _bias(op, _matmul(x.astype(_kind(x, op.weight.array)), op.weight.array))
        case ops.Conv1D():
            wide = _conv(
                x[:, None], op, op.weight.array[:, None], (1, *op.strides), (1, *op.dilation), ((0, 0), *op.padding)
            )
            return _bias(op, wide[:, 0])
        case ops.Conv2D():
            return _bias(op, _conv(x, op, op.weight.array, op.strides, op.dilation, op.padding))
        case ops.DepthwiseConv2D():
            return _bias(op, _depthwise(x, op))
        case ops.Requantize():
            return requantize(x, op)
        case ops.Threshold():
            return _threshold(x, op)
        case ops.Lookup():
            return op.table.array[x - op.input.qtype.min]
        case ops.Interpolate():
            at = x - op.input.qtype.min
            return interpolated(at, op.table.array, table_steps(op), op.shift, op.rounding) + op.output_offset
        case ops.Add():
            return x + args[1]
        case ops.Sub():
            return x - args[1]
        case ops.Multiply():
            return (x - op.a.qtype.zero_point) * (args[1] - op.b.qtype.zero_point)
        case ops.Concat():
            return np.concatenate(args, axis=op.axis + 1)
        case ops.MaxPool():
            return _pool(x, op, fill=op.input.qtype.min).max(axis=-1)
        case ops.SumPool():
            return _pool(x - op.input.qtype.zero_point, op, fill=0).sum(axis=-1) * _pool_factors(op)
        case ops.Reshape():
            return x.reshape(len(x), *op.output.shape)
        case ops.Transpose():
            return x.transpose(0, *(k + 1 for k in op.permutation))
        case ops.Pad():
            return np.pad(x, ((0, 0), *op.padding), constant_values=op.value)
        case ops.UpSample():
            for axis, factor in enumerate(op.factors, 1):
                x = x.repeat(factor, axis=axis)
            return x
        case ops.ArgMax():
            return x.argmax(axis=-1)[..., None]
        case ops.Slice():
            index = (slice(None), *(kept(op, axis) for axis in range(len(op.begin))))
            return x[index]
        case ops.Softmax():
            return _softmax(x, op)
        case ops.Softmax16():
            return _softmax16(x, op)
        case _:
            raise assert_never(op)


def _bias(op: ops.Mac, acc: Ints) -> Any:
    return acc if op.bias is None else acc + op.bias.array


def _kind(x: Ints, weight: Ints) -> Any:
    """The dtype in which x [..., n] times weight [out, n] is exact integer arithmetic: float32, float64 or int64."""
    largest = max(int(x.max(initial=0)), -int(x.min(initial=0)))
    # the float sum of int64 magnitudes may be rounded, hence the factor of two
    bound = 2 * largest * float(np.abs(weight.astype(np.float64)).sum(axis=-1).max(initial=0))
    if bound < EXACT_FLOAT32:
        return np.float32
    return np.float64 if bound < EXACT_FLOAT64 else np.int64


def _matmul(x: Any, weight: Ints) -> Any:
    """x [..., n] times weight [out, n] transposed, exactly: in x's dtype, which `_kind` chose."""
    return (x @ weight.T.astype(x.dtype)).astype(np.int64)


def _windows(x: Ints, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]) -> Any:
    """View [batch, *positions, channels, *kernel] of x [batch, *spatial, channels]."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    axes = tuple(range(1, len(kernel) + 1))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    steps = tuple(slice(None, None, s) for s in strides)
    taps = tuple(slice(None, None, d) for d in dilation)
    index = (slice(None), *steps, slice(None), *taps)
    return view[index]


def _conv(
    x: Ints,
    op: ops.Conv1D | ops.Conv2D,
    weight: Ints,
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    padding: ops.Padding,
) -> Ints:
    out, kh, kw, per_group = weight.shape
    padded = np.pad(x - op.input.qtype.zero_point, ((0, 0), *padding, (0, 0)))
    padded = padded.astype(_kind(padded, weight.reshape(out, -1)))  # before the copy that unfolds it
    windows = _windows(padded, (kh, kw), strides, dilation)  # [batch, h, w, channels, kh, kw]
    parts = []
    for g in range(op.groups):
        ins = windows[:, :, :, g * per_group : (g + 1) * per_group]
        rows = weight[g * (out // op.groups) : (g + 1) * (out // op.groups)].transpose(0, 3, 1, 2)
        flat = ins.reshape(*ins.shape[:3], per_group * kh * kw)
        parts.append(_matmul(flat, rows.reshape(len(rows), -1)))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def _depthwise(x: Ints, op: ops.DepthwiseConv2D) -> Ints:
    kh, kw, out = op.weight.tensor.shape
    padded = np.pad(x - op.input.qtype.zero_point, ((0, 0), *op.padding, (0, 0)))
    windows = _windows(padded.repeat(out // x.shape[-1], axis=-1), (kh, kw), op.strides, op.dilation)
    acc = np.zeros(windows.shape[:4], np.int64)
    for i in range(kh):
        for j in range(kw):
            acc += windows[..., i, j] * op.weight.array[i, j]
    return acc


def _threshold(x: Ints, op: ops.Threshold) -> Any:
    ladders, levels = op.thresholds.array, op.levels.array
    y = np.empty(x.shape, np.int64)
    if len(ladders) == len(levels) == 1:
        return levels[0][np.searchsorted(ladders[0], x, side="right")]
    for c in range(x.shape[-1]):
        count = np.searchsorted(ladders[c % len(ladders)], x[..., c], side="right")
        y[..., c] = levels[c % len(levels)][count]
    return y


def _softmax(x: Ints, op: ops.Softmax) -> Any:
    """docs/numerics.md, softmax, line for line."""
    e = op.table.array[x.max(axis=-1, keepdims=True) - x]
    total = (e + (1 << 11) >> 12).sum(axis=-1, keepdims=True)
    up = 31 - np.frexp(total)[1].astype(np.int64)  # what makes it 2**30 or more: a double holds any such sum
    shift = 42 - up - op.output.qtype.bits
    p = _high_product(_reciprocal(total << up), e)
    y = np.minimum(p + (1 << shift - 1) >> shift, (1 << op.output.qtype.bits) - 1)
    return y + op.output.qtype.min


def _softmax16(x: Ints, op: ops.Softmax16) -> Any:
    """docs/numerics.md, softmax of 16 bits, line for line."""
    below = tflm(x - x.max(axis=-1, keepdims=True), np.int64(op.multiplier), np.int64(op.shift))
    e = _line16(op.table.array, np.maximum(below + (1 << 16) - 1, 0))
    total = e.sum(axis=-1, keepdims=True)
    up = 31 - np.frexp(total)[1].astype(np.int64)  # what makes it 2**30 or more: a double holds any such sum
    mantissa = (total << up) + (1 << 13) >> 14
    r = _line16(op.reciprocal.array, np.minimum(mantissa - (1 << 16), (1 << 16) - 1))
    s = 30 - up
    return np.minimum(e * r + (1 << s - 1) >> s, (1 << 15) - 1)


def _line16(table: Ints, at: Ints) -> Any:
    """An entry for each 128 of 0..65535, halves up between them."""
    return interpolated(at, table, 1 << 7, 7, Rounding.HALF_UP)


def _reciprocal(d: Ints) -> Any:
    """(2**31 - 1) / 2**31 at most, near 2**61 / d / 2**31, for d in 2**30..2**31: three of Newton's steps."""
    x = 1515870810 + _high_product(d, -1010580540)
    for _ in range(3):
        x = x + 4 * _high_product(x, (1 << 29) - _high_product(d, x))
    return np.minimum(2 * x, (1 << 31) - 1)


def _high_product(a: Any, b: Any) -> Any:
    """a * b / 2**31 with halves up: of two numbers of 32 bits the high 32 of their doubled product."""
    return a * b + (1 << 30) >> 31


def _pool(x: Ints, op: ops.MaxPool | ops.SumPool, fill: int) -> Any:
    """[batch, *positions, channels, window]; what lies outside the input holds `fill`."""
    spatial = len(op.kernel)
    pads = []
    for n, k, s, (before, after), positions in zip(
        x.shape[1:], op.kernel, op.strides, op.padding, op.output.shape, strict=False
    ):
        pads.append((before, max(after, (positions - 1) * s + k - n - before)))  # ceil_mode reaches further
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    windows = _windows(padded, op.kernel, op.strides, (1,) * spatial)
    index = (slice(None), *(slice(0, n) for n in op.output.shape[:-1]))
    windows = windows[index]
    return windows.reshape(*windows.shape[: spatial + 2], -1)


def _pool_factors(op: ops.SumPool) -> Any:
    """[*positions, 1]: what the sum of each window is multiplied by."""
    counts = pool_counts(op)
    total = np.array(counts[0]) if len(counts) == 1 else np.outer(*map(np.array, counts))
    return (pool_lcm(op) // total)[..., None]
