"""How fast simulate is: 10,000 digits through a CNN of the demo's size. `python -m benchmarks.simulate`; a figure, not a test."""

from __future__ import annotations

import sys
import time
from fractions import Fraction

import numpy as np

from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.exact import affine
from toolchain.ir.geometry import same_padding
from toolchain.ir.ops import Rounding
from toolchain.reference import simulate


def digits_cnn() -> Graph:
    """8x8 digits: two convolutions with ReLU, a pool, a dense layer; about 120,000 multiply-accumulates."""
    rng = np.random.default_rng(0)
    b = GraphBuilder("digits")
    relu, same = QType(4, False, Fraction(1, 4)), (same_padding(8, 3, 1),) * 2
    x = b.input("x", (8, 8, 1), QType(8, False, Fraction(1, 16)))
    x = b.conv2d(x, b.const("w1", rng.integers(-7, 8, (16, 3, 3, 1)), Fraction(1, 8)), None, "acc1", padding=same)
    x = affine(b, x, relu, [Fraction(1, 37)], [Fraction(1, 3)], Rounding.HALF_EVEN, "act1")
    x = b.conv2d(x, b.const("w2", rng.integers(-7, 8, (16, 3, 3, 16)), Fraction(1, 8)), None, "acc2", padding=same)
    x = affine(b, x, relu, [Fraction(1, 53)], [Fraction(0)], Rounding.HALF_EVEN, "act2")
    x = b.max_pool(x, (2, 2), (2, 2), ((0, 0), (0, 0)), "pooled")
    x = b.reshape(x, (x.size,), "flat")
    b.output(b.dense(x, b.const("w3", rng.integers(-7, 8, (10, x.size))), None, "logits"))
    return b.graph()


def main(samples: int = 10_000) -> None:
    graph = digits_cnn()
    inputs = {"x": np.random.default_rng(1).integers(0, 256, (samples, 8, 8, 1))}
    simulate(graph, {"x": inputs["x"][:10]})
    start = time.perf_counter()
    simulate(graph, inputs)
    seconds = time.perf_counter() - start
    print(f"simulate: {samples} samples in {seconds:.2f} s, {samples / seconds:.0f} a second")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
