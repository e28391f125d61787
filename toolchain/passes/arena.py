"""The arena: a byte offset for each stored tensor, such that nothing is written over what is still to be read.

Graph inputs, outputs and states have memory of their own. A Reshape is another name for its input's memory; the inputs of a
Concat are written straight into their place where that is one run of memory; an output lies over the input that its kernel
reads for the last time as far as toolchain/overlap.py proves it may. For this order of the ops and these stored tensors
`packing` finds the fewest bytes, or says how far from them it may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from toolchain import overlap
from toolchain.ir import Graph, ops
from toolchain.ir.ops import inputs_of
from toolchain.layout import SIZES, WORDS, Chain, chains, concat_starts, ctype, head, nbytes, reads, view_start

from .packing import Body, Piece, Problem, need, pack
from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

WORD = 4  # alignment of what a kernel for a particular core loads by words
INPUTS, OPS = 5, 80  # every choice of inputs of Concats is tried in graphs of so few, for each is a search of its own
ALIGN = 8  # of the arena itself; each tensor is aligned to its storage type


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    """The smallest of some plans: with the inputs of Concats in place, all, some or none, for what is joined early must then lie side
    by side; with outputs at the one place over their input that some kernels allow and with none there."""
    first = Views(graph, plan)
    bound = _least(graph, plan) if first.joined else 0
    made: list[Plan] = []
    for way in _ways(graph, plan, first):
        made.append(planned(graph, plan, way))
        if made[-1].arena_bytes == bound:
            break
    best = min(made, key=lambda p: p.arena_bytes)  # the first of equals, which copies less
    # a search proves nothing of plans that lay some outputs over their inputs and others not, or place some inputs of a Concat
    below = min(bound, best.arena_bytes) if first.joined else min(p.arena_lower_bound for p in made)
    every = first.laid < 2 and (not first.joined or _few(graph, _inputs(graph, first)))
    proved = min(p.arena_proved for p in made) if every and best.arena_bytes > below else below
    return graph, replace(best, arena_lower_bound=below, arena_proved=proved)


def _ways(graph: Graph, plan: Plan, first: Views) -> Iterator[Views]:
    """Those where most is joined before those where less is; with few inputs of Concats every choice of them."""
    inputs = _inputs(graph, first)
    some = range(len(inputs), -1, -1) if _few(graph, inputs) else (len(inputs), 0)
    for count in some if first.joined else (len(inputs),):
        for join in combinations(inputs, count):
            for lay in (True, False) if first.laid else (True,):
                yield first if lay and count == len(inputs) else Views(graph, plan, frozenset(join), lay)


def _inputs(graph: Graph, views: Views) -> list[tuple[str, int]]:
    """What may be written to its place in a Concat."""
    return [
        (op.output.name, k)
        for op in graph.ops
        if isinstance(op, ops.Concat) and concat_starts(op) is not None
        for k, t in enumerate(op.inputs)
        if t.name not in views.pinned and ctype(t.qtype) == ctype(op.output.qtype)
    ]


def _few(graph: Graph, inputs: Sequence[tuple[str, int]]) -> bool:
    return len(inputs) <= INPUTS and len(graph.ops) <= OPS


def _least(graph: Graph, plan: Plan) -> int:
    """What no plan takes less than, whichever inputs of Concats are written to their place: the most that is needed at one step with
    none there, without what might lie in a graph output and what is needed beside a Concat of it."""
    views = [Views(graph, plan, frozenset(), lay) for lay in (True, False)]
    problems = [problem(graph, plan, way)[0] for way in views]
    steps = chains(graph, plan.fused)
    last = _last_reads(graph, steps, views[1])
    made = {step[-1].output.name: k for k, step in enumerate(steps)}
    given = set(views[1].pinned)
    for op in reversed(graph.ops):
        if isinstance(op, (ops.Concat, ops.Reshape)) and op.output.name in given:
            given |= {t.name for t in inputs_of(op)}
    concats = [op for op in graph.ops if isinstance(op, ops.Concat)]
    sizes = {t.name: nbytes(t) for t in graph.tensors() if t.name in made and t.name not in views[1].pinned}
    most = 0
    for k in range(len(steps)):
        live = {name for name in sizes if made[name] <= k <= max(made[name], last.get(name, -1))}
        parts = {t.name for op in concats if op.output.name in live for t in op.inputs}
        less = sum(sizes[name] for name in live & (parts | given))
        most = max(most, min(need(each, k) for each in problems) - less)
    return most


def needs(graph: Graph, plan: Plan) -> list[int]:
    """For each step the bytes that it takes at least, wherever all lies."""
    found, _ = problem(graph, plan, Views(graph, plan))
    return [need(found, k) for k in range(len(chains(graph, plan.fused)))]


def planned(graph: Graph, plan: Plan, views: Views) -> Plan:
    found, roots = problem(graph, plan, views)
    packing = pack(found)
    start = dict(zip(roots, packing.offsets, strict=True))
    arena: dict[str, int] = {}
    alias: dict[str, str] = {}
    within: dict[str, int] = {}
    for op in graph.ops:
        name = op.output.name
        if name in plan.fused:
            continue
        root, at = views.find(name)
        if root not in views.pinned:
            arena[name] = start[root] + at
        elif name != root:
            alias[name] = root
            within |= {name: at} if at else {}
    scratch_at = {name: start[_scratch(name)] for name in plan.scratch}
    made = replace(plan, arena=arena, arena_bytes=packing.total, alias=alias, within=within, scratch_at=scratch_at)
    return replace(made, arena_lower_bound=packing.lower_bound, arena_proved=packing.proved)


class Views:
    """Which tensors are names for memory of another, and how many bytes from its start."""

    def __init__(
        self, graph: Graph, plan: Plan, join: frozenset[tuple[str, int]] | None = None, lay: bool = True
    ) -> None:
        """`join`: the inputs of Concats, by output and number, that may be written to their place; None for all."""
        self.pinned = {t.name for t in (*graph.inputs, *graph.outputs, *(s.input for s in graph.states))}
        self.base: dict[str, tuple[str, int]] = {}
        self.views: set[str] = set()  # outputs of ops that need no code
        self.joined = 0  # inputs of Concats that are written to their place
        self.laid = 0  # outputs at the one place over their input where their kernel may write them
        sizes = {t.name: nbytes(t) for t in graph.tensors()}
        steps = chains(graph, plan.fused)
        for step in steps:
            op = head(step)
            if isinstance(op, (ops.Reshape, ops.Slice)):
                self._view(op, sizes)
            elif isinstance(op, ops.Concat):
                self._concat(op, sizes, join)
        last = _last_reads(graph, steps, self)
        for k, step in enumerate(steps) if lay else ():
            apart = overlap.exact(step, plan.kernels)
            if apart is not None:
                self._lay(reads(step)[0].name, step[-1].output.name, apart, k, last, sizes)

    def find(self, name: str) -> tuple[str, int]:
        at = 0
        while name in self.base:
            name, more = self.base[name]
            at += more
        return name, at

    def _view(self, op: ops.Reshape | ops.Slice, sizes: dict[str, int]) -> None:
        """The output is a name of its part of the input's memory; the input one of the output's, if that is as large and has memory
        of its own."""
        start = view_start(op)
        (a, at), (b, _) = self.find(op.input.name), self.find(op.output.name)
        if start is None:
            return
        if b not in self.pinned:
            self.base[b] = a, at + start
        elif a not in self.pinned and sizes[a] == sizes[b]:  # the input may be a part of what a Concat joined
            self.base[a] = b, 0
        else:
            return
        self.views.add(op.output.name)

    def _concat(self, op: ops.Concat, sizes: dict[str, int], join: frozenset[tuple[str, int]] | None) -> None:
        """Each input that has memory to itself gets its place in the output's; where all have, nothing is left to do."""
        starts, kind = concat_starts(op), ctype(op.output.qtype)
        root, at = self.find(op.output.name)
        placed = 0
        for k, (t, start) in enumerate(zip(op.inputs, starts or (), strict=starts is not None)):
            if join is not None and (op.output.name, k) not in join:
                continue
            own, inside = self.find(t.name)
            whole = inside == 0 and sizes[own] == nbytes(t)
            if whole and own not in self.pinned and own != root and ctype(t.qtype) == kind:
                self.base[own] = root, at + start
                placed += 1
        self.joined += placed
        if placed == len(op.inputs):
            self.views.add(op.output.name)

    def _lay(self, x: str, y: str, apart: int, k: int, last: Mapping[str, int], sizes: Mapping[str, int]) -> None:
        """The output y of step k `apart` bytes below its input x, where both have memory to themselves and x is read last here."""
        (own, at), (other, within) = self.find(x), self.find(y)
        alone = not at and not within and other == y and own != other and not self.pinned & {own, other}
        read = max(last.get(name, -1) for name in sizes if self.find(name)[0] == own)
        if alone and sizes[own] == sizes[x] and read == k:
            self.base[own] = y, apart
            self.laid += 1


