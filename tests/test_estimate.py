"""The cost model: its primitives, the folding of constants, the cycles, and how far real reports are from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.graphs import random_graph
from tests.test_streams import NAMED, Maker, branched, residual
from toolchain import boards, estimate, folding, gates
from toolchain.errors import ToolchainError
from toolchain.estimate import BANDS, RESOURCES, WIDER, Band, Estimator, as_json
from toolchain.ir import Graph, QType, ops
from toolchain.ir.ops import Rounding
from toolchain.ir.types import Const, Tensor
from toolchain.kernel_cost import Target, kernel, matrix
from toolchain.passes.plan import Hls

PYNQ = boards.load("pynq_z2")
TARGET = Target(gates.SEVEN, 18_432, 10.0, True)


# primitives


def csd(value: int) -> int:
    """Nonzero digits by the textbook recoding."""
    count, v = 0, abs(value)
    while v:
        if v & 1:
            v -= 2 - (v & 3)
            count += 1
        v >>= 1
    return count


def test_digits_are_those_of_the_canonical_recoding() -> None:
    values = np.array([*range(-300, 300), 2**31 - 1, -(2**31), 2**40 + 2**20 - 1])
    np.testing.assert_array_equal(gates.digits(values), [csd(int(v)) for v in values])


def test_constant_bits_leave_out_what_is_only_a_shift() -> None:
    np.testing.assert_array_equal(gates.constant_bits([0, 1, -1, 4, 3, 96, -5, 127, 255]), [1, 2, 2, 2, 3, 3, 4, 8, 9])


@pytest.mark.parametrize(
    ("family", "a", "b", "dsps"),
    [
        (gates.SEVEN, 16, 16, 1), (gates.SEVEN, 25, 18, 1), (gates.SEVEN, 18, 25, 1), (gates.SEVEN, 26, 18, 2), (gates.SEVEN, 32, 32, 4),
        (gates.SEVEN, 49, 18, 2), (gates.SEVEN, 50, 18, 3),
        (gates.ULTRASCALE, 27, 18, 1), (gates.ULTRASCALE, 26, 18, 1), (gates.ULTRASCALE, 28, 18, 2),
        (gates.INTEL, 19, 18, 0.5), (gates.INTEL, 16, 16, 0.5), (gates.POLARFIRE, 18, 18, 1), (gates.POLARFIRE, 19, 18, 2),
        (gates.SEVEN, 10, 10, 0), (gates.SEVEN, 11, 7, 1), (gates.SEVEN, 16, 6, 0),
    ],
)  # fmt: skip
def test_multipliers_take_the_dsps_their_operands_fill(family: gates.Family, a: int, b: int, dsps: float) -> None:
    assert gates.multiplier(family, a, b)[0] == gates.multiplier(family, b, a)[0] == dsps


def test_a_multiplier_of_luts_costs_what_issue_99_counted() -> None:
    """18 x 18 without DSPs: 365 or 401 LUTs."""
    assert 365 <= gates.LUT_MULTIPLIER * 18 * 18 <= 401


def test_families_follow_the_part() -> None:
    found = {
        b: gates.family(boards.load(b).part).name for b in ("arty_a7_35", "zcu102", "alveo_u250", "kv260", "de10_nano")
    }
    assert found == {
        "arty_a7_35": gates.SEVEN.name, "zcu102": gates.ULTRASCALE.name, "alveo_u250": gates.ULTRASCALE.name,
        "kv260": gates.ULTRASCALE.name, "de10_nano": gates.INTEL.name,
    }  # fmt: skip
    assert gates.family(boards.load("arria10_kit").part) is gates.INTEL
    assert gates.family(boards.load("polarfire_kit").part) is gates.POLARFIRE


def test_memories_and_fifos() -> None:
    assert gates.memory_blocks(gates.SEVEN, 18_432, 36, 512) == 1
    assert gates.memory_blocks(gates.SEVEN, 18_432, 37, 4) == 2
    assert gates.memory_blocks(gates.SEVEN, 18_432, 8, 2048) == 1
    assert gates.memory_blocks(gates.SEVEN, 18_432, 8, 4096) == 2
    assert gates.memory_blocks(gates.SEVEN, 18_432, 0, 9) == 0
    assert gates.fifo(gates.SEVEN, 18_432, 8, 128)[2] == 0
    assert gates.fifo(gates.SEVEN, 18_432, 8, 129)[2] == 1
    assert gates.fifo(gates.SEVEN, 18_432, 4000, 2)[2] == 0


# kernels


def dense(weight: list[list[int]], bits: int = 16, acc: int = 24, bias: list[int] | None = None) -> ops.Dense:
    w = np.array(weight)
    q = QType.of(bits, True, 1)
    b = None if bias is None else Const.of("b", bias, QType.of(acc, True, 1))
    return ops.Dense(
        Tensor("x", (w.shape[1],), q), Tensor("a", (len(w),), QType.of(acc, True, 1)), Const.of("w", w, q), b
    )


def test_zeros_and_powers_of_two_take_no_multiplier_where_weights_are_folded() -> None:
    k = kernel(dense([[0, 1, -4, 1000], [0, 0, 0, 0]]), TARGET, "Latency", 1)
    assert (k.multipliers, k.dsps, k.adders, k.brams) == (1, 1, 2, 0)
    k = kernel(dense([[0, 1, -4, 1000], [0, 0, 0, 0]], bias=[5, 5]), TARGET, "Latency", 1)
    assert k.adders == 3
    assert kernel(dense([[0, 3, 0, 0]]), TARGET, "Latency", 1).dsps == 0  # three is one addition
    assert kernel(dense([[0, 3, 7, 5]]), TARGET, "Latency", 1).adders == 5


def test_shared_multipliers_know_no_weight() -> None:
    op = dense([[0, 1, -4, 1000]] * 4)
    assert kernel(op, TARGET, "Resource", 4).multipliers == 4
    assert kernel(op, TARGET, "Resource", 4).brams == 2  # 4 weights of 16 bits in one word
    assert kernel(op, TARGET, "Resource", 16).brams == 1
    assert kernel(op, TARGET, "Resource", 4).weight_bits == 4 * 4 * 16
    assert kernel(op, TARGET, "Latency", 4).multipliers == 3  # hls4ml's limit leaves out zeros
    assert kernel(op, TARGET, "Latency", 4).brams == 0
    assert kernel(op, replace(TARGET, tool="oneAPI"), "Latency", 1).multipliers == 16


def test_distributed_arithmetic_has_no_dsp_and_a_third_fewer_additions() -> None:
    rng = np.random.default_rng(0)
    op = dense(rng.integers(-2000, 2000, (8, 16)).tolist())
    da, plain = (kernel(op, TARGET, s, 1) for s in ("distributed_arithmetic", "Latency"))
    total = int(gates.digits(op.weight.array).sum()) - 8
    assert (da.dsps, da.adders) == (0, -(-total * 2 // 3))
    assert plain.dsps > 100


def test_a_depthwise_convolution_multiplies_each_channel_alone() -> None:
    m = Maker()
    x = m.input(6, 6, 4)
    y = m.b.depthwise_conv2d(x, m.b.const("w", np.full((3, 3, 4), 85)), None, "acc")
    op = m.done(y).ops[0]
    assert isinstance(op, ops.DepthwiseConv2D)
    assert matrix(op).shape == (4, 9)
    assert kernel(op, TARGET, "Latency", 1).multipliers == 36
    assert folding.mult_size(op) == (36, 4)
    assert kernel(op, TARGET, "Resource", 4).multipliers == 9


def test_dilation_and_groups_are_written_out_with_zeros() -> None:
    m = Maker()
    x = m.input(9, 9, 4)
    y = m.b.conv2d(x, m.b.const("w", np.full((6, 3, 3, 2), 3)), None, "acc", (1, 1), (2, 2), ((0, 0), (0, 0)), 2)
    op = m.done(y).ops[0]
    assert isinstance(op, ops.Conv2D)
    assert folding.mult_size(op) == (5 * 5 * 4, 6)
    assert kernel(op, TARGET, "Latency", 1).multipliers == 6 * 3 * 3 * 2
    assert kernel(op, TARGET, "Resource", 100).multipliers == 6


# cycles


def test_the_latency_of_a_stream_is_that_of_its_tokens() -> None:
    """An independent step-by-step run of the network with the kernels' cycles."""
    for graph in (*NAMED.values(), *(branched(seed) for seed in range(8))):
        for hls in (Hls(io="io_stream"), Hls(io="io_stream", strategy={"": "Resource"}, reuse_factor={"": 2})):
            model = Estimator(graph, PYNQ, hls)
            assert model.timing(hls)[1:] == stepped(model, hls)


