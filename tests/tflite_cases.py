"""Random TFLite models of one operator each, and small networks: shapes, scales, zero points, windows and activations by a seed.

Its one rule: only what TensorFlow Lite Micro itself accepts, for what it holds for a fault of its caller ends the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.tflite_files import Node, T, constant, model, one_op

Rng = np.random.Generator
LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
ACTIVATIONS = ("none", "relu", "relu6", "relu_n1_to_1")


def pick(rng: Rng, of: Sequence[Any]) -> Any:
    return of[int(rng.integers(len(of)))]


def scale(rng: Rng, low: float = -7, high: float = -1) -> float:
    """A float32 of 2**low to 2**high; every third is a power of two, where ties are frequent."""
    exponent = rng.uniform(low, high)
    return float(np.float32(2.0 ** (round(exponent) if rng.integers(3) == 0 else exponent)))


def zero(rng: Rng, kind: str = "int8") -> int:
    lo, hi = LIMITS[kind]
    return 0 if kind == "int16" else int(pick(rng, (lo, hi, 0, int(rng.integers(lo, hi + 1)))))


def data(rng: Rng, shape: Sequence[int], kind: str = "int8", like: float | None = None) -> T:
    return T(tuple(shape), kind, scale(rng) if like is None else like, zero(rng, kind))


def size(rng: Rng, high: int, low: int = 1) -> int:
    return int(rng.integers(low, high + 1))


# --- sums of products ------------------------------------------------------------------------------------------------


def window(n: int, k: int, stride: int, dilation: int, padding: str) -> int:
    return -(-n // stride) if padding == "same" else (n - dilation * (k - 1) - 1) // stride + 1


def windows(
    rng: Rng, kernel: tuple[int, int], dilated: bool = True
) -> tuple[dict[str, Any], tuple[int, int], tuple[int, int]]:
    """Options, the input's height and width, the output's."""
    strides, dilation = (size(rng, 3), size(rng, 3)), (size(rng, 2), size(rng, 2)) if dilated else (1, 1)
    padding = pick(rng, ("same", "valid"))
    least = [d * (k - 1) + 1 if padding == "valid" else 1 for k, d in zip(kernel, dilation, strict=True)]
    sizes = size(rng, least[0] + 6, least[0]), size(rng, least[1] + 6, least[1])
    out = tuple(window(n, k, s, d, padding) for n, k, s, d in zip(sizes, kernel, strides, dilation, strict=True))
    options = {"padding": padding, "stride_h": strides[0], "stride_w": strides[1]}
    if dilated:
        options |= {"dilation_h": dilation[0], "dilation_w": dilation[1]}
    return options, sizes, (out[0], out[1])


def product(rng: Rng, kind: str, weights: Sequence[int], axis: int, x: Sequence[int], y: Sequence[int], per_channel: bool, depth: int) -> list[T | None]:  # fmt: skip
    """Input, weights, bias or none, and the output last, on scales at which the sums fill it."""
    sx, out = scale(rng), weights[axis]
    sw = np.array([scale(rng, -9, -5) for _ in range(out if per_channel else 1)], np.float32)
    spread = {"int8": 1.0, "int16": 1.0}[kind]
    sy = float(np.float32(sx * sw.max() * 90 * np.sqrt(depth) * rng.uniform(0.3, 2) * spread))
    if rng.integers(4) == 0:
        sy = float(2.0 ** round(np.log2(sy)))
    weight = constant(rng.integers(-127, 128, weights), "int8", scale=sw.tolist(), axis=axis)
    worth = (sw * np.float32(sx)).tolist()
    large = 1 << (13 if kind == "int8" else 20)
    bias = constant(rng.integers(-large, large, out), "int32" if kind == "int8" else "int64", scale=worth)
    given = T(tuple(x), kind, sx, zero(rng, kind))
    return [given, weight, bias if rng.integers(4) else None, T(tuple(y), kind, sy, zero(rng, kind))]


def conv_2d(rng: Rng, kind: str = "int8") -> bytes:
    kernel, groups = (size(rng, 4), size(rng, 4)), pick(rng, (1, 1, 1, 2, 3))
    options, (h, w), (oh, ow) = windows(rng, kernel)
    depth, out = size(rng, 4), groups * size(rng, 3)
    tensors = product(
        rng, kind, (out, *kernel, depth), 0, (1, h, w, depth * groups), (1, oh, ow, out), bool(rng.integers(3)), depth * kernel[0] * kernel[1]
    )  # fmt: skip
    return one_op("CONV_2D", tensors[:3], tensors[3:], activation=pick(rng, ACTIVATIONS), **options)


def depthwise_conv_2d(rng: Rng, kind: str = "int8") -> bytes:
    kernel, channels, multiplier = (size(rng, 4), size(rng, 4)), size(rng, 4), size(rng, 3)
    options, (h, w), (oh, ow) = windows(rng, kernel)
    out = channels * multiplier
    tensors = product(
        rng, kind, (1, *kernel, out), 3, (1, h, w, channels), (1, oh, ow, out), bool(rng.integers(3)), kernel[0] * kernel[1]
    )  # fmt: skip
    if (
        tensors[2] is None
    ):  # TensorFlow Lite Micro's reference kernel gives up a tensor that it does not have, and is gone
        tensors[2] = constant(np.zeros(out), "int32" if kind == "int8" else "int64", scale=1.0)
    activation = pick(rng, ACTIVATIONS)
    return one_op(
        "DEPTHWISE_CONV_2D", tensors[:3], tensors[3:], activation=activation, depth_multiplier=multiplier, **options
    )


def fully_connected(rng: Rng, kind: str = "int8") -> bytes:
    depth, out, rows = size(rng, 20), size(rng, 9), pick(rng, (1, 1, 3))
    kept = bool(rng.integers(2)) and rows > 1
    shapes = ((1, rows, depth), (1, rows, out)) if kept else ((rows, depth), (rows, out))
    tensors = product(rng, kind, (out, depth), 0, *shapes, bool(rng.integers(2)), depth)
    return one_op("FULLY_CONNECTED", tensors[:3], tensors[3:], activation=pick(rng, ACTIVATIONS), keep_num_dims=kept)


# --- elementwise -----------------------------------------------------------------------------------------------------


def shapes(rng: Rng) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes, one of which repeats to the other's."""
    whole = (1, *(size(rng, 4) for _ in range(size(rng, 3))))
    other = pick(rng, (whole, whole, (*whole[:-1], 1), (1,) * (len(whole) - 1) + whole[-1:], whole[1:], (1,)))
    return (whole, other) if rng.integers(2) else (other, whole)