def problem(graph: Graph, plan: Plan, views: Views) -> tuple[Problem, tuple[str, ...]]:
    """What the arena must hold: a body for each memory of its own, a piece of it for each time and place that is written, the
    scratch of each kernel among them; and the name of each body, which is the tensor at its start."""
    steps = chains(graph, plan.fused)
    words = {inputs_of(op)[0].name for op in graph.ops if op.output.name in plan.kernels}
    words |= {s.output.name for s in graph.states if nbytes(s.output) >= WORDS}  # copied at the end, by words
    last = _last_reads(graph, steps, views)
    pieces: dict[str, list[Piece]] = {}  # by the root
    aligns: dict[str, int] = {}
    piece_of: dict[str, str] = {}  # a tensor -> the piece that holds it
    for k, step in enumerate(steps):
        out, op = step[-1].output, head(step)
        if op.output.name in plan.scratch:
            name = _scratch(op.output.name)
            pieces[name], aligns[name] = [Piece(name, plan.scratch[op.output.name], k, k)], ALIGN
        root, at = views.find(out.name)
        if root in views.pinned:
            continue
        if isinstance(op, (ops.Reshape, ops.Slice)) and out.name in views.views:
            holder = op.input.name
            if holder in piece_of:
                piece_of[out.name] = piece_of[holder]
                continue
        ends = max(k, last.get(out.name, k))
        pieces.setdefault(root, []).append(Piece(out.name, nbytes(out), k, ends, at))
        aligns[root] = max(aligns.get(root, 1), SIZES[ctype(out.qtype)], WORD if out.name in words else 1)
        piece_of[out.name] = out.name
    bodies = tuple(Body(tuple(sorted(found, key=lambda p: p.at)), aligns[root]) for root, found in pieces.items())
    ends_at = {p.name: p.last for body in bodies for p in body.pieces}
    over: dict[tuple[str, str], int] = {}
    for k, step in enumerate(steps):
        y = step[-1].output.name
        if y not in ends_at:
            continue
        below: dict[str, list[int | None]] = {}
        for operand, t in enumerate(reads(step)):
            x = piece_of.get(t.name)
            if x is not None and ends_at[x] == k and views.find(x)[0] != views.find(y)[0]:
                below.setdefault(x, []).append(overlap.distance(step, operand, plan.kernels))
        for x, found in below.items():
            known = [d for d in found if d is not None]
            if len(known) == len(found):
                over[y, x] = max(known)
    return Problem(bodies, over), tuple(pieces)


def _scratch(name: str) -> str:
    """The memory that the kernel of an op needs while it runs, among the names of tensors, which have no spaces."""
    return f"scratch of {name}"


def _last_reads(graph: Graph, steps: Sequence[Chain], views: Views) -> dict[str, int]:
    """The last step at which a tensor's bytes are needed under its name or that of a Reshape of it. What a state becomes is
    read after all steps; what goes into a Concat in place, until that takes over."""
    last: dict[str, int] = {s.output.name: len(steps) for s in graph.states}
    for k, step in reversed(list(enumerate(steps))):
        op = head(step)
        view = isinstance(op, (ops.Reshape, ops.Slice)) and op.output.name in views.views
        for t in reads(step):
            until = max(k, last.get(op.output.name, k)) if view else k
            last[t.name] = max(last.get(t.name, -1), until)
    return last
