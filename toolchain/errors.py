"""One base for every fault that is the input's, one format: *where: what is, what must be; what to do*.

Our own mistakes are plain asserts; a user's mistake is a ToolchainError and never a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn


def assert_never(value: NoReturn) -> AssertionError:
    """`raise assert_never(x)` ends a match over a closed union: mypy refuses it while a member is missing (typing's is 3.11)."""
    return AssertionError(f"not one of the closed set: {value!r}")


class ToolchainError(Exception):
    """A fault of the input: `where` it is ("" if `what` says so), `what` is wrong, what to `try_`; exit code 2 unless said otherwise."""

    exit_code = 2

    def __init__(self, where: str, what: str, try_: str = "") -> None:
        self.where, self.what, self.try_ = where, what, try_
        super().__init__((f"{where}: " if where else "") + what + (f"; {try_}" if try_ else ""))


class GraphError(ToolchainError):
    """The graph breaks a rule of the IR."""


class UnsupportedError(ToolchainError):
    """The model uses something this toolchain refuses by name."""


class MissingToolError(ToolchainError):
    """An external tool that the command needs is not on this machine; everything before it was done."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """` did you mean 'x'?`-style hint for a misspelt name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else ""
