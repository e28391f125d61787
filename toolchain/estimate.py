"""What a graph would cost on an FPGA board through hls4ml, before any synthesis: per op and in all.

Rule: every figure is labelled "modelled" and comes with the range that real reports were of the same model; no more is claimed
than those few reports can carry (docs/fpga_cost.md, with the comparison that tests/test_estimate.py repeats).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from toolchain import fifos, folding, gates, streams
from toolchain.errors import ToolchainError
from toolchain.ir import Graph
from toolchain.ir.ops import Mac, Op, inputs_of, kind
from toolchain.kernel_cost import Kernel, Target, kernel, strategy_used
from toolchain.passes.plan import Hls
from toolchain.streams import Network

if TYPE_CHECKING:
    from toolchain.boards import Board
    from toolchain.fpga_boards import Fpga

LABEL = "modelled"


RESOURCES = ("luts", "ffs", "dsps", "brams")


@dataclass(frozen=True)
class Band:
    """Real figures were `low` to `high` times the modelled one, in `reports` reports; None where none says anything."""

    low: float
    high: float
    reports: int

    @property
    def text(self) -> str:
        many = "s" if self.reports > 1 else ""
        return (
            f"{LABEL}, real reports {self.low:g}x to {self.high:g}x of it ({self.reports} report{many} of one design)"
        )


UNKNOWN = f"{LABEL}, compared with no report"
WIDER = 1.5  # one design for each family is no spread: each end of what was observed is taken so much further
# by the kind of tool; the comparison is in docs/fpga_cost.md, and tests/test_estimate.py derives these numbers from it
BANDS: Mapping[str, Mapping[str, Band]] = {
    "AMD": {
        "luts": Band(0.6, 2.2, 2),
        "ffs": Band(0.8, 6.0, 2),
        "dsps": Band(0.7, 1.7, 2),
        "latency_cycles": Band(0.6, 1.4, 1),
        "initiation_interval": Band(0.6, 1.3, 1),
    },
    "oneAPI": {
        "luts": Band(1.1, 4.1, 2),
        "ffs": Band(3.0, 14.2, 2),
        "dsps": Band(0.7, 1.5, 2),
        "latency_cycles": Band(0.7, 1.7, 1),
    },
}


def bands(tool: str) -> Mapping[str, Band]:
    """The bands of the tools that have a report: Vivado HLS stands for Vitis HLS too, nothing stands for the others."""
    return BANDS.get("AMD" if tool.startswith(("Vivado", "Vitis")) else tool, {})


@dataclass(frozen=True)
class OpCost:
    """`name` is the op's output, "fifos" for all FIFOs together. Cycles are those of one inference."""

    name: str
    kind: str
    strategy: str
    reuse_factor: int
    multipliers: int
    adders: int
    luts: int
    ffs: int
    dsps: int
    brams: int
    latency_cycles: int
    initiation_interval: int


@dataclass(frozen=True)
class Estimate:
    graph: str
    board: str
    part: str
    tool: str
    io: str
    core_clock_hz: int
    ops: tuple[OpCost, ...]
    luts: int
    ffs: int
    dsps: int
    brams: int
    latency_cycles: int
    initiation_interval: int
    room: Mapping[str, int]

    @property
    def latency_us(self) -> float:
        return self.latency_cycles * 1e6 / self.core_clock_hz

    @property
    def bands(self) -> Mapping[str, Band]:
        return bands(self.tool)

    def band(self, figure: str) -> str:
        found = self.bands.get(figure)
        return found.text if found else UNKNOWN

    def over(self) -> dict[str, int]:
        """What is too much for the board, by how much."""
        return {r: getattr(self, r) - self.room[r] for r in RESOURCES if getattr(self, r) > self.room[r]}


def fpga(board: Board) -> Fpga:
    if board.fpga is None:
        raise ToolchainError(
            f"board {board.name}", f"is no FPGA (back end {board.backend!r})", "choose a board with [fpga]"
        )
    return board.fpga


