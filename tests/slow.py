"""docs/numerics.md once more, written from that page alone: one sample, plain loops, Python integers and Fractions.

Slow on purpose. Nothing here may call the toolchain: what the two have in common must be the page only. A tensor is a dict from
index tuple to integer.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, floor, frexp, lcm
from typing import Any

import numpy as np

from toolchain.ir import Graph, Tensor, ops

Cells = dict[tuple[int, ...], int]


def cells(array: Any) -> Cells:
    return {index: int(v) for index, v in np.ndenumerate(np.asarray(array))}


def array(values: Cells, shape: tuple[int, ...]) -> Any:
    return np.array([values[i] for i in indices(shape)], dtype=object).reshape(shape)


def indices(shape: tuple[int, ...]) -> Any:
    return product(*map(range, shape))


def nearest(v: Fraction, tie_up: bool) -> int:
    low = floor(v)
    rest = v - low
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and tie_up))


def round_real(v: Fraction, mode: str) -> int:
    match mode:
        case "half_even":
            return nearest(v, floor(v) % 2 == 1)
        case "half_up":
            return nearest(v, True)
        case "half_down":
            return nearest(v, False)
        case "half_away":
            return nearest(v, v > 0)
        case "half_toward_zero":
            return nearest(v, v < 0)
        case "floor":
            return floor(v)
        case "ceil":
            return ceil(v)
        case "toward_zero":
            return ceil(v) if v < 0 else floor(v)
        case "away_from_zero":
            return floor(v) if v < 0 else ceil(v)
    raise AssertionError(mode)


def tflm(x: int, quantized_multiplier: int, exponent: int) -> int:
    """MultiplyByQuantizedMultiplier of TensorFlow Lite (kernels/internal/common.h, gemmlowp's fixedpoint.h), literally,
    but for the left shift, which saturates where C's would be undefined. `exponent` is TFLite's `shift`."""
    left_shift = exponent if exponent > 0 else 0
    right_shift = 0 if exponent > 0 else -exponent
    shifted = min(max(x * (1 << left_shift), -(2**31)), 2**31 - 1)
    return rounding_divide_by_pot(saturating_rounding_doubling_high_mul(shifted, quantized_multiplier), right_shift)


def saturating_rounding_doubling_high_mul(a: int, b: int) -> int:
    int32_min = -(2**31)
    overflow = a == b and a == int32_min
    ab_64 = a * b
    nudge = (1 << 30) if ab_64 >= 0 else (1 - (1 << 30))
    numerator = ab_64 + nudge
    ab_x2_high32 = abs(numerator) // (1 << 31) * (1 if numerator >= 0 else -1)  # C's division
    return 2**31 - 1 if overflow else ab_x2_high32


def rounding_divide_by_pot(x: int, exponent: int) -> int:
    assert 0 <= exponent <= 31
    mask = (1 << exponent) - 1
    remainder = x & mask
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if remainder > threshold else 0)


def requantize(op: ops.Requantize, x: int, c: int) -> int:
    m, o, s = (v[c if len(v) > 1 else 0] for v in (op.multiplier, op.offset, op.shift))
    if op.rounding.value == "tflm":
        y = tflm(x, m, 31 - s)
    elif s == 0:
        y = x * m + o
    else:
        y = round_real(Fraction(x * m + o, 2**s), op.rounding.value)
    return min(max(y + op.output_offset, op.clamp[0]), op.clamp[1])


def conv(op: Any, x: Cells, spatial: int) -> Cells:
    """Any convolution: kernel and input positions as tuples of `spatial` numbers."""
    weight, zero, out = cells(op.weight.array), op.input.qtype.zero_point, op.output.shape[-1]
    depthwise = isinstance(op, ops.DepthwiseConv2D)
    shape = op.weight.tensor.shape
    kernel = shape[:spatial] if depthwise else shape[1 : 1 + spatial]
    channels = op.input.shape[-1]
    y: Cells = {}
    for index in indices(op.output.shape):
        *place, o = index
        total = int(op.bias.array[o]) if op.bias is not None else 0
        for tap in indices(kernel):
            at = tuple(
                p * s + k * d - pad[0]
                for p, s, k, d, pad in zip(place, op.strides, tap, op.dilation, op.padding, strict=True)
            )
            if depthwise:
                if (*at, 0) in x:
                    total += (x[(*at, o // (out // channels))] - zero) * weight[(*tap, o)]
                continue
            n = channels // op.groups
            g = o // (out // op.groups)
            for c in range(n):
                if (*at, g * n + c) in x:
                    total += (x[(*at, g * n + c)] - zero) * weight[(o, *tap, c)]
        y[index] = total
    return y


def pool_windows(op: Any) -> Any:
    """For each output position: the input positions inside its window, and how many of it lie inside input or padding."""
    sizes = op.input.shape[:-1]
    for place in indices(op.output.shape[:-1]):
        starts = [p * s - pad[0] for p, s, pad in zip(place, op.strides, op.padding, strict=True)]
        inside, with_padding = [], 0
        for tap in indices(op.kernel):
            at = tuple(a + k for a, k in zip(starts, tap, strict=True))
            if all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
                inside.append(at)
            with_padding += all(-p[0] <= a < n + p[1] for a, n, p in zip(at, sizes, op.padding, strict=True))
        yield place, inside, with_padding


def positions(n: int, k: int, s: int, pad: tuple[int, int], ceil_mode: bool) -> int:
    exact = Fraction(n + pad[0] + pad[1] - k, s)
    count = (ceil(exact) if ceil_mode else floor(exact)) + 1
    return count - 1 if ceil_mode and (count - 1) * s >= n + pad[0] else count


def pool(op: Any, x: Cells) -> Cells:
    for n, k, s, pad, found in zip(op.input.shape, op.kernel, op.strides, op.padding, op.output.shape, strict=False):
        assert positions(n, k, s, pad, op.ceil_mode) == found
    y: Cells = {}
    windows = list(pool_windows(op))
    if isinstance(op, ops.MaxPool):
        for place, inside, _ in windows:
            for c in range(op.input.shape[-1]):
                y[(*place, c)] = max(x[(*at, c)] for at in inside)
        return y
    counts = {place: padded if op.count_include_pad else len(inside) for place, inside, padded in windows}
    common = lcm(*counts.values())
    for place, inside, _ in windows:
        for c in range(op.input.shape[-1]):
            total = sum(x[(*at, c)] - op.input.qtype.zero_point for at in inside)
            y[(*place, c)] = total * (common // counts[place])
    return y


def softmax(op: ops.Softmax, x: Cells) -> Cells:
    bits, table, n = op.output.qtype.bits, op.table.array.tolist(), op.input.shape[-1]
    y: Cells = {}
    for lead in indices(op.input.shape[:-1]):
        row = [x[(*lead, c)] for c in range(n)]
        e = [table[max(row) - v] for v in row]
        total = sum(nearest(Fraction(v, 2**12), True) for v in e)
        u = 31 - total.bit_length()
        r = reciprocal(total * 2**u)
        for c in range(n):
            rounded = nearest(Fraction(saturating_rounding_doubling_high_mul(r, e[c]), 2 ** (42 - u - bits)), True)
            y[(*lead, c)] = min(rounded, 2**bits - 1) - 2 ** (bits - 1)
    return y


def line(table: list[int], at: int, n: int, shift: int, mode: str) -> int:
    """Where at = i * n + r, r / n of the way from table[i] to table[i + 1], in steps of 2**shift / n."""
    i, r = divmod(at, n)
    exact = table[i] + Fraction(r, n) * (table[i + 1] - table[i])
    return round_real(exact * n / 2**shift, mode) if shift else int(exact * n)


def softmax16(op: ops.Softmax16, x: Cells) -> Cells:
    exp, reciprocal, n = op.table.array.tolist(), op.reciprocal.array.tolist(), op.input.shape[-1]
    y: Cells = {}
    for lead in indices(op.input.shape[:-1]):
        row = [x[(*lead, c)] for c in range(n)]
        below = [tflm(v - max(row), op.multiplier, 31 - op.shift) for v in row]
        e = [line(exp, max(65535 + d, 0), 128, 7, "half_up") for d in below]
        total = sum(e)
        u = 31 - total.bit_length()
        m = nearest(Fraction(total * 2**u, 2**14), True)
        r = line(reciprocal, min(m - 65536, 65535), 128, 7, "half_up")
        for c in range(n):
            y[(*lead, c)] = min(nearest(Fraction(e[c] * r, 2 ** (30 - u)), True), 32767)
    return y


def softmax_table(scale: float, beta: float) -> list[int]:
    """The table of a TFLite file: PreprocessSoftmaxScaling, CalculateInputRadius and gemmlowp's exp_on_negative_values."""
    high = saturating_rounding_doubling_high_mul
    significand, left = frexp(min(float(np.float32(beta)) * float(np.float32(scale)) * 2**26, 2.0**31 - 1))
    m = int(significand * 2**31 + 0.5)
    if m == 2**31:
        m, left = m // 2, left + 1
    assert left >= 1, "a scale times beta of 2**-26 or less"
    out = []
    for k in range(256):
        if k > 31 * 2**26 // 2**left:
            out.append(0)
            continue
        a = high(-k * 2**left, m)
        q = a % 2**24 - 2**24
        t = 32 * q + 2**28
        t2 = high(t, t)
        cubic = high(rounding_divide_by_pot(high(t2, t2), 2) + high(t2, t), 715827883)
        z = 1895147668 + high(1895147668, t + rounding_divide_by_pot(cubic + t2, 1))
        for i, factor in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)):
            if (q - a) >> (24 + i) & 1:
                z = high(z, factor)
        out.append(z if a else 2**31 - 1)
    return out


