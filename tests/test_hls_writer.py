"""hls4ml is believed nothing: its silent failures as refusals, projects that are the same bytes, and teeth: one weight, one table entry, one expected value."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import graphs, hls
from toolchain import boards, flow, passes, reference, testbench, tools
from toolchain.backends import hls4ml as backend
from toolchain.backends.hls4ml import lowering, writer
from toolchain.backends.hls4ml.tools import TOOLS, tool
from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.links import open_link
from toolchain.measurement import Measurement, measure
from toolchain.passes import Hls
from toolchain.project import Image

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits" / "model.h5"
ONE = Fraction(1)
CLOCK = 100_000_000


def depthwise() -> Graph:
    b = GraphBuilder("depthwise")
    x = b.input("x", (4, 4, 2), QType(4, True, ONE))
    b.output(b.depthwise_conv2d(x, b.const("w", np.ones((2, 2, 2), int), ONE), None, "y"))
    return b.graph()


def dense(weight: object, bias: object = None) -> Graph:
    b = GraphBuilder("dense")
    rows = np.array(weight, dtype=object)
    x = b.input("x", (rows.shape[1],), QType(4, True, ONE))
    given = None if bias is None else b.const("b", np.array(bias, dtype=object), ONE)
    b.output(b.dense(x, b.const("w", rows, ONE), given, "y"))
    return b.graph()


def test_a_layer_without_template_is_refused() -> None:
    """hls4ml leaves it out of the C++ and gives what was in memory."""
    network = lowering.lower(depthwise(), stream=False, depthwise=True)
    with pytest.raises(UnsupportedError) as error:
        writer.write(network, hls.choices("Quartus", "io_parallel"), "Arria10", CLOCK)
    assert str(error.value) == (
        "hls4ml, layer op0_depthwiseconv2d (DepthwiseConv2D): has no template in hls4ml's Quartus and would be left out "
        "of the C++ without a word; use Vitis or Vivado"
    )


def test_a_replaced_reuse_factor_is_refused() -> None:
    network = lowering.lower(dense(np.ones((4, 6), int)), stream=False)
    choice = hls.choices("Vitis", "io_parallel", "Resource", reuse_factor={"y": 5})
    with pytest.raises(UnsupportedError) as error:
        writer.write(network, choice, "xc7a35t", CLOCK)
    assert str(error.value) == (
        "hls4ml, layer op0_dense (%y): has reuse_factor 5, which hls4ml replaces by 6; ask for 6"
    )


def test_a_type_that_hls4ml_changes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = lowering.lower(dense([[1, 2], [3, 4]]), stream=False)
    honest = writer._layer_config
    narrow = {"Precision": {"result": "int<3>"}, "ReuseFactor": 1, "Strategy": "Latency"}
    monkeypatch.setattr(writer, "_layer_config", lambda layer, h: narrow if layer.name == "in0" else honest(layer, h))
    with pytest.raises(
        UnsupportedError, match=r"^hls4ml, layer in0 \(%x\): its result became int<3> in hls4ml, must be int<4>"
    ):
        writer.write(network, hls.choices("Vitis", "io_parallel"), "xc7a35t", CLOCK)


def test_constants_beyond_a_double_are_refused() -> None:
    with pytest.raises(UnsupportedError) as error:
        lowering.lower(dense([[1, 1]], [1 << 53]), stream=False)
    assert str(error.value) == (
        "dense %y: has biases of 2**53 and more, which hls4ml keeps as doubles and would round; quantize the model to fewer bits"
    )
    lowering.lower(dense([[1, 1]], [(1 << 53) - 1]), stream=False)


def test_names_differ_by_more_than_case() -> None:
    b = GraphBuilder("names")
    x = b.input("X", (3,), QType(4, True, ONE))
    y = b.input("x_", (3,), QType(4, True, ONE))
    b.output(b.add(x, y, "Sum"))
    b.output(b.sub(x, y, "sum_"))
    names = [layer.name for layer in lowering.lower(b.graph(), stream=False).layers]
    assert names == ["in0", "in1", "op0_add", "op1_sub"]


@pytest.mark.parametrize("name", [name for name, found in TOOLS.items() if found.refused])
def test_back_ends_that_cannot_be_written_say_why(name: str) -> None:
    with pytest.raises(UnsupportedError) as error:
        tool(name)
    assert str(error.value) == (
        f"hls tool {name}: {TOOLS[name].refused}; use one of Vitis, Vivado, VivadoAccelerator, Quartus, Catapult"
    )


def test_states_and_four_axes_are_refused() -> None:
    b = GraphBuilder("four")
    x = b.input("x", (2, 2, 2, 2), QType(4, True, ONE))
    b.output(b.reshape(x, (16,), "y"))
    with pytest.raises(UnsupportedError) as error:
        lowering.lower(b.graph(), stream=False)
    assert str(error.value) == (
        "input %x: has shape [2, 2, 2, 2], must have one to three axes: hls4ml's kernels know no more; reshape it in the model"
    )
    stateful = next(g for g in map(graphs.random_graph, range(100)) if g.states)
    with pytest.raises(
        UnsupportedError, match="is kept between inferences, which hls4ml's networks do not; use a board whose"
    ):
        lowering.lower(stateful, stream=False)


def digest(tool_name: str, io: str) -> str:
    graph = flow.load(DIGITS)
    board = boards.load(hls.BOARDS.get(tool_name, "csim"))
    project = backend.emit(*passes.run(graph, board, hls.choices(tool_name, io)), board)
    every = {
        name: hashlib.sha256(d if isinstance(d, bytes) else d.encode()).hexdigest() for name, d in project.files.items()
    }
    assert not [n for n, d in project.files.items() if isinstance(d, str) and ("/tmp/" in d or "bitwright-hls" in d)]
    return json.dumps(every, sort_keys=True)


@pytest.mark.parametrize("tool_name", ["Vitis", "Vivado", "Quartus", "Catapult"])
def test_the_same_bytes_in_every_process_and_no_framework(tool_name: str) -> None:
    """Hash seeds differ; neither TensorFlow nor torch nor keras is imported, and keras can be imported afterwards."""
    program = (
        "import sys\nfrom tests.test_hls_writer import digest\n"
        f"print(digest({tool_name!r}, 'io_stream'))\n"
        "loaded = [m for m in ('tensorflow', 'torch', 'keras', 'tf_keras') if m in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    said = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    assert said[0] == said[1]
    assert len(json.loads(said[0])) > 60


def measured(project_folder: Path, graph: Graph, change: tuple[str, str, str]) -> Measurement:
    """The digits network built with one text replaced in one file of the project."""
    board = boards.load("csim")
    refined, plan = passes.run(graph, board, hls.choices("Vitis", "io_parallel"))
    project = backend.emit(refined, plan, board)
    name, before, after = change
    text = str(project.files[name])
    assert text.count(before) >= 1 or not before
    changed = replace(project, files={**project.files, name: text.replace(before, after, 1)})
    image = changed.build(project_folder, tools)
    with open_link(image, board) as link:
        return measure(
            link, image, board, graph, refined, plan, graphs.inputs_for(graph, 40, 1), None, 1, lambda _w, _d: None
        )


@pytest.mark.parametrize("what", ["weight", "table", "clamp"])
def test_one_corrupted_number_is_seen(what: str, tmp_path: Path) -> None:
    b = GraphBuilder("teeth")
    x = b.input("x", (4,), QType(6, True, ONE))
    acc = b.dense(x, b.const("w", [[7, -3, 2, 1], [1, 5, -6, 4]], ONE), None, "acc")
    y = b.requantize(acc, QType(5, True, ONE), [3], [1], [4], Rounding.HALF_EVEN, "y")
    b.output(b.lookup(y, QType(8, True, ONE), np.arange(-16, 16) * 3, "z"))
    graph = b.graph()
    changes = {
        "weight": ("hls/firmware/weights/w2.txt", "7,", "6,"),
        "table": ("hls/firmware/nn_constants.h", "op2_lookup_table[32] = {-48", "op2_lookup_table[32] = {-47"),
        "clamp": ("hls/firmware/parameters.h", "hi = 15LL", "hi = 14LL"),
    }
    assert measured(tmp_path / "right", graph, ("hls/firmware/parameters.h", "", "")).bit_exact
    wrong = measured(tmp_path / "wrong", graph, changes[what])
    assert not wrong.bit_exact
    assert wrong.first_difference is not None


def test_a_network_that_dies_is_one_error(tmp_path: Path) -> None:
    """An assert in the C++ ends the simulation's process, not this one."""
    graph, board = dense([[1, 2], [3, 4]]), boards.load("csim")
    refined, plan = passes.run(graph, board, hls.choices("Vitis", "io_parallel"))
    project = backend.emit(refined, plan, board)
    text = str(project.files["csim/model.cpp"]).replace("void model_run(", "#include <cstdlib>\nvoid model_run(", 1)
    text = text.replace("network(v_", "abort(); network(v_", 1)
    image = replace(project, files={**project.files, "csim/model.cpp": text}).build(tmp_path / "p", tools)
    with open_link(image, board) as link, pytest.raises(ToolchainError, match="csim"):
        measure(link, image, board, graph, refined, plan, graphs.inputs_for(graph, 2, 1), None, 1, lambda _w, _d: None)


