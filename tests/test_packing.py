"""Offsets of bodies, against brute force over every offset: what is called optimal is, and no bound is above what is possible."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest

from tests.graphs import random_graph
from toolchain.passes import Plan, arena, dead, fusion
from toolchain.passes.packing import Body, Packing, Piece, Problem, Search, extent, lower_bound, pack


def spans(*rows: tuple[int, int, int]) -> Problem:
    return Problem(tuple(Body((Piece(f"t{k}", *row),)) for k, row in enumerate(rows)))


def collides(problem: Problem, offsets: tuple[int, ...], a: int, b: int) -> bool:
    """By the bytes themselves: two pieces needed at one step share one, and neither was written as far below as it must be."""
    for p, q in product(problem.bodies[a].pieces, problem.bodies[b].pieces):
        if p.last < q.first or q.last < p.first:
            continue
        mine, its = (
            range(offsets[a] + p.at, offsets[a] + p.at + p.size),
            range(offsets[b] + q.at, offsets[b] + q.at + q.size),
        )
        if not set(mine) & set(its):
            continue
        below, above = problem.over.get((p.name, q.name)), problem.over.get((q.name, p.name))
        if (below is not None and mine[0] <= its[0] - below) or (above is not None and its[0] <= mine[0] - above):
            continue
        return True
    return False


def valid(problem: Problem, offsets: tuple[int, ...]) -> bool:
    bodies = problem.bodies
    aligned = all(at >= 0 and at % body.align == 0 for at, body in zip(offsets, bodies, strict=True))
    return aligned and not any(collides(problem, offsets, a, b) for a in range(len(bodies)) for b in range(a))


def least(problem: Problem, below: int) -> int:
    """The fewest bytes of all offsets whatever, if fewer than `below`."""
    bodies, best = problem.bodies, below
    offsets = [0] * len(bodies)

    def place(b: int) -> None:
        nonlocal best
        if b == len(bodies):
            best = min(best, extent(problem, offsets))
            return
        for at in range(0, best - bodies[b].size, bodies[b].align):
            if at + bodies[b].size >= best:
                break
            offsets[b] = at
            if not any(collides(problem, tuple(offsets), a, b) for a in range(b)):
                place(b + 1)

    place(0)
    return best


def random_problem(seed: int) -> Problem:
    """A few small bodies, some of two or three pieces, some pairs of which one may lie over the other."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 6))
    bodies = []
    for k in range(count):
        align = int(rng.choice([1, 1, 2]))
        size = align * int(rng.integers(1, 5 if align == 1 else 3))
        first = int(rng.integers(0, 6))
        last = first + int(rng.integers(0, 4))
        pieces = [Piece(f"t{k}", size, first, last)]
        if size > align and rng.integers(4) == 0:  # joined from two, which were there before
            half = size // align // 2 * align
            starts = [max(0, first - int(rng.integers(1, 4))) for _ in "ab"]
            pieces += [Piece(f"t{k}a", half, starts[0], first), Piece(f"t{k}b", size - half, starts[1], first, half)]
        bodies.append(Body(tuple(pieces), align))
    over = {}
    pieces = [(b, p) for b, body in enumerate(bodies) for p in body.pieces]
    for (a, y), (b, x) in product(pieces, pieces):
        if a != b and y.first == x.last and x.first < y.first and rng.integers(2):
            grain = min(bodies[a].align, bodies[b].align)
            over[y.name, x.name] = int(rng.integers(0, y.size // grain + 1)) * grain
    return Problem(tuple(bodies), over)


@pytest.mark.parametrize("start", range(0, 300, 100))
def test_brute_force_finds_nothing_smaller(start: int) -> None:
    proved = searched = 0
    for seed in range(start, start + 100):
        problem = random_problem(seed)
        found = pack(problem)
        assert valid(problem, found.offsets), seed
        best = least(problem, found.total)
        assert found.lower_bound <= found.proved <= best <= found.total, seed
        assert found.proved < found.total or best == found.total, seed
        proved += found.proved == found.total
        searched += found.proved > found.lower_bound
    assert proved >= 97  # bodies of several pieces may have others in their gaps: those are not all tried
    assert searched >= 1


def test_the_search_alone_finds_the_optimum() -> None:
    """Without first fit: from nothing, with all the nodes that it wants."""
    tried = 0
    for seed in range(120):
        problem = random_problem(seed)
        most = sum(body.size + body.align for body in problem.bodies) + 1
        search = Search(problem, most, 0, 100_000)
        found = search.run()
        assert found is not None and valid(problem, found)
        if search.exhausted:
            tried += 1
            assert extent(problem, found) == least(problem, extent(problem, found)), seed
    assert tried > 90


@pytest.mark.parametrize("seed", range(12))
def test_brute_force_on_graphs(seed: int) -> None:
    """The bodies of a random graph, their sizes and distances brought down to a few bytes each."""
    graph = random_graph(seed, 7)
    graph, plan = fusion.run(*dead.run(graph, Plan(), None), None)
    problem, _ = arena.problem(graph, plan, arena.Views(graph, plan))
    kept = [b for b in problem.bodies if len(b.pieces) == 1][:6]
    scale = max([b.size for b in kept], default=1) / 6
    small = {b.pieces[0].name: max(1, round(b.size / scale)) for b in kept}
    bodies = tuple(Body((Piece(p.name, small[p.name], p.first, p.last),)) for b in kept for p in b.pieces)
    over = {k: min(round(d / scale), small[k[0]]) for k, d in problem.over.items() if small.keys() >= set(k)}
    problem = Problem(bodies, over)
    found = pack(problem)
    assert found.proved == found.total
    assert valid(problem, found.offsets)
    assert least(problem, found.total) == found.total


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([], 0),
        ([(10, 0, 1)], 10),
        ([(10, 0, 1), (20, 1, 2), (10, 2, 3)], 30),
        ([(100, 0, 1), (50, 1, 2), (100, 2, 3), (50, 3, 4)], 150),
        # largest first alone takes 17
        ([(3, 1, 3), (7, 1, 1), (8, 3, 5), (7, 4, 5), (9, 0, 0), (5, 0, 2)], 15),
        ([(8, 0, 9), (1, 0, 1), (2, 1, 2), (3, 2, 3), (4, 3, 4)], 15),
    ],
)
def test_known_best(rows: list[tuple[int, int, int]], best: int) -> None:
    problem = spans(*rows)
    found = pack(problem)
    assert found.total == best == lower_bound(problem) == found.proved
    assert valid(problem, found.offsets)


