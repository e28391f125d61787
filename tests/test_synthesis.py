"""The vendors' steps, run with the stand-ins of tests/fake_tools: command lines, order, resuming, and every failure's text."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from toolchain import boards, flow, project, synthesis, vendor_steps
from toolchain.boards import Board
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.ir import QType
from toolchain.ir.builder import GraphBuilder
from toolchain.project import Project, Step
from toolchain.resources import Resources
from toolchain.tool_list import TOOLS

FAKE = Path(__file__).resolve().parent / "fake_tools"
ROOT = FAKE.parents[1]
BOARDS = {
    "Vitis": "arty_a7_35",
    "Vivado": "basys3",
    "VivadoAccelerator": "pynq_z2",
    "Quartus": "de10_nano",
    "oneAPI": "arria10_kit",
    "Catapult": "zcu102",
    "Libero": "polarfire_kit",
}
HLS = ("Vitis", "Vivado", "VivadoAccelerator")


def board_of(tool: str) -> Board:
    return boards.load(BOARDS[tool])


def made_of(tool: str, wanted: tuple[str, ...] | None = None, **files: str) -> Project:
    """A project with the steps of a tool, and of hls4ml's files those that the stand-ins read."""
    board = board_of(tool)
    backend = "vivadoaccelerator" if tool == "VivadoAccelerator" else tool.lower()
    own = {"hls/project.tcl": f'set project_name "net"\nset backend "{backend}"\n', **files}
    if tool == "Quartus":
        own["hls/Makefile"] = "net-fpga:\n\ti++ $(LOGGING_1) -march=part net_test.cpp $(QUARTUS_COMPILE) -o $@\n"
    if tool == "oneAPI":
        own["hls/CMakeLists.txt"] = "set(TARGET_NAME net)\n"
    own |= vendor_steps.files(tool)
    steps = vendor_steps.steps(tool, "net", board, wanted=wanted)
    return Project("net", own, (), "hls/project.tcl", "g" * 64, board.name, steps)


class Desk:
    """A machine with the stand-ins on PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.log, self.set = folder / "out", folder / "calls", monkeypatch.setenv
        self.remove = monkeypatch.delenv
        python = str(Path(sys.executable).parent)
        self.set("PATH", os.pathsep.join([str(FAKE), python, "/usr/bin", "/bin"]))
        self.set("FAKE_LOG", str(self.log))
        self.remove("FAKE_FAIL", raising=False)
        for spec in TOOLS.values():
            if spec.env:
                self.remove(spec.env, raising=False)

    def calls(self) -> list[dict[str, Any]]:
        """What was called since the last time, but for questions of the version."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        made: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [call for call in made if call["arguments"] not in (["--version"], ["-version"], ["-v"])]

    def tools(self) -> list[str]:
        return [call["tool"] for call in self.calls()]

    def run(self, made: Project, progress: Any = None) -> list[Resources]:
        with made.held(self.root) as root:
            return synthesis.run(root, made.steps, boards.load(made.board), progress)

    def said(self, made: Project) -> str:
        with pytest.raises(ToolchainError) as caught:
            self.run(made)
        return str(caught.value)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    if not shutil.which("make"):
        pytest.skip("make is missing: apt-get install make")
    return Desk(tmp_path, monkeypatch)


