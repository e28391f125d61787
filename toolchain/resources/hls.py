"""Reports of Vivado HLS and Vitis HLS: csynth.xml, csynth.rpt, cosim.rpt.

Rule: these are the compiler's own estimates, before any synthesis; a cosimulation's cycles are those of the RTL.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from toolchain.errors import ToolchainError
from toolchain.resources import Label, Resources, number, span, truncated

RAMB18 = 18_432


def csynth_xml(text: str, where: str, otherwise: Label) -> Resources:
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise truncated(where, f"not XML ({error})") from None
    if root.tag != "profile" or root.find("AreaEstimates/Resources") is None:
        raise truncated(where, "no AreaEstimates")

    def cell(path: str) -> int | None:
        return number(where, path.rpartition("/")[2], root.findtext(path) or "")

    area, latency = "AreaEstimates/Resources/", "PerformanceEstimates/SummaryOfOverallLatency/"
    period = root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
    dsps = cell(f"{area}DSP")
    return Resources(
        "estimated",
        (),
        luts=cell(f"{area}LUT"),
        ffs=cell(f"{area}FF"),
        dsps=cell(f"{area}DSP48E") if dsps is None else dsps,  # Vitis' name, then Vivado HLS's
        brams=cell(f"{area}BRAM_18K"),
        bram_bits=RAMB18,
        urams=cell(f"{area}URAM"),
        fmax_hz=hertz(where, "EstimatedClockPeriod", period),
        latency_cycles=span(cell(f"{latency}Best-caseLatency"), cell(f"{latency}Worst-caseLatency")),
        initiation_interval=span(cell(f"{latency}Interval-min"), cell(f"{latency}Interval-max")),
    )


def csynth_rpt(text: str, where: str, otherwise: Label) -> Resources:
    """The first table of each section is the top function's; those after it are of instances."""
    timing = _row(text, where, "+ Timing", r"\|\s*Clock\s*\|", "Clock")
    latency = _row(text, where, "+ Latency", r"\|\s*min\s*\|", "min")
    start = text.find("== Utilization Estimates")
    table = text[start:] if start >= 0 else ""
    head = re.search(r"^\|\s*Name\s*\|.*$", table, re.MULTILINE)
    total = re.search(r"^\|Total\s*\|.*$", table, re.MULTILINE)
    if head is None or total is None:
        raise truncated(where, "no total under Utilization Estimates")
    named = dict(zip(cells_of(head[0]), cells_of(total[0]), strict=False))
    at = {name: number(where, name, value) for name, value in named.items() if name not in ("Name", "")}
    return Resources(
        "estimated",
        (),
        luts=at.get("LUT"),
        ffs=at.get("FF"),
        dsps=at.get("DSP", at.get("DSP48E")),
        brams=at.get("BRAM_18K"),
        bram_bits=RAMB18,
        urams=at.get("URAM"),
        fmax_hz=hertz(where, "estimated clock", timing[2]),
        latency_cycles=span(number(where, "latency", latency[0]), number(where, "latency", latency[1])),
        initiation_interval=span(number(where, "interval", latency[4]), number(where, "interval", latency[5])),
    )


def cosim(text: str, where: str, otherwise: Label) -> Resources:
    """Cycles of the simulated RTL. A simulation that failed is an error: the RTL is not the C++."""
    if "Status" not in text or "Latency(Clock Cycles)" not in text:
        raise truncated(where, "no table of RTL, Status and Latency")
    for line in text.splitlines():
        cells = cells_of(line)
        if len(cells) >= 8 and cells[0] in ("VHDL", "Verilog") and cells[1] != "NA":
            if cells[1].lower() != "pass":
                what = f"cosimulation of the {cells[0]} ended with {cells[1]!r}, must be 'Pass'"
                raise ToolchainError(where, what, "read the log of the step: the RTL does not do what the C++ does")
            counts = [number(where, "cycles", cell) for cell in cells[2:8]]
            interval = span(counts[3], counts[5])
            return Resources("simulated", (), latency_cycles=span(counts[0], counts[2]), initiation_interval=interval)
    raise truncated(where, "no row of a language that was simulated")


def hertz(where: str, what: str, period: str | None) -> int | None:
    """The clock of a period in nanoseconds, rounded down."""
    word = (period or "").replace("ns", "").strip()
    if not word or word in ("-", "?", "N/A", "NA", "undef"):
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", word) or float(word) == 0:
        raise ToolchainError(where, f"{what} is {word!r}, must be a period in ns", "look at the report")
    return int(1e9 / float(word))


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.lstrip().startswith("|") else []


def _row(text: str, where: str, section: str, head: str, name: str) -> list[str]:
    """The row of figures after the head line of a section's summary."""
    start = text.find(section)
    found = re.search(head, text[start:]) if start >= 0 else None
    after = text[start + found.end() :] if found else ""
    for line in after.splitlines()[1:]:
        cells = cells_of(line)
        if cells:
            return cells
    raise truncated(where, f"no row after {name!r} under {section[2:]}")
