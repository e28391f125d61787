"""ONNX and QONNX graphs in exact rationals, NCHW as the file says, written from the specifications: the oracle of the front end.

Its one rule: it shares no code with the toolchain, and rounds nowhere but in quantizers. Constants (weight and bias quantizers
among them) are what the file's own float32 arithmetic gives; all data is exact. Files have batch 1; what is given may have more
samples, for speed, where `takes_batches`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import ceil, floor, log2, prod
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.onnx_numbers import (
    Exact,
    clamped,
    common,
    elementwise,
    maximum,
    minimum,
    objects,
    padded,
    rounded,
    sigmoid,
    square_root,
    tanh,
    where,
)  # fmt: skip

QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "qonnx")
ZERO, ONE = Exact.of(np.array(0)), Exact.of(np.array(1))


@dataclass
class Tensor:
    """What a name stands for: its exact value and, while it is a constant, what float32 makes of it."""

    exact: Exact
    const: np.ndarray | None = None


@dataclass
class Call:
    """One node with its inputs; `opset` is the version of the node's own domain."""

    node: Any
    op: str
    inputs: list[Tensor | None]
    attributes: dict[str, Any]
    opset: int
    seen: Counter[str]

    def attribute(self, name: str, default: Any = None) -> Any:
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else found

    def real(self, name: str, default: float) -> Exact:
        """A float attribute as the float32 it is in the file (or in the schema, as a default)."""
        return Exact.of(np.float32(self.attributes.get(name, default)))

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def __getitem__(self, i: int) -> Exact:
        found = self.inputs[i]
        assert found is not None
        return found.exact

    def const(self, i: int) -> np.ndarray:
        found = self.inputs[i]
        assert found is not None and found.const is not None, f"{self.node.name}: input {i} must be a constant"
        return found.const

    def integers(self, i: int) -> list[int]:
        return [int(v) for v in np.atleast_1d(self.const(i))]