VIVADO_HLS = "reset={} csim={} synth={} cosim={} validation={} export={} vsynth=False fifo_opt=False"
CSYNTH = VIVADO_HLS.format(True, False, True, False, False, False)
COSIM = VIVADO_HLS.format(False, True, False, True, True, False)
EXPORT = VIVADO_HLS.format(False, False, False, False, False, True)
CATAPULT = (
    'set ::argv "reset=False csim=False synth=True cosim=True validation=True export=False vsynth=True fifo_opt=False '
    'bitfile=False ran_frame=5 sw_opt=False power=False da=False vhdl=False verilog=True bup=False"'
)
# tool: (program, arguments, folder), in order; DIGEST stands for the project's
COMMANDS: dict[str, list[tuple[str, list[str], str]]] = {
    "Vitis": [
        ("vitis-run", ["--tcl", "csynth.tcl", "--mode", "hls"], "hls"),
        ("vitis-run", ["--tcl", "cosim.tcl", "--mode", "hls"], "hls"),
        ("vitis-run", ["--mode", "hls", "--tcl", "ip.tcl"], "hls"),
        ("vivado", ["-mode", "batch", "-source", "bitstream.tcl", "-tclargs", "DIGEST"], ""),
    ],
    "Vivado": [
        ("vivado_hls", ["-f", "build_prj.tcl", CSYNTH], "hls"),
        ("vivado_hls", ["-f", "build_prj.tcl", COSIM], "hls"),
        ("vivado_hls", ["-f", "ip.tcl"], "hls"),
        ("vivado", ["-mode", "batch", "-source", "bitstream.tcl", "-tclargs", "DIGEST"], ""),
    ],
    "VivadoAccelerator": [
        ("vivado_hls", ["-f", "build_prj.tcl", CSYNTH], "hls"),
        ("vivado_hls", ["-f", "build_prj.tcl", COSIM], "hls"),
        ("vivado_hls", ["-f", "build_prj.tcl", EXPORT], "hls"),
        ("vivado", ["-mode", "batch", "-source", "design.tcl"], "hls"),
    ],
    "Quartus": [
        ("i++", ["-v", "-march=part", "net_test.cpp", "--quartus-compile", "-o", "net-fpga"], "hls"),
        ("quartus_sh", ["--flow", "compile", "net-fpga"], "hls"),
    ],
    "oneAPI": [
        ("cmake", [".."], "hls/build"),
        ("icpx", ["-fsycl", "-fintelfpga", "-o", "net.report"], "hls/build"),
        ("icpx", ["-fsycl", "-fintelfpga", "-o", "net.fpga_sim"], "hls/build"),
        ("icpx", ["-fsycl", "-fintelfpga", "-o", "net.fpga"], "hls/build"),
        ("quartus_sh", ["-t", "compile.tcl"], "hls/build"),
    ],
    "Catapult": [
        ("catapult", ["-product", "ultra", "-shell", "-f", "build_prj.tcl", "-eval", CATAPULT], "hls"),
    ],
    "Libero": [
        ("shls", ["-s", "sw_compile"], "hls"),
        ("shls", ["-s", "hw"], "hls"),
        ("shls", ["-s", "cosim"], "hls"),
        ("shls", ["-s", "fpga"], "hls"),
    ],
}  # fmt: skip
ESTIMATE = Resources("estimated", (), 2532, 7969, 73, 4, 18_432, 0, 246_974_561, None, (10, 12), (8, 8))
CYCLES = Resources("simulated", (), latency_cycles=(10, 12), initiation_interval=(8, 8))
ROUTED = Resources("post-route", (), 1526, 2428, 66, 5, 18_432, None, 101_245_317, 123)
FITTED = Resources("post-route", (), 4182, 16_419, 40, 36, fmax_hz=597_730_000)
LIBERO = Resources("post-route", (), 460, 273, 20, 13, 20_480, None, 236_686_000, 5_775, (101, 103), (90, 91))
FIGURES = {
    "Vitis": [ESTIMATE, CYCLES, ESTIMATE, ROUTED],
    "Vivado": [ESTIMATE, CYCLES, ESTIMATE, ROUTED],
    "VivadoAccelerator": [ESTIMATE, CYCLES, ROUTED],
    "Quartus": [
        Resources("estimated", (), 2462, 7938, 40, 77),
        FITTED,
        Resources("simulated", (), latency_cycles=(17, 19), initiation_interval=(1, 2)),
    ],
    "oneAPI": [Resources("estimated", (), 2462, 7938, 42, 77, fmax_hz=360_500_000), FITTED],
    "Catapult": [Resources("post-synthesis", (), 1526, 2428, 66, 5, 18_432, 0, 101_245_317, 123)],
    "Libero": [
        Resources("simulated", (), bram_bits=20_480, latency_cycles=(101, 103), initiation_interval=(90, 91)),
        LIBERO,
    ],
}


def plain(found: list[Resources]) -> list[Resources]:
    return [dataclasses.replace(part, files=()) for part in found]


@pytest.mark.parametrize("tool", BOARDS)
def test_what_is_called_in_which_order_and_what_is_read(desk: Desk, tool: str) -> None:
    made = made_of(tool)
    found = desk.run(made)
    calls = desk.calls()
    digest = made.digest()
    must = [(t, [digest if a == "DIGEST" else a for a in args], str(desk.root / d)) for t, args, d in COMMANDS[tool]]
    assert [(call["tool"], call["arguments"], call["folder"]) for call in calls] == must
    assert all(call["path"][0] == str(FAKE) for call in calls)
    assert {call["stdin"] for call in calls} == {""}  # a tool that asks gets no answer, and does not wait for one
    assert plain(found) == FIGURES[tool]
    assert all((desk.root / name).is_file() for part in found for name in part.files)
    for step in made.steps:
        log = (desk.root / "logs" / f"{step.name}.log").read_text()
        assert log.startswith(f"# {'mkdir' if step.folder.endswith('build') else 'cd'} ")
        assert len(log.splitlines()) > 1 or step.tool.startswith("./")


