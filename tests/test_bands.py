"""Bands of rows: the graph computes the same in any number of them, wherever they end, whatever lies in the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import inputs_for
from tests.native import run_native
from tests.test_arena import written_bytes
from toolchain import boards, passes, reference
from toolchain.ir import Graph, QType, Tensor, check, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import ctype, functions
from toolchain.passes import bands

S8 = QType.of(8, True, 1)
ZERO = replace(S8, zero_point=3)


def image(seed: int) -> Graph:
    """Convolutions, depthwise ones, pools and sums over an image with odd sizes, strides, dilation and padding; what follows them
    needs the whole."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder(f"image{seed}")
    height, width, channels = (int(n) for n in (rng.integers(9, 22), rng.integers(3, 9), rng.integers(1, 4)))
    x = b.input("x", (height, width, channels), ZERO if seed % 2 else S8)
    skip: Tensor | None = None
    for k in range(int(rng.integers(2, 6))):
        kind = rng.choice(["conv", "depthwise", "max", "sum", "dense", "add"]) if k else "conv"
        taps, stride, dilation = (int(n) for n in (rng.integers(1, 4), rng.integers(1, 3), rng.integers(1, 3)))
        before, after = (int(n) for n in rng.integers(0, taps, 2))
        pad, none = ((before, after), (0, 0)), ((0, 0), (0, 0))
        if kind == "conv" and x.shape[0] + before + after > (taps - 1) * dilation:
            w = _const(b, rng, k, (4, taps, 1, x.channels))
            x = _small(b, b.conv2d(x, w, None, f"conv{k}", (stride, 1), (dilation, 1), pad), k)
        elif kind == "depthwise":
            w = _const(b, rng, k, (taps, 1, x.channels))
            x = _small(b, b.depthwise_conv2d(x, w, None, f"dw{k}", (stride, 1), (1, 1), pad), k)
        elif kind == "max":
            x = b.max_pool(x, (taps, 1), (stride, 1), pad, f"max{k}")
        elif kind == "sum":
            x = _small(b, b.sum_pool(x, (taps, 1), (stride, 1), none, f"sum{k}"), k)
        elif kind == "dense":
            x = _small(b, b.dense(x, _const(b, rng, k, (4, x.channels)), None, f"dense{k}"), k)
        elif kind == "add" and skip is not None and skip.shape == x.shape:
            x = _small(b, b.add(x, skip, f"add{k}"), k)
        skip = x if skip is None or skip.shape != x.shape else skip
        if x.shape[0] < 4:
            break
    b.output(b.dense(b.reshape(x, (x.size,), "flat"), _const(b, rng, 99, (3, x.size)), None, "y"))
    return b.graph()


def _const(b: GraphBuilder, rng: np.random.Generator, k: int, shape: tuple[int, ...]) -> ops.Const:
    return b.const(f"w{k}", rng.integers(-8, 8, shape))


def _small(b: GraphBuilder, acc: Tensor, k: int) -> Tensor:
    return b.requantize(acc, S8, [1 << 20], [0], [24], Rounding.HALF_UP, f"s{k}", (-128, 127))


def cut(graph: Graph) -> Iterator[Graph]:
    """The graph in bands, wherever these can end and however many."""
    region = bands.region(graph)
    for end in range(1, len(region) + 1):
        for count in bands.COUNTS:
            made = bands.banded(graph, region[:end], count)
            if made is not None:
                yield made


def test_every_cut_computes_the_same() -> None:
    seen = 0
    for seed in range(30):
        graph = image(seed)
        samples = inputs_for(graph, 5, seed)
        expected = reference.simulate(graph, samples)[0]
        for made in cut(graph):
            check(made)
            assert_array_equal(reference.simulate(made, samples)[0]["y"], expected["y"])
            seen += 1
    assert seen > 150


@pytest.mark.parametrize("board", [None, "unicorn_m4", "unicorn_m0plus", "qemu_mps3_an547"])
def test_bands_are_planned_and_computed(board: str | None) -> None:
    """In C, by general and by special kernels."""
    seen = 0
    for seed in range(12):
        graph = image(seed)
        made, plan = passes.run(graph, boards.load(board) if board else None, optimize="ram")
        assert written_bytes(made, plan) == []
        if len(made.ops) == len(graph.ops):
            continue
        seen += 1
        if seen <= 2:
            samples = inputs_for(graph, 5, seed)
            got = run_native(made, samples, plan=plan, sanitize=True)
            assert_array_equal(got["y"], reference.simulate(graph, samples)[0]["y"])
    assert seen > 4


def test_a_band_of_wrong_rows_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With padding where the image goes on, or without where it ends."""
    wrong = 0
    for shift in (-1, 1):
        needs = bands._needs

        def moved(
            op: ops.Op,
            rows: tuple[int, int],
            needs: Callable[..., tuple[tuple[int, int], tuple[int, int]]] = needs,
            shift: int = shift,
        ) -> object:
            (lo, hi), padding = needs(op, rows)
            high = ops.inputs_of(op)[0].shape[0]
            return ((lo + shift, hi + shift) if lo + shift >= 0 and hi + shift <= high else (lo, hi)), padding

        with monkeypatch.context() as patch:
            patch.setattr(bands, "_needs", moved)
            for seed in range(6):
                graph = image(seed)
                samples = inputs_for(graph, 5, seed)
                expected = reference.simulate(graph, samples)[0]["y"]
                wrong += any((reference.simulate(made, samples)[0]["y"] != expected).any() for made in cut(graph))
    assert wrong > 6


def test_rows_of_a_slice_are_a_name_for_memory() -> None:
    """Of the input or the arena; a column is not one run of it, nor is every second row."""
    for begin, shape, strides, view in (
        ((2, 0, 0), (3, 4, 2), (1, 1, 1), True),
        ((2, 1, 0), (1, 2, 2), (1, 1, 1), True),
        ((0, 1, 0), (6, 1, 2), (1, 1, 1), False),
        ((0, 0, 0), (3, 4, 2), (2, 1, 1), False),
        ((0, 0, 1), (6, 4, 1), (1, 1, 1), False),
    ):
        for given in (True, False):
            b = GraphBuilder("rows")
            x = b.input("x", (6, 4, 2), S8)
            x = x if given else b.lookup(x, S8, np.arange(127, -129, -1), "turned")
            part = b.slice(x, begin, shape, strides, "part")
            b.output(b.lookup(part, S8, np.arange(-128, 128)[::-1], "y"))
            graph, plan = passes.run(b.graph())
            kinds = [f.kind for f in functions(graph, plan)]
            assert ("slice" not in kinds) == view, (begin, shape)
            assert written_bytes(graph, plan) == []
            samples = inputs_for(graph, 8)
            got = run_native(graph, samples, plan=plan)
            assert_array_equal(got["y"], reference.simulate(graph, samples)[0]["y"])
            assert ctype(part.qtype) == "int8_t"
