"""measure: feed a board over its link, compare every output with the reference, then count. No count for wrong answers.

The device counts; the host's clock measures only what the host sees, `round_trip_us`. Every count says what it is: counted
(on silicon), instructions (an emulator that models no pipeline), simulated (cycle-accurate),
modelled (an emulator's cycles for each instruction), or none (no counter).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from itertools import starmap
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import __version__, layout, reference
from toolchain.errors import ToolchainError
from toolchain.inspect import macs
from toolchain.ir import Graph
from toolchain.ir.types import Ints
from toolchain.protocol import RunResult, Session

if TYPE_CHECKING:
    from toolchain.boards import Board
    from toolchain.links import Link
    from toolchain.passes.plan import Plan
    from toolchain.project import Image


UNPAINTED = 192  # the startup code paints from 32 words below its own frame on: less is never seen


@dataclass(frozen=True)
class Spread:
    """Of several runs; median and p99 are values that occurred (nearest rank)."""

    min: int
    median: int
    p99: int
    max: int

    @classmethod
    def of(cls, values: list[int]) -> Spread:
        ordered = sorted(values)
        rank = [ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 99)]
        return cls(ordered[0], rank[0], rank[1], ordered[-1])


@dataclass(frozen=True)
class OpCount:
    """One generated function: an op, or several fused ones."""

    name: str
    kind: str
    macs: int
    count: int | None
    modelled_cycles: int | None = None


@dataclass(frozen=True)
class Difference:
    """The first output element that is not what the reference says."""

    sample: int
    output: str
    index: tuple[int, ...]
    expected: int
    got: int


@dataclass(frozen=True)
class Measurement:
    """What one board did with some samples. `count` is None where an output differed or the board has no counter."""

    board: str
    graph: str
    project: str
    bit_exact: bool
    samples: int
    outputs_compared: int  # integers
    first_difference: Difference | None
    judged: str  # the output whose largest value is the class
    accuracy: float | None
    reference_accuracy: float | None
    count_kind: str
    count: Spread | None
    overhead: int | None  # of the counting itself, already subtracted
    counter_hz: int | None  # None where the count has no clock
    runs: int
    macs: int
    ops: tuple[OpCount, ...]
    arena_bytes: int
    flash_bytes: int
    ram_bytes: int
    round_trip_us: Spread
    versions: Mapping[str, str]
    circuit: Mapping[str, object] | None = None  # of an FPGA: tool, io, strategies, reuse factors, FIFO depths
    arena_lower_bound: int = 0  # the most that is needed at one step: no arena for these ops in this order is smaller
    arena_proved: int = 0  # nor smaller than this, by a search
    arena_for_speed: int = 0  # where the board does not hold that, and the plan is another
    stack_bytes: int = 0  # the deepest since reset, as the device saw by its paint; 0 where it does not know
    stack_bound_bytes: int = 0  # what it can be at most, computed from the build; 0 where there is no bound
    modelled_cycles: Spread | None = None  # of the core, by links/_cycles_m4.py; no measurement, and so never a time

    @property
    def count_per_mac(self) -> float | None:
        return round(self.count.median / self.macs, 4) if self.count and self.macs else None

    @property
    def modelled_cycles_per_mac(self) -> float | None:
        cycles = self.modelled_cycles
        return round(cycles.median / self.macs, 4) if cycles and self.macs else None

    @property
    def latency_us(self) -> float | None:
        """Median; only where the board's own clock counted."""
        return (
            self.count.median * 1e6 / self.counter_hz
            if self.count and self.counter_hz and self.count_kind == "counted"
            else None
        )

    def as_json(self) -> dict[str, Any]:
        data = _plain(self)
        assert isinstance(data, dict)
        derived = ("count_per_mac", "modelled_cycles_per_mac", "latency_us")
        return data | {name: getattr(self, name) for name in derived}


def _plain(value: object) -> object:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return dict(value) if isinstance(value, Mapping) else value


