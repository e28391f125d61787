"""Pools, and what moves values without changing them: one function an operator, in one table.

Its one rule: channels stay last, and values stay where they are, unless the operator needs them elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor, prod

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.context import Context, Inputs, Lower, constant_of, data_of
from toolchain.frontends.qonnx.layouts import SOFTMAX, Data, channels_last, settled, settled_exact, shaped
from toolchain.frontends.qonnx.products import padding_of
from toolchain.ir.values import ZERO, Value, align, comparable, exact, rising, shorten, spread

# --- pools -----------------------------------------------------------------------------------------------------------


def _spatial_data(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    if len(d.shape) not in (2, 3):
        raise UnsupportedError(node.where, f"a pool of {[1, *d.shape]}", "one or two spatial axes are supported")
    return settled(c.b, d, channels_last(len(d.shape)), name, node.where)


def _window(node: Node, d: Data) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], bool]:
    kernel = tuple(int(k) for k in node.attributes["kernel_shape"])
    if len(kernel) != len(d.shape) - 1:
        raise UnsupportedError(node.where, f"a kernel {list(kernel)} on {[1, *d.shape]}", "export the model again")
    strides = tuple(int(s) for s in node.attributes.get("strides") or [1] * len(kernel))
    if any(int(s) != 1 for s in node.attributes.get("dilations") or [1]):
        raise UnsupportedError(node.where, "dilations", "pool without dilation")
    pad = padding_of(node, d.shape[1:], kernel, strides, (1,) * len(kernel))
    return kernel, strides, pad, bool(node.attributes.get("ceil_mode", 0))


def _pooled(d: Data, value: Value) -> Data:
    shape = (d.shape[0], *value.shape[:-1])
    return replace(d, value=value, base=shape, shape=shape)


def _max_pool(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = _spatial_data(c, node, inputs, name)
    v = rising(c.b, d.value, f"{name}_in") if any(s < 0 for s in d.value.slope) else d.value
    if node.op == "GlobalMaxPool":
        kernel, strides, pad, ceil = d.shape[1:], d.shape[1:], ((0, 0),) * (len(d.shape) - 1), False
    else:
        kernel, strides, pad, ceil = _window(node, d)
    return _pooled(d, replace(v, tensor=c.b.max_pool(v.tensor, kernel, strides, pad, name, ceil)))


def _average_pool(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = _spatial_data(c, node, inputs, name)
    if node.op == "GlobalAveragePool":
        return _average(c, node, d, d.shape[1:], d.shape[1:], ((0, 0),) * (len(d.shape) - 1), name, False, False)
    kernel, strides, pad, ceil = _window(node, d)
    include = bool(node.attributes.get("count_include_pad", 0))
    return _average(c, node, d, kernel, strides, pad, name, ceil, include)


def _average(c: Context, node: Node, d: Data, kernel: tuple[int, ...], strides: tuple[int, ...],
             pad: tuple[tuple[int, int], ...], name: str, ceil: bool, include: bool) -> Data:  # fmt: skip
    v = d.value
    if v.lo is not None or v.hi is not None or (include and any(v.intercept) and any(p for pair in pad for p in pair)):
        v = Value(exact(c.b, v, f"{name}_in", node.where))
    t = c.b.sum_pool(v.tensor, kernel, strides, pad, name, ceil, include)
    return _pooled(d, replace(v, tensor=t))


def _reduce_mean(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    rank = len(d.shape) + 1
    given = sorted(a % rank for a in _axes_given(node, inputs) or range(rank))
    if given != list(range(2, rank)) or rank not in (3, 4):
        raise UnsupportedError(
            node.where, f"a mean over axes {given} of {[1, *d.shape]}", "only the spatial axes together are supported"
        )
    d = settled(c.b, d, channels_last(rank - 1), name, node.where)
    found = _average(c, node, d, d.shape[1:], d.shape[1:], ((0, 0),) * (rank - 2), name, False, False)
    if int(node.attributes.get("keepdims", 1)):
        return found
    return replace(found, shape=(d.shape[0],))


# --- shapes ----------------------------------------------------------------------------------------------------------


def _flatten(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    axis = int(node.attributes.get("axis", 1))
    if axis % (len(d.shape) + 1) != 1:
        raise UnsupportedError(node.where, f"axis {axis}", "only axis 1, which keeps the batch, is supported")
    return shaped(d, (prod(d.shape),))


def _reshape(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    wanted = [int(v) for v in constant_of(node, inputs, 1, "shape").ravel()]
    full = (1, *d.shape)
    if not int(node.attributes.get("allowzero", 0)):
        wanted = [full[i] if v == 0 and i < len(full) else v for i, v in enumerate(wanted)]
    known = prod(v for v in wanted if v != -1)
    if wanted.count(-1) == 1 and known and prod(full) % known == 0:
        wanted = [prod(full) // known if v == -1 else v for v in wanted]
    if not wanted or prod(wanted) != prod(full) or min(wanted) < 1:
        raise UnsupportedError(node.where, f"{list(full)} to {wanted}", "the number of elements must stay")
    if wanted[0] != 1:
        raise UnsupportedError(node.where, f"{list(full)} to {wanted}", "the batch axis must stay the first, of size 1")
    return shaped(d, tuple(wanted[1:]))


def _axes_given(node: Node, inputs: Inputs) -> list[int] | None:
    found = node.attributes.get("axes")
    if found is None and len(inputs) > 1 and node.inputs[1]:
        found = constant_of(node, inputs, 1, "axes").ravel().tolist()
    return None if found is None else [int(a) for a in found]


def _squeeze(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    full = (1, *d.shape)
    axes = _axes_given(node, inputs)
    if axes is None:
        raise UnsupportedError(node.where, f"no axes, which takes the batch from {list(full)} too", "give it the axes")
    gone = {a % len(full) for a in axes}
    if 0 in gone or any(full[a] != 1 for a in gone):
        raise UnsupportedError(node.where, f"axes {sorted(gone)} of {list(full)}", "only axes of size 1 but the batch")
    return shaped(d, tuple(n for i, n in enumerate(full) if i and i not in gone))


def _unsqueeze(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    axes = _axes_given(node, inputs) or []
    rank = len(d.shape) + 1 + len(axes)
    new = {a % rank for a in axes}
    if 0 in new:
        raise UnsupportedError(node.where, "a new axis before the batch", "keep the batch first")
    rest = iter((1, *d.shape))
    return shaped(d, tuple(1 if i in new else next(rest) for i in range(rank))[1:])


def _transpose(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    rank = len(d.shape) + 1
    order = [int(p) for p in node.attributes.get("perm") or range(rank)[::-1]]
    if sorted(order) != list(range(rank)):
        raise UnsupportedError(
            node.where, f"perm {order}, must name each of {rank} axes once", "export the model again"
        )
    if order[0] != 0:
        raise UnsupportedError(node.where, f"perm {order} moves the batch", "keep the batch first")
    if d.base != d.shape:
        d = settled(c.b, d, tuple(range(len(d.shape))), name, node.where)
    moves = [p - 1 for p in order[1:]]  # axis j of the result is axis moves[j] of the model's: nothing moves in ours
    shape = tuple(d.shape[m] for m in moves)
    if d.function is not None and d.function.axis >= 0:
        d = replace(d, function=replace(d.function, axis=moves.index(d.function.axis)))
    return replace(d, base=shape, shape=shape, axes=tuple(moves.index(a) for a in d.axes))


def _pad(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    if str(node.attributes.get("mode") or "constant") != "constant":
        raise UnsupportedError(node.where, f"mode {node.attributes['mode']!r}", "pad with a constant")
    given = node.attributes.get("pads")
    pads = [int(p) for p in (given if given is not None else constant_of(node, inputs, 1, "pads").ravel())]
    rank = len(d.shape) + 1
    pairs = list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
    if len(inputs) > 3 and node.inputs[3]:
        axes = [int(a) % rank for a in constant_of(node, inputs, 3, "axes").ravel()]
        pairs = [pairs[axes.index(i)] if i in axes else (0, 0) for i in range(rank)]
    if len(pairs) != rank or pairs[0] != (0, 0) or min(v for p in pairs for v in p) < 0:
        raise UnsupportedError(
            node.where, f"pads {pads} of {[1, *d.shape]}", "pad axes other than the batch, by 0 or more"
        )
    value = Fraction(0)
    if len(inputs) > 2 and node.inputs[2]:
        fills = constant_of(node, inputs, 2, "value").ravel().tolist()
        if len(fills) != 1:
            raise UnsupportedError(
                node.where, f"{len(fills)} values to pad with, must be one", "export the model again"
            )
        value = Fraction(fills[0])
    elif "value" in node.attributes:
        value = quant.number(node, "value", 0.0)
    d = settled(c.b, d, d.axes if d.base == d.shape else tuple(range(len(d.shape))), name, node.where)
    d = settled_exact(c.b, d, f"{name}_in", node.where)
    stored = {value / s + d.tensor.qtype.zero_point for s in d.tensor.qtype.scales}
    fill = next(iter(stored))
    q = d.tensor.qtype
    if len(stored) > 1 or fill.denominator != 1 or not q.min <= fill <= q.max:
        raise UnsupportedError(
            node.where, f"padding with {float(value):g}, which is none of the data's values", "pad with 0"
        )
    ours = tuple(pairs[a + 1] for a in d.axes)
    shape = tuple(n + b + a for n, (b, a) in zip(d.shape, pairs[1:], strict=True))
    return replace(d, value=Value(c.b.pad(d.tensor, ours, name, int(fill))), base=shape, shape=shape)


def _resize(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    f = node.attributes
    d = data_of(node, inputs)
    if str(f.get("mode") or "nearest") != "nearest":
        raise UnsupportedError(node.where, f"mode {f['mode']!r}", "use nearest")
    full = (1, *d.shape)
    index = 1 if node.op == "Upsample" or node.opset < 11 else 2
    if "scales" in f:
        scales = [float(s) for s in f["scales"]]
    elif index < len(inputs) and isinstance(given := inputs[index], Constant) and given.value.size:
        scales = [float(s) for s in constant_of(node, inputs, index, "scales").ravel()]
    else:
        if str(f.get("keep_aspect_ratio_policy") or "stretch") != "stretch":
            raise UnsupportedError(node.where, f"policy {f['keep_aspect_ratio_policy']!r}", "give scales, or stretch")
        sizes = [int(s) for s in constant_of(node, inputs, 3, "sizes").ravel()]
        old = [full[int(a)] for a in f["axes"]] if "axes" in f else full
        scales = [s / n for s, n in zip(sizes, old, strict=False)]
    if "axes" in f and len(f["axes"]) == len(scales):
        axes = [int(a) % len(full) for a in f["axes"]]
        scales = [scales[axes.index(i)] if i in axes else 1.0 for i in range(len(full))]
    if len(scales) != len(full) or any(s != int(s) or s < 1 for s in scales) or scales[:2] != [1.0, 1.0]:
        raise UnsupportedError(node.where, f"scales {scales} of {list(full)}", "enlarge spatial axes by whole factors")
    factors = tuple(int(s) for s in scales[2:])
    if not all(_repeats(node, int(n), k) for n, k in zip(full[2:], factors, strict=True)):
        how = f"{f.get('coordinate_transformation_mode', 'half_pixel')}, {f.get('nearest_mode', 'round_prefer_floor')}"
        raise UnsupportedError(
            node.where, f"nearest by {how} is no repetition", "use asymmetric with floor, or half_pixel"
        )
    d = settled(c.b, d, channels_last(len(d.shape)), name, node.where)
    return _pooled(d, replace(d.value, tensor=c.b.upsample(d.tensor, factors, name)))


def _repeats(node: Node, n: int, k: int) -> bool:
    """Whether element i of the result is element i // k of the input, computed as the operator is defined."""
    where = str(node.attributes.get("coordinate_transformation_mode") or "half_pixel")
    how = str(node.attributes.get("nearest_mode") or "round_prefer_floor")
    if node.op == "Upsample" or node.opset < 11:
        where, how = "asymmetric", "floor"
    for i in range(n * k):
        if where in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
            x = Fraction(2 * i + 1, 2 * k) - Fraction(1, 2)
            x = ZERO if where == "pytorch_half_pixel" and n * k == 1 else x
        elif where == "asymmetric":
            x = Fraction(i, k)
        elif where == "align_corners":
            x = ZERO if n * k == 1 else Fraction(i * (n - 1), n * k - 1)
        else:
            return False
        half = Fraction(1, 2)
        found = {
            "round_prefer_floor": -floor(half - x), "round_prefer_ceil": floor(x + half), "floor": floor(x), "ceil": -floor(-x)
        }.get(how)  # fmt: skip
        if found is None or min(max(found, 0), n - 1) != i // k:
            return False
    return True


