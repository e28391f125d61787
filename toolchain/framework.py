"""What a front end tells `verify` of its framework: each layer's real values, and how the framework rounded them.

Plain data: a front end that can run its framework makes these, verify reads them, and neither knows the other. What
frameworks say on the way is kept from the user here as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from toolchain.ir import Tensor
from toolchain.ir.types import Ints


@contextmanager
def stderr_silenced() -> Iterator[None]:
    """Frameworks greet on standard error from C++, where no logging level and no redirection in Python reaches it."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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
    """How the framework made a tensor by rounding: what it rounded, in float32, and its quantizer, to be asked again.

    `real` is None where the framework rounds within one operator, and shows nothing of what.
    """

    tensor: str  # of the graph, and `meaning` says what real value the quantizer reads
    meaning: Affine
    real: np.ndarray | None
    quantizer: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shown:
    """One layer's output as the framework computes it: real values [batch, ...], and what they mean of a tensor."""

    tensor: str
    layer: str
    real: np.ndarray
    meaning: Affine = PLAIN
    rounded: Rounded | None = None
    fine: bool = False  # the tensor's steps are finer than the real value's own: only its distance can be told


Run = Callable[[Mapping[str, np.ndarray]], list[Shown]]  # real inputs [batch, ...] by name -> what the framework shows


# --- a source that was converted: what it computes of the tensors of the file that it was converted to -----------------


@dataclass(frozen=True)
class Read:
    """What a quantizer read: a tensor of the file, its value, and the quantizer, all in the file's own layout."""

    name: str
    real: np.ndarray
    quantizer: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Answer:
    """One tensor of the file; for one that a quantizer made, what it can be said to have read, the nearest first."""

    layer: str
    real: np.ndarray
    reads: tuple[Read, ...] = ()


Program = Callable[[Mapping[str, np.ndarray]], Mapping[str, Answer]]  # inputs by the file's names -> tensors by theirs
