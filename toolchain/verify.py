"""Framework against reference, tensor by tensor: how many integers differ, where the first does, and both values.

Its one rule: integers are compared, and every difference is counted. A framework's real value must be a whole number of
steps but for float32's own noise; what leaves more over is counted as off the grid. Only in a tensor whose integers float32
cannot hold (beyond 24 bits) may a difference be owed to float32; it is still counted, and called that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toolchain.errors import ToolchainError
from toolchain.inputs import dequantize
from toolchain.ir import Graph
from toolchain.ir.types import Ints
from toolchain.options import LoadOptions
from toolchain.reference import trace

FLOAT32_STEPS = 1 << 23  # integers from here on share a float32 with a neighbour's half
FLOAT32_NOISE = 2.0**-20  # of the largest value: sums lose in their last bits what cancels later
RESIDUE = 1e-3  # steps
Reals = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class First:
    """The first difference: its index (sample first), and both values as stored integers and as the framework's real."""

    index: tuple[int, ...]
    framework: int
    graph: int
    framework_real: float


@dataclass(frozen=True)
class TensorReport:
    tensor: str
    layer: str
    compared: int
    differ: int
    owed_to_float32: int  # of those that differ
    off_grid: int  # real values that are no whole number of steps
    largest: int  # difference, in steps
    first: First | None  # that is not owed to float32, if there is one
    residue: float  # the most that rint(value / scale) left over, in steps


@dataclass(frozen=True)
class Verification:
    graph: str
    samples: int
    tensors: tuple[TensorReport, ...]
    not_compared: tuple[str, ...]  # tensors that no layer of the framework shows
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Every integer of every tensor that the framework shows, but for those owed to float32."""
        return all(t.differ == t.owed_to_float32 and not t.off_grid for t in self.tensors)

    @property
    def owed_to_float32(self) -> int:
        return sum(t.owed_to_float32 for t in self.tensors)

    @property
    def first(self) -> TensorReport | None:
        """The first tensor, in the order of the graph, with a difference; later ones may differ because of it."""
        unexplained = (t for t in self.tensors if t.differ > t.owed_to_float32 or t.off_grid)
        return next(unexplained, None)

    def as_json(self) -> dict[str, Any]:
        return {"equal": self.equal, "owed_to_float32": self.owed_to_float32, **asdict(self)}


def real_inputs(graph: Graph, stored: Mapping[str, Ints], options: LoadOptions) -> dict[str, np.ndarray]:
    """What the framework is given for these stored integers: their real values, normalised as the options say."""
    found = {}
    for tensor in graph.inputs:
        x = dequantize(tensor, stored[tensor.name])
        if options.input_type is not None:
            mean = np.array([float(m) for m in options.input_mean or (0,)])
            std = np.array([float(s) for s in options.input_std or (1,)])
            x = (x - mean) / std
        found[tensor.name] = x.astype(np.float32)
    return found


def compare(graph: Graph, stored: Mapping[str, Ints], told: Mapping[str, tuple[str, np.ndarray]]) -> Verification:
    """`told`: for each tensor that the framework shows, the layer and its real values [batch, ...]."""
    values = trace(graph, stored)
    tensors = {t.name: t for t in (*graph.inputs, *(op.output for op in graph.ops))}
    reports = []
    for name, tensor in tensors.items():
        if name not in told:
            continue
        layer, real = told[name]
        ours = values[name]
        if not np.isfinite(real).all():
            raise ToolchainError(f"layer {layer}", "the framework gives NaN or infinity", "verify with other inputs")
        if real.shape != ours.shape:
            raise ToolchainError(
                f"layer {layer}", f"the framework gives {list(real.shape)}, the graph {list(ours.shape)}"
            )
        scale = np.array([float(s) for s in tensor.qtype.scales])
        steps = real.astype(np.float64) / scale + tensor.qtype.zero_point
        reports.append(_report(name, layer, real, steps, ours))
    if not reports:
        raise ToolchainError(f"graph {graph.name}", "the framework shows none of its tensors, so nothing was compared")
    missing = tuple(n for n in tensors if n not in told)
    return Verification(graph.digest(), len(next(iter(stored.values()))), tuple(reports), missing, graph.notes)


def _report(name: str, layer: str, real: np.ndarray, steps: np.ndarray, ours: Ints) -> TensorReport:
    whole = np.rint(steps)
    largest = int(np.abs(ours).max(initial=0))
    noise = largest * FLOAT32_NOISE
    beyond = largest >= FLOAT32_STEPS
    differs = whole != ours
    owed = differs & (np.abs(steps - ours) <= noise) if beyond else np.zeros_like(differs)
    left = np.zeros_like(steps) if beyond else np.abs(steps - whole)
    off_grid = left > max(RESIDUE, noise)
    worst = (differs & ~owed) | off_grid
    first = None
    if differs.any() or off_grid.any():
        at = tuple(int(i) for i in np.argwhere(worst if worst.any() else differs)[0])
        first = First(at, int(whole[at]), int(ours[at]), float(real[at]))
    return TensorReport(
        tensor=name,
        layer=layer,
        compared=int(ours.size),
        differ=int(differs.sum()),
        owed_to_float32=int(owed.sum()),
        off_grid=int(off_grid.sum()),
        largest=int(np.abs(whole - ours)[differs].max(initial=0)),
        first=first,
        residue=float(left.max(initial=0)),
    )