# --- several inputs, the end -----------------------------------------------------------------------------------------


def _concat(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    parts = [data_of(node, inputs, i) for i in range(len(inputs))]
    rank = len(parts[0].shape)
    axis = int(node.attributes["axis"]) % (rank + 1) - 1
    if axis < 0 or any(len(p.shape) != rank for p in parts):
        raise UnsupportedError(node.where, "concatenation along the batch or of different ranks", "join another axis")
    axes = parts[0].axes if parts[0].base == parts[0].shape else tuple(range(rank))
    parts = [settled(c.b, p, axes, f"{name}_{i}", node.where) for i, p in enumerate(parts)]
    ours = axes.index(axis)
    shape = tuple(sum(p.shape[axis] for p in parts) if i == axis else n for i, n in enumerate(parts[0].shape))
    if ours == rank - 1:
        value = _side_by_side(c, [p.value for p in parts], name, node.where)
    else:
        value = Value(c.b.concat(align(c.b, [p.value for p in parts], name, node.where), ours, name))
    return replace(parts[0], value=value, base=shape, shape=shape, axes=axes)


def _side_by_side(c: Context, values: list[Value], name: str, where: str) -> Value:
    """Along the channels each keeps its own scale and its own pending function; clips must agree."""
    if len({(v.lo, v.hi) for v in values}) > 1:
        values = [Value(exact(c.b, v, f"{name}_in{i}", where)) for i, v in enumerate(values)]
    if len({v.tensor.qtype.zero_point for v in values}) > 1:
        values = [replace(v, tensor=c.b.scale_up(v.tensor, 1, f"{name}_zero{i}")) for i, v in enumerate(values)]
    slope = [x for v in values for x in spread(v.slope, v.shape[-1])]
    intercept = [x for v in values for x in spread(v.intercept, v.shape[-1])]
    joined = c.b.concat([v.tensor for v in values], len(values[0].shape) - 1, name)
    return Value(joined, shorten(slope), shorten(intercept), values[0].lo, values[0].hi)


def _arg_max(c: Context, node: Node, inputs: Inputs, name: str) -> Data:
    d = data_of(node, inputs)
    rank = len(d.shape) + 1
    axis = int(node.attributes.get("axis", 0 if node.op == "ArgMax" else -1)) % rank - 1
    if axis < 0:
        raise UnsupportedError(node.where, "the largest along the batch", "take another axis")
    if int(node.attributes.get("select_last_index", 0)):
        raise UnsupportedError(node.where, "select_last_index 1", "the first of equals is taken")
    if node.op == "TopK":
        count = constant_of(node, inputs, 1, "k").ravel().tolist() if len(inputs) > 1 else [node.attributes.get("k")]
        if count != [1] or not int(node.attributes.get("largest", 1)):
            raise UnsupportedError(
                node.where, f"the {count} largest or smallest", "only the index of the largest (k = 1) is supported"
            )
    if d.function is not None and d.function.kind in SOFTMAX and d.function.axis != axis:
        raise UnsupportedError(node.where, "the largest of another axis than the softmax before it", "use one axis")
    wanted = (*(a for a in range(rank - 1) if a != axis), axis)
    d = settled(c.b, d, wanted, name, node.where)
    t = comparable(c.b, d.value, f"{name}_in", node.where)
    keeps = node.op == "TopK" or int(node.attributes.get("keepdims", 1))
    shape = tuple(1 if i == axis else n for i, n in enumerate(d.shape))
    made = Data(Value(c.b.argmax(t, name)), shape, wanted, shape)
    return made if keeps else replace(made, shape=tuple(n for i, n in enumerate(d.shape) if i != axis))


MOVES: dict[str, Lower] = {
    "MaxPool": _max_pool, "GlobalMaxPool": _max_pool, "AveragePool": _average_pool, "GlobalAveragePool": _average_pool,
    "ReduceMean": _reduce_mean, "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": _transpose, "Pad": _pad, "Resize": _resize, "Upsample": _resize, "Concat": _concat,
    "ArgMax": _arg_max, "TopK": _arg_max,
}  # fmt: skip
KEEPS_FUNCTION = {
    "MaxPool",
    "GlobalMaxPool",
    "Flatten",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Resize",
    "Upsample",
}
