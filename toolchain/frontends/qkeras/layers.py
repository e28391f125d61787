"""Each Keras and QKeras layer as operations on Values: one function a layer kind, in one table.

Its one rule: a configuration that changes the meaning is carried out or refused by name; none is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError, nearest
from toolchain.frontends.qkeras import activations, params, quantizers
from toolchain.frontends.qkeras.archive import Layer
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.geometry import same_padding
from toolchain.ir.values import ONE, Value, affine, align, clip, exact, rising, scale_of, shorten, unify

ZERO = Fraction(0)


@dataclass
class Context:
    b: GraphBuilder
    keras: int
    sigmoid: str
    assumed: bool  # the sigmoid is an option's, not known from the model
    host: dict[str, str] = field(default_factory=dict)  # layers left to the host, with what they are
    before: dict[str, Value] = field(
        default_factory=dict
    )  # tensor that a quantizer made -> what it rounded (for verify)


Lower = Callable[[Context, Layer, Sequence[Value], str], Value]


def lower(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    """The layer's output; `name` names its last tensor."""
    function = TABLE.get(layer.class_name)
    if function is None:
        raise UnsupportedError(
            f"layer {layer.name}",
            f"{layer.class_name} is not supported",
            " ".join(filter(None, [nearest(layer.class_name, TABLE), "supported: " + ", ".join(TABLE)])),
        )
    if layer.config.get("data_format") == "channels_first":
        raise UnsupportedError(f"layer {layer.name}", "channels_first", "use channels_last")
    for key in ("dtype",):
        kind = layer.config.get(key)
        kind = kind.get("config", {}).get("name", "float32") if isinstance(kind, dict) else kind
        if kind not in (None, "float32"):
            raise UnsupportedError(f"layer {layer.name}", f"{key} {kind}", "only float32 models are read")
    return function(c, layer, inputs, name)


def _activation(c: Context, layer: Layer, v: Value, name: str) -> Value:
    q = quantizers.as_activation(params.quantizer(layer, "activation"), layer.name)
    if q is None:
        return v
    if isinstance(q, quantizers.Function) and q.name in ("softmax", "sigmoid", "tanh"):
        return _to_host(c, layer, v, q.name)
    if isinstance(q, quantizers.Function) and q.name in quantizers.FUNCTIONS and not layer.class_name.startswith("Q"):
        raise UnsupportedError(
            f"layer {layer.name}",
            f"Keras' own {q.name}, another function than QKeras'",
            f"use QActivation({q.name!r}) or a quantizer",
        )
    if c.assumed and _uses_internal_sigmoid(q):
        note = f"QKeras' internal sigmoid is not saved: {c.sigmoid!r} is assumed (--sigmoid says otherwise)"
        if note not in c.b.notes:
            c.b.notes.append(note)
    if isinstance(q, quantizers.QuantizedRelu) and q.relu_upper_bound is not None and q.is_quantized_clip:
        c.b.notes.append(
            f"layer {layer.name}: relu_upper_bound {q.relu_upper_bound} is ignored, as QKeras does when it reloads this file"
        )
    made = activations.apply(c.b, v, q, name, f"layer {layer.name}", c.sigmoid)
    if made.tensor is not v.tensor:
        c.before[made.tensor.name] = v
    return made


def _uses_internal_sigmoid(q: quantizers.Quantizer) -> bool:
    match q:
        case quantizers.QuantizedTanh():
            return not q.use_real_tanh
        case quantizers.QuantizedSigmoid():
            return not q.use_real_sigmoid
        case quantizers.QuantizedRelu():
            return q.use_sigmoid
        case _:
            return isinstance(q, quantizers.QuantizedUlaw)


def _to_host(c: Context, layer: Layer, v: Value, what: str) -> Value:
    """Softmax, sigmoid and tanh keep the order of the values, so argmax is unchanged; only at the very end."""
    c.host[layer.name] = what
    return v


def _acc_name(layer: Layer, name: str) -> str:
    """The accumulator takes the layer's name unless an activation of the layer will."""
    q = params.quantizer(layer, "activation")
    nothing = isinstance(q, quantizers.Function) and q.name in ("linear", "softmax", "sigmoid", "tanh")
    return name if q is None or nothing else f"{name}_acc"


# --- dense and convolutions ------------------------------------------------------------------------------------------


