"""Max pools on cores with the DSP extension, four channels of 8 bits at a time: every shape equals the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import inputs_for
from tests.pages import needs, needs_compiler
from toolchain import boards, flow, passes
from toolchain.backends.c import kernel_files
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder

BOARDS = ["unicorn_m4", "qemu_mps3_an547"]


def pools(seed: int, count: int, channels: tuple[int, ...] = (1, 3, 4, 5, 8, 11)) -> Graph:
    """Odd sizes, windows cut by padding, signed and unsigned, wider types too; some from the arena, over their input."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("pools")
    for k in range(count):
        q = QType.of(int(rng.choice([2, 8, 8, 8, 16])), bool(rng.integers(2)), 1)
        high, wide, c = int(rng.integers(2, 8)), int(rng.integers(2, 8)), int(rng.choice(channels))
        x = b.input(f"x{k}", (high, wide, c), replace(q, zero_point=int(rng.integers(q.min, q.max))))
        window = [int(rng.integers(1, min(n, 4) + 1)) for n in (high, wide)]
        strides = [int(rng.integers(1, 4)) for _ in range(2)]
        pads = tuple((int(rng.integers(0, w)), int(rng.integers(0, w))) for w in window)
        y = b.max_pool(x, window, strides, pads, f"pool{k}")
        b.output(b.max_pool(y, (1, 1), (1, 1), ((0, 0), (0, 0)), f"y{k}") if rng.integers(2) else y)
    return b.graph()


@pytest.mark.parametrize("board", BOARDS)
def test_every_shape_equals_the_reference(board: str) -> None:
    kind = boards.load(board)
    needs_compiler(kind.compiler, kind.core)
    needs("unicorn" if board.startswith("unicorn") else "qemu-system-arm")
    graph = pools(1, 24)
    found = flow.measure(graph, board, inputs_for(graph, 12, 3), runs=1)
    assert found.bit_exact, found.first_difference


def test_over_its_input(tmp_path: Path) -> None:
    """The output begins at the input's place, or below it."""
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    b = GraphBuilder("share")
    q = QType.of(8, True, 1)
    x = b.lookup(b.input("x", (9, 9, 8), q), q, np.arange(-128, 128)[::-1], "turned")
    y = b.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), "same")
    z = b.max_pool(y, (2, 2), (2, 2), ((0, 0), (0, 0)), "half")
    b.output(b.lookup(z, q, np.arange(-128, 128)[::-1], "y"))
    graph = b.graph()
    plan = passes.run(graph, boards.load("unicorn_m4"))[1]
    assert plan.arena_bytes < 9 * 9 * 8 + 4 * 4 * 8 + 9 * 8 * 8
    assert flow.measure(graph, "unicorn_m4", inputs_for(graph, 12, 3), runs=1, out=tmp_path / "p").bit_exact


def test_instructions_for_an_output() -> None:
    """Of a 2 by 2 window with GCC 12: a load, SSUB8 and SEL for four channels of a tap."""
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    b = GraphBuilder("many")
    b.output(b.max_pool(b.input("x", (16, 16, 64), QType.of(8, True, 1)), (2, 2), (2, 2), ((0, 0), (0, 0)), "y"))
    graph = b.graph()
    found = flow.measure(graph, "unicorn_m4", inputs_for(graph, 2, 3), runs=1)
    assert found.bit_exact
    assert "ssub8" in kernel_files(("nn_pool.h",))["kernels/nn_pool.h"]
    if any("gcc" in name for name in found.versions):
        assert found.count is not None
        assert found.count.median <= 21_900
