"""The vendors' steps as data: for each hls4ml back end the command lines its own build() would run, and what they make.

Rule: nothing is written at build time. An option that hls4ml would write into a file when it builds is a file of the
Project (`files`) or a word of a command line (`steps`). Read from hls4ml 1.3.0, backends/*/*_backend.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolchain import data
from toolchain.errors import ToolchainError, nearest
from toolchain.project import Step

if TYPE_CHECKING:
    from toolchain.boards import Board

STAGES = ("csynth", "cosim", "implement", "bitstream")

# of hls4ml's build_prj.tcl, in the order of its own command line: `synth=` must stand before `vsynth=`, which contains it
VIVADO = ("reset", "csim", "synth", "cosim", "validation", "export", "vsynth", "fifo_opt")
CATAPULT = (
    "reset", "csim", "synth", "cosim", "validation", "export", "vsynth", "fifo_opt", "bitfile", "ran_frame", "sw_opt",
    "power", "da", "vhdl", "verilog", "bup",
)  # fmt: skip

# What each run of build_prj.tcl is for. Cosimulation is compared with a C simulation of its own (validation).
RUNS = {
    "csynth": ("reset", "synth"),
    "cosim": ("csim", "cosim", "validation"),
    "export": ("export",),
}

_BUILD_OPT = """# Which parts of build_prj.tcl run; the script of the step says, {scripts}.
array set opt {{
{options}
}}
if {{[info exists bitwright_opt]}} {{
    array set opt $bitwright_opt
}}
"""
_STEP = """# {name}: {parts} of hls4ml's build_prj.tcl
set bitwright_opt {{{options}}}
source [file join [file dirname [file normalize [info script]]] build_prj.tcl]
"""


def stages(hls_tool: str, board: Board) -> tuple[str, ...]:
    """What a build of this board runs unless less is asked for."""
    top = board.fpga.top if board.fpga else ""
    bits = (top == "artix" and hls_tool in ("Vitis", "Vivado")) or (top == "zynq" and hls_tool == "VivadoAccelerator")
    return ("csynth", "cosim", "bitstream" if bits else "implement")


def files(hls_tool: str, folder: str = "hls") -> dict[str, str]:
    """What the steps need beside hls4ml's own files; build_opt.tcl takes the place of hls4ml's."""
    made = {}
    if hls_tool in ("Vitis", "Vivado", "VivadoAccelerator"):
        made["implement.tcl"] = (data.folder("firmware_templates") / "hls" / "implement.tcl").read_text(
            encoding="utf-8"
        )
    if hls_tool == "Vitis":
        none = "\n".join(f"    {option:<10} 0" for option in VIVADO)
        scripts = ", ".join(f"{name}.tcl" for name in RUNS)
        made["build_opt.tcl"] = _BUILD_OPT.format(scripts=scripts, options=none)
        for name, parts in RUNS.items():
            options = " ".join(f"{option} {int(option in parts)}" for option in VIVADO)
            made[f"{name}.tcl"] = _STEP.format(name=name, parts=", ".join(parts), options=options)
    return {_join(folder, name): text for name, text in made.items()}


def steps(
    hls_tool: str, project_name: str, board: Board, folder: str = "hls", wanted: Sequence[str] | None = None
) -> tuple[Step, ...]:
    """The steps of a project of hls4ml back end `hls_tool` whose top function is `project_name`, in order."""
    makers = {
        "Vitis": _amd,
        "Vivado": _amd,
        "VivadoAccelerator": _amd,
        "Quartus": _intel_hls,
        "oneAPI": _oneapi,
        "Catapult": _catapult,
        "Libero": _libero,
    }
    if hls_tool not in makers:
        hint = nearest(hls_tool, makers) or f"known: {', '.join(makers)}"
        raise ToolchainError(f"hls tool {hls_tool!r}", "has no steps", hint)
    chosen = stages(hls_tool, board) if wanted is None else tuple(wanted)
    for stage in chosen:
        if stage not in STAGES:
            raise ToolchainError(f"stage {stage!r}", f"is none of {', '.join(STAGES)}", nearest(stage, STAGES))
    if "bitstream" in chosen and "bitstream" not in stages(hls_tool, board):
        what = f"no bitstream is made for {board.name} with {hls_tool}"
        raise ToolchainError("stage 'bitstream'", what, f"ask for {', '.join(stages(hls_tool, board))}")
    return makers[hls_tool](hls_tool, project_name, board, folder, chosen)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _amd(hls_tool: str, name: str, board: Board, folder: str, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    top = f"{name}_axi" if hls_tool == "VivadoAccelerator" else name
    solution = _join(folder, f"{name}_prj", "solution1")
    tool = "vitis-run" if hls_tool == "Vitis" else "vivado_hls"

    def run(step: str, makes: str, kind: str = "") -> Step:
        if hls_tool == "Vitis":
            arguments: tuple[str, ...] = ("--tcl", f"{step}.tcl", "--mode", "hls")
        else:
            options = " ".join(f"{option}={option in RUNS[step]}" for option in VIVADO)
            arguments = ("-f", "build_prj.tcl", options)
        return Step(step, tool, arguments, folder, (makes,), {kind: makes} if kind else {})

    found = []
    accelerator = "bitstream" in wanted and hls_tool == "VivadoAccelerator"
    if {"csynth", "cosim", "implement"} & set(wanted) or accelerator:
        found.append(run("csynth", f"{solution}/syn/report/{top}_csynth.xml", "csynth"))
    if "cosim" in wanted:
        found.append(run("cosim", f"{solution}/sim/report/{top}_cosim.rpt", "cosim"))
    if "implement" in wanted:
        used, late = _join(folder, "reports/utilization.rpt"), _join(folder, "reports/timing.rpt")
        arguments = ("-mode", "batch", "-source", "implement.tcl")
        found.append(
            Step("implement", "vivado", arguments, folder, (used, late), {"utilization": used, "timing": late})
        )
    if accelerator:
        found.append(run("export", f"{solution}/impl/ip/component.xml"))
        runs = _join(folder, f"{name}_vivado_accelerator/project_1.runs/impl_1")
        made = (
            f"{runs}/design_1_wrapper.bit",
            _join(folder, "util.rpt"),
            f"{runs}/design_1_wrapper_timing_summary_routed.rpt",
        )
        arguments = ("-mode", "batch", "-source", "design.tcl")
        found.append(Step("bitstream", "vivado", arguments, folder, made, {"utilization": made[1], "timing": made[2]}))
    elif "bitstream" in wanted:
        found += _artix(tool, folder)
    return tuple(found)


def _artix(tool: str, folder: str) -> tuple[Step, Step]:
    """toolchain/bitstream.py's design: the wrapped network as an HLS core, then our Verilog around it."""
    solution = _join(folder, "ip_prj/solution1/syn")
    made = (f"{solution}/report/bitwright_top_csynth.xml", f"{solution}/verilog/bitwright_top.v")
    script = ("--mode", "hls", "--tcl", "ip.tcl") if tool == "vitis-run" else ("-f", "ip.tcl")
    core = Step("ip", tool, script, folder, made, {"csynth": made[0]})
    arguments = ("-mode", "batch", "-source", "bitstream.tcl", "-tclargs", "{project_digest}")
    reports = {"utilization": "reports/utilization.rpt", "timing": "reports/timing.rpt"}
    return core, Step("bitstream", "vivado", arguments, "", ("nn_board.bit", *reports.values()), reports)


