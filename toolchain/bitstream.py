"""An FPGA design around a network: UART, protocol, cycle counter, and the scripts that make its bitstream.

Rule: templates are copied byte for byte; what is generated is design.vh, design.h, design.tcl and bitwright_design.h, only
numbers and names. docs/fpga_top.md says what the design does and what it counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from toolchain import data, layout
from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.passes.plan import Hls
from toolchain.project import Project

if TYPE_CHECKING:
    from toolchain.boards import Board
    from toolchain.ir import Graph, Tensor
    from toolchain.passes.plan import Plan

VERILOG = (
    "nn_board.v", "nn_byte_of.v", "nn_cobs_decode.v", "nn_cobs_encode.v", "nn_crc32.v", "nn_frame_rx.v", "nn_frame_tx.v",
    "nn_memory.v", "nn_protocol.v", "nn_protocol_text.v", "nn_top.v", "nn_uart_rx.v", "nn_uart_tx.v",
)  # fmt: skip
MOST_TENSORS = 4  # of inputs, and of outputs: hls/bitwright_top.cpp has room for so many
MOST_BITS = (
    32_768  # of one ap_uint: AP_INT_MAX_W may be no larger (Vitis HLS user guide UG1399, arbitrary precision types)
)
MOST_BYTES = 1 << 22  # of all inputs or all outputs: addresses in the design have 24 bits
SMALLEST_DIVISOR = 6  # clocks for a bit of the UART: nn_uart_rx.v
TIMEOUT_CLOCKS = (1 << 32) - 1  # 42 s at 100 MHz, below the 120 s that the host waits for a RUN
SIMULATED_TIMEOUT_CLOCKS = 1 << 21  # about a second of simulation


@dataclass(frozen=True)
class Network:
    """What the wrapper must know of the C++ of the network: its top function (also the name of its files) and the types of
    its arguments; in a stream nnet::array types, whose values have these bits."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """The network of a simulation, behind model.h and model_debug.h: files by name in the project, which of them are compiled,
    and how. The defaults are those of the C back end's model.c."""

    files: Mapping[str, str | bytes]
    sources: tuple[str, ...] = ("model.c",)
    includes: tuple[str, ...] = (".",)
    compiler: str = "{compiler:host:host}"
    flags: tuple[str, ...] = ("-std=c99", "-O2")


def files(graph: Graph, plan: Plan, board: Board, network: Network) -> dict[str, str]:
    """Every file around the C++ of the network: name in the project -> text. The C++ itself lies in hls/firmware."""
    if board.fpga is None or board.fpga.top != "artix":
        raise ToolchainError(
            board.name, "has no UART in its fabric, which this design answers on", "choose an Artix board"
        )
    hls = _hls(plan)
    made = {f"verilog/{name}": _template(f"verilog/{name}") for name in _verilog(board, hls)}
    made["verilog/design.vh"] = design_vh(graph, plan, board)
    for name in ("bitwright_top.cpp", "bitwright_top.h"):
        made[f"hls/firmware/{name}"] = _template(f"hls/{name}")
    made["hls/firmware/bitwright_design.h"] = bitwright_design_h(graph, plan, network)
    made["hls/ip.tcl"] = _template("hls/ip.tcl")
    made["bitstream.tcl"] = _template("hls/bitstream.tcl")
    made["design.tcl"] = design_tcl(graph, plan, board, network)
    made["board.xdc"] = (data.folder("boards") / board.fpga.constraints).read_text(encoding="utf-8")
    return dict(sorted(made.items()))


