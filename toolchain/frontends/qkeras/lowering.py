"""From the neutral model to the integer graph: the input edge, the walk over the layers, the outputs.

Its one rule: every tensor of the graph has an exact real meaning that the file (and the user's options) state; where
they do not, the error says which option states it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.qkeras import activations, params, quantizers
from toolchain.frontends.qkeras.archive import Layer, Model, Ref
from toolchain.frontends.qkeras.layers import Context, lower
from toolchain.ir import Graph
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.ir.staircase import Uniform
from toolchain.ir.types import QType, Tensor
from toolchain.ir.values import Value, exact
from toolchain.options import LoadOptions, declared_input

SHAPES_ONLY = (
    "Reshape",
    "Flatten",
    "Permute",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "UpSampling1D",
    "UpSampling2D",
    "Dropout",
    "Identity",
)
TRY_INPUT = "start the model with a QActivation, or say it: --input-type u8 --input-scale 1/255 --input-zero-point 0 (and --input-mean, --input-std)"


@dataclass(frozen=True)
class Lowered:
    """The graph, and which Value each tensor of the model became (for verify)."""

    graph: Graph
    values: Mapping[Ref, Value]
    host: Mapping[str, str]
    before: Mapping[str, Value]


def lower_model(model: Model, options: LoadOptions) -> Lowered:
    b = GraphBuilder(model.name)
    sigmoid = model.sigmoid or options.sigmoid
    context = Context(b, model.keras, sigmoid, model.sigmoid is None)
    consumers = _consumers(model)
    values: dict[Ref, Value] = {}
    for ref in model.inputs:
        layer = model.layer(ref.layer)
        values[ref] = _input(b, model, layer, consumers, options, sigmoid)
    order = _order(model)
    needed = _needed(model)
    for layer, node in order:
        ref = Ref(layer.name, node)
        if ref in values or ref not in needed:
            continue
        if layer.class_name == "InputLayer":
            raise ToolchainError(
                f"layer {layer.name}", "an input layer that is not among the model's inputs", "save the model again"
            )
        inputs = [_value(values, r, layer) for r in layer.calls[node]]
        for r in layer.calls[node]:
            if r.layer in context.host:
                raise UnsupportedError(
                    f"layer {r.layer}",
                    f"{context.host[r.layer]} before layer {layer.name}",
                    "softmax, sigmoid and tanh can only be the model's last",
                )
        values[ref] = lower(context, layer, inputs, layer.name.replace("/", "_"))
    for ref in model.outputs:
        b.output(_output(b, _value(values, ref, model.layer(ref.layer)), ref, context))
    return Lowered(b.graph(), values, context.host, context.before)


def _value(values: Mapping[Ref, Value], r: Ref, layer: Layer) -> Value:
    if r not in values:
        raise ToolchainError(
            f"layer {layer.name}",
            f"reads output {r.tensor} of call {r.node} of layer {r.layer}, which does not exist",
            "save the model again",
        )
    return values[r]


def _output(b: GraphBuilder, v: Value, ref: Ref, context: Context) -> Tensor:
    name = ref.layer.replace("/", "_")
    host = context.host.get(ref.layer)
    single = host is not None
    t = exact(b, v, f"{name}_out", f"output {ref.layer}", single=single)
    if single:
        what = "argmax is unchanged" if host == "softmax" else "it is monotone, so argmax is unchanged"
        b.notes.append(f"layer {ref.layer}: {host} is left to the host; output %{t.name} holds what it reads ({what})")
    if t in b.outputs or t in b.inputs:  # an output is a tensor of its own
        t = b.requantize(t, t.qtype, [1], [0], [0], Rounding.FLOOR, f"{name}_copy")
    return t


# --- order -----------------------------------------------------------------------------------------------------------


def _consumers(model: Model) -> dict[Ref, list[tuple[Layer, int]]]:
    found: dict[Ref, list[tuple[Layer, int]]] = {}
    for layer in model.layers:
        for node, call in enumerate(layer.calls):
            for r in call:
                found.setdefault(r, []).append((layer, node))
    return found


def _needed(model: Model) -> set[Ref]:
    """Calls that an output depends on: a layer shared with another model has calls that are none of ours."""
    layers = {layer.name: layer for layer in model.layers}
    todo, found = [Ref(r.layer, r.node) for r in model.outputs], set()
    while todo:
        r = todo.pop()
        if r in found or r.layer not in layers:
            continue
        found.add(r)
        calls = layers[r.layer].calls
        todo += [Ref(x.layer, x.node) for x in (calls[r.node] if r.node < len(calls) else ())]
    return found


def _order(model: Model) -> list[tuple[Layer, int]]:
    """Calls so that each comes after what it reads; within that, in the file's order."""
    pending = [(layer, node) for layer in model.layers for node in range(max(len(layer.calls), 1))]
    done: set[Ref] = {Ref(r.layer, r.node) for r in model.inputs}
    order: list[tuple[Layer, int]] = []
    while pending:
        ready = [
            p for p in pending if all(Ref(r.layer, r.node) in done for r in (p[0].calls[p[1]] if p[0].calls else ()))
        ]
        if not ready:
            break  # what is left hangs on tensors of another model: not needed, or refused when read
        for layer, node in ready:
            done.add(Ref(layer.name, node))
        order += ready
        pending = [p for p in pending if p not in ready]
    return order


