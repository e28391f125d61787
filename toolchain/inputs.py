"""Samples for a graph: read from .npy/.npz, or made up. One rule: floats are real values, integers are stored values."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toolchain.errors import ToolchainError
from toolchain.ir import Graph, Tensor
from toolchain.ir.types import Ints
from toolchain.reference import check_inputs

Reals = npt.NDArray[np.float64]


def read(graph: Graph, path: Path, notes: list[str] | None = None) -> dict[str, Ints]:
    """Stored integers by input name, [batch, *shape]; ToolchainError names the file and what is wrong with it.

    `notes` receives a line for each input with real values outside its type's range.
    """
    given = _load(path, [t.name for t in graph.inputs])
    try:
        found = stored(graph, given, "")
    except ToolchainError as error:
        raise ToolchainError(str(path), str(error)) from None
    if notes is not None:
        notes += [
            note
            for t in graph.inputs
            if (note := _clamped(t, _batched(t, given[t.name], graph.channels_first(t.name))))
        ]
    return found


def _clamped(tensor: Tensor, values: np.ndarray) -> str:
    """A line when real values lie outside the type's range, else an empty one: often they were not normalised as in training."""
    if values.dtype.kind != "f":
        return ""
    q = tensor.qtype
    scale = np.array([float(s) for s in q.scales])
    steps = np.rint(values / scale) + q.zero_point
    share = float(((steps < q.min) | (steps > q.max)).mean())
    if not share:
        return ""
    low, high = (float((end - q.zero_point) * max(q.scales)) for end in (q.min, q.max))
    return f"{share:.1%} of input {tensor.name} lies outside {low:g}..{high:g} and is clamped; is it normalised as in training?"


def stored(graph: Graph, given: Mapping[str, np.ndarray] | np.ndarray, where: str = "inputs") -> dict[str, Ints]:
    """`given` as stored integers by name: real values are quantized as the input's type says, integers are taken as they are."""
    if isinstance(given, np.ndarray):
        if len(graph.inputs) != 1:
            names = ", ".join(t.name for t in graph.inputs)
            raise ToolchainError(
                where, f"is one array but the graph has the inputs {names}", "give an .npz with an array for each"
            )
        given = {graph.inputs[0].name: given}
    known = {t.name: t for t in graph.inputs}
    return check_inputs(
        graph,
        {
            n: quantize(known[n], _batched(known[n], v, graph.channels_first(n)), where) if n in known else v
            for n, v in given.items()
        },
    )


def quantize(tensor: Tensor, values: np.ndarray, where: str = "inputs") -> np.ndarray:
    """Real values to the tensor's stored integers, to nearest (halves to even) and clamped; integer arrays come back as they are."""
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f":
        raise ToolchainError(
            f"{where}{': ' if where else ''}input {tensor.name!r}",
            f"holds {values.dtype}, must be floats (real values) or integers (stored values)",
        )
    if not np.isfinite(values).all():
        raise ToolchainError(
            f"{where}{': ' if where else ''}input {tensor.name!r}", "holds NaN or infinity, must be finite"
        )
    scale = np.array([float(s) for s in tensor.qtype.scales])
    q = tensor.qtype
    steps = np.rint(values.astype(np.float64) / scale) + q.zero_point
    low, high = steps <= q.min, steps >= q.max  # apart: as a float64 the largest of 63 bits is 2**63, which is no int64
    inside: Ints = np.where(low | high, 0.0, steps).astype(np.int64)
    inside[low], inside[high] = q.min, q.max
    return inside


def dequantize(tensor: Tensor, values: Ints) -> Reals:
    """Stored integers to real values in float64."""
    real: Reals = (values - tensor.qtype.zero_point) * np.array([float(s) for s in tensor.qtype.scales])
    return real


def made_up(graph: Graph, count: int, seed: int = 0) -> dict[str, Ints]:
    """`count` samples from `seed`: the corners (all smallest, all largest, all zero, smallest and largest by turns), then random ones."""
    rng = np.random.default_rng(seed)
    made = {}
    for tensor in graph.inputs:
        q = tensor.qtype
        values = rng.integers(q.min, q.max, (count, *tensor.shape), endpoint=True, dtype=np.int64)
        turns = np.where(np.arange(tensor.size) % 2, q.max, q.min).reshape(tensor.shape)
        for row, corner in enumerate((q.min, q.max, q.zero_point, turns)[:count]):
            values[row] = corner
        made[tensor.name] = values
    return made


def read_labels(path: Path, count: int) -> Ints:
    """Class numbers [count] from .npy."""
    found = _load(path, ["labels"])
    if len(found) != 1:
        raise ToolchainError(str(path), f"holds {len(found)} arrays, must hold one, a class for each sample")
    (labels,) = found.values()
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ToolchainError(
            str(path), f"holds {labels.dtype} {list(labels.shape)}, must be integers [{count}], a class for each sample"
        )
    return labels.astype(np.int64)


def _load(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                loaded = {name: loaded[name] for name in loaded.files}  # a damaged member is found only here
    except FileNotFoundError:
        raise ToolchainError(str(path), "does not exist, must be an .npy or .npz file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        raise ToolchainError(str(path), "is not an .npy or .npz file of numbers, or is cut short") from None
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            raise ToolchainError(
                str(path),
                f"is one array but the graph has the inputs {', '.join(names)}",
                "give an .npz with an array for each",
            )
        return {names[0]: loaded}
    return dict(loaded)


def _batched(tensor: Tensor, values: np.ndarray, channels_first: bool) -> np.ndarray:
    """One sample without a batch axis is a batch of one; what comes channels first, as its model has it, is moved."""
    values = np.asarray(values)
    if channels_first:
        theirs = (tensor.shape[-1], *tensor.shape[:-1])
        if values.shape == theirs and values.shape != tensor.shape:
            values = values[None]
        if values.shape[1:] == theirs and theirs != tensor.shape:
            return np.moveaxis(values, 1, -1)
    return values[None] if values.shape == tensor.shape else values
