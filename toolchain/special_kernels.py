"""Kernels for special cases, which go before the general kernel of an op.

A new one is one file in firmware_templates/c/kernels, whose function takes the arguments of the general kernel, and one
line here: the name of file and function, and which ops it computes. The first that fits is taken. Its order of reads and
writes is its own, so its output never lies over its input until toolchain/overlap.py knows that order.
"""

from __future__ import annotations

from collections.abc import Callable

from toolchain.ir import ops

SPECIAL: tuple[tuple[str, Callable[[ops.Mac], bool]], ...] = (
    # docs/extending.md shows a line, ("nn_conv_1x1", lambda op: ...)
)


def special(op: ops.Mac) -> str | None:
    """The kernel for just this op, where there is one."""
    return next((name for name, fits in SPECIAL if fits(op)), None)
