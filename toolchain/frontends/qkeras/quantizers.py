"""QKeras quantizers as frozen dataclasses, parsed from strings and configs.

Its one rule: a string is parsed by grammar, never evaluated, and every parameter is either modelled exactly or refused
by name with the layer and what to do.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from toolchain.errors import UnsupportedError, nearest

Alpha = float | str | tuple[float, ...] | None


@dataclass(frozen=True)
class QuantizedBits:
    bits: int = 8
    integer: int = 0
    symmetric: bool = False
    keep_negative: bool = True
    alpha: Alpha = None
    scale_axis: int | None = None
    post_training_scale: tuple[float, ...] | None = None
    elements_per_scale: int | None = None
    min_po2_exponent: int | None = None
    max_po2_exponent: int | None = None
    refit: bool = False
    """qkeras-v3 (and upstream after 0.9.0) takes the codes with the last auto_po2 scale, 0.9.0 with the one before."""


@dataclass(frozen=True)
class QuantizedLinear:
    bits: int = 8
    integer: int = 0
    symmetric: bool = True
    keep_negative: bool = True
    alpha: Alpha = None
    scale_axis: int | None = None


@dataclass(frozen=True)
class Binary:
    use_01: bool = False
    alpha: Alpha = None
    scale_axis: int | None = None


@dataclass(frozen=True)
class Ternary:
    alpha: Alpha = None
    threshold: float | None = None
    number_of_unrolls: int = 5


@dataclass(frozen=True)
class QuantizedRelu:
    bits: int = 8
    integer: int = 0
    use_sigmoid: bool = False
    negative_slope: float = 0.0
    relu_upper_bound: float | None = None
    is_quantized_clip: bool = True


@dataclass(frozen=True)
class QuantizedPo2:
    bits: int = 8
    max_value: float | None = None
    quadratic_approximation: bool = False
    log2_rounding: str = "rnd"


@dataclass(frozen=True)
class QuantizedReluPo2:
    bits: int = 8
    max_value: float | None = None
    negative_slope: float = 0.0
    quadratic_approximation: bool = False
    log2_rounding: str = "rnd"


@dataclass(frozen=True)
class QuantizedTanh:
    bits: int = 8
    symmetric: bool = False
    use_real_tanh: bool = False


@dataclass(frozen=True)
class QuantizedSigmoid:
    bits: int = 8
    symmetric: bool = False
    use_real_sigmoid: bool = False


@dataclass(frozen=True)
class QuantizedUlaw:
    bits: int = 8
    integer: int = 0
    symmetric: bool = False
    u: float = 255.0


@dataclass(frozen=True)
class QuantizedHswish:
    bits: int = 8
    integer: int = 0
    symmetric: bool = False
    alpha: Alpha = None
    relu_shift: int = 3
    relu_upper_bound: int = 6


@dataclass(frozen=True)
class Function:
    """A function without parameters: hard_sigmoid, hard_tanh, smooth_*, binary_*, or one of Keras' own."""

    name: str


Quantizer = (
    QuantizedBits | QuantizedLinear | Binary | Ternary | QuantizedRelu | QuantizedPo2 | QuantizedReluPo2 | QuantizedTanh | QuantizedSigmoid
    | QuantizedUlaw | QuantizedHswish | Function
)  # fmt: skip