def of_two(op: str) -> Callable[..., bytes]:
    def build(rng: Rng, kind: str = "int8") -> bytes:
        a, b = (data(rng, s, kind) for s in shapes(rng))
        sy = (
            max(a.scale, b.scale) * rng.uniform(0.6, 2)
            if op != "MUL"
            else a.scale * b.scale * 100 * rng.uniform(0.3, 2)
        )
        if op == "MUL" and kind == "int16":
            sy *= 200
        if rng.integers(3) == 0:
            sy = 2.0 ** round(np.log2(sy))
        if rng.integers(3) == 0 and np.prod(a.shape) >= np.prod(b.shape):
            b = constant(rng.integers(*LIMITS[kind], b.shape), kind, scale=b.scale, zero_point=b.zero_point)
        elif rng.integers(3) == 0 and np.prod(b.shape) >= np.prod(a.shape):
            a = constant(rng.integers(*LIMITS[kind], a.shape), kind, scale=a.scale, zero_point=a.zero_point)
        y = T(np.broadcast_shapes(a.shape, b.shape), kind, float(np.float32(sy)), zero(rng, kind))
        return one_op(op, [a, b], [y], activation=pick(rng, ACTIVATIONS))

    return build


def of_one(op: str, low: float = 0.5, high: float = 2, **options: Any) -> Callable[..., bytes]:
    """256 elements, so that a sample may be every integer."""

    def build(rng: Rng, kind: str = "int8") -> bytes:
        x = data(rng, (1, 256), kind)
        same = rng.integers(3) == 0
        sy = x.scale if same else float(np.float32(x.scale * rng.uniform(low, high)))
        y = T((1, 256), kind, sy, x.zero_point if same and rng.integers(2) else zero(rng, kind))
        given = {k: v(rng) if callable(v) else v for k, v in options.items()}
        return one_op(op, [x], [y], **given)

    return build


