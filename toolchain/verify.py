"""Framework against reference, tensor by tensor: how many integers differ, where the first does, and both values.

Its one rule: integers are compared. A framework's real value must be rint(value / scale) steps with almost nothing left
over; a tensor whose integers float32 cannot hold (beyond 24 bits) is compared as far as float32 goes, and is called that.
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

FLOAT32_STEPS = 1 << 23
OFF_GRID = 0.25  # steps: what float32 leaves over below FLOAT32_STEPS is less; more is another scale, not rounding
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
    largest: int  # steps
    first: First | None
    beyond_float32: bool
    residue: float  # what rint(value / scale) left over, in steps

    @property
    def off_grid(self) -> bool:
        """Whether the framework's values are no multiples of the scale: then equal integers would say nothing."""
        return self.residue > OFF_GRID


@dataclass(frozen=True)
class Verification:
    graph: str
    samples: int
    tensors: tuple[TensorReport, ...]
    not_compared: tuple[str, ...]  # tensors that no layer of the framework shows
    notes: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return all(t.differ == 0 and not t.off_grid for t in self.tensors)

    @property
    def first(self) -> TensorReport | None:
        """The first tensor, in the order of the graph, with a difference; later ones may differ because of it."""
        return next((t for t in self.tensors if t.differ), None)

    def as_json(self) -> dict[str, Any]:
        return {"equal": self.equal, **asdict(self)}


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
        whole = np.rint(steps)
        beyond = bool(np.abs(ours).max(initial=0) >= FLOAT32_STEPS)
        # beyond, relative to the largest: float32 sums lose in their last bits what cancels later
        apart = np.abs(steps - ours) > np.abs(ours).max() * 2.0**-20 if beyond else whole != ours
        first = None
        if apart.any():
            at = tuple(int(i) for i in np.argwhere(apart)[0])
            first = First(at, int(whole[at]), int(ours[at]), float(real[at]))
        reports.append(
            TensorReport(
                name,
                layer,
                int(ours.size),
                int(apart.sum()),
                int(np.abs(whole - ours)[apart].max(initial=0)),
                first,
                beyond,
                0.0 if beyond else float(np.abs(steps - whole).max(initial=0)),
            )
        )
    if not reports:
        raise ToolchainError(f"graph {graph.name}", "the framework shows none of its tensors, so nothing was compared")
    missing = tuple(n for n in tensors if n not in told)
    return Verification(graph.digest(), len(next(iter(stored.values()))), tuple(reports), missing, graph.notes)