@pytest.mark.parametrize("tool", BOARDS)
def test_a_done_step_is_not_run_again_and_needs_no_tool(desk: Desk, tool: str) -> None:
    made = made_of(tool)
    first = desk.run(made)
    desk.calls()
    desk.set("PATH", "/nowhere")
    assert desk.run(made) == first
    assert desk.calls() == []
    shutil.move(desk.root, desk.root.with_name("elsewhere"))  # a folder may be carried to another machine
    found = synthesis.run(desk.root.with_name("elsewhere"), made.steps, boards.load(made.board))
    assert plain(found) == plain(first)


def test_less_may_be_asked_for(desk: Desk) -> None:
    assert plain(desk.run(made_of("Vitis", ("csynth",)))) == [ESTIMATE]
    assert desk.tools() == ["vitis-run"]
    assert plain(desk.run(made_of("VivadoAccelerator", ("implement",)))) == [ESTIMATE, ROUTED]
    assert [call["arguments"][-1] for call in desk.calls()] == [CSYNTH, "implement.tcl"]
    assert plain(desk.run(made_of("Quartus", ("csynth",)))) == FIGURES["Quartus"][:1]
    assert desk.tools() == ["i++"]
    assert plain(desk.run(made_of("oneAPI", ("csynth",)))) == FIGURES["oneAPI"][:1]
    assert desk.tools() == ["cmake", "icpx"]
    assert plain(desk.run(made_of("Catapult", ("csynth",)))) == []
    assert "vsynth=False" in desk.calls()[0]["arguments"][-1]
    assert plain(desk.run(made_of("Libero", ("cosim",)))) == FIGURES["Libero"][:1]
    assert desk.tools() == ["shls"] * 3


def test_a_failed_step_runs_again_and_those_before_it_do_not(desk: Desk) -> None:
    made = made_of("Vitis")
    desk.set("FAKE_FAIL", "vitis-run:exit:ip.tcl")
    desk.said(made)
    assert desk.tools() == ["vitis-run"] * 3
    desk.said(made)
    assert [call["arguments"][-1] for call in desk.calls()] == ["ip.tcl"]
    assert "HLS 200-70" in (desk.root / "logs" / "ip.previous.log").read_text()
    desk.remove("FAKE_FAIL")
    assert plain(desk.run(made)) == FIGURES["Vitis"]
    assert [call["arguments"][3] for call in desk.calls()] == ["ip.tcl", "bitstream.tcl"]


def test_what_is_older_than_its_inputs_runs_again(desk: Desk) -> None:
    desk.run(made_of("Vitis"))
    desk.calls()
    changed = made_of("Vitis", None, **{"hls/firmware.cpp": "// another network\n"})
    desk.run(changed)
    assert len(desk.tools()) == 4
    (desk.root / "hls" / "firmware.cpp").write_text("// by hand\n")  # an edit of the project on disk counts
    synthesis.run(desk.root, changed.steps, board_of("Vitis"))
    assert len(desk.tools()) == 4
    other = tuple(
        dataclasses.replace(s, arguments=(*s.arguments, "-x")) if s.name == "ip" else s for s in changed.steps
    )
    synthesis.run(desk.root, other, board_of("Vitis"))
    assert desk.tools() == ["vitis-run", "vivado"]


@pytest.mark.parametrize("gone", ["hls/net_prj/solution1/syn/report/net_csynth.xml", "logs/csynth.done"])
def test_a_step_whose_result_is_gone_runs_again_and_all_after_it(desk: Desk, gone: str) -> None:
    made = made_of("Vitis")
    desk.run(made)
    desk.calls()
    (desk.root / gone).unlink()
    desk.run(made)
    assert len(desk.tools()) == 4
    (desk.root / "logs" / "cosim.done").write_text("[]")
    desk.run(made)
    assert len(desk.tools()) == 3


def test_a_result_that_was_changed_is_made_again(desk: Desk) -> None:
    made = made_of("Vitis")
    desk.run(made)
    desk.calls()
    (desk.root / "nn_board.bit").write_text("bitz")
    assert plain(desk.run(made)) == FIGURES["Vitis"]
    assert desk.tools() == ["vivado"]
    assert (desk.root / "nn_board.bit").read_text() == "bits"
    (desk.root / "reports" / "timing.rpt").write_text("all is well\n")
    assert plain(desk.run(made)) == FIGURES["Vitis"]
    assert desk.tools() == ["vivado"]


def test_what_follows_a_step_that_ran_again_is_not_done(desk: Desk) -> None:
    """Though it was, of the same inputs, and what it made is there: its program makes nothing but figures."""
    made = made_of("Quartus")
    desk.run(made)
    (desk.root / "logs" / "csynth.done").unlink()
    desk.set("FAKE_FAIL", "i++:badprogram")
    for _ in range(2):
        assert "step cosim: ./net-fpga ended with exit code 1" in desk.said(made)
        desk.remove("FAKE_FAIL", raising=False)
    assert desk.tools().count("i++") == 2