def relu6(rng: Rng, kind: str = "int8") -> bytes:
    x = data(rng, (1, 256), kind)
    return one_op("RELU6", [x], [T((1, 256), kind, x.scale, x.zero_point)])


def bounded(op: str, worth: float, offset: int) -> Callable[..., bytes]:
    def build(rng: Rng, kind: str = "int8") -> bytes:
        if kind == "int16":
            x = T((1, 256), kind, pick(rng, (2.0**-12, 2.0**-11, scale(rng, -17, 2), scale(rng, -14, -9))))
            return one_op(op, [x], [T((1, 256), kind, 1 / 32768)])
        x = T((1, 256), kind, scale(rng, -8, 1), zero(rng, kind))
        return one_op(op, [x], [T((1, 256), kind, worth, offset)])

    return build


def softmax(rng: Rng, kind: str = "int8") -> bytes:
    shape = (1, *(size(rng, 4) for _ in range(size(rng, 2, 0))), size(rng, 40))
    if kind == "int16":
        x = T(shape, kind, scale(rng, -16, 1))
        return one_op("SOFTMAX", [x], [T(shape, kind, 1 / 32768)], beta=pick(rng, (1.0, 1.0, 0.3, 2.5)))
    out = pick(rng, ((1 / 256, "int8", -128), (1 / 65536, "int16", -32768)))
    x = T(shape, "int8", scale(rng, -10, 1), zero(rng))
    return one_op("SOFTMAX", [x], [T(shape, out[1], out[0], out[2])], beta=pick(rng, (1.0, 1.0, 0.3, 2.5)))


def quantize(rng: Rng, kind: str = "int8") -> bytes:
    pairs = [("int8", "int8"), ("int8", "uint8"), ("uint8", "int8")] if kind == "int8" else [("int8", "int16"), ("int16", "int8"), ("int16", "int16")]  # fmt: skip
    a, b = pick(rng, pairs)
    x = data(rng, (1, 256), a)
    factor = {("int16", "int8"): 256.0, ("int8", "int16"): 1 / 256}.get((a, b), 1.0)
    return one_op(
        "QUANTIZE",
        [x],
        [T((1, 256), b, float(np.float32(x.scale * factor * pick(rng, (1, rng.uniform(0.5, 2))))), zero(rng, b))],
    )


# --- pools and moves -------------------------------------------------------------------------------------------------


def pool(op: str) -> Callable[..., bytes]:
    def build(rng: Rng, kind: str = "int8") -> bytes:
        kernel, channels = (size(rng, 4), size(rng, 4)), size(rng, 3)
        options, (h, w), (oh, ow) = windows(rng, kernel, dilated=False)
        x = data(rng, (1, h, w, channels), kind)
        y = T((1, oh, ow, channels), kind, x.scale, x.zero_point)
        return one_op(
            op, [x], [y], filter_h=kernel[0], filter_w=kernel[1], activation=pick(rng, ACTIVATIONS), **options
        )

    return build


def mean(rng: Rng, kind: str = "int8") -> bytes:
    shape = (1, *(size(rng, 6) for _ in range(pick(rng, (2, 3, 3)))))
    axes = pick(rng, ([1, 2], [2, 1], [1], [2], [-1], [1, 2] if len(shape) == 3 else [2, 3]))
    axes = [a for a in axes if -len(shape) <= a < len(shape)]
    gone, kept = [a % len(shape) for a in axes], bool(rng.integers(2))
    left = tuple(1 if k in gone else n for k, n in enumerate(shape) if kept or k not in gone)
    x = data(rng, shape, kind)
    same = rng.integers(2) == 0
    y = T(
        left,
        kind,
        x.scale if same else float(np.float32(x.scale * rng.uniform(0.3, 1.5))),
        x.zero_point if same else zero(rng, kind),
    )
    return one_op("MEAN", [x, constant(axes)], [y], keep_dims=kept)


def moved(op: str, x: T, shape: Sequence[int], more: Sequence[T] = (), **options: Any) -> bytes:
    return one_op(op, [x, *more], [T(tuple(shape), x.type, x.scale, x.zero_point)], **options)