_PO2_TAIL = ("log2_rounding", "qnoise_factor", "var_name", "use_ste", "use_variables")
# name -> (class, parameters in QKeras' positional order); what the class does not hold is checked and dropped
_KNOWN: dict[str, tuple[type, tuple[str, ...]]] = {
    "quantized_bits": (QuantizedBits, (
        "bits", "integer", "symmetric", "keep_negative", "alpha", "use_stochastic_rounding", "scale_axis", "qnoise_factor", "var_name",
        "use_ste", "use_variables", "elements_per_scale", "min_po2_exponent", "max_po2_exponent", "post_training_scale")),
    "quantized_linear": (QuantizedLinear, (
        "bits", "integer", "symmetric", "keep_negative", "alpha", "use_stochastic_rounding", "scale_axis", "qnoise_factor", "var_name",
        "use_variables")),
    "binary": (Binary, ("use_01", "alpha", "use_stochastic_rounding", "scale_axis", "elements_per_scale", "min_po2_exponent", "max_po2_exponent")),
    "stochastic_binary": (Binary, ("alpha", "temperature", "use_real_sigmoid")),
    "ternary": (Ternary, ("alpha", "threshold", "use_stochastic_rounding", "number_of_unrolls")),
    "stochastic_ternary": (Ternary, ("alpha", "threshold", "temperature", "use_real_sigmoid", "number_of_unrolls")),
    "quantized_relu": (QuantizedRelu, (
        "bits", "integer", "use_sigmoid", "negative_slope", "use_stochastic_rounding", "relu_upper_bound", "is_quantized_clip", "qnoise_factor",
        "var_name", "use_ste", "use_variables")),
    "quantized_po2": (QuantizedPo2, ("bits", "max_value", "use_stochastic_rounding", "quadratic_approximation", *_PO2_TAIL)),
    "quantized_relu_po2": (QuantizedReluPo2, (
        "bits", "max_value", "negative_slope", "use_stochastic_rounding", "quadratic_approximation", *_PO2_TAIL)),
    "quantized_tanh": (QuantizedTanh, ("bits", "use_stochastic_rounding", "symmetric", "use_real_tanh")),
    "quantized_sigmoid": (QuantizedSigmoid, ("bits", "symmetric", "use_real_sigmoid", "use_stochastic_rounding")),
    "quantized_ulaw": (QuantizedUlaw, ("bits", "integer", "symmetric", "u")),
    "quantized_hswish": (QuantizedHswish, (
        "bits", "integer", "symmetric", "alpha", "use_stochastic_rounding", "scale_axis", "qnoise_factor", "var_name", "use_ste",
        "use_variables", "relu_shift", "relu_upper_bound", "keep_negative", "post_training_scale")),
}  # fmt: skip
FUNCTIONS = ("hard_sigmoid", "hard_tanh", "smooth_sigmoid", "smooth_tanh", "binary_sigmoid", "binary_tanh")
KERAS_FUNCTIONS = ("linear", "relu", "relu6", "leaky_relu", "softmax", "sigmoid", "tanh")


def parse(value: Any, layer: str, refit: bool | None = None) -> Quantizer | None:
    """Any form a config holds: None, a string, {class_name, config} of Keras 2 or 3, or a passive serialization.

    `refit` says what a quantized_bits string means (see QuantizedBits.refit); a config tells it by itself.
    """
    if value is None:
        return None
    if isinstance(value, str):
        name, args, kwargs = _parse_string(value, layer)
        return _make(name, args, kwargs, layer, bool(refit))
    if isinstance(value, Mapping) and "class_name" in value:
        config = value.get("config")
        name = str(value["class_name"])
        if name == "function" and isinstance(config, str):
            return _make(config, [], {}, layer, bool(refit))
        if name.split(">")[-1] == "__passive_serialization__" or not isinstance(config, Mapping):
            raise UnsupportedError(
                f"layer {layer}", f"a quantizer written as {value!r}", "give it as a string or as a QKeras object"
            )
        told = "post_training_scale" in config  # written only by quantizers that refit
        return _make(name.split(">")[-1], [], {k: _plain(v) for k, v in config.items()}, layer, told or bool(refit))
    raise UnsupportedError(
        f"layer {layer}", f"a quantizer written as {value!r}", "give it as a string or as a QKeras object"
    )


def _plain(value: Any) -> Any:
    """Keras 3 writes an array as {"class_name": "__numpy__" or "__tensor__", "config": {"value": [...]}}."""
    if isinstance(value, Mapping) and isinstance(value.get("config"), Mapping) and "value" in value["config"]:
        return value["config"]["value"]
    return value


def _parse_string(text: str, layer: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`name` or `name(literal, ..., key=literal, ...)`; anything else is refused."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        node = None
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        try:
            args = [ast.literal_eval(a) for a in node.args]
            kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg is not None}
            if len(kwargs) == len(node.keywords):
                return node.func.id, args, kwargs
        except ValueError:
            pass
    raise UnsupportedError(
        f"layer {layer}", f"quantizer {text!r} is not name(value, ..., key=value, ...)", "write it as QKeras prints it"
    )