def test_an_expected_value_of_the_test_bench_is_compared(tmp_path: Path) -> None:
    graph = flow.load(DIGITS)
    made = testbench.files(graph)
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert testbench.check(tmp_path) == ()  # no log yet
    log = tmp_path / testbench.LOGS[1]
    log.write_text(made[testbench.OUTPUTS])
    assert testbench.check(tmp_path) == (testbench.LOGS[1],)
    values = made[testbench.OUTPUTS].split()
    values[25] = str(int(values[25]) + 1)
    log.write_text(" ".join(values))
    with pytest.raises(ToolchainError) as error:
        testbench.check(tmp_path)
    said = f"{log}: sample 2, value 5 is {values[25]}, the reference says {int(values[25]) - 1}; "
    assert str(error.value) == said + "the circuit computes something else: do not use it"
    log.write_text(" ".join(made[testbench.OUTPUTS].split()[:-1]))
    with pytest.raises(ToolchainError, match="has 159 values, must have 160; run the step again"):
        testbench.check(tmp_path)


def test_the_image_of_a_board_on_a_desk_names_this_build() -> None:
    graph = flow.load(DIGITS)
    project = flow.emit(graph, "arty_a7_100")
    assert project.unbuilt(Path("x")) == Image(
        Path("x") / project.product, graph.digest(), project.digest(), "arty_a7_100", {"flash_bytes": 0, "ram_bytes": 0}
    )
    assert next(step.name for step in project.steps) == "csynth"
    other = flow.emit(graph, "arty_a7_100", None)
    assert other.digest() == project.digest()


