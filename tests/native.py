"""Run a graph's generated C on this machine: the other side of every differential test.

`run_native(graph, inputs)` takes and gives what `reference.simulate` does. The program reads whole model_inputs structs
and writes whole model_outputs structs; numpy's aligned records are laid out as C lays out structs.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolchain import passes
from toolchain.backends.c import model_files
from toolchain.backends.c.names import field_name
from toolchain.ir import Graph, Tensor
from toolchain.layout import ctype, tensors
from toolchain.passes import Plan
from toolchain.passes.arena import ALIGN

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion")
SANITIZE = ("-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
DRIVER = """
#include <stdio.h>
#include "model.h"
static model_inputs in;
static model_outputs out;
int main(void) {
    int reset = getchar();
    while (fread(&in, sizeof in, 1, stdin) == 1) {
        if (reset == '1') model_reset_state();
        model_run(&in, &out);
        if (fwrite(&out, sizeof out, 1, stdout) != 1) return 1;
    }
    return 0;
}
"""
TENSOR_DRIVER = """
#include <stdio.h>
#include "model_debug.h"
static model_inputs in;
static model_outputs out;
int main(void) {
    uint32_t stops[] = {%s};
    model_tensor t;
    while (fread(&in, sizeof in, 1, stdin) == 1) {
        for (uint32_t k = 0; k < sizeof stops / sizeof *stops; k++) {
            model_reset_state();
            model_run_until(&in, &out, stops[k]);
            if (!model_tensor_get(k, &in, &out, &t) || fwrite(t.data, t.bytes, 1, stdout) != 1) return 1;
        }
        if (model_tensor_get(sizeof stops / sizeof *stops, &in, &out, &t)) return 1;
    }
    return 0;
}
"""


def record(tensors: Sequence[Tensor]) -> np.dtype:
    """model_inputs or model_outputs as a numpy record."""
    return np.dtype([(field_name(t.name), ctype(t.qtype).removesuffix("_t"), (t.size,)) for t in tensors], align=True)


def compile_native(
    files: Mapping[str, str],
    folder: Path,
    flags: Sequence[str] = ("-O1",),
    compiler: Sequence[str] = ("gcc",),
    driver: str = DRIVER,
) -> Path:
    """Compile generated files and the driver in `folder`; the program. Fails with what the compiler said."""
    for name, text in {**files, "driver.c": driver}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    sources = [n for n in (*files, "driver.c") if n.endswith(".c")]
    command = [*compiler, *STRICT, *flags, "-I.", *sources, "-o", "program"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
    return folder / "program"


def run_program(
    program: Path, graph: Graph, inputs: Mapping[str, np.ndarray], keep_state: bool = False
) -> dict[str, np.ndarray]:
    """Feed every sample of the batch; each an inference of its own, or one after another in time with `keep_state`."""
    batch = len(next(iter(inputs.values())))
    answer = _run(program, (b"0" if keep_state else b"1") + pack(graph, inputs))
    answered = np.frombuffer(answer, record(graph.outputs))
    assert len(answered) == batch
    return {t.name: answered[field_name(t.name)].reshape(batch, *t.shape).astype(np.int64) for t in graph.outputs}


def pack(graph: Graph, inputs: Mapping[str, np.ndarray]) -> bytes:
    """The batch as model_inputs structs."""
    batch = len(next(iter(inputs.values())))
    given = np.zeros(batch, record(graph.inputs))
    for t in graph.inputs:
        given[field_name(t.name)] = np.asarray(inputs[t.name]).reshape(batch, t.size)
    return given.tobytes()


def _run(program: Path, data: bytes) -> bytes:
    done = subprocess.run([program], input=data, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return done.stdout


def run_tensors(graph: Graph, plan: Plan, inputs: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Every slot of `layout.tensors` by index, each read right after the op that makes it, as the protocol would."""
    slots = tensors(graph, plan)
    files, _ = model_files(graph, plan, "native")
    batch = len(next(iter(inputs.values())))
    with tempfile.TemporaryDirectory(prefix="bitwright-native-") as scratch:
        driver = TENSOR_DRIVER % ", ".join(str(slot.available_after_op + 1) for slot in slots)
        program = compile_native(files, Path(scratch), SANITIZE, driver=driver)
        answer = _run(program, pack(graph, inputs))
    kind = np.dtype([(str(s.index), s.ctype.removesuffix("_t"), (s.count,)) for s in slots])
    assert len(answer) == batch * kind.itemsize
    found = np.frombuffer(answer, kind)
    return {s.index: found[str(s.index)].astype(np.int64) for s in slots}


def apart(plan: Plan) -> Plan:
    """What kernels need while they run, behind the tensors, each ending with the arena: a sanitizer sees what is written beyond it."""
    most = max((-(-size // ALIGN) * ALIGN for size in plan.scratch.values()), default=0)
    end = -(-plan.arena_bytes // ALIGN) * ALIGN + most
    at = {name: (end - size) // ALIGN * ALIGN for name, size in plan.scratch.items()}
    return replace(plan, arena_bytes=end, scratch_at=at) if plan.scratch else plan


def run_native(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    *,
    keep_state: bool = False,
    sanitize: bool = False,
    plan: Plan | None = None,
) -> dict[str, np.ndarray]:
    """Outputs of the generated C by name, int64. With a plan of your own the graph is taken as it is, without passes."""
    if plan is None:
        graph, plan = passes.run(graph, None)
    plan = apart(plan) if sanitize else plan
    files, _ = model_files(graph, plan, "native")
    with tempfile.TemporaryDirectory(prefix="bitwright-native-") as scratch:
        program = compile_native(files, Path(scratch), SANITIZE if sanitize else ("-O1",))
        return run_program(program, graph, inputs, keep_state)
