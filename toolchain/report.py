"""What people read: tables of a graph, an image, a measurement. Every figure carries what it is."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from toolchain.passes.plan import arena_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolchain.boards import Board
    from toolchain.ir import Graph
    from toolchain.measurement import Measurement
    from toolchain.project import Image
    from toolchain.resources import Resources
    from toolchain.streaming import Stream
    from toolchain.verify import Verification


class PipedConsole(Console):
    """rich ends the program with 1 where a pipe is closed, which here means that outputs differ: let the command decide."""

    def on_broken_pipe(self) -> None:
        raise  # rich calls this while it handles the BrokenPipeError


@contextmanager
def progress(console: Console, stages: bool = False) -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error that follows (what, done) and leaves nothing behind. Where nobody watches there is none; with
    `stages`, for work of hours, a line there for each new `what`, without the time after its comma."""
    watching = Console(stderr=True)
    if stages and not watching.is_terminal:
        last = ""

        def say(what: str, done: float) -> None:
            nonlocal last
            stage = what.partition(", ")[0]
            if stage != last:
                last = stage
                print(stage, file=sys.stderr, flush=True)

        yield say
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        console=watching,
        transient=True,
        disable=not watching.is_terminal,
    ) as bars:
        task = bars.add_task("starting", total=1.0)
        yield lambda what, done: bars.update(task, description=what, completed=done)


def table(*columns: str, right: Sequence[str] = (), wrap: Sequence[str] = ()) -> Table:
    """A column of `wrap` is folded where the terminal is narrow, so that no other is cut."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column not in wrap)
    return made


def graph(console: Console, graph: Graph) -> None:
    """`bitwright inspect`: one row an op."""
    from toolchain.inspect import facts, weight_bytes

    console.print(f"graph {graph.name}  {graph.digest()[:12]}")
    for direction, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        for t in tensors:
            scales = t.qtype.scales
            scale = str(scales[0]) if len(scales) == 1 else f"{len(scales)} scales"
            console.print(
                f"{direction} {t.name}: {t.qtype.text} {list(t.shape)}, one step is {scale}, zero point {t.qtype.zero_point}"
            )
    found = facts(graph)
    numbers = ("MACs", "weight bits", "weight bytes", "accumulator bits")
    rows = table("op", "output", "shape", "type", *numbers, right=numbers)
    for f in found:
        values = (f.macs, f.weight_bits, f.weight_bytes, f.accumulator_bits)
        rows.add_row(f.kind, f.name, "x".join(map(str, f.shape)), f.type, *(f"{v:,}" if v else "" for v in values))
    rows.add_row("total", "", "", "", f"{sum(f.macs for f in found):,}", "", f"{weight_bytes(graph):,}", "")
    console.print(rows)
    for note in graph.notes:
        console.print(f"note: {note}")


def outputs(console: Console, graph: Graph, values: Mapping[str, Any], written: Path | None) -> None:
    import numpy as np

    for tensor in graph.outputs:
        array = values[tensor.name]
        console.print(f"{tensor.name} {list(array.shape)}")
        console.print(np.array2string(array, threshold=200, edgeitems=4, max_line_width=120))
    if written:
        console.print(f"wrote {written}")


def stream(console: Console, made: Stream, compared: int, written: Path) -> None:
    """What a step takes and gives, and what it saves of a window's work."""
    found = made.as_json()
    full, one = made.macs
    lines = table("one step", "", right=("",))
    lines.add_row("new frames", f"{made.frames} of a window of {made.window}, input {made.input}")
    lines.add_row("MACs", f"{one:,} of {full:,} ({one / full:.1%})")
    lines.add_row("states", f"{found['state_bytes']:,} bytes")
    for t in made.graph.outputs:
        part = made.given[t.name]
        what = "all of the window's" if part is None else f"positions {part[1][0]} to {part[1][1] - 1} of the window's"
        lines.add_row(f"output {t.name}", f"{list(t.shape)}, {what}")
    console.print(lines)
    for line in made.anew:
        console.print(f"anew at every step: {line}")
    console.print(f"{compared} steps of seeded random frames: every output equals the full model's on its window")
    console.print(f"wrote {written}")


