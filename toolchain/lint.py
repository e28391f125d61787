"""What goes wrong in an hls4ml build, found before any tool runs: one finding for each op, with what is, must be, and what to do.

Rule: a finding names a rule of hls4ml or of the vendor's tool that was read in its source, run, or reported in an issue, or a
figure of the model with its band; what is only a matter of taste is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from typing import TYPE_CHECKING

from toolchain import bitstream, estimate, fifos, folding, streams
from toolchain.errors import UnsupportedError, nearest
from toolchain.fpga_boards import REFUSED
from toolchain.gates import LUT_MULTIPLIER
from toolchain.ir import Graph, ops
from toolchain.ir.ops import Mac, Op, inputs_of, where
from toolchain.kernel_cost import strategy_used
from toolchain.passes.plan import Hls, no_circuit, unread

if TYPE_CHECKING:
    from toolchain.boards import Board

UNROLLED_IN_ALL = (
    16_384  # ours: four times the limit of one array; HLS of such designs ran for hours (issues 374, 1013)
)
IM2COL_LIMIT = (
    65_536  # ours: assignments in the code that hls4ml writes to select windows, one for each element and position
)
COPIES = 7  # nnet::clone_stream has no more (hls4ml clone.py raises)
EXACT_BITS = 53  # of a double, through which hls4ml passes weights, inputs and outputs
AMD_TOOLS = ("Vivado", "Vitis")
ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Finding:
    """`op`: as errors name it, or the graph. An `error` makes a wrong, other or no design; a `warning` may."""

    op: str
    severity: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.op}: {self.text}"


def lint(graph: Graph, board: Board, hls: Hls) -> tuple[Finding, ...]:
    """Findings in the order of the ops, then those of the whole graph."""
    found = [*_tool(board, hls), *(f for op in graph.ops for f in _op(op, hls)), *_ends(graph, board, hls)]
    try:
        found += [*_fifos(graph, hls), *_copies(graph, hls), *_fit(graph, board, hls)]
    except UnsupportedError as error:
        found.append(Finding(error.where, ERROR, f"{error.what}; {error.try_}"))
    return tuple(found)


def _op(op: Op, hls: Hls) -> Iterator[Finding]:
    if error := no_circuit(op):
        yield Finding(error.where, ERROR, f"{error.what}; {error.try_}")
        return
    if isinstance(op, Mac):
        yield from _strategy(op, hls)
        yield from _reuse(op, hls)
    for what, size in _unrolled(op, hls):
        if size > folding.UNROLL_LIMIT:
            severity = ERROR if hls.tool.startswith("Vivado") else WARNING
            text = f"{what} has {size:,} elements unrolled at once, at most {folding.UNROLL_LIMIT:,} are; {_smaller(op, hls)}"
            yield Finding(where(op), severity, text)
    yield from _types(op)


def _smaller(op: Op, hls: Hls) -> str:
    if isinstance(op, Mac):
        return "use strategy Resource with a larger reuse_factor" + ("" if hls.stream else ", or --io stream")
    return "make it smaller" if hls.stream else "use --io stream"


def _unrolled(op: Op, hls: Hls) -> Iterator[tuple[str, int]]:
    """Arrays that the kernel splits into registers, and loops that it unrolls."""
    if isinstance(op, Mac):
        n_in, total = folding.mult_size(op)[0], folding.products(op)
        shared = strategy_used(op, hls.strategy_of(op), hls.tool) == "Resource"
        yield ("the products", -(-total // hls.reuse(op))) if shared else ("the array of products", total)
        yield "the window", n_in
    elif isinstance(op, ops.UpSample) and hls.stream:
        yield "a row of the result", op.output.size // op.input.shape[0] if len(op.input.shape) > 2 else op.output.size
    elif isinstance(op, ops.Transpose) and hls.stream:
        yield "the tensor", op.output.size
    if not hls.stream:
        yield "the output", op.output.size
    else:
        yield "a token", op.output.channels


def _strategy(op: Mac, hls: Hls) -> Iterator[Finding]:
    asked, reuse = hls.strategy_of(op), hls.reuse(op)
    if asked == "distributed_arithmetic":
        if not hls.tool.startswith(AMD_TOOLS):
            what = f"strategy is distributed_arithmetic, which hls4ml has for Vivado and Vitis and not for {hls.tool}"
            yield Finding(where(op), ERROR, f"{what}; use Latency or Resource")
        elif find_spec("da4ml") is None:
            yield Finding(
                where(op), ERROR, "strategy distributed_arithmetic needs da4ml; install da4ml, or use Latency"
            )
        if isinstance(op, ops.DepthwiseConv2D):
            what = "strategy is distributed_arithmetic, which hls4ml refuses for depthwise convolutions"
            yield Finding(where(op), ERROR, f"{what}; use Latency or Resource")
        if reuse != 1:
            what = f"reuse_factor is {reuse} with strategy distributed_arithmetic, must be 1"
            yield Finding(where(op), ERROR, f"{what}; use 1, or strategy Resource")
    elif asked == "Latency" and hls.tool in folding.ALWAYS_RESOURCE:
        what = f"strategy is Latency, and hls4ml builds it as Resource for {hls.tool}"
        yield Finding(where(op), WARNING, f"{what}; say Resource")
    elif asked == "Resource" and reuse == 1 and hls.tool not in folding.ALWAYS_RESOURCE:
        what = "strategy is Resource with reuse_factor 1, which shares nothing and leaves no zero out"
        yield Finding(where(op), WARNING, f"{what}; use Latency, or a larger reuse_factor")


def _reuse(op: Mac, hls: Hls) -> Iterator[Finding]:
    reuse, used = hls.reuse(op), strategy_used(op, hls.strategy_of(op), hls.tool)
    n_in, n_out = folding.mult_size(op)
    valid = folding.valid(n_in, n_out)
    if used == "Resource" and reuse not in valid:
        near = [max((v for v in valid if v < reuse), default=None), min((v for v in valid if v > reuse), default=None)]
        told = " or ".join(f"{v:,}" for v in near if v is not None)
        what = f"reuse_factor is {reuse:,}, must divide {n_in:,}, or be {n_in:,} times a divisor of {n_out:,}"
        yield Finding(
            where(op),
            ERROR,
            f"{what}; choose {told} (hls4ml would take {folding.replaced_by(valid, reuse):,} in silence)",
        )
    elif used == "Resource" and reuse > n_in and not hls.stream and folding.by_positions(op):
        if hls.tool.startswith(AMD_TOOLS):
            what = f"reuse_factor is {reuse:,}, must be at most {n_in:,} in io_parallel, where hls4ml's convolution reads out of bounds"
            yield Finding(where(op), ERROR, f"{what}; choose {n_in:,}, or --io stream")
    elif used == "Latency" and reuse > max(n_in * n_out, 1):
        what = f"reuse_factor is {reuse:,} for {n_in * n_out:,} products, which keeps it waiting"
        yield Finding(where(op), WARNING, f"{what}; choose at most {n_in * n_out:,}")


def _types(op: Op) -> Iterator[Finding]:
    if isinstance(op, Mac) and op.weight.tensor.qtype.bits > EXACT_BITS:
        what = f"weights have {op.weight.tensor.qtype.bits} bits, at most {EXACT_BITS} pass hls4ml's double"
        yield Finding(where(op), ERROR, f"{what}; quantize them to fewer bits")


def _tool(board: Board, hls: Hls) -> Iterator[Finding]:
    if hls.tool in REFUSED:
        others = [tool for tool in estimate.fpga(board).tools if tool not in REFUSED]
        hint = (
            f"use --hls {' or '.join(others)}"
            if others
            else "there is no other tool for its part: choose another board"
        )
        yield Finding(f"board {board.name}", ERROR, f"no project is made for {hls.tool}: {REFUSED[hls.tool]}; {hint}")


def _ends(graph: Graph, board: Board, hls: Hls) -> Iterator[Finding]:
    for tensor in graph.unread_inputs() if hls.stream else ():
        error = unread(tensor)
        yield Finding(error.where, ERROR, f"{error.what}; {error.try_}")
    refused = bitstream.refusal(graph, hls.stream) if estimate.fpga(board).top == "artix" else None
    if refused:
        yield Finding(f"graph {graph.name}", ERROR, f"{refused.what}{refused.try_ and f'; {refused.try_}'}")
    if hls.tool == "VivadoAccelerator" and (len(graph.inputs) != 1 or len(graph.outputs) != 1):
        what = f"has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, hls4ml's VivadoAccelerator takes 1 of each"
        hint = "use --hls Vitis or Vivado, which end at the reports, an Artix board, or join the tensors"
        yield Finding(f"graph {graph.name}", ERROR, f"{what}; {hint}")


def _copies(graph: Graph, hls: Hls) -> Iterator[Finding]:
    outputs = {t.name for t in graph.outputs}
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.qtype.bits > EXACT_BITS:
            what = f"has {tensor.qtype.bits} bits, at most {EXACT_BITS} pass the doubles of hls4ml's C simulation"
            yield Finding(f"%{tensor.name}", WARNING, f"{what}; requantize it, or check it in hardware")
    for tensor in graph.tensors() if hls.stream else ():
        copies = sum(t == tensor for op in graph.ops for t in inputs_of(op)) + (tensor.name in outputs)
        if copies > COPIES:
            what = f"goes to {copies} readers, at most {COPIES} in io_stream"
            yield Finding(f"%{tensor.name}", ERROR, f"{what}; use --io parallel")


def _fifos(graph: Graph, hls: Hls) -> Iterator[Finding]:
    if not hls.stream:
        if hls.fifo_depth:
            yield Finding(f"graph {graph.name}", WARNING, "fifo_depth has no meaning in io_parallel; remove it")
        return
    derived = fifos.depths(graph)
    for name in hls.fifo_depth:
        if name not in derived:
            hint = nearest(name, derived) or f"known: {', '.join(derived)}"
            yield Finding(f"fifo {name}", ERROR, f"is no FIFO of the graph; {hint}")
    known = {name: depth for name, depth in hls.fifo_depth.items() if name in derived}
    blocked = fifos.check(graph, known)
    for name, depth in known.items() if blocked else ():
        if depth < derived[name]:
            what = f"is {depth:,} tokens deep, must be {derived[name]:,}, or {', '.join(blocked[:3])} wait for each other for ever"
            yield Finding(f"fifo {name}", ERROR, f"{what}; choose {derived[name]:,}")


def _fit(graph: Graph, board: Board, hls: Hls) -> Iterator[Finding]:
    room = estimate.fpga(board)
    place = f"graph {graph.name}"
    macs = [op for op in graph.ops if isinstance(op, Mac)]
    folded = [op for op in macs if strategy_used(op, hls.strategy_of(op), hls.tool) != "Resource"]
    unrolled = sum(int((op.weight.array != 0).sum()) for op in folded)
    if unrolled > UNROLLED_IN_ALL:
        what = f"{unrolled:,} products are unrolled by strategies other than Resource, beyond {UNROLLED_IN_ALL:,} synthesis may take hours"
        yield Finding(place, WARNING, f"{what}; use strategy Resource for the largest")
    for op in macs if not hls.stream else ():
        size = streams.tokens(op.output) * folding.mult_size(op)[0]
        if not isinstance(op, ops.Dense) and size > IM2COL_LIMIT:
            what = (
                f"selects {size:,} window elements in code of its own, beyond {IM2COL_LIMIT:,} synthesis may take hours"
            )
            yield Finding(where(op), WARNING, f"{what}; use --io stream")
    model = estimate.Estimator(graph, board, hls)
    found = model.estimate(hls)
    held = sum(model.kernel(op, hls).weight_bits for op in model.ops)
    if held > room.brams * room.bram_bits:
        what = f"weights in RAM blocks take {held:,} bits, {board.name} has {room.brams * room.bram_bits:,}"
        yield Finding(place, ERROR, f"{what}; use fewer weight bits, or a larger board")
    for resource, by in found.over().items():
        has, needs, band = found.room[resource], getattr(found, resource), found.bands.get(resource)
        sure = band is not None and needs * band.low > has
        what = f"{resource} {needs:,} ({found.band(resource)}), {board.name} has {has:,}"
        if resource == "dsps":
            what += f", and what is left would take about {ceil(by * LUT_MULTIPLIER * 18 * 18):,} LUTs"
        yield Finding(
            place,
            ERROR if sure else WARNING,
            f"{what}; use larger reuse factors (strategy Resource), or a larger board",
        )
