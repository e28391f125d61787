"""Known tensors, and what one node makes of them: everything in a model that does not depend on its inputs.

Its one rule: the value is what the file's own float32 arithmetic gives; where a quantizer made it, codes * scale is what it means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quantizers

if TYPE_CHECKING:
    from toolchain.frontends.qonnx.archive import Node


@dataclass(frozen=True, eq=False)
class Constant:
    """A known tensor. Where a quantizer or DequantizeLinear made it, `codes` (int64, zero point already subtracted) and
    `scale` (float64 holding the float32 exactly, same rank as codes, broadcastable to it) say what it means as a real
    number: codes * scale, exactly; else both are None. `bits` is the stated width of the quantizer, or of an integer
    type that numpy has none for (INT4 is held as int8 with bits 4)."""

    value: np.ndarray
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None
    bits: int | None = None


RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
MOVING = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Concat", "Slice"}  # keep codes
CONVERTING = {"Cast", "CastLike", "ConstantOfShape", "DequantizeLinear"}  # their result's type is said, not inferred


def evaluate(node: Node, inputs: Sequence[Constant | None], notes: list[str]) -> tuple[Constant, ...]:
    """What the node makes of these constants (None where an optional input is left out), one for each output."""
    if node.domain == "qonnx":
        if node.op not in ("Quant", "IntQuant", "BipolarQuant", "Trunc"):
            raise UnsupportedError(
                node.where, f"{node.op} of a constant, must be Quant, BipolarQuant or Trunc", "export the model again"
            )
        return (_quantized(node, inputs, notes),)
    if node.op == "QuantizeLinear":
        return (_quantize_linear(node, inputs, notes),)
    if node.op == "DequantizeLinear":
        return (dequantized(node, inputs),)
    values = run(node, [None if c is None else c.value for c in inputs])
    if node.op not in MOVING:
        return tuple(Constant(v) for v in values)
    moved = [c for c in inputs if c is not None] if node.op == "Concat" else [c for c in inputs[:1] if c is not None]
    widths = [c.bits for c in moved]
    bits = None if None in widths else max((b for b in widths if b is not None), default=None)
    if any(c.codes is None for c in moved):
        return (Constant(values[0], bits=bits),)
    codes, scales = _moved(node, inputs, lambda c: c.codes), _moved(node, inputs, _whole_scale)
    return (Constant(values[0], codes, compressed(scales), bits),)


def _whole_scale(constant: Constant) -> np.ndarray:
    assert constant.codes is not None and constant.scale is not None
    return np.broadcast_to(constant.scale, constant.codes.shape)


def _moved(node: Node, inputs: Sequence[Constant | None], part: Callable[[Constant], Any]) -> np.ndarray:
    """The node on the codes, or on the scales, of what it moves."""
    last = len(inputs) if node.op == "Concat" else 1
    arrays = [None if c is None else part(c) if i < last else c.value for i, c in enumerate(inputs)]
    return run(node, arrays)[0]


def compressed(scales: np.ndarray) -> np.ndarray:
    """The smallest array of the same rank that broadcasts to this one: axes along which nothing changes have length 1."""
    for axis in range(scales.ndim):
        first = scales.take([0], axis) if scales.shape[axis] else None
        if first is not None and (scales == first).all():
            scales = first
    return np.ascontiguousarray(scales)


def per_axis(where: str, name: str, value: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """A scale or zero point of one value, or of one for each position along `axis`, shaped to broadcast over `rank` axes."""
    if value.size == 1:
        return value.reshape((1,) * rank)
    if value.ndim != 1:
        raise UnsupportedError(
            where, f"its {name} has the shape {list(value.shape)}, must be one value or one per channel",
            "blocked quantization is not supported; quantize per tensor or per channel",
        )  # fmt: skip
    if not -rank <= axis < rank:
        raise UnsupportedError(where, f"axis is {axis}, must be {-rank} to {rank - 1}", "export the model again")
    return value.reshape([value.size if a == axis % rank else 1 for a in range(rank)])


def _like(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The scale in float64, which holds every float32, with as many axes as the codes."""
    return np.asarray(scale, np.float64).reshape((1,) * (codes.ndim - scale.ndim) + scale.shape)


def _quantized(node: Node, inputs: Sequence[Constant | None], notes: list[str]) -> Constant:
    q = quantizers.quantizer(node, inputs)
    if inputs[0] is None:
        raise UnsupportedError(node.where, "what it quantizes is left out", "export the model again")
    x = inputs[0].value
    try:
        found = quantizers.codes(node.where, x, q, "values", notes)
    except ValueError:
        raise UnsupportedError(
            node.where, f"its scale or zero point does not broadcast to {list(x.shape)}", "export the model again"
        ) from None
    scale = q.scale if q.out_scale is None else q.out_scale
    codes = found - (q.zero_point if q.out_zero_point is None else q.out_zero_point)
    with np.errstate(over="ignore"):
        value = np.asarray(codes.astype(np.result_type(x, scale)) * scale).astype(np.float32)
    codes = np.broadcast_to(codes, value.shape).copy()
    return Constant(value, codes, _like(codes, scale), q.bits)


