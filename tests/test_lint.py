"""The linter: each finding once, whole text; reuse factors against hls4ml's own search; nothing found where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.test_streams import NAMED, S8, Maker, residual
from toolchain import boards, fifos, flow, folding, lint
from toolchain.backends.hls4ml.lowering import lower
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType, ops
from toolchain.ir.ops import Rounding
from toolchain.lint import Finding
from toolchain.passes.plan import Hls

PYNQ = boards.load("pynq_z2")
LARGE = boards.load("alveo_u250")
RESOURCE = {"": "Resource"}


def said(graph: Graph, hls: Hls, board: boards.Board = LARGE) -> list[str]:
    return [str(f) for f in lint.lint(graph, board, hls)]


def dense(n_in: int = 12, n_out: int = 10, weight: int = 1) -> Graph:
    m = Maker()
    x = m.input(n_in)
    return m.done(m.act(m.b.dense(x, m.b.const("w", np.full((n_out, n_in), weight)), None, "acc")))


def dense_at_positions() -> Graph:
    """hls4ml's Conv1D by 1."""
    m = Maker()
    x = m.input(3, 6)
    return m.done(m.act(m.b.dense(x, m.b.const("w", np.ones((4, 6), int)), None, "acc")))


def conv(size: int = 6, channels: int = 2) -> Graph:
    m = Maker()
    return m.done(m.conv(m.input(size, size, channels), same=False))


def test_valid_reuse_factors_are_hls4mls() -> None:
    backend = pytest.importorskip("hls4ml").backends.get_backend("Vitis")
    rng = np.random.default_rng(0)
    shapes = [(a, b) for a in range(1, 20) for b in range(1, 20)] + [
        tuple(rng.integers(1, 70, 2).tolist()) for _ in range(60)
    ]
    for n_in, n_out in shapes:
        expected = backend.get_valid_reuse_factors(n_in, n_out)
        found = folding.valid(n_in, n_out)
        assert found == expected, (n_in, n_out)
        for wanted in (1, 2, 3, 7, n_in, n_in + 1, n_in * n_out - 1, n_in * n_out + 5):
            assert folding.replaced_by(found, wanted) == backend.get_closest_reuse_factor(expected, wanted)


class Layer:
    """What hls4ml asks of a layer for its size."""

    def __init__(self, class_name: str, **attributes: int) -> None:
        self.class_name, self.name, self.attributes = class_name, class_name, attributes

    def get_attr(self, name: str) -> int:
        return self.attributes[name]


def test_sizes_of_products_are_hls4mls() -> None:
    backend = pytest.importorskip("hls4ml").backends.get_backend("Vitis")
    m = Maker()
    x = m.input(8, 8, 4)
    m.b.conv2d(x, m.b.const("w", np.ones((5, 3, 2, 4), int)), None, "a")
    m.b.depthwise_conv2d(x, m.b.const("w", np.ones((3, 2, 4), int)), None, "b")
    line = m.b.reshape(x, (16, 16), "line")
    m.b.conv1d(line, m.b.const("w", np.ones((7, 3, 16), int)), None, "c")
    m.b.dense(line, m.b.const("w", np.ones((9, 16), int)), None, "d")
    layers = [
        Layer("Conv2D", n_chan=4, filt_height=3, filt_width=2, n_filt=5),
        Layer("DepthwiseConv2D", n_chan=4, filt_height=3, filt_width=2, n_filt=4),
        Layer("Conv1D", n_chan=16, filt_width=3, n_filt=7),
        Layer("Dense", n_in=16, n_out=9),
    ]
    macs = [op for op in m.b.ops if isinstance(op, ops.Mac)]
    assert [folding.mult_size(op) for op in macs] == [backend.get_layer_mult_size(layer) for layer in layers]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    for name, graph in NAMED.items():
        for io in ("io_parallel", "io_stream"):
            assert said(graph, Hls(io=io)) == [], (name, io)


