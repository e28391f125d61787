"""Reuse factors: as little parallel hardware as meets a latency, or as much speed as fits the board, by the cost model.

Rule: the answer is at an edge: with a target, no single reuse factor can be raised; without one, none can be lowered and still
fit. It depends on the graph, the board and what was given, never on the order of a mapping. What was given by name is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolchain.errors import ToolchainError
from toolchain.estimate import LABEL, Estimate, Estimator
from toolchain.folding import ALWAYS_RESOURCE, choices
from toolchain.ir import Graph
from toolchain.ir.ops import Mac

from .plan import Hls

if TYPE_CHECKING:
    from toolchain.boards import Board

Pick = dict[str, int]  # op's output -> which of its options


def choose(graph: Graph, board: Board, hls: Hls, target_latency_us: float | None = None) -> Hls:
    """`hls` with a strategy and a reuse factor for every product; raises ToolchainError where no choice is good enough."""
    search = _Search(graph, board, hls)
    if target_latency_us is None:
        return search.built(search.fastest_that_fits())
    return search.built(search.smallest_in_time(target_latency_us))


@dataclass(frozen=True)
class Option:
    strategy: str
    reuse: int


class _Search:
    def __init__(self, graph: Graph, board: Board, hls: Hls) -> None:
        self.board, self.hls = board, hls
        self.model = Estimator(graph, board, hls)
        self.macs = [op for op in self.model.ops if isinstance(op, Mac)]
        self.options = {op.output.name: self.options_of(op) for op in self.macs}

    def options_of(self, op: Mac) -> list[Option]:
        """From the fastest to the smallest. One product for each multiplier needs no memory, so it is not strategy Resource."""
        given, name = self.hls.strategy_of(op), op.output.name
        if name in self.hls.reuse_factor:
            return [Option(given, self.hls.reuse_factor[name])]
        if given == "distributed_arithmetic" and name in self.hls.strategy:
            return [Option(given, 1)]
        alone = "Latency" if given == "Resource" and self.hls.tool not in ALWAYS_RESOURCE else given
        return [Option(alone if rf == 1 else "Resource", rf) for rf in choices(op, self.hls.stream)]

    def built(self, pick: Pick) -> Hls:
        chosen = {name: self.options[name][k] for name, k in pick.items()}
        strategy = {**self.hls.strategy, **{name: o.strategy for name, o in chosen.items()}}
        return replace(
            self.hls,
            strategy=strategy,
            reuse_factor={**self.hls.reuse_factor, **{name: o.reuse for name, o in chosen.items()}},
        )

    def estimate(self, pick: Pick) -> Estimate:
        return self.model.estimate(self.built(pick))

    def latency(self, pick: Pick) -> float:
        cycles = self.model.timing(self.built(pick))[1]
        return cycles * 1e6 / self.model.room.core_clock_hz

    def edge(self, name: str, pick: Pick, good: Callable[[Pick], bool]) -> int:
        """The last option of an op up to which all is good, the others as they are; good at the one picked, and not again
        once it was not."""
        low, high = pick[name], len(self.options[name]) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if good({**pick, name: middle}):
                low = middle
            else:
                high = middle - 1
        return low

    def smallest_in_time(self, target: float) -> Pick:
        pick = dict.fromkeys(self.options, 0)
        best = self.latency(pick)
        if best > target:
            what = f"latency is {best:,.3f} us ({LABEL}) with every product at once, must be at most {target:,.3f} us: {best - target:,.3f} us too long"
            raise ToolchainError(f"board {self.board.name}", what, "choose a faster board or clock, or a smaller model")
        in_time: Callable[[Pick], bool] = lambda p: self.latency(p) <= target  # noqa: E731
        pick = self.budget(in_time)
        for name in self.largest_first(pick):
            pick[name] = self.edge(name, pick, in_time)
        found = self.estimate(pick)
        if found.over():
            try:
                fits = self.latency(self.fastest_that_fits())
                told, hint = (
                    f"the fastest that fits takes {fits:,.3f} us ({LABEL})",
                    "allow more time, or choose a larger board",
                )
            except ToolchainError:
                told, hint = "nothing fits, whatever the latency", "choose a larger board, or a smaller model"
            raise ToolchainError(
                f"board {self.board.name}",
                f"a latency of {target:,.3f} us needs {self.needs(found)}; {told}",
                hint,
            )
        return pick

    def needs(self, found: Estimate) -> str:
        parts = [
            f"{getattr(found, r):,} {r} of {found.room[r]:,} ({by:,} too many, {found.band(r)})"
            for r, by in found.over().items()
        ]
        return ", ".join(parts)

    def budget(self, good: Callable[[Pick], bool]) -> Pick:
        """Every op as small as it may be within so many cycles each, for the largest number that is good (bisected)."""
        budgets = self.budgets()
        low, high = 0, len(budgets) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if good(self.within(budgets[middle])):
                low = middle
            else:
                high = middle - 1
        return self.within(budgets[low]) if budgets else {}

    def budgets(self) -> list[int]:
        """The cycles that one or another option takes, from the fewest: with the first of them every op is at its fastest."""
        found = {self.cycles(op, k) for op in self.macs for k in range(len(self.options[op.output.name]))}
        return [0, *sorted(found)] if found else []

    def cycles(self, op: Mac, k: int) -> int:
        option = self.options[op.output.name][k]
        known = replace(
            self.hls, strategy={op.output.name: option.strategy}, reuse_factor={op.output.name: option.reuse}
        )
        return self.model.kernel(op, known).step * max(self.model.positions(op), 1)

    def within(self, budget: int) -> Pick:
        pick = {}
        for op in self.macs:
            fits = [k for k in range(len(self.options[op.output.name])) if self.cycles(op, k) <= budget]
            pick[op.output.name] = max(fits, default=0)
        return pick

    def largest_first(self, pick: Pick) -> list[str]:
        rows = {row.name: row for row in self.estimate(pick).ops}
        order = {op.output.name: k for k, op in enumerate(self.macs)}
        return sorted(order, key=lambda n: (-rows[n].dsps, -rows[n].luts, order[n]))

    def fastest_that_fits(self) -> Pick:
        def fits(pick: Pick) -> bool:
            return not self.estimate(pick).over()

        for budget in self.budgets() or [0]:
            pick = self.within(budget)
            if fits(pick):
                break
        else:
            smallest = {name: len(options) - 1 for name, options in self.options.items()}
            found = self.estimate(smallest)
            what = f"the graph needs {self.needs(found) or 'more than there is'} with the largest reuse factors"
            hint = (
                "choose a larger board or a smaller model; or, since this is only a model, give --reuse-factor yourself"
            )
            raise ToolchainError(f"board {self.board.name}", what, hint)
        slowest = sorted(
            ((-self.cycles(op, pick[op.output.name]), k, op.output.name) for k, op in enumerate(self.macs))
        )
        for _, _, name in slowest:
            pick[name] = next(k for k in range(pick[name] + 1) if k == pick[name] or fits({**pick, name: k}))
        return pick
