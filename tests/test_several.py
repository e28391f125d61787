"""Several models in one project, and several instances of one: nothing is written but what an instance is given."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import random_graph
from tests.native import STRICT, record
from tests.pages import needs_compiler
from toolchain import boards, cli, flow, inputs, passes, protocol, reference
from toolchain.backends.c import Member, kernel_files
from toolchain.backends.c.names import field_name
from toolchain.backends.c.several import check_members, files_of, named
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.links import open_link
from toolchain.streaming import stream

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"
TURNS = 12
RUN = """
static uint64_t net_memory_1[(NET_MEMORY_BYTES + 8) / 8];
static net_instance net_first, net_second;
"""
INTERLEAVED = """
#include <stdio.h>
#include "net.h"
%s
static net_inputs in;
static net_outputs out;
int main(void) {
    net_init(&net_first, net_memory_1);
    net_init(&net_second, net_memory_1);
    for (int k = 0; fread(&in, sizeof in, 1, stdin) == 1; k++) {
        for (uint32_t i = 0; i < sizeof net_memory_1; i++) ((uint8_t *)net_memory_1)[i] = (uint8_t)(i * 37u + 11u);
        net_run(k %% 2 ? &net_second : &net_first, &in, &out);
        if (fwrite(&out, sizeof out, 1, stdout) != 1) return 1;
    }
    return 0;
}
"""
AT_ONCE = """
#include <pthread.h>
#include <stdio.h>
#include "net.h"
#include "other.h"
%s
#define STEPS 40
static net_inputs in[2][STEPS];
static net_outputs out[2][STEPS];
static other_inputs other_in[STEPS];
static other_outputs other_out[STEPS];
static uint64_t net_memory_2[(NET_MEMORY_BYTES + 8) / 8];
static uint64_t shared[(OTHER_MEMORY_BYTES + 8) / 8];
static other_instance other_self;
static void *one(void *given) {
    const int k = *(const int *)given;
    for (int i = 0; i < STEPS; i++) {
        if (k == 2) other_run(&other_self, &other_in[i], &other_out[i]);
        else net_run(k ? &net_second : &net_first, &in[k][i], &out[k][i]);
    }
    return 0;
}
int main(void) {
    static int k[3] = {0, 1, 2};
    pthread_t threads[3];
    if (fread(in, sizeof in, 1, stdin) != 1 || fread(other_in, sizeof other_in, 1, stdin) != 1) return 1;
    net_init(&net_first, net_memory_1);
    net_init(&net_second, net_memory_2);
    other_init(&other_self, shared);
    for (int i = 0; i < 3; i++) if (pthread_create(&threads[i], 0, one, &k[i])) return 2;
    for (int i = 0; i < 3; i++) if (pthread_join(threads[i], 0)) return 3;
    return fwrite(out, sizeof out, 1, stdout) != 1 || fwrite(other_out, sizeof other_out, 1, stdout) != 1;
}
"""


def stateful(seed: int = 3) -> Graph:
    """A step of a streamed network, and two more states that swap."""
    rng, b = np.random.default_rng(seed), GraphBuilder("net")
    x = b.input("x", (24, 3), QType(8, True))
    w = b.const("w", rng.integers(-90, 90, (4, 3, 3)))
    acc = b.conv1d(x, w, None, "acc", (2,), (1,), ((1, 1),))
    y = b.requantize(acc, QType(8, True), [3], [40], [9], Rounding.HALF_UP, "y")
    flat = b.reshape(y, (y.size,), "flat")
    b.output(b.dense(flat, b.const("h", rng.integers(-90, 90, (3, y.size))), None, "scores"))
    return stream(b.graph()).graph


def swapping() -> Graph:
    b = GraphBuilder("swap")
    x = b.input("x", (5,), QType(8, True))
    one, two = (b.state(n, np.arange(5) + k, QType(8, True)) for n, k in (("one", 1), ("two", 20)))
    y = b.add(b.requantize(b.add(x, one, "s"), QType(8, True), [1], [0], [1], Rounding.FLOOR, "h"), two, "y")
    b.next_state(one, two)
    b.next_state(two, one)
    b.output(y)
    return b.graph()


def member(name: str, graph: Graph) -> Member:
    return Member(name, *passes.run(graph, None))


def compiled(members: list[Member], folder: Path, driver: str, *flags: str) -> Path:
    files, _, kernels, _ = files_of(members, "native")
    texts = {**files, **kernel_files(kernels), "driver.c": driver}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    sources = [f"{m.name}.c" for m in members] + ["model.c", "driver.c"]
    command = ["gcc", *STRICT, *flags, "-I.", *sources, "-o", "program"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "program"


def packed(graph: Graph, values: Mapping[str, np.ndarray]) -> np.ndarray:
    count = len(next(iter(values.values())))
    found = np.zeros(count, record(graph.inputs))
    for t in graph.inputs:
        found[field_name(t.name)] = values[t.name].reshape(count, t.size)
    return found


def sequence(graph: Graph, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of inferences one after another."""
    state, made = None, []
    for k in range(len(next(iter(values.values())))):
        out, state = reference.simulate(graph, {n: v[k : k + 1] for n, v in values.items()}, state)
        made.append(out)
    return {t.name: np.concatenate([out[t.name] for out in made]) for t in graph.outputs}