def boards(console: Console, found: Sequence[Board]) -> None:
    """`bitwright boards`: those with a processor, then those with gates."""
    sizes = ("clock", "flash bytes", "RAM bytes")
    rows = table("board", "core", *sizes, "link", "part", right=sizes, wrap=("part",))
    for b in found:
        if not b.fpga:
            rows.add_row(b.name, b.core, _mhz(b.clock_hz), f"{b.flash_bytes:,}", f"{b.ram_bytes:,}", b.link, b.part)
    console.print(rows)
    gates = ("clock", "LUTs", "FFs", "DSPs", "BRAM kbit", "URAMs")
    rows = table("board", "tool", *gates, "top", "link", "part", right=gates, wrap=("part",))
    for b in found:
        if b.fpga:
            f = b.fpga
            numbers = (f.luts, f.ffs, f.dsps, f.brams * f.bram_bits // 1024, f.urams)
            counts = [f"{n:,}" if n else "" for n in numbers]
            rows.add_row(b.name, f.tool, _mhz(f.core_clock_hz), *counts, f.top, b.link, b.part)
    if rows.row_count:
        console.print()
        console.print(rows)


def _mhz(hz: int) -> str:
    return f"{hz / 1e6:g} MHz" if hz else ""


def image(console: Console, image: Image, board: Board, memory: Mapping[str, int]) -> None:
    """`bitwright build` for a processor; `memory` is the project's."""
    console.print(f"built {image.path} for {board.name}")
    sizes = (("flash", "flash_bytes", board.flash_bytes), ("RAM", "ram_bytes", board.ram_bytes))
    told = [f"{what} {image.sizes[key]:,} of {room:,} bytes" for what, key, room in sizes if room]
    arena = [arena_text(**memory)] if memory else []
    most = image.sizes.get("stack_bound_bytes")
    stack = [f"stack at most {most:,} bytes ({STACK})"] if most else []
    console.print(", ".join([*arena, *(told or [f"{image.sizes['flash_bytes']:,} bytes"]), *stack]))


def weights(found: Mapping[str, Mapping[str, str | int]]) -> str:
    """Packed weights, a line for each array: `model_narrow_w 81,920 weights in 40,960 bytes: 4-bit fields of 4 rows`."""
    return "".join(
        f"{name} {w['values']:,} weights in {w['bytes']:,} bytes: {w['format']}\n" for name, w in found.items()
    )


def resources(console: Console, found: Sequence[Resources], board: Board, image: Image) -> None:
    """`bitwright build` for an FPGA: what the vendor's reports say, each row with what its figures are."""
    assert board.fpga is not None
    columns = ("luts", "ffs", "dsps", "brams", "urams")
    rows = table("figures are", *columns, "fmax", "latency cycles", "interval", "report", right=(*columns, "fmax"))
    for row in found:
        numbers = [_of(getattr(row, name), getattr(board.fpga, name)) for name in columns]
        spans = [_span(row.latency_cycles), _span(row.initiation_interval)]
        rows.add_row(row.label, *numbers, _mhz(row.fmax_hz or 0), *spans, Path(row.files[0]).name)
    console.print(rows)
    if image.path.suffix == ".bit":
        console.print(f"bitstream {image.path} for {board.name}")
        if board.flash_command:
            console.print("to load it: " + shlex.join(part.format(image=image.path) for part in board.flash_command))


def _of(used: int | None, room: int) -> str:
    return "" if used is None else f"{used:,}" + (f" ({used / room:.1%})" if room else "")


def _span(found: tuple[int, int] | None) -> str:
    return "" if found is None else f"{found[0]:,}" if found[0] == found[1] else f"{found[0]:,} to {found[1]:,}"


STACK = "a bound computed from the build"
MODELLED = (
    "modelled cycles of a Cortex-M4 (its manual's costs, no wait states; real boards took 0.85 to 1.36 times that)"
)
COUNTS = {
    "counted": "cycles counted on the device",
    "simulated": "cycles of simulated hardware",
    "modelled": "cycles of the emulator's model of the core (not measured: without caches and wait states, so this is no time)",
    "instructions": "instructions executed by the emulator (no pipeline is modelled, so this is no time)",
    "none": "no counter on this board",
}


def measurement(console: Console, m: Measurement) -> None:
    """`bitwright measure`: exactness first, then counts by op, then sizes."""
    if m.first_difference:
        d = m.first_difference
        console.print(
            f"[red]NOT EXACT[/red] on {m.board}: sample {d.sample}, output {d.output}{list(d.index)} is {d.got}, must be {d.expected}. No count is given for wrong answers."
        )
    else:
        console.print(
            f"[green]exact[/green] on {m.board}: {m.outputs_compared:,} output integers of {m.samples:,} samples equal the reference, every one"
        )
    if m.accuracy is not None and m.reference_accuracy is not None:
        console.print(f"accuracy of {m.judged}: board {m.accuracy:.2%}, simulate {m.reference_accuracy:.2%}")
    if m.count:
        c = m.count
        console.print(
            f"{COUNTS[m.count_kind]}, {m.runs} runs: median {c.median:,}  min {c.min:,}  p99 {c.p99:,}  max {c.max:,}"
        )
        if m.latency_us is not None and m.counter_hz:
            console.print(
                f"latency: median {m.latency_us:,.1f} us at {m.counter_hz / 1e6:g} MHz, counted on the device"
            )
        if m.modelled_cycles:
            y = m.modelled_cycles
            console.print(f"{MODELLED}: median {y.median:,}  min {y.min:,}  p99 {y.p99:,}  max {y.max:,}")
        modelled = ("modelled cycles", "modelled/MAC") if m.modelled_cycles else ()
        rows = table(
            *("op", "output", "MACs", "count", "count/MAC", *modelled), right=("MACs", "count", "count/MAC", *modelled)
        )

        def figures(count: int | None, cycles: int | None, macs: int) -> list[str]:
            both = (count, cycles) if modelled else (count,)
            return [t for n in both for t in ("" if n is None else f"{n:,}", _ratio(n, macs))]

        for op in m.ops:
            told = figures(op.count, op.modelled_cycles, op.macs)
            rows.add_row(op.kind, op.name, f"{op.macs:,}" if op.macs else "", *told)
        whole = figures(c.median, m.modelled_cycles.median if m.modelled_cycles else None, m.macs)
        rows.add_row("whole inference", "", f"{m.macs:,}", *whole)
        console.print(rows)
        if sum(op.macs for op in m.ops) > m.macs:
            console.print(
                "the first ops go in bands, which compute some rows twice: MACs of the whole are the model's own"
            )
    elif m.bit_exact:
        console.print(COUNTS[m.count_kind])
    if m.flash_bytes:  # a circuit has no memory of these kinds
        arena = arena_text(m.arena_bytes, m.arena_lower_bound, m.arena_proved, m.arena_for_speed)
        console.print(f"{arena}, flash {m.flash_bytes:,} bytes, RAM {m.ram_bytes:,} bytes")
        if m.stack_bound_bytes:
            used = f", {m.stack_bytes:,} were used" if m.stack_bytes else ""
            console.print(f"stack at most {m.stack_bound_bytes:,} bytes ({STACK}){used}")
    made = [f"{name} {version}" for name, version in m.versions.items() if name not in ("bitwright", "python", "numpy")]
    console.print(f"made and run with {', '.join(made)}")
    r = m.round_trip_us
    console.print(f"round trip seen by the host: median {r.median:,} us, max {r.max:,} us (host clock, not latency)")


def _ratio(count: int | None, macs: int) -> str:
    return "" if count is None or not macs else f"{count / macs:.2f}"


def verification(console: Console, found: Verification) -> None:
    """`bitwright verify`: one row a tensor, then the verdict: the first unexplained difference, or what float32 did."""
    numbers = ("compared", "differ", "follow", "tie", "range", "unexplained", "off grid", "largest")
    rows = table("tensor", "layer", *numbers, right=numbers)
    for t in found.tensors:
        causes = (t.follows, t.float32_tie, t.float32_range, t.unexplained)
        counts = (t.compared, t.differ, *causes, t.off_grid, t.largest)
        rows.add_row(t.tensor, t.layer, *(f"{c:,}" if c else "" for c in counts))
    console.print(rows)
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True, markup=False)
    if found.not_compared:
        console.print(f"not compared: {', '.join(found.not_compared)}", soft_wrap=True, markup=False)
    total, differ = sum(t.compared for t in found.tensors), sum(t.differ for t in found.tensors)
    if differ:
        console.print(f"{_share(1 - differ / total)} of all integers are equal", soft_wrap=True, markup=False)
        for o in found.outputs:
            text = f"output {o.tensor}: {_share(o.integers_equal)} of its integers, {_share(o.argmax_equal)} of argmax"
            console.print(f"{text} are equal", soft_wrap=True, markup=False)
    first = found.first
    if first is None or first.first is None:
        what = (
            f"equal{_but(found.causes)}: {total:,} integers of {len(found.tensors)} layers, {found.samples:,} samples"
        )
        console.print(what, soft_wrap=True, markup=False)
        return
    at = first.first
    where = f"layer {first.layer}, tensor {first.tensor}, index {list(at.index)}"
    if at.framework == at.graph:
        what = (
            f"not equal: {where}: {at.framework_real!r} is no whole number of steps, off by up to {first.residue:.3f}"
        )
    else:
        what = f"first difference: {where}: framework {at.framework} ({at.framework_real!r}), graph {at.graph}"
    console.print(what, markup=False)


def _share(x: float) -> str:
    """Never rounded up to 100%."""
    return "100%" if x == 1 else f"{math.floor(x * 1e5) / 1e3:.3f}%"


def _but(causes: Mapping[str, int]) -> str:
    said = []
    if causes["float32_tie"]:
        said.append(f"{causes['float32_tie']:,} that float32 rounds the other way")
    if causes["float32_range"]:
        said.append(f"{causes['float32_range']:,} that float32 cannot hold")
    follow = f" (and {causes['follows']:,} that follow)" if causes["follows"] else ""
    return f" but for {' and '.join(said)}{follow}" if said or follow else ""
