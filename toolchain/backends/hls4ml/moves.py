"""What moves values or joins two tensors: pads, pools, reshapes, concatenation, elementwise sums and products.

Its one rule: hls4ml's own layer where it is exact for arrays and streams in every back end, one of our kernels where it is not:
hls4ml pads with 0 alone, pools by strides other than the window only from arrays, adds equal shapes only, and has neither
Transpose nor Concatenate for Quartus' streams.
"""

from __future__ import annotations

from math import prod

import numpy as np

from toolchain.ir import ops
from toolchain.ir.geometry import pool_counts, pool_lcm

from .builder import Builder, Value, elements, hwc
from .layers import Int, Table


def pad(b: Builder, x: Value, padding: ops.Padding, value: int, what: str = "") -> Value:
    """`padding` for every axis of x, channels too."""
    (top, bottom), (left, right), (front, back) = ((0, 0),) * (3 - len(padding)) + padding
    h, w, c = hwc(x.shape)
    shape = tuple(n + sum(p) for n, p in zip(x.shape, padding, strict=True))
    out_h, out_w, out_c = h + top + bottom, w + left + right, c + front + back
    numbers = _image(x.shape) | {"out_height": out_h, "out_width": out_w, "out_channels": out_c}
    numbers |= {"top": top, "left": left, "front": front, "value": value}
    return b.add("NnPad", [x], shape, x.type, what, numbers=numbers)


def _image(shape: tuple[int, ...]) -> dict[str, int | str]:
    return dict(zip(("height", "width", "channels"), hwc(shape), strict=True))


