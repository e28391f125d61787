"""C simulation of HLS projects for tests: several graphs joined into one network, so that one compilation serves them all."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from toolchain import boards, measurement, passes, tools
from toolchain.backends import hls4ml as backend
from toolchain.ir import Const, Graph, Tensor, check
from toolchain.ir.ops import Op
from toolchain.ir.types import Ints
from toolchain.links import open_link
from toolchain.measurement import Measurement
from toolchain.passes.plan import Hls

BOARDS = {"Quartus": "csim_intel"}  # of every other tool: csim


def choices(tool: str, io: str, strategy: str = "", **more: Any) -> Hls:
    """Hls of one strategy for all; Quartus has Resource alone."""
    return Hls(tool=tool, io=io, strategy={"": strategy or ("Resource" if tool == "Quartus" else "Latency")}, **more)


def simulated(graph: Graph, hls: Hls, samples: dict[str, Ints], folder: Path | None = None) -> Measurement:
    """The project's own C++, compiled and measured against `simulate`."""
    board = boards.load(BOARDS.get(hls.tool, "csim"))
    refined, plan = passes.run(graph, board, hls)
    with tempfile.TemporaryDirectory(prefix="bitwright-hls-") as scratch:
        image = backend.emit(refined, plan, board).build(folder or Path(scratch) / "project", tools)
        with open_link(image, board, None) as link:
            return measurement.measure(
                link, image, board, graph, refined, plan, samples, None, 1, lambda _what, _done: None
            )


def joined(graphs: Sequence[Graph]) -> Graph:
    """The graphs beside each other as one, tensors renamed g0_..., g1_...; none may have states."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    ops: list[Op] = []
    for k, graph in enumerate(graphs):
        assert not graph.states
        inputs += [_renamed(t, k) for t in graph.inputs]
        outputs += [_renamed(t, k) for t in graph.outputs]
        ops += [replace(op, **{f.name: _renamed(getattr(op, f.name), k) for f in fields(op)}) for op in graph.ops]
    return check(Graph("joined", inputs=tuple(inputs), outputs=tuple(outputs), states=(), ops=tuple(ops)))


def split(samples: Sequence[dict[str, Ints]]) -> dict[str, Ints]:
    """The samples of the graphs that were joined, by their new names."""
    return {f"g{k}_{name}": value for k, part in enumerate(samples) for name, value in part.items()}


def _renamed(value: Any, k: int) -> Any:
    if isinstance(value, Tensor):
        return replace(value, name=f"g{k}_{value.name}")
    if isinstance(value, Const):
        return replace(value, tensor=_renamed(value.tensor, k))
    if isinstance(value, tuple):
        return tuple(_renamed(v, k) for v in value)
    return value
