"""Offsets for pieces of memory with lifetimes, in as few bytes as possible, and what is proved of that.

A body is one or more pieces that keep their distances; a piece needs its bytes from step `first` to step `last`. Pieces
needed at one step may not overlap, but for a pair in `over`: a piece that is written at the step that reads the other for
the last time, which may then start d bytes or more below it. One rule: the same bodies get the same offsets, on every
machine and after any time: the search ends when all is tried or a count of nodes is reached, never by a clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

TRIES = 300
NODES = 4_000  # of the search: less than a second
DEEPEST = 400  # bodies: the search goes as deep


@dataclass(frozen=True)
class Piece:
    """`at` bytes from the start of its body."""

    name: str
    size: int
    first: int
    last: int
    at: int = 0


@dataclass(frozen=True)
class Body:
    pieces: tuple[Piece, ...]
    align: int = 1

    @property
    def size(self) -> int:
        return max(p.at + p.size for p in self.pieces)

    @property
    def first(self) -> int:
        return min(p.first for p in self.pieces)

    @property
    def steps(self) -> int:
        return max(p.last for p in self.pieces) - self.first + 1


@dataclass(frozen=True)
class Problem:
    """`over[y, x]`: how far below piece x piece y must start to lie over it, where y is written when x is read last."""

    bodies: tuple[Body, ...]
    over: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Packing:
    """An offset for each body. No offsets take fewer bytes than `lower_bound`, the most that is needed at one step, nor fewer
    than `proved`: the same, or `total` where a search through all that is smaller found nothing."""

    offsets: tuple[int, ...]
    total: int
    lower_bound: int
    proved: int


def pack(problem: Problem, nodes: int = NODES) -> Packing:
    """First fit in several orders; where the lower bound is not reached, a search for something smaller.

    Bodies that are never needed together lie as they like, and a search through their orders is long. What is needed in a
    few steps alone often takes as much as all, and few bodies are soon searched through: so windows of steps come first.
    """
    bound = lower_bound(problem)
    offsets = _first_fit(problem, bound, TRIES)
    total = extent(problem, offsets)
    moments, width = _moments(problem), 2
    while total > bound and nodes > 0:
        whole = width >= len(moments)
        for begin in range(1 if whole else len(moments) - width + 1):
            part = problem if whole else _within(problem, moments[begin], moments[begin + width - 1])
            if not whole and extent(part, _first_fit(part, total - 1, TRIES // 10)) < total:
                continue
            search = Search(part, total, bound if whole else total - 1, nodes)
            found = search.run()
            nodes = search.left
            if found is None and search.exhausted:
                return Packing(offsets, total, bound, total)
            if found is not None and whole:
                offsets, total = found, extent(problem, found)
                if search.exhausted:
                    return Packing(offsets, total, bound, total)
        if whole:
            break
        width += max(1, width // 2)
    return Packing(offsets, total, bound, bound)


def _within(problem: Problem, begin: int, end: int) -> Problem:
    """The bodies that are needed at one of these steps."""
    bodies = tuple(b for b in problem.bodies if any(p.first <= end and p.last >= begin for p in b.pieces))
    names = {p.name for b in bodies for p in b.pieces}
    return Problem(bodies, {pair: d for pair, d in problem.over.items() if names.issuperset(pair)})


def extent(problem: Problem, offsets: Sequence[int]) -> int:
    return max((at + body.size for at, body in zip(offsets, problem.bodies, strict=True)), default=0)


# what cannot be


Intervals = tuple[tuple[int, int], ...]  # open: their ends are allowed


def _barred(problem: Problem) -> list[dict[int, Intervals]]:
    """For each body and each other the distances, other's offset less its own, at which they would collide."""
    bodies = problem.bodies
    found: list[dict[int, Intervals]] = [{} for _ in bodies]
    for g, one in enumerate(bodies):
        for h in range(g + 1, len(bodies)):
            spans = sorted(
                _span(problem, p, q)
                for p in one.pieces
                for q in bodies[h].pieces
                if p.first <= q.last and q.first <= p.last
            )
            merged: list[tuple[int, int]] = []
            for lo, hi in spans:
                if merged and lo < merged[-1][1]:
                    merged[-1] = merged[-1][0], max(hi, merged[-1][1])
                elif lo < hi:
                    merged.append((lo, hi))
            if merged:
                found[g][h] = tuple(merged)
                found[h][g] = tuple((-hi, -lo) for lo, hi in reversed(merged))
    return found


def _span(problem: Problem, p: Piece, q: Piece) -> tuple[int, int]:
    """The distances between the bodies at which these two of their pieces collide."""
    below = min(problem.over.get((q.name, p.name), q.size), q.size)  # how far q must start below p
    above = min(problem.over.get((p.name, q.name), p.size), p.size)
    return p.at - q.at - below, p.at - q.at + above