def measure(
    link: Link,
    image: Image,
    board: Board,
    graph: Graph,
    refined: Graph,
    plan: Plan,
    samples: dict[str, Ints],
    labels: Ints | None,
    runs: int,
    step: Callable[[str, float], None],
    model: int | None = None,
) -> Measurement:
    """Run every sample once and compare with `simulate(graph)`; time `runs` runs; then profile each op once.

    A graph with states runs its samples twice: each from the initial state, then all as one stream.

    `model`: which of an image's, where it has several.

    `graph` is the one that was loaded, `refined` and `plan` what was compiled from it: the passes are under test too.
    """
    assert refined.outputs == graph.outputs, "a pass changed what the model gives, so not all of it would be compared"
    if labels is not None:
        check_labels(graph, labels)
    expected, _ = reference.simulate(graph, samples)
    total = len(next(iter(samples.values())))
    session = Session(link)
    if model is not None:
        session.select(model)
    hello = session.hello(image)
    first: Difference | None = None
    counts: list[int] = []
    cycles: list[int] = []
    round_trips: list[int] = []
    used = 0
    overhead: int | None = None
    outputs: dict[str, Ints] = {t.name: np.empty((total, *t.shape), np.int64) for t in graph.outputs}
    for number in range(max(total, runs)):
        sample = number % total
        result, got, elapsed_us = run_sample(session, refined, plan, samples, sample)
        used = check_stack(board.name, result.stack_bytes, image)
        for name, value in got.items():
            outputs[name][sample] = value
            first = first or _difference(sample, name, expected[name][sample], value)
        if number < runs:
            round_trips.append(elapsed_us)
            if link.count_kind != "none":
                overhead = link.to_count(result.overhead, 0, hello)
                counts.append(link.to_count(result.ticks, result.interrupts, hello) - overhead)
                cycles += link.modelled_cycles([result]) or []
        step("running", (number + 1) / max(total, runs))
    compared = sum(v.size for v in expected.values())
    if graph.states:
        streamed = _stream(session, graph, refined, plan, samples)
        first = first or streamed
        compared *= 2
    exact = first is None
    per_op: list[int | None] = [None] * hello.ops
    cycles_per_op: Sequence[int | None] = per_op
    if exact and link.count_kind != "none":
        link.modelled_cycles([])  # forgets what ran since
        profile = session.profile()
        per_op = [link.to_count(p.ticks, p.interrupts, hello) - link.to_count(p.overhead, 0, hello) for p in profile]
        cycles_per_op = link.modelled_cycles(profile) or cycles_per_op
    functions = layout.functions(refined, plan)
    return Measurement(
        board=board.name,
        graph=graph.digest(),
        project=image.project_digest,
        bit_exact=exact,
        samples=total,
        outputs_compared=compared,
        first_difference=first,
        judged=graph.outputs[0].name,
        accuracy=_accuracy(graph, outputs, labels),
        reference_accuracy=_accuracy(graph, expected, labels),
        count_kind=link.count_kind,
        count=Spread.of(counts) if exact and counts else None,
        overhead=overhead,
        counter_hz=hello.counter_hz if link.count_kind == "counted" else None,
        runs=runs,
        macs=sum(macs(op) for op in graph.ops),
        ops=tuple(starmap(_op_count, zip(functions, per_op, cycles_per_op, strict=True))),
        **plan.memory(),
        flash_bytes=image.sizes["flash_bytes"],
        ram_bytes=image.sizes["ram_bytes"],
        round_trip_us=Spread.of(round_trips),
        versions={
            "bitwright": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            **({"hls4ml": version("hls4ml")} if plan.hls else {}),
            **image.versions,
            **link.versions,
        },
        circuit=plan.hls.parts() if plan.hls else None,
        stack_bytes=used,
        stack_bound_bytes=image.sizes.get("stack_bound_bytes", 0),
        modelled_cycles=Spread.of(cycles) if exact and cycles else None,
    )


def check_stack(board: str, used: int, image: Image) -> int:
    """What was used; ToolchainError where that is more than the bound computed from the build."""
    most = image.sizes.get("stack_bound_bytes", 0)
    if most and used > max(most, UNPAINTED):
        what = f"{used:,} bytes of stack were used, and no more than {most:,} should be by the bound computed from the build"
        raise ToolchainError(board, what, "say so to whoever maintains toolchain/stack.py, with the compiler's version")
    return used


