"""Softmax: the reference is TensorFlow Lite Micro, integer for integer, and the page's own transcription where TFLM stops."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import slow
from tests.native import SANITIZE, compile_native
from tests.tflite_files import T, one_op, run
from toolchain import reference
from toolchain.backends.c import kernel_files
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.reference import simulate

ONE = (1 << 31) - 1
SIZES = (1, 2, 3, 10, 12, 100, 257, 511)  # at 512 equal elements TFLM's check of the shift fails, for 8 bits
SCALES = (2.0**-16, 1 / 1024, 1 / 256, 0.0235, 0.05, 0.0999, 1 / 3, 1.0, 7.3, 32.0, 1e12)
BETAS = (1.0, 0.1, 2.5, 1000.0)


def softmax(shape: tuple[int, ...], table: Any, bits: int, signed: bool = True) -> Graph:
    b = GraphBuilder("softmax")
    kind = QType(bits, True, Fraction(1, 1 << bits), None, -1 << (bits - 1))
    b.output(b.softmax(b.input("x", shape, QType(8, signed, Fraction(1, 10))), table, kind, "y"))
    return b.graph()


def rows(n: int, seed: int) -> np.ndarray:
    """All least, all greatest, all alike, one hot either way, steps, close together, and at random."""
    rng = np.random.default_rng(seed)
    hot, cold = np.full(n, -128), np.full(n, 127)
    hot[n // 2], cold[-1] = 127, -128
    alike = [np.full(n, v) for v in (-128, 127, 0, -1)]
    steps = [np.arange(n) % 256 - 128, -(np.arange(n) % 5), np.arange(n) % 2 * 255 - 128]
    near = [rng.integers(-4, 4, n), rng.integers(90, 128, n)]
    return np.stack([*alike, hot, cold, *steps, *near, *rng.integers(-128, 128, (9, n))])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("scale", SCALES)
def test_simulate_is_tflm(scale: float, bits: int) -> None:
    for beta in BETAS:
        table = slow.softmax_table(scale, beta)
        for n in SIZES:
            x = T((1, n), scale=scale, zero_point=n % 200 - 100)
            y = T((1, n), f"int{bits}", scale=2.0**-bits, zero_point=-1 << (bits - 1))
            samples = rows(n, n)
            (found,) = run(one_op("SOFTMAX", [x], [y], beta=beta), samples)
            outputs, _ = simulate(softmax((n,), table, bits), {"x": samples})
            assert_array_equal(outputs["y"], found.reshape(samples.shape), err_msg=f"{n} elements, beta {beta}")


def test_simulate_is_tflm_over_the_last_of_several_axes() -> None:
    samples = np.random.default_rng(0).integers(-128, 128, (20, 3, 4, 6))
    for bits in (8, 16):
        x = T((1, 3, 4, 6), scale=0.03, zero_point=-1)
        y = T((1, 3, 4, 6), f"int{bits}", scale=2.0**-bits, zero_point=-1 << (bits - 1))
        (found,) = run(one_op("SOFTMAX", [x], [y], beta=1.0), samples)
        outputs, _ = simulate(softmax((3, 4, 6), slow.softmax_table(0.03, 1.0), bits), {"x": samples})
        assert_array_equal(outputs["y"], found.reshape(samples.shape))


@pytest.mark.parametrize("bits", [8, 16])
def test_long_rows_are_tflms_too_where_it_takes_them(bits: int) -> None:
    """A thousand classes: sums below 512, as those of any model that tells its classes apart."""
    n = 1001
    samples = rows(n, 3)[[4, 6, 10, 11, 12]]
    table = slow.softmax_table(0.1, 1.0)
    e = np.array(table)[samples.max(axis=1, keepdims=True) - samples]
    assert (e.sum(axis=1) < 512 << 31).all(), "TensorFlow Lite Micro would end this process"
    x, y = T((1, n), scale=0.1), T((1, n), f"int{bits}", scale=2.0**-bits, zero_point=-1 << (bits - 1))
    (found,) = run(one_op("SOFTMAX", [x], [y], beta=1.0), samples)
    outputs, _ = simulate(softmax((n,), table, bits), {"x": samples})
    assert_array_equal(outputs["y"], found.reshape(samples.shape))


@pytest.mark.parametrize(("bits", "signed"), [(8, True), (16, False)])
def test_every_mantissa_length_is_the_transcriptions(bits: int, signed: bool) -> None:
    """Sums on both sides of every power of two up to the largest there is, beyond where TensorFlow Lite Micro stops."""
    counts = {n for k in range(12) for n in ((1 << k) - 1, 1 << k, (1 << k) + 1) if k < 10 or n == 1 << k} - {0} | {
        4095
    }
    for n in sorted(counts):
        for table in ([ONE] * 256, [ONE, *[(1 << 31) - 1 - (1 << 11)] * 128, *[1 << 11] * 63, *[(1 << 11) - 1] * 64]):
            graph = softmax((n,), table, bits, signed)
            low = -128 if signed else 0
            x = np.full((2, n), low)
            x[1, 0], x[1, -1] = low + 1, low + 200
            outputs, _ = simulate(graph, {"x": x})
            for given, found in zip(x, outputs["y"], strict=True):
                want, _, _ = slow.simulate(graph, {"x": given})
                assert_array_equal(found, want["y"], err_msg=f"{n} elements")


@pytest.mark.parametrize("bits", [8, 16])
def test_the_integers_mean_a_softmax(bits: int) -> None:
    """Within one step of 8 bits, and the four that TFLM's tables and reciprocal cost at 16, of the real function."""
    x = rows(10, 1)
    outputs, _ = simulate(softmax((10,), slow.softmax_table(0.05, 1.0), bits), {"x": x})
    e = np.exp(0.05 * (x - x.max(axis=1, keepdims=True)))
    real = np.minimum(e / e.sum(axis=1, keepdims=True) * 2**bits, 2**bits - 1)
    assert np.abs(outputs["y"] + (1 << (bits - 1)) - real).max() <= {8: 1, 16: 4}[bits]