def test_depths_of_streams_are_the_plan_s() -> None:
    graph = flow.load(ROOT / "examples" / "zoo" / "digits_res_4.onnx")
    board = boards.load("csim")
    refined, plan = passes.run(graph, board, Hls(tool="Vitis", io="io_stream"))
    text = str(backend.emit(refined, plan, board).files["hls/firmware/network.cpp"])
    assert plan.hls is not None
    depth = plan.hls.fifo_depth
    assert (depth["Quant_2_cpy1"], depth["Quant_2_cpy2"]) == (17, 32)
    assert "STREAM variable=layer29_cpy1 depth=17" in text
    assert "STREAM variable=layer29_cpy2 depth=32" in text


@pytest.mark.parametrize("io", ["io_parallel", "io_stream"])
def test_the_accelerator_s_wrapper_computes_the_network(io: str, tmp_path: Path) -> None:
    """network_axi, which the processor of a Zynq board talks to, run here: floats that hold stored integers, one a word."""
    b = GraphBuilder("wrapped")
    x = b.input("x", (3, 2), QType(6, True, ONE))
    flat = b.reshape(x, (6,), "flat")
    weight = np.random.default_rng(3).integers(-8, 8, (4, 6))
    b.output(b.dense(flat, b.const("w", weight, ONE), None, "y"))
    graph, board = b.graph(), boards.load("pynq_z2")
    refined, plan = passes.run(graph, board, hls.choices("VivadoAccelerator", io))
    root = backend.emit(refined, plan, board).write(tmp_path / "p")
    (root / "main.cpp").write_text(
        '#include "hls/firmware/network_axi.h"\n#include <cstdio>\nint main() {\n'
        "    input_axi_t in[N_IN]; output_axi_t out[N_OUT]; double v;\n"
        '    while (std::scanf("%lf", &v) == 1) {\n        in[0] = input_axi_t(T_in(v), 0);\n'
        '        for (unsigned i = 1; i < N_IN; i++) { std::scanf("%lf", &v); in[i] = input_axi_t(T_in(v), i + 1 == N_IN); }\n'
        "        network_axi(in, out);\n"
        '        for (unsigned i = 0; i < N_OUT; i++) std::printf("%.0f %d\\n", double(out[i].data), out[i].last.to_int());\n'
        "    }\n}\n"
    )
    sources = ["main.cpp", "hls/firmware/network_axi.cpp", "hls/firmware/network.cpp"]
    flags = ["-w", "-Ihls/firmware/ap_types", '-DWEIGHTS_DIR="hls/firmware/weights"', "-o", "wrapped"]
    subprocess.run([tools.require("host-cxx").path or "", *sources, *flags], cwd=root, check=True)
    samples = graphs.inputs_for(graph, 50, 2)
    given = " ".join(map(str, samples["x"].ravel().tolist()))
    said = subprocess.run(
        ["./wrapped"], cwd=root, input=given, capture_output=True, text=True, check=True
    ).stdout.split()
    np.testing.assert_array_equal(np.array(said[::2], int).reshape(50, 4), reference.simulate(graph, samples)[0]["y"])
    assert said[1::2] == ["0", "0", "0", "1"] * 50


