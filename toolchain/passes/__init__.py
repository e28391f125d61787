"""Passes refine a graph and plan how it runs: pipeline.py has their order, `run` is what the rest of the toolchain calls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain.ir import Graph
from toolchain.layout import ram_bytes

from . import memory
from .pipeline import HLS_PIPELINE, PIPELINE, through
from .plan import Hls, Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

# Bytes of memory that the firmware takes beside its buffer for a payload, roughly; an AVR has its constants there too.
FIRMWARE, FIRMWARE_AVR = 256, 640


def run(
    graph: Graph, board: Board | None = None, hls: Hls | None = None, optimize: str = "speed"
) -> tuple[Graph, Plan]:
    """The refined graph, which computes the same, and the plan to run it by; `hls` are choices for an FPGA board, `optimize` is
    what kernels and storage are chosen for on others: speed, size or ram."""
    fpga = board.fpga if board is not None else None
    if fpga is not None:
        return through(HLS_PIPELINE, graph, Plan(hls=hls or Hls(tool=fpga.tool)), board)
    refined, plan = through(PIPELINE, graph, Plan(optimize=optimize), board)
    if optimize == "ram":
        return memory.least(refined, board)
    left = _arena_left(refined, board)
    if left is None or plan.arena_bytes <= left:
        return refined, plan
    refined, found = memory.fitting(refined, plan, board, left)
    return refined, replace(found, arena_for_speed=plan.arena_bytes if found.arena_bytes < plan.arena_bytes else 0)


def _arena_left(graph: Graph, board: Board | None) -> int | None:
    """The bytes that the board has for the arena, as far as that is known before anything is compiled; None where it has enough."""
    if board is None or not board.ram_bytes:
        return None
    own = FIRMWARE_AVR if board.core == "atmega328p" else FIRMWARE
    rest = board.stack_bytes + board.largest_payload + own
    return board.ram_bytes - rest - sum(ram_bytes(graph, Plan()).values())


__all__ = ["HLS_PIPELINE", "PIPELINE", "Hls", "Plan", "run"]