@pytest.mark.parametrize("make", [stateful, swapping])
def test_interleaved_instances_keep_their_own_states(make: type, tmp_path: Path) -> None:
    """They share a memory, which is filled with rubbish before each call: nothing in it is kept."""
    graph = make()
    program = compiled([member("net", graph)], tmp_path, INTERLEAVED % RUN,
                       "-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")  # fmt: skip
    values = inputs.made_up(graph, 60)
    done = subprocess.run([program], input=packed(graph, values).tobytes(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    got = np.frombuffer(done.stdout, record(graph.outputs))
    for half in (0, 1):
        expected = sequence(graph, {n: v[half::2] for n, v in values.items()})
        for t in graph.outputs:
            assert_array_equal(got[t.name][half::2].reshape(-1, *t.shape), expected[t.name])


def test_instances_and_models_run_at_once(tmp_path: Path) -> None:
    """Three threads under the thread sanitizer: two instances of one model, and another model."""
    graph, other = stateful(), swapping()
    driver = AT_ONCE % RUN
    program = compiled([member("net", graph), member("other", other)], tmp_path, driver, "-O1", "-g", "-fsanitize=thread", "-pthread")  # fmt: skip
    values, others = inputs.made_up(graph, 80), inputs.made_up(other, 40)
    given = packed(graph, values).tobytes() + packed(other, others).tobytes()
    done = subprocess.run([program], input=given, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    kind = record(graph.outputs)
    got = np.frombuffer(done.stdout[: 80 * kind.itemsize], kind)
    for half in (0, 1):
        expected = sequence(graph, {n: v[40 * half : 40 * half + 40] for n, v in values.items()})
        assert_array_equal(got["scores"][40 * half : 40 * half + 40], expected["scores"])
    last = np.frombuffer(done.stdout[80 * kind.itemsize :], record(other.outputs))
    assert_array_equal(last["y"], sequence(other, others)["y"])


def test_random_models_take_turns_in_one_memory(tmp_path: Path) -> None:
    """Of every op and with states: each inference finds there what another model left."""
    graphs = {f"r{k}": random_graph(100 + k, size=8) for k in range(8)}
    members = [member(name, graph) for name, graph in graphs.items()]
    lines = ["#include <stdio.h>", *(f'#include "{name}.h"' for name in graphs)]
    lines.append(
        "typedef union {" + " ".join(f"uint64_t {n}[({n.upper()}_MEMORY_BYTES + 8) / 8];" for n in graphs) + "} all;"
    )
    lines.append("static all memory;")
    lines += [f"static {n}_instance {n}; static {n}_inputs {n}_in; static {n}_outputs {n}_out;" for n in graphs]
    lines.append("int main(void) {")
    lines += [f"    {n}_init(&{n}, &memory);" for n in graphs]
    lines.append(f"    for (int k = 0; k < {TURNS}; k++) {{")
    for n in graphs:
        lines.append(f"        if (fread(&{n}_in, sizeof {n}_in, 1, stdin) != 1) return 1;")
        lines.append(f"        {n}_run(&{n}, &{n}_in, &{n}_out);")
        lines.append(f"        if (fwrite(&{n}_out, sizeof {n}_out, 1, stdout) != 1) return 1;")
    program = compiled(members, tmp_path, "\n".join([*lines, "    }", "    return 0;", "}", ""]),
                       "-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")  # fmt: skip
    assert sum(bool(g.states) for g in graphs.values()) >= 2
    values = {name: inputs.made_up(graph, TURNS) for name, graph in graphs.items()}
    given = {name: packed(graph, values[name]) for name, graph in graphs.items()}
    data = b"".join(given[n][k : k + 1].tobytes() for k in range(TURNS) for n in graphs)
    done = subprocess.run([program], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    expected = {name: sequence(graph, values[name]) for name, graph in graphs.items()}
    at = 0
    for k in range(TURNS):
        for name, graph in graphs.items():
            kind = record(graph.outputs)
            got = np.frombuffer(done.stdout[at : at + kind.itemsize], kind)
            at += kind.itemsize
            for t in graph.outputs:
                assert_array_equal(
                    got[field_name(t.name)].reshape(t.shape), expected[name][t.name][k], err_msg=f"{name} {k}"
                )


def test_a_model_has_no_memory_of_its_own(tmp_path: Path) -> None:
    """Not a byte of .data or .bss in its object, whatever the ops; a model as it is without --instances has some."""
    members = [member("net", stateful()), member("swap", swapping())]
    members += [member(f"r{k}", random_graph(k, max_bits=32)) for k in range(12)]
    files, _, kernels, _ = files_of(members, "native")
    for name, text in {**files, **kernel_files(kernels)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def writable(name: str) -> list[str]:
        subprocess.run(["gcc", *STRICT, "-O1", "-I.", "-c", f"{name}.c", "-o", f"{name}.o"], cwd=tmp_path, check=True)
        said = subprocess.run(["nm", f"{name}.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        rows = [line.split() for line in said.splitlines()]
        outside = [r[-1] for r in rows if r[-2] in "TDBCVW" and not r[-1].startswith(f"{name}_") and name != "model"]
        assert outside == [], "what others see has the model's name in front"
        return [r[-1] for r in rows if r[-2] in "bBdDC"]

    for m in members:
        assert writable(m.name) == []
    assert "memory" in writable("model")


def test_two_models_in_one_firmware() -> None:
    """Of one shape, so that their kernels are the same; over the serial line of an emulated core each equals the reference."""
    needs_compiler("arm", "cortex-m4f")
    graphs = {
        "a": flow.load(ZOO / "motions_cnn_8.onnx"),
        "b": flow.load(ZOO / "motions_cnn_4_bn.onnx"),
        "c": stateful(),
    }
    samples = {name: inputs.made_up(graph, 6) for name, graph in graphs.items()}
    board = boards.load("unicorn_m4")
    alone = {name: flow.measure(graphs[name], board, samples[name], runs=1) for name in ("a", "b")}
    found = flow.measure_several(graphs, board, samples, runs=1)
    assert [m.bit_exact for m in found.values()] == [True] * 3
    assert [m.graph for m in found.values()] == [g.digest() for g in graphs.values()]
    assert found["a"].ram_bytes < alone["a"].ram_bytes + 400  # one memory, one room for inputs
    for name in ("a", "b"):
        here, there = found[name].count, alone[name].count
        assert here and there and abs(here.min / there.min - 1) < 0.02


def test_a_model_with_an_op_that_nobody_reads_is_measured() -> None:
    """The device says the digest of what it computes, which is the graph without that op."""
    b, q = GraphBuilder("dead"), QType.of(8, True, 1)
    x = b.input("x", (4,), q)
    b.lookup(x, q, np.arange(-128, 128)[::-1], "unread")
    b.output(b.lookup(x, q, np.arange(-128, 128)[::-1], "y"))
    graphs = {"dead": b.graph(), "other": swapping()}
    found = flow.measure_several(graphs, "native", {name: inputs.made_up(g, 4) for name, g in graphs.items()}, runs=1)
    assert [m.bit_exact for m in found.values()] == [True] * 2


def test_the_board_answers_for_the_model_that_was_selected(tmp_path: Path) -> None:
    graphs = {"a": stateful(), "b": swapping()}
    image = flow.build(flow.emit_several(graphs, "native"), tmp_path / "both")
    with open_link(image, boards.load("native"), None) as link:
        session = protocol.Session(link)
        assert session.hello(image).graph_digest == graphs["a"].digest()
        for k, name in ((1, "b"), (0, "a"), (1, "b")):
            assert session.select(k) == name
            assert session.hello().graph_digest == graphs[name].digest()
        with pytest.raises(
            protocol.ProtocolError, match=r"the board refused SELECT: no model of this number \(error 8\)"
        ):
            session.select(2)
    alone = flow.build(flow.emit(graphs["a"], "native"), tmp_path / "one")
    refused = r"the board refused SELECT: unknown request \(error 1\)"
    with open_link(alone, boards.load("native"), None) as link, pytest.raises(protocol.ProtocolError, match=refused):
        protocol.Session(link).select(0)


def test_names() -> None:
    assert named('#include "model_debug.h" /* model_dsp.S, %model_x */ MODEL_OPS model_run', "kws") == (
        '#include "kws_debug.h" /* model_dsp.S, %model_x */ KWS_OPS kws_run'
    )
    m = member("net", swapping())
    for name in ("int", "nn", "model", "stdint", "Net", "a-b", "2a"):
        with pytest.raises(ToolchainError) as found:
            check_members([Member(name, m.graph, m.plan)])
        what = "cannot be the name of a model in C: small letters, digits and _, no keyword, none of the firmware's"
        assert str(found.value) == f"model {name}: {what}; give it another as NAME=FILE"
    twin = replace(m, name="net_debug")
    with pytest.raises(ToolchainError, match="model net_debug: is the name of a file of another of the models; give"):
        check_members([m, twin])
    with pytest.raises(ToolchainError, match="model net: names two models; give one of them another as NAME=FILE"):
        check_members([m, m])
    with pytest.raises(ToolchainError, match="models: 17 of them, must be 1 to 16 in one project"):
        check_members([m] * 17)
    with pytest.raises(ToolchainError, match="board csim: holds one model: several in one project are for micro"):
        flow.emit_several({"net": swapping()}, "csim")
    b = GraphBuilder("big")
    b.output(b.requantize(b.input("x", (3900,), QType(8, True)), QType(32, True), [1], [0], [0], Rounding.FLOOR, "y"))
    big = b.graph()
    with pytest.raises(ToolchainError) as found:
        flow.emit_several({"net": stateful(), "other": big}, "microbit")
    assert str(found.value) == (
        "models net, other: need 20,760 bytes of RAM (shared memory 120, inputs 3,900, outputs 15,600, states 116, stack "
        "1,024) but microbit has 16,384"
    )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one.graph", tmp_path / "two=2.graph"
    one.write_text(str(stateful()))
    two.write_text(str(swapping()))
    out = tmp_path / "project"
    assert cli.main(["emit", str(one), f"second={two}", "--board", "native", "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["graphs"] == {"one": stateful().digest(), "second": swapping().digest()}
    assert {"one.c", "one.h", "second.c", "second_debug.h", "model.c"} <= set(said["files"])
    assert cli.main(["measure", str(one), f"second={two}", "--board", "native", "-n", "1"]) == 0
    assert capsys.readouterr().out.count("exact on native") == 2
    assert cli.main(["emit", str(one), "--instances", "--board", "native", "--out", str(out)]) == 0
    assert "one_instance *self" in (out / "one.h").read_text()
    capsys.readouterr()
    assert cli.main(["emit", str(one), str(one), "--board", "native", "--out", str(out)]) == 2
    assert "model one: names two models; give one of them another as NAME=FILE" in capsys.readouterr().err
    assert cli.main(["measure", str(one), f"b={two}", "--board", "native", "--inputs", str(two)]) == 2
    assert "--inputs: goes with one model" in capsys.readouterr().err
