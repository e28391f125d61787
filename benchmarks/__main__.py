"""`make bench`: the measured figures of the docs, each with the board, the kind of count and the versions it was measured with.

Its rule: what a device or an emulator counted and what this host's clock saw stand in different tables, and nothing is
estimated. `--write` puts the tables into benchmarks/results.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

import toolchain
from tests import zoo
from toolchain import boards, data, flow, inputs, reference
from toolchain.boards import Board
from toolchain.errors import MissingToolError
from toolchain.inspect import macs
from toolchain.ir import Graph
from toolchain.measurement import Measurement

RESULTS = Path(__file__).with_name("results.md")
RUNS = 5  # of what the host's clock times
IMAGES = 20
DIGITS = 10_000
ZOO_BOARD = "qemu_mps2_an386"
MODELS_BOARDS = ("unicorn_m4", "unicorn_m0plus", "qemu_mps2_an385", "qemu_virt_rv32", "qemu_mps3_an547")
MLPERF_TINY = Path(__file__).resolve().parents[1] / "tests" / "models" / "mlperf_tiny"
OURS = ("bitwright", "python", "numpy")


def digits() -> tuple[Graph, np.ndarray]:
    """The digits CNN and its held-out images."""
    folder = data.folder("examples") / "digits"
    with np.load(folder / "test.npz") as test:
        return flow.load(folder / "model.h5"), test["images"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a column of figures is aligned to the right."""
    listed = [list(row) for row in rows]
    figures = [all(row[k][:1].isdigit() for row in listed) for k in range(len(header))]
    lines = [header, ["---:" if figure else "---" for figure in figures], *listed]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def on_boards(graph: Graph, images: np.ndarray, chosen: Iterable[Board]) -> str:
    """The CNN on every emulated board of this machine; exactness comes first, so a wrong board has no row but an error."""
    samples = inputs.stored(graph, images[:IMAGES])
    rows, missing = [], []
    for board in chosen:
        try:
            found = flow.measure(graph, board, samples, runs=IMAGES)
        except MissingToolError as error:
            missing.append(f"{board.name} was not measured: {error}\n")
            continue
        assert found.bit_exact, f"{board.name}: {found.first_difference}"
        assert found.count is not None
        low, median, high = (f"{n:,}" for n in (found.count.min, found.count.median, found.count.max))
        count = median if low == high else f"{median} ({low} to {high})"
        sizes = [f"{n:,}" for n in (found.arena_bytes, found.flash_bytes, found.ram_bytes)]
        tools = ", ".join(f"{name} {version}" for name, version in found.versions.items() if name not in OURS)
        counted = (count, f"{found.count_per_mac:.2f}", *(modelled(found)[:1] or ["none"]))
        rows.append([board.name, board.core, found.count_kind, *counted, *sizes, tools])
    header = ("board", "core", "count kind", "per inference", "per MAC", "modelled cycles", "arena", "flash", "RAM")
    header = (*header, "made and run with")
    return table(header, rows) + "".join(f"\n{line}" for line in missing)


def of_models(board: Board, models: Iterable[tuple[str, Graph]]) -> str:
    """Whole inferences of several models on one board; exactness comes first, as above."""
    rows, extra = [], list[str]()
    for name, graph in models:
        found = flow.measure(graph, board, inputs.made_up(graph, 4), runs=4)
        assert found.bit_exact, f"{name}: {found.first_difference}"
        assert found.count is not None
        figures = [f"{n:,}" for n in (found.count.median, found.arena_bytes, found.flash_bytes)]
        macs_of = sum(macs(op) for op in graph.ops)
        extra = modelled(found)
        rows.append([name, f"{macs_of:,}", figures[0], f"{found.count_per_mac:.2f}", *extra, *figures[1:]])
    more = ("modelled cycles", "modelled per MAC") if extra else ()
    return table(("model", "MACs", "instructions", "per MAC", *more, "arena", "flash"), rows)


