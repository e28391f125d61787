"""FIFO depths of an io_stream design: whether a network of processes ends with them, and the smallest with which it does.

Rule: nothing is guessed. A depth is lowered as far as the network still ends; hls4ml's own default, one whole inference in
every FIFO, is the upper end and always enough. docs/fpga_cost.md has the proof and the bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from toolchain.ir import Graph
from toolchain.streams import FLOOR, Network, Process, network


def stuck(net: Network, depths: Sequence[int]) -> list[str]:
    """The processes that cannot end one inference with these depths; none where all end, and then any number of inferences does."""
    level = [0] * len(net.fifos)
    ends: list[list[int]] = [[] for _ in net.fifos]
    for p, process in enumerate(net.processes):
        for f in {f for firing in process.firings for f, _ in (*firing.reads, *firing.writes)}:
            ends[f].append(p)
    at, done = [0] * len(net.processes), [0] * len(net.processes)
    ready, waiting = deque(range(len(net.processes))), [True] * len(net.processes)
    while ready:
        p = ready.popleft()
        waiting[p] = False
        firings, moved = net.processes[p].firings, set()
        while at[p] < len(firings):
            now = firings[at[p]]
            n = now.times - done[p]
            for f, count in now.reads:
                n = min(n, level[f] // count)
            for f, count in now.writes:
                n = min(n, (depths[f] - level[f]) // count)
            if n == 0:
                break
            for f, count in now.reads:
                level[f] -= n * count
                moved.add(f)
            for f, count in now.writes:
                level[f] += n * count
                moved.add(f)
            done[p] += n
            if done[p] == now.times:
                at[p], done[p] = at[p] + 1, 0
        for other in {q for f in moved for q in ends[f]} - {p}:
            if not waiting[other]:
                waiting[other] = True
                ready.append(other)
    return [process.name for p, process in enumerate(net.processes) if at[p] < len(process.firings)]


def blocks(net: Network) -> list[list[int]]:
    """FIFOs that lie on a common cycle of the undirected network, in groups (its biconnected components of more than one FIFO).

    No other FIFO can take part in a deadlock, and no deadlock spans two groups.
    """
    edges: dict[int, tuple[int, int]] = {}
    for p, process in enumerate(net.processes):
        for firing in process.firings:
            for f, _ in firing.writes:
                edges[f] = (p, edges.get(f, (p, -1))[1])
            for f, _ in firing.reads:
                edges[f] = (edges.get(f, (-1, p))[0], p)
    beside: list[list[tuple[int, int]]] = [[] for _ in net.processes]
    for f, (a, b) in sorted(edges.items()):
        if a >= 0 and b >= 0:
            beside[a].append((b, f))
            beside[b].append((a, f))
    order, low = [-1] * len(net.processes), [0] * len(net.processes)
    found, path, clock = [], list[int](), 0
    for root in range(len(net.processes)):
        if order[root] >= 0:
            continue
        order[root] = low[root] = clock
        clock += 1
        stack = [(root, -1, iter(beside[root]))]
        while stack:
            node, came, rest = stack[-1]
            step = next(rest, None)
            if step is None:
                stack.pop()
                if stack:
                    above = stack[-1][0]
                    low[above] = min(low[above], low[node])
                    if low[node] >= order[above]:
                        at = path.index(came)
                        found.append(sorted(path[at:]))
                        del path[at:]
                continue
            other, f = step
            if f == came:
                continue
            if order[other] < 0:
                path.append(f)
                order[other] = low[other] = clock
                clock += 1
                stack.append((other, f, iter(beside[other])))
            elif order[other] < order[node]:
                path.append(f)
                low[node] = min(low[node], order[other])
    return sorted(group for group in found if len(group) > 1)


def part(net: Network, group: Sequence[int]) -> Network:
    """The network of these FIFOs alone."""
    kept = set(group)
    number = {f: k for k, f in enumerate(group)}
    made = []
    for process in net.processes:
        own = Process(process.name)
        for firing in process.firings:
            reads = [number[f] for f, count in firing.reads if f in kept for _ in range(count)]
            writes = [number[f] for f, count in firing.writes if f in kept for _ in range(count)]
            own.fire(reads, writes, firing.times)
        if own.firings:
            made.append(own)
    return Network(made, [net.fifos[f] for f in group])


def smallest(net: Network, floor: int = FLOOR) -> list[int]:
    """A depth for each FIFO such that every process ends, and none does with any one depth above the floor lowered by one.

    The FIFOs with the widest tokens give way first: where several on one path could hold what must wait, the narrowest does.
    """
    depths = [floor] * len(net.fifos)
    for group in blocks(net):
        inner = part(net, group)
        found = [floor if f.own else max(f.tokens, floor) for f in inner.fifos]
        assert not stuck(inner, found), "FIFOs that hold a whole inference cannot block"
        for k in sorted(range(len(group)), key=lambda k: (-inner.fifos[k].bits, k)):
            low, high = floor, found[k]
            while low < high:
                middle = (low + high) // 2
                if stuck(inner, [*found[:k], middle, *found[k + 1 :]]):
                    low = middle + 1
                else:
                    high = middle
            found[k] = high
        for f, depth in zip(group, found, strict=True):
            depths[f] = depth
    return depths


def depths(graph: Graph, in_flight: Mapping[str, int] | None = None) -> dict[str, int]:
    """Tokens for each FIFO by name (`y`, `y_cpy1`).

    `in_flight`: by an op's output, the tokens its pipeline may hold back while it waits for more input (its stages; HLS stalls a
    pipeline as a whole). Every FIFO of a group is then deeper by all that the group may hold back, but never deeper than one
    whole inference, which always is enough.
    """
    net = network(graph)
    found = smallest(net)
    held = in_flight or {}
    for group in blocks(net):
        slack = sum(held.get(p.name, 0) for p in part(net, group).processes)
        for f in group:
            if slack and not net.fifos[f].own:
                found[f] = max(found[f], min(found[f] + slack, net.fifos[f].tokens))
    return {fifo.name: depth for fifo, depth in zip(net.fifos, found, strict=True) if not fifo.own}


def check(graph: Graph, given: Mapping[str, int]) -> list[str]:
    """The processes that block for ever when FIFOs have the depths given, by name, and the derived ones where none is given."""
    net = network(graph)
    derived = smallest(net)
    return stuck(net, [given.get(f.name, d) for f, d in zip(net.fifos, derived, strict=True)])