def stepped(model: Estimator, hls: Hls) -> tuple[int, int]:
    assert model.net is not None
    kernels = {op.output.name: model.kernel(op, hls) for op in model.ops}
    there: list[list[int]] = [[] for _ in model.net.fifos]
    taken = [0] * len(model.net.fifos)
    end = interval = 0
    for process in model.net.processes:
        k = kernels.get(process.name)
        stages = k.stages if k else int(process.name not in ("source", "sink"))
        now = busy = 0
        for firing in process.firings:
            for _ in range(firing.times):
                for f, count in firing.reads:
                    taken[f] += count
                    now = max(now, there[f][taken[f] - 1])
                cycles = 1 if k is None else k.step if firing.writes else k.idle
                for f, count in firing.writes:
                    there[f] += [now if process.name == "source" else now + cycles + stages] * count
                end = max(end, now + 1)
                now, busy = now + cycles, busy + cycles
        interval = max(interval, busy + (stages if k else 0))
    return end, interval + 1


def test_a_convolution_that_shares_multipliers_takes_its_turns_at_each_window_and_two_cycles_elsewhere() -> None:
    m = Maker()
    graph = m.done(m.conv(m.input(6, 5, 2), same=False))
    hls = Hls(io="io_stream", strategy={"": "Resource"}, reuse_factor={"": 9})
    model = Estimator(graph, PYNQ, hls)
    stages = model.kernel(graph.ops[0], hls).stages
    assert model.estimate(hls).ops[0].initiation_interval == 12 * (9 + stages) + (30 - 12) * 2 + stages