FINDINGS: dict[str, tuple[Graph, Hls, list[str]]] = {
    "reuse": (
        dense(), Hls(strategy=RESOURCE, reuse_factor={"": 7}),
        ["error: dense %acc: reuse_factor is 7, must divide 12, or be 12 times a divisor of 10; choose 6 or 12 (hls4ml would take 6 in silence)"],
    ),
    "reuse_beyond": (
        dense(), Hls(strategy=RESOURCE, reuse_factor={"": 121}),
        ["error: dense %acc: reuse_factor is 121, must divide 12, or be 12 times a divisor of 10; choose 120 (hls4ml would take 120 in silence)"],
    ),
    "reuse_of_latency": (
        dense(), Hls(reuse_factor={"": 121}),
        ["warning: dense %acc: reuse_factor is 121 for 120 products, which keeps it waiting; choose at most 120"],
    ),
    "out_of_bounds": (
        conv(), Hls(strategy=RESOURCE, reuse_factor={"": 36}),
        ["error: conv2d %acc: reuse_factor is 36, must be at most 18 in io_parallel, where hls4ml's convolution reads out of bounds; choose 18, or --io stream"],
    ),
    "out_of_bounds_by_a_dense": (
        dense_at_positions(), Hls(strategy=RESOURCE, reuse_factor={"": 12}),
        ["error: dense %acc: reuse_factor is 12, must be at most 6 in io_parallel, where hls4ml's convolution reads out of bounds; choose 6, or --io stream"],
    ),
    "nothing_shared": (
        dense(), Hls(strategy=RESOURCE),
        ["warning: dense %acc: strategy is Resource with reuse_factor 1, which shares nothing and leaves no zero out; use Latency, or a larger reuse_factor"],
    ),
    "built_otherwise": (
        dense(), Hls("Quartus"),
        ["warning: dense %acc: strategy is Latency, and hls4ml builds it as Resource for Quartus; say Resource"],
    ),
    "da_reuse": (
        dense(), Hls(strategy={"": "distributed_arithmetic"}, reuse_factor={"acc": 2}),
        ["error: dense %acc: reuse_factor is 2 with strategy distributed_arithmetic, must be 1; use 1, or strategy Resource"],
    ),
    "da_tool": (
        dense(), Hls("Catapult", strategy={"": "distributed_arithmetic"}),
        ["error: dense %acc: strategy is distributed_arithmetic, which hls4ml has for Vivado and Vitis and not for Catapult; use Latency or Resource"],
    ),
    "unrolled": (
        dense(65, 64, 0), Hls("Vivado"),
        ["error: dense %acc: the array of products has 4,160 elements unrolled at once, at most 4,096 are; use strategy Resource with a larger reuse_factor, or --io stream"],
    ),
    "unrolled_shared": (
        dense(128, 128, 0), Hls("Vivado", "io_stream", RESOURCE, {"": 2}),
        ["error: dense %acc: the products has 8,192 elements unrolled at once, at most 4,096 are; use strategy Resource with a larger reuse_factor"],
    ),
    "fifo_in_parallel": (
        dense(), Hls(fifo_depth={"x": 4}), ["warning: graph net: fifo_depth has no meaning in io_parallel; remove it"],
    ),
    "fifo_unknown": (
        dense(), Hls(io="io_stream", fifo_depth={"ac": 4}), ["error: fifo ac: is no FIFO of the graph; did you mean 'acc'?"],
    ),
    "fifo_shallow": (
        residual(), Hls(io="io_stream", fifo_depth={"x_cpy2": 9}),
        ["error: fifo x_cpy2: is 9 tokens deep, must be 10, or source, x_clone, acc_pad wait for each other for ever; choose 10"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_say_what_is_must_be_and_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "find_spec", lambda _: object())
    graph, hls, expected = FINDINGS[name]
    assert [text for text in said(graph, hls) if " elements unrolled" not in text or "unrolled" in name] == expected


def test_a_missing_da4ml_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "find_spec", lambda _: None)
    hls = Hls(strategy={"": "distributed_arithmetic"})
    assert said(dense(), hls) == [
        "error: dense %acc: strategy distributed_arithmetic needs da4ml; install da4ml, or use Latency"
    ]


def test_a_depthwise_convolution_has_no_distributed_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lint, "find_spec", lambda _: object())
    m = Maker()
    x = m.input(4, 4, 2)
    graph = m.done(m.b.depthwise_conv2d(x, m.b.const("w", np.ones((2, 2, 2), int)), None, "acc"))
    assert said(graph, Hls(strategy={"": "distributed_arithmetic"})) == [
        "error: depthwiseconv2d %acc: strategy is distributed_arithmetic, which hls4ml refuses for depthwise convolutions; use Latency or Resource"
    ]