def _make(name: str, args: list[Any], kwargs: dict[str, Any], layer: str, refit: bool) -> Quantizer:
    where = f"layer {layer}"
    if name in FUNCTIONS or name in KERAS_FUNCTIONS:
        if args or kwargs:
            raise UnsupportedError(where, f"{name} takes no parameters here", f"write {name!r}")
        return Function(name)
    if name == "bernoulli":
        raise UnsupportedError(
            where, "bernoulli draws random numbers at inference", "use binary(use_01=1) or stochastic_binary()"
        )
    if name not in _KNOWN:
        known = [*_KNOWN, *FUNCTIONS, *KERAS_FUNCTIONS]
        raise UnsupportedError(
            where, f"quantizer {name!r} is not known", nearest(name, known) or "known: " + ", ".join(known)
        )
    cls, order = _KNOWN[name]
    if len(args) > len(order):
        raise UnsupportedError(
            where, f"{name} takes {len(order)} parameters, not {len(args)}", "see " + ", ".join(order)
        )
    given = dict(zip(order, args, strict=False))
    for key, value in kwargs.items():
        if key not in order:
            raise UnsupportedError(
                where, f"{name} has no parameter {key!r}", nearest(key, order) or "known: " + ", ".join(order)
            )
        if key in given:
            raise UnsupportedError(where, f"{name} is given {key!r} twice", "give it once")
        given[key] = value
    if name.startswith("stochastic_"):
        given = {k: v for k, v in given.items() if k not in ("temperature", "use_real_sigmoid")}
    _check_hidden(where, name, given)
    held = {f.name: f.type for f in fields(cls)}
    if cls is QuantizedBits:
        given["refit"] = refit
    values = {k: _convert(where, name, k, v) for k, v in given.items() if k in held}
    quantizer: Quantizer = cls(**values)
    check(quantizer, layer, name)
    return quantizer


def _check_hidden(where: str, name: str, given: Mapping[str, Any]) -> None:
    noise = given.get("qnoise_factor")
    if noise is not None and float(noise) != 1.0:
        raise UnsupportedError(
            where,
            f"{name} with qnoise_factor {given['qnoise_factor']} mixes in unquantized values",
            "train on until it is 1.0, or set it and save again",
        )
    if name == "binary" and given.get("use_stochastic_rounding"):
        raise UnsupportedError(
            where, "binary with use_stochastic_rounding fails at inference in QKeras itself", "use stochastic_binary()"
        )
    for key in ("elements_per_scale", "min_po2_exponent", "max_po2_exponent"):
        if name == "binary" and given.get(key) is not None:
            raise UnsupportedError(where, f"binary with {key} is not supported", "leave it out")


_INT = {
    "bits",
    "integer",
    "number_of_unrolls",
    "relu_shift",
    "scale_axis",
    "elements_per_scale",
    "min_po2_exponent",
    "max_po2_exponent",
}
_BOOL = {"symmetric", "keep_negative", "use_01", "use_sigmoid", "is_quantized_clip", "quadratic_approximation", "use_real_tanh", "use_real_sigmoid", "refit"}  # fmt: skip


