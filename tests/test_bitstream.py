"""The files of an FPGA design: deterministic, templates untouched, accepted by their own languages; scripts that fail when
they must; the HLS wrapper compiled and run."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import fpga
from tests.graphs import inputs_for
from toolchain import bitstream, boards, data, layout, passes, tools
from toolchain.bitstream import Network
from toolchain.boards import Board
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.passes.plan import Hls, Plan

TEMPLATES = data.folder("firmware_templates")
VERILOG = TEMPLATES / "verilog"
NETWORK = Network("network", ("in0_t", "in1_t"), ("out0_t", "out1_t"))
ARTIX = [name for name in boards.names() if (f := boards.load(name).fpga) and f.top == "artix"]
CORES = {
    "parallel": "input [8*`NN_IN_BYTES-1:0] bw_in, input bw_in_ap_vld, output [8*`NN_OUT_BYTES-1:0] bw_out, output bw_out_ap_vld",
    "stream": "input [8*`NN_IN_WORD_BYTES-1:0] bw_in_TDATA, input bw_in_TVALID, output bw_in_TREADY, "
    "output [8*`NN_OUT_WORD_BYTES-1:0] bw_out_TDATA, output bw_out_TVALID, input bw_out_TREADY",
}


def made(io: str = "io_parallel", board: str = "arty_a7_35") -> dict[str, str]:
    graph, plan = fpga.refined("two_inputs" if io == "io_parallel" else "convolution", io)
    network = NETWORK if io == "io_parallel" else Network("network", ("in0_t",), ("out0_t",))
    return bitstream.files(graph, plan, boards.load(board), network)


def said(act: object) -> str:
    with pytest.raises(ToolchainError) as caught:
        act()  # type: ignore[operator]
    return str(caught.value)


def test_two_times_the_same_bytes_and_templates_untouched() -> None:
    for io in ("io_parallel", "io_stream"):
        files = made(io)
        assert files == made(io)
        assert list(files) == sorted(files)
        generated = {"design.tcl", "hls/firmware/bitwright_design.h", "verilog/design.vh"}
        for name, text in files.items():
            source = Path(name.replace("hls/firmware/", "hls/").replace("bitstream.tcl", "hls/bitstream.tcl"))
            if name == "board.xdc":
                assert text == (data.folder("boards") / "arty_a7_35.xdc").read_text()
            elif name in generated:
                assert "Do not edit." in text.splitlines()[0]
            else:
                assert text == (TEMPLATES / source).read_text(), name


def test_every_template_is_in_some_design() -> None:
    used = {Path(name).name for io in ("io_parallel", "io_stream") for name in made(io)} | {"nn_clock_mmcm.v"}
    used |= {"bitwright_top.sv", "core.c", "core.h", "simulation.cpp", "design.vh"}
    there = {path.name for path in VERILOG.rglob("*") if path.is_file()}
    assert there - used == set()


@pytest.mark.parametrize("name", ARTIX)
def test_the_top_has_the_ports_of_the_constraints(name: str) -> None:
    """Vivado takes a pin of no port for a warning, and a port of no pin for a fault after an hour."""
    ports = set(re.findall(r"^    (?:input|output) +wire (\w+)", (VERILOG / "nn_board.v").read_text(), re.MULTILINE))
    fpga_table = boards.load(name).fpga
    assert fpga_table
    text = (data.folder("boards") / fpga_table.constraints).read_text()
    assert set(re.findall(r"PACKAGE_PIN \w+ .*get_ports \{?(\w+)", text)) == ports
    assert re.search(r"create_clock .*get_ports clk", text)


def lint(files: list[Path], folder: Path, language: str = "1364-2001") -> str:
    if not tools.find("verilator").path:
        pytest.skip("verilator is missing")
    argv = ["verilator", "--lint-only", "-Wall", "--default-language", language, "--top-module", "nn_board"]
    done = subprocess.run(
        [*argv, f"-I{folder}", *map(str, files)], capture_output=True, text=True, cwd=folder, timeout=120
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


def core(folder: Path, io: str) -> Path:
    path = folder / "bitwright_top.v"
    reset = "ap_rst_n" if io == "stream" else "ap_rst"
    head = f"input ap_clk, input {reset}, input ap_start, output ap_done, output ap_idle, output ap_ready"
    off = "/* verilator lint_off UNUSED */ /* verilator lint_off UNDRIVEN */"
    path.write_text(f'{off}\n`include "design.vh"\nmodule bitwright_top({head}, {CORES[io]});\nendmodule\n')
    return path


@pytest.mark.parametrize("io", ["parallel", "stream"])
def test_the_design_is_clean_verilog_2001(tmp_path: Path, io: str) -> None:
    files = made(f"io_{io}")
    for name in [n for n in files if n.startswith("verilog/")]:
        (tmp_path / Path(name).name).write_text(files[name])
    verilog = sorted(tmp_path.glob("nn_*.v"))
    assert len(verilog) == 15
    assert lint([*verilog, core(tmp_path, io)], tmp_path) == ""
    broken = tmp_path / "nn_crc32.v"  # the teeth
    broken.write_text(broken.read_text().replace("24'd0, data", "23'd0, data"))
    assert "WIDTH" in lint([*verilog, core(tmp_path, io)], tmp_path)


def test_the_sample_and_the_simulation_are_clean(tmp_path: Path) -> None:
    files = [*VERILOG.glob("nn_*.v")]
    files = [f for f in files if f.name not in ("nn_clock_mmcm.v", "nn_core_stream.v")]
    for name in ("design.vh",):
        shutil.copy(VERILOG / "sample" / name, tmp_path)
    assert lint([*files, core(tmp_path, "parallel")], tmp_path) == ""
    assert lint([*files, VERILOG / "sim" / "parallel" / "bitwright_top.sv"], tmp_path, "1800-2017") == ""


def test_an_mmcm_where_the_clocks_differ(tmp_path: Path) -> None:
    board = boards.load("arty_a7_35")
    assert board.fpga
    board = dataclasses.replace(board, fpga=dataclasses.replace(board.fpga, core_clock_hz=160_000_000))
    graph, plan = fpga.refined("two_inputs", "io_parallel")
    files = bitstream.files(graph, plan, board, NETWORK)
    clock = "nn_clock_mmcm #(.PERIOD_NS(10.000), .MULTIPLY_8(96), .DIVIDE(1), .OUTPUT_DIVIDE_8(60))"
    assert f"`define NN_CLOCK {clock}\n" in files["verilog/design.vh"]
    assert "`define NN_CLOCK_HZ 32'd160000000\n" in files["verilog/design.vh"]
    assert "`define NN_CLOCKS_PER_BIT 1389\n" in files["verilog/design.vh"]
    assert "set design(clock_ns) {6.250}" in files["design.tcl"]
    assert "verilog/nn_clock_direct.v" not in files
    for name in [n for n in files if n.startswith("verilog/")]:
        (tmp_path / Path(name).name).write_text(files[name])
    primitives = tmp_path / "primitives.v"  # as UG953 lists their ports
    outputs = ["CLKFBOUT", "CLKFBOUTB", "LOCKED", *(f"CLKOUT{k}" for k in range(7)), *(f"CLKOUT{k}B" for k in range(4))]
    ports = ", ".join(
        [*(f"input {p}" for p in ("CLKIN1", "CLKFBIN", "PWRDWN", "RST")), *(f"output {p}" for p in outputs)]
    )
    primitives.write_text(
        "/* verilator lint_off UNUSED */ /* verilator lint_off UNDRIVEN */ /* verilator lint_off DECLFILENAME */\n"
        "module MMCME2_BASE #(parameter real CLKIN1_PERIOD = 0, parameter real CLKFBOUT_MULT_F = 1, "
        f"parameter DIVCLK_DIVIDE = 1, parameter real CLKOUT0_DIVIDE_F = 1) ({ports}); endmodule\n"
        "module BUFG (input I, output O); assign O = I; endmodule\n"
    )
    said = lint([*tmp_path.glob("nn_*.v"), primitives, core(tmp_path, "parallel")], tmp_path)
    assert re.sub(r"%Warning-PINCONNECTEMPTY.*?(?=%Warning|%Error|\Z)", "", said, flags=re.DOTALL) in (
        "",
        _exiting(said),
    )


def _exiting(said: str) -> str:
    return next((line + "\n" for line in said.splitlines() if line.startswith("%Error: Exiting due to")), "")


@pytest.mark.parametrize("wanted", [50_000_000, 100_000_000, 125_000_000, 160_000_000, 200_000_000, 33_000_000])
def test_an_mmcm_makes_exactly_the_clock(wanted: int) -> None:
    multiply, divide, output = bitstream.mmcm("b", 100_000_000, wanted)
    vco = Fraction(100_000_000 * multiply, 8 * divide)
    assert vco * 8 / output == wanted
    assert 600_000_000 <= vco <= 1_200_000_000


def test_what_cannot_be_is_refused_by_name() -> None:
    graph, plan = fpga.refined("two_inputs", "io_parallel")
    arty = boards.load("arty_a7_35")
    assert arty.fpga
    assert said(lambda: bitstream.mmcm("b", 100_000_000, 100_000_007)) == (
        "b: no setting of an MMCM makes 100,000,007 Hz of 100,000,000 Hz; "
        "choose another core_clock_hz, such as the oscillator's own"
    )
    stream = dataclasses.replace(plan, hls=Hls(io="io_stream"))
    assert said(lambda: bitstream.numbers(graph, stream, arty)) == (
        "two_inputs: its inputs have positions of 5 and 6 bytes, and one stream has words of one width; use --io parallel"
    )
    assert said(lambda: bitstream.numbers(graph, plan, dataclasses.replace(arty, baud=20_000_000))) == (
        "arty_a7_35: baud 20,000,000 is 5 clocks of 100,000,000 Hz for a bit, 0.0% off; "
        "must be at least 6 clocks, and within 2.5%"
    )
    assert said(lambda: bitstream.files(graph, plan, boards.load("pynq_z2"), NETWORK)) == (
        "pynq_z2: has no UART in its fabric, which this design answers on; choose an Artix board"
    )
    wide, _ = passes.run(_wide(4097), None)
    assert said(lambda: bitstream.numbers(wide, Plan(), arty)) == (
        "wide: a word of its inputs has 32,776 bits, HLS takes 32,768; use --io stream"
    )
    many = GraphBuilder("many")
    for k in range(5):
        many.output(many.lookup(many.input(f"x{k}", (1,), QType(2, False)), QType(2, False), [3, 2, 1, 0], f"y{k}"))
    assert said(lambda: bitstream.numbers(many.graph(), Plan(), arty)) == (
        "many: has 5 inputs, the design takes 4; join inputs in the model"
    )


def _wide(n: int) -> Graph:
    b = GraphBuilder("wide")
    b.output(b.dense(b.input("x", (n,), QType(8, True)), b.const("w", np.ones((1, n), int)), None, "y"))
    return b.graph()


# Tcl: the scripts run whole under tclsh, the tool's commands replaced by procedures that write down their calls.

STUBS = """
set calls [open calls.log w]
proc unknown {args} {global calls; puts $calls $args; flush $calls}
proc exit {{code 0}} {global calls; puts $calls "exit $code"; close $calls; ::tcl_exit $code}
"""
TIMING = """
proc get_timing_paths {option args} {return [dict get {-setup {%s} -hold {%s}} $option]}
proc get_property {name path} {return $path}
"""


def run_tcl(folder: Path, script: str, stubs: str, arguments: list[str]) -> tuple[int, list[str], str]:
    """(exit code, calls, what was said) of a script of the project in `folder`."""
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        pytest.skip("tclsh is missing")
    (folder / "run.tcl").write_text(f"rename exit ::tcl_exit\n{STUBS}{stubs}\nsource {script}\nexit 0\n")
    (folder / "calls.log").unlink(missing_ok=True)
    done = subprocess.run([tclsh, "run.tcl", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.returncode, (folder / "calls.log").read_text().splitlines(), done.stderr


def project(folder: Path, io: str = "io_parallel") -> Path:
    for name, text in made(io).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def core_verilog(folder: Path, text: str) -> None:
    made = folder / "hls" / "ip_prj" / "solution1" / "syn" / "verilog"
    made.mkdir(parents=True, exist_ok=True)
    for name, content in (("bitwright_top.v", text), ("bitwright_top_mul.v", ""), ("weights_rom.dat", "")):
        (made / name).write_text(content)


DIGEST = "0a" * 32
VITIS = "module bitwright_top (bw_in, bw_in_ap_vld, bw_out, bw_out_ap_vld);"
VIVADO = "module bitwright_top (bw_in_V, bw_in_V_ap_vld, bw_out_V, bw_out_V_ap_vld);"


def test_the_bitstream_script_does_all_and_in_order(tmp_path: Path) -> None:
    core_verilog(project(tmp_path), VITIS)
    code, calls, said = run_tcl(tmp_path, "bitstream.tcl", TIMING % ("0.312", "0.05"), [DIGEST])
    assert (code, said) == (0, "")
    names = [call.split()[0] for call in calls]
    assert names == [
        "set_part", *["read_verilog"] * 17, "read_mem", "read_xdc", "synth_design", "report_utilization", "opt_design",
        "place_design", "phys_opt_design", "route_design", "report_utilization", "report_timing_summary", "report_drc",
        "write_bitstream", "exit",
    ]  # fmt: skip
    assert calls[0] == "set_part xc7a35ticsg324-1L"
    read = [call.split()[1] for call in calls if call.startswith("read_verilog")]
    assert read[:15] == sorted(n for n in made() if n.endswith(".v"))
    assert read[15:] == [f"hls/ip_prj/solution1/syn/verilog/bitwright_top{end}.v" for end in ("", "_mul")]
    (synth,) = (call for call in calls if call.startswith("synth_design"))
    assert synth == (
        f"synth_design -top nn_board -part xc7a35ticsg324-1L -include_dirs verilog -generic PROJECT_DIGEST=256'h{DIGEST} "
        "-verilog_define BW_IN=bw_in -verilog_define BW_IN_VLD=bw_in_ap_vld -verilog_define BW_OUT=bw_out "
        "-verilog_define BW_OUT_VLD=bw_out_ap_vld"
    )
    assert calls[-2] == "write_bitstream -force nn_board.bit"
    assert calls[-4:-2] == ["report_timing_summary -file reports/timing.rpt", "report_drc -file reports/drc.rpt"]


def test_vivado_hls_names_its_ports_otherwise(tmp_path: Path) -> None:
    core_verilog(project(tmp_path), VIVADO)
    _, calls, _ = run_tcl(tmp_path, "bitstream.tcl", TIMING % ("1", "1"), [DIGEST])
    assert any("BW_IN=bw_in_V -" in call and call.endswith("BW_OUT_VLD=bw_out_V_ap_vld") for call in calls)
    stream = tmp_path / "stream"
    core_verilog(project(stream, "io_stream"), "bw_in_V_V_TDATA bw_in_V_V_TVALID bw_in_V_V_TREADY bw_out_V_V_TDATA "
                 "bw_out_V_V_TVALID bw_out_V_V_TREADY")  # fmt: skip
    _, calls, _ = run_tcl(stream, "bitstream.tcl", TIMING % ("1", "1"), [DIGEST])
    (synth,) = (call for call in calls if call.startswith("synth_design"))
    assert synth.endswith("-verilog_define BW_OUT_TREADY=bw_out_V_V_TREADY")


@pytest.mark.parametrize(
    ("setup", "hold", "told"),
    [
        ("-0.001", "1", "timing is not met: the worst setup slack is -0.001 ns at 10.000 ns; see reports/timing.rpt"),
        ("2.5", "-0.2", "timing is not met: the worst hold slack is -0.2 ns at 10.000 ns; see reports/timing.rpt"),
        ("", "1", "no setup path is timed: does board.xdc name the clock?"),
    ],
)
def test_no_bitstream_of_a_design_that_misses_its_timing(tmp_path: Path, setup: str, hold: str, told: str) -> None:
    core_verilog(project(tmp_path), VITIS)
    code, calls, said = run_tcl(tmp_path, "bitstream.tcl", TIMING % (setup, hold), [DIGEST])
    assert (code, said) == (1, f"bitstream: {told}\n")
    assert not any(call.startswith("write_bitstream") for call in calls)
    assert any(call.startswith("report_timing_summary") for call in calls)


def test_the_bitstream_script_says_what_is_missing(tmp_path: Path) -> None:
    project(tmp_path)
    for arguments, told in (
        ([], "the project's digest, 64 hex digits, must follow -tclargs"),
        (["xyz"], "the project's digest, 64 hex digits, must follow -tclargs"),
        ([DIGEST], "hls/ip_prj/solution1/syn/verilog/bitwright_top.v is not there: run hls/ip.tcl first"),
    ):
        assert run_tcl(tmp_path, "bitstream.tcl", "", arguments)[::2] == (1, f"bitstream: {told}\n")
    core_verilog(tmp_path, "module bitwright_top (bw_inn, bw_in_ap_vld, bw_out);")
    assert run_tcl(tmp_path, "bitstream.tcl", "", [DIGEST])[::2] == (
        1, "bitstream: the HLS core has no port bw_in: bitwright_top.v is not of this design\n",
    )  # fmt: skip


def test_the_hls_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path)
    code, calls, said = run_tcl(tmp_path / "hls", "ip.tcl", "", [])
    assert (code, said) == (0, "")
    flags = "{-std=c++0x -DAP_INT_MAX_W=1024}"
    assert calls == [
        "open_project -reset ip_prj", "set_top bitwright_top", f"add_files firmware/bitwright_top.cpp -cflags {flags}",
        f"add_files firmware/network.cpp -cflags {flags}", "open_solution -reset solution1", "set_part xc7a35ticsg324-1L",
        "create_clock -period 10.000 -name default", "set_clock_uncertainty 12.5% default",
        "config_array_partition -maximum_size 4096", "config_compile -name_max_length 80", "csynth_design",
        "export_design -format ip_catalog", "exit 0",
    ]  # fmt: skip
    monkeypatch.setenv("BITWRIGHT_PART", "xc7a100tcsg324-1")
    monkeypatch.setenv("BITWRIGHT_CLOCK_NS", "8")
    _, calls, _ = run_tcl(tmp_path / "hls", "ip.tcl", "", [])
    assert "set_part xc7a100tcsg324-1" in calls
    assert "create_clock -period 8 -name default" in calls


# The wrapper, compiled with hls4ml's own ap_types around a network written by hand.

PARALLEL = """
#include "network.h"
void network(in0_t a[5], in1_t c[3], out0_t small[4], out1_t large[3]) {
    for (int i = 0; i < 4; i++) small[i] = a[i + 1].to_int() < c[i % 3].to_int() ? 31 - i : i;
    for (int i = 0; i < 3; i++) large[i] = c[i].to_int() * 100 + a[4 - i].to_int();
}
"""
STREAM = """
#include "network.h"
void network(hls::stream<in0_t> &in, hls::stream<out0_t> &out) {
    int total = 0;
    for (int k = 0; k < 64; k++) { in0_t word = in.read(); total += (k % 2 ? -2 : 1) * word[0].to_int(); }
    out0_t made;
    for (int i = 0; i < 10; i++) made[i] = total - i;
    out.write(made);
}
"""
HEADERS = {
    "io_parallel": "typedef ap_fixed<9,9> in0_t; typedef ap_int<13> in1_t; typedef ap_ufixed<5,5> out0_t; "
    "typedef ap_fixed<27,27> out1_t;\nvoid network(in0_t a[5], in1_t c[3], out0_t small[4], out1_t large[3]);\n",
    "io_stream": "typedef nnet::array<ap_uint<8>, 1> in0_t; typedef nnet::array<ap_fixed<24,24>, 10> out0_t;\n"
    "void network(hls::stream<in0_t> &in, hls::stream<out0_t> &out);\n",
}
DRIVERS = {
    "io_parallel": """
    ap_uint<8 * BW_IN_BYTES> in; ap_uint<8 * BW_OUT_BYTES> out = -1;
    for (int i = 0; i < BW_IN_BYTES; i++) in.range(8 * i + 7, 8 * i) = given[i];
    bitwright_top(in, &out);
    for (int i = 0; i < BW_OUT_BYTES; i++) made[i] = (unsigned)out.range(8 * i + 7, 8 * i);""",
    "io_stream": """
    hls::stream<ap_uint<8 * BW_IN_WORD_BYTES> > in; hls::stream<ap_uint<8 * BW_OUT_WORD_BYTES> > out;
    for (int k = 0; k < BW_IN_BYTES / BW_IN_WORD_BYTES; k++) {
        ap_uint<8 * BW_IN_WORD_BYTES> word;
        for (int i = 0; i < BW_IN_WORD_BYTES; i++) word.range(8 * i + 7, 8 * i) = given[k * BW_IN_WORD_BYTES + i];
        in.write(word);
    }
    bitwright_top(in, out);
    for (int k = 0; k < BW_OUT_BYTES / BW_OUT_WORD_BYTES; k++) {
        ap_uint<8 * BW_OUT_WORD_BYTES> word = out.read();
        for (int i = 0; i < BW_OUT_WORD_BYTES; i++)
            made[k * BW_OUT_WORD_BYTES + i] = (unsigned)word.range(8 * i + 7, 8 * i);
    }
    if (!in.empty() || !out.empty()) return 1;""",
}


def wrapped(folder: Path, io: str, given: bytes) -> bytes:
    """What the wrapper answers to these inputs, one inference after another."""
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or spec.origin is None or not shutil.which("g++"):
        pytest.skip("hls4ml's ap_types or g++ are missing")
    templates = Path(spec.origin).parent / "templates" / "vivado"
    files = {name.rpartition("/")[2]: text for name, text in made(io).items() if name.startswith("hls/firmware/")}
    include = (
        '#include "ap_fixed.h"\n#include "ap_int.h"\n#include "hls_stream.h"\n#include "nnet_utils/nnet_types.h"\n'
    )
    files["network.h"] = f"#ifndef NETWORK_H\n#define NETWORK_H\n#include <cstddef>\n{include}{HEADERS[io]}#endif\n"
    files["network.cpp"] = PARALLEL if io == "io_parallel" else STREAM
    files["main.cpp"] = f"""#include <cstdio>