def test_old_results_do_not_pass_for_new_ones(desk: Desk) -> None:
    made = made_of("VivadoAccelerator")
    desk.run(made)
    (desk.root / "logs" / "bitstream.done").unlink()
    desk.set("FAKE_FAIL", "vivado:noreport")
    runs = "hls/net_vivado_accelerator/project_1.runs/impl_1"
    assert "but made no " + f"{runs}/design_1_wrapper.bit, hls/util.rpt, {runs}/" in desk.said(made)
    made = made_of("Catapult")
    desk.remove("FAKE_FAIL")
    desk.run(made)
    (desk.root / "logs" / "csynth.done").unlink()
    desk.run(made)  # not net_prj_1, which the tool makes where there is a net_prj
    assert not (desk.root / "hls" / "net_prj_1").exists()


def test_with_what_a_step_was_made_is_written_down(desk: Desk) -> None:
    desk.run(made_of("Quartus"))
    stamp = json.loads((desk.root / "logs" / "csynth.done").read_text())
    assert stamp["made_with"]["i++"] == stamp["made_with"]["quartus_sh"] == "2023.2"
    assert set(stamp["made_with"]) == {"make", "i++", "quartus_sh"}


def test_progress(desk: Desk) -> None:
    told: list[tuple[str, float]] = []
    made = made_of("VivadoAccelerator")
    desk.run(made, lambda what, done: told.append((what, done)))
    assert list(dict.fromkeys((what.partition(",")[0], done) for what, done in told)) == [
        ("csynth: vivado_hls", 0.0), ("cosim: vivado_hls", 0.25), ("export: vivado_hls", 0.5), ("bitstream: vivado", 0.75),
    ]  # fmt: skip
    assert told[0][0] == "csynth: vivado_hls, 0:00"
    told.clear()
    desk.run(made, lambda what, done: told.append((what, done)))
    assert told[1] == ("cosim: done before", 0.25)


