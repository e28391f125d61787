"""How a graph becomes a circuit where nobody said: back end of hls4ml, arrays or streams, strategy and reuse factors.

Rule: what is said is kept; what is left open is chosen by the cost model, the same way each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolchain.errors import ToolchainError, nearest
from toolchain.ir import Graph, ops
from toolchain.passes.plan import STRATEGIES, Hls

if TYPE_CHECKING:
    from argparse import Namespace

    from toolchain.boards import Board

SPATIAL = (ops.Conv1D, ops.Conv2D, ops.DepthwiseConv2D, ops.MaxPool, ops.SumPool)
IOS = ("parallel", "stream")
MOST_REUSE = 2**31 - 1  # hls4ml's reuse_factor is an unsigned int, and the cost model counts cycles in 64 bits


@dataclass(frozen=True)
class Wishes:
    """What a user says of a circuit; everything may be left open. `reuse_factor` goes by an op's output, "" for all."""

    tool: str | None = None
    io: str | None = None  # parallel or stream
    strategy: str | None = None
    reuse_factor: Mapping[str, int] = field(default_factory=dict)
    target_latency_us: float | None = None

    @classmethod
    def from_text(cls, arguments: Namespace) -> Wishes:
        """From the command line; ToolchainError for what cannot be read."""
        target = arguments.target_latency_us
        if target is not None:
            try:
                target = float(target)
            except ValueError:
                target = 0.0
            if not 0 < target < 1e12:
                what = f"{arguments.target_latency_us!r}, must be a positive number of microseconds"
                raise ToolchainError("--target-latency-us", what)
        strategy = arguments.strategy
        if strategy is not None:
            known = {name.lower(): name for name in STRATEGIES}
            if strategy.lower() not in known:
                what = f"{strategy!r} is none of {', '.join(known)}"
                raise ToolchainError("--strategy", what, nearest(strategy.lower(), known))
            strategy = known[strategy.lower()]
        return cls(arguments.hls, arguments.io, strategy, _reuse(arguments.reuse_factor), target)

    def __bool__(self) -> bool:
        return self != Wishes()


def _reuse(text: str | None) -> dict[str, int]:
    """`8`, or `dense1=8,conv2=4`, or both: the one without a name is for all others."""
    found: dict[str, int] = {}
    for part in text.split(",") if text is not None else ():
        name, _, number = part.strip().rpartition("=")
        if not number.isdecimal() or int(number) < 1:
            what = f"{part.strip()!r}, must be a whole number of 1 or more, or NAME=NUMBER"
            raise ToolchainError("--reuse-factor", what, "as 8 or dense1=8,conv2=4")
        if int(number) > MOST_REUSE:
            raise ToolchainError("--reuse-factor", f"{number}, must be at most {MOST_REUSE:,}")
        if name in found:
            raise ToolchainError(
                "--reuse-factor", f"names {repr(name) if name else 'all products'} twice", "leave one out"
            )
        found[name] = int(number)
    return found


def choose(graph: Graph, board: Board, wishes: Wishes) -> Hls:
    """The choices for an FPGA board. Without a strategy, a reuse factor or a latency: the fastest that the model says fits."""
    from toolchain.passes import dead, reuse
    from toolchain.passes.plan import Plan

    if board.fpga is None:
        what = "is no FPGA board, and has no circuit to choose (--hls, --io, --strategy, --reuse-factor, --target-latency-us)"
        raise ToolchainError(board.name, what, "leave them out")
    tool = _tool(board, wishes.tool)
    if wishes.io not in (None, *IOS):
        raise ToolchainError("--io", f"{wishes.io!r} is none of {', '.join(IOS)}", nearest(str(wishes.io), IOS))
    graph, _ = dead.run(graph, Plan(), board)
    io = f"io_{wishes.io or _io(graph, board)}"
    _names(graph, wishes.reuse_factor)
    if wishes.target_latency_us is not None:
        _left_open(wishes)
    strategy = wishes.strategy or ("Resource" if tool == "Quartus" else None)
    if wishes.target_latency_us is None and (wishes.strategy or wishes.reuse_factor):
        shared = any(n > 1 for n in wishes.reuse_factor.values())
        return Hls(tool, io, {"": strategy or ("Resource" if shared else "Latency")}, wishes.reuse_factor)
    start = Hls(tool, io, {"": strategy} if strategy else {}, wishes.reuse_factor)
    return reuse.choose(graph, board, start, wishes.target_latency_us)


def _io(graph: Graph, board: Board) -> str:
    """Streams where there are windows to slide, unless only arrays can be built."""
    from toolchain import bitstream

    if graph.states or graph.unread_inputs() or not any(isinstance(op, SPATIAL) for op in graph.ops):
        return "parallel"
    wrapped = board.fpga is not None and board.fpga.top == "artix"
    return (
        "parallel" if wrapped and bitstream.refusal(graph, True) and not bitstream.refusal(graph, False) else "stream"
    )


def _left_open(wishes: Wishes) -> None:
    """With a latency the factors are chosen, and the strategy with them: Latency where nothing is shared, else Resource."""
    if "" in wishes.reuse_factor:
        what = f"{wishes.reuse_factor['']} for all products leaves nothing to choose for --target-latency-us"
        raise ToolchainError("--reuse-factor", what, "leave one of the two out, or give it by name, as conv2=4")
    if wishes.strategy not in (None, "Resource"):
        what = f"{wishes.strategy.lower()!r} for every product shares nothing, and --target-latency-us chooses what is shared"
        raise ToolchainError("--strategy", what, "leave one of the two out")


def _tool(board: Board, wanted: str | None) -> str:
    assert board.fpga is not None
    if wanted is None:
        return board.fpga.tool
    known = {name.lower(): name for name in board.fpga.tools}
    if wanted.lower() not in known:
        what = f"{wanted!r} makes nothing for {board.name} ({board.part})"
        raise ToolchainError("--hls", what, f"one of {', '.join(board.fpga.tools)}")
    return known[wanted.lower()]


def _names(graph: Graph, given: Mapping[str, int]) -> None:
    known = [op.output.name for op in graph.ops if isinstance(op, ops.Mac)]
    for name in given:
        if name and name not in known:
            what = f"{name!r} is the output of no dense or convolution; there are {', '.join(known) or 'none'}"
            raise ToolchainError("--reuse-factor", what, nearest(name, known))
