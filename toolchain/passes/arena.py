"""The arena: a byte offset for each stored tensor, such that no two that are needed at once overlap.

Graph inputs, outputs and states have memory of their own. A Reshape is another name for its input's memory, and an op on
one value at a time writes over an input it is the last to read. Offsets come from first fit over several orders; the
best is kept, and `lower_bound` says how good it could be.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from toolchain.ir import Graph, ops
from toolchain.ir.ops import Op, inputs_of
from toolchain.layout import SIZES, STAGES, chains, ctype, nbytes

from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

SHUFFLES = 200
ALIGN = 8  # of the arena itself; each tensor is aligned to its storage type


@dataclass
class Buffer:
    """Memory that one or more tensors share: needed from step `first` to step `last`, both included."""

    size: int
    align: int
    first: int
    last: int
    names: list[str] = field(default_factory=list)

    def take(self, other: Buffer) -> None:
        self.size, self.align = max(self.size, other.size), max(self.align, other.align)
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.names += other.names


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    """Best of with and without writing in place: sharing joins lifetimes, which may fit less well."""
    best: Plan | None = None
    for in_place in (True, False):
        found, alias = buffers(graph, plan, in_place)
        offsets, total = pack(found)
        arena = {name: offsets[id(b)] for b in found for name in b.names}
        order = [op.output.name for op in graph.ops if op.output.name in arena]
        made = replace(plan, arena={n: arena[n] for n in order}, arena_bytes=total, alias=alias)
        if best is None or made.arena_bytes < best.arena_bytes:
            best = made
    assert best is not None
    return graph, best


def buffers(graph: Graph, plan: Plan, in_place: bool = True) -> tuple[list[Buffer], dict[str, str]]:
    """The buffers that the arena must hold, and the tensors that live in a graph input, output or state instead."""
    steps = chains(graph, plan.fused)
    alias = _aliases(graph, steps)
    last = _last_reads(graph, steps, alias)
    pinned = _own_memory(graph)
    held: dict[str, Buffer] = {}  # by the tensor at the root of an alias chain
    for k, step in enumerate(steps):
        out = step[-1].output
        root = alias.get(out.name, out.name)
        if root in pinned:
            continue
        fresh = Buffer(nbytes(out), SIZES[ctype(out.qtype)], k, max(k, last.get(root, k)), [out.name])
        over = _writes_over(step, k, alias, last, held) if in_place else None
        if root in held:
            held[root].names.append(out.name)
        elif over is not None:
            over.take(fresh)
            held[root] = over
        else:
            held[root] = fresh
    outside = {name: root for name, root in alias.items() if root in pinned and name != root}
    unique = {id(b): b for b in held.values()}
    return list(unique.values()), outside


def _own_memory(graph: Graph) -> set[str]:
    return {t.name for t in (*graph.inputs, *graph.outputs, *(s.input for s in graph.states))}


def _aliases(graph: Graph, steps: Sequence[tuple[Op, ...]]) -> dict[str, str]:
    """For each side of a Reshape that needs no copy, the tensor whose memory it shares. Two pinned tensors never share."""
    pinned = _own_memory(graph)
    root: dict[str, str] = {}

    def find(name: str) -> str:
        while name in root:
            name = root[name]
        return name

    for step in steps:
        op = step[0]
        if isinstance(op, ops.Reshape):
            a, b = find(op.input.name), find(op.output.name)
            if a in pinned and b in pinned:
                continue
            if b in pinned:
                a, b = b, a
            root[b] = a
    return {name: find(name) for name in root}


def _last_reads(graph: Graph, steps: Sequence[tuple[Op, ...]], alias: dict[str, str]) -> dict[str, int]:
    """The last step that reads each memory; what a state becomes is read after all of them."""
    last: dict[str, int] = {}
    for k, step in enumerate(steps):
        for tensor in inputs_of(step[0]):
            last[alias.get(tensor.name, tensor.name)] = k
    for state in graph.states:
        last[alias.get(state.output.name, state.output.name)] = len(steps)
    return last


def _writes_over(
    step: tuple[Op, ...], k: int, alias: dict[str, str], last: dict[str, int], held: dict[str, Buffer]
) -> Buffer | None:
    """The buffer of an input that this step may write its output over: read here for the last time, element by element
    (by Softmax after its whole row was), and no narrower, so that a write never reaches what is still to be read."""
    op, out = step[0], step[-1].output
    if not isinstance(op, (*STAGES, ops.Add, ops.Sub, ops.Multiply, ops.Softmax)):
        return None
    for tensor in inputs_of(op):
        root = alias.get(tensor.name, tensor.name)
        buffer = held.get(root)
        if buffer is None or last.get(root, k) > k or tensor.shape != out.shape:
            continue
        if SIZES[ctype(out.qtype)] <= SIZES[ctype(tensor.qtype)]:
            return buffer
    return None


def pack(found: Sequence[Buffer]) -> tuple[dict[int, int], int]:
    """An offset for each buffer (by id), and the bytes of all: the best of several orders, placed first fit."""
    orders = [
        sorted(found, key=lambda b: (-b.size, b.first, b.names)),
        sorted(found, key=lambda b: (-b.size * (b.last - b.first + 1), b.first, b.names)),
        sorted(found, key=lambda b: (b.first, -b.size, b.names)),
        sorted(found, key=lambda b: (b.first - b.last, -b.size, b.names)),
    ]
    bound = lower_bound(found)
    best: tuple[dict[int, int], int] | None = None
    shuffled = random.Random(0)  # the same plan every time
    for attempt in range(SHUFFLES + len(orders)):
        if attempt < len(orders):
            order = orders[attempt]
        else:
            order = sorted(found, key=lambda b: -b.size * shuffled.uniform(0.5, 1.5))
        offsets, total = place(order)
        if best is None or total < best[1]:
            best = offsets, total
        if best[1] <= bound:
            break
    assert best is not None
    return best


def place(order: Iterable[Buffer]) -> tuple[dict[int, int], int]:
    """First fit: each buffer at the lowest offset that no buffer placed before it and needed at the same time covers."""
    placed: list[tuple[int, Buffer]] = []
    total = 0
    for buffer in order:
        at = 0
        for offset, other in sorted(((o, b) for o, b in placed if _together(b, buffer)), key=lambda p: p[0]):
            if at + buffer.size <= offset:
                break
            at = max(at, _align(offset + other.size, buffer.align))
        placed.append((at, buffer))
        total = max(total, at + buffer.size)
    return {id(b): o for o, b in placed}, total


def lower_bound(found: Sequence[Buffer]) -> int:
    """The most bytes that are needed at any one step: no plan with these buffers is smaller."""
    return max((sum(b.size for b in found if b.first <= k <= b.last) for k in {b.first for b in found}), default=0)


def _together(a: Buffer, b: Buffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def _align(offset: int, align: int) -> int:
    return -(-offset // align) * align
