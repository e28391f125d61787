"""Room: the kernels that fit a given amount of memory, for `--optimize ram` and for boards that have too little.

Rule: an op has the best kernel whose step takes no more than that: the tensors that live then, less what the kernel lets them share,
and the kernel's scratch. The least amount is what some step takes with any kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from toolchain import forms
from toolchain.forms import stored
from toolchain.ir import Graph
from toolchain.ir.ops import Mac
from toolchain.layout import SIZES, chains, ctype, head

from . import arena
from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board


class Choice(NamedTuple):
    """A kernel, "" for the general one, the bytes that it needs while it runs, and its modelled instructions."""

    kernel: str
    scratch: int
    instructions: float


class Way(NamedTuple):
    """`amount`: no plan with these kernels has a smaller arena. `plan` has none yet. `instructions`: of its products, modelled."""

    amount: int
    plan: Plan
    instructions: float


def ways(graph: Graph, plan: Plan, board: Board | None) -> list[Way]:
    """One for each amount of memory that makes a difference, the least first."""
    macs = [op for op in graph.ops if isinstance(op, Mac)]
    choices = {op.output.name: list(_choices(op, plan, board)) for op in macs}
    most = max(map(len, choices.values()), default=1)
    steps = [head(step).output.name for step in chains(graph, plan.fused)]
    needs = list(zip(*(arena.needs(graph, _with(plan, choices, n).plan) for n in range(most)), strict=True))
    least = max(map(min, needs), default=0)
    found = []
    for amount in sorted({least, *(need for at in needs for need in at if need > least)}):
        first = [next(n for n, need in enumerate(at) if need <= amount) for at in needs]
        taken = {name: choices[name][n:] for name, n in zip(steps, first, strict=True) if name in choices}
        found.append(_with(plan, taken, 0)._replace(amount=amount))
    return found


def _choices(op: Mac, plan: Plan, board: Board | None) -> Iterator[Choice]:
    """What was chosen, what comes after it, the general kernel; of weights that are stored in another way the kernels that decode them."""
    name, general = op.output.name, forms.GENERAL * forms.products(op)
    kernel = plan.kernels.get(name, "")
    if not kernel or op.weight.tensor.name in plan.packing:
        yield Choice(kernel, plan.scratch.get(name, 0), general)
        if kernel == stored.DSP:  # its rows are packed while it runs; the other decodes one at a time
            yield Choice(
                stored.NAME,
                stored.scratch_bytes(op, stored.NAME, SIZES[ctype(op.weight.tensor.qtype)], False),
                2 * general,
            )
        return
    assert board is not None, "without one no kernel is chosen"
    found = [
        Choice(kind, made.scratch_bytes, made.instructions)
        for kind, made in forms.choices(op, board.core, plan.optimize)
    ]
    yield from found[[each.kernel for each in found].index(kernel) :]
    yield Choice("", 0, general)


def _with(plan: Plan, choices: Mapping[str, Sequence[Choice]], n: int) -> Way:
    """The n-th choice for each op, the last where it has fewer."""
    taken = {name: of[min(n, len(of) - 1)] for name, of in choices.items()}
    kernels = {name: each.kernel for name, each in taken.items() if each.kernel}
    scratch = {name: each.scratch for name, each in taken.items() if each.scratch}
    made = replace(plan, kernels=kernels, scratch=scratch)
    return Way(0, made, sum(each.instructions for each in taken.values()))


__all__ = ["Way", "ways"]
