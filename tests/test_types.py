"""QType, Tensor, Const: what they hold, and the error for what they do not."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from toolchain.errors import GraphError
from toolchain.ir import Const, QType, Tensor
from toolchain.ir.types import bits_for

HALF = Fraction(1, 2)


@pytest.mark.parametrize(
    ("bits", "signed", "lo", "hi"),
    [
        (1, False, 0, 1),
        (1, True, -1, 0),
        (2, True, -2, 1),
        (8, False, 0, 255),
        (8, True, -128, 127),
        (63, False, 0, (1 << 63) - 1),
        (64, True, -(1 << 63), (1 << 63) - 1),
    ],
)
def test_limits(bits: int, signed: bool, lo: int, hi: int) -> None:
    q = QType(bits, signed)
    assert (q.min, q.max) == (lo, hi)
    assert q.text == f"{'s' if signed else 'u'}{bits}"


def test_bits_for_is_the_narrowest_type_of_every_small_range() -> None:
    for lo in range(-20, 21):
        for hi in range(lo, 21):
            bits, signed = bits_for(lo, hi)
            assert QType(bits, signed).min <= lo <= hi <= QType(bits, signed).max
            assert signed == (lo < 0)
            if bits > 1:
                narrower = QType(bits - 1, signed)
                assert lo < narrower.min or hi > narrower.max
            forced, _ = bits_for(lo, hi, signed=True)
            assert QType(forced, True).min <= lo <= hi <= QType(forced, True).max
    assert bits_for(-(1 << 63), (1 << 63) - 1) == (64, True)


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((0, True), "qtype: 0 bits, must be 1 to 64 with a sign, or one less without: int64 holds every value"),
        ((65, True), "qtype: 65 bits, must be 1 to 64 with a sign, or one less without: int64 holds every value"),
        ((64, False), "qtype: 64 bits, must be 1 to 64 with a sign, or one less without: int64 holds every value"),
        ((8, True, (HALF,)), "qtype: a tuple of scales and an axis go together"),
        ((8, True, HALF, 0), "qtype: a tuple of scales and an axis go together"),
        ((8, True, (HALF, HALF), -1), "qtype: axis -1, must be counted from the front, from 0"),
        ((8, True, 0.5), "qtype: scale 0.5, must be a Fraction or a tuple of them"),
        ((8, True, (), 0), "qtype: scale (), must be a Fraction or a tuple of them"),
        ((8, True, Fraction(0)), "qtype: scale 0, must be positive"),
        ((8, True, (HALF, -HALF), 0), "qtype: scale -1/2, must be positive"),
        ((8, False, HALF, None, -1), "qtype: zero point -1 is outside 0..255 of u8"),
        ((4, True, HALF, None, 8), "qtype: zero point 8 is outside -8..7 of s4"),
    ],
)
def test_qtype_errors(args: Any, text: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(text)}$"):
        QType(*args)


def test_of_makes_equal_scales_one() -> None:
    assert QType.of(8, True, [HALF, HALF], 2) == QType(8, True, HALF)
    assert QType.of(8, True, [HALF, 1], 2) == QType(8, True, (HALF, Fraction(1)), 2)
    assert QType.of(8, True, 3) == QType(8, True, Fraction(3))
    assert QType.of(8, True, [HALF, 1], 0).scale_list(2) == (HALF, Fraction(1))
    assert QType(8, True, HALF).scale_list(3) == (HALF,) * 3


@pytest.mark.parametrize(
    ("scale", "want"), [(Fraction(1), (8, 8)), (HALF, (8, 7)), (Fraction(1, 1024), (8, -2)), (Fraction(4), (8, 10))]
)
def test_fixed_point(scale: Fraction, want: tuple[int, int]) -> None:
    assert QType(8, True, scale).fixed_point == want


@pytest.mark.parametrize(
    ("q", "text"),
    [
        (QType(8, True, Fraction(1, 3)), "qtype s8: is not fixed point: scale 1/3 must be a power of two"),
        (QType(8, True, Fraction(3, 4)), "qtype s8: is not fixed point: scale 3/4 must be a power of two"),
        (QType(8, True, HALF, None, 1), "qtype s8: is not fixed point: it must have one scale and zero point 0"),
        (QType(8, True, (HALF, HALF), 0), "qtype s8: is not fixed point: it must have one scale and zero point 0"),
    ],
)
def test_not_fixed_point(q: QType, text: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(text)}$"):
        _ = q.fixed_point


def test_const_keeps_its_integers_read_only() -> None:
    c = Const.of("w", np.array([[1, -2], [3, 4]], np.int8), QType(4, True))
    assert c.tensor == Tensor("w", (2, 2), QType(4, True))
    assert c.array.tolist() == [[1, -2], [3, 4]]
    assert c == Const.of("w", [[1, -2], [3, 4]], QType(4, True))
    assert hash(c) == hash(Const.of("w", [[1, -2], [3, 4]], QType(4, True)))
    with pytest.raises(ValueError, match="read-only"):
        c.array[0, 0] = 1
    assert Const.of("w", np.array([(1 << 63) - 1], object), QType(64, True)).array.tolist() == [(1 << 63) - 1]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5], "const %w: holds float64, must be integers"),
        (np.array([Fraction(1, 2)]), "const %w: holds object, must be integers"),
        ([8], "const %w: values 8..8 do not fit s4 (-8..7)"),
        ([-9, 0], "const %w: values -9..0 do not fit s4 (-8..7)"),
        ([1 << 70], f"const %w: values {1 << 70}..{1 << 70} do not fit s4 (-8..7)"),
    ],
)
def test_const_errors(values: Any, text: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(text)}$"):
        Const.of("w", values, QType(4, True))


def test_tensor_size_and_channels() -> None:
    assert Tensor("x", (2, 3, 4), QType(8, True)).size == 24
    assert Tensor("x", (2, 3, 4), QType(8, True)).channels == 4
    assert Tensor("x", (1 << 40, 1 << 40), QType(8, True)).size == 1 << 80
