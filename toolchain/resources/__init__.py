"""What a design takes of an FPGA: one record, whichever vendor's report it was read from.

Rule: a number is in a report or it is None. A report that is cut off or is something else is one error; nothing is
guessed, and every record says what it is: estimated before synthesis, counted after it, or after routing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from toolchain.errors import ToolchainError, nearest

if TYPE_CHECKING:
    from toolchain.boards import Board

Label = Literal["estimated", "simulated", "post-synthesis", "post-route"]
LABELS: tuple[Label, ...] = ("estimated", "simulated", "post-synthesis", "post-route")
Range = tuple[int, int]  # smallest and largest


@dataclass(frozen=True)
class Resources:
    """Figures of one design with one label. `simulated` is of cosimulation: cycles of the RTL, and nothing else."""

    label: Label
    files: tuple[str, ...]
    luts: int | None = None
    ffs: int | None = None
    dsps: int | None = None
    brams: int | None = None
    bram_bits: int | None = None  # of one of brams; None: as the board's
    urams: int | None = None
    fmax_hz: int | None = None
    slack_ps: int | None = None  # against the clock that was asked for; negative: timing is not met
    latency_cycles: Range | None = None
    initiation_interval: Range | None = None

    def as_json(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Resources:
        """What as_json gave, after JSON has made lists of its tuples."""
        made = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return Resources(**cast(dict[str, Any], made))


def read(kind: str, path: Path, otherwise: Label = "post-synthesis") -> Resources:
    """The figures of a report. `otherwise` is the label where this kind of report does not say which it is."""
    known = readers()
    if kind not in known:
        hint = nearest(kind, known) or f"known: {', '.join(known)}"
        raise ToolchainError(str(path), f"no reader for reports of kind {kind!r}", hint)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ToolchainError(str(path), f"cannot be read: {error.strerror}", "run the step that makes it") from None
    found = known[kind](text, str(path), otherwise)
    return replace(found, files=(str(path),))


def readers() -> dict[str, Callable[[str, str, Label], Resources]]:
    """Kind of report -> its reader, of (text, name for errors, label where the text has none)."""
    from toolchain.resources import hls, intel, libero, vivado

    return {
        "csynth": hls.csynth_xml,
        "csynth_rpt": hls.csynth_rpt,
        "cosim": hls.cosim,
        "utilization": vivado.utilization,
        "timing": vivado.timing,
        "quartus": intel.quartus,
        "oneapi": intel.summary,
        "oneapi_loops": intel.loops,
        "intel_hls": intel.area,
        "intel_hls_fit": intel.fit,
        "intel_hls_cosim": intel.verification,
        "libero": libero.results,
    }


# what a report of this kind says where it is whole, whatever the design
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "csynth": ("luts", "ffs", "dsps", "brams"),
    "cosim": ("latency_cycles",),
    "utilization": ("luts", "ffs", "dsps", "brams"),
    "timing": ("slack_ps", "fmax_hz"),
}


def check_whole(kind: str, found: Resources) -> None:
    """ToolchainError for the report of a step that lacks what every whole one has: a blank is no figure to pass with."""
    lacks = [name for name in ALWAYS.get(kind, ()) if getattr(found, name) is None]
    if lacks:
        raise truncated(", ".join(found.files), f"it says nothing of {', '.join(lacks)}")


def truncated(where: str, what: str) -> ToolchainError:
    return ToolchainError(where, f"is cut off or is another report: {what}", "run the step that makes it again")


def number(where: str, what: str, text: str) -> int | None:
    """A count of a report; None for the ways tools write that they do not know."""
    word = text.strip().strip("*~").replace(",", "")
    if word in ("", "-", "?", "NA", "N/A", "n/a", "undef", "TBD", "x"):
        return None
    try:
        return int(word)
    except ValueError:
        raise ToolchainError(
            where, f"{what} is {text.strip()!r}, must be a whole number", "look at the report"
        ) from None


def span(low: int | None, high: int | None) -> Range | None:
    return None if low is None or high is None else (low, high)


def merge(parts: list[Resources]) -> list[Resources]:
    """One record for each label, in the order of LABELS; where two parts have a figure, the first is taken."""
    made = []
    for label in LABELS:
        same = [part for part in parts if part.label == label]
        if not same:
            continue
        whole = same[0]
        for part in same[1:]:
            taken = {f.name: getattr(part, f.name) for f in fields(part) if getattr(whole, f.name) is None}
            if whole.brams is not None:
                taken.pop("bram_bits", None)  # it is the unit of the other's brams
            whole = replace(whole, files=whole.files + part.files, **taken)
        made.append(whole)
    return made


def problems(found: Resources, board: Board) -> list[str]:
    """By how much the design is too large for the board or too slow for its clock; empty where it fits."""
    fpga = board.fpga
    assert fpga, board.name
    said = []
    for name, used, room in (
        ("luts", found.luts, fpga.luts),
        ("ffs", found.ffs, fpga.ffs),
        ("dsps", found.dsps, fpga.dsps),
        ("urams", found.urams, fpga.urams),
    ):
        if used is not None and used > room:
            said.append(f"{name} {used:,} of {room:,}{_share(used, room)}, {used - room:,} too many")
    if found.brams is not None:
        unit = found.bram_bits or fpga.bram_bits
        used, room = found.brams * unit, fpga.brams * fpga.bram_bits
        if used > room:
            over = -((room - used) // fpga.bram_bits)
            blocks = f"brams {found.brams:,} of {room // unit:,}{_share(used, room)}, {over:,} too many"
            said.append(f"{blocks} (of {fpga.bram_bits:,} bits)")
    if found.fmax_hz is not None and found.fmax_hz < fpga.core_clock_hz:
        have, need = found.fmax_hz / 1e6, fpga.core_clock_hz / 1e6
        late = found.slack_ps is not None and found.slack_ps < 0  # else it is of another clock than the board's
        slack = f", slack {(found.slack_ps or 0) / 1000:.3f} ns" if late else ""
        said.append(f"fmax {have:.1f} MHz of {need:g} MHz ({have / need:.1%}), {need - have:.1f} MHz short{slack}")
    elif found.slack_ps is not None and found.slack_ps < 0:
        said.append(f"slack {found.slack_ps / 1000:.3f} ns, must be 0 or more")
    return said


def check_fit(found: Resources, board: Board) -> None:
    """ToolchainError that says by how much a design does not fit the board or misses its timing."""
    said = problems(found, board)
    if said:
        large = any("too many" in line for line in said)
        what = "does not fit" if large else "misses timing"
        advice = (
            "raise reuse_factor, narrow the weights, or take a larger board"
            if large
            else ("lower core_clock_hz of the board, or raise reuse_factor")
        )
        where = f"{board.name}, {found.label} ({', '.join(found.files)})"
        raise ToolchainError(where, f"the design {what}: {'; '.join(said)}", advice)


def _share(used: int, room: int) -> str:
    return f" ({used / room:.1%})" if room else ""
