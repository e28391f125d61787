"""One weight, one threshold, one shift changed: what simulate gives must change, or comparing with it proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.graphs import inputs_for
from toolchain.ir import Const, Graph, QType, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.exact import affine
from toolchain.ir.ops import Rounding
from toolchain.reference import simulate


def network() -> Graph:
    """A convolution, batch-norm-like factors, a bipolar threshold, a pool and a dense layer, all of which matter."""
    rng = np.random.default_rng(1)
    b = GraphBuilder("teeth")
    x = b.input("x", (6, 6, 2), QType(6, True))
    acc = b.conv2d(x, b.const("w1", rng.integers(1, 8, (3, 3, 3, 2)) * rng.choice([-1, 1], (3, 3, 3, 2))), None, "acc1")
    slope = [Fraction(1, 7), Fraction(-1, 9), Fraction(1, 8)]
    y = affine(b, acc, QType(8, True), slope, [Fraction(1, 3)], Rounding.HALF_EVEN, "act")
    y = b.threshold(
        y, QType(3, True), [[-40, -9, 0, 20], [-30, -5, 5, 30], [-20, -2, 9, 40]], [[-3, -1, 0, 1, 3]], "steps"
    )
    y = b.sum_pool(y, (2, 2), (2, 2), ((0, 0), (0, 0)), "pooled")
    y = b.reshape(y, (y.size,), "flat")
    y = b.dense(
        y, b.const("w2", rng.integers(1, 4, (4, y.size))), b.const("b2", [3, -9, 2, 5], Fraction(1, 4)), "logits"
    )
    b.output(y)
    return b.graph()


GRAPH = network()
INPUTS = inputs_for(GRAPH, 400, seed=3)
TRUTH = simulate(GRAPH, INPUTS)[0]["logits"]


def bump(const: Const, at: int, by: int) -> Const:
    values = const.array.copy()
    values.ravel()[at] += by
    bits = const.tensor.qtype
    return Const.of(const.tensor.name, values, replace(bits, bits=bits.bits + 2, signed=True))


def changed(op: Any) -> Iterator[Any]:
    """The op with one integer of it changed by one, for each in turn."""
    for name, value in vars(op).items():
        if isinstance(value, Const) and name != "levels":
            for at in range(value.tensor.size):
                yield replace(op, **{name: bump(value, at, 1)})
        if name in ("multiplier", "shift", "offset") and isinstance(value, tuple):
            for at in range(len(value)):
                step = 1 << max(op.shift[at] - 1, 0) if name == "offset" else 1
                yield replace(op, **{name: (*value[:at], value[at] + step, *value[at + 1 :])})
        if name == "clamp" and isinstance(op, ops.Requantize):
            yield replace(op, clamp=(op.clamp[0] + 100, op.clamp[1]))
    if isinstance(op, ops.Threshold):
        for at in range(op.levels.tensor.size):
            yield replace(op, levels=bump(op.levels, at, -1))


@pytest.mark.parametrize("index", range(len(GRAPH.ops)), ids=[op.output.name for op in GRAPH.ops])
def test_every_single_change_is_seen(index: int) -> None:
    tried = 0
    for op in changed(GRAPH.ops[index]):
        if isinstance(op, ops.Requantize) and op.multiplier != GRAPH.ops[index].multiplier:  # type: ignore[union-attr]
            continue  # the last bit of a long multiplier need not show; below, a shift always does
        graph = replace(GRAPH, ops=(*GRAPH.ops[:index], op, *GRAPH.ops[index + 1 :]))
        assert (simulate(graph, INPUTS)[0]["logits"] != TRUTH).any(), op
        tried += 1
    carries_numbers = isinstance(GRAPH.ops[index], ops.Conv2D | ops.Dense | ops.Requantize | ops.Threshold)
    assert (tried > 0) == carries_numbers


def test_every_rounding_matters() -> None:
    b = GraphBuilder("rounding")
    x = b.input("x", (1,), QType(6, True))
    seen = set()
    for rounding in Rounding:
        m, s = (1 << 30, 32) if rounding is Rounding.TFLM else (1, 2)
        b.output(b.requantize(x, QType(8, True), [m], [0], [s], rounding, rounding.value))
    outputs, _ = simulate(b.graph(), {"x": np.arange(-32, 32)[:, None]})
    seen = {tuple(v.ravel().tolist()) for v in outputs.values()}
    assert len(seen) == len(Rounding)
