"""C simulation: the network's own C++ behind model.h, so that the firmware's protocol loop serves it as a process.

One rule: nothing of the network is generated here, only the copies of stored integers into its types and back.
"""

from __future__ import annotations

from toolchain import data
from toolchain.ir import Graph, Tensor
from toolchain.layout import ctype, nbytes

from .tools import HlsTool
from .writer import PROJECT, Port, Written

FIRMWARE = ("main.c", "protocol.c", "protocol.h", "counter.c", "counter.h", "port.h")
INCLUDES = {
    "ap": ("hls/firmware/ap_types",),
    "quartus": ("hls/firmware/ac_types", "hls/firmware/ap_types"),
    "catapult": (
        "hls/firmware/ac_types/include",
        "hls/firmware/ac_math/include",
        "hls/firmware/ac_simutils/include",
        "hls/firmware/nnet_utils",
    ),
}  # as hls4ml's own build_lib.sh
PRODUCT = "csim/model"
SOURCES = ("csim/model.cpp", f"hls/firmware/{PROJECT}.cpp")
WEIGHTS = '-DWEIGHTS_DIR="hls/firmware/weights"'  # relative: the link runs the program in the project's folder


def files(graph: Graph, written: Written, chosen: HlsTool, stream: bool, banner: str) -> dict[str, str]:
    """model.h, model_debug.h and model.cpp around hls4ml's top function, and the firmware around them."""
    templates = data.folder("firmware_templates") / "c"
    found = {f"csim/{name}": (templates / "firmware" / name).read_text(encoding="utf-8") for name in FIRMWARE}
    found["csim/process.c"] = (templates / "ports" / "process.c").read_text(encoding="utf-8")
    found["csim/model.h"] = _header(graph, banner)
    found["csim/model_debug.h"] = _debug_header(banner)
    found["csim/model.cpp"] = _source(graph, written, chosen, stream, banner)
    return found


def command(chosen: HlsTool) -> tuple[str, ...]:
    """One command. The firmware's C is taken as C++, which it is too."""
    c_files = sorted(f"csim/{name}" for name in (*FIRMWARE, "process.c") if name.endswith(".c"))
    includes, compiler, flags = compilation(chosen)
    digest = '-DPROJECT_DIGEST="{project_digest}"'
    return (compiler, *flags, *(f"-I{folder}" for folder in includes), digest, *c_files, *SOURCES, "-o", PRODUCT)


def compilation(chosen: HlsTool) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Include folders, compiler and flags of SOURCES."""
    # -w: hls4ml's headers and the emulated types are not ours to mend
    return ("csim", *INCLUDES[chosen.types]), "{compiler:host-cxx:host}", ("-O1", "-w", WEIGHTS)


def _fields(tensors: tuple[Tensor, ...], prefix: str) -> list[str]:
    return [f"    {ctype(t.qtype)} {prefix}{k}[{t.size}]; /* {t.name} */" for k, t in enumerate(tensors)]


def _header(graph: Graph, banner: str) -> str:
    lines = [banner, "#ifndef MODEL_H", "#define MODEL_H", "#include <stdint.h>", ""]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", "", f'#define MODEL_GRAPH_DIGEST "{graph.digest()}"', ""]
    lines += ["typedef struct {", *_fields(graph.inputs, "in"), "} model_inputs;", ""]
    lines += ["typedef struct {", *_fields(graph.outputs, "out"), "} model_outputs;", ""]
    lines += ["void model_run(const model_inputs *in, model_outputs *out);", "void model_reset_state(void);", ""]
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", "", "#endif", ""])


def _debug_header(banner: str) -> str:
    return f"""{banner}
#ifndef MODEL_DEBUG_H
#define MODEL_DEBUG_H
#include "model.h"