def pool(b: Builder, op: ops.MaxPool | ops.SumPool, x: Value) -> Value:
    """The input is first padded (or its end left out) so that the windows tile it; then what lies outside takes no part."""
    maximum = isinstance(op, ops.MaxPool)
    fill = op.input.qtype.min if maximum else 0
    if not maximum:
        x = b.minus(x, op.input.qtype.zero_point, "zero")
    padding = []
    for n, k, s, (before, after), m in zip(x.shape, op.kernel, op.strides, op.padding, op.output.shape, strict=False):
        padding.append((before, max(0, (m - 1) * s + k - n - before)))
        del after  # where it is more than the windows reach, nobody reads it
    if any(v for pair in padding for v in pair):
        x = pad(b, x, (*padding, (0, 0)), fill, "pad")
    factors = (1,)
    if isinstance(op, ops.SumPool):
        counts = pool_counts(op)
        total = np.array(counts[0]) if len(counts) == 1 else np.outer(*map(np.array, counts))
        found = (pool_lcm(op) // total).ravel().tolist()
        factors = tuple(found) if set(found) != {1} else (1,)
        if len(set(factors)) == 1:
            factors = factors[:1]
    kh, kw = ((1,) * 2 + op.kernel)[-2:]
    sh, sw = ((1,) * 2 + op.strides)[-2:]
    out_h, out_w, _ = hwc(op.output.shape)
    numbers = _image(x.shape) | {"out_height": out_h, "out_width": out_w, "pool_height": kh, "pool_width": kw}
    numbers |= {"stride_height": sh, "stride_width": sw, "maximum": int(maximum), "factors": len(factors)}
    tables = {"factor": Table.of(factors, signed=True)}
    return b.add("NnPool", [x], op.output.shape, Int.of(op.output.qtype), numbers=numbers, tables=tables)


def every(b: Builder, x: Value, strides: tuple[int, int], what: str) -> Value:
    """Each so manieth row and column of x: a pool whose windows are one element."""
    h, w, c = hwc(x.shape)
    out = (-(-h // strides[0]), -(-w // strides[1]), c)
    numbers = _image(x.shape) | {"out_height": out[0], "out_width": out[1], "pool_height": 1, "pool_width": 1}
    numbers |= {"stride_height": strides[0], "stride_width": strides[1], "maximum": 1, "factors": 1}
    return b.add("NnPool", [x], out, x.type, what, numbers=numbers, tables={"factor": Table.of((1,), signed=True)})


def reshape(b: Builder, op: ops.Reshape, x: Value, free: bool) -> Value:
    """hls4ml's where it is `free`, another name for the same values; else a copy."""
    if free:
        return b.add("Reshape", [x], op.output.shape, x.type, attributes={"target_shape": list(op.output.shape)})
    return copy(b, x, op.output.shape)


def copy(b: Builder, x: Value, shape: tuple[int, ...], result: Int | None = None) -> Value:
    """The same elements in another shape, made anew, in the type `result` where they are to be stored wider."""
    numbers = elements(x.shape) | {"out_channels": shape[-1]}
    return b.add("NnReshape", [x], shape, result or x.type, numbers=numbers)


def merge(b: Builder, op: ops.Add | ops.Sub | ops.Multiply, name: str, args: list[Value]) -> Value:
    shape = op.output.shape
    named = zip(args, ("a_repeat", "b_repeat"), strict=True)
    equal = [v if v.shape == shape else repeat(b, v, shape, what) for v, what in named]
    return b.add("Merge", equal, shape, Int.of(op.output.qtype), attributes={"op": name})


def concat(b: Builder, op: ops.Concat, args: list[Value]) -> Value:
    """Two at a time."""
    axis, found = op.axis % len(op.output.shape), args[0]
    for k, nxt in enumerate(args[1:], 2):
        shape = tuple(m + n if i == axis else m for i, (m, n) in enumerate(zip(found.shape, nxt.shape, strict=True)))
        inner = [prod(v.shape[axis:]) for v in (found, nxt)]
        channels = [v.shape[-1] for v in (found, nxt)]
        along = axis == len(shape) - 1
        numbers: dict[str, int | str] = {"blocks": prod(shape[:axis]), "first": inner[0], "second": inner[1]}
        numbers |= {"along_channels": int(along), "first_channels": channels[0], "second_channels": channels[1]}
        numbers |= {"token_blocks": prod(shape[:axis]), "first_tokens": 1, "second_tokens": 1}
        if not along:
            numbers |= {"first_tokens": inner[0] // channels[0], "second_tokens": inner[1] // channels[1]}
        result = Int.of(op.output.qtype)
        found = b.add("NnConcat", [found, nxt], shape, result, "" if k == len(args) else f"of{k}", numbers=numbers)
    return found if len(args) > 1 else copy(b, found, found.shape, Int.of(op.output.qtype))


def transpose(b: Builder, op: ops.Transpose, x: Value) -> Value:
    steps = [
        prod(x.shape[k + 1 :]) for k in op.permutation
    ]  # how far apart in x neighbours along an axis of the output lie
    _, out_w, out_c = hwc(op.output.shape)
    numbers: dict[str, int | str] = {**elements(x.shape), "out_width": out_w, "out_channels": out_c}
    numbers |= dict(zip(("step_height", "step_width", "step_channels"), [0] * (3 - len(steps)) + steps, strict=True))
    return b.add("NnTranspose", [x], op.output.shape, x.type, numbers=numbers)


def part(b: Builder, op: ops.Slice, x: Value) -> Value:
    """From `first` on every so manieth row, column and channel."""
    out = hwc(op.output.shape)
    missing = 3 - len(op.begin)
    first, every_so = (0,) * missing + op.begin, (1,) * missing + op.strides
    numbers = _image(x.shape)
    for axis, size, begin, stride in zip(("height", "width", "channels"), out, first, every_so, strict=True):
        numbers |= {f"out_{axis}": size, f"first_{axis}": begin, f"stride_{axis}": stride}
    return b.add("NnSlice", [x], op.output.shape, x.type, numbers=numbers)


def repeat(b: Builder, x: Value, shape: tuple[int, ...], what: str = "") -> Value:
    """Each element next to itself, along every axis as often as it goes into `shape`: nearest neighbours, and broadcasting."""
    out_h, out_w, out_c = hwc(shape)
    numbers = _image(x.shape) | {"out_height": out_h, "out_width": out_w, "out_channels": out_c}
    return b.add("NnRepeat", [x], shape, x.type, what, numbers=numbers)