def _with_bias(v: Value, bias: Sequence[Fraction]) -> Value:
    """The bias waits for the next quantizer when the accumulator's unit cannot hold it."""
    return Value(v.tensor, (ONE,), shorten(bias)) if any(bias) else v


def _integer_bias(c: Context, bias: Sequence[Fraction], scale: Sequence[Fraction], name: str) -> Any:
    """The bias as integers of the accumulator's unit, or None when it is no whole multiple."""
    units = tuple(scale) * len(bias) if len(scale) == 1 else tuple(scale)
    whole = [x / s for x, s in zip(bias, units, strict=True)]
    if any(x.denominator != 1 or abs(x) >= 1 << 40 for x in whole) or not any(whole):
        return None
    return c.b.const(f"{name}_bias", [int(x) for x in whole], shorten(units))


def _finish(
    c: Context,
    layer: Layer,
    make: Callable[[Any, str], Any],
    unit: Sequence[Fraction],
    bias: Sequence[Fraction],
    name: str,
) -> Value:
    acc = _acc_name(layer, name)
    whole = _integer_bias(c, bias, unit, name) if bias else None
    v = Value(make(whole, acc))
    if bias and whole is None:
        v = _with_bias(v, bias)
    return _activation(c, layer, v, name)


def _units(x: Fraction, k: params.Kernel) -> tuple[Fraction, ...]:
    return tuple(x * s for s in k.scale)


def _dense(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    x = unify(c.b, inputs[0], name, f"layer {layer.name}")
    k = params.kernel(layer, layer.weights["kernel"], "kernel_quantizer", c.b.notes)
    w = params.const(c.b, k, k.codes.T, 0, f"{name}_weight")
    bias = params.bias(layer, layer.weights.get("bias"), c.b.notes)
    return _finish(c, layer, lambda bc, acc: c.b.dense(x, w, bc, acc), _units(scale_of(x), k), bias, name)


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value), int(value))


def _spatial(layer: Layer, key: str, rank: int, default: int = 1) -> tuple[int, ...]:
    value = layer.config.get(key, default)
    if value is None:
        value = default
    return tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),) * rank


