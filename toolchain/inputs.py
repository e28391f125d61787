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


def read(
    graph: Graph, path: Path, notes: list[str] | None = None, channels: str | None = None, edges: bool = False
) -> dict[str, Ints]:
    """Stored integers by input name, [batch, *shape]; ToolchainError names the file and what is wrong with it.

    `channels` is "first" or "last" where a model takes channels first and both orders have one shape. `notes` receives a line
    for each input with real values outside its type's range and, with `edges`, for those that float32, as a framework
    divides in it, puts into another step than they are in.
    """
    given = _load(path, [t.name for t in graph.inputs])
    try:
        arranged = _arranged(graph, given, "", channels)
        found = _quantized(graph, arranged, "")
    except ToolchainError as error:
        raise ToolchainError(str(path), str(error)) from None
    for tensor in graph.inputs if notes is not None else ():
        values = arranged[tensor.name]
        if notes is not None and values.dtype.kind == "f":
            told = (_clamped(tensor, values), _beside_an_edge(tensor, values, found[tensor.name]) if edges else "")
            notes += filter(None, told)
    return found


def _clamped(tensor: Tensor, values: np.ndarray) -> str:
    """A line when real values lie outside the type's range, else an empty one: often they were not normalised as in training."""
    q = tensor.qtype
    scale = np.array([float(s) for s in q.scales])
    steps = np.rint(values / scale) + q.zero_point
    share = float(((steps < q.min) | (steps > q.max)).mean())
    if not share:
        return ""
    low, high = (float((end - q.zero_point) * max(q.scales)) for end in (q.min, q.max))
    return f"{share:.1%} of input {tensor.name} lies outside {low:g}..{high:g} and is clamped; is it normalised as in training?"


def _beside_an_edge(tensor: Tensor, values: np.ndarray, found: Ints) -> str:
    """A line when float32 puts real values into another step than `found`, else an empty one."""
    q = tensor.qtype
    scale = np.array([float(s) for s in q.scales], np.float32)
    with np.errstate(all="ignore"):
        steps = np.rint(values.astype(np.float32) / scale + np.float32(q.zero_point))
    other = int((np.clip(steps.astype(np.float64), q.min, q.max) != found).sum())
    if not other:
        return ""
    return (
        f"{other:,} of {values.size:,} values of input {tensor.name} lie so near the edge of a step that float32 takes the "
        f"next one; the framework is given the graph's step here, and on the values themselves may differ"
    )


def stored(
    graph: Graph, given: Mapping[str, np.ndarray] | np.ndarray, where: str = "inputs", channels: str | None = None
) -> dict[str, Ints]:
    """`given` as stored integers by name: real values are quantized as the input's type says, integers are taken as they are.

    What a model takes channels first may come so; where both orders have one shape, real values need `channels` ("first" or
    "last"), and integers are taken as the graph's own, channels last, without it.
    """
    if isinstance(given, np.ndarray):
        if len(graph.inputs) != 1:
            names = ", ".join(t.name for t in graph.inputs)
            raise ToolchainError(
                where, f"is one array but the graph has the inputs {names}", "give an .npz with an array for each"
            )
        given = {graph.inputs[0].name: given}
    return _quantized(graph, _arranged(graph, given, where, channels), where)


def _arranged(graph: Graph, given: Mapping[str, np.ndarray], where: str, channels: str | None) -> dict[str, np.ndarray]:
    """[batch, *shape of the graph] of each input; what the graph does not know stays as it is."""
    known = {t.name: t for t in graph.inputs}
    return {
        n: _batched(known[n], v, graph.channels_first(n), where, channels) if n in known else v
        for n, v in given.items()
    }


def _quantized(graph: Graph, arranged: Mapping[str, np.ndarray], where: str) -> dict[str, Ints]:
    known = {t.name: t for t in graph.inputs}
    return check_inputs(graph, {n: quantize(known[n], v, where) if n in known else v for n, v in arranged.items()})


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


def _batched(tensor: Tensor, values: np.ndarray, channels_first: bool, where: str, channels: str | None) -> np.ndarray:
    """One sample without a batch axis is a batch of one; what comes channels first, as its model has it, is moved."""
    values = np.asarray(values)
    if channels_first:
        theirs = (tensor.shape[-1], *tensor.shape[:-1])
        shape = values.shape[values.ndim - len(theirs) :]
        alike = theirs == tensor.shape and len(set(theirs)) == 1 and theirs[0] != 1
        if alike and shape == theirs and channels is None and values.dtype.kind == "f":
            raise ToolchainError(
                f"{where}{': ' if where else ''}input {tensor.name!r}",
                f"shape {list(values.shape)} may be channels first, as the model has it, or last",
                "say which: --channels first or --channels last (in Python inputs.stored(graph, x, channels='first'))",
            )
        first = channels == "first" if theirs == tensor.shape else shape == theirs
        if first and shape == theirs and values.ndim - len(theirs) in (0, 1):
            return np.moveaxis(values if values.ndim > len(theirs) else values[None], 1, -1)
    return values[None] if values.shape == tensor.shape else values