#include "bitwright_top.h"
int main() {{
    unsigned char given[BW_IN_BYTES], made[BW_OUT_BYTES];
    while (std::fread(given, sizeof given, 1, stdin) == 1) {{{DRIVERS[io]}
        std::fwrite(made, sizeof made, 1, stdout);
    }}
    return 0;
}}
"""
    for name, text in files.items():
        (folder / name).write_text(text)
    argv = ["g++", "-std=c++11", "-O1", "-Wno-unknown-pragmas", "-Wno-attributes", "-I.", f"-I{templates}/ap_types"]
    argv += [f"-I{templates}", "main.cpp", "bitwright_top.cpp", "network.cpp", "-o", "program"]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    done_ = subprocess.run([folder / "program"], input=given, capture_output=True, timeout=60)
    assert done_.returncode == 0
    return done_.stdout


def stored(graph: Graph, samples: dict[str, np.ndarray], k: int) -> bytes:
    parts = [samples[t.name][k].astype(layout.ctype(t.qtype).removesuffix("_t")).tobytes() for t in graph.inputs]
    return b"".join(parts)


def test_the_wrapper_of_whole_tensors(tmp_path: Path) -> None:
    graph, _ = fpga.refined("two_inputs", "io_parallel")
    samples = inputs_for(graph, 200, seed=1)
    out = wrapped(tmp_path, "io_parallel", b"".join(stored(graph, samples, k) for k in range(200)))
    got = np.frombuffer(out, np.dtype([("small", "<i2", 4), ("large", "<i4", 3)]))
    a, c = samples["a"].astype(int), samples["c"].astype(int)
    small = np.stack([np.where(a[:, i + 1] < c[:, i % 3], 31 - i, i) for i in range(4)], 1)
    np.testing.assert_array_equal(got["small"], small)
    np.testing.assert_array_equal(got["large"], np.stack([c[:, i] * 100 + a[:, 4 - i] for i in range(3)], 1))


def test_the_wrapper_of_streams(tmp_path: Path) -> None:
    graph, _ = fpga.refined("convolution", "io_stream")
    samples = inputs_for(graph, 100, seed=1)
    out = wrapped(tmp_path, "io_stream", b"".join(stored(graph, samples, k) for k in range(100)))
    weights = [1 if k % 2 == 0 else -2 for k in range(64)]
    total = samples[graph.inputs[0].name].reshape(100, 64).astype(int) @ weights
    got = np.frombuffer(out, "<i4").reshape(100, 10)
    np.testing.assert_array_equal(got, total[:, None] - np.arange(10))


def test_the_simulation_is_a_project_like_any_other() -> None:
    graph, plan = fpga.refined("two_inputs", "io_parallel")
    model = fpga.model("two_inputs")
    one, two = (bitstream.simulation_project(graph, plan, fpga.board(), model) for _ in range(2))
    assert one.digest() == two.digest()
    assert one.digest() != bitstream.simulation_project(graph, plan, fpga.board(), model, latency=101).digest()
    assert one.board == "verilator_arty_a7_35"
    text = " ".join(argument for command in one.commands for argument in command)
    assert os.sep + "usr" not in text
    assert "256'h{project_digest}" in text


def test_the_simulated_board_is_the_arty_but_for_its_line() -> None:
    def plain(board: Board) -> Board:
        return dataclasses.replace(board, name="", link="", baud=0, source={}, flash_command=())

    assert plain(boards.load("verilator_arty_a7_35")) == plain(boards.load("arty_a7_35"))