def simulation_project(graph: Graph, plan: Plan, board: Board, model: Model, latency: int = 100) -> Project:
    """The same Verilog top around a stand-in for the HLS core, built by Verilator: a program that takes a terminal.

    What the stand-in computes with is `model`, which IS THE PLACE TO SWAP the C back end's model.c for hls4ml's own C++.
    `latency` is the stand-in's, to prove the counter with, and no figure of the network.
    """
    hls = _hls(plan)
    made: dict[str, str | bytes] = {f"verilog/{name}": _template(f"verilog/{name}") for name in _verilog(board, hls)}
    for name in ("core.c", "core.h", "simulation.cpp"):
        made[f"sim/{name}"] = _template(f"verilog/sim/{name}")
    made["sim/bitwright_top.sv"] = _template(f"verilog/sim/{'stream' if hls.stream else 'parallel'}/bitwright_top.sv")
    made["verilog/design.vh"] = design_vh(graph, plan, board, latency)
    made["sim/design.h"] = design_h(graph, plan, board)
    verilog = sorted(name for name in made if name.endswith((".v", ".sv")))
    made |= model.files
    commands = _simulation_commands(model, verilog)
    return Project(graph.name, dict(sorted(made.items())), commands, "simulation", graph.digest(), board.name)


def _simulation_commands(model: Model, verilog: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The network by its compiler, then Verilator, which links all."""
    includes = tuple(f"-I{folder}" for folder in ("sim", *model.includes))
    commands: list[tuple[str, ...]] = []
    commands.append(("{compiler:host:host}", "-std=c99", "-O2", *includes, "-c", "sim/core.c", "-o", "sim/core.o"))
    objects = ["../sim/core.o"]
    for name in model.sources:
        made = f"sim/{name.rpartition('.')[0].replace('/', '_')}.o"
        commands.append((model.compiler, *model.flags, *includes, "-c", name, "-o", made))
        objects.append(f"../{made}")
    # -Wno-fatal: a newer Verilator may know new warnings; what ours says of the templates is tested
    verilator: tuple[str, ...]
    verilator = ("{tool:verilator}", "--cc", "--exe", "--build", "-j", "1", "-O3", "--x-assign", "fast", "-Wno-fatal")
    verilator += (
        "--Mdir",
        "obj_dir",
        "--top-module",
        "nn_board",
        "-Iverilog",
        "-GPROJECT_DIGEST=256'h{project_digest}",
    )
    verilator += ("-CFLAGS", "-O2 -I../sim", "-o", "../simulation", "sim/simulation.cpp", *objects, *verilog)
    return (*commands, verilator)


def numbers(graph: Graph, plan: Plan, board: Board) -> dict[str, int]:
    """What the Verilog and the simulation's C++ both must know. ToolchainError for what the design cannot carry."""
    _check(graph, plan)
    hls = _hls(plan)
    tensors = (*graph.inputs, *graph.outputs)
    in_bytes, out_bytes = (sum(map(layout.nbytes, side)) for side in (graph.inputs, graph.outputs))
    assert board.fpga is not None
    clock_hz = board.fpga.core_clock_hz
    divisor = max(1, (clock_hz + board.baud // 2) // board.baud)
    error = abs(Fraction(clock_hz, divisor * board.baud) - 1)
    if divisor < SMALLEST_DIVISOR or error > Fraction(25, 1000):  # 2.5 %: as boards.py says of a UART
        what = f"baud {board.baud:,} is {divisor} clocks of {clock_hz:,} Hz for a bit, {float(error):.1%} off"
        raise ToolchainError(board.name, what, f"must be at least {SMALLEST_DIVISOR} clocks, and within 2.5%")
    return {
        "CLOCK_HZ": clock_hz,
        "CLOCKS_PER_BIT": divisor,
        "MAX_PAYLOAD": board.largest_payload,
        "IN_BYTES": in_bytes,
        "OUT_BYTES": out_bytes,
        "IN_WORD_BYTES": word_bytes(graph.inputs[0]) if hls.stream else in_bytes,
        "OUT_WORD_BYTES": word_bytes(graph.outputs[0]) if hls.stream else out_bytes,
        "INPUTS": len(graph.inputs),
        "TENSORS": len(tensors),
    }


def design_vh(graph: Graph, plan: Plan, board: Board, latency: int | None = None) -> str:
    """verilog/design.vh: the numbers of the design; with `latency` those of its simulation."""
    simulated = latency is not None
    found = numbers(graph, plan, board)
    sized = {"CLOCK_HZ": 32, "MAX_PAYLOAD": 16}
    values: dict[str, object] = {k: f"{sized[k]}'d{v}" if k in sized else v for k, v in found.items()}
    sizes = [layout.nbytes(t) for t in (*graph.inputs, *graph.outputs)]
    offsets = [*_offsets(graph.inputs), *_offsets(graph.outputs)]
    values |= {
        "OFFSETS": _vector(offsets),
        "SIZES": _vector(sizes),
        "TIMEOUT_CLOCKS": f"32'd{SIMULATED_TIMEOUT_CLOCKS if simulated else TIMEOUT_CLOCKS}",
        "GRAPH_DIGEST": f"256'h{graph.digest()}",
        "BOARD_BYTES": len(board.name),
        "BOARD_NAME": f'"{board.name}"',
        "CORE": "nn_core_stream" if _hls(plan).stream else "nn_core_parallel",
        "CLOCK": _clock(board, simulated),
    }
    if simulated:
        values["SIM_LATENCY"] = latency
    lines = [f"// Made from graph {graph.name} {graph.digest()[:12]} for board {board.name}. Do not edit."]
    return "\n".join([*lines, *(f"`define NN_{key} {value}" for key, value in values.items()), ""])


def design_h(graph: Graph, plan: Plan, board: Board) -> str:
    """sim/design.h: the same numbers for C."""
    lines = [f"/* Made from graph {graph.name} {graph.digest()[:12]} for board {board.name}. Do not edit. */"]
    lines += ["#ifndef DESIGN_H", "#define DESIGN_H", ""]
    lines += [f"#define DESIGN_{key} {value}" for key, value in numbers(graph, plan, board).items()]
    return "\n".join([*lines, "", "#endif", ""])


def design_tcl(graph: Graph, plan: Plan, board: Board, network: Network) -> str:
    """design.tcl: what ip.tcl and bitstream.tcl must know."""
    assert board.fpga is not None
    hls, found = _hls(plan), numbers(graph, plan, board)
    widest = 8 * max(found["IN_WORD_BYTES"], found["OUT_WORD_BYTES"])
    endings = ("TDATA", "TVALID", "TREADY") if hls.stream else ("", "VLD")
    ports = [
        (f"BW_{side}{'_' if end else ''}{end}", f"bw_{side.lower()}", {"": "", "VLD": "_ap_vld"}.get(end, f"_{end}"))
        for side in ("IN", "OUT")
        for end in endings
    ]
    values = {
        "part": board.part,
        "clock_ns": _decimal(Fraction(1_000_000_000, board.fpga.core_clock_hz)),
        "clock_uncertainty": "12.5%",
        "network": network.name,
        "ap_int_max_w": max(1024, widest),
        "maximum_size": 4096,
        "constraints": "board.xdc",
    }
    lines = [f"# Made from graph {graph.name} {graph.digest()[:12]} for board {board.name}. Do not edit."]
    lines += [f"set design({key}) {{{value}}}" for key, value in values.items()]
    lines.append(f"set design(verilog) {{{' '.join(_verilog(board, hls))}}}")
    lines.append("set design(ports) {")
    lines += [f"    {macro} {name} {{{ending}}}" for macro, name, ending in ports]
    return "\n".join([*lines, "}", ""])


def bitwright_design_h(graph: Graph, plan: Plan, network: Network) -> str:
    """hls/firmware/bitwright_design.h: names, types and sizes of the tensors for bitwright_top.cpp."""
    _check(graph, plan)
    hls = _hls(plan)
    lines = [f"// Made from graph {graph.name} {graph.digest()[:12]}. Do not edit."]
    lines += ["#ifndef BITWRIGHT_DESIGN_H", "#define BITWRIGHT_DESIGN_H", ""]
    lines += ["#define BW_STREAM"] if hls.stream else []
    arguments = {}
    for side, tensors, types in (("IN", graph.inputs, network.inputs), ("OUT", graph.outputs, network.outputs)):
        assert len(tensors) == len(types), f"{len(tensors)} tensors but types {types}"
        total = sum(map(layout.nbytes, tensors))
        lines += [f"#define BW_{side}PUTS {len(tensors)}", f"#define BW_{side}_BYTES {total}"]
        lines += [f"#define BW_{side}_WORD_BYTES {word_bytes(tensors[0])}"] if hls.stream else []
        for k, (tensor, kind, offset) in enumerate(zip(tensors, types, _offsets(tensors), strict=True)):
            words = tensor.size // tensor.channels
            item: dict[str, object] = {
                "T": kind,
                "COUNT": tensor.size,
                "BYTES": layout.SIZES[layout.ctype(tensor.qtype)],
                "SIGNED": str(tensor.qtype.signed).lower(),
                "OFFSET": offset,
                "WORDS": words,
                "DEPTH": words if len(tensors) > 1 else min(words, 2),
            }
            lines += [f"#define BW_{side}{k}_{key} {value}" for key, value in item.items()]
        arguments[side] = ", ".join(f"{side.lower()}{k}" for k in range(len(tensors)))
    lines += [f"#define BW_{side}_ARGUMENTS {names}" for side, names in arguments.items()]
    lines += [f"#define BW_NETWORK {network.name}", "", f'#include "{network.name}.h"']
    return "\n".join([*lines, "", "#endif", ""])


def word_bytes(tensor: Tensor) -> int:
    """The bytes of one position, which is one word of a stream."""
    return tensor.channels * layout.SIZES[layout.ctype(tensor.qtype)]


def refusal(graph: Graph, stream: bool) -> UnsupportedError | None:
    """Why the design cannot carry this network, or None."""
    if graph.states:
        what = "has states, and an HLS design starts every inference anew"
        return UnsupportedError(graph.name, what, "build it for a microcontroller")
    for side, tensors in (("input", graph.inputs), ("output", graph.outputs)):
        total = sum(map(layout.nbytes, tensors))
        if len(tensors) > MOST_TENSORS:
            what = f"has {len(tensors)} {side}s, the design takes {MOST_TENSORS}"
            return UnsupportedError(graph.name, what, f"join {side}s in the model")
        if total > MOST_BYTES:
            what = f"has {total:,} bytes of {side}s, the design takes {MOST_BYTES:,}"
            return UnsupportedError(graph.name, what, "make them smaller")
        widths = sorted({word_bytes(t) for t in tensors})
        if stream and len(widths) > 1:
            listed = " and ".join(map(str, widths))
            what = f"its {side}s have positions of {listed} bytes, and one stream has words of one width"
            return UnsupportedError(graph.name, what, "use --io parallel")
        bits = 8 * (widths[-1] if stream else total)
        if bits > MOST_BITS:
            what = f"a word of its {side}s has {bits:,} bits, HLS takes {MOST_BITS:,}"
            return UnsupportedError(graph.name, what, "make them smaller" if stream else "use --io stream")
    return None


def _check(graph: Graph, plan: Plan) -> None:
    found = refusal(graph, _hls(plan).stream)
    if found:
        raise found


def _offsets(tensors: Sequence[Tensor]) -> list[int]:
    """Where each begins when they follow one another."""
    return [sum(map(layout.nbytes, tensors[:k])) for k in range(len(tensors))]


def _vector(values: Sequence[int]) -> str:
    """A Verilog vector of 32-bit numbers, the first in its lowest bits."""
    return "{" + ", ".join(f"32'd{v}" for v in reversed(values)) + "}"


def _hls(plan: Plan) -> Hls:
    return plan.hls or Hls()


def _template(name: str) -> str:
    return (data.folder("firmware_templates") / name).read_text(encoding="utf-8")


def _verilog(board: Board, hls: Hls) -> tuple[str, ...]:
    """The Verilog files of a design."""
    assert board.fpga is not None
    other = board.fpga.core_clock_hz != board.clock_hz and board.link != "verilator"
    core = "nn_core_stream.v" if hls.stream else "nn_core_parallel.v"
    return tuple(sorted((*VERILOG, core, "nn_clock_mmcm.v" if other else "nn_clock_direct.v")))


def _clock(board: Board, simulated: bool) -> str:
    """The module that makes the clock of the design, with its parameters."""
    assert board.fpga is not None
    if simulated or board.fpga.core_clock_hz == board.clock_hz:
        return "nn_clock_direct"
    multiply, divide, output = mmcm(board.name, board.clock_hz, board.fpga.core_clock_hz)
    period = _decimal(Fraction(1_000_000_000, board.clock_hz))
    numbers = f".MULTIPLY_8({multiply}), .DIVIDE({divide}), .OUTPUT_DIVIDE_8({output})"
    return f"nn_clock_mmcm #(.PERIOD_NS({period}), {numbers})"


def mmcm(where: str, oscillator_hz: int, wanted_hz: int) -> tuple[int, int, int]:
    """(multiplier in eighths, divider, output divider in eighths) of a 7 series MMCM that makes exactly the clock wanted.

    Ranges of the slowest speed grade (DS181 MMCM switching characteristics; UG472 MMCM attributes): VCO 600 .. 1200 MHz,
    phase detector 10 .. 450 MHz, multiplier 2 .. 64 and output divider 1 .. 128 in eighths (1 itself, then from 2),
    divider 1 .. 106. The fastest VCO is taken, which has the least jitter.
    """
    found = []
    for divide in range(1, 107):
        if not 10_000_000 <= Fraction(oscillator_hz, divide) <= 450_000_000:
            continue
        for multiply in range(16, 8 * 64 + 1):
            vco = Fraction(oscillator_hz * multiply, 8 * divide)
            output = vco / wanted_hz * 8
            legal = output == 8 or 16 <= output <= 8 * 128
            if 600_000_000 <= vco <= 1_200_000_000 and output.denominator == 1 and legal:
                found.append((-vco, divide, multiply, int(output)))
    if not found:
        what = f"no setting of an MMCM makes {wanted_hz:,} Hz of {oscillator_hz:,} Hz"
        raise ToolchainError(where, what, "choose another core_clock_hz, such as the oscillator's own")
    _, divide, multiply, eighths = min(found)
    return multiply, divide, eighths


def _decimal(value: Fraction) -> str:
    """In 3 digits after the point, as tools like their nanoseconds; never longer than it is."""
    thousandths = int(value * 1000)
    return f"{thousandths // 1000}.{thousandths % 1000:03}"


def pynq_files(graph: Graph, frac_bits: tuple[int, int] = (0, 0)) -> dict[str, str]:
    """What runs on the processor of a Zynq board beside hls4ml's VivadoAccelerator bitstream: name in the project -> text.

    `frac_bits` are those of the types at the network's two ends: a DMA element is a real value there, stored / 2**frac_bits.
    hls4ml 1.3.0 writes a C++ type for float and double alone (`typedef fixed<16,6,TRN,WRAP,0> T_in` is none), and swaps the
    widths of input and output in project.tcl: both ends must have the one type that dma_type names.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        what = f"has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, the accelerator of hls4ml takes 1 of each"
        raise UnsupportedError(graph.name, what, "build it for an Artix board, or join the tensors")
    if graph.states:
        raise UnsupportedError(graph.name, "has states, and an HLS design starts every inference anew")
    ends = {}
    for what, tensor, frac in zip(("input", "output"), (graph.inputs[0], graph.outputs[0]), frac_bits, strict=True):
        stored = layout.ctype(tensor.qtype).removesuffix("_t")
        ends[what] = {"count": tensor.size, "stored": stored, "dma": dma_type(graph), "frac_bits": frac}
    return {
        "pynq/driver.py": _template("hls/pynq/driver.py"),
        "pynq/network.json": json.dumps({"graph": graph.name, **ends}, indent=1) + "\n",
    }


def dma_type(graph: Graph) -> str:
    """float32 where it holds every stored integer of both ends exactly, else float64; AcceleratorConfig's Precision calls
    them float and double."""
    bits = max(t.qtype.bits for t in (*graph.inputs, *graph.outputs))
    if bits > 53:
        raise UnsupportedError(graph.name, f"has {bits} bits at its ends, the accelerator's double holds 53 exactly")
    return "float32" if bits <= 24 else "float64"
