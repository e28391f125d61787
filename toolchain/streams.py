"""An io_stream design as processes that exchange tokens over FIFOs: what each reads and writes, in what order.

Rule: a firing is atomic (all its tokens are there and all its room is free, or nothing moves), which asks for more than the
hardware does, so that what ends here ends whatever order a kernel reads and writes in. fifos.py derives depths from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from toolchain.errors import UnsupportedError, assert_never
from toolchain.ir import Graph, Tensor, ops
from toolchain.ir.geometry import kept
from toolchain.ir.ops import Op, inputs_of

FLOOR = 2  # what hls::stream has without a pragma; with 1 a reader and a writer take turns (UG1399, "Streams")
SOURCE, SINK = "source", "sink"


@dataclass(frozen=True)
class Fifo:
    """`name`: a tensor, or a copy of one for each of its readers (y_cpy1, y_cpy2, as hls4ml's Clone calls them). `own`: between
    an op and the Pad or broadcast that the back end puts before it; no tensor of the graph, always FLOOR deep."""

    name: str
    tokens: int  # of one inference
    bits: int  # of one token
    own: bool = False


@dataclass(frozen=True)
class Firing:
    """One step of a process, `times` in a row: FIFO indices with the tokens taken and given."""

    reads: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, int], ...]
    times: int = 1


@dataclass
class Process:
    name: str
    firings: list[Firing] = field(default_factory=list)

    def fire(self, reads: Iterable[int] = (), writes: Iterable[int] = (), times: int = 1) -> None:
        """One token of each FIFO named; a FIFO named twice gives two."""
        pair = _counted(reads), _counted(writes)
        if times == 0 or not any(pair):
            return
        last = self.firings[-1] if self.firings else None
        if last is not None and (last.reads, last.writes) == pair:
            self.firings[-1] = replace(last, times=last.times + times)
        else:
            self.firings.append(Firing(*pair, times))


def _counted(fifos: Iterable[int]) -> tuple[tuple[int, int], ...]:
    listed = list(fifos)
    return tuple((f, listed.count(f)) for f in sorted(set(listed)))


@dataclass
class Network:
    processes: list[Process]
    fifos: list[Fifo]


def tokens(tensor: Tensor) -> int:
    """One token holds all channels of one position."""
    return prod(tensor.shape[:-1])


def in_place(graph: Graph) -> frozenset[str]:
    """Reshapes to one axis that no process does: hls4ml's readers gather the tokens of what is reshaped (InplaceStreamFlatten)."""
    outputs = {t.name for t in graph.outputs}
    made = (op.output for op in graph.ops if isinstance(op, ops.Reshape))
    return frozenset(t.name for t in made if len(t.shape) == 1 and t.name not in outputs)


def window_padding(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D | ops.MaxPool | ops.SumPool) -> ops.Padding:
    """What an explicit Pad before the op must add for every window to be whole: with ceil_mode more than the op's own padding."""
    found = []
    out = op.output.shape
    for axis, kernel in enumerate(kernel_of(op)):
        before, after = op.padding[axis]
        reach = (out[axis] - 1) * op.strides[axis] + kernel - (op.input.shape[axis] + before)
        found.append((before, max(after, reach)))
    return tuple(found)


def kernel_of(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D | ops.MaxPool | ops.SumPool) -> tuple[int, ...]:
    """The window along each spatial axis, holes of a dilation included."""
    if isinstance(op, ops.MaxPool | ops.SumPool):
        return op.kernel
    shape = op.weight.tensor.shape
    spatial = shape[:2] if isinstance(op, ops.DepthwiseConv2D) else shape[1:-1]
    return tuple((k - 1) * d + 1 for k, d in zip(spatial, op.dilation, strict=True))


def network(graph: Graph) -> Network:
    """The processes of the graph, in order: a source that gives one graph input after another, the ops with the Pads, broadcasts
    and clones around them, a sink that takes one graph output after another (as the words on the wire come and go)."""
    if graph.states:
        what = f"keeps state %{graph.states[0].input.name}, which a stream cannot"
        raise UnsupportedError(f"graph {graph.name}", what, "use --io parallel")
    return _Builder(graph).build()


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fifos: list[Fifo] = []
        self.processes: list[Process] = []
        self.inplace = in_place(graph)
        self.operand: dict[tuple[str, int], int] = {}  # (op's output, position among its inputs) -> FIFO
        self.sink: dict[str, int] = {}
        self.uses: dict[str, list[tuple[Op, int] | None]] = {t.name: [] for t in graph.tensors()}
        for tensor in graph.outputs:  # hls4ml gives the first copy to the output
            self.uses[tensor.name].append(None)
        self.ops = graph.live_ops()
        for op in self.ops:
            for k, tensor in enumerate(inputs_of(op)):
                self.uses[tensor.name].append((op, k))

    def build(self) -> Network:
        source = self.process(SOURCE)
        for tensor in self.graph.inputs:
            if self.uses[tensor.name]:
                fifo = self.fifo(tensor.name, tensor)
                source.fire((), (fifo,), tokens(tensor))
                self.feed(fifo, tensor)
        for op in self.ops:
            if op.output.name in self.inplace:
                continue
            reads = [self.operand[op.output.name, k] for k in range(len(inputs_of(op)))]
            process = Process(op.output.name)
            out = self.fifo(op.output.name, op.output)
            self.fill(process, op, reads, out)
            self.processes.append(process)
            self.feed(out, op.output)
        sink = self.process(SINK)
        for tensor in self.graph.outputs:
            fifo = self.sink[tensor.name]
            sink.fire((fifo,), (), self.fifos[fifo].tokens)
        return Network(self.processes, self.fifos)

    def process(self, name: str) -> Process:
        self.processes.append(Process(name))
        return self.processes[-1]

    def fifo(self, name: str, tensor: Tensor, count: int | None = None, own: bool = False) -> int:
        bits = tensor.qtype.bits * tensor.channels
        self.fifos.append(Fifo(name, tokens(tensor) if count is None else count, bits, own))
        return len(self.fifos) - 1

    def feed(self, fifo: int, tensor: Tensor) -> None:
        """Give the FIFO that carries the tensor to its reader, through a clone where there are several."""
        uses = self.uses[tensor.name]
        if len(uses) == 1:
            self.hand(fifo, tensor, uses[0])
            return
        given = self.fifos[fifo]
        copies = []
        for k, _use in enumerate(uses):
            self.fifos.append(replace(given, name=f"{tensor.name}_cpy{k + 1}"))
            copies.append(len(self.fifos) - 1)
        self.process(f"{tensor.name}_clone").fire((fifo,), copies, given.tokens)
        for copy, use in zip(copies, uses, strict=True):
            self.hand(copy, tensor, use)

    def hand(self, fifo: int, tensor: Tensor, use: tuple[Op, int] | None) -> None:
        if use is None:
            self.sink[tensor.name] = fifo
        elif use[0].output.name in self.inplace:
            self.feed(fifo, use[0].output)
        else:
            self.operand[use[0].output.name, use[1]] = fifo

    def fill(self, process: Process, op: Op, reads: list[int], out: int) -> None:
        """What the op's kernel reads and writes, token by token."""
        gathered = [self.fifos[f].tokens // tokens(t) for f, t in zip(reads, inputs_of(op), strict=True)]
        if max(gathered) > 1:  # a flattened tensor is one token to its reader and many in the FIFO
            for fifo, count in zip(reads, gathered, strict=True):
                process.fire((fifo,), (), count)
            process.fire((), (out,), tokens(op.output))
            return
        match op:
            case ops.Dense() | ops.Requantize() | ops.Threshold() | ops.Lookup() | ops.Interpolate():
                process.fire(reads, (out,), tokens(op.output))
            case ops.ArgMax() | ops.Softmax() | ops.Softmax16():
                process.fire(reads, (out,), tokens(op.output))
            case ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D() | ops.MaxPool() | ops.SumPool():
                _windows(process, op, self.padded(op, reads[0]), out)
            case ops.Pad():
                _pad(process, op.padding[:-1], op.input.shape[:-1], reads[0], out)
            case ops.Add() | ops.Sub() | ops.Multiply():
                sides = [self.repeated(op, k, fifo) for k, fifo in enumerate(reads)]
                process.fire(sides, (out,), tokens(op.output))
            case ops.Concat():
                _concat(process, op, reads, out)
            case ops.Reshape():
                _repack(process, op, reads[0], out)
            case ops.Transpose():
                process.fire(reads, (), tokens(op.input))
                process.fire((), (out,), tokens(op.output))
            case ops.Slice():
                taken = np.zeros(op.input.shape[:-1], bool)
                taken[tuple(kept(op, axis) for axis in range(taken.ndim))] = True
                for writes in taken.ravel().tolist():
                    process.fire(reads, (out,) if writes else ())
            case ops.UpSample():
                row = op.input.shape[-2]
                for _ in range(tokens(op.input) // row):
                    process.fire(reads, (), row)
                    process.fire((), (out,), row * prod(op.factors))
            case _:
                raise assert_never(op)

    def padded(self, op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D | ops.MaxPool | ops.SumPool, fifo: int) -> int:
        """The FIFO behind the Pad that the back end puts before a window that reaches over the edge."""
        padding = window_padding(op)
        if not any(v for pair in padding for v in pair):
            return fifo
        spatial = op.input.shape[:-1]
        count = prod(n + a + b for n, (a, b) in zip(spatial, padding, strict=True))
        made = self.fifo(f"{op.output.name}_pad", op.input, count, own=True)
        _pad(self.process(f"{op.output.name}_pad"), padding, spatial, fifo, made)
        return made

    def repeated(self, op: ops.Add | ops.Sub | ops.Multiply, k: int, fifo: int) -> int:
        """The FIFO behind the broadcast of an operand that is smaller than the result."""
        tensor, shape = inputs_of(op)[k], op.output.shape
        if tensor.shape == shape:
            return fifo
        source = np.arange(tokens(tensor)).reshape(tensor.shape[:-1])
        needs = np.maximum.accumulate(np.broadcast_to(source, shape[:-1]).ravel()) + 1
        name = f"{op.output.name}_repeat{k + 1}"
        made = self.fifo(name, tensor, tokens(op.output), own=True)
        process = self.process(name)
        for reads in np.diff(needs, prepend=0).tolist():
            process.fire([fifo] * reads, (made,))
        return made


def _windows(
    process: Process,
    op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D | ops.MaxPool | ops.SumPool,
    fifo: int,
    out: int,
) -> None:
    """One token is read, and an output written when it ends a window: line buffers hold all that a window needs."""
    rows = [(1, 1, 1, 1)] if len(op.strides) == 1 else []  # (padded size, kernel, stride, windows)
    for n, (a, b), k, s, o in zip(
        op.input.shape, window_padding(op), kernel_of(op), op.strides, op.output.shape, strict=False
    ):
        rows.append((n + a + b, k, s, o))
    ends = [[(w * s + k - 1) for w in range(o)] for _, k, s, o in rows]
    high, wide = (row[0] for row in rows)
    last_row, last_column = set(ends[0]), set(ends[1])
    columns = [x in last_column for x in range(wide)]
    for y in range(high):
        if y not in last_row:
            process.fire((fifo,), (), wide)
            continue
        for writes in columns:
            process.fire((fifo,), (out,) if writes else ())


def _pad(process: Process, padding: ops.Padding, spatial: Sequence[int], fifo: int, out: int) -> None:
    inside = np.pad(np.ones(spatial, bool), padding) if spatial else np.ones(1, bool)
    for real in inside.ravel().tolist():
        process.fire((fifo,) if real else (), (out,))


def _concat(process: Process, op: ops.Concat, reads: Sequence[int], out: int) -> None:
    if op.axis == len(op.output.shape) - 1:
        process.fire(reads, (out,), tokens(op.output))
        return
    for _ in range(prod(op.output.shape[: op.axis])):
        for tensor, fifo in zip(op.inputs, reads, strict=True):
            process.fire((fifo,), (out,), prod(tensor.shape[op.axis : -1]))


def _repack(process: Process, op: ops.Reshape, fifo: int, out: int) -> None:
    """A token of the result as soon as its last element was read."""
    read, given, wanted = 0, op.input.channels, op.output.channels
    for k in range(tokens(op.output)):
        more = -(-(k + 1) * wanted // given) - read
        process.fire((fifo,), (), max(more - 1, 0))
        process.fire((fifo,) if more else (), (out,))
        read += more
