"""The table [fpga] of a board file: which HLS tools serve the part, what the part has, and which pins its board wires.

Rule: one unit for each resource, whatever the vendor calls it, so that a report and a board can be compared. `luts` are
look-up tables as the vendor's own reports count them (an Intel ALM is two ALUTs), `brams` are blocks of `bram_bits`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.errors import ToolchainError, nearest

# How the vendors' orderable names begin, and the back ends of hls4ml that make a project for them.
MAKERS = {
    "xc": ("Vitis", "Vivado", "VivadoAccelerator", "Catapult"),
    "5C": ("Quartus", "oneAPI", "Catapult"),
    "10": ("Quartus", "oneAPI", "Catapult"),
    "1S": ("Quartus", "oneAPI", "Catapult"),
    "AG": ("Quartus", "oneAPI", "Catapult"),
    "MPF": ("Libero",),
}
TOOLS = tuple(dict.fromkeys(tool for tools in MAKERS.values() for tool in tools))
# Those that nothing is written for yet, and why.
REFUSED: Mapping[str, str] = {
    "oneAPI": "our kernels have no form for its pipes yet",
    "Libero": "hls4ml 1.3.0 leaves the templates of its build script out of its package",
}
TOPS = ("", "artix", "zynq")
PINS = ("clk", "uart_rx", "uart_tx", "reset", "led")


@dataclass(frozen=True, kw_only=True)
class Fpga:
    """What an FPGA board adds to a Board."""

    tool: str  # the back end of hls4ml that is used unless another is asked for
    tools: tuple[str, ...]  # those that can serve the part
    luts: int
    ffs: int
    dsps: int
    brams: int  # blocks of bram_bits
    bram_bits: int
    urams: int = 0
    core_clock_hz: int  # what the network is synthesized for; Board.clock_hz is the oscillator's
    top: str = (
        ""  # artix: UART in the fabric and our Verilog top; zynq: the processor's console; none: project, reports
    )
    pins: Mapping[str, str] = field(default_factory=dict)  # uart_rx is into the FPGA
    constraints: str = ""  # a file beside the board's
    accelerator: str = ""  # the board's name in hls4ml's supported_boards.json


RANGES = {
    "luts": (1_000, 10_000_000),
    "ffs": (1_000, 20_000_000),
    "dsps": (0, 20_000),
    "brams": (0, 20_000),
    "bram_bits": (256, 65_536),
    "urams": (0, 5_000),
    "core_clock_hz": (1_000_000, 1_000_000_000),
}


def check(where: str, fpga: Fpga, part: str, folder: Path) -> None:
    """ToolchainError for what cannot be: a number out of range, a tool of another vendor, a pin that is no pin."""
    where = f"{where}: [fpga]"
    for key, (low, high) in RANGES.items():
        if not low <= getattr(fpga, key) <= high:
            what = f"{key} is {getattr(fpga, key):,}, must be {low:,} to {high:,}"
            raise ToolchainError(where, what, "correct the file")
    _tools(where, fpga, part)
    if fpga.top not in TOPS:
        known = ", ".join(repr(top) for top in TOPS)
        raise ToolchainError(where, f"unknown top {fpga.top!r}", f"known: {known}")
    if fpga.constraints and not (folder / fpga.constraints).is_file():
        raise ToolchainError(where, f"constraints names {fpga.constraints!r}, which is no file of boards/", "add it")
    _pins(where, fpga)


def _tools(where: str, fpga: Fpga, part: str) -> None:
    for tool in (fpga.tool, *fpga.tools):
        if tool not in TOOLS:
            hint = " ".join(filter(None, [nearest(tool, TOOLS), f"known: {', '.join(TOOLS)}"]))
            raise ToolchainError(where, f"unknown tool {tool!r}", hint)
    if fpga.tool not in fpga.tools:
        raise ToolchainError(where, f"tool is {fpga.tool!r}, must be one of tools", "correct the file")
    maker = next((maker for maker in MAKERS if part.startswith(maker)), None)
    if maker is None:
        begin = ", ".join(MAKERS)
        raise ToolchainError(where, f"part {part!r} is of no known vendor", f"an orderable name begins with {begin}")
    for tool in fpga.tools:
        if tool not in MAKERS[maker]:
            served = f"{part} is served by {', '.join(MAKERS[maker])}"
            raise ToolchainError(where, f"tool {tool!r} makes nothing for {part}", served)
    if "VivadoAccelerator" in fpga.tools and not fpga.accelerator:
        what = "VivadoAccelerator needs the board's name in hls4ml's supported_boards.json"
        raise ToolchainError(where, what, "add accelerator = '...', or take the tool out of tools")


def _pins(where: str, fpga: Fpga) -> None:
    for key, pin in fpga.pins.items():
        if key not in PINS:
            hint = nearest(key, PINS) or f"known: {', '.join(PINS)}"
            raise ToolchainError(where, f"unknown pin {key!r}", hint)
        if not re.fullmatch(r"[A-Z]{1,2}[1-9][0-9]?|[1-9][0-9]{0,2}", pin):
            raise ToolchainError(where, f"pin {key} is {pin!r}, must be a package pin", "write it as E3, AG13 or 42")
    if len(set(fpga.pins.values())) != len(fpga.pins):
        raise ToolchainError(where, "two pins are the same package pin", "correct the file")
    needed = ("clk", "uart_rx", "uart_tx") if fpga.top == "artix" else ()
    missing = [key for key in needed if key not in fpga.pins]
    if missing:
        raise ToolchainError(where, f"top 'artix' needs pin {', '.join(missing)}", "add it to pins")
    if fpga.top == "artix" and not fpga.constraints:
        raise ToolchainError(where, "top 'artix' needs constraints", "add constraints = '<board>.xdc' and the file")