def _intel_hls(hls_tool: str, name: str, board: Board, folder: str, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    """One compilation does it all: with --quartus-compile the fitter too. The program it makes simulates the RTL."""
    made = _join(folder, f"{name}-fpga.prj")
    lib = f"{made}/reports/lib"
    fit = "implement" in wanted
    arguments = (f"{name}-fpga", "LOGGING_1=-v", *(["QUARTUS_COMPILE=--quartus-compile"] if fit else []))
    reports = {"intel_hls": f"{lib}/report_data.js"} | ({"intel_hls_fit": f"{lib}/quartus_data.js"} if fit else {})
    needs = ("i++", *(["quartus_sh"] if fit else []))
    found = [Step("csynth", "make", arguments, folder, (made, _join(folder, f"{name}-fpga")), reports, needs)]
    if "cosim" in wanted:
        reports = {"intel_hls_cosim": f"{lib}/verification_data.js"}
        found.append(Step("cosim", f"./{name}-fpga", (), folder, (), reports, ("i++",)))
    return tuple(found)


def _oneapi(hls_tool: str, name: str, board: Board, folder: str, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    build = _join(folder, "build")
    found = [Step("configure", "cmake", ("..",), build, (f"{build}/Makefile",), {}, ("icpx",))]

    def make(step: str, target: str, reports: dict[str, str]) -> Step:
        folder_of = f"{build}/{name}.{target}.prj"
        read = {kind: f"{folder_of}/reports/resources/json/{file}.ndjson" for kind, file in reports.items()}
        return Step(step, "make", (target,), build, (folder_of,), read, ("icpx",))

    if "csynth" in wanted or "implement" in wanted:
        found.append(make("csynth", "report", {"oneapi": "summary", "oneapi_loops": "loop_attr"}))
    if "cosim" in wanted:
        simulator = f"{build}/{name}.fpga_sim"
        found.append(Step("simulator", "make", ("fpga_sim",), build, (simulator,), {}, ("icpx",)))
        found.append(Step("cosim", f"./{name}.fpga_sim", (), build, (), {}, ("icpx",)))
    if "implement" in wanted:
        fitted = make("implement", "fpga", {"quartus": "quartus"})
        found.append(
            Step(
                fitted.name, fitted.tool, fitted.arguments, build, fitted.makes, fitted.reports, ("icpx", "quartus_sh")
            )
        )
    return tuple(found)


def _catapult(hls_tool: str, name: str, board: Board, folder: str, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    """build_prj.tcl makes its project anew each time, so that all it does is one step."""
    fit = "implement" in wanted
    chosen = (
        {"synth", "verilog"}
        | ({"cosim", "validation"} if "cosim" in wanted else set())
        | ({"vsynth"} if fit else set())
    )
    options = " ".join(f"{option}={5 if option == 'ran_frame' else option in chosen}" for option in CATAPULT)
    arguments = ("-product", "ultra", "-shell", "-f", "build_prj.tcl", "-eval", f'set ::argv "{options}"')
    made = _join(folder, f"{name}_prj")
    vivado = f"{made}/{name}.v1/vivado_concat_v"
    reports = (
        {"utilization": f"{vivado}/utilization_synth.rpt", "timing": f"{vivado}/timing_summary_synth.rpt"}
        if fit
        else {}
    )
    return (Step("csynth", "catapult", arguments, folder, (made,), reports, ("vivado",) if fit else ()),)


def _libero(hls_tool: str, name: str, board: Board, folder: str, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    """`shls -s` leaves out the steps before it. Its one summary grows a section with each."""
    made = _join(folder, "hls_output")
    summary = f"{made}/reports/summary.results.rpt"

    def shls(step: str, what: str, makes: tuple[str, ...] = (), reports: dict[str, str] | None = None) -> Step:
        return Step(step, "shls", ("-s", what), folder, makes, reports or {})

    found = [shls("compile", "sw_compile", (made,)), shls("csynth", "hw")]
    if "cosim" in wanted:
        found.append(shls("cosim", "cosim", (summary,), {"libero": summary}))
    if "implement" in wanted:
        found.append(shls("implement", "fpga", (summary,), {"libero": summary}))
    return tuple(found)
