"""Outputs over inputs: what toolchain/overlap.py says of the kernels' order, against the compiled kernels themselves.

A copy of nn.h that writes down every load and store gives the true order of one op's reads and writes, at any place of its
output. At the distance that `overlap` names nothing is overwritten before it is read; one element nearer something is.
Then the same ops, at that distance, are the reference on emulated boards.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.graphs import inputs_for
from tests.native import apart, run_native
from tests.pages import needs, needs_compiler
from toolchain import boards, forms, layout, measurement, overlap, reference
from toolchain.backends import c as back_end
from toolchain.backends.c import model_files
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.ir import Graph, QType, Tensor, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Op, Rounding
from toolchain.layout import SIZES, ctype, nbytes
from toolchain.links import open_link
from toolchain.passes import Plan, kernels

Make = Callable[[GraphBuilder, np.random.Generator, Callable[..., Tensor]], Tensor]


def kind(rng: np.random.Generator, bits: int = 0, signed: bool | None = None) -> QType:
    return QType.of(bits or int(rng.choice([3, 8, 12, 16])), bool(rng.integers(2)) if signed is None else signed, 1)


def weights(b: GraphBuilder, rng: np.random.Generator, shape: tuple[int, ...]) -> object:
    return b.const("w", rng.integers(-5, 6, shape))


def pads(rng: np.random.Generator, rank: int, most: int) -> ops.Padding:
    return tuple((int(p), int(q)) for p, q in rng.integers(0, most + 1, (rank, 2)))


def small(rng: np.random.Generator, rank: int, most: int = 3) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(1, most + 1, rank))


def stage(b: GraphBuilder, rng: np.random.Generator, x: Tensor) -> Tensor:
    """One stage that ends in 8 or 16 bits, as most stored tensors do."""
    out = QType.of(int(rng.choice([8, 16])), True, 1)
    shift = max(0, x.qtype.bits - out.bits)
    return b.requantize(x, out, [1], [0], [shift], Rounding.FLOOR, "staged")


def mapped(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    return stage(b, rng, stored(small(rng, 2, 5), kind(rng)))


def looked_up(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    x, out = stored(small(rng, 2, 5), kind(rng, int(rng.choice([4, 8, 12])))), kind(rng)
    return b.lookup(x, out, rng.integers(out.min, out.max, 1 << x.qtype.bits, endpoint=True), "found")


def drawn(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    x, out = (
        stored(small(rng, 2, 5), kind(rng, int(rng.choice([8, 8, 16])))),
        QType.of(int(rng.choice([8, 16, 16])), True, 1),
    )
    most = out.max >> 1
    table = b.const("line", rng.integers(-most, most, 17))
    return b.interpolate(x, out, table, x.qtype.bits - 4, Rounding.HALF_UP, "drawn")


def stepped(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    x, out = stored((*small(rng, 1, 5), 3), kind(rng)), kind(rng)
    ladder = np.sort(rng.integers(x.qtype.min, x.qtype.max, (3, 4), endpoint=True))
    return b.threshold(x, out, ladder, rng.integers(out.min, out.max, (1, 5), endpoint=True), "steps")


def pairwise(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    shape = small(rng, 3, 4)
    other = tuple(1 if rng.integers(3) == 0 else n for n in shape)
    x, y = stored(shape, kind(rng)), stored(other, kind(rng))
    x, y = (x, y) if rng.integers(2) else (y, x)
    made = [b.add, b.sub, b.multiply][int(rng.integers(3))](x, y, "pair")
    return stage(b, rng, made) if rng.integers(2) else made


def tables(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    """One operand or both looked up to a wider type on the way in, as TensorFlow Lite's sums are."""
    shape, wide = small(rng, 3, 4), QType.of(int(rng.choice([16, 20])), True, 1)
    pair = []
    for look in (True, bool(rng.integers(2))):
        x = stored(shape, kind(rng, int(rng.choice([3, 8]))) if look else kind(rng))
        values = rng.integers(-999, 999, 1 << x.qtype.bits)
        pair.append(b.lookup(x, wide, values, "operand") if look else x)
    pair = pair[:: 1 if rng.integers(2) else -1]
    made = [b.add, b.sub, b.multiply][int(rng.integers(3))](*pair, "pair")
    return stage(b, rng, made) if rng.integers(2) else made