def _stream(
    session: Session, graph: Graph, refined: Graph, plan: Plan, samples: Mapping[str, Ints]
) -> Difference | None:
    """The samples once more as one stream, each inference going on from the state that the last one left."""
    session.reset_state()
    state = None
    for sample in range(len(next(iter(samples.values())))):
        one = {name: values[sample : sample + 1] for name, values in samples.items()}
        expected, state = reference.simulate(graph, one, state)
        _, got, _ = run_sample(session, refined, plan, samples, sample, reset=False)
        for name, value in got.items():
            found = _difference(sample, name, expected[name][0], value)
            if found:
                return found
    return None


def run_sample(
    session: Session, refined: Graph, plan: Plan, samples: Mapping[str, Ints], sample: int, reset: bool = True
) -> tuple[RunResult, dict[str, Ints], int]:
    """One inference, from the initial state unless `reset` is off: what the device counted, the outputs by name, and us seen by the host's clock."""
    slots = {(slot.role, slot.name): slot for slot in layout.tensors(refined, plan)}  # an input may be an output too
    for tensor in refined.inputs:
        slot = slots["input", tensor.name]
        session.write(slot.index, samples[tensor.name][sample].astype(stored_dtype(slot)).tobytes())
    if refined.states and reset:
        session.reset_state()
    begin = time.perf_counter_ns()
    result = session.run()
    elapsed_us = (time.perf_counter_ns() - begin) // 1000
    got = {}
    for tensor in refined.outputs:
        slot = slots["output", tensor.name]
        data = np.frombuffer(session.read(slot.index, slot.bytes), stored_dtype(slot))
        got[tensor.name] = data.reshape(tensor.shape).astype(np.int64)
    return result, got, elapsed_us


def stored_dtype(slot: layout.TensorSlot) -> np.dtype[Any]:
    """As it lies in the device's memory: little-endian."""
    found: np.dtype[Any] = np.dtype(slot.ctype.removesuffix("_t")).newbyteorder("<")
    return found


def _op_count(function: layout.Function, count: int | None, cycles: int | None) -> OpCount:
    name = function.output.name if function.output else ""
    return OpCount(name, function.kind, sum(map(macs, function.ops)), count, cycles)


def _difference(sample: int, name: str, expected: Ints, got: Ints) -> Difference | None:
    where = np.argwhere(expected != got)
    if not len(where):
        return None
    index = tuple(int(i) for i in where[0])
    return Difference(sample, name, index, int(expected[index]), int(got[index]))


def _accuracy(graph: Graph, outputs: Mapping[str, Ints], labels: Ints | None) -> float | None:
    """Of the first output: the largest of its real values, or, from a single value, that value as the class.

    Scales may differ between classes, so stored integers are first brought to one step, exactly.
    """
    if labels is None:
        return None
    tensor = graph.outputs[0]
    scores = outputs[tensor.name].reshape(len(labels), -1)
    if scores.shape[1] == 1:
        classes = scores[:, 0]
    else:
        scales = tensor.qtype.scale_list(tensor.channels)
        step = Fraction(gcd(*(s.numerator for s in scales)), lcm(*(s.denominator for s in scales)))
        factors = np.array([int(s / step) for s in scales], dtype=object)
        classes = np.array([int(row.argmax()) for row in (scores - tensor.qtype.zero_point).astype(object) * factors])
    return float((classes == labels).mean())


def check_labels(graph: Graph, labels: Ints) -> None:
    """ToolchainError unless the first output gives a class for each sample and every label is one."""
    tensor = graph.outputs[0]
    if tensor.size != tensor.channels:
        shape = list(tensor.shape)
        raise ToolchainError("--labels", f"output {tensor.name} {shape} is no list of classes", "leave --labels out")
    classes = tensor.size if tensor.size > 1 else tensor.qtype.max + 1
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        what = f"holds classes {int(labels.min())}..{int(labels.max())}, output {tensor.name} has 0..{classes - 1}"
        raise ToolchainError("--labels", what)
