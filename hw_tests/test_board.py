"""What every board must do, silicon or not: answer exactly, count repeatably, survive a bad line, refuse what is not its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from toolchain import flow, inputs, passes, reference
from toolchain.boards import Board
from toolchain.errors import ToolchainError
from toolchain.ir import Const, Graph, ops
from toolchain.measurement import run_sample
from toolchain.protocol import Session

from .conftest import DIGITS, Bench

Start = Callable[[Graph], Session]


@pytest.fixture(scope="session")
def images() -> np.ndarray[Any, np.dtype[np.uint8]]:
    with np.load(DIGITS / "test.npz") as test:
        found: np.ndarray[Any, np.dtype[np.uint8]] = test["images"]
        return found


def test_digits_are_exact_and_counted(bench: Bench, digits: Graph, images: Any) -> None:
    samples = inputs.stored(digits, images[:40])
    found = flow.measure(digits, bench.board, samples, runs=5, port=bench.port)
    assert found.first_difference is None
    assert found.bit_exact
    assert found.outputs_compared == 400
    assert (found.count is None) == (found.count_kind == "none")
    if found.count_kind in (
        "instructions",
        "modelled",
        "simulated",
    ):  # no caches, no interrupts left in: an inference costs what it costs
        again = flow.measure(digits, bench.board, samples, runs=5)
        assert again.count == found.count
        assert [op.count for op in again.ops] == [op.count for op in found.ops]


def test_corners_are_exact(bench: Bench, digits: Graph) -> None:
    assert flow.measure(digits, bench.board, inputs.made_up(digits, 16, seed=7), runs=1, port=bench.port).bit_exact


def test_a_corrupted_weight_is_caught(bench: Bench, digits: Graph, images: Any) -> None:
    """The teeth: the board computes another network than the reference and must be found out, with no count given."""
    bench.needs_other_model()
    samples = inputs.stored(digits, images[:8])
    expected, _ = reference.simulate(digits, samples)
    refined, plan = passes.run(_with_one_weight_changed(digits), bench.board)
    image = bench.image(_with_one_weight_changed(digits))
    with bench.open(_with_one_weight_changed(digits)) as link:
        session = Session(link)
        session.hello(image)
        got = [run_sample(session, refined, plan, samples, row)[1] for row in range(8)]
    output = digits.outputs[0].name
    assert any((row[output] != expected[output][k]).any() for k, row in enumerate(got))


def _with_one_weight_changed(graph: Graph) -> Graph:
    index = next(i for i, op in enumerate(graph.ops) if isinstance(op, ops.Dense))
    op = graph.ops[index]
    assert isinstance(op, ops.Dense)
    weight = op.weight.array.copy()
    weight[0, np.abs(weight[0]).argmax()] = 0
    changed = dataclasses.replace(op, weight=Const.of(op.weight.tensor.name, weight, op.weight.tensor.qtype))
    return dataclasses.replace(graph, ops=(*graph.ops[:index], changed, *graph.ops[index + 1 :]))


def test_another_model_is_refused_by_name(bench: Bench, digits: Graph) -> None:
    with bench.open(digits) as link:
        other = dataclasses.replace(bench.image(digits), graph_digest="0" * 64)
        text = r"board holds graph [0-9a-f]{8}… but this model is 00000000…; build and flash it, or measure the model the board holds$"
        with pytest.raises(ToolchainError, match=text):
            Session(link).hello(other)


def test_another_build_is_refused_by_name(bench: Bench, digits: Graph) -> None:
    with bench.open(digits) as link:
        other = dataclasses.replace(bench.image(digits), project_digest="0" * 64)
        with pytest.raises(
            ToolchainError, match=r"board holds build [0-9a-f]{8}… of this model but the image is 00000000…"
        ):
            Session(link).hello(other)


def test_the_line_recovers_from_garbage(bench: Bench, digits: Graph, images: Any, board: Board) -> None:
    samples = inputs.stored(digits, images[:1])
    expected, _ = reference.simulate(digits, samples)
    refined, plan = passes.run(digits, board)
    with bench.open(digits) as link:
        session = Session(link)
        session.hello(bench.image(digits))
        for garbage in (b"\x00\x00\x00", bytes(range(256)), b"\xff" * 3000, b"\x05\x01\x02"):
            link.send(garbage)
            _, got, _ = run_sample(session, refined, plan, samples, 0)
            for name, value in got.items():
                assert_array_equal(value, expected[name][0])


def test_every_stored_tensor_can_be_read(bench: Bench, digits: Graph, images: Any, board: Board) -> None:
    """Diagnosis: stop after the op that makes a tensor and read it; each equals the reference's."""
    from toolchain import layout
    from toolchain.measurement import stored_dtype

    samples = inputs.stored(digits, images[:1])
    known = reference.trace(digits, samples)
    refined, plan = passes.run(digits, board)
    read = 0
    with bench.open(digits) as link:
        session = Session(link)
        session.hello(bench.image(digits))
        run_sample(session, refined, plan, samples, 0)
        for slot in layout.tensors(refined, plan):
            session.run(stop=slot.available_after_op + 1)
            got = np.frombuffer(session.read(slot.index, slot.bytes), stored_dtype(slot))
            assert_array_equal(got, known[slot.name][0].ravel(), err_msg=slot.name)
            read += 1
    assert read >= (2 if plan.hls else 4)  # a circuit keeps its inputs and outputs, and nothing between
