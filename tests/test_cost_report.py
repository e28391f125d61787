"""The table of `bitwright estimate`: every figure of the model is in it, under its label."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from tests.test_streams import Maker, residual
from toolchain import boards, cost_report
from toolchain.estimate import Estimate, estimate
from toolchain.lint import Finding
from toolchain.passes.plan import Hls

PYNQ = boards.load("pynq_z2")


def shown(found: Estimate) -> str:
    out = io.StringIO()
    cost_report.estimate(Console(file=out, width=200), found)
    return out.getvalue()


def test_every_figure_and_its_label_is_in_the_table() -> None:
    found = estimate(residual(), PYNQ, Hls(io="io_stream", strategy={"acc": "Resource"}, reuse_factor={"acc": 9}))
    text = shown(found)
    lines = text.splitlines()
    assert lines[0] == "graph net on pynq_z2 (xc7z020clg400-1), Vitis, io_stream, 100 MHz: all modelled"
    for row, line in zip(found.ops, lines[2:], strict=False):
        figures = (row.multipliers, row.adders, row.luts, row.ffs, row.dsps, row.brams, row.latency_cycles)
        wanted = [row.kind, row.name, *([row.strategy, str(row.reuse_factor)] if row.strategy else [])]
        assert line.split() == wanted + [f"{v:,}" for v in (*figures, row.initiation_interval) if v]
    assert (
        f"latency {found.latency_us:,.3f} us, one inference every {found.initiation_interval:,} cycles (modelled)"
        in lines
    )
    assert "luts: modelled, real reports 0.6x to 2.2x of it (2 reports of one design)" in lines
    assert "brams: modelled, compared with no report" in lines
    share = next(line for line in lines if line.startswith("of the board")).split()
    assert share[3:] == [f"{getattr(found, r) / found.room[r]:.1%}" for r in ("luts", "ffs", "dsps", "brams")]


def test_what_is_too_much_is_said() -> None:
    m = Maker()
    found = estimate(m.done(m.dense(m.input(4), 3)), PYNQ, Hls())
    assert "too few" not in shown(found)
    small = replace(found, room={**found.room, "luts": found.luts - 5})
    assert f"pynq_z2 has 5 luts too few for the modelled {found.luts:,}" in shown(small)


def test_findings_come_errors_first() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    cost_report.findings(
        console, [Finding("dense %a", "warning", "is slow"), Finding("dense %b", "error", "is [wrong]")]
    )
    assert out.getvalue().splitlines() == ["error dense %b: is [wrong]", "warning dense %a: is slow"]
