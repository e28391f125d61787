"""The model's inputs: their integers, as the first quantizer or the user's options say them, and their layout; and names.

Its one rule: an input's integers are those that the file states; where it states none, the error says which option does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Input, Model, Node
from toolchain.frontends.qonnx.layouts import Data, channels_last, fractions
from toolchain.frontends.qonnx.quantizers import BIPOLAR
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.graph import channels_first_note
from toolchain.ir.types import QType, bits_for
from toolchain.ir.values import Value
from toolchain.options import TRY_INPUT, LoadOptions, declared_input

QUANTIZERS = {"Quant", "BipolarQuant", "QuantizeLinear"}
EXPORTERS = {"export_handler", "act_quant", "input_quant", "output_quant"}  # Brevitas' parts of a name that say nothing
SAME = {"Identity", "Dropout"}
SHAPES_ONLY = {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", *SAME}
CHANNELS_FIRST = {
    "Conv",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "BatchNormalization",
    "Upsample",
    "Resize",
}


def clean(name: str, other: str) -> str:
    """The file's name without what exporters add, or the other (a node's) where it is a number: /0/act_quant/Quant_output_0 is Quant_0."""
    parts = [p for p in name.removesuffix("_output_0").split("/") if p and p not in EXPORTERS]
    if len(parts) > 1 and parts[0][0].isdigit():
        parts = [parts[-1], *parts[:-1]]
    found = "_".join(parts)
    return clean(other, f"tensor{other}") if found.isdigit() and other != name else found or "tensor"


def input_of(
    b: GraphBuilder, model: Model, given: Input, readers: Mapping[str, list[Node]], options: LoadOptions
) -> Data:
    shape = given.shape[1:]
    where = f"input {given.name}"
    if not shape:
        raise UnsupportedError(where, f"shape {list(given.shape)}", "give it an axis besides the batch")
    first = len(shape) == 3 or (len(shape) == 2 and _reads_channels_first(readers, given.name))
    axes = channels_last(len(shape)) if first else tuple(range(len(shape)))
    ours = tuple(shape[a] for a in axes)
    name = clean(given.name, "input")
    real = given.dtype in ("float32", "float64")
    if options.input_type is not None and not any(i.dtype in ("float32", "float64") for i in model.inputs):
        raise ToolchainError(
            "--input-type", f"is given, but {where} holds {given.dtype} integers already", "leave it out"
        )
    if options.input_type is not None and real:
        value = declared_input(b, name, ours, options)
    elif real:
        qtype, modes = _type_of_input(model, given, readers)
        value = Value(b.input(name, ours, qtype))
        if modes != {"ROUND"}:
            b.notes.append(
                f"input {value.tensor.name}: the model's quantizer rounds it by {' and '.join(sorted(modes))}, real samples are "
                f"rounded half to even here; give stored integers where that matters"
            )
    else:
        value = _integer_input(b, model, given, readers, name, ours)
    d = Data(value, shape, axes, shape)
    if first and not (d.natural and ours == shape):
        b.notes.append(channels_first_note(value.tensor.name))
    return d


def _reads_channels_first(readers: Mapping[str, list[Node]], name: str) -> bool:
    """Whether what first depends on the axes' order takes them as [channels, length]."""
    for node in readers.get(name, ()):
        if node.op in CHANNELS_FIRST:
            return True
        if node.op not in ("MatMul", "Gemm", "Transpose", "Flatten", "Reshape") and _reads_channels_first(
            readers, node.outputs[0]
        ):
            return True
    return False


