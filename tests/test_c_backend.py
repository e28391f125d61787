"""The C back end: every op alone, natively, is the reference; and what is emitted around the ops.

Many ops go into one graph, so that one compilation (with UBSan, ASan and -Werror) tests them all.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.native import STRICT, compile_native, run_native, run_program, run_tensors
from toolchain import inputs, passes, reference
from toolchain.backends.c import kernel_files, model_files
from toolchain.backends.c.fit import check_fit
from toolchain.data import folder
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType, Tensor, check, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import tensors
from toolchain.passes import Plan, arena

SAMPLES = 12
ONE = (1 << 31) - 1  # of Q0.31, which every table of a softmax begins with


def same(graph: Graph, inputs: dict[str, np.ndarray], **options: Any) -> None:
    """The generated C gives what simulate gives."""
    expected, _ = reference.simulate(graph, inputs)
    got = run_native(graph, inputs, **options)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def unfused(graph: Graph) -> tuple[Graph, Plan]:
    """Every tensor stored: each op is a function of its own."""
    return arena.run(graph, Plan(), None)


def check_ops(make: Callable[[GraphBuilder, np.random.Generator, int], Tensor], count: int, seed: int) -> None:
    """`count` ops that `make` adds, each with inputs of its own, in one graph; fused where that is possible, and not."""
    rng, b = np.random.default_rng(seed), GraphBuilder("ops")
    for i in range(count):
        b.output(make(b, rng, i))
    graph = b.graph()
    inputs = inputs_for(graph, SAMPLES, seed)
    same(graph, inputs, sanitize=True)
    graph, plan = unfused(graph)
    same(graph, inputs, plan=plan)


def any_type(rng: np.random.Generator, lo: int = 1, hi: int = 16, zero: bool = True) -> QType:
    bits, signed = int(rng.integers(lo, hi + 1)), bool(rng.integers(2))
    q = QType.of(bits, signed, 1)
    return replace(q, zero_point=int(rng.integers(q.min, q.max, endpoint=True))) if zero and rng.integers(2) else q


def weights(b: GraphBuilder, rng: np.random.Generator, shape: Sequence[int], bits: int | None = None) -> Any:
    bits = bits or int(rng.choice([1, 2, 4, 8, 8, 12, 16]))
    lo, hi = (-1, 1) if bits == 1 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return b.const("w", rng.integers(lo, hi, shape, endpoint=True))


def bias(b: GraphBuilder, rng: np.random.Generator, out: int) -> Any:
    return b.const("b", rng.integers(-5000, 5000, out)) if rng.integers(2) else None


def small(rng: np.random.Generator, rank: int, most: int = 3) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(1, most + 1, rank))


def paddings(rng: np.random.Generator, rank: int, most: int = 3) -> ops.Padding:
    if rng.integers(3) == 0:
        return ((0, 0),) * rank
    return tuple((int(a), int(c)) for a, c in rng.integers(0, most, (rank, 2)))


def dense(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    shape = (*small(rng, int(rng.integers(0, 3))), int(rng.integers(1, 40)))
    x = b.input("x", shape, any_type(rng))
    out = int(rng.integers(1, 12))
    return b.dense(x, weights(b, rng, (out, shape[-1])), bias(b, rng, out), "acc")


def wide_dense(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    """Sums beyond 32 bits, of data of all storage types."""
    x = b.input("x", (9,), any_type(rng, 10 + 3 * (i % 8), 12 + 3 * (i % 8)))
    return b.dense(x, weights(b, rng, (3, 9), 24), bias(b, rng, 3), "acc")


def conv1d(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    groups, each, out = small(rng, 3)
    kernel, stride, dilation = small(rng, 3)
    x = b.input("x", (int(rng.integers(9, 14)), groups * each), any_type(rng))
    w = weights(b, rng, (groups * out, kernel, each))
    return b.conv1d(x, w, bias(b, rng, groups * out), "acc", (stride,), (dilation,), paddings(rng, 1), groups)


def conv2d(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    groups, each, out = (1, *small(rng, 2, 9)) if rng.integers(2) else small(rng, 3)
    x = b.input("x", (int(rng.integers(5, 8)), int(rng.integers(5, 9)), groups * each), any_type(rng))
    dilation = (1, 1) if rng.integers(2) else small(rng, 2, 2)
    w = weights(b, rng, (groups * out, *small(rng, 2), each))
    pads = paddings(rng, 2, 9 if i == 0 else 3)  # once a padding so wide that windows lie in it alone
    return b.conv2d(x, w, bias(b, rng, groups * out), "acc", small(rng, 2), dilation, pads, groups)


def depthwise(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    channels, repeat = small(rng, 2)
    x = b.input("x", (int(rng.integers(5, 8)), int(rng.integers(5, 9)), channels), any_type(rng))
    w = weights(b, rng, (*small(rng, 2), channels * repeat))
    return b.depthwise_conv2d(
        x, w, bias(b, rng, channels * repeat), "acc", small(rng, 2), small(rng, 2, 2), paddings(rng, 2)
    )


def pool(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    rank = int(rng.integers(1, 3))
    x = b.input("x", (*(int(v) for v in rng.integers(4, 9, rank)), int(rng.integers(1, 5))), any_type(rng))
    kernel = x.shape[:-1] if i == 0 else tuple(int(v) for v in rng.integers(2, 5, rank))
    pads = ((0, 0),) * rank if i == 0 else paddings(rng, rank, 2)
    ceil = bool(rng.integers(2))
    if rng.integers(2):
        return b.max_pool(x, kernel, small(rng, rank), pads, "most", ceil)
    return b.sum_pool(x, kernel, small(rng, rank), pads, "sum", ceil, bool(rng.integers(2)))


def pairwise(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    shape = small(rng, int(rng.integers(1, 5)), 4)
    cut = [tuple(1 if rng.integers(3) == 0 else n for n in shape) for _ in range(2)]
    zero = i % 3 == 2
    bits = (28, 32) if i > 7 else (1, 16)  # results beyond 32 bits too
    x, y = (b.input("x", c, any_type(rng, *bits, zero=zero)) for c in cut)
    return [b.add, b.sub, b.multiply][i % 3](x, y, "y")


def moved(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    rank = int(rng.integers(1, 5))
    x = b.input("x", small(rng, rank, 4), any_type(rng, 1, 40))
    match i % 5:
        case 0:
            return b.transpose(x, [int(k) for k in rng.permutation(rank)], "y")
        case 1:
            value = int(rng.integers(x.qtype.min, x.qtype.max, endpoint=True))
            return b.pad(x, tuple((int(p), int(q)) for p, q in rng.integers(0, 3, (rank, 2))), "y", value)
        case 2:
            x = b.input("x", small(rng, 3, 4), any_type(rng, 1, 40))
            return b.upsample(x, small(rng, 2), "y")
        case 3:
            return b.reshape(x, (x.size, 1), "y")
        case _:
            axis = int(rng.integers(rank))
            others = []
            for _ in range(2):  # of other widths, and another size along the axis
                shape = tuple(int(rng.integers(1, 4)) if k == axis else n for k, n in enumerate(x.shape))
                others.append(b.input("x", shape, any_type(rng, 1, 40, zero=False)))
            q = others[0].qtype
            zero = b.requantize(x, q, [1], [0], [max(x.qtype.bits - q.bits, 0)], Rounding.FLOOR, "z")
            return b.concat([others[0], zero, others[1]], axis, "y")


def argmax(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    x = b.input(
        "x", (*small(rng, int(rng.integers(0, 3))), int(rng.integers(1, 20))), any_type(rng, 1, 3 if i % 2 else 60)
    )
    return b.argmax(x, "index")


def sliced(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    x = b.input("x", small(rng, int(rng.integers(1, 6)), 6), any_type(rng, 1, 40))
    begin = [int(rng.integers(n)) for n in x.shape]
    steps = small(rng, len(x.shape), 1 if i % 3 == 0 else 3)
    most = [(n - 1 - first) // step + 1 for n, first, step in zip(x.shape, begin, steps, strict=True)]
    return b.slice(x, begin, [int(rng.integers(1, n + 1)) for n in most], steps, "y")


def softmax(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    """Rows of 1, of some, and so long that a sum of equals takes the last bits; tables from flat to one hot."""
    n = [1, 2, 5, 10, 300, 511, 512, 1024, 2048, 4095][i]
    x = b.input("x", (*small(rng, int(rng.integers(0, 3)), 2), n), any_type(rng, 8, 8))
    table = [ONE, *np.sort(rng.integers(0, ONE >> int(rng.integers(0, 9)), 255))[::-1]] if i % 2 else [ONE] * 256
    bits = 8 << int(rng.integers(2))
    return b.softmax(x, table, QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1)), "y")


def softmax16(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    """Tables of anything, rows of 1 to so many that their sum takes the last bits; differences that saturate, and none."""
    n = [1, 2, 5, 10, 300, 1000, 3, 4, 7, 2048][i]
    x = b.input("x", (*small(rng, int(rng.integers(0, 3)), 2), n), QType.of(16, True, 1))
    exp, reciprocal = (b.const(name, rng.integers(0, 1 << 15, 513)) for name in ("exp", "reciprocal"))
    exp = b.const("exp", np.sort(exp.array)) if i % 2 else b.const("exp", [32767] * 513)
    multiplier, shift = int(rng.integers(1 << 31)), int(rng.choice([5, 18, 30, 33, 40]))
    return b.softmax16(x, exp, reciprocal, multiplier, shift, QType.of(16, True, Fraction(1, 1 << 15)), "y")


def interpolate(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    x = b.input("x", small(rng, 2, 8), any_type(rng, 1, 32))
    bits = x.qtype.bits
    lines = 1 << int(rng.integers(max(0, bits - 20), min(bits, 12) + 1))
    shift = int(rng.integers(0, 29))
    most = ((1 << 30) - (1 << shift) - 1) // ((1 << bits) // lines)
    table = b.const("table", rng.integers(-most, most, lines + 1, endpoint=True))
    roundings = [r for r in Rounding if r is not Rounding.TFLM]
    return b.interpolate(
        x, QType.of(32, True, 1), table, shift, roundings[i % 9], "y", int(rng.integers(-1 << 20, 1 << 20))
    )


def lookup(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    x = b.input("x", small(rng, 2, 8), any_type(rng, 1, 12))
    q = any_type(rng, 1, 20)
    return b.lookup(x, q, rng.integers(q.min, q.max, 1 << x.qtype.bits, endpoint=True), "y")


def threshold(b: GraphBuilder, rng: np.random.Generator, i: int) -> Tensor:
    x = b.input("x", small(rng, 2, 8), any_type(rng, 4, 50 if i % 2 else 12))
    rows, level_rows = ((x.shape[-1] if rng.integers(2) else 1) for _ in range(2))
    count, q = int(rng.choice([1, 2, 7, 8, 9, 20, 255])), any_type(rng, 1, 16)
    ladder = np.sort(rng.integers(x.qtype.min, x.qtype.max, (rows, count), endpoint=True))
    return b.threshold(x, q, ladder, rng.integers(q.min, q.max, (level_rows, count + 1), endpoint=True), "y")


MAKERS = [
    dense,
    wide_dense,
    conv1d,
    conv2d,
    depthwise,
    pool,
    pairwise,
    moved,
    argmax,
    lookup,
    threshold,
    sliced,
    softmax,
    interpolate,
    softmax16,
]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_op_alone(make: Callable[..., Tensor]) -> None:
    check_ops(make, 10, 100 + MAKERS.index(make))


EVERY = np.arange(-512, 512)  # each value of ten bits: every half, both signs, both ends
COLUMNS = 4


def requantize(rounding: Rounding) -> Graph:
    """Ten bits, and the same at the ends of an accumulator of 32, through every path of the kernel."""
    b = GraphBuilder("requantize")
    x = b.input("x", (256, COLUMNS), QType.of(10, True, 1))
    big = b.input("big", (8, COLUMNS), QType.of(32, True, 1))
    tflm = rounding is Rounding.TFLM
    scale = (1 << 30) if tflm else 1
    up = 31 if tflm else 0

    def steps(top: int) -> list[tuple[list[int], list[int], list[int]]]:
        """Multiplier, offset, shift; `top` is the power of two that still fits."""
        rows = [
            ([scale], [0], [up + 3]),  # halves, one for all
            ([scale], [0], [up]),  # shift 0
            ([scale, 3 * scale // 2, scale, 0], [0] * 4, [up + 1, up, up + 5, up + 2]),  # a shift of 0 among them
        ]
        return rows if tflm else [
            *rows,
            ([-1], [5], [2]),
            ([1, -1, 3, -6], [4, -4, 0, 7], [3, 3, 0, 9]),
            ([-(1 << top)], [1 << (top + 3)], [top + 3]),  # sums of 64 bits
            ([1 << top, -(1 << 20), 5, 1], [0, 1 << 19, -1, 0], [top + 3, 21, 1, 0]),
            ([(1 << 20) - 1], [1 << 19], [0]),  # results beyond the type, all clamped
        ]  # fmt: skip

    for value, top in ((x, 40), (big, 28)):
        for m, o, s in steps(top):
            b.output(b.requantize(value, QType.of(8, True, 1), m, o, s, rounding, "y"))
    for m, o, s in steps(40)[:3]:
        b.output(b.requantize(x, QType.of(5, False, 1, zero_point=7), m, o, s, rounding, "y", output_offset=7))
        b.output(b.requantize(x, QType.of(8, True, 1), m, o, s, rounding, "y", clamp=(-3, 9)))
        b.output(b.requantize(big, QType.of(40, True, 1), m, o, s, rounding, "y", output_offset=-(1 << 36)))
    return b.graph()


@pytest.mark.parametrize("rounding", list(Rounding), ids=lambda r: r.value)
def test_requantize_at_every_half_and_end(rounding: Rounding) -> None:
    corners = [-(1 << 31), (1 << 31) - 1, 0, -1, 1, 1 << 30, -(1 << 30), (1 << 30) + (1 << 2)]
    big = np.stack([np.roll(corners, k) for k in range(COLUMNS)], axis=-1)[None]
    same(requantize(rounding), {"x": EVERY.reshape(1, 256, COLUMNS), "big": big}, sanitize=True)


@pytest.mark.parametrize("rounding", [r for r in Rounding if r is not Rounding.TFLM], ids=lambda r: r.value)
def test_requantize_up_to_the_last_bit_of_int64(rounding: Rounding) -> None:
    """What check lets pass, the back end takes: sums beside 2**63, a shift of 62 in another channel, a multiplier that
    outgrows int64 where one shift serves all channels and the channel's value is always 0."""
    b = GraphBuilder("net")
    x = b.input("x", (2,), QType.of(16, True, 1))
    most = (1 << 47) - 1
    b.output(
        b.requantize(
            x, QType.of(63, True, 1), [1, most], [0, 5], [62, 0], rounding, "y", clamp=(-(1 << 62), (1 << 62) - 1)
        )
    )
    zero = b.requantize(x, QType.of(8, True, 1), [0, 1], [0, 0], [0, 0], Rounding.FLOOR, "zero")
    b.output(b.requantize(zero, QType.of(50, True, 1), [most, 1], [1, 0], [0, 40], rounding, "z"))
    same(b.graph(), {"x": np.array([[-32768, -32768], [32767, 32767], [0, 0], [-1, 1], [1, -1]])}, sanitize=True)