@dataclass
class Interpreter:
    """`Interpreter(model).run({name: Fractions [1, ...]})`; `seen` counts ties and clamps that data met."""

    model: Any
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.opsets = {i.domain: i.version for i in self.model.opset_import}
        self.constants: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            array = numpy_helper.to_array(tensor)
            self.constants[tensor.name] = Tensor(Exact.of(widened(array)), array)
        self.inputs = [i.name for i in graph.input if i.name not in self.constants]
        self.outputs = [o.name for o in graph.output]
        self.live = []
        for node in graph.node:
            if all(name in self.constants for name in node.input if name):
                self.constants.update(zip(node.output, self.folded(node, self.constants), strict=False))
            else:
                self.live.append(node)

    @property
    def takes_batches(self) -> bool:
        """No node moves the batch axis or speaks of its size."""
        return not any(
            n.op_type == "Shape" or (n.op_type == "Transpose" and helper.get_node_attr_value(n, "perm")[0] != 0)
            for n in self.live
        )

    def run_batch(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of many samples, at once or one after another."""
        count = len(next(iter(inputs.values())))
        if self.takes_batches:
            found = self.run(inputs)
            if all(len(v) == count for v in found.values()):  # else a constant of more axes widened it
                return found
        each = [self.run({name: v[i : i + 1] for name, v in inputs.items()}) for i in range(count)]
        return {name: np.concatenate([one[name] for one in each]) for name in self.outputs}

    def call(self, node: Any, values: Mapping[str, Tensor], seen: Counter[str]) -> Call:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        domain = "" if node.domain == "ai.onnx" else node.domain
        inputs = [values[name] if name else None for name in node.input]
        return Call(node, node.op_type, inputs, attributes, self.opsets.get(domain, 1), seen)

    def folded(self, node: Any, values: Mapping[str, Tensor]) -> list[Tensor]:
        """A node of constants alone: the file's float32 arithmetic, with the exact meaning of codes * scale kept."""
        call = self.call(node, values, Counter())
        if node.op_type in FLOAT32:
            return [FLOAT32[node.op_type](call)]
        from onnx.reference import ReferenceEvaluator

        arrays = [values[name].const for name in node.input if name]
        names = [name for name in node.input if name]
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in dict(zip(names, arrays, strict=True)).items()
        ]
        outs = [helper.make_empty_tensor_value_info(n) for n in node.output]
        opset = helper.make_opsetid("", self.opsets[""])
        single = helper.make_model(helper.make_graph([node], "one", infos, outs), opset_imports=[opset])
        results = ReferenceEvaluator(single).run(None, dict(zip(names, arrays, strict=True)))
        if node.op_type in MOVES:
            return [Tensor(OPS[node.op_type](call), results[0])]
        return [Tensor(Exact.of(np.asarray(r)), np.asarray(r)) for r in results]

    def trace(self, inputs: Mapping[str, Any]) -> dict[str, Exact]:
        """Every data tensor of one inference, by name."""
        values = dict(self.constants)
        for name in self.inputs:
            values[name] = Tensor(Exact.of(np.asarray(inputs[name], dtype=object)))
        for node in self.live:
            if node.op_type == "Shape":
                shape = np.array(values[node.input[0]].exact.shape, np.int64)
                values[node.output[0]] = Tensor(Exact.of(shape), shape)
                continue
            if all(values[name].const is not None for name in node.input if name):  # reckoned from a Shape
                values.update(zip(node.output, self.folded(node, values), strict=False))
                continue
            call = self.call(node, values, self.seen)
            found = OPS[node.op_type](call)
            for name, value in zip(node.output, found if isinstance(found, tuple) else (found,), strict=False):
                values[name] = Tensor(value)
        return {name: v.exact for name, v in values.items()}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs as arrays of Fractions."""
        values = self.trace(inputs)
        return {name: values[name].fractions() for name in self.outputs}


def widened(array: np.ndarray) -> np.ndarray:
    """int4 and uint4 of ml_dtypes as plain integers."""
    return array if array.dtype.kind in "iubf" else array.astype(np.int64 if "int" in array.dtype.name else np.float32)


# --- quantizers ---------------------------------------------------------------------------------------------------------


def int_range(signed: bool, narrow: bool, bits: int) -> tuple[int, int]:
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


def quant_attributes(c: Call) -> tuple[bool, bool, str]:
    return bool(c.attribute("signed", 1)), bool(c.attribute("narrow", 1)), c.attribute("rounding_mode", "ROUND")


def bipolar(x: Exact) -> Any:
    return np.where(objects(x.num >= 0).astype(bool), 1, -1).astype(object)


def quant(c: Call) -> Exact:
    x, scale, zero = c[0], c[1], c[2]
    bits = int(c.const(3).item())
    signed, narrow, mode = quant_attributes(c)
    y = x / scale + zero
    if bits == 1 and signed:
        codes = bipolar(y)
    else:
        codes = clamped(rounded(y, mode, c.seen), *int_range(signed, narrow, bits), c.seen)
    return (Exact(codes) - zero) * scale


def float32_quant(c: Call) -> Tensor:
    """As qonnx computes it: division, zero point, clip and rounding in float32; the codes mean codes * scale exactly."""
    x, scale, zero = (np.asarray(c.const(i), np.float32) for i in range(3))
    bits = int(c.const(3).item())
    signed, narrow, mode = quant_attributes(c)
    y = np.asarray(x / scale + zero, np.float32)
    if bits == 1 and signed:
        codes = np.where(y >= 0, 1, -1).astype(object)
    else:
        lo, hi = int_range(signed, narrow, bits)
        inside = np.clip(y, np.float32(lo), np.float32(hi))
        codes = clamped(rounded(Exact.of(inside), mode), lo, hi)
    value = (codes.astype(np.float32) - zero) * scale
    return Tensor((Exact(codes) - Exact.of(zero)) * Exact.of(scale), np.asarray(value, np.float32))


def bipolar_quant(c: Call) -> Exact:
    return Exact(bipolar(c[0])) * c[1]


def float32_bipolar(c: Call) -> Tensor:
    codes = np.where(c.const(0) >= 0, 1, -1)
    return Tensor(Exact.of(codes) * c[1], (codes * c.const(1)).astype(np.float32))


def trunc(c: Call) -> Exact:
    x, scale, zero = c[0], c[1], c[2]
    whole = Exact(rounded(x / scale + zero, "ROUND"))
    mode = c.attribute("rounding_mode", "FLOOR")
    if c.opset < 2:
        by = Exact.of(np.array(2 ** int(c.const(3).item() - c.const(4).item())))
        return (Exact(rounded(whole / by, mode, c.seen)) - zero) * scale
    out_scale, bits = c[4], int(c.const(5).item())
    signed, narrow = bool(c.attribute("signed", 1)), bool(c.attribute("narrow", 0))
    by = elementwise(lambda v: Fraction(2) ** round(log2(v)), out_scale / scale)
    codes = clamped(rounded(whole / by, mode, c.seen), *int_range(signed, narrow, bits), c.seen)
    return (Exact(codes) - zero / by) * out_scale


def multithreshold(c: Call) -> Exact:
    x, steps, rank = c[0], c[1], len(c[0].shape)
    layout = c.attribute("data_layout", "") or {2: "NC", 3: "NWC", 4: "NCHW"}.get(rank, "")
    axis = layout.index("C") if "C" in layout else 1
    a, t, _ = common(x, steps)
    last = np.moveaxis(a, axis, -1)[..., None]
    counts = objects((last >= t).sum(axis=-1))
    return Exact(np.moveaxis(counts, -1, axis)) * c.real("out_scale", 1) + c.real("out_bias", 0)


def along(value: Exact, axis: int, rank: int) -> Exact:
    """A 1-D parameter laid along `axis` of a tensor of `rank` axes; a scalar (or one element) as it is."""
    if prod(value.shape) == 1:
        return value.moved(value.num.reshape(()))
    shape = [1] * rank
    shape[axis % rank] = -1
    return value.moved(value.num.reshape(shape))


def zero_point(c: Call, i: int, axis: int, rank: int) -> Exact:
    return along(c[i], axis, rank) if c.has(i) else ZERO


RANGES = {
    "uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767), "int4": (-8, 7),
    "uint4": (0, 15), "int32": (-(2**31), 2**31 - 1),
}  # fmt: skip


def type_range(c: Call, i: int) -> tuple[int, int]:
    """Of the zero point's type, else of output_dtype, else uint8."""
    if c.has(i):
        return RANGES[c.const(i).dtype.name]
    told = c.attribute("output_dtype", 0)
    return RANGES[helper.tensor_dtype_to_np_dtype(told).name if told else "uint8"]