def reciprocal(d: int) -> int:
    """Newton's three steps as gemmlowp has them: saturating_rounding_doubling_high_mul is its every product."""
    assert 2**30 <= d < 2**31
    x = 1515870810 + saturating_rounding_doubling_high_mul(d, -1010580540)
    for _ in range(3):
        x += 4 * saturating_rounding_doubling_high_mul(x, 2**29 - saturating_rounding_doubling_high_mul(d, x))
        assert -(2**31) <= x < 2**31
    return min(2 * x, 2**31 - 1)


def pick(x: Cells, shape: tuple[int, ...], index: tuple[int, ...]) -> int:
    """x[index], where axes of size 1 repeat."""
    return x[tuple(0 if n == 1 else i for i, n in zip(index, shape, strict=True))]


def row(const: Any, c: int) -> list[int]:
    rows = const.array.tolist()
    return rows[c if len(rows) > 1 else 0]


def evaluate(op: Any, values: dict[str, Cells]) -> Cells:
    xs = [values[t.name] for t in ops.inputs_of(op)]
    x, shape = xs[0], op.output.shape
    match op:
        case ops.Dense():
            zero, weight = op.input.qtype.zero_point, op.weight.array.tolist()
            bias = op.bias.array.tolist() if op.bias is not None else [0] * shape[-1]
            return {
                (*lead, o): bias[o] + sum((x[(*lead, i)] - zero) * w for i, w in enumerate(weight[o]))
                for *lead, o in indices(shape)
            }
        case ops.Conv1D():
            return conv(op, x, 1)
        case ops.Conv2D() | ops.DepthwiseConv2D():
            return conv(op, x, 2)
        case ops.Requantize():
            return {i: requantize(op, v, i[-1]) for i, v in x.items()}
        case ops.Threshold():
            return {i: row(op.levels, i[-1])[sum(v >= t for t in row(op.thresholds, i[-1]))] for i, v in x.items()}
        case ops.Lookup():
            least = -(2 ** (op.input.qtype.bits - 1)) if op.input.qtype.signed else 0
            return {i: int(op.table.array[v - least]) for i, v in x.items()}
        case ops.Interpolate():
            least = -(2 ** (op.input.qtype.bits - 1)) if op.input.qtype.signed else 0
            n = 2**op.input.qtype.bits // (len(op.table.array) - 1)
            mode, offset, entries = op.rounding.value, op.output_offset, op.table.array.tolist()
            return {i: offset + line(entries, v - least, n, op.shift, mode) for i, v in x.items()}
        case ops.Add():
            return {i: pick(xs[0], op.a.shape, i) + pick(xs[1], op.b.shape, i) for i in indices(shape)}
        case ops.Sub():
            return {i: pick(xs[0], op.a.shape, i) - pick(xs[1], op.b.shape, i) for i in indices(shape)}
        case ops.Multiply():
            za, zb = op.a.qtype.zero_point, op.b.qtype.zero_point
            return {i: (pick(xs[0], op.a.shape, i) - za) * (pick(xs[1], op.b.shape, i) - zb) for i in indices(shape)}
        case ops.Concat():
            y: Cells = {}
            start = 0
            for tensor, part in zip(op.inputs, xs, strict=True):
                for i, v in part.items():
                    y[tuple(n + start if axis == op.axis else n for axis, n in enumerate(i))] = v
                start += tensor.shape[op.axis]
            return y
        case ops.MaxPool() | ops.SumPool():
            return pool(op, x)
        case ops.Reshape():
            return dict(zip(indices(shape), (x[i] for i in indices(op.input.shape)), strict=True))
        case ops.Transpose():
            return {tuple(i[k] for k in op.permutation): v for i, v in x.items()}
        case ops.Pad():
            return {
                i: x.get(tuple(n - p[0] for n, p in zip(i, op.padding, strict=True)), op.value) for i in indices(shape)
            }
        case ops.UpSample():
            factors = (*op.factors, 1)
            return {i: x[tuple(n // f for n, f in zip(i, factors, strict=True))] for i in indices(shape)}
        case ops.ArgMax():
            channels = range(op.input.shape[-1])
            return {(*i, 0): max(channels, key=lambda c: (x[(*i, c)], -c)) for i in indices(shape[:-1])}
        case ops.Slice():
            return {
                i: x[tuple(b + n * s for n, b, s in zip(i, op.begin, op.strides, strict=True))] for i in indices(shape)
            }
        case ops.Softmax():
            return softmax(op, x)
        case ops.Softmax16():
            return softmax16(op, x)
    raise AssertionError(op)


def simulate(graph: Graph, inputs: dict[str, Any], state: dict[str, Any] | None = None) -> tuple[Any, Any, Any]:
    """One inference on one sample: outputs, next states, and every tensor; arrays of Python integers."""
    values = {t.name: cells(inputs[t.name]) for t in graph.inputs}
    for s in graph.states:
        values[s.input.name] = cells(s.initial.array if state is None else state[s.input.name])
    for op in graph.ops:
        values[op.output.name] = evaluate(op, values)

    def out(t: Tensor) -> Any:
        return array(values[t.name], t.shape)

    everything = {t.name: out(t) for t in graph.tensors()}
    return {t.name: out(t) for t in graph.outputs}, {s.input.name: out(s.output) for s in graph.states}, everything