def kinds() -> Graph:
    """A small graph with every kernel, a fused chain of two stages, a state, and names that C keeps for itself."""
    rng, b = np.random.default_rng(5), GraphBuilder("kinds")
    x = b.input("int", (6, 6, 2), QType.of(8, False, Fraction(1, 255), zero_point=3))
    h = b.state("h", np.arange(-2, 4), QType.of(4, True, Fraction(1, 4)))
    acc = b.conv2d(x, b.const("w", rng.integers(-8, 8, (3, 3, 3, 2))), b.const("b", [9, -9, 0], Fraction(1, 255)), "acc",
                   padding=((1, 1), (1, 1)))  # fmt: skip
    act = b.requantize(acc, QType.of(4, True, 1), [3, 5, -7], [0, 8, 0], [9, 10, 11], Rounding.HALF_EVEN, "act")
    curve = b.lookup(act, QType.of(4, False, 1), np.arange(16)[::-1], "curve")
    deep = b.depthwise_conv2d(curve, b.const("v", rng.integers(-2, 2, (2, 2, 3))), None, "deep")
    steps = b.threshold(deep, QType.of(2, True, 1), [[-20, 0, 20]], [[-2, -1, 0, 1]], "steps")
    most = b.max_pool(steps, (2, 2), (2, 2), ((0, 0), (0, 0)), "most")
    mean = b.sum_pool(most, (2, 2), (2, 2), ((0, 0), (0, 0)), "mean")
    tall = b.transpose(b.pad(mean, ((0, 0), (1, 0), (0, 0)), "padded"), (1, 0, 2), "tall")
    flat = b.reshape(b.upsample(tall, (1, 1), "same"), (6,), "flat")
    total = b.add(flat, h, "total")
    after = b.requantize(total, QType.of(4, True, Fraction(1, 4)), [1], [0], [1], Rounding.HALF_AWAY, "after")
    b.next_state(h, after)
    score = b.dense(after, b.const("u", rng.integers(-8, 8, (5, 6))), None, "score")
    b.output(score)
    b.output(b.argmax(score, "class"))
    b.output(h)
    return b.graph()


