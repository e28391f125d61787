"""`bitwright demo`: the digits CNN, from the file QKeras saved to counts that come back over an emulated board's serial line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import boards, data, flow, inputs, reference, report, tools
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from rich.console import Console

DIFFERENT = 1
RUNS = 10


def default_board() -> str:
    """QEMU's Cortex-M4 where there is a QEMU, else the one in the unicorn wheel."""
    return "qemu_mps2_an386" if tools.find("qemu-system-arm").path else "unicorn_m4"


def run(console: Console, board: str | None, port: str | None, write_json: Callable[[object], None]) -> int:
    """Load, simulate, build, boot, feed, compare, count; prints each step, and 0 only if every integer was equal."""
    folder = data.folder("examples") / "digits"
    with np.load(folder / "test.npz") as test:
        images, labels, logits = test["images"], test["labels"].astype(np.int64), test["qkeras_logits"]
    target = boards.load(board or default_board())
    why = "" if board or target.name != "unicorn_m4" else " (qemu-system-arm is not on PATH)"
    console.print(
        f"model: {folder.name}/model.h5, a QKeras CNN; {len(images)} held-out images; board: {target.name}{why}"
    )

    graph = flow.load(folder / "model.h5")
    samples = inputs.stored(graph, images)
    expected, _ = reference.simulate(graph, samples)
    against_qkeras = _equal_to_qkeras(expected[graph.outputs[0].name], logits, graph.outputs[0])
    qkeras_accuracy = float((logits.argmax(axis=1) == labels).mean())

    with report.progress(console) as step:
        found = flow.measure(graph, target, samples, labels=labels, runs=RUNS, port=port, step=step)
    report.measurement(console, found)
    console.print("accuracy on the held-out images")
    rows = report.table("QKeras predict", "simulate", f"{found.board} over serial")
    rows.add_row(*(f"{a:.2%}" for a in (qkeras_accuracy, found.reference_accuracy, found.accuracy) if a is not None))
    console.print(rows)
    exact = found.bit_exact and against_qkeras
    if exact:
        console.print(
            f"[green]exact[/green]: QKeras = simulate = {found.board}, {expected[graph.outputs[0].name].size:,} logits, every one equal"
        )
    else:
        console.print(
            f"[red]NOT EXACT[/red]: QKeras = simulate: {against_qkeras}; simulate = {found.board}: {found.bit_exact}"
        )
    write_json(found.as_json() | {"qkeras_equal": against_qkeras, "qkeras_accuracy": qkeras_accuracy})
    return 0 if exact else DIFFERENT


def _equal_to_qkeras(stored: Any, logits: Any, output: Any) -> bool:
    """Whether the float32 logits that QKeras predicted lie on the output's grid and name the same integers."""
    scale = float(output.qtype.scales[0])
    steps = np.rint(logits / scale)
    if np.abs(logits / scale - steps).max() > 1e-3:
        raise ToolchainError(
            "demo", "QKeras' saved logits do not lie on the graph's grid", "train again: examples/digits/train.py"
        )
    return bool((steps.astype(np.int64) + output.qtype.zero_point == stored).all())