def _convert(where: str, name: str, key: str, value: Any) -> Any:
    wrong = UnsupportedError(where, f"{name} with {key}={value!r}", f"give {key} a value QKeras accepts")
    if key in _BOOL:
        if value not in (0, 1):
            raise wrong
        return bool(value)
    if key == "log2_rounding":
        if value not in ("rnd", "floor"):
            raise wrong
        return value
    if value is None:
        return None
    if key in ("alpha", "post_training_scale"):
        if isinstance(value, str):
            if key == "alpha" and value in ("auto", "auto_po2"):
                return value
            raise UnsupportedError(
                where, f"{name} with {key}={value!r}", "alpha is None, a number, 'auto', 'auto_po2' or an array"
            )
        if isinstance(value, (list, tuple)):
            flat = tuple(float(v) for v in _flatten(value))
            return flat if len(flat) > 1 or key == "post_training_scale" else flat[0]
        return (float(value),) if key == "post_training_scale" else float(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        if key == "scale_axis" and isinstance(value, list) and len(value) == 1:
            return int(value[0])
        raise wrong
    if key in _INT:
        if value != int(value):
            raise wrong
        return int(value)
    return float(value)


def _flatten(value: Any) -> list[Any]:
    return [x for v in value for x in _flatten(v)] if isinstance(value, (list, tuple)) else [value]


def check(q: Quantizer, layer: str, name: str) -> None:
    """Refuse what QKeras itself cannot compute, or computes off any integer grid."""
    where = f"layer {layer}"
    bits = getattr(q, "bits", None)
    if bits is not None and not 1 <= bits <= 31:
        raise UnsupportedError(where, f"{name} with {bits} bits", "1 to 31 bits are supported")
    alpha = getattr(q, "alpha", None)
    if isinstance(alpha, (int, float, tuple)) and min(alpha if isinstance(alpha, tuple) else (alpha,)) <= 0:
        raise UnsupportedError(where, f"{name} with alpha {alpha}", "alpha must be above 0")
    if isinstance(q, (QuantizedBits, QuantizedRelu, QuantizedHswish, QuantizedUlaw)) and q.integer < 0:
        raise UnsupportedError(
            where, f"{name} with negative integer {q.integer} fails in QKeras itself", "use alpha to scale below 1"
        )
    if (
        isinstance(q, (QuantizedBits, QuantizedLinear, Binary))
        and q.scale_axis is not None
        and isinstance(q.alpha, tuple)
    ):
        raise UnsupportedError(where, f"{name} with an alpha array and scale_axis", "leave scale_axis out")
    if isinstance(q, QuantizedBits) and q.elements_per_scale is not None:
        raise UnsupportedError(
            where, f"{name} with elements_per_scale={q.elements_per_scale}", "use one scale per output channel"
        )
    slope = q.negative_slope if isinstance(q, (QuantizedRelu, QuantizedReluPo2)) else 0.0
    if slope and (slope < 0 or math.frexp(slope)[0] != 0.5):
        raise UnsupportedError(where, f"{name} with negative_slope {slope}", "it must be 0 or a power of two")
    if isinstance(q, QuantizedRelu):
        n = q.bits - (q.negative_slope != 0)
        if n < 1 or (q.negative_slope and q.negative_slope * 2**n < 1):
            raise UnsupportedError(
                where,
                f"{name} with {q.bits} bits and negative_slope {q.negative_slope} has half steps below zero",
                "use more bits or a larger slope",
            )
        if not q.is_quantized_clip and q.relu_upper_bound is not None:
            cap = q.relu_upper_bound * 2.0 ** (n - q.integer)
            if (cap != int(cap) and cap < 2**n - 1) or cap < 0:
                raise UnsupportedError(
                    where,
                    f"{name} with relu_upper_bound {q.relu_upper_bound} off the grid of {2.0 ** (q.integer - n)}",
                    "choose a bound that is a multiple of the step",
                )
    if isinstance(q, (QuantizedPo2, QuantizedReluPo2)) and q.max_value is not None and q.max_value <= 0:
        raise UnsupportedError(where, f"{name} with max_value {q.max_value}", "it must be above 0")
    if isinstance(q, QuantizedHswish) and (q.relu_shift <= 0 or q.relu_upper_bound <= 0):
        raise UnsupportedError(
            where,
            f"{name} with relu_shift {q.relu_shift}, relu_upper_bound {q.relu_upper_bound}",
            "both must be above 0",
        )


def as_kernel(q: Quantizer | None, layer: str) -> Quantizer | None:
    """What QKeras silently makes of a kernel quantizer: alpha None becomes auto_po2 (and symmetric)."""
    if isinstance(q, (QuantizedBits, QuantizedLinear)) and q.alpha is None:
        q = replace(q, alpha="auto_po2", symmetric=True)
    if isinstance(q, (Binary, Ternary)) and q.alpha is None:
        q = replace(q, alpha="auto_po2")
    if isinstance(q, QuantizedBits) and isinstance(q.alpha, str):
        q = replace(q, symmetric=True)
        if q.bits == 1:
            raise UnsupportedError(
                f"layer {layer}",
                f"quantized_bits with 1 bit and alpha {q.alpha!r} makes every weight 0 or NaN in QKeras",
                "use binary(), or alpha=1",
            )
    if isinstance(q, Ternary) and isinstance(q.alpha, str) and q.threshold is not None:
        raise UnsupportedError(
            f"layer {layer}",
            f"ternary with alpha {q.alpha!r} and a threshold fails in QKeras",
            "leave the threshold out",
        )
    return q


def as_activation(q: Quantizer | None, layer: str) -> Quantizer | None:
    """An activation quantizer is used as it is, but its scale may not depend on the batch."""
    alpha = getattr(q, "alpha", None)
    if isinstance(alpha, str):
        raise UnsupportedError(
            f"layer {layer}",
            f"alpha {alpha!r} on an activation makes the result depend on the other rows of the batch",
            "give alpha as a number",
        )
    return q
