"""Forms: how the products of an op may lie in memory and be computed on particular cores, a module for each family of kernels.

Rule: a form is offered only where its bounds are proved for these very weights and inputs, and where it is modelled to take fewer
instructions than the general kernel. Used by the pass that chooses and by the C back end that writes the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from toolchain.ir.ops import Mac

from . import dsp, narrow

# Instructions for a product of the general kernels: on a Cortex-M3 tests/golden/counts.json has 3.2 to 8.7.
GENERAL = 4.0


class Form(Protocol):
    @property
    def scratch_bytes(self) -> int:
        """Memory that the kernel needs while it runs."""

    @property
    def instructions(self) -> float:
        """Of one inference, modelled: loads, products and loops; what follows a sum is the same for every kernel."""


class Family(Protocol):
    """A module of this folder."""

    NAME: str
    CORES: tuple[str, ...]

    def form_of(self, op: Mac) -> Form | None:
        """The op in this form, or None where it has none or a bound fails; its sums are known to fit 32 bits."""


FAMILIES: tuple[Family, ...] = (narrow, dsp)


def choices(op: Mac, core: str) -> Iterator[tuple[str, Form]]:
    """Families by name with the op's form, those that are worth it on this core, the one of fewest instructions first."""
    found = [
        (family.NAME, form) for family in FAMILIES if core in family.CORES and (form := family.form_of(op)) is not None
    ]
    worth = [(name, form) for name, form in found if form.instructions < GENERAL * products(op)]
    yield from sorted(worth, key=lambda pair: pair[1].instructions / getattr(pair[1], "allowance", 1.0))


def products(op: Mac) -> int:
    """Multiplications of one inference, those with padding among them."""
    size = int(op.weight.array.size)
    return op.output.size // op.output.channels * size


__all__ = ["FAMILIES", "GENERAL", "Family", "Form", "choices", "products"]