#ifdef __cplusplus
extern "C" {{
#endif

#define MODEL_OPS 1u /* the network is one function */

typedef struct {{
    const void *data;
    uint32_t bytes;
}} model_tensor;

void model_run_until(const model_inputs *in, model_outputs *out, uint32_t stop);
void model_op(uint32_t k, const model_inputs *in, model_outputs *out);
uint32_t model_tensor_get(uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *tensor);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _source(graph: Graph, written: Written, chosen: HlsTool, stream: bool, banner: str) -> str:
    before, call, after = (_streams if stream else _arrays)(graph, written, chosen)
    cases: list[str] = []
    for role, tensors in (("in", graph.inputs), ("out", graph.outputs)):
        for k, tensor in enumerate(tensors):
            cases.append(
                f"    case {len(cases)}: *tensor = {{{role}->{role}{k}, {nbytes(tensor)}u}}; return 1; /* {tensor.name} */"
            )
    body = [f"    {line}" for line in (*before, *call, *after)]
    lines = [banner, "/* Stored integers into the network's types, hls4ml's top function, and back. */"]
    lines += ['#include "model_debug.h"', f'#include "../hls/firmware/{PROJECT}.h"', ""]
    if chosen.types == "catapult":  # its test bench owns the constants
        lines += ["/* read from hls/firmware/weights by the first call */", *(f"{c};" for c in written.constants), ""]
    lines += ["void model_run(const model_inputs *in, model_outputs *out) {", *body, "}", ""]
    lines += ["void model_reset_state(void) {}", ""]
    lines += ["void model_run_until(const model_inputs *in, model_outputs *out, uint32_t stop) {"]
    lines += ["    if (stop > 0) {", "        model_run(in, out);", "    }", "}", ""]
    lines += [
        "void model_op(uint32_t k, const model_inputs *in, model_outputs *out) { model_run_until(in, out, k + 1); }",
        "",
    ]
    lines += [
        "uint32_t model_tensor_get(uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *tensor) {"
    ]
    lines += ["    switch (index) {", *cases, "    default: return 0;", "    }", "}", ""]
    return "\n".join(lines)


Body = tuple[list[str], list[str], list[str]]  # copies in, the call, copies out


def _loop(size: int, statement: str) -> str:
    return f"for (int i = 0; i < {size}; i++) {{ {statement} }}"


def _arrays(graph: Graph, written: Written, chosen: HlsTool) -> Body:
    ins, outs = written.inputs, written.outputs
    if chosen.types == "quartus":  # structs in and out
        before = ["static input_data in_values;", "static output_data out_values;"]
        before += [
            _loop(t.size, f"in_values.{_member(p)}[i] = in->in{k}[i];") for k, (p, t) in _pairs(ins, graph.inputs)
        ]
        after = [
            _loop(t.size, f"out->out{k}[i] = out_values.{_member(p)}[i].to_int64();")
            for k, (p, t) in _pairs(outs, graph.outputs)
        ]
        return before, [f"out_values = {PROJECT}(in_values);"], after
    before = [
        f"static {p.type} v_{p.name}[{t.size}];"
        for _, (p, t) in (*_pairs(ins, graph.inputs), *_pairs(outs, graph.outputs))
    ]
    before += [_loop(t.size, f"v_{p.name}[i] = in->in{k}[i];") for k, (p, t) in _pairs(ins, graph.inputs)]
    after = [_loop(t.size, f"out->out{k}[i] = v_{p.name}[i].to_int64();") for k, (p, t) in _pairs(outs, graph.outputs)]
    return before, [f"{PROJECT}({', '.join(f'v_{p.name}' for p in (*ins, *outs))});"], after


def _member(port: Port) -> str:
    """hls4ml calls an input of the Intel compiler's struct by the struct's name too."""
    return port.name.rpartition(".")[2]


def _streams(graph: Graph, written: Written, chosen: HlsTool) -> Body:
    kinds = {
        "ap": ("hls::stream", "hls::stream"),
        "quartus": ("stream_in", "stream_out"),
        "catapult": ("ac_channel", "ac_channel"),
    }
    into, out_of = kinds[chosen.types]
    ins, outs = written.inputs, written.outputs
    before = [f"static {into}<{p.type}> s_{p.name};" for p in ins] + [
        f"static {out_of}<{p.type}> s_{p.name};" for p in outs
    ]
    for k, (p, t) in _pairs(ins, graph.inputs):
        token = f"{p.type} v; for (int c = 0; c < {t.channels}; c++) {{ v[c] = in->in{k}[i * {t.channels} + c]; }} s_{p.name}.write(v);"
        before.append(_loop(t.size // t.channels, token))
    after = []
    for k, (p, t) in _pairs(outs, graph.outputs):
        copy = f"out->out{k}[i * {t.channels} + c] = v[c].to_int64();"
        after.append(
            _loop(
                t.size // t.channels,
                f"{p.type} v = s_{p.name}.read(); for (int c = 0; c < {t.channels}; c++) {{ {copy} }}",
            )
        )
    return before, [f"{PROJECT}({', '.join(f's_{p.name}' for p in (*ins, *outs))});"], after


def _pairs(ports: tuple[Port, ...], tensors: tuple[Tensor, ...]) -> list[tuple[int, tuple[Port, Tensor]]]:
    return list(enumerate(zip(ports, tensors, strict=True)))
