"""The families of kernels that C has besides the general ones, by the name that a Plan says.

Rule: a family here has its form, its bounds and its model in toolchain/forms, under the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from toolchain.ir import ops

from . import dsp, helium, narrow, scalar, stored, stored_dsp

if TYPE_CHECKING:
    from .calls import Context


class Family(Protocol):
    SOURCE: str
    """The file of macros in firmware_templates/c/kernels of which model_<family>.S is made; "" where there is no assembly."""
    GUARD: str
    """What the preprocessor knows where that assembly can be used."""

    def header(self, op: ops.Mac) -> str:
        """The header of the kernel."""

    def call(self, op: ops.Mac, rest: Sequence[ops.Op], name: str, y: str, stages: str, c: Context) -> list[str]:
        """The statements that compute the op; `rest` are the ops that `stages` do, `y` is where the result lies."""


FAMILIES: dict[str, Family] = {
    "dsp": dsp,
    "helium": helium,
    "narrow": narrow,
    "scalar": scalar,
    "stored": stored,
    "stored_dsp": stored_dsp,
}


def assembly(lines: Mapping[str, dict[str, None]], banner: str) -> dict[str, str]:
    """model_<family>.S for each family with lines, by file name."""
    found = {}
    for name, made in lines.items():
        family = FAMILIES[name]
        head = [banner, "", f'#include "kernels/{family.SOURCE}"', "", f"#ifdef {family.GUARD}"]
        found[f"model_{name}.S"] = "\n".join([*head, *made, "#endif", ""])
    return found
