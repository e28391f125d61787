"""Shapes and weights at the edge of what a kernel's bounds are about: where a bound fails another kernel must be taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.native import run_native
from tests.pages import needs_compiler
from toolchain import boards, flow, passes, reference
from toolchain.errors import MissingToolError
from toolchain.ir import Graph, QType, Tensor
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding

S8 = QType.of(8, True, 1)
Build = Callable[[GraphBuilder, np.random.Generator], None]


def unsigned_rows(b: GraphBuilder, rng: np.random.Generator) -> None:
    """A low byte of a packed row has a sign."""
    rows = [rng.integers(0, 100, (1, 16)), rng.integers(128, 256, (1, 16))]
    b.output(b.dense(b.input("x", (16,), S8), b.const("w", np.vstack(rows * 4)), None, "y"))


def one_shifted_window(b: GraphBuilder, rng: np.random.Generator) -> None:
    """One window, as long as the input, of which the first tap lies in padding."""
    w = b.const("w", rng.integers(-20, 20, (64, 3, 16)), bits=8, signed=True)
    b.output(b.conv1d(b.input("x", (3, 16), S8), w, None, "y", strides=(2,), padding=((1, 0),)))


def one_window_of_padding(b: GraphBuilder, rng: np.random.Generator) -> None:
    w = b.const("w", rng.integers(-10, 10, (64, 1, 1, 16)), bits=8, signed=True)
    b.output(b.conv2d(b.input("x", (1, 1, 16), S8), w, None, "y", strides=(2, 2), padding=((1, 0), (0, 0))))


def one_window_of_many_positions(b: GraphBuilder, rng: np.random.Generator) -> None:
    """All of x is moved by 128 first: its positions too, not its channels alone."""
    w = b.const("w", rng.integers(-20, 20, (16, 9, 4)), bits=8, signed=True)
    b.output(b.conv1d(b.input("x", (9, 4), QType.of(8, False, 1)), w, None, "y"))


def taps_beyond_a_halfword(b: GraphBuilder, rng: np.random.Generator) -> None:
    w = b.const("w", rng.integers(30_000, 65_536, (3, 3, 4)))
    b.output(b.depthwise_conv2d(b.input("x", (6, 6, 4), S8), w, None, "y"))


def tflm(b: GraphBuilder, acc: Tensor, offset: int = 0) -> None:
    b.output(b.requantize(acc, S8, (1 << 30,), (0,), (43,), Rounding.TFLM, "z", (-128, 127), offset))


def taps_that_cannot_be_doubled(b: GraphBuilder, rng: np.random.Generator) -> None:
    w = b.const("w", rng.integers(16_000, 32_768, (3, 3, 4)), bits=15, signed=False)
    tflm(b, b.depthwise_conv2d(b.input("x", (6, 6, 4), S8), w, None, "y"))


def a_large_output_offset(b: GraphBuilder, rng: np.random.Generator) -> None:
    w = b.const("w", rng.integers(-128, 128, (3, 3, 4)))
    tflm(b, b.depthwise_conv2d(b.input("x", (6, 6, 4), S8), w, None, "y"), 1 << 19)


def a_weight_in_three_layouts(b: GraphBuilder, rng: np.random.Generator) -> None:
    """As heads of a detector share one."""
    w = b.const("w", rng.integers(-100, 100, (8, 3, 3, 16)), bits=8, signed=True)
    for k, shape in enumerate([(8, 8), (25, 5), (3, 3)]):
        pad = ((1, 1), (1, 1)) if k < 2 else ((0, 0), (0, 0))
        b.output(b.conv2d(b.input(f"x{k}", (*shape, 16), S8), w, None, f"y{k}", padding=pad))


def beyond_32_bits(b: GraphBuilder, rng: np.random.Generator) -> None:
    b.output(
        b.dense(b.input("x", (32,), QType.of(4, True, 1)), b.const("w", rng.choice([3, 1 << 40], (16, 32))), None, "y")
    )


def beyond_32_bits_in_a_table(b: GraphBuilder, rng: np.random.Generator) -> None:
    values = rng.choice([3, 5, 1 << 40], (16, 32))
    b.output(b.dense(b.input("x", (32,), QType.of(4, True, 1)), b.const("w", values), None, "y"))


BUILDS: list[Build] = [
    unsigned_rows,
    one_shifted_window,
    one_window_of_padding,
    one_window_of_many_positions,
    taps_beyond_a_halfword,
    taps_that_cannot_be_doubled,
    a_large_output_offset,
    a_weight_in_three_layouts,
    beyond_32_bits,
    beyond_32_bits_in_a_table,
]


def made(build: Build) -> Graph:
    b = GraphBuilder(build.__name__)
    build(b, np.random.default_rng(0))
    return b.graph()


@pytest.mark.parametrize("optimize", ["speed", "size"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_every_core_computes_it(build: Build, optimize: str) -> None:
    """By the portable form of each core's kernels; those that only assembly could get wrong run on the core below."""
    graph = made(build)
    samples = inputs_for(graph, 6, 1)
    expected, _ = reference.simulate(graph, samples)
    plans = {}
    for name in ("unicorn_m4", "unicorn_m0plus", "qemu_mps3_an547"):
        plan = passes.run(graph, boards.load(name), optimize=optimize)[1]
        plans[plan.digest()] = plan
    for plan in plans.values():
        got = run_native(graph, samples, plan=plan, sanitize=True)
        for name, values in expected.items():
            assert_array_equal(got[name], values, err_msg=name)


@pytest.mark.parametrize("build", [a_large_output_offset, unsigned_rows, taps_that_cannot_be_doubled])
def test_assembly_computes_it(build: Build) -> None:
    needs_compiler("arm", "cortex-m4f")
    graph = made(build)
    try:
        assert flow.measure(graph, "unicorn_m4", inputs_for(graph, 6, 1), runs=1).bit_exact
    except MissingToolError as error:
        pytest.skip(str(error))
