"""What differs between hls4ml's back ends, as data: types, which kernels of ours they take, and defects that hls4ml has there.

Its one rule: a defect is a row with a name and what to do, found by running it; a project that would meet one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolchain.errors import ToolchainError, UnsupportedError, nearest
from toolchain.fpga_boards import REFUSED

IO = ("io_parallel", "io_stream")
STRATEGIES = ("Latency", "Resource", "distributed_arithmetic")


@dataclass(frozen=True)
class HlsTool:
    """One back end of hls4ml. `family` of integer types is ap or ac, `types` the nn_types_*.h of its streams; `refused` says
    why nothing can be written for it."""

    name: str
    family: str
    types: str
    strategies: tuple[str, ...] = ("Latency", "Resource")
    templates: str = ""  # the back end whose templates of layers it uses, where they are not its own
    depthwise: bool = True  # has exact kernels for depthwise convolutions; else they become convolutions with zeros
    refused: str = ""


TOOLS = {
    tool.name: tool
    for tool in (
        HlsTool("Vitis", "ap", "ap", STRATEGIES),
        HlsTool("Vivado", "ap", "ap", STRATEGIES),
        HlsTool("VivadoAccelerator", "ap", "ap", templates="Vivado"),
        HlsTool("Quartus", "ac", "quartus", ("Resource",), depthwise=False),
        # its depthwise_conv_2d_cl of arrays takes every stride for 1 and writes beyond its result, that of streams asserts
        # that strategy is not Resource
        HlsTool("Catapult", "ac", "catapult", depthwise=False),
        *(HlsTool(name, "ac", "", refused=why) for name, why in REFUSED.items()),
        HlsTool(
            "VitisUnified",
            "ap",
            "ap",
            refused="hls4ml 1.3.0 has no such back end; VivadoAccelerator serves the same boards",
        ),
    )
}


def tool(name: str) -> HlsTool:
    """The back end of this name, or a refusal that says why."""
    if name not in TOOLS:
        known = ", ".join(t.name for t in TOOLS.values() if not t.refused)
        raise ToolchainError(f"hls tool {name!r}", f"is none of {known}", nearest(name, TOOLS))
    found = TOOLS[name]
    if found.refused:
        others = ", ".join(t.name for t in TOOLS.values() if not t.refused)
        raise UnsupportedError(f"hls tool {name}", found.refused, f"use one of {others}")
    return found
