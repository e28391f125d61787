"""The stand-ins for the vendors' tools: they write down how they were called, and make the reports where the tools do.

Its one rule: no synthesis is pretended. The figures are constants of this file, and only command lines, environment, files
and failures are of interest. FAKE_LOG names the file for the calls; FAKE_FAIL is TOOL:MODE or TOOL:MODE:WORD, where WORD
must be in the arguments.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import reports

SAID = {
    "exit": (1, "INFO: starting\nERROR: [HLS 200-70] Compilation errors found: undeclared identifier 'relu9'.\nINFO: bye"),
    "silent": (1, "one\ntwo\nthree\nfour\nfive\nsix"),
    "licence": (1, "ERROR: [Common 17-345] A valid license was not found for feature 'Synthesis' and/or device 'xc7a100t'."),
    "resources": (
        1,
        "CRITICAL WARNING: [DRC UTLZ-1] Resource utilization: LUT as Logic over-utilized in Top Level Design\n"
        "ERROR: [Place 30-640] Place Check : This design requires more Slice LUTs cells than are available in the target device.",
    ),
    "late": (1, "bitstream: timing is not met: the worst setup slack is -0.402 ns at 10 ns; see reports/timing.rpt"),
    "fit": (2, "Error (170011): Design contains 2,000 blocks of type DSP block. However, the device contains only 112 blocks.\nError: exit"),
    "noreport": (0, "INFO: all is well\nERROR: [Common 17-69] Command failed: no space left on device"),
    "otherpart": (0, "# Warning: Could not find specific Xilinx base library for part 'xc7a35ticsg324-1L'. Using KINTEX-u"),
}  # fmt: skip
# what reports say under these modes
WORSE = {"timing", "large", "truncated", "cosimfail"}


def main(file: str) -> None:
    tool, arguments = Path(file).name, sys.argv[1:]
    _note(tool, arguments)
    if arguments in (["--version"], ["-version"], ["-v"]):
        print(f"{tool} v2023.2 (64-bit)")
        return
    mode = _mode(tool, arguments)
    if mode in SAID:
        code, said = SAID[mode]
        print(said)
        if code or mode == "noreport":
            sys.exit(code)
    if mode in ("hang", "stubborn"):
        _hang(mode)
    if mode == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print(f"{tool} is a stand-in", flush=True)
    WORK[tool](arguments, mode)


def _note(tool: str, arguments: list[str]) -> None:
    if "FAKE_LOG" in os.environ:
        call = {
            "tool": tool,
            "arguments": arguments,
            "folder": os.getcwd(),
            "path": os.environ["PATH"].split(os.pathsep),
        }
        call |= {"stdin": sys.stdin.read(), "session": os.getsid(0) == os.getpgrp()}
        with open(os.environ["FAKE_LOG"], "a") as log:
            log.write(json.dumps(call) + "\n")


def _mode(tool: str, arguments: list[str]) -> str:
    who, _, rest = os.environ.get("FAKE_FAIL", "").partition(":")
    mode, _, word = rest.partition(":")
    return mode if who == tool and word in " ".join(arguments) else ""


def _hang(mode: str) -> None:
    """With a child of its own, as vitis-run has vivado; a stubborn one does not heed SIGTERM, nor does its child."""
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if "FAKE_LOG" in os.environ:
        Path(os.environ["FAKE_LOG"] + ".pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def _put(path: str | Path, text: str, mode: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text[: len(text) // 2] if mode == "truncated" else text)


def _program(path: str, lines: str) -> None:
    _put(path, f"#!/bin/sh\n{lines}\n")
    Path(path).chmod(0o755)


EXPECTED = Path("tb_data/tb_output_predictions.dat")  # what a right circuit answers to hls4ml's test bench


def _name() -> str:
    if not Path("project.tcl").exists():  # hls4ml's script for Catapult has it in its own text
        return re.search(r"project new -name (\w+)_prj", Path("build_prj.tcl").read_text())[1]
    return re.search(r'set project_name "(\w+)"', Path("project.tcl").read_text())[1]


def _top() -> str:
    return _name() + ("_axi" if "vivadoaccelerator" in Path("project.tcl").read_text() else "")


def _hls(parts: set[str], mode: str) -> None:
    solution = f"{_name()}_prj/solution1"
    if "synth" in parts:
        _put(
            f"{solution}/syn/report/{_top()}_csynth.xml",
            reports.csynth_xml(luts=99_000 if mode == "large" else 2532),
            mode,
        )
        _put(f"{solution}/syn/verilog/{_top()}.v", "module net; endmodule\n")
    if "cosim" in parts:
        if not Path(f"{solution}/syn/verilog").is_dir():
            sys.exit("ERROR: no RTL")
        _put(
            f"{solution}/sim/report/{_top()}_cosim.rpt",
            reports.cosim_rpt("Fail" if mode == "cosimfail" else "Pass"),
            mode,
        )
        for name in ("csim_results.log", "rtl_cosim_results.log"):
            if EXPECTED.exists() and mode != "nolog":
                _put(f"tb_data/{name}", EXPECTED.read_text())
    if "export" in parts:
        _put(f"{solution}/impl/ip/component.xml", "<component/>")


def _ip(mode: str) -> None:
    _put("ip_prj/solution1/syn/report/bitwright_top_csynth.xml", reports.csynth_xml(), mode)
    _put("ip_prj/solution1/syn/verilog/bitwright_top.v", "module bitwright_top; endmodule\n")


def vitis_run(arguments: list[str], mode: str) -> None:
    script = arguments[arguments.index("--tcl") + 1]
    assert arguments[arguments.index("--mode") + 1] == "hls"
    if script == "ip.tcl":
        return _ip(mode)
    options = re.search(r"set bitwright_opt \{(.*)\}", Path(script).read_text())[1].split()
    _hls({name for name, on in zip(options[::2], options[1::2]) if on == "1"}, mode)  # noqa: B905 - runs on any Python


def vivado_hls(arguments: list[str], mode: str) -> None:
    assert arguments[0] == "-f"
    if arguments[1] == "ip.tcl":
        return _ip(mode)
    _hls({word.split("=")[0] for word in arguments[2].split() if word.endswith("=True")}, mode)


def vivado(arguments: list[str], mode: str) -> None:
    assert arguments[:3] == ["-mode", "batch", "-source"]
    slack = "-1.443" if mode == "timing" else "0.123"
    late = reports.timing(slack, (("clk", "10.000", slack),))
    luts = 25_320 if mode == "large" else 1526
    if mode == "timing":
        print("CRITICAL WARNING: [Timing 38-282] The design failed to meet the timing requirements.")
    if arguments[3] == "design.tcl":
        runs = f"{_name()}_vivado_accelerator/project_1.runs/impl_1"
        _put(f"{runs}/design_1_wrapper.bit", "bits")
        _put(f"{runs}/design_1_wrapper_timing_summary_routed.rpt", late, mode)
        return _put("util.rpt", reports.hierarchical(f"{luts}(1.00%)"), mode)
    _put("reports/utilization.rpt", reports.utilization(luts, state="Routed"), mode)
    _put("reports/timing.rpt", late, mode)
    if arguments[3] == "bitstream.tcl":
        assert re.fullmatch("[0-9a-f]{64}", arguments[5])
        _put("nn_board.bit", "bits")
    return None


def intel_hls(arguments: list[str], mode: str) -> None:
    made = arguments[arguments.index("-o") + 1]
    lib = f"{made}.prj/reports/lib"
    _put(f"{lib}/report_data.js", reports.report_data(), mode)
    _put(f"{lib}/verification_data.js", "var verifJSON={};\n")
    _put(f"{lib}/quartus_data.js", reports.quartus_data(alut="TBD", reg="TBD", dsp="TBD", ram="TBD", fmax="TBD"))
    if "--quartus-compile" in arguments:
        subprocess.run(["quartus_sh", "--flow", "compile", made], check=True)
        alut = "99000" if mode == "large" else "4182"
        _put(
            f"{lib}/quartus_data.js",
            reports.quartus_data(alut=alut, fmax="90.00" if mode == "timing" else "597.73"),
            mode,
        )
    simulate = f"cat > {lib}/verification_data.js <<'END'\n{reports.verification_data()}END"
    simulate += f"\n[ ! -f {EXPECTED} ] || cp {EXPECTED} tb_data/results.log"
    _program(made, "exit 1" if mode == "badprogram" else simulate)


def cmake(arguments: list[str], mode: str) -> None:
    assert arguments == [".."]
    name = re.search(r"set\(TARGET_NAME (\w+)\)", Path("../CMakeLists.txt").read_text())[1]
    rules = [f"{target}:\n\ticpx -fsycl -fintelfpga -o {name}.{target}\n" for target in ("report", "fpga_sim", "fpga")]
    _put("Makefile", ".PHONY: report fpga_sim fpga\n" + "\n".join(rules))


def icpx(arguments: list[str], mode: str) -> None:
    made = arguments[arguments.index("-o") + 1]
    json_folder = f"{made}.prj/reports/resources/json"
    _put(f"{json_folder}/summary.ndjson", reports.summary(), mode)
    _put(f"{json_folder}/loop_attr.ndjson", reports.loops(), mode)
    _put(f"{json_folder}/quartus.ndjson", reports.quartus("TBD", "TBD", "TBD", "TBD", "TBD"))
    if made.endswith(".fpga"):
        subprocess.run(["quartus_sh", "-t", "compile.tcl"], check=True)
        _put(f"{json_folder}/quartus.ndjson", reports.quartus(fmax="90.00" if mode == "timing" else "597.73"), mode)
    if made.endswith(".fpga_sim"):
        _program(made, "echo PASSED")


def catapult(arguments: list[str], mode: str) -> None:
    assert arguments[:-1] == ["-product", "ultra", "-shell", "-f", "build_prj.tcl", "-eval"]
    options = re.fullmatch(r'set ::argv "(.*)"', arguments[-1])[1].split()
    made = (
        f"{_name()}_prj" if not Path(f"{_name()}_prj").exists() else f"{_name()}_prj_1"
    )  # as the tool names a second one
    _put(f"{made}/{_name()}.v1/rtl.rpt", "figures of its own\n")
    if "vsynth=True" in options:
        folder = f"{made}/{_name()}.v1/vivado_concat_v"
        _put(f"{folder}/utilization_synth.rpt", reports.utilization(family="CLB", urams=0), mode)
        _put(f"{folder}/timing_summary_synth.rpt", reports.timing(state="Synthesized"), mode)


def shls(arguments: list[str], mode: str) -> None:
    assert arguments[0] == "-s"
    summary = "hls_output/reports/summary.results.rpt"
    if arguments[1] == "cosim":
        _put(summary, reports.libero("", timing=False, status="FAIL" if mode == "cosimfail" else "PASS"), mode)
    elif arguments[1] == "fpga":
        _put(summary, reports.libero(), mode)
    else:
        _put(f"hls_output/{arguments[1]}.log", "done\n")


WORK = {
    "vitis-run": vitis_run,
    "vivado_hls": vivado_hls,
    "vivado": vivado,
    "i++": intel_hls,
    "quartus_sh": lambda arguments, mode: None,
    "icpx": icpx,
    "cmake": cmake,
    "catapult": catapult,
    "shls": shls,
}