def test_an_override_is_used_and_its_folder_is_on_the_path(desk: Desk, tmp_path: Path) -> None:
    other = tmp_path / "opt" / "vivado_hls"
    other.parent.mkdir()
    other.write_text(f'#!/bin/sh\nexec {FAKE}/vivado_hls "$@"\n')
    other.chmod(0o755)
    desk.set("VIVADO_HLS", str(other))
    desk.run(made_of("Vivado", ("csynth",)))
    assert desk.calls()[0]["path"][0] == str(other.parent)
    desk.set("INTEL_HLS", str(FAKE / "i++"))
    desk.set("PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != str(FAKE)))
    desk.run(made_of("Quartus", ("csynth",)))
    assert desk.tools() == ["i++"]  # found by make, though it is not on this machine's PATH


# failures: what is wrong, whole

LICENCE = "get a licence for this part, and name its file or server as the tool asks"
LARGE = "raise reuse_factor, narrow the weights, or take a larger board"
LATE = "lower core_clock_hz of the board, or raise reuse_factor"
READ = "read the log, which is whole"
FAILURES = {
    # tool, FAKE_FAIL: log, what is said after `ROOT/logs/LOG: ` (or the whole where there is no log)
    ("Vitis", "vitis-run:exit"): (
        "csynth.log",
        f"step csynth: vitis-run ended with exit code 1; {READ}\n"
        "  ERROR: [HLS 200-70] Compilation errors found: undeclared identifier 'relu9'.",
    ),
    ("Vivado", "vivado_hls:silent:cosim=True"): (
        "cosim.log",
        f"step cosim: vivado_hls ended with exit code 1; {READ}\n  two\n  three\n  four\n  five\n  six",
    ),
    ("VivadoAccelerator", "vivado:licence"): (
        "bitstream.log",
        f"step bitstream: vivado ended with exit code 1: the licence is missing; {LICENCE}\n"
        "  ERROR: [Common 17-345] A valid license was not found for feature 'Synthesis' and/or device 'xc7a100t'.",
    ),
    ("Vitis", "vivado:resources"): (
        "bitstream.log",
        f"step bitstream: vivado ended with exit code 1: the design needs more than the part has; {LARGE}\n"
        "  ERROR: [Place 30-640] Place Check : This design requires more Slice LUTs cells than are available in the target device.",
    ),
    ("Vivado", "vivado:late"): (
        "bitstream.log",
        f"step bitstream: vivado ended with exit code 1: timing is not met; {LATE}\n"
        "  bitstream: timing is not met: the worst setup slack is -0.402 ns at 10 ns; see reports/timing.rpt",
    ),
    ("Quartus", "i++:fit"): (
        "csynth.log",
        f"step csynth: make ended with exit code 2: the design needs more than the part has; {LARGE}\n"
        "  Error (170011): Design contains 2,000 blocks of type DSP block. However, the device contains only 112 blocks.\n"
        "  Error: exit",
    ),
    ("oneAPI", "icpx:exit:net.fpga_sim"): (
        "simulator.log",
        f"step simulator: make ended with exit code 2; {READ}\n"
        "  ERROR: [HLS 200-70] Compilation errors found: undeclared identifier 'relu9'.",
    ),
    ("Vitis", "vitis-run:noreport:csynth"): (
        "csynth.log",
        "step csynth: vitis-run ended with exit code 0 but made no hls/net_prj/solution1/syn/report/net_csynth.xml; "
        f"{READ}\n  ERROR: [Common 17-69] Command failed: no space left on device",
    ),
    ("Libero", "shls:noreport:fpga"): (
        "implement.log",
        "step implement: shls ended with exit code 0 but made no hls/hls_output/reports/summary.results.rpt; "
        f"{READ}\n  ERROR: [Common 17-69] Command failed: no space left on device",
    ),
    ("Vitis", "vivado:killed"): ("bitstream.log", f"step bitstream: vivado was killed by signal 9; {READ}"),
    ("Catapult", "catapult:otherpart"): (
        "csynth.log",
        "step csynth: catapult ended with exit code 0: it does not know the part xc7a35ticsg324-1L and took another; "
        "install the library of that part\n"
        "  # Warning: Could not find specific Xilinx base library for part 'xc7a35ticsg324-1L'. Using KINTEX-u\n"
        "  catapult is a stand-in",
    ),
    ("Vitis", "vivado:timing"): (
        "",
        "arty_a7_35, post-route (reports/utilization.rpt, reports/timing.rpt): the design misses timing: "
        f"fmax 87.4 MHz of 100 MHz (87.4%), 12.6 MHz short, slack -1.443 ns; {LATE}",
    ),
    ("oneAPI", "icpx:timing:net.fpga"): (
        "",
        "arria10_kit, post-route (hls/build/net.fpga.prj/reports/resources/json/quartus.ndjson): the design misses "
        f"timing: fmax 90.0 MHz of 200 MHz (45.0%), 110.0 MHz short; {LATE}",
    ),
    ("Vitis", "vivado:large"): (
        "",
        "arty_a7_35, post-route (reports/utilization.rpt, reports/timing.rpt): the design does not fit: "
        f"luts 25,320 of 20,800 (121.7%), 4,520 too many; {LARGE}",
    ),
    ("Quartus", "i++:large"): (
        "",
        "de10_nano, post-route (hls/net-fpga.prj/reports/lib/quartus_data.js): the design does not fit: "
        f"luts 99,000 of 83,820 (118.1%), 15,180 too many; {LARGE}",
    ),
    ("VivadoAccelerator", "vivado_hls:cosimfail:cosim=True"): (
        "",
        "ROOT/hls/net_prj/solution1/sim/report/net_axi_cosim.rpt: cosimulation of the Verilog ended with 'Fail', must be "
        "'Pass'; read the log of the step: the RTL does not do what the C++ does",
    ),
    ("Vitis", "vivado:truncated"): (
        "",
        "ROOT/reports/utilization.rpt: is cut off or is another report: it says nothing of dsps, brams; run the step that "
        "makes it again",
    ),
    ("Vitis", "vitis-run:truncated:csynth"): (
        "",
        "ROOT/hls/net_prj/solution1/syn/report/net_csynth.xml: is cut off or is another report: not XML (unclosed token: "
        "line 9, column 0); run the step that makes it again",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: f"{case[0]}-{case[1]}")
def test_a_failure_is_told_whole(desk: Desk, case: tuple[str, str]) -> None:
    log, must = FAILURES[case]
    made = made_of(case[0])
    desk.set("FAKE_FAIL", case[1])
    said = desk.said(made).replace(str(desk.root), "ROOT")
    assert said == (f"ROOT/logs/{log}: {must}" if log else must)
    if log:
        assert not (desk.root / "logs" / log.replace(".log", ".done")).exists()
    desk.remove("FAKE_FAIL")
    if "stand-in" not in must and "post-route" not in must:
        assert plain(desk.run(made)) == FIGURES[case[0]]  # it goes on where it failed


def test_a_design_that_does_not_fit_is_not_made_again_to_say_so(desk: Desk) -> None:
    made = made_of("Vitis")
    desk.set("FAKE_FAIL", "vivado:large")
    first = desk.said(made)
    desk.calls()
    assert desk.said(made) == first
    assert desk.calls() == []


def test_an_estimate_is_no_verdict_where_better_figures_follow(desk: Desk) -> None:
    desk.set("FAKE_FAIL", "vitis-run:large")
    assert desk.run(made_of("Vitis"))[0].luts == 99_000
    said = desk.said(made_of("Vitis", ("csynth", "cosim")))
    assert said.startswith("arty_a7_35, estimated (") and "luts 99,000 of 20,800 (476.0%), 78,200 too many" in said


# tools that are not here


def test_what_is_missing_is_named_before_anything_runs(desk: Desk) -> None:
    desk.set("PATH", "/usr/bin")
    made = made_of("Vitis")
    made.write(desk.root)
    with pytest.raises(MissingToolError) as caught:
        synthesis.run(desk.root, made.steps, board_of("Vitis"))
    hls, digest = desk.root / "hls", made.digest()
    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "vitis-run, vivado: not found on PATH; set VITIS_RUN to its path, or source settings64.sh of Vitis 2023.2 or newer, "
        "often /tools/Xilinx/Vitis/VERSION/settings64.sh; set VIVADO to its path, or source settings64.sh of Vivado, often "
        "/tools/Xilinx/Vivado/VERSION/settings64.sh; or on a machine that has what is missing: "
        f"(cd {hls} && vitis-run --tcl csynth.tcl --mode hls) && (cd {hls} && vitis-run --tcl cosim.tcl --mode hls) && "
        f"(cd {hls} && vitis-run --mode hls --tcl ip.tcl) && "
        f"(cd {desk.root} && vivado -mode batch -source bitstream.tcl -tclargs {digest})"
    )
    assert not (desk.root / "logs").exists()


def test_steps_before_the_first_missing_tool_run(desk: Desk, tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    for name in ("icpx", "cmake", "fake.py", "reports.py"):
        (only / name).symlink_to(FAKE / name)
    desk.set("PATH", os.pathsep.join([str(only), str(Path(sys.executable).parent), "/usr/bin", "/bin"]))
    said = desk.said(made_of("oneAPI"))
    build = desk.root / "hls" / "build"
    assert said.startswith(
        f"quartus_sh: not found on PATH; configure, csynth, simulator, cosim ran to the end, the logs are in {desk.root}/logs; "
        "set QUARTUS_SH to its path, or put quartus/bin of Quartus Prime on "
    )
    assert said.endswith(f"on a machine that has what is missing: (mkdir -p {build} && cd {build} && make fpga)")
    assert desk.tools().count("icpx") == 2
    desk.said(made_of("oneAPI"))
    assert desk.tools() == []  # and not again


def test_the_command_lines_of_the_message_do_what_the_steps_do(desk: Desk) -> None:
    """What the message tells to type, typed where the tools are, makes what a run makes."""
    for tool in BOARDS:
        made = made_of(tool)
        made.write(desk.root)
        typed = synthesis.command_lines(desk.root, made.digest(), made.steps)
        subprocess.run(["sh", "-c", typed], check=True, stdin=subprocess.DEVNULL, capture_output=True)
        by_hand = [(call["tool"], call["arguments"], call["folder"]) for call in desk.calls()]
        shutil.rmtree(desk.root)
        desk.run(made)
        assert by_hand == [(call["tool"], call["arguments"], call["folder"]) for call in desk.calls()], tool
        shutil.rmtree(desk.root)


# stopped

STOPPED = """
import sys
from fractions import Fraction
from pathlib import Path
from tests.test_synthesis import board_of, made_of
from toolchain import children, synthesis
children.PATIENCE_S = 1.0
made = made_of("Vitis")
with made.held(Path(sys.argv[1])) as root:
    synthesis.run(root, made.steps, board_of("Vitis"))
"""


def wait_for(what: Callable[[], bool]) -> None:
    for _ in range(1000):
        if what():
            return
        time.sleep(0.02)
    pytest.fail("waited in vain")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("mode", "sign"), [("hang", signal.SIGINT), ("stubborn", signal.SIGINT), ("hang", signal.SIGTERM)]
)
def test_stopped_with_all_it_started_and_resumed(desk: Desk, mode: str, sign: signal.Signals) -> None:
    desk.set("FAKE_FAIL", f"vitis-run:{mode}:cosim.tcl")
    pids = Path(f"{desk.log}.pids")
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(desk.root)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        started = [int(pid) for pid in pids.read_text().split()]
        assert all(map(alive, started))
        desk.remove("FAKE_FAIL")
        assert desk.said(made_of("Vitis")) == (
            f"{desk.root}: another build runs in this folder; wait for it, end it, or choose another folder"
        )
        child.send_signal(sign)
        err = child.communicate(timeout=30)[1].decode()
    finally:
        child.kill()
        child.wait()
    wait_for(lambda: not any(map(alive, started)))
    assert child.returncode == (-signal.SIGINT if sign == signal.SIGINT else 128 + sign)
    assert ("KeyboardInterrupt" in err) == (sign == signal.SIGINT)
    assert (desk.root / "logs" / "csynth.done").exists() and not (desk.root / "logs" / "cosim.done").exists()
    desk.calls()
    assert plain(desk.run(made_of("Vitis"))) == FIGURES["Vitis"]
    assert len(desk.tools()) == 3  # all but csynth


def test_what_a_tool_leaves_behind_is_ended_too(desk: Desk, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    (tmp_path / "vivado").write_text(f"#!/bin/sh\n[ $1 = -version ] && exit\nsleep 600 &\necho $! > {pid}\n")
    (tmp_path / "vivado").chmod(0o755)
    desk.set("VIVADO", str(tmp_path / "vivado"))
    made = dataclasses.replace(made_of("Vitis"), steps=(Step("implement", "vivado", ("-mode", "batch")),))
    assert desk.run(made) == []
    wait_for(lambda: not alive(int(pid.read_text())))


def test_a_program_that_cannot_be_started(desk: Desk) -> None:
    made = dataclasses.replace(made_of("Quartus"), steps=(Step("cosim", "./net-fpga", (), "hls"),))
    assert desk.said(made) == (
        f"{desk.root}/hls/net-fpga: cannot be started: No such file or directory; run `bitwright doctor`"
    )


# the steps as data


def test_what_has_no_steps() -> None:
    def said(*arguments: Any, **more: Any) -> str:
        with pytest.raises(ToolchainError) as caught:
            vendor_steps.steps(*arguments, **more)
        return str(caught.value)

    arty, kv260 = boards.load("arty_a7_35"), boards.load("kv260")
    assert said("vitis", "net", arty) == "hls tool 'vitis': has no steps; did you mean 'Vitis'?"
    assert said("Vitis", "net", arty, wanted=("csyn",)) == (
        "stage 'csyn': is none of csynth, cosim, implement, bitstream; did you mean 'csynth'?"
    )
    assert said("Vitis", "net", kv260, wanted=("bitstream",)) == (
        "stage 'bitstream': no bitstream is made for kv260 with Vitis; ask for csynth, cosim, implement"
    )


def test_every_board_has_steps_with_every_tool_of_its_own() -> None:
    for name in boards.names():
        board = boards.load(name)
        for tool in board.fpga.tools if board.fpga else ():
            steps = vendor_steps.steps(tool, "net", board)
            assert {n for step in steps for n in (step.tool, *step.needs) if not n.startswith("./")} <= set(TOOLS)
            assert len({step.name for step in steps}) == len(steps)  # names of logs
            assert {kind for step in steps for kind in step.reports} <= set(synthesis.resources.readers())


def test_the_steps_come_back_from_disk(desk: Desk) -> None:
    for tool in BOARDS:
        made = made_of(tool)
        made.write(desk.root)
        manifest, digest = project.on_disk(desk.root)
        assert project.steps(manifest) == made.steps
        assert digest == made.digest()
        shutil.rmtree(desk.root)


# the scripts, under a real Tcl

STUBS = """
proc note {args} { puts stdout $args }
foreach name {open_project set_top add_files open_solution config_array_partition config_compile set_part config_schedule
    create_clock set_clock_uncertainty csim_design csynth_design cosim_design export_design read_verilog read_mem synth_design
    report_utilization opt_design place_design phys_opt_design route_design report_timing_summary get_ports} {
    proc $name {args} "note $name {*}\\$args"
}
"""


def tcl(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("tclsh"):
        pytest.skip("tclsh is missing: apt-get install tcl")
    (folder / "stubs.tcl").write_text(f"{STUBS}\nsource {script}\n")
    return subprocess.run(["tclsh", "stubs.tcl"], cwd=folder, capture_output=True, text=True, timeout=60)


PROJECT_TCL = 'set project_name "net"\nset backend "{}"\nset part "xc7a35ticsg324-1L"\nset clock_period 10\nset clock_uncertainty 12.5%\nset version "1.0.0"\nset maximum_size 4096\n'


@pytest.mark.parametrize(("backend", "top"), [("vitis", "net"), ("vivadoaccelerator", "net_axi")])
def test_implement_tcl(tmp_path: Path, backend: str, top: str) -> None:
    (tmp_path / "project.tcl").write_text(PROJECT_TCL.format(backend))
    (tmp_path / "implement.tcl").write_text(vendor_steps.files("Vivado")["hls/implement.tcl"])
    done = tcl(tmp_path, "implement.tcl")
    assert done.returncode == 1
    assert done.stderr == "ERROR: implement: no Verilog in net_prj/solution1/syn/verilog, run csynth first\n"
    verilog = tmp_path / "net_prj" / "solution1" / "syn" / "verilog"
    verilog.mkdir(parents=True)
    for name in ("b.v", "a.v", "rom.dat", "net.tcl"):
        (verilog / name).touch()
    done = tcl(tmp_path, "implement.tcl")
    assert (done.returncode, done.stderr) == (0, "")
    folder = "net_prj/solution1/syn/verilog"
    assert done.stdout.splitlines() == [
        "set_part xc7a35ticsg324-1L",
        f"read_verilog {folder}/a.v",
        f"read_verilog {folder}/b.v",
        f"read_mem {folder}/rom.dat",
        f"synth_design -mode out_of_context -top {top} -part xc7a35ticsg324-1L",
        "get_ports ap_clk",
        "create_clock -name ap_clk -period 10 {}",
        "report_utilization -file reports/utilization_synth.rpt",
        "opt_design",
        "place_design",
        "phys_opt_design",
        "route_design",
        "report_utilization -file reports/utilization.rpt",
        "report_timing_summary -file reports/timing.rpt",
    ]
    assert (tmp_path / "reports").is_dir()


PARTS = {
    "csynth": ["csynth_design"],
    "cosim": ["csim_design", "cosim_design -trace_level all -setup"],
    "export": ["export_design -format ip_catalog -version 1.0.0"],
}


@pytest.mark.parametrize("step", PARTS)
@pytest.mark.parametrize("tool", ["Vitis", "Vivado"])
def test_hls4mls_own_script_does_what_the_step_says(tmp_path: Path, tool: str, step: str) -> None:
    """build_prj.tcl as hls4ml ships it, under the options of our steps."""
    import importlib.util

    found = importlib.util.find_spec("hls4ml")
    if found is None or found.origin is None:
        pytest.skip("needs hls4ml: make test")
    templates = Path(found.origin).parent / "templates" / tool.lower()
    shutil.copy(templates / "build_prj.tcl", tmp_path)
    (tmp_path / "project.tcl").write_text(PROJECT_TCL.format(tool.lower()))
    for name, text in vendor_steps.files(tool, "").items():
        (tmp_path / name).write_text(text)
    simulation = tmp_path / "net_prj" / "solution1" / "sim" / "verilog"
    simulation.mkdir(parents=True)
    (simulation / "net.tcl").write_text("log_wave -r /\n")
    (simulation / "run_sim.tcl").write_text("puts simulated\n")
    report = simulation.parent / "report" / "net_cosim.rpt"
    report.parent.mkdir()
    report.touch()
    (tmp_path / "tb_data").mkdir()
    for name in ("csim_results.log", "rtl_cosim_results.log"):
        (tmp_path / "tb_data" / name).write_text("1 2 3\n")
    wanted = ("csynth", "cosim", "bitstream") if step == "export" else ("csynth", "cosim")
    board = board_of("VivadoAccelerator")
    own = "VivadoAccelerator" if step == "export" and tool == "Vivado" else tool
    if step == "export" and tool == "Vitis":
        script = "export.tcl"
    else:
        (chosen,) = [s for s in vendor_steps.steps(own, "net", board, "", wanted) if s.name == step]
        script = chosen.arguments[1]
    (tmp_path / "argv.tcl").write_text(
        f"set ::argv [list {{{chosen.arguments[2]}}}]\nsource {script}\n" if tool == "Vivado" else f"source {script}\n"
    )
    done = tcl(tmp_path, "argv.tcl")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.split(" ")[0].endswith("_design")] == PARTS[step]
    assert ("open_project -reset net_prj" in lines) == (step == "csynth")
    assert ("INFO: Test PASSED" in lines) == ("simulated" in lines) == (step == "cosim")


def test_answers_of_the_cosimulation_are_compared(desk: Desk) -> None:
    """A step that ended well and left no log of them is no proof."""
    pytest.importorskip("hls4ml")
    b = GraphBuilder("small")
    x = b.input("x", (3,), QType(4, True, Fraction(1)))
    b.output(b.add(x, x, "y"))
    board = boards.load("arty_a7_35")
    desk.set("FAKE_FAIL", "vitis-run:nolog")
    with pytest.raises(ToolchainError) as error:
        flow.synthesize(b.graph(), board, desk.root, samples=2)
    assert str(error.value) == (
        f"{desk.root}: no log of the cosimulation in hls/tb_data, so that nothing is known of the circuit's answers; "
        "delete logs/cosim.done and build again"
    )
    desk.remove("FAKE_FAIL")
    (desk.root / "logs" / "cosim.done").unlink()
    flow.synthesize(b.graph(), board, desk.root, samples=2)
