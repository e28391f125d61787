"""What a saved model does not say and the user must: the type of the input at its edge, and assumptions of the framework."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from toolchain.ir.builder import GraphBuilder
    from toolchain.ir.values import Value

TRY_INPUT = "say what it is: --input-type u8 --input-scale 1/255 --input-zero-point 0 (and --input-mean, --input-std), or quantize it first in the model"


@dataclass(frozen=True)
class LoadOptions:
    """Given to every front end. `input_type` None means: the model's own input quantizer decides.

    The strings of the command line will do as well: LoadOptions(input_type="u8", input_scale="1/255", input_mean="0.5").
    """

    input_type: tuple[int, bool] | None = None  # bits, signed
    input_scale: Fraction | None = None  # real value of one stored step
    input_zero_point: int = 0
    input_mean: tuple[Fraction, ...] = ()  # one, or one for each channel: model input = (real - mean) / std
    input_std: tuple[Fraction, ...] = ()
    sigmoid: str = "hard"  # QKeras' process-wide internal sigmoid: hard, smooth or real
    input_shape: tuple[int, ...] | None = None  # of a live torch module's input, without the batch
    batch: int | None = None  # 1: an ONNX model with another batch baked in is rewritten to this one

    def __post_init__(self) -> None:
        read: dict[str, Callable[[str, str], object]] = {
            "input_type": _type, "input_scale": _rational, "input_mean": _rationals, "input_std": _rationals
        }  # fmt: skip
        for name, function in read.items():
            option, value = f"--{name.replace('_', '-')}", getattr(self, name)
            if isinstance(value, str):
                object.__setattr__(self, name, function(option, value))
            if name in ("input_scale", "input_std") and not _positive(getattr(self, name)):
                raise ToolchainError(option, f"is {value}, must be positive")
        shape = self.input_shape
        if shape is not None and not (isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)):
            raise ToolchainError(
                "input_shape",
                f"is {shape!r}, must be the numbers of one input without the batch, as (1, 28, 28)",
                "export a module of several inputs to a file",
            )
        if self.batch not in (None, 1):
            raise ToolchainError("--batch", f"is {self.batch}, must be 1: a graph is one inference of one sample")

    @classmethod
    def from_text(cls, given: Namespace) -> LoadOptions:
        """From the command line's strings; ToolchainError names the option that cannot be read."""
        kind = given.input_type
        if kind is None:
            for name in ("input_scale", "input_zero_point", "input_mean", "input_std"):
                if getattr(given, name) is not None:
                    raise ToolchainError(
                        f"--{name.replace('_', '-')}",
                        "is given without --input-type",
                        "say the stored type too, as --input-type u8",
                    )
            return cls(sigmoid=given.sigmoid, batch=given.batch)
        _type("--input-type", kind)
        if given.input_scale is None:
            raise ToolchainError(
                "--input-type", "is given without --input-scale", "say what one step is worth, as --input-scale 1/255"
            )
        said = {name: text for name in ("input_mean", "input_std") if (text := getattr(given, name))}
        zero_point = given.input_zero_point or 0
        return cls(kind, given.input_scale, zero_point, **said, sigmoid=given.sigmoid, batch=given.batch)


def declared_input(b: GraphBuilder, name: str, shape: tuple[int, ...], o: LoadOptions) -> Value:
    """What the options say of an input: real = scale * (stored - zero_point), and the model reads (real - mean) / std."""
    from toolchain.ir.types import QType
    from toolchain.ir.values import Value, shorten, spread

    assert o.input_type is not None
    bits, signed = o.input_type
    for option, given in (("--input-mean", o.input_mean), ("--input-std", o.input_std)):
        if len(given) not in (0, 1, shape[-1]):
            raise ToolchainError(option, f"has {len(given)} values, must have 1 or {shape[-1]} for input {name}")
    tensor = b.input(name, shape, QType(bits, signed, o.input_scale or Fraction(1), None, o.input_zero_point))
    mean, std = o.input_mean or (Fraction(0),), o.input_std or (Fraction(1),)
    size = max(len(mean), len(std))
    mean, std = spread(mean, size), spread(std, size)
    return Value(tensor, shorten(1 / s for s in std), shorten(-m / s for m, s in zip(mean, std, strict=True)))


def _positive(value: Fraction | tuple[Fraction, ...] | None) -> bool:
    return value is None or all(v > 0 for v in (value if isinstance(value, tuple) else (value,)))


def _type(option: str, text: str) -> tuple[int, bool]:
    match = re.fullmatch(r"([us])([1-9]\d?)", text)
    if not match or int(match[2]) > 32:
        raise ToolchainError(option, f"is {text!r}, must be u or s and 1 to 32 bits, as u8")
    return int(match[2]), match[1] == "s"


def _rational(option: str, text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ToolchainError(option, f"is {text!r}, must be a number, as 1/255 or 0.5") from None


def _rationals(option: str, text: str) -> tuple[Fraction, ...]:
    return tuple(_rational(option, part) for part in text.split(",")) if text else ()