def test_a_stream_is_copied_seven_times_at_most() -> None:
    b = GraphBuilder("copies")
    x = b.input("x", (3,), QType(4, True, ONE))
    for k in range(8):
        b.output(b.upsample(b.reshape(x, (3, 1), f"r{k}"), (2,), f"y{k}"))
    with pytest.raises(UnsupportedError) as error:
        writer.write(lowering.lower(b.graph(), stream=True), hls.choices("Vitis", "io_stream"), "xc7a35t", CLOCK)
    assert str(error.value) == "%x: is read 8 times, and hls4ml copies a stream 7 times at most; use --io parallel"


def test_what_hls4ml_raises_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import hls4ml.model.graph

    def refuse(*_: object) -> object:
        raise ValueError("Cannot do\n  this")

    monkeypatch.setattr(hls4ml.model.graph.ModelGraph, "from_layer_list", refuse)
    with pytest.raises(UnsupportedError) as error:
        writer.write(lowering.lower(dense([[1]]), stream=False), hls.choices("Vitis", "io_parallel"), "xc7a35t", CLOCK)
    assert str(error.value) == (
        "hls4ml Vitis: does not take this network: Cannot do this; use another --hls, --io or --strategy, and report it"
    )


def test_a_stream_that_nobody_reads_is_refused() -> None:
    """It would fill up, and the design would wait for ever."""
    b = GraphBuilder("unread")
    x, _ = b.input("x", (4, 2), QType(4, True, ONE)), b.input("spare", (4, 2), QType(4, True, ONE))
    b.output(b.add(x, x, "y"))
    assert lowering.lower(b.graph(), stream=False).inputs == ("in0", "in1")
    with pytest.raises(UnsupportedError) as error:
        lowering.lower(b.graph(), stream=True)
    assert str(error.value) == (
        "input %spare: is read by no op, and a stream that nobody reads fills up and blocks the design; "
        "use --io parallel, or leave it out of the model"
    )


