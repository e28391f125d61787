"""Bands: the first ops of a graph for some rows of the image at a time, so that the large tensors at its beginning are never whole.

Rule: each band computes exactly the rows that it stands for, with the padding of the image where it has an edge and none elsewhere; rows
that two bands need are computed twice. So the graph computes the same, and only its multiplications grow. (Patch-based inference,
Lin et al. 2021, and the fused tiling of TVM do so for kernels; here it is done to the graph, and every kernel serves.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.ops import Op, inputs_of
from toolchain.layout import STAGES

COUNTS = (2, 3, 4, 6, 8)
FIRST = 4  # of COUNTS
PLACES = 2

Rows = tuple[int, int]  # from, to


def ways(graph: Graph, cost: Callable[[Graph], int]) -> list[tuple[int, Graph]]:
    """The graph with its first ops in bands where that costs less than it does whole, by cost: in each number of bands, at the best
    of the places where bands may end. The places are compared by one number of bands."""
    first = region(graph)
    ends = [end for end in range(2, len(first) + 1) if not _goes_on(graph, first[end - 1])]
    tried = [(cost(made), end) for end in ends if (made := banded(graph, first[:end], FIRST)) is not None]
    places = [first[:end] for _, end in sorted(tried)[:PLACES]]
    found = [made for place in places for count in COUNTS if (made := banded(graph, place, count)) is not None]
    whole = cost(graph)
    return sorted(
        ((price, made) for made in found if (price := cost(made)) < whole), key=lambda each: (each[0], len(each[1].ops))
    )


def region(graph: Graph) -> list[Op]:
    """Ops in their order, up to the first that does not go row by row, each of them made from the graph's inputs alone."""
    known = {t.name for t in graph.inputs}
    found: list[Op] = []
    for op in graph.ops:
        if not _by_rows(op) or any(t.name not in known for t in inputs_of(op)):
            break
        known.add(op.output.name)
        found.append(op)
    return found


def _goes_on(graph: Graph, op: Op) -> bool:
    """Whether the only reader of an op is a stage of it: a chain is not cut."""
    readers = [other for other in graph.ops if op.output in inputs_of(other)]
    return len(readers) == 1 and isinstance(readers[0], STAGES) and op.output not in graph.outputs


def _by_rows(op: Op) -> bool:
    """Whether rows of the output, its first axis, are made of rows of the inputs."""
    if len(op.output.shape) < 2 or any(len(t.shape) != len(op.output.shape) for t in inputs_of(op)):
        return False
    match op:
        case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D() | ops.Dense() | ops.Softmax() | ops.Softmax16():
            return True
        case ops.MaxPool():
            return not op.ceil_mode
        case ops.SumPool():  # at an edge a window has another count, and all counts set the scale
            return not op.ceil_mode and op.padding[0] == (0, 0)
        case ops.Add() | ops.Sub() | ops.Multiply():
            return all(t.shape[0] == op.output.shape[0] for t in inputs_of(op))
        case _:
            return isinstance(op, STAGES)


def _needs(op: Op, rows: Rows) -> tuple[Rows, tuple[int, int]]:
    """The rows of the inputs that these rows of the output are made of, and the padding before and behind them."""
    lo, hi = rows
    window = _window(op)
    if window is None:
        return rows, (0, 0)
    taps, stride, before = window
    high = inputs_of(op)[0].shape[0]
    first, last = lo * stride - before, (hi - 1) * stride - before + taps
    inside = min(max(first, 0), high), max(min(last, high), 0)
    return inside, (inside[0] - first, last - inside[1])


def _window(op: Op) -> tuple[int, int, int] | None:
    """(rows that a window reaches over, stride, padding before), None for ops without windows."""
    match op:
        case ops.MaxPool() | ops.SumPool():
            return op.kernel[0], op.strides[0], op.padding[0][0]
        case ops.Conv1D() | ops.Conv2D():
            taps = op.weight.tensor.shape[1]
        case ops.DepthwiseConv2D():
            taps = op.weight.tensor.shape[0]
        case _:
            return None
    return (taps - 1) * op.dilation[0] + 1, op.strides[0], op.padding[0][0]


