"""Forms: how the products of an op may lie in memory and be computed on particular cores, a module for each family of kernels.

Rule: a form is offered only where its bounds are proved for these very weights and inputs, and where it is modelled to take fewer
instructions than the general kernel. Used by the pass that chooses and by the C back end that writes the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from toolchain.ir.ops import Mac

from . import dsp, helium, scalar

# Instructions for a product of the general kernels: on a Cortex-M3 tests/golden/counts.json has 3.2 to 8.7.
GENERAL = 4.0


Runs = Sequence[tuple[int | None, int]]
"""Each run of a kernel reads all it reads before it writes anything: (the lowest element of the input that it reads, None where it
reads none; where the elements of the output end that it and those before it write)."""


class Form(Protocol):
    @property
    def scratch_bytes(self) -> int:
        """Memory that the kernel needs while it runs."""

    @property
    def instructions(self) -> float:
        """Of one inference, modelled: loads, products and loops; what follows a sum is the same for every kernel."""

    def order(self) -> Runs | None:
        """What the kernel reads and writes, run by run; None where that is not known."""

    def in_place(self) -> int | None:
        """So many elements below its input the output may start, and at no other place, though `order` would not allow it; for an
        output stored in as many bytes an element as the input. None where there is no such place."""


class Family(Protocol):
    """A module of this folder."""

    NAME: str
    CORES: tuple[str, ...]

    def form_of(self, op: Mac) -> Form | None:
        """The op in this form, or None where it has none or a bound fails; its sums are known to fit 32 bits."""


FAMILIES: tuple[Family, ...] = (dsp, helium, scalar)


def choices(op: Mac, core: str) -> Iterator[tuple[str, Form]]:
    """Families by name with the op's form, those that are worth it on this core, the one of fewest instructions first."""
    found = [
        (family.NAME, form) for family in FAMILIES if core in family.CORES and (form := family.form_of(op)) is not None
    ]
    worth = [(name, form) for name, form in found if form.instructions < GENERAL * products(op)]
    yield from sorted(worth, key=lambda pair: pair[1].instructions)


def named(name: str, op: Mac) -> Form:
    """The form of an op in the family of this name, which a plan says."""
    form = next(family for family in FAMILIES if name == family.NAME).form_of(op)
    assert form is not None, f"{op.output.name} has no form in {name}"
    return form


def products(op: Mac) -> int:
    """Multiplications of one inference, those with padding among them."""
    size = int(op.weight.array.size)
    return op.output.size // op.output.channels * size


__all__ = ["FAMILIES", "GENERAL", "Family", "Form", "Runs", "choices", "named", "products"]