class Estimator:
    """The model of one graph on one board; kernels are costed once for each choice."""

    def __init__(self, graph: Graph, board: Board, hls: Hls) -> None:
        self.graph, self.board = graph, board
        self.room = fpga(board)
        self.target = Target(
            gates.family(board.part), self.room.bram_bits, 1e9 / self.room.core_clock_hz, hls.stream, hls.tool
        )
        self.net: Network | None = streams.network(graph) if hls.stream else None
        self.ops = graph.live_ops()
        none = Kernel(stages=0)  # a reshape that the next kernel does by reading on
        still = streams.in_place(graph) if hls.stream else ()
        self.known: dict[tuple[str, str, int], Kernel] = {(name, "", 1): none for name in still}
        self.depths: dict[str, int] | None = None

    def kernel(self, op: Op, hls: Hls) -> Kernel:
        reuse = hls.reuse(op) if isinstance(op, Mac) else 1
        key = op.output.name, hls.strategy_of(op) if isinstance(op, Mac) else "", reuse
        if key not in self.known:
            self.known[key] = kernel(op, self.target, key[1], reuse)
        return self.known[key]

    def steps(self, op: Op) -> int:
        """Steps of an io_parallel kernel: hls4ml's products go position by position, all else is unrolled."""
        if isinstance(op, Mac) and folding.by_positions(op):
            return max(streams.tokens(op.output), 1)
        return 1

    def positions(self, op: Op) -> int:
        """Steps of an inference that make an output."""
        return streams.tokens(op.output) if self.net is not None else self.steps(op)

    def estimate(self, hls: Hls) -> Estimate:
        cycles, latency, interval = self.timing(hls)
        rows = []
        for op in self.ops:
            k, (took, every) = self.kernel(op, hls), cycles[op.output.name]
            mac = isinstance(op, Mac)
            strategy = strategy_used(op, hls.strategy_of(op), hls.tool)
            figures = (k.multipliers, k.adders, ceil(k.luts), ceil(k.ffs), ceil(k.dsps), k.brams, took, every)
            rows.append(OpCost(op.output.name, kind(op), strategy, hls.reuse(op) if mac else 1, *figures))
        if self.net is not None:
            rows.append(self.fifo_row(hls))
        total = {r: sum(getattr(row, r) for row in rows) for r in RESOURCES}
        space = {r: getattr(self.room, r) for r in RESOURCES}
        clock = self.room.core_clock_hz
        names = (self.graph.name, self.board.name, self.board.part, hls.tool, hls.io, clock)
        return Estimate(*names, tuple(rows), **total, latency_cycles=latency, initiation_interval=interval, room=space)

    def fifo_row(self, hls: Hls) -> OpCost:
        assert self.net is not None
        if self.depths is None:
            self.depths = dict(zip([f.name for f in self.net.fifos], fifos.smallest(self.net), strict=True))
        luts = ffs = brams = 0
        for f in self.net.fifos:
            depth = hls.fifo_depth.get(f.name, self.depths[f.name])
            a, b, c = gates.fifo(self.target.family, self.room.bram_bits, f.bits, depth)
            luts, ffs, brams = luts + a, ffs + b, brams + c
        return OpCost("fifos", "fifo", "", 1, 0, 0, luts, ffs, 0, brams, 0, 0)

    # cycles

    def timing(self, hls: Hls) -> tuple[dict[str, tuple[int, int]], int, int]:
        """((latency, interval) of each op by name, latency of all, interval of all)."""
        return self.streamed(hls) if self.net is not None else self.parallel(hls)

    def parallel(self, hls: Hls) -> tuple[dict[str, tuple[int, int]], int, int]:
        ready: dict[str, int] = {}
        cycles, dataflow, slowest = {}, False, 1
        for op in self.ops:
            k, steps = self.kernel(op, hls), self.steps(op)
            busy = steps * k.step
            took = busy + k.stages if steps * k.step * k.stages else 0
            start = max((ready.get(t.name, 0) for t in inputs_of(op)), default=0)
            ready[op.output.name] = start + took
            cycles[op.output.name] = took, busy
            slowest = max(slowest, busy)
            dataflow |= steps > 1 or (
                isinstance(op, Mac) and strategy_used(op, hls.strategy_of(op), hls.tool) == "Resource"
            )
        return cycles, max(ready.values(), default=0) + 1, slowest + dataflow

    def streamed(self, hls: Hls) -> tuple[dict[str, tuple[int, int]], int, int]:
        """Each process in turn: a step starts when the one before is over and its tokens are there; rooms are not short."""
        assert self.net is not None
        kernels = {op.output.name: self.kernel(op, hls) for op in self.ops}
        there: list[np.ndarray] = [np.zeros(0, np.int64) for _ in self.net.fifos]
        cycles: dict[str, tuple[int, int]] = {}
        latency = interval = 0
        for process in self.net.processes:
            k = kernels.get(process.name, Kernel(stages=0 if process.name in (streams.SOURCE, streams.SINK) else 1))
            times = np.array([f.times for f in process.firings])
            writes = np.repeat([bool(f.writes) for f in process.firings], times)
            took = np.where(writes, k.step, k.idle)
            began = np.concatenate([[0], np.cumsum(took)[:-1]])
            ready = np.zeros(len(took), np.int64)
            for f in sorted({f for firing in process.firings for f, _ in firing.reads}):
                counts = np.repeat([dict(firing.reads).get(f, 0) for firing in process.firings], times)
                last = np.cumsum(counts)
                ready = np.where(counts > 0, np.maximum(ready, there[f][np.maximum(last - 1, 0)]), ready)
            start = began + np.maximum.accumulate(ready - began)
            for f in sorted({f for firing in process.firings for f, _ in firing.writes}):
                counts = np.repeat([dict(firing.writes).get(f, 0) for firing in process.firings], times)
                done = start + took + k.stages if process.name != streams.SOURCE else start
                there[f] = np.repeat(done, counts)
            busy = int(took.sum()) + (k.stages if process.name in kernels else 0)
            interval = max(interval, busy)
            cycles[process.name] = int(start[-1] - start[0] + took[-1] + k.stages), busy
            latency = max(latency, int(start[-1]) + 1)
        return {name: cycles.get(name, (0, 0)) for name in kernels}, latency, interval + 1


def estimate(graph: Graph, board: Board, hls: Hls) -> Estimate:
    """The modelled cost of the graph built as `hls` says."""
    return Estimator(graph, board, hls).estimate(hls)


def as_json(found: Estimate) -> dict[str, object]:
    figures = (*RESOURCES, "latency_cycles", "initiation_interval")
    return {
        "label": LABEL,
        **{key: getattr(found, key) for key in ("graph", "board", "part", "tool", "io", "core_clock_hz")},
        "ops": [asdict(row) for row in found.ops],
        "total": {key: getattr(found, key) for key in figures} | {"latency_us": found.latency_us},
        "available": dict(found.room),
        "share": {r: getattr(found, r) / found.room[r] if found.room[r] else None for r in RESOURCES},
        "real_over_modelled": {
            key: {"low": band.low, "high": band.high, "reports": band.reports}
            if (band := found.bands.get(key))
            else None
            for key in figures
        },
    }