def test_a_flattening_costs_nothing() -> None:
    for io in ("io_parallel", "io_stream"):
        found = estimate.estimate(NAMED["chain"], PYNQ, Hls(io=io))
        row = next(o for o in found.ops if o.name == "flat")
        assert (row.luts, row.ffs, row.latency_cycles) == (0, 0, 0)


def test_parallel_latency_is_the_longest_path_and_the_interval_the_slowest_kernel() -> None:
    graph = residual(3, 8)
    hls = Hls(reuse_factor={"": 2}, strategy={"": "Resource"})
    found = estimate.estimate(graph, PYNQ, hls)
    conv, act, add, out = (next(o for o in found.ops if o.kind == kind and o.name == name) for kind, name in
                           (("conv2d", "acc"), ("requantize", "y"), ("add", "sum"), ("requantize", "res")))  # fmt: skip
    assert found.latency_cycles == sum(o.latency_cycles for o in (conv, act, add, out)) + 1
    assert conv.initiation_interval == found.initiation_interval - 1
    assert conv.initiation_interval > 64 * 2
    unrolled = Hls()
    assert estimate.estimate(NAMED["chain"], PYNQ, unrolled).initiation_interval > 1
    m = Maker()
    assert estimate.estimate(m.done(m.dense(m.input(4), 3)), PYNQ, unrolled).initiation_interval == 1


def test_more_reuse_takes_less_hardware_and_more_time() -> None:
    m = Maker()
    rng = np.random.default_rng(0)
    x = m.input(8, 8, 4)
    y = m.act(m.b.conv2d(x, m.b.const("w", rng.integers(-128, 128, (8, 3, 3, 4))), None, "acc"))
    graph = m.done(y)
    for io in ("io_parallel", "io_stream"):
        found = [
            estimate.estimate(graph, PYNQ, Hls(io=io, strategy={"": "Resource"}, reuse_factor={"": rf}))
            for rf in (2, 6, 18, 36)
        ]
        assert [e.ops[0].multipliers for e in found] == [144, 48, 16, 8]
        assert sorted({e.latency_cycles for e in found}) == [e.latency_cycles for e in found]
        assert sorted((e.luts for e in found), reverse=True) == [e.luts for e in found]


def test_totals_are_the_sums_of_the_rows_for_every_op() -> None:
    for seed in range(60):
        graph = random_graph(seed, 8)
        for io in ("io_parallel", "io_stream"):
            if graph.states and io == "io_stream":
                continue
            found = estimate.estimate(graph, PYNQ, Hls(io=io))
            for r in RESOURCES:
                assert getattr(found, r) == sum(getattr(row, r) for row in found.ops) >= 0
            assert found.latency_cycles >= 1
            assert found.initiation_interval >= 1
            json.dumps(as_json(found))


def test_what_is_over_the_board_is_said_by_how_much() -> None:
    found = estimate.estimate(residual(), PYNQ, Hls())
    small = replace(found, room={**found.room, "luts": found.luts - 7})
    assert found.over() == {}
    assert small.over() == {"luts": 7}


def test_a_board_without_gates_is_refused() -> None:
    with pytest.raises(ToolchainError) as caught:
        estimate.estimate(residual(), boards.load("native"), Hls())
    assert str(caught.value) == "board native: is no FPGA (back end 'c'); choose a board with [fpga]"


# the comparison with real reports: figures of hls4ml's own test data, which is read and not kept here