# what must be


def lower_bound(problem: Problem) -> int:
    """The most bytes that are needed at any one step, what may be shared counted once: no offsets take fewer."""
    return max((need(problem, k) for k in _moments(problem)), default=0)


def _moments(problem: Problem) -> list[int]:
    return sorted({p.first for body in problem.bodies for p in body.pieces})


def need(problem: Problem, k: int) -> int:
    """The bytes that are needed at step k, what may be shared counted once."""
    total = sum(_covered(body, k) for body in problem.bodies)
    return total - sum(_shared(problem, y, xs) for y, xs in _pairs(problem, k))


def _covered(body: Body, k: int) -> int:
    """The bytes of a body that some piece needs at step k."""
    total = end = 0
    for p in sorted((p for p in body.pieces if p.first <= k <= p.last), key=lambda p: p.at):
        total += max(0, p.at + p.size - max(end, p.at))
        end = max(end, p.at + p.size)
    return total


def _pairs(problem: Problem, k: int) -> list[tuple[Piece, list[Piece]]]:
    """The pieces written at step k that may lie over others, and these."""
    pieces = {p.name: p for body in problem.bodies for p in body.pieces}
    found: dict[str, list[Piece]] = {}
    for y, x in problem.over:
        if pieces[y].first == k:
            found.setdefault(y, []).append(pieces[x])
    return [(pieces[y], xs) for y, xs in found.items()]


def _shared(problem: Problem, y: Piece, xs: Sequence[Piece]) -> int:
    """The most bytes that y can share with those it may lie over, which stay apart from one another."""
    best = 0
    for count in range(1, min(len(xs), 3) + 1):
        for order in permutations(xs, count):
            end = shared = 0
            for x in order:
                begin = max(end, problem.over[y.name, x.name])
                shared += max(0, min(x.size, y.size - begin))
                end = begin + x.size
            best = max(best, shared)
    return best if len(xs) <= 3 else min(y.size, sum(x.size for x in xs))


# first fit


def _first_fit(problem: Problem, enough: int, tries: int) -> tuple[int, ...]:
    """The best of several orders, and of what becomes of it where bodies, those at the top above all, are placed earlier;
    ended by what is `enough`."""
    bodies, barred = problem.bodies, _barred(problem)
    everything = range(len(bodies))
    if not bodies:
        return ()
    orders: list[list[int]] = [
        sorted(everything, key=lambda i: (-bodies[i].size, bodies[i].first, i)),
        sorted(everything, key=lambda i: (-bodies[i].size * bodies[i].steps, bodies[i].first, i)),
        sorted(everything, key=lambda i: (bodies[i].first, -bodies[i].size, i)),
        sorted(everything, key=lambda i: (-bodies[i].first, -bodies[i].size, i)),
        sorted(everything, key=lambda i: (-bodies[i].steps, -bodies[i].size, i)),
    ]
    chance = random.Random(0)  # the same every time
    best = min((_tried(problem, barred, order) for order in orders), key=lambda found: found[0])
    for _ in range(tries):
        if best[0] <= enough:
            break
        total, offsets, order = best
        moved = order.copy()
        highest = [i for i in everything if offsets[i] + bodies[i].size == total]
        late = moved.index(chance.choice(highest if chance.random() < 0.5 else list(everything)))
        moved.insert(chance.randrange(late + 1), moved.pop(late))
        found = _tried(problem, barred, moved)
        best = found if found[0] <= total else best
    return best[1]


def _tried(
    problem: Problem, barred: list[dict[int, Intervals]], order: list[int]
) -> tuple[int, tuple[int, ...], list[int]]:
    offsets = _place(problem.bodies, barred, order)
    return extent(problem, offsets), offsets, order


