"""hls4ml's silent failures as refusals: what it cannot do, before; what it made of what it was told, after.

One rule: hls4ml is believed nothing. Each check is of a failure that was seen: layers without a template vanish from the C++,
reuse factors and types are replaced, constants rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain.errors import UnsupportedError

from .layers import Int, Network

if TYPE_CHECKING:
    from toolchain.passes.plan import Hls

COPIES = 7  # of a stream, by hls4ml's Clone
WITHOUT_CODE = ("InputLayer", "Input", "Reshape")  # layers that rightly have no function: a name for what is there


def before(network: Network, hls: Hls) -> None:
    """What hls4ml would answer with a traceback, and what da4ml, which writes distributed arithmetic, rounds: it keeps float32."""
    read = [name for layer in network.layers for name in layer.inputs] + list(network.outputs)
    for layer in network.layers:
        if hls.stream and read.count(layer.name) > COPIES:
            what = f"is read {read.count(layer.name)} times, and hls4ml copies a stream {COPIES} times at most"
            raise UnsupportedError(f"%{layer.op}", what, "use --io parallel")
        weight = layer.attributes.get("weight_data", layer.attributes.get("depthwise_data"))
        if (
            hls.strategy_at(layer.op) == "distributed_arithmetic"
            and weight is not None
            and (weight.astype("float32") != weight).any()
        ):
            what = "has weights beyond 2**24, which da4ml keeps as float32 and would round"
            raise UnsupportedError(f"%{layer.op}", what, "use strategy Latency or Resource")


def after(network: Network, model: Any, hls: Hls) -> None:
    """That every layer is there, with its types, its reuse factor and its code."""
    found = {layer.name: layer for layer in model.get_layers()}
    for layer in network.layers:
        made, at = found.get(layer.name), f"hls4ml, layer {layer.name} (%{layer.op})"
        if made is None:
            raise UnsupportedError(at, "was dropped or replaced by hls4ml", f"use another hls tool than {hls.tool}")
        _type(at, "its result", made.get_output_variable().type.precision, layer.result)
        if not layer.types:
            continue
        wanted, got = hls.reuse_at(layer.op), int(made.get_attr("reuse_factor"))
        if got != wanted:
            raise UnsupportedError(at, f"has reuse_factor {wanted}, which hls4ml replaces by {got}", f"ask for {got}")
        if str(made.get_attr("strategy")) == "distributed_arithmetic":
            continue  # its weights are adders now
        _type(at, "its weight", made.weights["weight"].type.precision, layer.types["weight"])
        _type(at, "its bias", made.weights["bias"].type.precision, layer.types["bias"])
        _type(at, "its accumulator", made.get_attr("accum_t").precision, layer.types["accum"])
    for made in found.values():
        if made.class_name not in WITHOUT_CODE and not made.get_attr("function_cpp"):
            what = f"has no template in hls4ml's {hls.tool} and would be left out of the C++ without a word"
            raise UnsupportedError(f"hls4ml, layer {made.name} ({made.class_name})", what, "use Vitis or Vivado")
    names = [variable.name for layer in found.values() for variable in layer.get_variables()]
    assert len({name.lower() for name in names}) == len(names), names


def _type(at: str, what: str, precision: Any, wanted: Int) -> None:
    got = (precision.width, bool(precision.signed), getattr(precision, "fractional", 0))
    if got != (wanted.bits, wanted.signed, 0):
        raise UnsupportedError(at, f"{what} became {precision} in hls4ml, must be {wanted.hls}", "report this model")