def reshape(rng: Rng, kind: str = "int8") -> bytes:
    h, w, c = size(rng, 4), size(rng, 4), size(rng, 4)
    shape = pick(rng, ((1, h * w * c), (h, w * c), (1, c, h, w), (h * w * c,), (1, h, w * c)))
    return moved("RESHAPE", data(rng, (1, h, w, c), kind), shape, [constant(shape)])


def squeeze(rng: Rng, kind: str = "int8") -> bytes:
    h = size(rng, 5)
    return moved("SQUEEZE", data(rng, (1, h, 1, 3), kind), (1, h, 3), squeeze_dims=[2])


def expand_dims(rng: Rng, kind: str = "int8") -> bytes:
    h = size(rng, 5)
    return moved("EXPAND_DIMS", data(rng, (1, h, 3), kind), (1, h, 1, 3), [constant([2])])


def transpose(rng: Rng, kind: str = "int8") -> bytes:
    shape = (1, *(size(rng, 4) for _ in range(size(rng, 3))))
    order = (
        [0, *(1 + rng.permutation(len(shape) - 1)).tolist()]
        if rng.integers(3)
        else rng.permutation(len(shape)).tolist()
    )
    return moved("TRANSPOSE", data(rng, shape, kind), [shape[k] for k in order], [constant(order)])


def pad(op: str) -> Callable[..., bytes]:
    def build(rng: Rng, kind: str = "int8") -> bytes:
        shape = (1, *(size(rng, 4) for _ in range(size(rng, 3))))
        pairs = [
            [0, 0] if k == 0 and rng.integers(4) else [size(rng, 2, 0), size(rng, 2, 0)] for k in range(len(shape))
        ]
        x = data(rng, shape, kind)
        more = [constant(pairs)]
        if op == "PADV2":
            more.append(constant(rng.integers(*LIMITS[kind], 1), kind, scale=x.scale, zero_point=x.zero_point))
        return moved(op, x, [n + a + b for n, (a, b) in zip(shape, pairs, strict=True)], more)

    return build


def concatenation(rng: Rng, kind: str = "int8") -> bytes:
    shape, sx, zx = [1, *(size(rng, 4) for _ in range(size(rng, 3)))], scale(rng), zero(rng, kind)
    axis = size(rng, len(shape) - 1, 0 if rng.integers(4) == 0 else 1)
    parts, total = [], 0
    for _ in range(size(rng, 4, 2)):
        n = size(rng, 3)
        parts.append(T(tuple(n if k == axis else m for k, m in enumerate(shape)), kind, sx, zx))
        total += n
    y = T(tuple(total if k == axis else m for k, m in enumerate(shape)), kind, sx, zx)
    return one_op("CONCATENATION", parts, [y], axis=pick(rng, (axis, axis - len(shape))))


def pack(rng: Rng, kind: str = "int8") -> bytes:
    shape, count = (1, size(rng, 4), size(rng, 4)), size(rng, 3)
    axis = size(rng, 3, 0)
    parts = [T(shape, kind, 0.5, 0) for _ in range(count)]
    return one_op(
        "PACK", parts, [T((*shape[:axis], count, *shape[axis:]), kind, 0.5, 0)], values_count=count, axis=axis
    )


def unpack(rng: Rng, kind: str = "int8") -> bytes:
    x, axis = data(rng, (1, size(rng, 4), size(rng, 4)), kind), size(rng, 2)
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    return one_op(
        "UNPACK",
        [x],
        [T(shape, kind, x.scale, x.zero_point) for _ in range(x.shape[axis])],
        num=x.shape[axis],
        axis=axis,
    )


def split(rng: Rng, kind: str = "int8") -> bytes:
    shape, count = [1, *(size(rng, 4) for _ in range(size(rng, 3)))], size(rng, 3)
    axis = size(rng, len(shape) - 1)
    part = tuple(shape)
    shape[axis] *= count
    x = data(rng, shape, kind)
    return one_op(
        "SPLIT", [constant(axis), x], [T(part, kind, x.scale, x.zero_point) for _ in range(count)], num_splits=count
    )