def modelled(found: Measurement) -> list[str]:
    """Modelled cycles and those per MAC; none where nothing models the core."""
    cycles = found.modelled_cycles
    return [f"{cycles.median:,}", f"{found.modelled_cycles_per_mac:.2f}"] if cycles else []


def on_models_board(name: str) -> str:
    """MLPerf Tiny on this board."""
    board = boards.load(name)
    return f"## MLPerf Tiny on {name} ({board.core})\n\n{of_models(board, mlperf_tiny())}\n"


def the_zoo() -> Iterator[tuple[str, Graph]]:
    for name in zoo.NAMES:
        yield name, flow.load(zoo.ZOO / f"{name}.onnx", zoo.options(name))


def mlperf_tiny() -> Iterator[tuple[str, Graph]]:
    """Models that others publish; where they are from stands beside them."""
    for path in sorted(MLPERF_TINY.glob("*.tflite")):
        yield path.stem, flow.load(path)


def seconds(what: Callable[[], object]) -> str:
    """Median and largest of RUNS."""
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        what()
        times.append(time.perf_counter() - begin)
    return f"{statistics.median(times):.2f} s (at most {max(times):.2f} s)"


def on_host(graph: Graph, images: np.ndarray) -> str:
    many = inputs.stored(graph, np.resize(images, (DIGITS, *images.shape[1:])))
    model = str(data.folder("examples") / "digits" / "model.h5")

    def command(*arguments: str) -> Callable[[], object]:
        argv = [sys.executable, "-m", "toolchain", *arguments]
        return lambda: subprocess.run(argv, check=True, capture_output=True)

    rows = [
        (f"`simulate`, {DIGITS:,} digits", seconds(lambda: reference.simulate(graph, many))),
        ("`bitwright --help`", seconds(command("--help"))),
        ("`bitwright inspect examples/digits/model.h5`", seconds(command("inspect", model))),
    ]
    return table(("what", f"host clock, median of {RUNS}"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The measured figures of the docs.")
    parser.add_argument("--write", action="store_true", help=f"write them to benchmarks/{RESULTS.name}")
    parser.add_argument("--board", action="append", metavar="NAME", help="only this board (may be given again)")
    arguments = parser.parse_args()
    graph, images = digits()
    every = [boards.load(name) for name in arguments.board or boards.names()]

    text = (
        "# Measured figures\n\n"
        "Written by `make bench`; not by hand.\n\n"
        f"bitwright {toolchain.__version__}, Python {platform.python_version()}, numpy {np.__version__}\n\n"
        f"## The digits CNN, {sum(macs(op) for op in graph.ops):,} MACs\n\n"
        "`instructions` are those that an emulator executed, and it models no pipeline; `modelled` counts are an emulator's own cycles\n"
        "for each instruction, `simulated` ones the clocks of a simulated core. None of them is a time. Each output\n"
        f"was equal to `simulate` first. {IMAGES} held-out images, median; in parentheses smallest and largest where they differ, as they do\n"
        "on cores that branch for a maximum or a clamp. Sizes are in bytes; RAM contains the stack that is reserved. The host process and simulated circuits, which\n"
        "count nothing, and boards of silicon, of which none is on this desk, have no row. *Modelled* cycles are no measurement: the\n"
        "executed instructions at the costs of Arm's Cortex-M4 manual, without wait states; real boards took 0.85 to 1.36 times as many\n"
        "(docs/boards.md).\n\n"
        f"{on_boards(graph, images, [b for b in every if b.emulated and not b.fpga])}\n"
        f"{''.join(on_models_board(name) for name in MODELS_BOARDS)}"
        f"## The Brevitas zoo on {ZOO_BOARD}\n\n"
        f"{of_models(boards.load(ZOO_BOARD), the_zoo())}\n"
        "## This host's clock\n\n"
        f"{os.cpu_count()} CPUs, {platform.machine()}. Other machines, other figures.\n\n"
        f"{on_host(graph, images)}"
    )
    print(text)
    if arguments.write:
        RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
