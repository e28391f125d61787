"""What a front end tells `verify` of its framework: each layer's real values, and how the framework rounded them.

Plain data: a front end that can run its framework makes these, verify reads them, and neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from toolchain.ir import Tensor
from toolchain.ir.types import Ints


@dataclass(frozen=True)
class Affine:
    """real = clip(slope * real(tensor) + intercept, lo, hi): one entry, or one for each channel."""

    slope: tuple[Fraction, ...] = (Fraction(1),)
    intercept: tuple[Fraction, ...] = (Fraction(0),)
    lo: Fraction | None = None
    hi: Fraction | None = None

    def columns(self, tensor: Tensor) -> tuple[list[Fraction], list[Fraction]]:
        """a and b of real = a * stored + b."""
        q = tensor.qtype
        size = max(len(self.slope), len(self.intercept), len(q.scales))
        m, i, s = (tuple(v) * size if len(v) == 1 else tuple(v) for v in (self.slope, self.intercept, q.scales))
        a = [x * y for x, y in zip(m, s, strict=True)]
        return a, [x - y * q.zero_point for x, y in zip(i, a, strict=True)]

    def real(self, tensor: Tensor, stored: Ints) -> np.ndarray:
        a, b = self.columns(tensor)
        found: np.ndarray = stored * np.array([float(x) for x in a]) + np.array([float(x) for x in b])
        if self.lo is not None:
            found = np.maximum(found, float(self.lo))
        return found if self.hi is None else np.minimum(found, float(self.hi))


PLAIN = Affine()


@dataclass(frozen=True)
class Rounded:
    """How the framework made a tensor by rounding: what it rounded, in float32, and its quantizer, to be asked again."""

    tensor: str  # of the graph, and `meaning` says what real value the quantizer reads
    meaning: Affine
    real: np.ndarray
    quantizer: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shown:
    """One layer's output as the framework computes it: real values [batch, ...], and what they mean of a tensor."""

    tensor: str
    layer: str
    real: np.ndarray
    meaning: Affine = PLAIN
    rounded: Rounded | None = None
