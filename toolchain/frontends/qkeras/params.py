"""Constants of a layer: kernels as integers with scales, biases and BatchNormalization as exact rationals.

Its one rule: a weight without a quantizer is taken only where it is exactly representable; nothing is rounded here that
QKeras does not round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qkeras import activations, quantizers, weights
from toolchain.frontends.qkeras.archive import Layer
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.types import Const
from toolchain.ir.values import gcd, shorten

F32 = np.float32
MAX_FLOAT_WEIGHT_BITS = 16


@dataclass(frozen=True)
class Kernel:
    """codes * scale[c]; the channel is the last axis of codes."""

    codes: np.ndarray
    scale: tuple[Fraction, ...]
    bits: int
    signed: bool


def where(layer: Layer) -> str:
    return f"layer {layer.name}"


def quantizer(layer: Layer, key: str, kernel: bool = False) -> quantizers.Quantizer | None:
    q = quantizers.parse(layer.config.get(key), layer.name)
    return quantizers.as_kernel(q, layer.name) if kernel else q


def kernel(layer: Layer, weight: np.ndarray, key: str, notes: list[str], channels_last: int | None = None) -> Kernel:
    """Integers and one scale for each output channel. `channels_last` reshapes a depthwise [..., in, mult] to [..., in * mult]."""
    q = quantizer(layer, key, kernel=True)
    at = where(layer)
    if q is None or (isinstance(q, quantizers.Function) and q.name == "linear"):
        codes = weights.dyadic(weight, at, "a weight tensor without a quantizer", MAX_FLOAT_WEIGHT_BITS)
    else:
        codes = weights.quantize(q, weight, at, notes)
        _check_ste(q, weight, codes, at)
    full = np.broadcast_to(codes.scale, codes.codes.shape)
    values, bits, signed = codes.codes, codes.bits, codes.signed
    flat = full.reshape(-1, full.shape[-1])
    varies = any(n > 1 for n in codes.scale.shape[:-1])
    if varies and any(
        len(set(column)) > 1 for column in flat.T
    ):  # scales that vary within an output channel (scale_axis)
        steps = [gcd(column) for column in flat.T]
        values = (values.astype(object) * (full / np.array(steps, dtype=object))).astype(object)
        bits = max(int(abs(x)).bit_length() for x in values.reshape(-1)) + 1
        signed = True
        if bits > 31:
            raise UnsupportedError(
                at, f"weight scales within a channel that need {bits} bits", "use one scale for each output channel"
            )
        values = values.astype(np.int64)
        per = tuple(steps)
    else:
        per = tuple(flat[0])
    if channels_last is not None:
        values = values.reshape(*values.shape[:-2], channels_last)
        per = per * (channels_last // len(per))
    mask = layer.config.get("mask")
    if mask is not None:
        values = values * _mask(mask, values, at)
    return Kernel(values, shorten(per), bits, signed)


def _mask(mask: Any, codes: np.ndarray, at: str) -> np.ndarray:
    m = np.asarray(mask, dtype=np.float64)
    if not np.isin(m, (0.0, 1.0)).all():
        raise UnsupportedError(at, "a mask with values other than 0 and 1", "use 0 and 1")
    return np.broadcast_to(
        m.reshape(m.shape + (1,) * (codes.ndim - m.ndim)) if m.shape == codes.shape[: m.ndim] else m, codes.shape
    ).astype(np.int64)


def _check_ste(q: quantizers.Quantizer, x: np.ndarray, codes: weights.Codes, at: str) -> None:
    """QKeras returns x + (-x + xq) in float32: for values far beyond the range that is not xq any more."""
    x = np.asarray(x, dtype=F32)
    xq = codes.floats.astype(F32)
    step = np.asarray(codes.scale, dtype=np.float64)
    off = np.abs((x + (-x + xq)).astype(np.float64) - codes.floats) > 0.25 * step
    if isinstance(q, quantizers.QuantizedBits) and off.any():
        i = tuple(int(k) for k in np.argwhere(off)[0])
        raise UnsupportedError(
            at,
            f"weight {float(x[i])!r} at {i} is so far beyond its quantizer's range that QKeras' float32 leaves the grid",
            "clip the weights to the range",
        )


def const(b: GraphBuilder, k: Kernel, codes: np.ndarray, axis: int, name: str) -> Const:
    """A weight constant in its declared width; `codes` is laid out for the op, `axis` the one of its output channels."""
    return b.const(name, codes, k.scale if len(k.scale) > 1 else k.scale[0], axis, k.bits, k.signed)


def bias(layer: Layer, vector: np.ndarray | None, notes: list[str]) -> tuple[Fraction, ...]:
    """The exact real bias of each output channel, quantized or not; empty without one."""
    if vector is None:
        return ()
    q = quantizer(layer, "bias_quantizer")
    if q is None:
        return tuple(weights.fractions(np.asarray(vector, dtype=F32)).tolist())
    return tuple(activations.constant(q, vector.tolist(), where(layer), notes))


# --- BatchNormalization ----------------------------------------------------------------------------------------------


def sqrt(x: Fraction) -> Fraction:
    """The square root: exact where it is rational, else to 160 bits, which no comparison here can tell from exact."""
    n, d = math.isqrt(x.numerator), math.isqrt(x.denominator)
    if n * n == x.numerator and d * d == x.denominator:
        return Fraction(n, d)
    return Fraction(math.isqrt((x.numerator << 320) // x.denominator), 1 << 160)


def batch_norm(layer: Layer, channels: int, notes: list[str]) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    """(slope, intercept) of y = (x - mean) * gamma / sqrt(variance + epsilon) + beta for each channel."""
    at, c = where(layer), layer.config
    check_axis(layer)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    values: dict[str, list[Fraction]] = {}
    for name in names:
        w = layer.weights.get(name)
        if w is None:
            values[name] = [Fraction(name == "gamma")] * channels
            continue
        key = f"{name.removeprefix('moving_')}_quantizer"
        q = (
            quantizer(layer, key, kernel=name in ("gamma", "moving_variance"))
            if layer.class_name.startswith("Q")
            else None
        )
        values[name] = (
            weights.fractions(np.asarray(w, F32)).tolist()
            if q is None
            else activations.constant(q, w.tolist(), at, notes)
        )
    eps = F32(c.get("epsilon", 1e-3))
    slopes = []
    for g, v in zip(values["gamma"], values["moving_variance"], strict=True):
        total = Fraction(float(F32(float(v)) + eps))  # the framework adds epsilon in float32
        if total <= 0:
            raise UnsupportedError(at, f"variance plus epsilon is {float(total)}", "train it again")
        slopes.append(g / sqrt(total))
    inverse = quantizer(layer, "inverse_quantizer")
    if inverse is not None:
        slopes = activations.constant(inverse, [float(s) for s in slopes], at, notes)
    return tuple(slopes), tuple(
        b - m * s for b, m, s in zip(values["beta"], values["moving_mean"], slopes, strict=True)
    )


def check_axis(layer: Layer) -> None:
    axis = layer.config.get("axis", -1)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    rank = layer.config.get("_rank")
    if len(axes) != 1 or axes[0] not in (-1, rank):
        raise UnsupportedError(where(layer), f"BatchNormalization over axis {axes}", "only the last axis is supported")


def fold(layer: Layer, weight: np.ndarray, depthwise: bool, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """QConv2DBatchnorm: the float32 kernel and bias that QKeras quantizes, operation by operation."""
    w: Mapping[str, np.ndarray] = layer.weights
    at = where(layer)
    if "beta" not in w:
        raise UnsupportedError(at, "center=False fails in QKeras itself", "use center=True")
    variance = np.asarray(w["moving_variance"], F32) + F32(layer.config.get("epsilon", 1e-3))
    inv = F32(1) / np.sqrt(variance)
    gamma = np.asarray(w["gamma"], F32) if "gamma" in w else None
    # TensorFlow's rsqrt (and 1/sqrt, which a compiled graph rewrites) differs from this by up to 4 units in the last place, by CPU
    if gamma is not None:
        inv = inv * gamma
    start = np.asarray(w["bias"], F32) if layer.config.get("use_bias") and "bias" in w else F32(0)
    vector = inv * (start - np.asarray(w["moving_mean"], F32)) + np.asarray(w["beta"], F32)
    shaped = inv.reshape(weight.shape[-2:]) if depthwise else inv
    folded = (shaped * np.asarray(weight, F32)).astype(F32)
    _near(layer, folded, vector, notes)
    return folded, vector.astype(F32)


def _near(layer: Layer, folded: np.ndarray, vector: np.ndarray, notes: list[str]) -> None:
    """Note folded weights whose integer a last-bit error of TensorFlow's rsqrt would change."""
    found = 0
    for key, w in (
        ("depthwise_quantizer" if "Depthwise" in layer.class_name else "kernel_quantizer", folded),
        ("bias_quantizer", vector),
    ):
        q = quantizer(layer, key, kernel=key != "bias_quantizer")
        if q is None:
            continue
        near = [weights.quantize(q, (w * F32(1 + s)).astype(F32), where(layer), []).codes for s in (-5e-7, 5e-7)]
        found += int((near[0] != near[1]).sum())
    if found:
        notes.append(
            f"{where(layer)}: {found} folded weights lie within float32 noise of a tie (TensorFlow's rsqrt differs by CPU); run verify"
        )
