"""What a module must be for its exported file to mean what it computes; all else is refused with its path.

Its one rule: a quantizer is judged by the objects that compute it, never by the name of the class it was made from.
"""

from __future__ import annotations

from typing import Any

from toolchain.errors import UnsupportedError

MODES = {
    "ROUND": "ROUND",
    "CEIL": "CEIL",
    "FLOOR": "FLOOR",
    "ROUND_TO_ZERO": "DOWN",  # Brevitas' word; QONNX calls it DOWN, and qonnx cannot run the other
    "STOCHASTIC_ROUND": "ROUND",  # at inference; where it is not, it is refused below
}
"""Brevitas' rounding to QONNX's rounding_mode. DPU (half even above zero, half up below) has none."""


def tensor_quant(proxy: Any) -> Any:
    """The object that computes the quantizer."""
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    return fused.tensor_quant if fused is not None else getattr(proxy, "tensor_quant", None)


def is_binary(proxy: Any) -> bool:
    """Whether it computes -scale or scale; an integer quantizer of 1 bit does not."""
    return type(tensor_quant(proxy)).__name__ in ("BinaryQuant", "ClampedBinaryQuant")


def is_ternary(proxy: Any) -> bool:
    return type(tensor_quant(proxy)).__name__ == "TernaryQuant"


def check(path: str, proxy: Any) -> None:
    """Raise UnsupportedError for a quantizer that QONNX cannot say, or that has no constant scale yet."""
    where, name = f"module {path}", type(proxy).__name__
    if "FloatQuant" in name:
        raise UnsupportedError(
            where, "its quantizer makes minifloats (FloatQuant), must make integers", "use an Int or Uint quantizer"
        )
    if name.startswith("Groupwise") or getattr(proxy, "is_groupwise", False):
        raise UnsupportedError(
            where, "its quantizer has a scale for each group (MX), must have one for each tensor or channel"
        )
    if name.startswith("Dynamic"):
        raise UnsupportedError(
            where, "its scale depends on the data of each call, must be constant", "use a statistics or learned scale"
        )
    for part in proxy.modules():
        _state(where, part)
    if name.startswith("Clamp"):
        raise UnsupportedError(where, "the accumulator clamp has no QONNX operator", "leave it out")


def _state(where: str, part: Any) -> None:
    kind = type(part).__name__
    if kind in ("ParameterFromRuntimeStatsScaling", "ParameterFromRuntimeZeroPoint") and part.counter == 0:
        what = "zero point" if kind.endswith("ZeroPoint") else "scale"
        raise UnsupportedError(
            where, f"its {what} is not known, since it has seen no data", "train or calibrate the model first"
        )
    if kind == "_RuntimeStats" and part.counter == 0 and bool((part.running_stats == 1).all()):
        raise UnsupportedError(
            where, "its scale is not known, since it has seen no data", "train or calibrate the model first"
        )
    if kind == "_DelayQuant" and part.quant_delay_steps > 0:
        raise UnsupportedError(
            where,
            "its quantizer is still off, until quant_delay_steps have passed",
            "train on, or build the model without quant_delay_steps",
        )
    if kind == "StochasticRoundSte" and not part.deterministic_inference:
        raise UnsupportedError(
            where, "rounds at random at inference, must round the same way each time", "set deterministic_inference"
        )


def activation(path: str, proxy: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the exported Quant of an activation, so that it means what the quantizer computes."""
    found = dict(kwargs)
    where = f"module {path}"
    integer_zero_point(where, found["zero_point"])
    if is_ternary(proxy):
        if tensor_quant(proxy).threshold != 0.5:
            raise UnsupportedError(
                where, f"ternary threshold {tensor_quant(proxy).threshold} has no QONNX operator, must be 0.5"
            )
        # |x| > scale / 2 is where x / scale, half to even, leaves 0; Brevitas exports a range of -2 to 1
        found["narrow_range"], found["rounding_mode"] = True, "ROUND"
    elif is_binary(proxy):
        found["rounding_mode"] = "ROUND"
    else:
        found["rounding_mode"] = rounding(where, found)
        one_bit(where, found)
    return found


def rounding(where: str, kwargs: dict[str, Any]) -> str:
    """QONNX's rounding_mode for Brevitas' (whose Trunc spells it in small letters)."""
    name = str(kwargs["rounding_mode"]).rpartition(".")[2].upper()
    if name not in MODES:
        raise UnsupportedError(where, f"rounding {name} has no QONNX rounding mode; supported: {', '.join(MODES)}")
    return MODES[name]


def one_bit(where: str, kwargs: dict[str, Any]) -> None:
    """QONNX reads a signed Quant of 1 bit as -1 and 1."""
    if float(kwargs["bit_width"]) == 1 and kwargs["signed"]:
        raise UnsupportedError(
            where,
            "a signed integer quantizer of 1 bit gives -1 and 0, which QONNX cannot say",
            "use a binary quantizer (QuantType.BINARY) for -1 and 1, or 2 bits",
        )


def integer_zero_point(where: str, zero_point: Any) -> None:
    if zero_point is not None and bool((zero_point != zero_point.round()).any()):
        raise UnsupportedError(where, "its zero point is no integer, must be one", "use quantize_zero_point=True")
