"""`bitwright demo`: a digits CNN, from the file its framework saved to counts that come back over an emulated board's serial line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import boards, data, flow, inputs, reference, report, tools
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from rich.console import Console

DIFFERENT = 1
RUNS = 10


@dataclass(frozen=True)
class Example:
    """A trained model in examples/, with held-out images, their labels, and the logits that its framework predicts for them."""

    framework: str
    model: str
    held_out: str
    images: str
    logits: str
    retrain: str


EXAMPLES = {
    "qkeras": Example("QKeras", "digits/model.h5", "digits/test.npz", "images", "qkeras_logits", "digits/train.py"),
    "brevitas": Example(
        "Brevitas", "zoo/digits_cnn_4_po2.onnx", "zoo/data-digits.npz", "inputs", "digits_cnn_4_po2", "zoo/train.py"
    ),
}


def default_board() -> str:
    """QEMU's Cortex-M4 where there is a QEMU, else the one in the unicorn wheel."""
    return "qemu_mps2_an386" if tools.find("qemu-system-arm").path else "unicorn_m4"


def run(console: Console, name: str, board: str | None, port: str | None, write_json: Callable[[object], None]) -> int:
    """Load, simulate, build, boot, feed, compare, count; prints each step, and 0 only if every integer was equal."""
    example, folder = EXAMPLES[name], data.folder("examples")
    with np.load(folder / example.held_out) as test:
        images, labels, logits = test[example.images], test["labels"].astype(np.int64), test[example.logits]
        divisor = np.float32(test["divisor"]) if "divisor" in test.files else None
    target = boards.load(board or default_board())
    why = "" if board or target.name != "unicorn_m4" else " (qemu-system-arm is not on PATH)"
    console.print(
        f"model: {example.model}, a {example.framework} CNN; {len(images)} held-out images; board: {target.name}{why}"
    )

    graph = flow.load(folder / example.model)
    samples = inputs.stored(graph, images if divisor is None else images.astype(np.float32) / divisor)
    expected, _ = reference.simulate(graph, samples)
    trained = _equal(expected[graph.outputs[0].name], logits, graph.outputs[0], example)
    trained_accuracy = float((logits.argmax(axis=1) == labels).mean())

    with report.progress(console) as step:
        found = flow.measure(graph, target, samples, labels=labels, runs=RUNS, port=port, step=step)
    report.measurement(console, found)
    console.print("accuracy on the held-out images")
    rows = report.table(f"{example.framework} predict", "simulate", f"{found.board} over serial")
    rows.add_row(*(f"{a:.2%}" for a in (trained_accuracy, found.reference_accuracy, found.accuracy) if a is not None))
    console.print(rows)
    exact = found.bit_exact and trained
    if exact:
        console.print(
            f"[green]exact[/green]: {example.framework} = simulate = {found.board}, {expected[graph.outputs[0].name].size:,} logits, every one equal"
        )
    else:
        console.print(
            f"[red]NOT EXACT[/red]: {example.framework} = simulate: {trained}; simulate = {found.board}: {found.bit_exact}"
        )
    write_json(found.as_json() | {f"{name}_equal": trained, f"{name}_accuracy": trained_accuracy})
    return 0 if exact else DIFFERENT


def _equal(stored: Any, logits: Any, output: Any, example: Example) -> bool:
    """Whether the float32 logits that the framework predicted lie on the output's grid and name the same integers."""
    scale = float(output.qtype.scales[0])
    steps = np.rint(logits / scale)
    if np.abs(logits / scale - steps).max() > 1e-3:
        raise ToolchainError(
            "demo",
            f"{example.framework}'s saved logits do not lie on the graph's grid",
            f"train again: examples/{example.retrain}",
        )
    return bool((steps.astype(np.int64) + output.qtype.zero_point == stored).all())