def later_kinds() -> Graph:
    """What kinds() has not, whose text is a golden file."""
    b = GraphBuilder("later")
    x = b.input("x", (4, 6), QType.of(8, True, 1))
    part = b.slice(x, (1, 0), (2, 3), (2, 2), "part")
    for bits in (8, 16):
        kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
        b.output(b.softmax(part, [ONE >> k // 8 for k in range(256)], kind, f"share{bits}"))
    fine = b.requantize(part, QType.of(16, True, 1), [200], [0], [0], Rounding.FLOOR, "fine")
    b.output(
        b.interpolate(fine, QType.of(9, True, 1), b.const("line", [9, -4, 200, 0, 7]), 14, Rounding.HALF_EVEN, "drawn")
    )
    exp, reciprocal = b.const("exp", [1] * 511 + [4, 32767]), b.const("reciprocal", range(32767, 32767 - 513 * 32, -32))
    b.output(b.softmax16(fine, exp, reciprocal, 1 << 30, 31, QType.of(16, True, Fraction(1, 1 << 15)), "share"))
    return b.graph()


def test_softmax_over_its_own_input() -> None:
    """The arena lets it write over what it reads, rows and all."""
    b = GraphBuilder("over")
    x = b.input("x", (7, 33), QType.of(8, True, 1))
    small = b.requantize(x, x.qtype, [1], [0], [1], Rounding.FLOOR, "small")
    table = [ONE, *(ONE * 9 // (10 + k) for k in range(255))]
    share = b.softmax(small, table, QType(8, True, Fraction(1, 256), None, -128), "share")
    b.output(b.transpose(share, (1, 0), "y"))
    graph, plan = passes.run(b.graph())
    assert plan.place("small") == plan.place("share")
    same(graph, inputs_for(graph, SAMPLES), plan=plan)


def files_of(graph: Graph, board: str = "native") -> dict[str, str]:
    refined, plan = passes.run(graph)
    return model_files(refined, plan, board)[0]


def test_state_is_kept_from_one_inference_to_the_next() -> None:
    graph = kinds()
    inputs = inputs_for(graph, 6)
    state, outputs = None, []
    for k in range(6):
        out, state = reference.simulate(graph, {n: v[k : k + 1] for n, v in inputs.items()}, state)
        outputs.append(out)
    got = run_native(graph, inputs, keep_state=True, sanitize=True)
    for t in graph.outputs:
        np.testing.assert_array_equal(got[t.name], np.concatenate([o[t.name] for o in outputs]), err_msg=t.name)
    assert len({o["h"].tobytes() for o in outputs}) > 1


def test_states_that_take_each_others_value() -> None:
    b = GraphBuilder("swap")
    x = b.input("x", (2,), QType.of(4, True, 1))
    q = QType.of(4, True, 1)
    one, two, kept, old = (b.state(n, v, q) for n, v in zip("abcd", ([1, 2], [3, 4], [5, 6], [7, -8]), strict=True))
    for state, value in ((one, two), (two, one), (kept, kept), (old, x)):
        b.next_state(state, value)
    for t in (one, two, kept, old):
        b.output(t)
    got = run_native(b.graph(), {"x": np.array([[0, 1], [-1, 2], [3, -3]])}, keep_state=True, sanitize=True)
    assert got["a"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert got["b"].tolist() == [[3, 4], [1, 2], [3, 4]]
    assert got["c"].tolist() == [[5, 6]] * 3
    assert got["d"].tolist() == [[7, -8], [0, 1], [-1, 2]]


def test_every_tensor_can_be_read_after_its_op() -> None:
    graph, plan = passes.run(kinds())
    inputs = inputs_for(graph, 5)
    values = reference.trace(graph, inputs)
    slots = tensors(graph, plan)
    assert {s.name for s in slots if s.role == "arena"} >= {"curve", "most", "flat", "after"}
    for index, got in run_tensors(graph, plan, inputs).items():
        name = slots[index].name
        np.testing.assert_array_equal(got, values[name].reshape(len(got), -1), err_msg=name)


# what is emitted around the ops


def test_golden(golden: Callable[[str, str], None]) -> None:
    for name, text in files_of(kinds(), "some_board").items():
        if "/" not in name:
            golden(f"c_kinds/{name}", text)


def test_emission_is_deterministic_and_names_what_it_is_from() -> None:
    code = "from tests.test_c_backend import files_of, kinds; print(sorted(files_of(kinds()).items()))"
    texts = set()
    for seed in ("0", "1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        texts.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
    assert len(texts) == 1
    graph, _ = passes.run(kinds())
    opening = (
        f"/* Generated by bitwright 0.1.0 from graph kinds {graph.digest()[:12]} for board native. Do not edit. */\n"
    )
    for name, text in files_of(kinds()).items():
        assert text.startswith(opening) == ("/" not in name), name


def test_names_that_are_macros_and_a_constant_of_two_ops() -> None:
    names = ("INT8_MAX", "NN_H", "MODEL_OPS", "MODEL_RUN", "SIZE_MAX", "UINT8_C")
    b = GraphBuilder("net")
    w = b.const("w", [[1, 2], [3, 4]], bits=20)  # weights in 32 bits; as thresholds in the narrowest type, 8
    for name in names:
        acc = b.dense(b.input(name, (2,), QType.of(8, True, 1)), w, None, f"{name}_acc")
        b.output(b.threshold(acc, QType.of(2, False, 1), w.array, [[0, 1, 2]], f"{name}_y"))
    made = b.graph()
    shared = [replace(op, thresholds=w) if isinstance(op, ops.Threshold) else op for op in made.ops]
    graph = check(replace(made, ops=tuple(shared)))
    same(graph, inputs_for(graph, SAMPLES))


def test_notes_stay_inside_their_comment(tmp_path: Path) -> None:
    """A layer's name may hold what opens or closes a comment; -Werror takes a comment opened within one for an error."""
    graph = replace(kinds(), notes=("layer a/*b*/c", "*/*/ int x;", "/*/*", "ends in \\", "??/"))
    compile_native(files_of(graph), tmp_path)


def test_kernels_are_the_files_of_the_templates_folder() -> None:
    here = folder("firmware_templates") / "c" / "kernels"
    assert {f"kernels/{p.name}": p.read_text() for p in here.glob("*.h")} == kernel_files(
        tuple(p.name for p in here.glob("*.h"))
    )
    assert kernel_files(("nn_move.h",)).keys() == {"kernels/nn_move.h", "kernels/nn.h"}


HALVES = """
#include <stdio.h>
#include "model.h"
int main(void) {
    for (int i = -40; i <= 40; i++) { /* quarters of a step */
        printf("%d ", (int)MODEL_INPUT_X_QUANTIZE(i * 0.25 * MODEL_INPUT_X_SCALE));
    }
    return 0;
}
"""


def test_model_h_quantizes_as_simulate_does(tmp_path: Path) -> None:
    """Halves to even on both signs, with a zero point, and both clamps."""
    b = GraphBuilder("halves")
    x = b.input("x", (1,), QType(4, True, Fraction(1, 2), None, 1))
    b.output(b.reshape(x, (1, 1), "y"))
    graph, _ = passes.run(b.graph())
    for name, text in {**files_of(graph), "main.c": HALVES}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["gcc", *STRICT, "main.c", "model.c", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    real = np.arange(-40, 41).reshape(-1, 1) * 0.125
    assert_array_equal(list(map(int, done.stdout.split())), inputs.quantize(graph.inputs[0], real).ravel())


STRANGER = """
#include <stdio.h>
#include "model.h"

typedef char digest_is_whole[sizeof(MODEL_GRAPH_DIGEST) == 65 ? 1 : -1];
static const uint8_t digest[32] = MODEL_GRAPH_DIGEST_BYTES;

int main(void) {
    static model_inputs in;
    static model_outputs out;
    for (int i = 0; i < MODEL_INPUT_INT_SIZE; i++) {
        double real = (double)i * 2.0 * MODEL_INPUT_INT_SCALE_NUM / MODEL_INPUT_INT_SCALE_DEN;
        in.int_[i] = (uint8_t)MODEL_INPUT_INT_QUANTIZE(real);
    }
    model_run(&in, &out);
    for (int i = 0; i < MODEL_OUTPUT_SCORE_SIZE; i++) {
        printf("%ld %.2f\\n", (long)out.score[i], MODEL_OUTPUT_SCORE_DEQUANTIZE(out.score[i]));
    }
    printf("%d %d %02x\\n", (int)MODEL_INPUT_INT_QUANTIZE(-1.0), (int)MODEL_INPUT_INT_QUANTIZE(9.0), digest[0]);
    return out.class_[0] < 5 ? 0 : 1;
}
"""


@pytest.mark.parametrize("compiler", [("gcc",), ("g++", "-x", "c++")], ids=["c", "c++"])
def test_a_stranger_uses_model_h(tmp_path: Path, compiler: tuple[str, ...]) -> None:
    graph, _ = passes.run(kinds())
    for name, text in {**files_of(graph), "main.c": STRANGER}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]}")
    subprocess.run(["gcc", *STRICT, "-c", "model.c"], cwd=tmp_path, check=True)
    flags = STRICT if compiler[0] == "gcc" else ("-Wall", "-Wextra", "-Werror", "-Wconversion")
    subprocess.run([*compiler, *flags, "-c", "main.c", "-o", "main.o"], cwd=tmp_path, check=True)
    subprocess.run([compiler[0], "main.o", "model.o", "-o", "main"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True)
    stored = np.clip(2 * np.arange(72) + 3, 0, 255).reshape(1, 6, 6, 2)
    expected, _ = reference.simulate(graph, {"int": stored})
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(line[0]) for line in lines[:5]] == expected["score"][0].tolist()
    assert [float(line[1]) for line in lines[:5]] == (expected["score"][0] / 4).tolist()
    assert lines[5] == ["0", "255", graph.digest()[:2]]


def test_a_corrupted_weight_is_caught(tmp_path: Path) -> None:
    graph, _ = passes.run(kinds())
    inputs = inputs_for(graph, SAMPLES)
    expected, _ = reference.simulate(graph, inputs)
    files = files_of(graph)
    table = re.search(r"model_const_u\[30\] = \{\n +(-?\d+)", files["model.c"])
    assert table
    wrong = str(int(table[1]) ^ 1)
    files["model.c"] = files["model.c"][: table.start(1)] + wrong + files["model.c"][table.end(1) :]
    got = run_program(compile_native(files, tmp_path), graph, inputs)
    assert not np.array_equal(got["score"], expected["score"])
    np.testing.assert_array_equal(got["h"], expected["h"])


@pytest.mark.parametrize("optimize", ["-O1", "-O2", "-O3", "-Os"])
def test_no_call_is_dropped(tmp_path: Path, optimize: str) -> None:
    """GCC 12.2 took a function that reads and writes the arena for one without effect; NN_FUNCTION says why and forbids it."""
    b = GraphBuilder("dropped")
    x = b.input("x", (30,), QType.of(16, True, 1))
    acc = b.requantize(x, QType.of(40, True, 1), [1], [0], [0], Rounding.FLOOR, "acc")
    small = b.requantize(acc, QType.of(8, False, 1), [2], [7], [3], Rounding.FLOOR, "small")
    b.output(b.requantize(small, QType.of(8, True, 1), [1], [0], [0], Rounding.FLOOR, "y"))
    b.output(b.requantize(acc, QType.of(8, True, 1), [1], [0], [0], Rounding.FLOOR, "z"))
    graph, plan = unfused(b.graph())
    inputs = {"x": np.arange(-300, 300).reshape(20, 30)}
    expected, _ = reference.simulate(graph, inputs)
    program = compile_native(model_files(graph, plan, "native")[0], tmp_path, [optimize])
    np.testing.assert_array_equal(run_program(program, graph, inputs)["y"], expected["y"])


COMPILERS = {
    "arm-none-eabi-gcc": ("-mcpu=cortex-m4", "-mthumb"),
    "arm-none-eabi-gcc -Os m0": ("-mcpu=cortex-m0", "-mthumb", "-Os"),
    "riscv64-unknown-elf-gcc": ("-march=rv32imac", "-mabi=ilp32"),
    "zig cc": ("-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"),
    "gcc -O3": ("-O3", "-Wpedantic"),
    "gcc -O0": ("-O0",),
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiles_without_a_warning_or_a_libc(tmp_path: Path, compiler: str) -> None:
    program = compiler.split()[0]
    command = [sys.executable, "-m", "ziglang", "cc"] if program == "zig" else [program]
    if program == "zig":
        pytest.importorskip("ziglang")
    elif shutil.which(program) is None:
        pytest.skip(f"no {program}")
    flags = ["-O2", *STRICT, "-ffreestanding", *COMPILERS[compiler], "-c", "model.c", "-o", "model.o"]
    for graph in (kinds(), later_kinds()):
        for name, text in files_of(graph).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        done = subprocess.run([*command, *flags], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kernel", sorted(p.name for p in (folder("firmware_templates") / "c" / "kernels").glob("*.h")))
def test_each_kernel_compiles_alone(kernel: str) -> None:
    path = folder("firmware_templates") / "c" / "kernels" / kernel
    done = subprocess.run(["gcc", *STRICT, "-fsyntax-only", "-x", "c", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = path.read_text()
    assert not re.search(r"\b(float|double|malloc|free|printf)\b", text)


# refusals


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ToolchainError) as caught:
        act()
    return str(caught.value)


def board(flash: int, ram: int) -> Any:
    return SimpleNamespace(name="tiny", flash_bytes=flash, ram_bytes=ram, stack_bytes=1024)


def test_a_model_that_cannot_fit_is_refused_with_its_largest_parts() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (40, 40, 3), QType.of(8, True, 1))
    rng = np.random.default_rng(0)
    acc = b.conv2d(x, b.const("w", rng.integers(-128, 128, (8, 3, 3, 3))), None, "acc")
    act = b.requantize(acc, QType.of(8, True, 1), [1], [0], [7], Rounding.FLOOR, "act1")
    most = b.max_pool(act, (2, 2), (2, 2), ((0, 0), (0, 0)), "most")
    flat = b.reshape(most, (most.size,), "flat")
    b.output(b.dense(flat, b.const("w2", rng.integers(-128, 128, (4, flat.size))), None, "y"))
    graph, plan = passes.run(b.graph())
    tables = model_files(graph, plan, "tiny")[1]

    def fit(flash: int, ram: int) -> Callable[[], None]:
        return lambda: check_fit(graph, plan, tables, board(flash, ram))

    assert refusal(fit(10_000, 65_536)) == (
        "model net: needs 11,768 bytes of constants but tiny has 10,000 bytes of flash; largest constants: %w2 11,552, %w 216"
    )
    assert refusal(fit(65_536, 11_000)) == (
        "model net: needs 11,552 bytes of arena but tiny has 11,000 bytes of RAM; "
        "largest buffers: %act1 11,552, %x 4,800, %flat 2,888"
    )
    assert refusal(fit(65_536, 17_000)) == (
        "model net: needs 17,392 bytes of RAM (arena 11,552, inputs 4,800, outputs 16, stack 1,024) but tiny has 17,000; "
        "largest buffers: %act1 11,552, %x 4,800, %flat 2,888"
    )
    fit(12_000, 17_392)()
    fit(0, 0)()


def test_what_the_back_end_cannot_do_is_refused_by_name() -> None:
    b = GraphBuilder("net")
    shapes = [(2, 1, 2, 1, 2, 1), (1, 2, 1, 2, 1, 2)]
    x, y = (b.input(n, s, QType.of(4, True, 1)) for n, s in zip("xy", shapes, strict=True))
    b.output(b.add(x, y, "z"))
    assert refusal(lambda: files_of(b.graph())) == (
        "add %z: walks over 6 separate axes, the C back end has 4; split it, or reorder its axes"
    )
    b = GraphBuilder("net")
    x = b.input("int", (2,), QType.of(8, True, 1))
    y = b.input("int_", (2,), QType.of(8, True, 1))
    b.output(b.add(x, y, "z"))
    assert refusal(lambda: files_of(b.graph())) == (
        "input %int_: is the same name in C as %int; rename one of them in the model"
    )
    b = GraphBuilder("net")
    x = b.input("x", (2,), QType.of(8, True, 1))
    for name in ("int", "int_"):
        b.next_state(b.state(name, [1, 2], x.qtype), x)
    b.output(b.requantize(x, x.qtype, [1], [0], [0], Rounding.FLOOR, "y"))
    assert refusal(lambda: files_of(b.graph())) == (
        "state %int_: is the same name in C as %int; rename one of them in the model"
    )
    graph, plan = passes.run(kinds())
    assert refusal(lambda: model_files(graph, replace(plan, packing={"w": "ternary"}), "native")) == (
        "const %w: packing 'ternary' is not known to the kernel that reads it; known: plain; let the passes choose"
    )