def split_v(rng: Rng, kind: str = "int8") -> bytes:
    x = data(rng, (1, 3, 7), kind)
    cuts = pick(rng, ([1, 6], [2, 2, 3], [7]))
    outputs = [T((1, 3, n), kind, x.scale, x.zero_point) for n in cuts]
    return one_op("SPLIT_V", [x, constant(cuts), constant(2)], outputs, num_splits=len(cuts))


def strided_slice(rng: Rng, kind: str = "int8") -> bytes:
    shape = (1, *(size(rng, 7) for _ in range(size(rng, 3))))
    begin = [0] + [size(rng, n - 1, 0) for n in shape[1:]]
    end = [1] + [size(rng, n, b + 1) for n, b in zip(shape[1:], begin[1:], strict=True)]
    strides = [1] + [size(rng, 3) for _ in shape[1:]]
    masks = [int(rng.integers(1 << len(shape))) if rng.integers(2) else 0 for _ in range(2)]
    shrink = int(rng.integers(1 << len(shape))) & ~1 if rng.integers(3) == 0 else 0
    first = [0 if masks[0] >> k & 1 else b for k, b in enumerate(begin)]
    last = [n if masks[1] >> k & 1 else e for k, (n, e) in enumerate(zip(shape, end, strict=True))]
    made = tuple(
        -(-(e - b) // s) for k, (b, e, s) in enumerate(zip(first, last, strides, strict=True)) if not shrink >> k & 1
    )
    negative = [v - n if rng.integers(3) == 0 and v < n else v for v, n in zip(begin, shape, strict=True)]
    options = {
        "begin_mask": masks[0],
        "end_mask": masks[1],
        "shrink_axis_mask": shrink,
        "ellipsis_mask": 0,
        "new_axis_mask": 0,
    }
    return moved(
        "STRIDED_SLICE", data(rng, shape, kind), made, [constant(negative), constant(end), constant(strides)], **options
    )


def slice_(rng: Rng, kind: str = "int8") -> bytes:
    shape = (1, *(size(rng, 7) for _ in range(size(rng, 3))))
    begin = [size(rng, n - 1, 0) for n in shape]
    made = [size(rng, n - b) for n, b in zip(shape, begin, strict=True)]
    said = [-1 if b + m == n and rng.integers(2) else m for n, b, m in zip(shape, begin, made, strict=True)]
    return moved("SLICE", data(rng, shape, kind), made, [constant(begin), constant(said)])


def resize_nearest_neighbor(rng: Rng, kind: str = "int8") -> bytes:
    h, w, c = size(rng, 4), size(rng, 4), size(rng, 3)
    made = h * size(rng, 3), w * size(rng, 3)
    if rng.integers(3) == 0:
        (h, w), made = made, (h, w)
    half = bool(rng.integers(2))  # where rows are left out, those in the middle stay
    return moved("RESIZE_NEAREST_NEIGHBOR", data(rng, (1, h, w, c), kind), (1, *made, c), [constant(made)], align_corners=False, half_pixel_centers=half)  # fmt: skip


OPS: dict[str, Callable[..., bytes]] = {
    "ADD": of_two("ADD"),
    "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D"),
    "CONCATENATION": concatenation,
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "EXPAND_DIMS": expand_dims,
    "FULLY_CONNECTED": fully_connected,
    "HARD_SWISH": of_one("HARD_SWISH", 0.3, 1.5),
    "LEAKY_RELU": of_one("LEAKY_RELU", alpha=lambda rng: pick(rng, (0.0, 0.1, 0.25, 0.3, 1.0, 1.5))),
    "LOGISTIC": bounded("LOGISTIC", 1 / 256, -128),
    "MAX_POOL_2D": pool("MAX_POOL_2D"),
    "MEAN": mean,
    "MUL": of_two("MUL"),
    "PACK": pack,
    "PAD": pad("PAD"),
    "PADV2": pad("PADV2"),
    "QUANTIZE": quantize,
    "RELU": of_one("RELU"),
    "RELU6": relu6,
    "RESHAPE": reshape,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
    "SLICE": slice_,
    "SOFTMAX": softmax,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "SQUEEZE": squeeze,
    "STRIDED_SLICE": strided_slice,
    "SUB": of_two("SUB"),
    "TANH": bounded("TANH", 1 / 128, 0),
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}

__all__ = ["OPS", "Node", "model"]
