"""summary.results.rpt of SmartHLS: simulation, timing after place and route, resources.

Rule: a section that says N/A has not been run, and its figures are None. Timing is there only after place and route,
which is what tells post-route from post-synthesis.
"""

from __future__ import annotations

import re

from toolchain.errors import ToolchainError
from toolchain.resources import Label, Resources, number, span, truncated
from toolchain.resources.hls import cells_of
from toolchain.resources.intel import megahertz
from toolchain.resources.vivado import picoseconds

LSRAM = 20_480


def results(text: str, where: str, otherwise: Label) -> Resources:
    parts = dict(re.findall(r"^====== \d+\. (\w+).*?======\n(.*?)(?=^======|\Z)", text, re.MULTILINE | re.DOTALL))
    if not {"Simulation", "Timing", "Resource"} <= set(parts):
        raise truncated(where, "no sections of simulation, timing and resources")
    if re.search(r"co-simulation:\s*FAIL", parts["Simulation"]):
        what = "cosimulation ended with 'FAIL', must be 'PASS'"
        raise ToolchainError(where, what, "read the log of the step: the RTL does not do what the C++ does")
    call = _below(parts["Simulation"], "Top-Level Name")
    clock = _below(parts["Timing"], "Clock Domain")
    used = {
        cells[0].rstrip("*"): cells[1] for line in parts["Resource"].splitlines() if len(cells := cells_of(line)) == 4
    }
    figures = Resources(
        "post-route" if clock else "post-synthesis" if used else "simulated",
        (),
        luts=_sum(where, used.get("Fabric + Interface 4LUT")),
        ffs=_sum(where, used.get("Fabric + Interface DFF")),
        dsps=number(where, "Math", used.get("Math", "")),
        brams=number(where, "LSRAM", used.get("LSRAM", "")),
        bram_bits=LSRAM,
        fmax_hz=megahertz(where, clock["Fmax"].removesuffix("MHz").strip()) if clock else None,
        slack_ps=_slack(where, clock["Worst Slack"]) if clock else None,
        latency_cycles=_range(where, call.get("Call Latency (min/max/avg)", "")) if call else None,
        initiation_interval=_range(where, call.get("Call II (min/max/avg)", "")) if call else None,
    )
    if figures.luts is None and figures.latency_cycles is None:
        raise ToolchainError(where, "holds no figures: neither synthesis nor simulation has run", "run those steps")
    return figures


def _below(text: str, first: str) -> dict[str, str]:
    """The first row below the head that begins with `first`, by column."""
    rows = [cells for line in text.splitlines() if (cells := cells_of(line))]
    at = next((i for i, cells in enumerate(rows) if cells[0] == first), None)
    if at is None or at + 1 >= len(rows) or len(rows[at]) != len(rows[at + 1]):
        return {}
    return dict(zip(rows[at], rows[at + 1], strict=True))


def _sum(where: str, text: str | None) -> int | None:
    """`424 + 36 = 460`, or `488 + 72` as older ones write it: fabric and interface."""
    if text is None:
        return None
    terms = [number(where, "4LUT or DFF", term) for term in text.partition("=")[0].split("+")]
    return None if None in terms else sum(term for term in terms if term is not None)


def _range(where: str, text: str) -> tuple[int, int] | None:
    words = text.split("/")
    return span(number(where, "cycles", words[0]), number(where, "cycles", words[1])) if len(words) >= 2 else None


def _slack(where: str, text: str) -> int | None:
    return picoseconds(where, "Worst Slack", text.removesuffix("ns").strip())