def mantissas() -> np.ndarray:
    """What a reciprocal is taken of: both ends, about every power of two between them, and at random."""
    ends = [(1 << 30) + k for k in range(5)] + [(1 << 31) - 1 - k for k in range(5)]
    near = [(1 << 30) + (1 << k) + by for k in range(1, 30) for by in (-1, 0, 1)]
    return np.array([*ends, *near, *np.random.default_rng(0).integers(1 << 30, 1 << 31, 5000)])


def products() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of 32 bits, of both signs, and exact halves; never twice the least, which saturates and which no step meets."""
    rng = np.random.default_rng(1)
    a = np.concatenate([rng.integers(-(1 << 31), 1 << 31, 5000), [ONE, -ONE, 1, -1, 0, 1 << 15, -(1 << 15), 3]])
    b = np.concatenate([rng.integers(-ONE, 1 << 31, 5000), [ONE, ONE, 1 << 30, 1 << 30, 5, 1 << 15, 1 << 15, 1 << 30]])
    return a, b


def test_each_step_is_the_transcriptions_to_the_last_bit() -> None:
    """Outputs of 8 and 16 bits hide what happens to the last bits of 31."""
    d, (a, b) = mantissas(), products()
    assert_array_equal(reference._reciprocal(d), [slow.reciprocal(v) for v in d.tolist()])
    assert reference._reciprocal(d).max() == ONE, "the end saturates"
    high = [slow.saturating_rounding_doubling_high_mul(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    assert_array_equal(reference._high_product(a, b), high)


STEPS = """
#include <stdio.h>
#include "kernels/nn_softmax.h"
int main(void) {
    int32_t in[2];
    while (fread(in, sizeof in, 1, stdin) == 1) {
        const int32_t out = in[1] == 0 ? nn_reciprocal(in[0]) : nn_high_product(in[0], in[1]);
        if (fwrite(&out, sizeof out, 1, stdout) != 1) return 1;
    }
    return 0;
}
"""


def test_each_step_of_the_kernel_is_too(tmp_path: Path) -> None:
    program = compile_native(kernel_files(("nn_softmax.h",)), tmp_path, SANITIZE, driver=STEPS)
    d, (a, b) = mantissas(), products()
    pairs = np.concatenate([np.stack([d, 0 * d], axis=1), np.stack([a, b], axis=1)[b != 0]]).astype("<i4")
    done = subprocess.run([program], input=pairs.tobytes(), capture_output=True, check=True)
    want = [slow.saturating_rounding_doubling_high_mul(p, q) for p, q in pairs[len(d) :].tolist()]
    assert_array_equal(np.frombuffer(done.stdout, "<i4"), [*(slow.reciprocal(v) for v in d.tolist()), *want])