def test_a_convolution_of_a_stream_may_share_more_than_its_inputs() -> None:
    assert said(conv(), Hls(io="io_stream", strategy=RESOURCE, reuse_factor={"": 36})) == []
    assert said(conv(), Hls("Catapult", strategy=RESOURCE, reuse_factor={"": 36})) == []


def test_unrolling_is_an_error_of_vivado_and_a_risk_of_others() -> None:
    assert [f.severity for f in lint.lint(dense(65, 64, 0), LARGE, Hls("Vivado", "io_stream"))] == ["error"]
    assert [f.severity for f in lint.lint(dense(65, 64, 0), LARGE, Hls("Vitis", "io_stream"))] == ["warning"]
    assert said(dense(64, 64, 0), Hls("Vivado")) == []
    m = Maker()
    graph = m.done(m.b.transpose(m.input(20, 21, 10), (1, 0, 2), "turned"))
    assert [f.text.split(",")[0] for f in lint.lint(graph, LARGE, Hls(io="io_stream"))] == ["the tensor has 4"]
    m = Maker()
    graph = m.done(m.b.upsample(m.input(2, 30, 40), (2, 2), "up"))
    assert [f.text.split(" has ")[0] for f in lint.lint(graph, LARGE, Hls(io="io_stream"))] == ["a row of the result"]


def test_a_fifo_that_is_shallow_where_another_is_deep_is_none() -> None:
    m = Maker()
    x = m.input(10, 10, 2)
    narrow = m.b.lookup(m.act(x), QType.of(2, True, 1), np.zeros(256, int), "narrow")
    wide = m.b.lookup(narrow, S8, np.zeros(4, int), "wide")
    graph = m.done(m.add(wide, m.conv(x)))
    derived = fifos.depths(graph)
    assert derived["narrow"] > 2
    moved = {"narrow": 2, "wide": derived["narrow"]}
    assert said(graph, Hls(io="io_stream", fifo_depth=moved)) == []
    assert len(said(graph, Hls(io="io_stream", fifo_depth={"narrow": 2}))) == 1


def test_too_many_readers_of_a_stream() -> None:
    m = Maker()
    x = m.input(3)
    graph = m.done(*(m.act(x) for _ in range(8)))
    assert said(graph, Hls(io="io_stream")) == [
        "error: %x: goes to 8 readers, at most 7 in io_stream; use --io parallel"
    ]
    assert said(graph, Hls()) == []


def test_states_in_a_stream_are_an_error() -> None:
    m = Maker()
    h, x = m.b.state("h", [0, 0], S8), m.input(2)
    m.b.next_state(h, x)
    assert said(m.done(m.add(x, h)), Hls(io="io_stream")) == [
        "error: graph net: keeps state %h, which a stream cannot; use --io parallel"
    ]


@pytest.mark.parametrize("ends", ["inputs", "outputs"])
def test_the_accelerator_takes_one_input_and_one_output(ends: str) -> None:
    m = Maker()
    x = m.input(6)
    y = m.b.add(x, m.input(6) if ends == "inputs" else x, "y")
    graph = m.done(y, *([x] if ends == "outputs" else []))
    what = (
        f"has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, hls4ml's VivadoAccelerator takes 1 of each"
    )
    hint = "use --hls Vitis or Vivado, which end at the reports, an Artix board, or join the tensors"
    assert said(graph, Hls(tool="VivadoAccelerator")) == [f"error: graph {graph.name}: {what}; {hint}"]
    assert said(graph, Hls(tool="Vivado")) == []


def test_wide_numbers_do_not_pass_a_double() -> None:
    m = Maker()
    x = m.b.input("x", (2,), QType.of(60, True, 1))
    y = m.b.requantize(x, S8, [1], [0], [50], ops.Rounding.FLOOR, "y")
    assert said(m.done(y), Hls()) == [
        "warning: %x: has 60 bits, at most 53 pass the doubles of hls4ml's C simulation; requantize it, or check it in hardware"
    ]