def dense(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    x = stored((*small(rng, int(rng.integers(0, 3))), int(rng.integers(1, 9))), kind(rng))
    acc = b.dense(x, weights(b, rng, (int(rng.integers(1, 9)), x.shape[-1])), None, "acc")
    return stage(b, rng, acc) if rng.integers(3) else acc


def conv1d(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    x = stored((int(rng.integers(6, 12)), int(rng.integers(1, 4))), kind(rng))
    w = weights(b, rng, (int(rng.integers(1, 4)), int(rng.integers(1, 4)), x.shape[-1]))
    acc = b.conv1d(x, w, None, "acc", small(rng, 1), small(rng, 1, 2), pads(rng, 1, 3))
    return stage(b, rng, acc) if rng.integers(3) else acc


def conv2d(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    groups, each, out = (1, *small(rng, 2, 4)) if rng.integers(2) else small(rng, 3)
    x = stored((int(rng.integers(4, 8)), int(rng.integers(4, 8)), groups * each), kind(rng))
    w = weights(b, rng, (groups * out, *small(rng, 2), each))
    padding = pads(rng, 2, 7 if rng.integers(4) == 0 else 2)  # some so wide that windows lie in it alone
    acc = b.conv2d(x, w, None, "acc", small(rng, 2), small(rng, 2, 2), padding, groups)
    return stage(b, rng, acc) if rng.integers(3) else acc


def depthwise(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    channels, repeat = small(rng, 2)
    x = stored((int(rng.integers(5, 8)), int(rng.integers(5, 8)), channels), kind(rng))
    w = weights(b, rng, (*small(rng, 2), channels * repeat))
    acc = b.depthwise_conv2d(x, w, None, "acc", small(rng, 2), small(rng, 2, 2), pads(rng, 2, 2))
    return stage(b, rng, acc) if rng.integers(3) else acc


def pool(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    rank = int(rng.integers(1, 3))
    x = stored((*(int(v) for v in rng.integers(3, 8, rank)), int(rng.integers(1, 4))), kind(rng))
    kernel = tuple(int(v) for v in rng.integers(1, 4, rank))
    padding = tuple((int(rng.integers(0, k)), int(rng.integers(0, k))) for k in kernel)
    strides, ceil = small(rng, rank), bool(rng.integers(2))
    if rng.integers(2):
        return b.max_pool(x, kernel, strides, padding, "most", ceil)
    total = b.sum_pool(x, kernel, strides, padding, "sum", ceil, bool(rng.integers(2)))
    return stage(b, rng, total) if rng.integers(2) else total


def argmax(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    return b.argmax(stored((*small(rng, int(rng.integers(0, 3))), int(rng.integers(1, 6))), kind(rng)), "index")


def windows(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    """What cores with the DSP extension have a depthwise kernel for."""
    x = stored((int(rng.integers(3, 9)), int(rng.integers(3, 9)), int(rng.choice([1, 3, 4, 5, 8, 12]))), kind(rng, 8))
    stride = int(rng.integers(1, 3))
    acc = b.depthwise_conv2d(
        x, weights(b, rng, (3, 3, x.channels)), None, "acc", (stride,) * 2, (1, 1), pads(rng, 2, 2)
    )
    return b.requantize(acc, QType.of(8, True, 1), [1], [0], [max(0, acc.qtype.bits - 9)], Rounding.FLOOR, "staged")


def products(b: GraphBuilder, rng: np.random.Generator, stored: Callable[..., Tensor]) -> Tensor:
    """What they have a kernel of packed rows for: full rows of windows, several tiles of positions, one position."""
    c, out = int(rng.choice([1, 2, 4, 5, 8])), int(rng.choice([1, 3, 4, 8]))
    match int(rng.integers(3)):
        case 0:
            k = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
            x = stored((int(rng.integers(3, 8)), int(rng.integers(3, 8)), c), kind(rng, 8))
            acc = b.conv2d(x, weights(b, rng, (out, *k, c)), None, "acc", small(rng, 2, 2), (1, 1), pads(rng, 2, 2), 1)
        case 1:
            x = stored((int(rng.integers(2, 30)), c), kind(rng, 8))
            acc = b.dense(x, weights(b, rng, (out, c)), None, "acc")
        case _:
            x = stored((int(rng.integers(1, 40)),), kind(rng, 8))
            acc = b.dense(x, weights(b, rng, (out, x.channels)), None, "acc")
    out_type = QType.of(int(rng.choice([8, 8, 16])), True, 1)
    return b.requantize(acc, out_type, [1], [0], [max(0, acc.qtype.bits - out_type.bits)], Rounding.FLOOR, "staged")


SHARP = {
    "mapped": 1,
    "tables": 2,
    "argmax": 0,
}  # how often one element nearer is tried at least: an index is never wider than a row
MAKERS: list[Make] = [
    mapped,
    looked_up,
    stepped,
    pairwise,
    tables,
    dense,
    conv1d,
    conv2d,
    depthwise,
    pool,
    argmax,
    drawn,
]


@dataclass(frozen=True)
class Case:
    """Many ops, each on inputs that lie in the arena, one after another in the same bytes; `plan` puts every output `nearer`
    bytes above the highest place that overlap allows over the operand of its turn."""

    graph: Graph
    plan: Plan
    steps: tuple[tuple[Op, ...], ...]  # those under test


def case(makers: list[Make], count: int, seed: int, nearer: int = 0, only_sharp: bool = False, board: str = "") -> Case:
    """`board`: with the kernels of its core wherever they can be."""
    rng, b = np.random.default_rng(seed), GraphBuilder("case")
    made: list[str] = []
    for k in range(count):

        def stored(shape: tuple[int, ...], q: QType, k: int = k) -> Tensor:
            wide = b.input(f"x{k}", shape, QType.of(16, True, 1))
            up = max(0, 16 - q.bits)
            return b.requantize(wide, q, [1], [0], [up], Rounding.FLOOR, f"in{k}")

        y = makers[k % len(makers)](b, rng, stored)
        made.append(y.name)
        b.output(b.requantize(y, y.qtype, [1], [0], [0], Rounding.FLOOR, f"out{k}"))
    graph = b.graph()
    fused = {op.input.name for op in graph.ops if op.output.name.startswith("staged")} - {
        t.name for op in graph.ops if op.output.name.startswith("in") for t in [op.output]
    }
    fused |= {op.output.name for op in graph.ops if op.output.name.startswith("operand")}
    steps = tuple(s for s in layout.chains(graph, frozenset(fused)) if s[-1].output.name in made)
    chosen = Plan()
    if board:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forms, "GENERAL", 1e9)
            chosen = kernels.run(graph, chosen, boards.load(board))[1]
    arena: dict[str, int] = {}
    sharp = []
    for number, step in enumerate(steps):
        y, xs = step[-1].output, layout.reads(step)
        turn = number % len(xs)
        distance, exact = overlap.distance(step, turn, chosen.kernels), overlap.exact(step, chosen.kernels)
        assert distance is not None
        off = exact is not None and exact < distance  # the output may lie there, not beside it
        distance = exact if off and exact is not None else distance
        size_x, size_y = (SIZES[ctype(t.qtype)] for t in (xs[turn], y))
        grain = max(size_x, size_y)
        grain = grain if not board else max(grain, 4)  # what a kernel of a core reads lies at words
        d = -(-max(0, distance) // grain) * grain  # both stay aligned
        base = -(-nbytes(y) // 8) * 8 + -(-d // 8) * 8 + (8 if board else 0)
        arena[xs[turn].name] = base
        past = -(-(base + nbytes(xs[turn]) + nbytes(y)) // 8) * 8
        for other in xs:
            if other.name != xs[turn].name:
                arena[other.name] = past
                past += -(-nbytes(other) // 8) * 8
        arena[y.name] = base - d + (nearer * grain if nearer and d == distance and distance > 0 else 0)
        if off and nearer:
            arena[y.name] = base - d - 4
        if off or (d == distance and distance > 0):
            sharp.append(step)
    size = max([arena[n] + nbytes(t) for t in graph.tensors() for n in [t.name] if n in arena], default=0) + 64
    plan = apart(replace(chosen, fused=frozenset(fused), arena=arena, arena_bytes=size))
    return Case(graph, plan, tuple(sharp) if only_sharp else steps)


TRACE = """
#include <stdio.h>
void nn_trace(const void *p, size_t bytes, int write);
void nn_trace(const void *p, size_t bytes, int write) {
    long at = (long)((const uint8_t *)p - model_arena);
    if (at >= 0 && at < (long)sizeof model_arena) printf("%d %ld %d\\n", write, at, (int)bytes);
}
"""


def traced(given: Case, folder: Path) -> dict[int, list[tuple[int, int, int]]]:
    """For each generated function its loads and stores in the arena in their order: (1 for a store, offset, bytes)."""
    files, _ = model_files(given.graph, given.plan, "native")
    for name in ("nn_load", "nn_load_low", "nn_store"):
        store = name == "nn_store"
        pattern = rf"(NN_INLINE \w+ {name}\([^)]*\) {{\n)"
        line = f"    nn_trace((const nn_u8 *)p + i * nn_size(type), nn_size(type), {int(store)});\n"
        changed, count = re.subn(pattern, lambda m, line=line: m[1] + line, files["kernels/nn.h"])
        assert count == 1, name
        files["kernels/nn.h"] = changed
    declare = "void nn_trace(const void *p, size_t bytes, int write);\nNN_INLINE size_t nn_size("
    files["kernels/nn.h"] = files["kernels/nn.h"].replace("NN_INLINE size_t nn_size(", declare, 1)
    many = len(layout.functions(given.graph, given.plan))
    main = "static model_inputs in;\nstatic model_outputs out;\nint main(void) {\n"
    main += f'    for (uint32_t k = 0; k < {many}; k++) {{ printf("op %d\\n", (int)k); model_op(k, &in, &out); }}\n'
    files["model.c"] += TRACE + main + "    return 0;\n}\n"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    command = ["gcc", "-std=c99", "-O1", "-I.", "model.c", "-o", "traced"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[int, list[tuple[int, int, int]]] = {}
    current: list[tuple[int, int, int]] = []
    for line in subprocess.run([folder / "traced"], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith("op "):
            current = found.setdefault(int(line[3:]), [])
        else:
            write, at, size = map(int, line.split())
            current.append((write, at, size))
    return found


def lost(events: list[tuple[int, int, int]]) -> bool:
    """Whether a byte is read that the same function has written before."""
    written: set[int] = set()
    for write, at, size in events:
        run = range(at, at + size)
        if write:
            written.update(run)
        elif not written.isdisjoint(run):
            return True
    return False


def of_steps(given: Case, events: dict[int, list[tuple[int, int, int]]]) -> dict[str, bool]:
    index = {f.output.name: f.index for f in layout.functions(given.graph, given.plan) if f.output}
    return {s[-1].output.name: lost(events[index[s[-1].output.name]]) for s in given.steps}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_traced_order_of_the_kernel(make: Make, tmp_path: Path) -> None:
    """At the distance nothing is lost; one element nearer, wherever the distance is not 0, every op loses something."""
    seed, count = 7 + MAKERS.index(make), 40 if make is mapped else 30
    for number, folder in enumerate(("allowed", "nearer")):
        (tmp_path / folder).mkdir()
        given = case([make], count, seed, nearer=number, only_sharp=bool(number))
        with pytest.MonkeyPatch.context() as patch:
            if number:
                patch.setattr(overlap, "check", lambda *_: None)
            found = of_steps(given, traced(given, tmp_path / folder))
        wrong = [name for name, is_lost in found.items() if is_lost != bool(number)]
        assert wrong == [], (folder, len(found))
        least = SHARP.get(make.__name__, 3) if number else count
        assert len(found) >= least, f"only {len(found)} ops of {make.__name__} were tried"


def test_outputs_over_inputs_are_the_reference_natively() -> None:
    given = case(MAKERS, 60, 3)
    overlap.check(given.graph, given.plan)
    samples = inputs_for(given.graph, 12, 5)
    expected, _ = reference.simulate(given.graph, samples)
    got = run_native(given.graph, samples, plan=given.plan, sanitize=True)
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


BOARDS = ["unicorn_m4", "qemu_microbit", "qemu_virt_rv32"]


def measured(given: Case, name: str, folder: Path) -> measurement.Measurement:
    """As flow.measure, of a plan that no pass made."""
    board = boards.load(name)
    try:
        image = back_end.emit(given.graph, given.plan, board).build(folder)
        with open_link(image, board) as link:
            samples = inputs_for(given.graph, 10, 11)
            graph, plan = given.graph, given.plan
            return measurement.measure(link, image, board, graph, graph, plan, samples, None, 1, lambda *_: None)
    except MissingToolError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", BOARDS)
def test_outputs_over_inputs_are_the_reference_on_a_board(name: str, tmp_path: Path) -> None:
    """Every kernel, on random and corner inputs."""
    board = boards.load(name)
    needs_compiler(board.compiler, board.core)
    found = measured(case(MAKERS, len(MAKERS), 31), name, tmp_path / "p")
    assert found.bit_exact, found.first_difference
    assert found.outputs_compared > 500


def test_one_element_too_far_is_refused_and_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    for k, make in enumerate((conv2d, depthwise, pool)):
        given = case([make], 12, 50 + k, nearer=1)
        with pytest.raises(
            ToolchainError, match=r"over %in\w+ at [\d,]+, which is still to be read; let the planner place it$"
        ):
            back_end.emit(given.graph, given.plan, boards.load("unicorn_m4"))
        monkeypatch.setattr(overlap, "check", lambda *_: None)
        assert not measured(given, "unicorn_m4", tmp_path / make.__name__).bit_exact, make.__name__
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["native", "unicorn_m4"])
def test_kernels_of_a_core_over_their_inputs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As near as their forms say, some of them at the one place that is allowed: in assembly and in portable C."""
    monkeypatch.setattr(forms.dsp, "PLANES_BYTES", 400)  # one strip for some, many for others
    count = 24 if name == "unicorn_m4" else 12  # under sanitizers a host compiler takes its time
    given = case([windows, products], count, 5, board="unicorn_m4")
    assert len(given.plan.kernels) == count
    found = [overlap.exact(step, given.plan.kernels) for step in given.steps[::2]]
    assert 0 in found and max(d for d in found if d is not None) > 0
    overlap.check(given.graph, given.plan)
    if name == "unicorn_m4":
        needs_compiler("arm", "cortex-m4f")
        needs("unicorn")
        assert measured(given, name, tmp_path / "p").bit_exact
        return
    samples = inputs_for(given.graph, 12, 5)
    expected, _ = reference.simulate(given.graph, samples)
    got = run_native(given.graph, samples, plan=given.plan, sanitize=True)
    for out, values in expected.items():
        np.testing.assert_array_equal(got[out], values, err_msg=out)


@pytest.mark.parametrize("make", [windows, products], ids=lambda make: make.__name__)
def test_a_kernel_of_a_core_too_near_is_refused_and_is_wrong(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms.dsp, "PLANES_BYTES", 400)
    given = case([make], 40, 9, nearer=1, only_sharp=True, board="unicorn_m4")
    assert len(given.steps) >= 6
    with pytest.raises(ToolchainError, match=r"which is still to be read; let the planner place it$"):
        overlap.check(given.graph, given.plan)
    monkeypatch.setattr(overlap, "check", lambda *_: None)
    samples = inputs_for(given.graph, 24, 5)
    expected, _ = reference.simulate(given.graph, samples)
    got = run_native(given.graph, samples, plan=given.plan)
    outs = {op.input.name: op.output.name for op in given.graph.ops if op.output.name.startswith("out")}
    wrong = [
        not np.array_equal(got[out], expected[out]) for out in (outs[step[-1].output.name] for step in given.steps)
    ]
    assert all(wrong), f"{len(wrong) - sum(wrong)} of {len(wrong)} lost nothing"


def test_what_has_no_known_order_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    b = GraphBuilder("net")
    x = b.input("x", (4, 4, 2), QType.of(8, True, 1))
    b.output(b.transpose(x, (1, 0, 2), "turned"))
    b.output(b.pad(x, ((1, 1), (0, 0), (0, 0)), "padded", 0))
    b.output(b.upsample(x, (2, 2), "up"))
    b.output(b.conv2d(x, b.const("w", np.ones((2, 1, 1, 2), int)), None, "acc"))
    *moves, conv = b.graph().ops
    assert [overlap.distance((op,), 0) for op in moves] == [None] * 3
    assert overlap.distance((conv,), 0) is not None
    monkeypatch.setattr(overlap, "special", lambda op: "nn_other")
    assert overlap.distance((conv,), 0) is None
