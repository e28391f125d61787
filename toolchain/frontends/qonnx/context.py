"""What every operator's lowering is given, and how it asks for its inputs.

Its one rule: an input is data of the model or a constant of the file, and each operator says which it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx import quant
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant
from toolchain.frontends.qonnx.layouts import Data
from toolchain.ir.builder import GraphBuilder


@dataclass
class Context:
    b: GraphBuilder
    before: dict[str, Data] = field(default_factory=dict)  # tensor that a quantizer made -> what it rounded


Inputs = Sequence[Data | Constant | None]
Lower = Callable[[Context, Node, Inputs, str], Data]


def data_of(node: Node, inputs: Inputs, index: int = 0) -> Data:
    """The input that must be data."""
    found = inputs[index] if index < len(inputs) else None
    if not isinstance(found, Data):
        raise UnsupportedError(
            node.where, f"input {index} is a constant or missing, must be computed from the model's input"
        )
    return found


def constants(inputs: Inputs) -> list[Constant | None]:
    return [x if isinstance(x, Constant) else None for x in inputs]


def constant_of(node: Node, inputs: Inputs, index: int, what: str) -> np.ndarray:
    """The finite values of an input that must be constant."""
    return quant.known(node, constants(inputs), index, what)


def constant(node: Node, found: Constant, what: str) -> np.ndarray:
    return quant.known(node, [found], 0, what)


def reals(node: Node, found: Constant, what: str) -> np.ndarray:
    """Exact rationals of a constant as an object array: codes times scale where it has codes."""
    if found.codes is None or found.scale is None:
        value = np.asarray(constant(node, found, what), np.float64)
        return np.array([Fraction(v) for v in value.ravel().tolist()], dtype=object).reshape(value.shape)
    scale = np.broadcast_to(found.scale, found.codes.shape)
    pairs = zip(found.codes.ravel().tolist(), scale.ravel().tolist(), strict=True)
    return np.array([int(k) * Fraction(s) for k, s in pairs], dtype=object).reshape(found.codes.shape)