def small(**room: int) -> boards.Board:
    return replace(PYNQ, fpga=replace(PYNQ.fpga, **room))  # type: ignore[type-var]


def test_what_does_not_fit_says_the_figure_its_band_and_the_room() -> None:
    graph, hls = dense(12, 10, 85), Hls()
    (one,) = lint.lint(graph, small(luts=1000), hls)
    assert (one.op, one.severity) == ("graph net", "error")
    assert one.text.startswith("luts ")
    assert one.text.endswith(
        " (modelled, real reports 0.6x to 2.2x of it (2 reports of one design)), pynq_z2 has 1,000; use larger reuse factors (strategy Resource), or a larger board"
    )
    luts = int(one.text.split()[1].replace(",", ""))
    (less,) = lint.lint(graph, small(luts=luts - 1), hls)
    assert less.severity == "warning"
    assert lint.lint(graph, small(luts=luts), hls) == ()


def test_weights_beyond_the_ram_blocks() -> None:
    graph = dense(64, 64, 85)
    found = lint.lint(graph, small(brams=1, bram_bits=18_432), Hls(strategy=RESOURCE, reuse_factor={"": 4096}))
    assert found[0] == Finding(
        "graph net",
        "error",
        "weights in RAM blocks take 28,672 bits, pynq_z2 has 18,432; use fewer weight bits, or a larger board",
    )


def test_dsps_beyond_the_board_say_what_luts_they_would_take() -> None:
    m = Maker()
    x = m.b.input("x", (4,), QType.of(16, True, 1))
    graph = m.done(m.b.dense(x, m.b.const("w", np.full((4, 4), 12345)), None, "acc"))
    (found,) = lint.lint(graph, small(dsps=6), Hls())
    assert "dsps 16 " in found.text
    assert "pynq_z2 has 6, and what is left would take about 3,888 LUTs;" in found.text


def test_designs_that_take_hours() -> None:
    many: Any = dense(130, 130, 1)
    assert any("16,900 products are unrolled" in text for text in said(many, Hls(io="io_stream")))
    big = conv(66, 2)
    assert any("selects 73,728 window elements" in text for text in said(big, Hls()))
    assert not any("window elements" in text for text in said(big, Hls(io="io_stream")))


def share() -> Graph:
    m = Maker()
    kind = QType(8, True, Fraction(1, 256), None, -128)
    return m.done(m.b.softmax(m.input(4), [(1 << 31) - 1, *[0] * 255], kind, "share"))


def drawn() -> Graph:
    m = Maker()
    return m.done(m.b.interpolate(m.input(4), S8, m.b.const("line", [0, 1, 5]), 7, Rounding.HALF_UP, "curve"))


@pytest.mark.parametrize("io", ["io_parallel", "io_stream"])
def test_lines_between_entries_are_the_hosts(io: str) -> None:
    text = (
        "interpolate %curve: has no kernel in a circuit: it is TensorFlow Lite Micro's integer arithmetic, which hls4ml has not; "
        "leave the function to the host: end the model at what it reads, or use 8 bits, which are a lookup"
    )
    assert said(drawn(), Hls(io=io)) == [f"error: {text}"]
    with pytest.raises(ToolchainError) as refused:
        lower(drawn(), io == "io_stream")
    assert str(refused.value) == text


@pytest.mark.parametrize("io", ["io_parallel", "io_stream"])
def test_softmax_is_the_hosts(io: str) -> None:
    """Said by the linter and by the back end in the same words; estimates, which need no answer, still end."""
    text = (
        "softmax %share: has no kernel in a circuit: it is TensorFlow Lite Micro's integer arithmetic, which hls4ml has not; "
        "leave the softmax to the host: end the model at what it reads, whose largest is the same"
    )
    assert said(share(), Hls(io=io)) == [f"error: {text}"]
    with pytest.raises(ToolchainError) as refused:
        lower(share(), io == "io_stream")
    assert str(refused.value) == text
    with pytest.raises(ToolchainError) as refused:
        flow.emit(share(), "csim")
    assert str(refused.value) == text
