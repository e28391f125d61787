"""The float32 functions of TensorFlow's x86 wheels whose last bit is not IEEE's to say: log and reduce_mean.

Its one rule: each is the order of operations of the library (Eigen, packets of 8 lanes, no fused multiply-add), found by
experiment and held bit for bit by tests/test_qkeras_quantizers.py; it matters where a last bit decides a scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np

F32 = np.float32
LANES = 8


def log(x: np.ndarray) -> np.ndarray:
    """tf.math.log: Eigen's rational approximation in packets, the C library's logf (nearest) in the rest of the tensor."""
    flat = np.ascontiguousarray(x, dtype=F32).reshape(-1)
    n = flat.size // LANES * LANES
    rest = np.log(flat[n:].astype(np.float64)).astype(F32)
    return np.concatenate([log_packet(flat[:n]), rest]).reshape(x.shape)


def log_packet(x: np.ndarray) -> np.ndarray:
    """Eigen's plog for float32: r(m) = p(m)/q(m) around 1, plus exponent times ln 2."""
    m, e = np.frexp(np.maximum(x, np.finfo(F32).tiny))
    m, e = m.astype(F32), e.astype(F32)
    low = m < F32(0.707106781186547524)
    extra = np.where(low, m, F32(0))
    m = (m - F32(1)) + extra
    e = e - low.astype(F32)
    p = m * ((m * F32(0.18256296349849254) + F32(1.0000000190281063)) * m + F32(1.0000000190281136))
    q = ((m * F32(0.049616247954120038) + F32(0.59923249590823520)) * m + F32(1.4999999999999927)) * m + F32(1)
    return np.where(np.isposinf(x), x, e * F32(0.69314718) + p / q)


def mean(a: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """tf.reduce_mean with keepdims: one sum in Eigen's order, one division."""
    kept = [i for i in range(a.ndim) if i not in axes]
    n = int(np.prod([a.shape[i] for i in axes]))
    rows = np.moveaxis(a, kept, range(a.ndim - len(kept), a.ndim)).reshape(n, -1)
    k = rows.shape[1]
    packed = k // LANES * LANES
    total = (
        np.array([_sum_all(rows[:, 0])])
        if k == 1
        else np.concatenate([_sum_rows(rows[:, :packed]), _sum(rows[:, packed:])])
    )
    found: np.ndarray = (total / F32(n)).reshape([1 if i in axes else a.shape[i] for i in range(a.ndim)])
    return found


def _sum(rows: np.ndarray) -> np.ndarray:
    total = np.zeros(rows.shape[1:], dtype=F32)
    for row in rows:
        total = total + row
    return total


def _sum_rows(rows: np.ndarray) -> np.ndarray:
    """InnerMostDimPreserver: four interleaved sums from 16 rows on."""
    n = len(rows) // 4 * 4 if len(rows) >= 16 else 0
    total = _sum(rows[0:n:4])
    for i in (1, 2, 3):
        total = total + _sum(rows[i:n:4])
    for row in rows[n:]:
        total = total + row
    return total


def _sum_all(v: np.ndarray) -> Any:
    """InnerMostDimReducer: four packets interleaved, then a tree over the packet, then the rest."""
    if len(v) > LANES * 1024:
        half = (len(v) + 1) // 2
        half = (half + LANES - 1) // LANES * LANES
        return F32(_sum_all(v[:half]) + _sum_all(v[half:]))
    n, m = len(v) // (4 * LANES) * 4 * LANES, len(v) // LANES * LANES
    lanes = v[:n].reshape(-1, 4, LANES)
    p = _sum(lanes[:, 0])
    for i in (1, 2, 3):
        p = p + _sum(lanes[:, i])
    for packet in v[n:m].reshape(-1, LANES):
        p = p + packet
    h = p[:4] + p[4:]
    return F32((h[0] + h[2]) + (h[1] + h[3]) + _sum(v[m:]))
