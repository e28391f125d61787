"""Every rounding mode against Fraction arithmetic, the tables of docs/numerics.md, and tflm against its published code."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import slow
from toolchain.ir import QType, Tensor, ops
from toolchain.ir.exact import edge, rounded
from toolchain.ir.ops import Rounding
from toolchain.ir.rounding import requantize, shift_right

PLAIN = [r for r in Rounding if r is not Rounding.TFLM]
PAGE = (Path(__file__).parents[1] / "docs" / "numerics.md").read_text()
WIDE = QType(64, True)


def op_of(multiplier: int, offset: int, shift: int, rounding: Rounding, output_offset: int = 0) -> ops.Requantize:
    x = Tensor("x", (1,), WIDE)
    limits = (WIDE.min, WIDE.max)
    return ops.Requantize(x, x, (multiplier,), (offset,), (shift,), output_offset, rounding, limits)


@pytest.mark.parametrize("rounding", PLAIN)
@pytest.mark.parametrize("kind", [np.int64, object])
def test_small_shifts_exhaustively(rounding: Rounding, kind: Any) -> None:
    for shift in range(6):
        t = np.arange(-200, 201).astype(kind)
        want = [int(v) if shift == 0 else slow.round_real(Fraction(int(v), 2**shift), rounding.value) for v in t]
        assert shift_right(t, np.array(shift, dtype=kind), rounding).tolist() == want


@pytest.mark.parametrize("rounding", PLAIN)
@pytest.mark.parametrize("shift", [7, 31, 32, 40, 53, 61, 62])
def test_large_shifts_beside_every_half(rounding: Rounding, shift: int) -> None:
    half = 1 << (shift - 1)
    tops = [
        k * half + d for k in (-3, -2, -1, 0, 1, 2, 3) for d in (-1, 0, 1) if abs(k * half + d) + 2 * half < 1 << 63
    ]
    got = shift_right(np.array(tops, dtype=np.int64), np.array(shift), rounding)
    assert got.tolist() == [slow.round_real(Fraction(t, 2**shift), rounding.value) for t in tops]


@pytest.mark.parametrize("rounding", PLAIN)
def test_shift_zero_rounds_nothing(rounding: Rounding) -> None:
    t = np.array([-(1 << 62), -3, -1, 0, 1, 2, 3, (1 << 62) - 1])
    assert shift_right(t, np.array(0), rounding).tolist() == t.tolist()


@pytest.mark.parametrize("rounding", PLAIN)
def test_rounded_and_edge_agree_with_fractions(rounding: Rounding) -> None:
    for numerator in range(-40, 41):
        for denominator in (1, 2, 3, 4, 6):
            v = Fraction(numerator, denominator)
            want = slow.round_real(v, rounding.value)
            assert rounded(v, rounding) == want
            for k in range(want - 2, want + 3):
                twice, excluded = edge(k, rounding)
                assert (want >= k) == (2 * v > twice or (2 * v == twice and not excluded)), (v, k)


def rows(title: str) -> dict[str, list[int]]:
    """A rounding table of the page: mode -> values."""
    body = PAGE[PAGE.index(title) :].split("\n\n")[0].splitlines()
    found = {}
    for line in body[2:]:
        parts = [part.strip() for part in line.strip("|").split("|")]
        for mode in re.findall(r"`(\w+)`", parts[0]):
            found[mode] = [int(v) for v in parts[1:7]]
    return found


@pytest.mark.parametrize(
    ("title", "tops", "shift"),
    [("| `t / 2` |", [-5, -3, -1, 1, 3, 5], 1), ("| `t / 4` |", [-5, -3, -1, 1, 3, 5], 2)],
)
def test_the_tables_of_the_page(title: str, tops: list[int], shift: int) -> None:
    table = rows(title)
    assert set(table) == {r.value for r in Rounding}
    for mode, want in table.items():
        rounding = Rounding(mode)
        tflm = rounding is Rounding.TFLM
        op = op_of(1 << 30, 0, 30 + shift, rounding) if tflm else op_of(1, 0, shift, rounding)
        assert requantize(np.array(tops), op).tolist() == want, mode


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-(1 << 31), (1 << 31) - 1) | st.integers(-300, 300), min_size=1, max_size=30),
    st.integers(0, (1 << 31) - 1) | st.sampled_from([1 << 30, (1 << 31) - 1, 0, 1]),
    st.integers(0, 62),
    st.integers(-200, 200),
)
def test_tflm_is_the_published_algorithm(acc: list[int], multiplier: int, shift: int, offset: int) -> None:
    op = op_of(multiplier, 0, shift, Rounding.TFLM, offset)
    want = [slow.tflm(x, multiplier, 31 - shift) + offset for x in acc]
    assert requantize(np.array(acc), op).tolist() == want


def test_tflm_at_its_corners() -> None:
    ends = [-(1 << 31), -(1 << 31) + 1, -(1 << 30), -3, -2, -1, 0, 1, 2, 3, 1 << 30, (1 << 31) - 1]
    saturated = 0
    for multiplier in (0, 1, 1 << 30, (1 << 30) + 1, (1 << 31) - 1):
        for shift in range(63):
            got = requantize(np.array(ends), op_of(multiplier, 0, shift, Rounding.TFLM)).tolist()
            assert got == [slow.tflm(x, multiplier, 31 - shift) for x in ends]
            saturated += shift < 31 and multiplier > 1 << 30 and got[-1] == got[-2] > 0
    assert saturated > 20  # the left shift did saturate


def test_output_offset_comes_after_rounding_and_the_clamp_last() -> None:
    x = Tensor("x", (1,), WIDE)
    op = ops.Requantize(x, x, (1,), (0,), (1,), 3, Rounding.HALF_EVEN, (-2, 4))
    assert requantize(np.array([-100, 1, 3, 100]), op).tolist() == [-2, 3, 4, 4]
    before = ops.Requantize(x, x, (1,), (6,), (1,), 0, Rounding.HALF_EVEN, (-2, 4))
    assert requantize(np.array([1]), op).tolist() == [3]
    assert requantize(np.array([1]), before).tolist() == [4]  # 3.5 rounds to even


def test_channels_have_their_own_factors() -> None:
    x = Tensor("x", (2, 3), WIDE)
    op = ops.Requantize(x, x, (1, -2, 3), (0, 1, -1), (0, 1, 2), 0, Rounding.FLOOR, (-100, 100))
    assert requantize(np.array([[5, 5, 5], [-5, -5, -5]]), op).tolist() == [[5, -5, 3], [-5, 5, -4]]