VIVADO = {  # Vivado HLS 2020.1, xc7z020, 5 ns, io_stream: csynth and, where it says so, synthesis
    "luts": (2532, 1526), "ffs": (7969, 2428), "dsps": (73, 66), "latency_cycles": (10,), "initiation_interval": (8,),
}  # fmt: skip
ONEAPI = {  # oneAPI, Agilex, 480 MHz: the compiler's estimate and Quartus' fit; two kernels one after another
    "luts": (2462, 4182), "ffs": (7938, 16419), "dsps": (40, 40), "latency_cycles": (217 + 176,),
}  # fmt: skip


def reported(seed: int) -> Graph:
    """What the reports' names say: dense 16 to 5 and a relu, all ap_fixed<16,6>. The weights are not in them: Keras' own
    initializer of such a layer, lecun_uniform, is assumed."""
    q, limit = QType.of(16, True, 1), np.sqrt(3 / 16)
    w = np.floor(np.random.default_rng(seed).uniform(-limit, limit, (5, 16)) * 1024).astype(int)
    x, a, y = Tensor("x", (16,), q), Tensor("a", (5,), q), Tensor("y", (5,), q)
    relu = ops.Requantize(a, y, (1,), (0,), (0,), 0, Rounding.FLOOR, (0, q.max))
    return Graph("reported", (x,), (y,), (ops.Dense(x, a, Const.of("w", w, q), None), relu))


def modelled(tool: str, clock: int) -> dict[str, float]:
    board = replace(PYNQ, fpga=replace(PYNQ.fpga, core_clock_hz=clock))  # type: ignore[type-var]
    board = board if tool == "Vivado" else replace(board, part="10AX115S2F45I1SG")
    hls, sums = Hls(tool, "io_stream"), dict[str, float]()
    for seed in range(20):
        found = estimate.estimate(reported(seed), board, hls)
        for key in ("luts", "ffs", "dsps"):  # the FIFOs at both ends are the wrapper's, which the reports do not have
            sums[key] = sums.get(key, 0) + sum(getattr(o, key) for o in found.ops if o.name != "fifos") / 20
        for key in ("latency_cycles", "initiation_interval"):
            sums[key] = sums.get(key, 0) + getattr(found, key) / 20
    return sums


def band(real: tuple[int, ...], model: float) -> Band:
    ratios = [r / model for r in real]
    return Band(round(min(ratios) / WIDER, 1), round(max(ratios) * WIDER, 1), len(real))


def test_the_printed_bands_are_those_of_the_reports() -> None:
    for key, (real, tool, clock) in {
        "AMD": (VIVADO, "Vivado", 200_000_000),
        "oneAPI": (ONEAPI, "oneAPI", 480_000_000),
    }.items():
        found = modelled(tool, clock)
        assert {name: band(figures, found[name]) for name, figures in real.items()} == dict(BANDS[key])


def test_the_page_has_the_comparison() -> None:
    lines = [
        "| tool | figure | modelled | real | real over modelled | printed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, key, real, tool, clock in (
        ("Vivado HLS: csynth, synthesis", "AMD", VIVADO, "Vivado", 200_000_000),
        ("oneAPI: estimate, fit", "oneAPI", ONEAPI, "oneAPI", 480_000_000),
    ):
        found = modelled(tool, clock)
        for figure, reals in real.items():
            ratios = ", ".join(f"{r / found[figure]:.2f}" for r in reals)
            told, printed = ", ".join(f"{r:,}" for r in reals), BANDS[key][figure]
            lines.append(
                f"| {name} | {figure} | {found[figure]:,.0f} | {told} | {ratios} | {printed.low:g}x to {printed.high:g}x |"
            )
    assert "\n".join(lines) in (Path(__file__).parents[1] / "docs/fpga_cost.md").read_text(), "\n" + "\n".join(lines)


def test_figures_carry_their_label_and_band() -> None:
    found = estimate.estimate(residual(), PYNQ, Hls(io="io_stream"))
    assert found.band("luts") == "modelled, real reports 0.6x to 2.2x of it (2 reports of one design)"
    assert found.band("latency_cycles") == "modelled, real reports 0.6x to 1.4x of it (1 report of one design)"
    assert found.band("brams") == "modelled, compared with no report"
    assert estimate.bands("Vitis") == estimate.bands("VivadoAccelerator") == BANDS["AMD"]
    assert not estimate.bands("Libero")
    told: Any = as_json(found)
    assert told["label"] == "modelled"
    assert told["real_over_modelled"]["luts"] == {"low": 0.6, "high": 2.2, "reports": 2}
    assert told["real_over_modelled"]["brams"] is None
    assert told["share"]["luts"] == found.luts / 53_200
    assert [o["name"] for o in told["ops"]][-1] == "fifos"
    assert told["total"]["latency_us"] == found.latency_cycles / 100
