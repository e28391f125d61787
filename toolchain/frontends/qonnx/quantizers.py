"""Quant, BipolarQuant and Trunc: their parameters, and the integers they make of known numbers.

Its one rule: rounding modes mean what the QONNX specification defines (HALF_UP is half away from zero), computed as
qonnx and Brevitas compute, in the file's float32; where exact rational arithmetic says another integer, that is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import UnsupportedError, nearest

if TYPE_CHECKING:
    from toolchain.frontends.qonnx.archive import Node
    from toolchain.frontends.qonnx.constants import Constant

Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]

MODES: dict[str, Callable[[Floats], Floats]] = {  # by definition, on any float type; the first is half to even
    "ROUND": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),  # away from zero
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + 0.5),  # half away from zero
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - 0.5),  # half toward zero
}
SYNONYMS = {"HALF_EVEN": "ROUND", "ROUND_TO_ZERO": "DOWN"}
BIPOLAR = "BIPOLAR"  # not a mode of the specification: one bit, signed


@dataclass(frozen=True, eq=False)
class Quantizer:
    """What a Quant, BipolarQuant or Trunc node does: codes in lo..hi, of which zero_point is subtracted, times scale.

    A Trunc first divides by `scale` and rounds half to even, then by 2**shift and rounds by its mode.
    """

    bits: int
    lo: int
    hi: int
    rounding: str  # one of MODES, or BIPOLAR
    scale: np.ndarray  # as in the file; positive and finite; any shape that broadcasts
    zero_point: np.ndarray  # int64, any shape that broadcasts
    shift: np.ndarray | None = None  # int64, Trunc only
    out_scale: np.ndarray | None = None  # Trunc only
    out_zero_point: np.ndarray | None = None  # int64, Trunc only
    clamps: bool = True  # Trunc of version 1 does not
    divides: bool = True  # BipolarQuant compares what it reads as it is


def rounding_mode(where: str, given: str) -> str:
    """The canonical name of a rounding mode, in any case and by its synonyms; others are refused by name."""
    mode = SYNONYMS.get(given.upper(), given.upper())
    if mode not in MODES:
        known = ", ".join((*MODES, *SYNONYMS))
        raise UnsupportedError(
            where, f"rounding_mode is {given!r}, must be one of {known}", nearest(mode, (*MODES, *SYNONYMS))
        )
    return mode


def integer_range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Smallest and largest code: narrow drops the lowest signed one, or the highest unsigned one, as qonnx does."""
    if signed:
        return -(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow


def quantizer(node: Node, inputs: Sequence[Constant | None]) -> Quantizer:
    """The parameters of a Quant, IntQuant, BipolarQuant or Trunc. inputs[0], what is quantized, may be None (data)."""
    where, given = node.where, node.attributes
    if node.op == "BipolarQuant":
        values = _parameters(node, inputs, ("scale",))
        scale = positive_scale(where, "scale", values[0])
        return Quantizer(1, -1, 1, BIPOLAR, scale, np.zeros((), np.int64), divides=False)
    if node.op == "Trunc":
        return _trunc(node, inputs)
    scale, zero_point, bits = _parameters(node, inputs, ("scale", "zero point", "bit width"))
    for name in ("signed", "narrow"):  # qonnx has no default for them
        if name not in given:
            raise UnsupportedError(where, f"attribute {name} is missing, must be 0 or 1", "export the model again")
    width, signed = _bits(where, "bit width", bits), _flag(where, given, "signed")
    lo, hi = integer_range(width, signed, _flag(where, given, "narrow"))
    mode = rounding_mode(where, str(given.get("rounding_mode", "ROUND")))
    if width == 1 and signed:  # qonnx and Brevitas make these bipolar, whatever the mode
        lo, hi, mode = -1, 1, BIPOLAR
    return Quantizer(
        width, lo, hi, mode, positive_scale(where, "scale", scale), _integers(where, "zero point", zero_point)
    )


def _trunc(node: Node, inputs: Sequence[Constant | None]) -> Quantizer:
    where, given = node.where, node.attributes
    mode = rounding_mode(where, str(given.get("rounding_mode", "FLOOR")))
    if node.opset < 2:
        names: tuple[str, ...] = ("scale", "zero point", "input bit width", "output bit width")
        scale, zero_point, in_bits, out_bits = _parameters(node, inputs, names)
        scale, zero_point = positive_scale(where, names[0], scale), _integers(where, names[1], zero_point)
        width = _bits(where, names[3], out_bits)
        shift = np.asarray(_bits(where, names[2], in_bits) - width, np.int64)
        if shift < 0:
            raise UnsupportedError(where, "its output has more bits than its input", "export the model again")
        return Quantizer(width, 0, 0, mode, scale, zero_point, shift, scale, zero_point, clamps=False)
    names = ("scale", "zero point", "input bit width", "output scale", "output bit width")
    scale, zero_point, in_bits, out_scale, out_bits = _parameters(node, inputs, names)
    _bits(where, names[2], in_bits)
    scale, out_scale = positive_scale(where, names[0], scale), positive_scale(where, names[3], out_scale)
    zero_point, width = _integers(where, names[1], zero_point), _bits(where, names[4], out_bits)
    lo, hi = integer_range(width, _flag(where, given, "signed", 1), _flag(where, given, "narrow", 0))
    shift = np.round(np.log2(out_scale / scale)).astype(np.int64)
    step = np.ldexp(1.0, shift)
    moved = zero_point / step
    if np.any(moved != np.round(moved)):
        raise UnsupportedError(
            where, "its zero point is not a multiple of the truncated step", "use a symmetric quantizer before it"
        )
    return Quantizer(width, lo, hi, mode, scale, zero_point, shift, out_scale, moved.astype(np.int64))


def _parameters(node: Node, inputs: Sequence[Constant | None], names: tuple[str, ...]) -> list[np.ndarray]:
    if len(inputs) != len(names) + 1:
        versions = f" of version {node.opset}" if node.op == "Trunc" else ""
        raise UnsupportedError(
            node.where, f"{node.op}{versions} has {len(inputs)} inputs, must have {len(names) + 1}: what it quantizes, "
            f"{', '.join(names)}", "export the model again"
        )  # fmt: skip
    found = []
    for name, constant in zip(names, inputs[1:], strict=True):
        if constant is None:
            raise UnsupportedError(
                node.where, f"its {name} is not a constant", "use a quantizer with a stored scale, zero point and bit width"
            )  # fmt: skip
        if not constant.value.size:
            raise UnsupportedError(node.where, f"its {name} is empty", "export the model again")
        found.append(constant.value)
    return found


def positive_scale(where: str, name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind != "f":
        raise UnsupportedError(where, f"its {name} holds {value.dtype} values, must be float32")
    bad = value[~(np.isfinite(value) & (value > 0))]
    if bad.size:
        raise UnsupportedError(
            where, f"its {name} is {bad[0]}, must be positive and finite", "train or export it again"
        )
    return value


def _integers(where: str, name: str, value: np.ndarray) -> np.ndarray:
    bad = value[(value != np.round(value)) | ~(np.abs(value.astype(np.float64)) < 2**32)]
    if bad.size:
        raise UnsupportedError(where, f"its {name} is {bad[0]}, must be an integer", "train or export it again")
    return value.astype(np.int64)


def _bits(where: str, name: str, value: np.ndarray) -> int:
    widths = np.unique(value)
    if widths.size != 1:
        raise UnsupportedError(where, f"has {widths.size} different {name}s, must have one", "use one for all channels")
    if not 1 <= widths[0] <= 32 or widths[0] != int(widths[0]):
        raise UnsupportedError(where, f"its {name} is {widths[0]:g}, must be a whole number from 1 to 32")
    return int(widths[0])


def _flag(where: str, given: Any, name: str, default: int = 0) -> bool:
    value = given.get(name, default)
    if value not in (0, 1):
        raise UnsupportedError(where, f"attribute {name} is {value!r}, must be 0 or 1", "export the model again")
    return bool(value)


def bipolar(y: Floats) -> Floats:
    return np.where(y >= 0, np.ones((), y.dtype), -np.ones((), y.dtype))


def _function(mode: str) -> Callable[[Floats], Floats]:
    return bipolar if mode == BIPOLAR else MODES[mode]


def codes(where: str, x: np.ndarray, q: Quantizer, what: str, notes: list[str]) -> np.ndarray:
    """The int64 codes, zero point not yet subtracted, of known numbers: in the file's own arithmetic, clamped exactly."""
    if not np.isfinite(x).all():
        bad = x[~np.isfinite(x)]
        raise UnsupportedError(where, f"{what} hold {bad.size} NaN or infinite values", "train or restore them again")
    with np.errstate(over="ignore", under="ignore"):
        y = np.asarray(x / q.scale if q.divides else x)
        y = np.asarray(y + q.zero_point.astype(y.dtype))
    first = "ROUND" if q.shift is not None else q.rounding
    limit = 2.0**62
    found = _function(first)(np.clip(y, -limit, limit)).astype(np.int64)
    exact = exactly(x, q.scale, q.zero_point, first)
    if q.shift is not None:
        found, exact = (_shifted(v, q) for v in (found, exact))
    if q.clamps:
        found, exact = np.clip(found, q.lo, q.hi), np.clip(exact, q.lo, q.hi)
    different = int((found != exact).sum())
    if different:
        notes.append(
            f"{where}: {different} of {found.size} {what} are other integers in float32, as the framework computes and as "
            f"they are taken, than in exact arithmetic"
        )
    return found


def _shifted(values: np.ndarray, q: Quantizer) -> np.ndarray:
    assert q.shift is not None
    return np.asarray(_function(q.rounding)(np.ldexp(values.astype(np.float64), -q.shift))).astype(np.int64)


def exactly(x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, mode: str) -> np.ndarray:
    """round(x / scale + zero_point) in exact arithmetic, as int64 of at most 2**62.

    float64 decides wherever the quotient is clear of a multiple of a half; beside one, the sign of x - (multiple -
    zero_point) * scale does, which is exact in float64 while the product has at most 53 bits, and Fraction beyond.
    """
    x, s, z = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (x, scale, zero_point)))
    with np.errstate(over="ignore"):
        y = np.clip(x / s + z, -(2.0**62), 2.0**62)
    half = np.round(2 * y) / 2
    close = (np.abs(y - half) <= 2.0**-40 * np.maximum(1, np.abs(y))) & (np.abs(y) < 2.0**40)
    side = np.sign(x - (half - z) * s)
    long = (np.abs(half - z) >= 2.0**28) | (s != s.astype(np.float32))
    for at in np.argwhere(close & long):
        i = tuple(at)
        difference = Fraction(x[i]) - (Fraction(half[i]) - Fraction(z[i])) * Fraction(s[i])
        side[i] = (difference > 0) - (difference < 0)
    return _function(mode)(np.where(close, half + side * 2.0**-10, y)).astype(np.int64)