def _place(bodies: Sequence[Body], barred: list[dict[int, Intervals]], order: Iterable[int]) -> tuple[int, ...]:
    """Each body at the lowest offset where it collides with none placed before it."""
    offsets = [-1] * len(bodies)
    for b in order:
        taken = sorted(
            (offsets[a] + lo, offsets[a] + hi)
            for a, spans in barred[b].items()
            if offsets[a] >= 0
            for lo, hi in ((-hi, -lo) for lo, hi in spans)
        )
        at, align = 0, bodies[b].align
        for lo, hi in taken:
            if lo < at < hi:
                at = -(-hi // align) * align
        offsets[b] = at
    return tuple(offsets)


# the search


class Search:
    """Branch and bound over the order of offsets, from the lowest up.

    In some best packing no body can move down alone. Take its bodies by (offset, rank): each lies at the least offset that
    those before it leave, so placing bodies one by one, each after and not below the last, meets that packing. `rank` puts
    a body that may start with another, and lie over it, before that one. This holds where each two bodies collide at one
    run of distances with 0 in it or at its end; else (bodies of several pieces can have others in their gaps) `exhausted` stays
    false, for some packings were not tried.

    A node is given up where, at some step, what is still to be placed, above the lowest place left for any of it, reaches the best.
    """

    def __init__(self, problem: Problem, total: int, enough: int, nodes: int) -> None:
        self.bodies, self.best, self.enough = problem.bodies, total, enough
        self.left = nodes if len(problem.bodies) <= DEEPEST else 0
        self.found: tuple[int, ...] | None = None
        self.complete = True
        count = len(problem.bodies)
        self.up: list[dict[int, int]] = [{} for _ in range(count)]  # how far above body a body b lies at least
        for a, others in enumerate(_barred(problem)):
            for b, spans in others.items():
                lo, hi = spans[0][0], spans[-1][1]
                self.complete &= len(spans) == 1 and lo <= 0 <= hi
                self.up[a][b] = max(hi, 0)
        self.rank = self._ranks()
        self.crowds = self._crowds(problem)
        self.exhausted = False

    def _ranks(self) -> list[int]:
        """A body that another may start with, above it by 0 bytes, comes before it."""
        ranks, after = [-1] * len(self.bodies), [0] * len(self.bodies)
        for others in self.up:
            for b, distance in others.items():
                after[b] += distance == 0
        ready = [b for b, waits in enumerate(after) if not waits]
        number = 0
        while ready:
            a = ready.pop(0)
            ranks[a] = number
            number += 1
            for b, distance in self.up[a].items():
                after[b] -= distance == 0
                if distance == 0 and not after[b]:
                    ready.append(b)
        self.complete &= number == len(self.bodies)
        return ranks

    def _crowds(self, problem: Problem) -> list[tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]]:
        """For each step at which most is needed around it: (body, where its first piece starts, bytes), and what may be shared:
        (writer's body, bits of the bodies below it, bytes)."""
        owner = {p.name: b for b, body in enumerate(problem.bodies) for p in body.pieces}
        found = []
        alive_at = {
            k: frozenset(b for b, body in enumerate(problem.bodies) if _covered(body, k)) for k in _moments(problem)
        }
        for k, alive in alive_at.items():
            if any(alive < other and not _pairs(problem, at) for at, other in alive_at.items()):
                continue
            rows = [
                (b, min(p.at for p in self.bodies[b].pieces if p.first <= k <= p.last), _covered(self.bodies[b], k))
                for b in sorted(alive)
            ]
            shares = [
                (owner[y.name], sum({1 << owner[x.name] for x in xs}), _shared(problem, y, xs))
                for y, xs in _pairs(problem, k)
            ]
            found.append((rows, shares))
        return found

    def run(self) -> tuple[int, ...] | None:
        """Offsets that take fewer bytes than `total`, the fewest or no more than are enough; None where none were found."""
        self._down([0] * len(self.bodies), [-1] * len(self.bodies), 0, (0, -1))
        self.exhausted = self.complete and self.left > 0
        return self.found

    def _down(self, least: list[int], offsets: list[int], placed: int, last: tuple[int, int]) -> None:
        """`least`: the lowest offset that is left for each body that is not placed."""
        if self.left <= 0:
            return
        self.left -= 1
        waiting = [b for b, at in enumerate(offsets) if at < 0]
        if not waiting:
            self.best = max(at + body.size for at, body in zip(offsets, self.bodies, strict=True))
            self.found = tuple(offsets)
            return
        if any(max(least[b], last[0]) + self.bodies[b].size >= self.best for b in waiting):
            return
        if self._too_high(least, placed, last[0]):
            return
        for b in sorted(waiting, key=lambda b: (least[b], -self.bodies[b].size, self.rank[b])):
            if self.left <= 0 or self.best <= self.enough:
                return
            at = least[b]
            if at + self.bodies[b].size >= self.best or (at, self.rank[b]) < last:
                continue  # below the last it waits for another to lift it: else it could lie lower, before the last
            then = least.copy()
            for other, distance in self.up[b].items():
                if offsets[other] < 0:
                    align = self.bodies[other].align
                    then[other] = max(then[other], -(-(at + distance) // align) * align)
            offsets[b] = at
            self._down(then, offsets, placed | 1 << b, (at, self.rank[b]))
            offsets[b] = -1

    def _too_high(self, least: list[int], placed: int, floor: int) -> bool:
        for rows, shares in self.crowds:
            start, bytes_left = self.best, 0
            for b, at, size in rows:
                if not placed >> b & 1:
                    bytes_left += size
                    start = min(start, max(least[b], floor) + at)
            if not bytes_left:
                continue
            for writer, below, share in shares:
                if not placed >> writer & 1 and below & ~placed:
                    bytes_left -= share
            if start + bytes_left >= self.best:
                return True
        return False