def test_alignment_leaves_room() -> None:
    rows = ((3, 1), (8, 4), (2, 2))
    problem = Problem(tuple(Body((Piece(f"t{k}", size, 0, 1),), align) for k, (size, align) in enumerate(rows)))
    found = pack(problem)
    assert valid(problem, found.offsets)
    assert found.total == 13


def test_what_lies_over_another_counts_once() -> None:
    """y begins 3 bytes below x or more, so that of 4 and 4 bytes one is shared; z goes below both at no less than theirs."""
    x, y, z = Piece("x", 4, 0, 1), Piece("y", 4, 1, 2), Piece("z", 2, 0, 1)
    found = pack(Problem((Body((x,)), Body((y,))), {("y", "x"): 3}))
    assert (found.total, found.lower_bound) == (7, 7)
    found = pack(Problem((Body((x,)), Body((y,)), Body((z,))), {("y", "x"): 3, ("y", "z"): 1}))
    assert (found.total, found.lower_bound, found.proved) == (7, 7, 7)  # z and the first byte of x under y's last three


def test_what_may_lie_in_a_gap_is_not_claimed() -> None:
    """`b`, the upper half of what is joined, is there while `t` and `u` are, and `a` is not yet: both may lie where it will,
    one of them above the start of the body. The search does not try that, and says so."""
    joined = Body((Piece("ab", 4, 5, 5), Piece("a", 2, 3, 5), Piece("b", 2, 0, 5, 2)))
    problem = Problem((joined, Body((Piece("t", 1, 0, 1),)), Body((Piece("u", 1, 0, 1),))))
    search = Search(problem, 100, 0, 1000)
    found = search.run()
    assert found is not None and extent(problem, found) == 5 and not search.exhausted
    assert pack(problem).total == 4


def test_without_nodes_nothing_is_claimed() -> None:
    hard = [p for p in map(random_problem, range(300)) if pack(p).proved > pack(p).lower_bound]
    assert hard
    for problem, nodes in product(hard, (0, 1, 2)):
        found = pack(problem, nodes)
        assert valid(problem, found.offsets)
        assert found.proved == found.lower_bound < found.total


def test_sixty_bodies_take_a_moment_and_the_same_offsets() -> None:
    """Deterministic, and its work is bounded: the limit here is ten times what this takes on a slow machine."""
    rng = np.random.default_rng(3)
    rows = []
    for k in range(60):
        rows.append((int(rng.integers(1, 4000)), k, k + 1 + int(rng.integers(0, 8))))
    begin = time.process_time()
    one: Packing = pack(spans(*rows))
    assert time.process_time() - begin < 20
    assert one == pack(spans(*rows))
    assert one.total <= 1.1 * one.proved
