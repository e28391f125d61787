"""Forms: how the products of an op may lie in memory and be computed on particular cores, a module for each family of kernels.

Rule: a form is offered only where its bounds are proved for these very weights and inputs, and where it is modelled to take fewer
instructions than the general kernel. Used by the pass that chooses and by the C back end that writes the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from toolchain.ir.ops import Mac

from . import dsp, helium, narrow, scalar, stored

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


FAMILIES: tuple[Family, ...] = (narrow, dsp, helium, scalar)


def choices(op: Mac, core: str, optimize: str = "speed") -> Iterator[tuple[str, Form]]:
    """Families by name with the op's form, those that are worth it on this core, the best first: that of fewest instructions, where
    one whose weights are smaller may take `allowance` times as many; for size that of fewest bytes of weights."""
    found = [(f.NAME, form) for f in FAMILIES if core in f.CORES and (form := form_for(f, op, optimize)) is not None]
    worth = [(name, form) for name, form in found if form.instructions < GENERAL * products(op)]
    if optimize == "size":
        worth.sort(key=lambda pair: flash(op, pair[1]))
        yield from worth
        return
    yield from sorted(worth, key=lambda pair: pair[1].instructions / getattr(pair[1], "allowance", 1.0))


def form_for(family: Family, op: Mac, optimize: str) -> Form | None:
    """A family may have forms of several sizes; then `smallest` is that of fewest bytes."""
    smallest: Callable[[Mac], Form | None] = getattr(family, "smallest", family.form_of)
    return smallest(op) if optimize == "size" else family.form_of(op)


def flash(op: Mac, form: Form | None) -> int:
    """Bytes of weights in a form; as they are where there is none, or where it does not say."""
    tensor = op.weight.tensor
    plain = tensor.size * (1 if tensor.qtype.bits <= 8 else 2 if tensor.qtype.bits <= 16 else 4)
    return int(getattr(form, "weight_bytes", plain))


def named(name: str, op: Mac) -> Form:
    """The form of an op in the family of this name, which a plan says; where that has several, what its kernels read and write is the
    same."""
    if name in (stored.NAME, stored.DSP):
        return stored.Unordered()
    family = next(family for family in FAMILIES if name == family.NAME)
    form = form_for(family, op, "size")
    assert form is not None, f"{op.output.name} has no form in {name}"
    return form


def products(op: Mac) -> int:
    """Multiplications of one inference, those with padding among them."""
    size = int(op.weight.array.size)
    return op.output.size // op.output.channels * size


__all__ = ["FAMILIES", "GENERAL", "Family", "Form", "Runs", "choices", "flash", "form_for", "named", "products"]
