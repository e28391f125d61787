"""Whether a model can fit a board, before anything is compiled: only what is certain is counted, so no model is refused wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolchain.errors import ToolchainError
from toolchain.ir import Graph
from toolchain.layout import nbytes, ram_bytes
from toolchain.passes.plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

NAMED = 3  # how many of the largest parts a refusal names


def check_fit(graph: Graph, plan: Plan, tables: dict[str, int], board: Board) -> None:
    """ToolchainError where tables alone exceed flash, or the model's memory and the board's stack exceed RAM."""
    if not board.flash_bytes or not board.ram_bytes:
        return  # a host process
    at = f"model {graph.name}"
    flash = sum(tables.values())
    if flash > board.flash_bytes:
        parts = sorted(tables.items(), key=lambda p: (-p[1], p[0]))[:NAMED]
        named = ", ".join(f"%{name.removeprefix('model_').removeprefix('const_')} {size:,}" for name, size in parts)
        raise ToolchainError(
            at,
            f"needs {flash:,} bytes of constants but {board.name} has {board.flash_bytes:,} bytes of flash",
            f"largest constants: {named}",
        )
    if plan.arena_bytes > board.ram_bytes:
        raise ToolchainError(
            at,
            f"needs {plan.arena_bytes:,} bytes of arena but {board.name} has {board.ram_bytes:,} bytes of RAM",
            f"largest buffers: {_buffers(graph, plan)}",
        )
    ram = ram_bytes(graph, plan) | {"stack": board.stack_bytes}
    if sum(ram.values()) > board.ram_bytes:
        parts_text = ", ".join(f"{name} {size:,}" for name, size in ram.items() if size)
        raise ToolchainError(
            at,
            f"needs {sum(ram.values()):,} bytes of RAM ({parts_text}) but {board.name} has {board.ram_bytes:,}",
            f"largest buffers: {_buffers(graph, plan)}",
        )


def _buffers(graph: Graph, plan: Plan) -> str:
    rows = [(t, nbytes(t)) for t in (*graph.inputs, *graph.outputs, *(s.input for s in graph.states))]
    rows += [(op.output, nbytes(op.output)) for op in graph.ops if op.output.name in plan.arena]
    rows.sort(key=lambda r: (-r[1], r[0].name))
    return ", ".join(f"%{t.name} {size:,}" for t, size in rows[:NAMED])
