"""Shapes and windows, against counting them one by one."""

from __future__ import annotations

from itertools import product
from math import lcm

import pytest

from toolchain.ir import QType, Tensor, ops
from toolchain.ir.geometry import out_size, pool_counts, pool_lcm, same_padding, tap_masks, window_counts


def starts(n: int, reach: int, stride: int, pad: tuple[int, int], ceil_mode: bool) -> list[int]:
    """First elements of the windows, found by walking: a window must lie in the padded input, or with ceil_mode begin in
    the input or the leading padding, the one before it not having reached the end."""
    found = []
    at = -pad[0]
    while at + reach <= n + pad[1]:
        found.append(at)
        at += stride
    reaches_end = found and found[-1] + reach == n + pad[1]
    if ceil_mode and not reaches_end and at < n and at - stride + reach < n + pad[1]:
        found.append(at)
    return found


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_out_size_counts_windows(ceil_mode: bool) -> None:
    for n, k, s, d, before, after in product(range(1, 8), range(1, 5), range(1, 5), range(1, 3), range(3), range(3)):
        reach = d * (k - 1) + 1
        if ceil_mode and max(before, after) >= k:
            continue  # pools refuse it
        want = len(starts(n, reach, s, (before, after), ceil_mode))
        assert out_size(n, k, s, d, (before, after), ceil_mode) == want, (n, k, s, d, before, after)


@pytest.mark.parametrize(
    ("n", "k", "s", "pad", "ceil_mode", "want"),
    [  # torch.nn.MaxPool1d's own output sizes
        (2, 3, 2, (0, 0), True, 1),
        (5, 2, 2, (0, 0), True, 3),
        (4, 1, 3, (0, 0), True, 2),
        (6, 3, 4, (1, 1), True, 2),
        (3, 2, 3, (1, 1), True, 2),
        (2, 3, 2, (0, 0), False, 0),
    ],
)
def test_out_size_is_torchs(n: int, k: int, s: int, pad: tuple[int, int], ceil_mode: bool, want: int) -> None:
    assert out_size(n, k, s, 1, pad, ceil_mode) == want


def test_same_padding_keeps_ceil_of_n_over_stride() -> None:
    for n, k, s, d in product(range(1, 12), range(1, 6), range(1, 4), range(1, 3)):
        before, after = same_padding(n, k, s, d)
        assert 0 <= after - before <= 1 or (before, after) == (0, 0)
        assert out_size(n, k, s, d, (before, after)) == -(-n // s)


def test_tap_masks_are_those_of_the_windows() -> None:
    for n, k, s, d, before, after in product(range(1, 6), range(1, 4), range(1, 3), range(1, 3), range(3), range(3)):
        reach = d * (k - 1) + 1
        want = {
            tuple(0 <= at + i * d < n for i in range(k)) for at in starts(n, reach, s, (before, after), ceil_mode=False)
        }
        assert tap_masks(n, k, s, d, (before, after)) == want


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_window_counts(ceil_mode: bool, include: bool) -> None:
    for n, k, s, before, after in product(range(1, 7), range(1, 4), range(1, 4), range(2), range(2)):
        if max(before, after) >= k:
            continue  # pools refuse it
        first, end = (-before, n + after) if include else (0, n)
        want = [sum(first <= at + i < end for i in range(k)) for at in starts(n, k, s, (before, after), ceil_mode)]
        got = window_counts(n, k, s, (before, after), ceil_mode, include)
        assert list(got) == want


def test_lcm_over_both_axes() -> None:
    q = QType(8, True)
    op = ops.SumPool(Tensor("x", (5, 7, 1), q), Tensor("y", (1,), q), (3, 2), (2, 2), ((1, 1), (0, 1)), True, False)
    rows, columns = pool_counts(op)
    assert (set(rows), set(columns)) == ({2, 3}, {2, 1})
    assert pool_lcm(op) == lcm(*(a * b for a in rows for b in columns)) == 12