def test_weights_beyond_float32_are_refused_for_distributed_arithmetic() -> None:
    choice = hls.choices("Vitis", "io_parallel", "distributed_arithmetic")
    network = lowering.lower(dense([[1, (1 << 24) + 1]]), stream=False)
    with pytest.raises(UnsupportedError) as error:
        writer.write(network, choice, "xc7a35t", CLOCK)
    what = "has weights beyond 2**24, which da4ml keeps as float32 and would round"
    assert str(error.value) == f"%y: {what}; use strategy Latency or Resource"
    writer.write(network, hls.choices("Vitis", "io_parallel"), "xc7a35t", CLOCK)


@pytest.mark.parametrize(
    ("board_name", "tool_name", "io", "strategy", "bits"),
    [
        ("csim", "Vitis", "io_stream", "", 62),  # more than a double holds
        ("csim", "Vitis", "io_parallel", "distributed_arithmetic", 30),  # fixed point, which prints six digits
        ("pynq_z2", "VivadoAccelerator", "io_parallel", "", 30),  # elements of AXI streams
    ],
)
def test_hls4mls_test_bench_says_integers(
    board_name: str, tool_name: str, io: str, strategy: str, bits: int, tmp_path: Path
) -> None:
    """Compiled and run as the vendor's C simulation would be: every digit of what goes in and out is the reference's."""
    b = GraphBuilder("bench")
    x = b.input("x", (2, 3), QType(bits, True, ONE))
    b.output(b.dense(x, b.const("w", [[1, 0, -1], [0, 1, 0]], ONE), None, "y"))
    graph, board = b.graph(), boards.load(board_name)
    refined, plan = passes.run(graph, board, hls.choices(tool_name, io, strategy))
    project = backend.emit(refined, plan, board)
    root = replace(project, files={**project.files, **testbench.files(refined)}).write(tmp_path / "p")
    sources = sorted(p.name for p in (root / "hls/firmware").glob("network*.cpp"))
    argv = ["-w", "-I.", "-Ifirmware/ap_types", '-DWEIGHTS_DIR="firmware/weights"', "-o", "bench", "network_test.cpp"]
    argv += [f"firmware/{name}" for name in sources]
    subprocess.run([tools.require("host-cxx").path or "", *argv], cwd=root / "hls", check=True)
    subprocess.run(["./bench"], cwd=root / "hls", check=True, stdout=subprocess.DEVNULL)
    assert testbench.check(root) == testbench.LOGS[:1]


def test_logs_are_compared_as_integers(tmp_path: Path) -> None:
    """2**60 and 2**60 + 1 are one float."""
    b = GraphBuilder("wide")
    x = b.input("x", (1,), QType(62, True, ONE))
    b.output(b.add(x, x, "y"))
    for name, text in testbench.files(b.graph()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    values = (tmp_path / testbench.OUTPUTS).read_text().split()
    place = max(range(len(values)), key=lambda k: abs(int(values[k])))
    wrong = [*values[:place], str(int(values[place]) + 1), *values[place + 1 :]]
    for log in testbench.LOGS:
        (tmp_path / log).write_text(" ".join(wrong))
        with pytest.raises(ToolchainError, match=f"sample {place}, value 0 is {wrong[place]}, the reference says"):
            testbench.check(tmp_path)
        (tmp_path / log).write_text(" ".join(values))
    assert testbench.check(tmp_path) == testbench.LOGS


def test_a_network_of_several_outputs_has_no_test_bench_of_intels() -> None:
    """hls4ml writes none, and its Makefile compiles it all the same."""
    b = GraphBuilder("two")
    x = b.input("x", (3,), QType(4, True, ONE))
    b.output(b.add(x, x, "sum"))
    b.output(b.sub(x, x, "difference"))
    with pytest.raises(UnsupportedError) as error:
        flow.emit(b.graph(), "de10_nano")
    assert str(error.value) == (
        "two: has 2 outputs, and hls4ml writes Quartus a test bench for 1, without which it builds nothing; "
        "join the outputs in the model, or take a board of another maker"
    )
