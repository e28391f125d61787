"""measure: accuracy over classes of different scales, labels that are no classes, and a spread of counts that occurred."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from toolchain import boards, flow, inputs, passes
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.measurement import Spread


def classifier() -> Graph:
    """Two logits of scales 1 and 1/100: stored 3 and 50 are real 3.0 and 0.5."""
    b = GraphBuilder("two")
    x = b.input("x", (2,), QType(8, True))
    weight = b.const("w", np.array([[1, 0], [0, 1]]), [Fraction(1), Fraction(1, 100)])
    b.output(b.dense(x, weight, None, "logits"))
    return b.graph()


def test_the_class_is_the_largest_real_value_not_the_largest_stored_one() -> None:
    samples = np.array([[3, 50], [0, 50], [-1, 1], [1, 100], [0, 0]])
    found = flow.measure(classifier(), boards.load("native"), samples, labels=np.array([0, 1, 1, 0, 0]), runs=1)
    assert (found.judged, found.accuracy, found.reference_accuracy) == ("logits", 1.0, 1.0)  # equal ones: the first


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_labels_that_are_no_classes_are_refused(labels: list[int]) -> None:
    text = rf"^--labels: holds classes {min(labels)}\.\.{max(labels)}, output logits has 0\.\.1$"
    with pytest.raises(ToolchainError, match=text):
        flow.measure(classifier(), boards.load("native"), np.zeros((2, 2), np.int64), labels=np.array(labels))


def test_a_map_is_no_list_of_classes() -> None:
    b = GraphBuilder("map")
    b.output(b.reshape(b.input("x", (4,), QType(8, True)), (2, 2), "y"))
    with pytest.raises(
        ToolchainError, match=r"^--labels: output y \[2, 2\] is no list of classes; leave --labels out$"
    ):
        flow.measure(b.graph(), boards.load("native"), np.zeros((1, 4), np.int64), labels=np.array([0]))


def test_a_spread_is_of_values_that_occurred() -> None:
    assert Spread.of([5, 1, 9, 3]) == Spread(1, 3, 9, 9)
    assert Spread.of(list(range(1, 201))) == Spread(1, 100, 198, 200)
    assert Spread.of([7]) == Spread(7, 7, 7, 7)


def counter(step: int) -> Graph:
    """y = state + x, and the state becomes y * step / 4, within 8 bits."""
    b = GraphBuilder("stream")
    x = b.input("x", (3,), QType(4, True))
    last = b.state("last", np.zeros(3, np.int64), QType(8, True))
    y = b.add(x, last, "y")
    b.next_state(last, b.requantize(y, QType(8, True), [step], [0], [2], Rounding.FLOOR, "next"))
    b.output(y)
    return b.graph()


def test_states_are_compared_as_a_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board whose states go on otherwise is found out, though every first inference is right."""
    samples = inputs.made_up(counter(3), 10)
    found = flow.measure(counter(3), boards.load("native"), samples, runs=1)
    assert (found.bit_exact, found.outputs_compared) == (True, 2 * 10 * 3)
    real = flow._emit
    monkeypatch.setattr(flow, "_emit", lambda graph, plan, board: real(*passes.run(counter(2), board), board))
    wrong = flow.measure(counter(3), boards.load("native"), samples, runs=1)
    assert not wrong.bit_exact
    assert wrong.first_difference is not None
    assert (wrong.first_difference.sample, wrong.count) == (1, None)


def test_a_name_longer_than_a_file_name_may_be() -> None:
    b = GraphBuilder("g" * 300)
    x = b.input("x", (3,), QType.of(4, True, 1))
    b.output(b.add(x, x, "y"))
    assert flow.measure(b.graph(), boards.load("native"), np.array([[1, -2, 3]]), runs=1).bit_exact
