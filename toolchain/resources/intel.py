"""Reports of oneAPI (ndjson) and of the Intel HLS compiler (JavaScript files of `var name = {...};`).

Rule: `luts` are ALUTs. What the fitter wrote is post-route; what the compiler wrote before it is estimated; the
simulator's cycles are simulated. The latency of a whole oneAPI design is in no report that is read here.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from toolchain.errors import ToolchainError
from toolchain.resources import Label, Resources, number, span, truncated


def quartus(text: str, where: str, otherwise: Label) -> Resources:
    """quartus.ndjson: the whole device image. Before the fitter has run, every figure there is TBD."""
    try:
        data = json.loads(text)
    except ValueError:
        raise truncated(where, "not JSON") from None
    return _fitter(data, where)


def fit(text: str, where: str, otherwise: Label) -> Resources:
    """quartus_data.js of the Intel HLS compiler, the same figures."""
    return _fitter(_variable(text, where, "quartusJSON"), where)


def _fitter(data: Any, where: str) -> Resources:
    try:
        clock = data["quartusFitClockSummary"]["nodes"][0]
        nodes = data["quartusFitResourceUsageSummary"]["nodes"]
        whole = next((node for node in nodes if node.get("type") == "system"), nodes[-1])
        fmax = str(clock.get("clock fmax", clock.get("clock", "TBD")))
        cells = {key: str(whole.get(key, "")) for key in ("alut", "reg", "dsp", "ram")}
    except (KeyError, IndexError, TypeError, AttributeError):
        raise truncated(where, "no fitter's summary of clock and resources") from None
    if all(cell in ("", "TBD") for cell in cells.values()):
        raise ToolchainError(
            where, "holds no figures: Quartus has not run", "run the step that compiles the FPGA image"
        )
    counts = {key: number(where, key, cell) for key, cell in cells.items()}
    return Resources(
        "post-route",
        (),
        luts=counts["alut"],
        ffs=counts["reg"],
        dsps=counts["dsp"],
        brams=counts["ram"],
        fmax_hz=megahertz(where, fmax),
    )


def summary(text: str, where: str, otherwise: Label) -> Resources:
    """summary.ndjson: the compiler's estimate. Halves of a DSP block are counted apart from whole ones."""
    rows = _lines(text, where)
    area = next((row for row in rows if row.get("summary_type") == "estimatedResources"), None)
    total = next((r for r in rows if r.get("name") == "Total" and r.get("parent") == "estimatedResources"), None)
    if area is None or total is None:
        raise truncated(where, "no total of estimated resources")
    try:
        names = [str(column).strip() for column in area["columns"][1:]]
        counts = {n: number(where, n, str(v)) for n, v in zip(names, total["data"], strict=False)}
        packing = int(area.get("dsp_packing_factor", 1))
    except (KeyError, TypeError, ValueError):
        raise truncated(where, "no columns of estimated resources") from None
    dsps, parts = counts.get("DSPs"), counts.get("Frac. DSPs") or 0
    return Resources(
        "estimated",
        (),
        luts=counts.get("ALUTs"),
        ffs=counts.get("FFs"),
        dsps=None if dsps is None else dsps - (-parts // packing),
        brams=counts.get("RAMs"),
    )


def loops(text: str, where: str, otherwise: Label) -> Resources:
    """loop_attr.ndjson: only the clock is of the whole design, the slowest kernel's; loops have latencies of their own."""
    rows = _lines(text, where)
    kernels = {row.get("id"): str(row.get("fmax", "")) for row in rows if row.get("type") == "kernel"}
    listed = next((row.get("nodes") for row in rows if row.get("name") == "loop_attributes"), None)
    if not isinstance(listed, list) or not listed or not set(map(str, listed)) <= set(map(str, kernels)):
        raise truncated(where, "not every kernel that it lists")
    clocks = [megahertz(where, clock) for clock in kernels.values()]
    return Resources("estimated", (), fmax_hz=min((c for c in clocks if c is not None), default=None))


def area(text: str, where: str, otherwise: Label) -> Resources:
    """report_data.js of the Intel HLS compiler: areaJSON.total is ALUTs, FFs, RAMs, DSPs, MLABs."""
    total = _variable(text, where, "areaJSON").get("total")
    if not isinstance(total, list) or len(total) < 4:
        raise truncated(where, "no areaJSON.total")
    luts, ffs, brams, dsps = (number(where, "areaJSON.total", str(v).partition(".")[0]) for v in total[:4])
    return Resources("estimated", (), luts=luts, ffs=ffs, brams=brams, dsps=dsps)


def verification(text: str, where: str, otherwise: Label) -> Resources:
    """verification_data.js: `min, max, average` of latency and interval, written by the simulation of the testbench."""
    data = _variable(text, where, "verifJSON")
    if not data:
        raise ToolchainError(where, "holds no figures: the testbench has not run", "run the step that simulates")
    try:
        latency, interval = (str(cell).split(",") for cell in data["functions"][0]["data"][1:3])
        cycles = [number(where, "cycles", cell) for cell in (*latency[:2], *interval[:2])]
        low, high, first, last = cycles
    except (KeyError, IndexError, TypeError, ValueError):
        raise truncated(where, "no latency and interval of a function") from None
    return Resources("simulated", (), latency_cycles=span(low, high), initiation_interval=span(first, last))


def _lines(text: str, where: str) -> list[dict[str, Any]]:
    rows = []
    for i, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise truncated(where, f"line {i} is not JSON") from None
        if not isinstance(row, dict):
            raise truncated(where, f"line {i} is no object")
        rows.append(row)
    return rows


def _variable(text: str, where: str, name: str) -> dict[str, Any]:
    """The object of `var name = {...};`. Names of fields may be bare words, as JavaScript allows."""
    found = re.search(rf"\bvar\s+{name}\s*=\s*", text)
    if found is None:
        raise truncated(where, f"no variable {name}")
    bare = re.compile(r'("(?:\\.|[^"\\])*")|([A-Za-z_$][\w$]*)(?=\s*:)')
    json_text = bare.sub(lambda m: m[1] or f'"{m[2]}"', text[found.end() :])
    try:
        value, _ = json.JSONDecoder().raw_decode(json_text)
    except ValueError:
        raise truncated(where, f"{name} is no object") from None
    if not isinstance(value, dict):
        raise truncated(where, f"{name} is no object")
    return value


def megahertz(where: str, text: str) -> int | None:
    if text in ("", "TBD", "n/a", "N/A"):
        return None
    try:
        return int(Decimal(text) * 1_000_000)
    except InvalidOperation:
        raise ToolchainError(where, f"clock is {text!r}, must be in MHz", "look at the report") from None