def type_range(where: str, value: np.ndarray, bits: int | None) -> tuple[int, int]:
    """Smallest and largest integer of a stored integer type."""
    if value.dtype.kind not in "iu":
        raise UnsupportedError(where, f"its zero point holds {value.dtype} values, must be integers", "export it again")
    return quantizers.integer_range(bits or 8 * value.dtype.itemsize, value.dtype.kind == "i", False)


def _quantize_linear(node: Node, inputs: Sequence[Constant | None], notes: list[str]) -> Constant:
    """Rounds half to even before the zero point is added, then clamps."""
    where, attributes = node.where, node.attributes
    x, given_scale, given_zero = (*inputs, None)[:3]
    assert x is not None
    if given_scale is None:
        raise UnsupportedError(where, "its scale is left out", "export the model again")
    zero = given_zero or Constant(np.zeros((), np.uint8))
    axis = int(attributes.get("axis", 1))
    lo, hi = type_range(where, zero.value, zero.bits)
    scale = per_axis(where, "scale", quantizers.positive_scale(where, "scale", given_scale.value), axis, x.value.ndim)
    offset = per_axis(where, "zero point", zero.value.astype(np.int64), axis, x.value.ndim)
    q = quantizers.Quantizer(0, 0, 0, "ROUND", scale, np.zeros((), np.int64), clamps=False)
    codes = np.clip(quantizers.codes(where, x.value, q, "values", notes) + offset, lo, hi)
    codes = np.clip(codes, attributes.get("lo", lo), attributes.get("hi", hi))
    return Constant(codes.astype(zero.value.dtype), codes, np.ones((1,) * codes.ndim), zero.bits)


def dequantized(node: Node, inputs: Sequence[Constant | None]) -> Constant:
    """(x - zero point) * scale of integers."""
    where = node.where
    x, given_scale, zero = (*inputs, None)[:3]
    if x is None or given_scale is None or x.value.dtype.kind not in "iu":
        raise UnsupportedError(where, "must read stored integers and a constant scale", "export the model again")
    rank, axis = x.value.ndim, int(node.attributes.get("axis", 1))
    scale = per_axis(where, "scale", quantizers.positive_scale(where, "scale", given_scale.value), axis, rank)
    codes = x.value.astype(np.int64)
    if zero is not None and zero.value.dtype.kind not in "iu":
        raise UnsupportedError(
            where, f"its zero point holds {zero.value.dtype} values, must be integers", "export it again"
        )
    try:
        if zero is not None:
            codes = codes - per_axis(where, "zero point", zero.value.astype(np.int64), axis, rank)
        value = (codes.astype(np.float32) * scale).astype(np.float32)
    except ValueError:
        raise UnsupportedError(
            where, f"its scale or zero point does not broadcast to {list(x.value.shape)}", "export the model again"
        ) from None
    return Constant(value, codes, _like(codes, scale), x.bits or 8 * x.value.dtype.itemsize)


def run(node: Node, values: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """One standard operator, by ONNX's own reference implementation."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.op in RANDOM:
        raise UnsupportedError(node.where, f"{node.op} makes other numbers at every run", "store them in the model")
    names = [f"i{i}" if v is not None else "" for i, v in enumerate(values)]
    fed = {name: v for name, v in zip(names, values, strict=True) if v is not None}
    outputs = [name or f"unused{i}" for i, name in enumerate(node.outputs)]
    try:
        proto = onnx.helper.make_node(node.op, names, outputs)
        for key, value in node.attributes.items():
            stored = onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            proto.attribute.append(onnx.helper.make_attribute(key, stored))
        empty = [onnx.helper.make_empty_tensor_value_info(name) for name in fed]
        results = [onnx.helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = onnx.helper.make_graph([proto], "constant", empty, results)
        # the reference's BatchNormalization of opsets 9 to 13 takes the statistics of the batch instead of the stored ones
        opset = max(15, node.opset) if node.op == "BatchNormalization" else node.opset
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        with np.errstate(all="ignore"):
            made = [np.asarray(v) for v in ReferenceEvaluator(model).run(None, fed)]
    except Exception as e:  # whatever numpy or the reference implementation says about numbers that do not fit
        raise UnsupportedError(
            node.where, f"cannot be computed from its constants: {first_line(e)}", "fold it before saving the model"
        ) from None
    wide = any(v is not None and v.dtype == np.float64 for v in values) or node.op in CONVERTING
    return [v.astype(np.float32) if v.dtype == np.float64 and not wide else v for v in made]


def first_line(error: BaseException) -> str:
    """What a library's exception says, short enough for one line."""
    return re.sub(r"\s+", " ", str(error)).strip()[:160] or type(error).__name__
