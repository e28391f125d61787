"""gemmlowp's fixed-point exp, logistic and tanh on single integers, for the tables of 8-bit functions.

Its one rule: Qk is a raw 32-bit integer with k integer bits, worth raw / 2**(31 - k); every step rounds and saturates as
gemmlowp's fixedpoint.h does, which TensorFlow Lite Micro computes with.
"""

from __future__ import annotations

from toolchain.frontends.tflite.arithmetic import clamped, high_mul, shift_right

INT32 = (-(1 << 31), (1 << 31) - 1)
ONE = (1 << 31) - 1  # of Q0, which cannot hold 1
HALVINGS = 3  # Newton's steps of a reciprocal
EXP = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)  # exp(-2**k) for k from -2 on, in Q0
EXP_EIGHTH, THIRD = 1895147668, 715827883  # exp(-1/8), 1/3 in Q0


def _shift_left(raw: int, exponent: int) -> int:
    return clamped(raw << exponent, INT32)


def _exp_of_quarter(a: int) -> int:
    """exp for Q0 from -1/4 to 0, by Taylor's series around -1/8."""
    x = a + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    rest = shift_right(high_mul(shift_right(x4, 2) + x3, THIRD) + x2, 1)
    return EXP_EIGHTH + high_mul(EXP_EIGHTH, x + rest)


def exp_of_negative(a: int, integer_bits: int) -> int:
    """exp of a Q`integer_bits` that is not positive, in Q0."""
    if a == 0:
        return ONE
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    below = (a & (quarter - 1)) - quarter
    result = _exp_of_quarter(_shift_left(below, integer_bits))
    remainder = below - a
    for k, factor in enumerate(EXP, -2):
        if integer_bits > k and remainder >> (fraction_bits + k) & 1:
            result = high_mul(result, factor)
    return result


def _reciprocal(a: int) -> int:
    """2 / (1 + a) for a Q0 from 0 to 1, in Q2."""
    half = (a + ONE + 1) // 2  # RoundingHalfSum of what is not negative
    x = 1515870810 + high_mul(half, -1010580540)  # 48/17 - 32/17 * half in Q2
    for _ in range(HALVINGS):
        x += _shift_left(high_mul(x, (1 << 29) - high_mul(half, x)), 2)
    return x


def logistic(a: int, integer_bits: int) -> int:
    """1 / (1 + exp(-a)) in Q0."""
    if a == 0:
        return 1 << 30
    positive = _shift_left(_reciprocal(exp_of_negative(-abs(a), integer_bits)), 1)
    return positive if a > 0 else ONE - positive


def tanh(a: int, integer_bits: int) -> int:
    """tanh(a) in Q0: (1 - e) / (1 + e) for e = exp(-2 |a|)."""
    if a == 0:
        return 0
    found = _shift_left(_reciprocal(exp_of_negative(-abs(a), integer_bits + 1)) - (1 << 29), 2)
    return found if a > 0 else -found
