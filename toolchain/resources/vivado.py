"""Reports of Vivado: report_utilization, flat or hierarchical, and report_timing_summary.

Rule: the report's own Design State decides between post-synthesis and post-route. A tile of 36 Kbit counts as two RAMB18,
as HLS counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from toolchain.errors import ToolchainError
from toolchain.resources import Label, Resources, number, truncated
from toolchain.resources.hls import RAMB18, cells_of

ROWS = {
    "luts": ("Slice LUTs", "CLB LUTs"),
    "ffs": ("Slice Registers", "CLB Registers"),
    "dsps": ("DSPs",),
    "urams": ("URAM",),
}


def utilization(text: str, where: str, otherwise: Label) -> Resources:
    label = _label(text, otherwise)
    if re.search(r"^\|\s*Instance\s*\|\s*Module\s*\|", text, re.MULTILINE):
        return _hierarchical(text, where, label)
    found: dict[str, str] = {}
    head: list[str] = []
    for line in text.splitlines():
        cells = cells_of(line)
        if "Site Type" in cells:
            head = cells
        elif head and len(cells) == len(head):
            found.setdefault(cells[0].rstrip("*"), cells[head.index("Used")])
        elif not line.startswith("+"):
            head = []
    counts = {}
    for key, names in ROWS.items():
        name = next((n for n in names if n in found), None)
        counts[key] = number(where, name, found[name]) if name else None
    if counts["luts"] is None or counts["ffs"] is None:
        raise truncated(where, "no row of LUTs and registers")
    brams = _tiles(where, found.get("Block RAM Tile"))
    return _resources(label, counts, brams)


def _tiles(where: str, text: str | None) -> int | None:
    """Tiles of two RAMB18: Vivado writes half a tile as 0.5."""
    if text is None:
        return None
    try:
        halves = Fraction(text) * 2
    except ValueError:
        halves = Fraction(1, 2)
    if halves.denominator != 1:
        raise ToolchainError(where, f"Block RAM Tile is {text!r}, must be tiles or halves", "look at the report")
    return int(halves)


def _hierarchical(text: str, where: str, label: Label) -> Resources:
    """The first row below the head is the top; with -hierarchical_percentages a cell is `12(0.34%)`."""
    lines = [cells for line in text.splitlines() if (cells := cells_of(line))]
    at = next(i for i, cells in enumerate(lines) if cells[0] == "Instance")
    if at + 1 >= len(lines) or len(lines[at + 1]) != len(lines[at]):
        raise truncated(where, "no row of the top")
    row = {name: value.partition("(")[0] for name, value in zip(lines[at], lines[at + 1], strict=True)}
    get = {name: number(where, name, row[name]) for name in row if name not in ("Instance", "Module")}
    if get.get("Total LUTs") is None or get.get("FFs") is None:
        raise truncated(where, "no columns of LUTs and FFs")
    large, small = get.get("RAMB36"), get.get("RAMB18")
    brams = None if large is None or small is None else 2 * large + small
    dsps = next((get[name] for name in ("DSP Blocks", "DSP48 Blocks", "DSPs") if name in get), None)
    counts = {"luts": get["Total LUTs"], "ffs": get["FFs"], "dsps": dsps, "urams": get.get("URAM")}
    return _resources(label, counts, brams)


def _resources(label: Label, n: Mapping[str, int | None], brams: int | None) -> Resources:
    return Resources(
        label, (), luts=n["luts"], ffs=n["ffs"], dsps=n["dsps"], brams=brams, bram_bits=RAMB18, urams=n["urams"]
    )


def timing(text: str, where: str, otherwise: Label) -> Resources:
    """The worst slack, and what the clock it belongs to could be: 1 / (period - slack)."""
    design = _rows(text, "Design Timing Summary", "WNS(ns)")
    if not design:
        raise truncated(where, "no Design Timing Summary")
    worst = picoseconds(where, "WNS", design[0][0].split()[0])
    periods = {
        name.strip(): picoseconds(where, "period", period)
        for name, period in re.findall(
            r"^( *\S+) +\{[^}\n]*\} +(\S+) +\S+ *$", _section(text, "Clock Summary"), re.MULTILINE
        )
    }
    slacks = {}
    for row, end in _rows(text, "Intra Clock Table", "WNS(ns)"):
        # a clock's name is to the left, its figures end where the dashes do: a clock without paths has none
        name = row.split()[0]
        slacks[name] = picoseconds(where, "WNS", row[row.index(name) + len(name) : end].strip())
    # The clock that the worst slack is of. Where no table says (cut off, or paths between clocks) a lone clock is sure.
    of = [clock for clock, slack in slacks.items() if slack is not None and slack == worst]
    lone = len(periods) == 1 and "| Intra Clock Table\n" in text  # what follows is there: no clock was cut off
    clock = of[0] if of else next(iter(periods)) if lone else ""
    period, fmax = periods.get(clock), None
    if worst is not None and period is not None and period > worst:
        fmax = 10**12 // (period - worst)
    return Resources(_label(text, otherwise), (), fmax_hz=fmax, slack_ps=worst)


def _section(text: str, title: str) -> str:
    """What is below a boxed title, up to the next one."""
    found = re.search(rf"^\| {title}$(.*?)(?=^\| [A-Z]|\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _rows(text: str, title: str, column: str) -> list[tuple[str, int]]:
    """The rows of the table under a title, each with the place where `column` ends."""
    lines = _section(text, title).splitlines()
    at = next((i for i, line in enumerate(lines) if column in line), None)
    if at is None or at + 1 >= len(lines):
        return []
    end = lines[at].index(column) + len(column)
    rows = []
    for row in lines[at + 2 :]:
        if not row.strip():
            break
        rows.append((row, end))
    return rows


def picoseconds(where: str, what: str, text: str) -> int | None:
    if text in ("", "NA", "N/A", "inf"):
        return None
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise ToolchainError(where, f"{what} is {text!r}, must be a time in ns", "look at the report")
    return round(Fraction(text) * 1000)


def _label(text: str, otherwise: Label) -> Label:
    state = re.search(r"^\| Design State\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    if state is None:
        return otherwise
    return "post-route" if "rout" in state[1].lower() else "post-synthesis"