# --- the input edge --------------------------------------------------------------------------------------------------


def _input(
    b: GraphBuilder,
    model: Model,
    layer: Layer,
    consumers: Mapping[Ref, list[tuple[Layer, int]]],
    options: LoadOptions,
    sigmoid: str,
) -> Value:
    shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or layer.config.get("shape")
    where = f"input {layer.name}"
    if isinstance(shape, list) and shape and isinstance(shape[0], list):
        shape = shape[0]
    dims = list(shape or [])[1:]
    if not dims or any(d is None for d in dims):
        raise UnsupportedError(where, f"shape {dims}: it must be fixed", "give Input a shape without None")
    size = tuple(int(d) for d in dims)
    if options.input_type is not None:
        return declared_input(b, layer.name, size, options)
    found = list(_first_quantizers(model, Ref(layer.name), consumers))
    if not found or any(q is None for q in found):
        raise ToolchainError(where, "no quantizer reads it first, so the model does not say its integers", TRY_INPUT)
    kinds = set(found)
    parts = [
        activations.parts(q, where, sigmoid)[0]
        for q in kinds
        if q is not None and not isinstance(q, quantizers.QuantizedHswish)
    ]
    first = parts[0] if parts else None
    if len(kinds) > 1 or not isinstance(first, Uniform) or any(first.intercept):
        what = "several quantizers read it" if len(kinds) > 1 else "its quantizer is no plain rounding"
        raise ToolchainError(where, f"{what}, so the model does not say its integers", TRY_INPUT)
    q = next(iter(kinds))
    signed = first.signed or (isinstance(q, quantizers.QuantizedRelu) and bool(q.negative_slope))
    if isinstance(q, quantizers.QuantizedRelu) and q.negative_slope:
        raise ToolchainError(
            where, "its quantizer is no plain rounding, so the model does not say its integers", TRY_INPUT
        )
    return Value(b.input(layer.name, size, QType(first.bits, signed, 1 / first.slope[0])))


def _first_quantizers(
    model: Model, ref: Ref, consumers: Mapping[Ref, list[tuple[Layer, int]]]
) -> list[quantizers.Quantizer | None]:
    """What first makes integers of this input, through layers that only move values; None where something else reads it."""
    found: list[quantizers.Quantizer | None] = []
    for layer, node in consumers.get(ref, []):
        if layer.class_name in SHAPES_ONLY:
            found += _first_quantizers(model, Ref(layer.name, node), consumers)
        elif layer.class_name == "QActivation":
            q = quantizers.as_activation(params.quantizer(layer, "activation"), layer.name)
            found.append(None if isinstance(q, quantizers.Function) else q)
        else:
            found.append(None)
    return found
