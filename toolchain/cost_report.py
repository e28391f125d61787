"""What people read of the cost model: one row an op, totals with their share of the board, and what real reports said of each.

Rule: no figure without its label; findings of the linter come first, errors before warnings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain.estimate import LABEL, RESOURCES
from toolchain.report import table

if TYPE_CHECKING:
    from rich.console import Console

    from toolchain.estimate import Estimate
    from toolchain.lint import Finding

NUMBERS = ("reuse", "multipliers", "adders", "luts", "ffs", "dsps", "brams", "latency cycles", "interval")
COLOURS = {"error": "red", "warning": "yellow"}


def findings(console: Console, found: Sequence[Finding]) -> None:
    """The linter's findings, errors first."""
    for finding in sorted(found, key=lambda f: f.severity):  # "error" before "warning"
        colour = COLOURS[finding.severity]
        console.print(f"[{colour}]{finding.severity}[/{colour}]", end=" ")
        console.print(f"{finding.op}: {finding.text}", soft_wrap=True, markup=False)


def estimate(console: Console, found: Estimate) -> None:
    """`bitwright estimate`: the rows, the totals, the shares, the label of each figure."""
    clock = f"{found.core_clock_hz / 1e6:g} MHz"
    console.print(
        f"graph {found.graph} on {found.board} ({found.part}), {found.tool}, {found.io}, {clock}: all {LABEL}"
    )
    rows = table("op", "output", "strategy", *NUMBERS, right=NUMBERS)
    for row in found.ops:
        reuse = f"{row.reuse_factor:,}" if row.strategy else ""
        figures = (row.multipliers, row.adders, *(getattr(row, r) for r in RESOURCES), row.latency_cycles)
        rows.add_row(
            row.kind,
            row.name,
            row.strategy,
            reuse,
            *(f"{v:,}" if v else "" for v in (*figures, row.initiation_interval)),
        )
    total = [f"{getattr(found, r):,}" for r in RESOURCES]
    rows.add_row("total", "", "", "", "", "", *total, f"{found.latency_cycles:,}", f"{found.initiation_interval:,}")
    shares = [f"{getattr(found, r) / found.room[r]:.1%}" if found.room[r] else "" for r in RESOURCES]
    rows.add_row("of the board", "", "", "", "", "", *shares, "", "")
    console.print(rows)
    console.print(
        f"latency {found.latency_us:,.3f} us, one inference every {found.initiation_interval:,} cycles ({LABEL})"
    )
    for figure in (*RESOURCES, "latency_cycles", "initiation_interval"):
        console.print(f"{figure}: {found.band(figure)}", soft_wrap=True, markup=False)
    for resource, by in found.over().items():
        text = f"{found.board} has {by:,} {resource} too few for the modelled {getattr(found, resource):,}"
        console.print(text, soft_wrap=True, markup=False)