def to_grid(c: Call, x: Exact, scale: Exact, zero: Exact, bounds: tuple[int, int]) -> Exact:
    """ONNX rounds halves to even first and adds the zero point after."""
    return Exact(clamped((Exact(rounded(x / scale, "ROUND", c.seen)) + zero).num, *bounds, c.seen))


def quantize_linear(c: Call) -> Exact:
    rank, axis = len(c[0].shape), c.attribute("axis", 1)
    return to_grid(c, c[0], along(c[1], axis, rank), zero_point(c, 2, axis, rank), type_range(c, 2))


def dequantize_linear(c: Call) -> Exact:
    rank, axis = len(c[0].shape), c.attribute("axis", 1)
    return (c[0] - zero_point(c, 2, axis, rank)) * along(c[1], axis, rank)


def float32_quantize_linear(c: Call) -> Tensor:
    x, rank, axis = np.asarray(c.const(0), np.float32), c.const(0).ndim, c.attribute("axis", 1)
    shape = [1] * rank
    if c.const(1).size > 1:
        shape[axis % rank] = -1
    scale = c.const(1).astype(np.float32).reshape(shape if rank else ())
    steps = np.rint(x / scale)
    lo, hi = type_range(c, 2)
    codes = np.clip(Exact.of(steps).num + zero_point(c, 2, axis, rank).num, lo, hi)
    return Tensor(Exact(codes), objects(codes).astype(np.int64))


def float32_dequantize_linear(c: Call) -> Tensor:
    exact = dequantize_linear(c)
    return Tensor(exact, exact.fractions().astype(np.float64).astype(np.float32))


# --- linear -------------------------------------------------------------------------------------------------------------


def product_of(a: Exact, b: Exact) -> Exact:
    return Exact(np.matmul(a.num, b.num), a.den * b.den)


def matmul(c: Call) -> Exact:
    return product_of(c[0], c[1])


def turned(x: Exact) -> Exact:
    return x.moved(x.num.T)


def gemm(c: Call) -> Exact:
    a = turned(c[0]) if c.attribute("transA", 0) else c[0]
    b = turned(c[1]) if c.attribute("transB", 0) else c[1]
    y = product_of(a, b) * c.real("alpha", 1)
    return y + c[2] * c.real("beta", 1) if c.has(2) else y


