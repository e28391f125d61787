"""The readers of vendors' reports: every figure, every label, and what is said of a report that is none."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tests.fake_tools import reports
from toolchain import boards, resources
from toolchain.errors import ToolchainError
from toolchain.resources import Resources

FIGURES = {
    # kind, text: what is read (a Resources without its file)
    "Vitis' csynth.xml": (
        "csynth",
        reports.csynth_xml(),
        Resources("estimated", (), 2532, 7969, 73, 4, 18_432, 0, 246_974_561, None, (10, 12), (8, 8)),
    ),
    "Vivado HLS's csynth.xml, latency unknown": (
        "csynth",
        reports.csynth_xml(dsp="DSP48E", latency=("undef", "undef"), interval=("?", "?"), period="N/A"),
        Resources("estimated", (), 2532, 7969, 73, 4, 18_432, 0),
    ),
    "csynth.xml without URAM": (
        "csynth",
        reports.csynth_xml().replace("<URAM>0</URAM>", ""),
        Resources("estimated", (), 2532, 7969, 73, 4, 18_432, None, 246_974_561, None, (10, 12), (8, 8)),
    ),
    "Vivado HLS's csynth.rpt": (
        "csynth_rpt",
        reports.csynth_rpt(),
        Resources("estimated", (), 2532, 7969, 73, 4, 18_432, 0, 246_974_561, None, (10, 12), (8, 8)),
    ),
    "Vitis' csynth.rpt, latency unknown": (
        "csynth_rpt",
        reports.csynth_rpt(dsp="DSP", latency=("?", "?"), interval=("?", "?")),
        Resources("estimated", (), 2532, 7969, 73, 4, 18_432, 0, 246_974_561),
    ),
    "cosim.rpt": (
        "cosim",
        reports.cosim_rpt(),
        Resources("simulated", (), latency_cycles=(10, 12), initiation_interval=(8, 8)),
    ),
    "cosim.rpt of one call, in VHDL": (
        "cosim",
        reports.cosim_rpt(interval=("NA", "NA", "NA"), language="VHDL"),
        Resources("simulated", (), latency_cycles=(10, 12)),
    ),
    "utilization of a 7 series part": (
        "utilization",
        reports.utilization(),
        Resources("post-synthesis", (), 1526, 2428, 66, 5, 18_432),
    ),
    "utilization of an UltraScale+ part, routed, without the column of 2020": (
        "utilization",
        reports.utilization(family="CLB", urams=3, state="Fully Routed", tiles="2", prohibited=False),
        Resources("post-route", (), 1526, 2428, 66, 4, 18_432, 3),
    ),
    "utilization by hierarchy, percentages": (
        "utilization",
        reports.hierarchical(),
        Resources("post-route", (), 1526, 2428, 66, 5, 18_432),
    ),
    "utilization by hierarchy, UltraScale+, synthesized": (
        "utilization",
        reports.hierarchical("15", "24", "6", "0", "3", urams="2", state="Synthesized"),
        Resources("post-synthesis", (), 15, 24, 6, 3, 18_432, 2),
    ),
    "timing that is met": ("timing", reports.timing(), Resources("post-route", (), fmax_hz=101_245_317, slack_ps=123)),
    "timing that is missed by the longer-named of two clocks": (
        "timing",
        reports.timing("-1.500", (("clk", "10.000", "2.000"), ("clk_pl_0_of_the_core", "5.000", "-1.500"), ("idle", "8.000", ""))),
        Resources("post-route", (), fmax_hz=153_846_153, slack_ps=-1_500),
    ),
    "timing between two clocks": (
        "timing",
        reports.timing("-3.000", (("a", "10.000", "2.000"), ("b", "5.000", "1.000")), "Synthesized"),
        Resources("post-synthesis", (), slack_ps=-3_000),
    ),
    "timing without paths": ("timing", reports.timing("NA", (("clk", "10.000", ""),)), Resources("post-route", ())),
    "oneAPI, fitted": (
        "quartus",
        reports.quartus(),
        Resources("post-route", (), 4182, 16_419, 40, 36, fmax_hz=597_730_000),
    ),
    "oneAPI, fitted, no ALUTs": (
        "quartus",
        reports.quartus(alut="TBD"),
        Resources("post-route", (), None, 16_419, 40, 36, fmax_hz=597_730_000),
    ),
    "oneAPI, estimated: one block and 81 halves": (
        "oneapi",
        reports.summary(),
        Resources("estimated", (), 2462, 7938, 42, 77),
    ),
    "oneAPI, clock of the slowest kernel": ("oneapi_loops", reports.loops(), Resources("estimated", (), fmax_hz=360_500_000)),
    "Intel HLS, estimated": ("intel_hls", reports.report_data(), Resources("estimated", (), 2462, 7938, 40, 77)),
    "Intel HLS, fitted": (
        "intel_hls_fit",
        reports.quartus_data(),
        Resources("post-route", (), 4182, 16_419, 40, 36, fmax_hz=597_730_000),
    ),
    "Intel HLS, simulated": (
        "intel_hls_cosim",
        reports.verification_data(),
        Resources("simulated", (), latency_cycles=(17, 19), initiation_interval=(1, 2)),
    ),
    "SmartHLS, routed and simulated": (
        "libero",
        reports.libero(),
        Resources("post-route", (), 460, 273, 20, 13, 20_480, None, 236_686_000, 5_775, (101, 103), (90, 91)),
    ),
    "SmartHLS, simulated only": (
        "libero",
        reports.libero("", timing=False),
        Resources("simulated", (), bram_bits=20_480, latency_cycles=(101, 103), initiation_interval=(90, 91)),
    ),
    "SmartHLS, synthesized": (
        "libero",
        reports.libero("488 + 72", "397 + 72", timing=False, simulated=False),
        Resources("post-synthesis", (), 560, 469, 20, 13, 20_480),
    ),
}  # fmt: skip


def read(tmp_path: Path, kind: str, text: str) -> Resources:
    path = tmp_path / "report"
    path.write_text(text)
    return resources.read(kind, path)


def said(tmp_path: Path, kind: str, text: str) -> str:
    with pytest.raises(ToolchainError) as caught:
        read(tmp_path, kind, text)
    where, _, what = str(caught.value).partition(": ")
    assert where == str(tmp_path / "report")
    return what


@pytest.mark.parametrize("name", FIGURES)
def test_figures(tmp_path: Path, name: str) -> None:
    kind, text, must = FIGURES[name]
    assert read(tmp_path, kind, text) == dataclasses.replace(must, files=(str(tmp_path / "report"),))


def test_every_kind_is_tried() -> None:
    assert {kind for kind, _, _ in FIGURES.values()} == set(resources.readers())


@pytest.mark.parametrize("kind", resources.readers())
@pytest.mark.parametrize("text", ["", "no report\n", "\0\1\2", "{}", "[]", "null", "<profile/>", "|\n||\n| | |\n"])
def test_what_is_no_report_is_one_error(tmp_path: Path, kind: str, text: str) -> None:
    assert re.match(r"(is cut off or is another report|holds no figures): .+; run the step", said(tmp_path, kind, text))


@pytest.mark.parametrize("name", FIGURES)
def test_a_report_cut_off_anywhere_gives_its_own_figures_or_an_error(tmp_path: Path, name: str) -> None:
    """Never a figure that is not in the whole report, but for a number that is itself cut short at the very end."""
    kind, text, whole = FIGURES[name]
    step = max(1, len(text) // 300)
    for end in range(0, len(text), step):
        cut = text[:end]
        if cut[-1:].isdigit() or cut[-1:] == ".":
            continue  # `15` of `1526`: no reader can know
        try:
            found = read(tmp_path, kind, cut)
        except ToolchainError:
            continue
        for field in (
            "luts",
            "ffs",
            "dsps",
            "brams",
            "urams",
            "fmax_hz",
            "slack_ps",
            "latency_cycles",
            "initiation_interval",
        ):
            assert getattr(found, field) in (None, getattr(whole, field)), (end, field)


ERRORS = {
    ("csynth", reports.csynth_xml(luts="many")): "LUT is 'many', must be a whole number; look at the report",
    ("csynth", reports.csynth_xml(period="fast")): "EstimatedClockPeriod is 'fast', must be a period in ns; look at the report",
    ("csynth", reports.csynth_xml()[:-20]): (
        "is cut off or is another report: not XML (unclosed token: line 16, column 0); run the step that makes it again"
    ),
    ("csynth_rpt", reports.csynth_rpt().partition("|Total")[0]): (
        "is cut off or is another report: no total under Utilization Estimates; run the step that makes it again"
    ),
    ("csynth_rpt", reports.csynth_rpt().replace("+ Latency", "+ Late")): (
        "is cut off or is another report: no row after 'min' under Latency; run the step that makes it again"
    ),
    ("cosim", reports.cosim_rpt().replace("Latency(Clock", "Latency (Clock")): (
        "is cut off or is another report: no table of RTL, Status and Latency; run the step that makes it again"
    ),
    ("oneapi", reports.summary().replace('"Total"', '"Sum"')): (
        "is cut off or is another report: no total of estimated resources; run the step that makes it again"
    ),
    ("intel_hls_cosim", "var verifJSON=[];"): (
        "is cut off or is another report: verifJSON is no object; run the step that makes it again"
    ),
    ("cosim", reports.cosim_rpt("Fail")): (
        "cosimulation of the Verilog ended with 'Fail', must be 'Pass'; "
        "read the log of the step: the RTL does not do what the C++ does"
    ),
    ("cosim", reports.cosim_rpt("NA")): (
        "is cut off or is another report: no row of a language that was simulated; run the step that makes it again"
    ),
    ("utilization", reports.utilization(tiles="2.25")): (
        "Block RAM Tile is '2.25', must be tiles or halves; look at the report"
    ),
    ("utilization", reports.utilization(tiles="two")): "Block RAM Tile is 'two', must be tiles or halves; look at the report",
    ("utilization", reports.hierarchical().partition("| design_1")[0]): (
        "is cut off or is another report: no row of the top; run the step that makes it again"
    ),
    ("utilization", reports.hierarchical().replace("FFs", "F")): (
        "is cut off or is another report: no columns of LUTs and FFs; run the step that makes it again"
    ),
    ("timing", reports.timing("late")): "WNS is 'late', must be a time in ns; look at the report",
    ("quartus", reports.quartus("TBD", "TBD", "TBD", "TBD", "TBD")): (
        "holds no figures: Quartus has not run; run the step that compiles the FPGA image"
    ),
    ("quartus", reports.quartus(fmax="fast")): "clock is 'fast', must be in MHz; look at the report",
    ("oneapi", reports.summary().replace("columns", "column")): (
        "is cut off or is another report: no columns of estimated resources; run the step that makes it again"
    ),
    ("oneapi", reports.summary() + '{"name":'): (
        "is cut off or is another report: line 7 is not JSON; run the step that makes it again"
    ),
    ("intel_hls", reports.report_data("7")): (
        "is cut off or is another report: no areaJSON.total; run the step that makes it again"
    ),
    ("intel_hls_cosim", "var verifJSON={};\n"): (
        "holds no figures: the testbench has not run; run the step that simulates"
    ),
    ("intel_hls_cosim", reports.verification_data("7")): (
        "is cut off or is another report: no latency and interval of a function; run the step that makes it again"
    ),
    ("libero", reports.libero(status="FAIL")): (
        "cosimulation ended with 'FAIL', must be 'PASS'; read the log of the step: the RTL does not do what the C++ does"
    ),
    ("libero", reports.libero("", timing=False, simulated=False)): (
        "holds no figures: neither synthesis nor simulation has run; run those steps"
    ),
    ("csynht", ""): "no reader for reports of kind 'csynht'; did you mean 'csynth'?",
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: f"{case[0]}-{ERRORS[case][:24]}")
def test_what_is_wrong_with_a_report(tmp_path: Path, case: tuple[str, str]) -> None:
    assert said(tmp_path, *case) == ERRORS[case]


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError) as caught:
        resources.read("timing", tmp_path / "none.rpt")
    assert str(caught.value) == (
        f"{tmp_path}/none.rpt: cannot be read: No such file or directory; run the step that makes it"
    )


def test_the_label_of_a_report_that_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text(re.sub(r"\| Design State.*\n", "", reports.timing()))
    assert resources.read("timing", path).label == "post-synthesis"
    assert resources.read("timing", path, "post-route").label == "post-route"


def test_reports_of_one_label_become_one_record(tmp_path: Path) -> None:
    made = [
        Resources("post-route", ("timing",), fmax_hz=100, slack_ps=0),
        Resources("estimated", ("csynth",), 1, 2, 3, 4, 18_432, 5, 6, None, (7, 8), (9, 9)),
        Resources("post-route", ("used",), 10, 20, 30, 40, 18_432, fmax_hz=7),
    ]
    assert resources.merge(made) == [
        made[1],
        Resources("post-route", ("timing", "used"), 10, 20, 30, 40, 18_432, None, 100, 0),
    ]
    blocks = [
        Resources("estimated", ("a",), brams=3),
        Resources("estimated", ("b",), luts=1, brams=9, bram_bits=20_480),
    ]
    assert resources.merge(blocks) == [Resources("estimated", ("a", "b"), luts=1, brams=3)]


# fits a board or does not

ARTY = boards.load("arty_a7_35")  # 20,800 LUTs, 41,600 FFs, 90 DSPs, 100 RAMB18, no URAM, 100 MHz
FULL = Resources("post-route", ("used.rpt",), 20_800, 41_600, 90, 100, 18_432, 0, 100_000_000, 0)
MISFITS = {
    "luts": (
        {"luts": 25_320},
        "does not fit: luts 25,320 of 20,800 (121.7%), 4,520 too many",
    ),
    "all": (
        {"luts": 20_801, "ffs": 83_200, "dsps": 91, "brams": 101, "urams": 2},
        "does not fit: luts 20,801 of 20,800 (100.0%), 1 too many; ffs 83,200 of 41,600 (200.0%), 41,600 too many; "
        "dsps 91 of 90 (101.1%), 1 too many; urams 2 of 0, 2 too many; "
        "brams 101 of 100 (101.0%), 1 too many (of 18,432 bits)",
    ),
    "blocks of another size": (
        {"brams": 60, "bram_bits": 36_864},
        "does not fit: brams 60 of 50 (120.0%), 20 too many (of 18,432 bits)",
    ),
    "fmax": (
        {"fmax_hz": 87_390_000, "slack_ps": -1_443},
        "misses timing: fmax 87.4 MHz of 100 MHz (87.4%), 12.6 MHz short, slack -1.443 ns",
    ),
    "slack of a clock that is not the core's": ({"slack_ps": -20}, "misses timing: slack -0.020 ns, must be 0 or more"),
    "estimated clock": ({"fmax_hz": 50_000_000, "slack_ps": None}, "misses timing: fmax 50.0 MHz of 100 MHz (50.0%), 50.0 MHz short"),
    "both": (
        {"luts": 41_600, "slack_ps": -1},
        "does not fit: luts 41,600 of 20,800 (200.0%), 20,800 too many; slack -0.001 ns, must be 0 or more",
    ),
}  # fmt: skip


def test_what_fits() -> None:
    resources.check_fit(FULL, ARTY)
    resources.check_fit(Resources("estimated", ()), ARTY)


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_says_by_how_much(name: str) -> None:
    change, must = MISFITS[name]
    advice = (
        "raise reuse_factor, narrow the weights, or take a larger board"
        if "too many" in must
        else "lower core_clock_hz of the board, or raise reuse_factor"
    )
    with pytest.raises(ToolchainError) as caught:
        resources.check_fit(dataclasses.replace(FULL, **change), ARTY)
    assert str(caught.value) == f"arty_a7_35, post-route (used.rpt): the design {must}; {advice}"


# reports made by the tools themselves

GIVEN = {
    "Vivado/myproject_csynth.xml": ("csynth", Resources("estimated", (), 2532, 7969, 73, 0, 18_432, 0, 246_974_561, None, (10, 10), (8, 8))),
    "Vivado/myproject_csynth.rpt": ("csynth_rpt", Resources("estimated", (), 2532, 7969, 73, 0, 18_432, 0, 246_974_561, None, (10, 10), (8, 8))),
    "Vivado/vivado_synth.rpt": ("utilization", Resources("post-synthesis", (), 1526, 2428, 66, 0, 18_432)),
    "oneAPI/quartus.ndjson": ("quartus", Resources("post-route", (), 4182, 16_419, 40, 36, fmax_hz=597_730_000)),
    "oneAPI/summary.ndjson": ("oneapi", Resources("estimated", (), 2462, 7938, 40, 77)),
    "oneAPI/loop_attr.ndjson": ("oneapi_loops", Resources("estimated", (), fmax_hz=480_000_000)),
}  # fmt: skip


@pytest.mark.parametrize("name", GIVEN)
def test_given_reports(shared: Path, name: str) -> None:
    kind, must = GIVEN[name]
    path = shared / "data" / "hls_reports" / name
    assert resources.read(kind, path) == dataclasses.replace(must, files=(str(path),))