def banded(graph: Graph, region: Sequence[Op], count: int) -> Graph | None:
    """The graph with these first ops in `count` bands; None where a band would be empty or see nothing but padding."""
    names = {op.output.name for op in region}
    rest = graph.ops[len(region) :]
    read = {t.name for op in rest for t in inputs_of(op)} | {t.name for t in graph.outputs}
    read |= {s.output.name for s in graph.states}
    cut = [op.output for op in region if op.output.name in read]
    if not cut or any(t.shape[0] < count for t in cut):
        return None
    made: list[Op] = []
    parts: dict[str, list[Tensor]] = {t.name: [] for t in cut}
    for k in range(count):
        wanted = {t.name: (t.shape[0] * k // count, t.shape[0] * (k + 1) // count) for t in cut}
        rows = _rows(region, wanted)
        if rows is None:
            return None
        band: dict[str, Tensor] = {}
        for t in graph.inputs:
            if t.name in rows:
                band[t.name] = _slice(t, t, rows[t.name], (0, t.shape[0]), f"{t.name}_rows{k}", made)
        for op in region:
            band[op.output.name] = _part(op, rows, band, k, made)
        for t in cut:
            whole, have = band[t.name], rows[t.name]
            parts[t.name].append(_slice(t, whole, wanted[t.name], have, f"{t.name}_own{k}", made))
    made += [ops.Concat(tuple(parts[t.name]), t, 0) for t in cut]
    assert names.isdisjoint(op.output.name for op in made[: -len(cut)]), "a band bears the name of the whole"
    return replace(graph, ops=(*made, *rest))


def _rows(region: Sequence[Op], wanted: Mapping[str, Rows]) -> dict[str, Rows] | None:
    """The rows of each tensor that a band needs, from those of what the bands are made for; None where one needs none."""
    found = dict(wanted)
    for op in reversed(region):
        if op.output.name not in found:
            return None  # read by nothing: dead ops are gone before
        need, _ = _needs(op, found[op.output.name])
        if need[0] >= need[1]:
            return None
        for t in inputs_of(op):
            lo, hi = found.get(t.name, need)
            found[t.name] = min(lo, need[0]), max(hi, need[1])
    return found


def _part(op: Op, rows: Mapping[str, Rows], band: Mapping[str, Tensor], k: int, made: list[Op]) -> Tensor:
    """What an op makes for its band, of the rows that it needs; another op may need more of what it reads."""
    own = rows[op.output.name]
    need, padding = _needs(op, own)
    output = replace(op.output, name=f"{op.output.name}_band{k}", shape=(own[1] - own[0], *op.output.shape[1:]))
    given = [
        _slice(t, band[t.name], need, rows[t.name], f"{op.output.name}_of_{t.name}{k}", made) for t in inputs_of(op)
    ]
    if isinstance(op, (ops.Add, ops.Sub, ops.Multiply)):
        made.append(replace(op, a=given[0], b=given[1], output=output))
    elif isinstance(op, (ops.Conv1D, ops.Conv2D, ops.DepthwiseConv2D, ops.MaxPool, ops.SumPool)):
        made.append(replace(op, input=given[0], output=output, padding=(padding, *op.padding[1:])))
    else:
        assert isinstance(op, (ops.Dense, ops.Softmax, ops.Softmax16, *STAGES))
        made.append(replace(op, input=given[0], output=output))
    return output


def _slice(like: Tensor, x: Tensor, rows: Rows, have: Rows, name: str, made: list[Op]) -> Tensor:
    """These rows of a tensor that has others before and behind; itself where it has none."""
    if rows == have:
        return x
    y = replace(x, name=name, shape=(rows[1] - rows[0], *like.shape[1:]))
    made.append(ops.Slice(x, y, (rows[0] - have[0], *(0 for _ in like.shape[1:])), (1,) * len(like.shape)))
    return y