def spatial(c: Call, sizes: Sequence[int], kernel: Sequence[int], ceil_mode: bool = False) -> Any:
    """(output sizes, strides, dilations, begin pads, end pads) of a convolution or pool, by ONNX's formulas."""
    n = len(sizes)
    strides, dilations = (list(c.attribute(k, None) or [1] * n) for k in ("strides", "dilations"))
    auto = c.attribute("auto_pad", "NOTSET") or "NOTSET"
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        out = [ceil(Fraction(i, s)) for i, s in zip(sizes, strides, strict=True)]
        total = [max((o - 1) * s + r - i, 0) for o, s, r, i in zip(out, strides, reach, sizes, strict=True)]
        less, more = [t // 2 for t in total], [t - t // 2 for t in total]
        return out, strides, dilations, *((less, more) if auto == "SAME_UPPER" else (more, less))
    pads = list(c.attribute("pads", None) or [0] * 2 * n) if auto == "NOTSET" else [0] * 2 * n
    before, after = pads[:n], pads[n:]
    out = []
    for i, s, r, b, e in zip(sizes, strides, reach, before, after, strict=True):
        steps = Fraction(i + b + e - r, s)
        count = (ceil(steps) if ceil_mode else floor(steps)) + 1
        if ceil_mode and (count - 1) * s >= i + b:  # a window must start inside the input or the padding before it
            count -= 1
        out.append(count)
    return out, strides, dilations, before, after


def convolution(c: Call, x: Exact, w: Exact) -> Exact:
    """x [1, C, ...], w [O, C / groups, ...]: integer numerators summed, so the sum is exact."""
    groups, sizes, kernel = c.attribute("group", 1), x.shape[2:], w.shape[2:]
    out, strides, dilations, before, after = spatial(c, sizes, kernel)
    image = padded(x.num, [(0, 0), (0, 0), *zip(before, after, strict=True)])
    samples, channels, outputs = x.shape[0], x.shape[1] // groups, w.shape[0] // groups
    assert channels == w.shape[1]
    y = np.full((samples, w.shape[0], *out), 0, dtype=object)
    for tap in product(*map(range, kernel)):
        window = tuple(
            slice(k * d, k * d + (o - 1) * s + 1, s) for k, d, o, s in zip(tap, dilations, out, strides, strict=True)
        )
        for g in range(groups):
            seen = image[(slice(None), slice(g * channels, (g + 1) * channels), *window)]
            part = np.matmul(
                w.num[(slice(g * outputs, (g + 1) * outputs), slice(None), *tap)], seen.reshape(samples, channels, -1)
            )
            y[:, g * outputs : (g + 1) * outputs] += part.reshape(samples, outputs, *out)
    return Exact(y, x.den * w.den)


def conv(c: Call) -> Exact:
    y = convolution(c, c[0], c[1])
    return y + along(c[2], 1, len(y.shape)) if c.has(2) else y


def qlinear_conv(c: Call) -> Exact:
    rank = len(c[0].shape)
    x = c[0] - zero_point(c, 2, 1, rank)
    w = c[3] - zero_point(c, 5, 0, rank)
    y = convolution(c, x, w)
    if c.has(8):
        y = y + along(c[8], 1, rank)
    real = y * along(c[1], 1, rank) * along(c[4], 1, rank)
    return to_grid(c, real, along(c[6], 1, rank), zero_point(c, 7, 1, rank), type_range(c, 7))


def qlinear_matmul(c: Call) -> Exact:
    a, b = c[0], c[3]
    ra, rb = len(a.shape), len(b.shape)
    x = (a - zero_point(c, 2, ra - 2, ra)) * along(c[1], ra - 2, ra)
    w = (b - zero_point(c, 5, rb - 1, rb)) * along(c[4], rb - 1, rb)
    return to_grid(c, product_of(x, w), along(c[6], ra - 2, ra), zero_point(c, 7, ra - 2, ra), type_range(c, 7))


def conv_integer(c: Call) -> Exact:
    rank = len(c[0].shape)
    return convolution(c, c[0] - zero_point(c, 2, 1, rank), c[1] - zero_point(c, 3, 0, rank))


def matmul_integer(c: Call) -> Exact:
    ra, rb = len(c[0].shape), len(c[1].shape)
    return product_of(c[0] - zero_point(c, 2, ra - 2, ra), c[1] - zero_point(c, 3, rb - 1, rb))


def batch_normalization(c: Call) -> Exact:
    rank = len(c[0].shape)
    gamma, beta, mean, var = (along(c[i], 1, rank) if len(c[i].shape) else c[i] for i in range(1, 5))
    root = elementwise(square_root, var + c.real("epsilon", 1e-5))
    return (c[0] - mean) * gamma / root + beta


# --- elementwise --------------------------------------------------------------------------------------------------------


def clip(c: Call) -> Exact:
    """Bounds are attributes to opset 10, inputs from 11; a minimum above the maximum gives the maximum."""
    x = c[0]
    if c.opset < 11:
        if "min" in c.attributes:
            x = maximum(x, c.real("min", 0))
        return minimum(x, c.real("max", 0)) if "max" in c.attributes else x
    x = maximum(x, c[1]) if c.has(1) else x
    return minimum(x, c[2]) if c.has(2) else x


def negative_part(c: Call, slope: Exact) -> Exact:
    return where(objects(c[0].num < 0).astype(bool), c[0] * slope, c[0])


def prelu(c: Call) -> Exact:
    return negative_part(c, c[1])


def hard_sigmoid(c: Call) -> Exact:
    return maximum(ZERO, minimum(ONE, c[0] * c.real("alpha", 0.2) + c.real("beta", 0.5)))


# --- pools and reductions -----------------------------------------------------------------------------------------------


def windows(c: Call) -> Any:
    """(output sizes, then for each output position its index, positions inside the input, and the window's padded count)."""
    sizes, kernel = c[0].shape[2:], c.attribute("kernel_shape")
    out, strides, dilations, before, after = spatial(c, sizes, kernel, bool(c.attribute("ceil_mode", 0)))
    found = []
    for place in product(*map(range, out)):
        spots = []
        for tap in product(*map(range, kernel)):
            spots.append(
                [p * s + k * d - b for p, s, k, d, b in zip(place, strides, tap, dilations, before, strict=True)]
            )
        inside = [tuple(a) for a in spots if all(0 <= v < n for v, n in zip(a, sizes, strict=True))]
        covered = sum(all(v < n + e for v, n, e in zip(a, sizes, after, strict=True)) for a in spots)
        found.append((place, inside, covered))
    return out, found


def max_pool(c: Call) -> Exact:
    out, found = windows(c)
    x = c[0].num
    y = np.empty((*x.shape[:2], *out), dtype=object)
    for place, inside, _ in found:
        y[(slice(None), slice(None), *place)] = np.max([x[(slice(None), slice(None), *a)] for a in inside], axis=0)
    return c[0].moved(y)


def average_pool(c: Call) -> Exact:
    out, found = windows(c)
    x, counted = c[0].num, bool(c.attribute("count_include_pad", 0))
    y = np.empty((*x.shape[:2], *out), dtype=object)
    for place, inside, covered in found:
        total = sum(x[(slice(None), slice(None), *a)] for a in inside)
        y[(slice(None), slice(None), *place)] = total * Fraction(1, covered if counted else len(inside))
    return Exact.of(y) * Exact(np.array(1, dtype=object), c[0].den)


def global_pool(c: Call) -> Exact:
    axes = tuple(range(2, len(c[0].shape)))
    if c.op == "GlobalMaxPool":
        return c[0].moved(c[0].num.max(axis=axes, keepdims=True))
    return Exact(c[0].num.sum(axis=axes, keepdims=True), c[0].den * prod(c[0].shape[2:]))


def reduce_mean(c: Call) -> Exact:
    axes = c.integers(1) if c.has(1) else c.attribute("axes", None)
    rank = len(c[0].shape)
    over = tuple(a % rank for a in axes) if axes else tuple(range(rank))
    count = prod(c[0].shape[a] for a in over)
    return Exact(c[0].num.sum(axis=over, keepdims=bool(c.attribute("keepdims", 1))), c[0].den * count)


def arg_max(c: Call) -> Exact:
    x, axis = c[0].num, c.attribute("axis", 0)
    last = bool(c.attribute("select_last_index", 0))
    best = x.shape[axis] - 1 - np.flip(x, axis).argmax(axis) if last else x.argmax(axis)
    return Exact.of(np.expand_dims(best, axis) if c.attribute("keepdims", 1) else np.asarray(best))


def top_k(c: Call) -> tuple[Exact, Exact]:
    """Equal values: the lower index first."""
    x, axis = c[0].num, c.attribute("axis", -1)
    k = c.integers(1)[0] if c.has(1) else c.attribute("k")
    sign = -1 if c.attribute("largest", 1) else 1
    order = np.argsort(sign * x, axis=axis, kind="stable")
    best = np.take(order, range(k), axis=axis)
    return c[0].moved(np.take_along_axis(x, best, axis)), Exact.of(best)


# --- moves --------------------------------------------------------------------------------------------------------------


def axes_of(c: Call) -> list[int] | None:
    return c.integers(1) if c.has(1) else c.attribute("axes", None)


def reshape(c: Call) -> Exact:
    target = c.integers(1) if c.has(1) else list(c.attribute("shape"))
    samples, *shape = c[0].shape or (1,)
    if not c.attribute("allowzero", 0):
        target = [(1, *shape)[i] if n == 0 else n for i, n in enumerate(target)]
    if samples > 1 and c.inputs[0] is not None and c.inputs[0].const is None:  # a batch where the file has one sample
        one, *rest = np.empty((1, *shape), bool).reshape(target).shape
        assert one == 1
        target = [samples, *rest]
    return c[0].moved(c[0].num.reshape(target))


def flatten(c: Call) -> Exact:
    shape, axis = c[0].shape, c.attribute("axis", 1)
    axis = axis if axis >= 0 else axis + len(shape)
    return c[0].moved(c[0].num.reshape(prod(shape[:axis]), prod(shape[axis:])))


def squeeze(c: Call) -> Exact:
    axes = axes_of(c)
    over = tuple(axes) if axes else tuple(i for i, n in enumerate(c[0].shape) if n == 1)
    return c[0].moved(np.squeeze(c[0].num, over))


def unsqueeze(c: Call) -> Exact:
    return c[0].moved(np.expand_dims(c[0].num, tuple(axes_of(c) or ())))


def transpose(c: Call) -> Exact:
    return c[0].moved(c[0].num.transpose(c.attribute("perm", None)))


def concat(c: Call) -> Exact:
    *parts, den = common(*(c[i] for i in range(len(c.inputs))))
    return Exact(np.concatenate(parts, axis=c.attribute("axis")), den)


def slice_(c: Call) -> Exact:
    starts, ends = (c.integers(1), c.integers(2)) if c.has(1) else (c.attribute("starts"), c.attribute("ends"))
    axes = c.integers(3) if c.has(3) else (c.attribute("axes", None) or list(range(len(starts))))
    steps = c.integers(4) if c.has(4) else [1] * len(starts)
    index = [slice(None)] * len(c[0].shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, None if step < 0 and end < -c[0].shape[axis] else end, step)
    return c[0].moved(c[0].num[tuple(index)])


def pad(c: Call) -> Exact:
    pads = c.integers(1) if c.has(1) else list(c.attribute("pads"))
    value = c[2] if c.has(2) else c.real("value", 0)
    rank = len(c[0].shape)
    axes = [a % rank for a in c.integers(3)] if c.has(3) else list(range(rank))
    both = [(0, 0)] * rank
    for k, axis in enumerate(axes):
        both[axis] = (pads[k], pads[k + len(axes)])
    x, v, den = common(c[0], value)
    assert (c.attribute("mode", "constant") or "constant") == "constant"
    return Exact(padded(x, both, v.item()), den)


def resize(c: Call) -> Exact:
    """Nearest neighbour, by the coordinate formulas of the specification, in exact fractions."""
    shape = c[0].shape
    at = 1 if c.op == "Upsample" or c.opset < 11 else 2
    if c.op == "Upsample" and "scales" in c.attributes:
        scales = [Fraction(float(np.float32(s))) for s in c.attribute("scales")]
        out = [floor(n * s) for n, s in zip(shape, scales, strict=True)]
    elif c.has(at) and c.const(at).size:
        scales = [Fraction(float(s)) for s in c.const(at)]
        out = [floor(n * s) for n, s in zip(shape, scales, strict=False)]
    else:
        out = c.integers(3)
        over = [shape[a] for a in c.attribute("axes", range(len(shape)))]
        scales = [Fraction(o, n) for o, n in zip(out, over, strict=True)]
    if "axes" in c.attributes:
        axes = [a % len(shape) for a in c.attribute("axes")]
        scales = [scales[axes.index(k)] if k in axes else Fraction(1) for k in range(len(shape))]
        out = [floor(n * s) for n, s in zip(shape, scales, strict=True)]
    old = at == 1
    how = "asymmetric" if old else c.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = "floor" if old else c.attribute("nearest_mode", "round_prefer_floor")
    assert c.attribute("mode", "nearest") == "nearest"
    x = c[0].num
    assert scales[0] == 1 or out[0] == 1
    for axis, (n, o, s) in list(enumerate(zip(shape, out, scales, strict=True)))[1:]:
        index = []
        for i in range(o):
            half = Fraction(2 * i + 1, 2) / s - Fraction(1, 2)
            match how:
                case "asymmetric":
                    v = i / s
                case "half_pixel":
                    v = half
                case "pytorch_half_pixel":
                    v = half if o > 1 else Fraction(0)
                case "align_corners":
                    v = Fraction(i * (n - 1), o - 1) if o > 1 else Fraction(0)
                case _:
                    raise AssertionError(how)
            match nearest:
                case "floor":
                    k = floor(v)
                case "ceil":
                    k = ceil(v)
                case "round_prefer_floor":
                    k = ceil(v - Fraction(1, 2))
                case "round_prefer_ceil":
                    k = floor(v + Fraction(1, 2))
                case _:
                    raise AssertionError(nearest)
            index.append(min(max(k, 0), n - 1))
        x = np.take(x, index, axis)
    return c[0].moved(x)


OPS: dict[str, Callable[[Call], Any]] = {
    "Quant": quant, "IntQuant": quant, "BipolarQuant": bipolar_quant, "Trunc": trunc, "MultiThreshold": multithreshold,
    "QuantizeLinear": quantize_linear, "DequantizeLinear": dequantize_linear, "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul, "ConvInteger": conv_integer, "MatMulInteger": matmul_integer, "Conv": conv,
    "Gemm": gemm, "MatMul": matmul, "BatchNormalization": batch_normalization, "Clip": clip, "PRelu": prelu,
    "HardSigmoid": hard_sigmoid, "Sigmoid": lambda c: elementwise(sigmoid, c[0]),
    "Tanh": lambda c: elementwise(tanh, c[0]), "Relu": lambda c: maximum(c[0], ZERO),
    "LeakyRelu": lambda c: negative_part(c, c.real("alpha", 0.01)), "Add": lambda c: c[0] + c[1],
    "Sub": lambda c: c[0] - c[1], "Mul": lambda c: c[0] * c[1], "Div": lambda c: c[0] / c[1], "Neg": lambda c: -c[0],
    "Concat": concat, "MaxPool": max_pool, "AveragePool": average_pool, "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool, "ReduceMean": reduce_mean, "ArgMax": arg_max, "TopK": top_k, "Reshape": reshape,
    "Flatten": flatten, "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Transpose": transpose, "Slice": slice_, "Pad": pad,
    "Upsample": resize, "Resize": resize, "Identity": lambda c: c[0], "Dropout": lambda c: c[0], "Cast": lambda c: c[0],
    "Softmax": lambda c: c[0],  # left to the host: only ever last
}  # fmt: skip
MOVES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Slice", "Identity"}
FLOAT32: dict[str, Callable[[Call], Tensor]] = {
    "Quant": float32_quant, "IntQuant": float32_quant, "BipolarQuant": float32_bipolar,
    "QuantizeLinear": float32_quantize_linear, "DequantizeLinear": float32_dequantize_linear,
}  # fmt: skip


def run(model: Any, inputs: Mapping[str, Any], seen: Counter[str] | None = None) -> dict[str, Any]:
    """The outputs of one inference as arrays of Fractions; `model` is an onnx.ModelProto, inputs have the batch axis 1."""
    return Interpreter(model, Counter() if seen is None else seen).run(inputs)


assert onnx  # what `model` is made of