def _first_quantizers(model: Model, readers: Mapping[str, list[Node]], name: str, slope: Fraction, intercept: Fraction) -> Iterator[tuple[Node, Fraction, Fraction] | None]:  # fmt: skip
    """What first makes integers of this input, and of which function of it; None where something else reads it."""
    for node in readers.get(name, ()):
        constant = next((model.constants[n] for n in node.inputs if n in model.constants), None)
        if node.op in SHAPES_ONLY or node.op == "Cast":
            yield from _first_quantizers(model, readers, node.outputs[0], slope, intercept)
        elif (
            node.op in ("Add", "Sub", "Mul", "Div")
            and constant is not None
            and constant.value.size == 1
            and node.inputs[0] == name
        ):
            k = Fraction(float(constant.value.ravel()[0]))
            if not k or not np.isfinite(constant.value).all():
                yield None
                continue
            after = {"Add": (slope, intercept + k), "Sub": (slope, intercept - k), "Mul": (slope * k, intercept * k), "Div": (slope / k, intercept / k)}  # fmt: skip
            yield from _first_quantizers(model, readers, node.outputs[0], *after[node.op])
        elif node.op in QUANTIZERS and node.inputs[0] == name:
            yield node, slope, intercept
        else:
            yield None
    if name in model.outputs:
        yield None


def _type_of_input(model: Model, given: Input, readers: Mapping[str, list[Node]]) -> tuple[QType, set[str]]:
    """The integers that the first quantizers make of this input, and how they round."""
    where = f"input {given.name}"
    found = list(_first_quantizers(model, readers, given.name, Fraction(1), Fraction(0)))
    if not found:
        raise ToolchainError(where, "nothing reads it", "export the model without it")
    if None in found:
        raise ToolchainError(where, "no quantizer reads it first, so the model does not say its integers", TRY_INPUT)
    types, modes = set(), set()
    for entry in found:
        assert entry is not None
        node, slope, intercept = entry
        q = quant.of_node(node, [model.constants.get(n) for n in node.inputs], len(given.shape))
        scales, zeros = fractions(q.scale), fractions(q.zero_point)
        why = "has one bit" if q.rounding == BIPOLAR else "has a scale for each channel" if len(scales) > 1 else ""
        why = why or (
            "has several zero points" if len(zeros) > 1 else "reads a falling function of it" if slope <= 0 else ""
        )
        if why:
            raise ToolchainError(where, f"its quantizer {why}, so the model does not say its integers", TRY_INPUT)
        zero = zeros[0] + intercept / scales[0]
        bits, signed = bits_for(q.lo, q.hi)
        if zero.denominator != 1 or not q.lo <= zero <= q.hi:
            raise ToolchainError(
                where, f"its quantizer's zero point would be {float(zero):g}, none of its integers", TRY_INPUT
            )
        types.add(QType(bits, signed, scales[0] / slope, None, int(zero)))
        modes.add(q.rounding)
    if len(types) > 1:
        raise ToolchainError(where, "several quantizers read it, so the model does not say its integers", TRY_INPUT)
    return types.pop(), modes


def _integer_input(b: GraphBuilder, model: Model, given: Input, readers: Mapping[str, list[Node]], name: str, ours: tuple[int, ...]) -> Value:  # fmt: skip
    """An input of integers, which the model reads as they are; where it dequantizes them, the type says what they are worth."""
    digits = given.dtype.lstrip("uint")
    if not digits.isdigit() or not given.dtype.startswith(("int", "uint")) or int(digits) > 32:
        raise UnsupportedError(
            f"input {given.name}", f"of {given.dtype}", "float32 and integers of 4 to 32 bits are supported"
        )
    bits, signed = int(digits), given.dtype.startswith("int")
    worth = {_worth(model, node) for node in readers.get(given.name, ())}
    pair = worth.pop() if len(worth) == 1 else None
    if pair is None:
        return Value(b.input(name, ours, QType(bits, signed)))
    scale_of, zero_of = pair
    return Value(
        b.input(name, ours, QType(bits, signed, scale_of, None, zero_of)), (1 / scale_of,), (Fraction(zero_of),)
    )


def _worth(model: Model, node: Node) -> tuple[Fraction, int] | None:
    """Scale and zero point of a DequantizeLinear that has one of each; what is wrong with them its own lowering says."""
    scale, zero = (model.constants.get(n) for n in (*node.inputs[1:], "", "")[:2])
    if node.op != "DequantizeLinear" or scale is None or scale.value.size != 1 or (zero and zero.value.size != 1):
        return None
    worth = float(scale.value.ravel()[0])
    return (Fraction(worth), int(zero.value.ravel()[0]) if zero else 0) if 0 < worth < np.inf else None