def _padding(
    layer: Layer, shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    kind = str(layer.config.get("padding", "valid"))
    if kind == "valid":
        return ((0, 0),) * len(kernel)
    if kind == "same":
        return tuple(same_padding(n, k, s, d) for n, k, s, d in zip(shape, kernel, strides, dilation, strict=False))
    if kind == "causal" and len(kernel) == 1:
        return (((kernel[0] - 1) * dilation[0], 0),)
    raise UnsupportedError(f"layer {layer.name}", f"padding {kind!r}", "use 'valid' or 'same'")


def _conv(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    weight, bias = layer.weights["kernel"], layer.weights.get("bias")
    if "Batchnorm" in layer.class_name:
        params.check_axis(_ranked(layer, inputs[0]))
        weight, bias = params.fold(layer, weight, False, c.b.notes)
    rank = weight.ndim - 2
    x = unify(c.b, inputs[0], name, f"layer {layer.name}")
    k = params.kernel(layer, weight, "kernel_quantizer", c.b.notes)
    w = params.const(c.b, k, np.moveaxis(k.codes, -1, 0), 0, f"{name}_weight")
    strides, dilation = _spatial(layer, "strides", rank), _spatial(layer, "dilation_rate", rank)
    pad = _padding(layer, x.shape, weight.shape[:rank], strides, dilation)
    groups = int(layer.config.get("groups") or 1)
    op = c.b.conv1d if rank == 1 else c.b.conv2d
    return _finish(c, layer, lambda bc, acc: op(x, w, bc, acc, strides, dilation, pad, groups), _units(scale_of(x), k),
                   params.bias(layer, bias, c.b.notes), name)  # fmt: skip


def _depthwise_acc(
    c: Context, layer: Layer, v: Value, weight: np.ndarray, bias: Sequence[Fraction], name: str
) -> tuple[Callable[[Any, str], Any], tuple[Fraction, ...]]:
    x = unify(c.b, v, name, f"layer {layer.name}")
    out = weight.shape[-2] * weight.shape[-1]
    k = params.kernel(layer, weight, "depthwise_quantizer", c.b.notes, out)
    w = params.const(c.b, k, k.codes, 2, f"{name}_weight")
    strides, dilation = _spatial(layer, "strides", 2), _spatial(layer, "dilation_rate", 2)
    pad = _padding(layer, x.shape, weight.shape[:2], strides, dilation)
    return lambda bc, acc: c.b.depthwise_conv2d(x, w, bc, acc, strides, dilation, pad), _units(scale_of(x), k)


def _depthwise(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    w = layer.weights  # Keras 3 calls a plain layer's variable "kernel"
    weight, vector = w["depthwise_kernel"] if "depthwise_kernel" in w else w["kernel"], w.get("bias")
    if "Batchnorm" in layer.class_name:
        params.check_axis(_ranked(layer, inputs[0]))
        weight, vector = params.fold(layer, weight, True, c.b.notes)
    bias = params.bias(layer, vector, c.b.notes)
    make, unit = _depthwise_acc(c, layer, inputs[0], weight, bias, name)
    return _finish(c, layer, make, unit, bias, name)


def _separable(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    """QKeras rounds nothing between the two convolutions, so the second reads the first's accumulator."""
    make, _ = _depthwise_acc(c, layer, inputs[0], layer.weights["depthwise_kernel"], (), f"{name}_depthwise")
    x = unify(c.b, Value(make(None, f"{name}_depthwise")), f"{name}_depthwise", f"layer {layer.name}")
    k = params.kernel(layer, layer.weights["pointwise_kernel"], "pointwise_quantizer", c.b.notes)
    w = params.const(c.b, k, np.moveaxis(k.codes, -1, 0), 0, f"{name}_pointwise_weight")
    bias = params.bias(layer, layer.weights.get("bias"), c.b.notes)
    return _finish(c, layer, lambda bc, acc: c.b.conv2d(x, w, bc, acc), _units(scale_of(x), k), bias, name)


def _ranked(layer: Layer, v: Value) -> Layer:
    return Layer(layer.name, layer.class_name, {**layer.config, "_rank": len(v.shape)}, layer.calls, layer.weights)


def _batch_norm(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    v = inputs[0]
    slope, intercept = params.batch_norm(_ranked(layer, v), v.shape[-1], c.b.notes)
    return affine(c.b, v, slope, intercept, name, f"layer {layer.name}")


# --- functions -------------------------------------------------------------------------------------------------------


def _qactivation(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    return _activation(c, layer, inputs[0], name)


def _relu_layer(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    f = layer.config
    slope = f.get("negative_slope", f.get("alpha", 0.3 if layer.class_name == "LeakyReLU" else 0.0))
    if float(f.get("threshold") or 0.0) != 0.0:
        raise UnsupportedError(f"layer {layer.name}", f"ReLU with threshold {f['threshold']}", "use threshold 0")
    top = f.get("max_value")
    high = None if top is None else activations.f32(float(top))
    v = inputs[0]
    if not slope:
        return clip(v, ZERO, high)
    # slope * x + (1 - slope) * relu(x), both exact
    a = activations.f32(float(slope))
    x = exact(c.b, v, f"{name}_in", f"layer {layer.name}")
    scaled = Value(x, (a,))
    rest = clip(Value(x, (1 - a,)), ZERO, None)
    left, right = align(c.b, (scaled, rest), name, f"layer {layer.name}")
    return clip(Value(c.b.add(left, right, name)), None, high)


def _softmax(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    axis = layer.config.get("axis", -1)
    if axis not in (-1, len(inputs[0].shape)):
        raise UnsupportedError(f"layer {layer.name}", f"softmax over axis {axis}", "use the last axis")
    return _to_host(c, layer, inputs[0], "softmax")


def _rescaling(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    scale, offset = ([activations.f32(float(x)) for x in np.atleast_1d(layer.config[k])] for k in ("scale", "offset"))
    return affine(c.b, inputs[0], scale, offset, name, f"layer {layer.name}")


def _same(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    return inputs[0]


# --- pools -----------------------------------------------------------------------------------------------------------


def _pool_rank(layer: Layer) -> int:
    return 1 if "1D" in layer.class_name else 2


def _max_pool(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    v, rank = inputs[0], _pool_rank(layer)
    if any(s < 0 for s in v.slope):
        v = rising(c.b, v, f"{name}_in")
    shape = v.shape
    if layer.class_name.startswith("Global"):
        pooled = c.b.max_pool(v.tensor, shape[:rank], shape[:rank], ((0, 0),) * rank, f"{name}_pool")
        return _pooled(c, layer, Value(pooled, v.slope, v.intercept, v.lo, v.hi), name, rank)
    kernel = _spatial(layer, "pool_size", rank, 2)
    strides = _spatial(layer, "strides", rank) if layer.config.get("strides") is not None else kernel
    pad = _padding(layer, shape, kernel, strides, (1,) * rank)
    return Value(c.b.max_pool(v.tensor, kernel, strides, pad, name), v.slope, v.intercept, v.lo, v.hi)


def _pooled(c: Context, layer: Layer, v: Value, name: str, rank: int) -> Value:
    """A global pool drops its spatial axes unless keepdims."""
    if layer.config.get("keepdims"):
        return v
    return Value(c.b.reshape(v.tensor, v.shape[rank:], name), v.slope, v.intercept, v.lo, v.hi)


def _average_pool(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    v, rank = inputs[0], _pool_rank(layer)
    if v.lo is not None or v.hi is not None or v.tensor.qtype.zero_point:
        v = Value(exact(c.b, v, f"{name}_in", f"layer {layer.name}"))
    shape = v.shape
    whole = "Global" in layer.class_name
    kernel = shape[:rank] if whole else _spatial(layer, "pool_size", rank, 2)
    strides = kernel if whole or layer.config.get("strides") is None else _spatial(layer, "strides", rank)
    pad = ((0, 0),) * rank if whole else _padding(layer, shape, kernel, strides, (1,) * rank)
    t = c.b.sum_pool(v.tensor, kernel, strides, pad, f"{name}_sum")
    v = Value(t, v.slope, v.intercept)
    if whole:
        v = _pooled(c, layer, v, f"{name}_flat", rank)
    if not layer.class_name.startswith("Q"):
        return v
    q = quantizers.as_activation(params.quantizer(layer, "average_quantizer"), layer.name)
    if (
        q is not None
    ):  # sum * quantize(1 / area); at a border Keras divides by fewer, and QKeras multiplies by the whole area
        area = int(np.prod(kernel))
        (factor,) = activations.constant(q, [float(np.float32(1.0 / area))], f"layer {layer.name}", c.b.notes)
        v = affine(c.b, v, (factor * area,), (ZERO,), name, f"layer {layer.name}")
    return _activation(c, layer, v, name)


# --- several inputs, shapes ------------------------------------------------------------------------------------------


def _merge(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    at = f"layer {layer.name}"
    kind = layer.class_name
    if len(inputs) < 2 or (kind == "Subtract" and len(inputs) != 2):
        raise UnsupportedError(at, f"{kind} of {len(inputs)} tensors", "give it two")
    if len({len(v.shape) for v in inputs}) > 1:
        raise UnsupportedError(
            at, f"{kind} of shapes {', '.join(str(list(v.shape)) for v in inputs)}", "give them the same rank"
        )
    if kind == "Multiply":
        t = unify(c.b, inputs[0], f"{name}_0", at)
        for i, v in enumerate(inputs[1:], 1):
            t = c.b.multiply(t, unify(c.b, v, f"{name}_{i}", at), name if i == len(inputs) - 1 else f"{name}_part{i}")
        return Value(t)
    aligned = align(c.b, inputs, name, at)
    t = aligned[0]
    for i, other in enumerate(aligned[1:], 1):
        label = name if i == len(aligned) - 1 else f"{name}_part{i}"
        t = c.b.sub(t, other, label) if kind == "Subtract" else c.b.add(t, other, label)
    return Value(t)


def _concatenate(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    at = f"layer {layer.name}"
    rank = len(inputs[0].shape)
    axis = int(layer.config.get("axis", -1))
    if axis == 0 or not -rank <= axis <= rank:
        raise UnsupportedError(at, f"concatenation over axis {axis}", "the batch cannot be concatenated")
    axis = axis - 1 if axis > 0 else rank + axis
    if axis == rank - 1:
        tensors = [exact(c.b, v, f"{name}_in{i}", at) for i, v in enumerate(inputs)]
        tensors = [
            exact(c.b, Value(t, (ONE,), (ZERO,)), f"{name}_in{i}", at)
            if t.qtype.zero_point == 0
            else _no_zero(c, t, f"{name}_zero{i}")
            for i, t in enumerate(tensors)
        ]
    else:
        tensors = align(c.b, inputs, name, at)
    return Value(c.b.concat(tensors, axis, name))


def _no_zero(c: Context, t: Any, name: str) -> Any:
    return c.b.scale_up(t, 1, name)


def _reshape(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    v = inputs[0]
    size = v.tensor.size
    if layer.class_name == "Flatten":
        shape: tuple[int, ...] = (size,)
    else:
        wanted = [int(d) for d in layer.config["target_shape"]]
        known = int(np.prod([d for d in wanted if d != -1]))
        shape = tuple(size // known if d == -1 else d for d in wanted)
    if shape[-1:] != v.shape[-1:]:
        if len(v.tensor.qtype.scales) > 1:
            v = Value(unify(c.b, v, name, f"layer {layer.name}"))
        elif len(v.slope) > 1 or len(v.intercept) > 1:  # a pending function of each channel goes on in a flat tensor
            if len(shape) == 1:
                times = size // v.shape[-1]
                v = Value(
                    v.tensor,
                    v.slope * (times if len(v.slope) > 1 else 1),
                    v.intercept * (times if len(v.intercept) > 1 else 1),
                    v.lo,
                    v.hi,
                )
            else:
                v = Value(unify(c.b, v, name, f"layer {layer.name}"))
    return Value(c.b.reshape(v.tensor, shape, name), v.slope, v.intercept, v.lo, v.hi)


def _permute(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    order = tuple(int(d) - 1 for d in layer.config["dims"])
    v = inputs[0]
    if order[-1] != len(order) - 1:
        v = Value(unify(c.b, v, name, f"layer {layer.name}"))
    return Value(c.b.transpose(v.tensor, order, name), v.slope, v.intercept, v.lo, v.hi)


def _zero_padding(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    t = exact(c.b, inputs[0], f"{name}_in", f"layer {layer.name}")
    rank = _pool_rank(layer)
    given = layer.config["padding"]
    pairs = [given] if rank == 1 else list(given) if isinstance(given, (list, tuple)) else [given] * rank
    pads = tuple((int(p[0]), int(p[1])) if isinstance(p, (list, tuple)) else (int(p), int(p)) for p in pairs)
    return Value(c.b.pad(t, (*pads, (0, 0)), name))


def _upsampling(c: Context, layer: Layer, inputs: Sequence[Value], name: str) -> Value:
    if layer.config.get("interpolation", "nearest") != "nearest":
        raise UnsupportedError(
            f"layer {layer.name}", f"interpolation {layer.config['interpolation']!r}", "use 'nearest'"
        )
    v, rank = inputs[0], _pool_rank(layer)
    return Value(c.b.upsample(v.tensor, _spatial(layer, "size", rank, 2), name), v.slope, v.intercept, v.lo, v.hi)


TABLE: dict[str, Lower] = {
    "QDense": _dense, "Dense": _dense, "QConv1D": _conv, "Conv1D": _conv, "QConv2D": _conv, "Conv2D": _conv,
    "QDepthwiseConv2D": _depthwise, "DepthwiseConv2D": _depthwise, "QSeparableConv2D": _separable, "SeparableConv2D": _separable,
    "QConv2DBatchnorm": _conv, "QDepthwiseConv2DBatchnorm": _depthwise, "QBatchNormalization": _batch_norm, "BatchNormalization": _batch_norm,
    "QActivation": _qactivation, "Activation": _qactivation, "ReLU": _relu_layer, "LeakyReLU": _relu_layer, "Softmax": _softmax,
    "QAveragePooling2D": _average_pool, "QGlobalAveragePooling2D": _average_pool,
    "MaxPooling1D": _max_pool, "MaxPooling2D": _max_pool, "GlobalMaxPooling1D": _max_pool, "GlobalMaxPooling2D": _max_pool,
    "AveragePooling1D": _average_pool, "AveragePooling2D": _average_pool, "GlobalAveragePooling1D": _average_pool,
    "GlobalAveragePooling2D": _average_pool,
    "Add": _merge, "Subtract": _merge, "Multiply": _merge, "Concatenate": _concatenate, "Flatten": _reshape, "Reshape": _reshape,
    "Permute": _permute, "ZeroPadding1D": _zero_padding, "ZeroPadding2D": _zero_padding, "UpSampling1D": _upsampling,
    "UpSampling2D": _upsampling, "Rescaling": _rescaling, "Dropout": _same, "SpatialDropout1D": _same, "SpatialDropout2D": _same,
    "GaussianNoise": _same, "GaussianDropout": _same, "AlphaDropout": _same, "ActivityRegularization": _same, "Identity": _same,
}  # fmt: skip
