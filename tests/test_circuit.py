"""What is said of a circuit and what is chosen: the command line's words, whole refusals, and the choices that are left open."""

from __future__ import annotations

import json
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import graphs
from tests.test_streams import Maker, two_inputs
from toolchain import boards, flow
from toolchain.circuit import Wishes, choose
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, ops

ROOT = Path(__file__).resolve().parents[1]
NOTHING = {"hls": None, "io": None, "strategy": None, "reuse_factor": None, "target_latency_us": None}


@pytest.fixture(scope="module")
def digits() -> Graph:
    return flow.load(ROOT / "examples" / "digits" / "model.h5")


def said(**words: str) -> Wishes:
    return Wishes.from_text(Namespace(**{**NOTHING, **words}))


def test_words_of_the_command_line() -> None:
    assert said() == Wishes()
    assert not said()
    assert said(strategy="DISTRIBUTED_arithmetic").strategy == "distributed_arithmetic"
    assert said(reuse_factor="8").reuse_factor == {"": 8}
    assert said(reuse_factor="conv1=4, 8").reuse_factor == {"conv1": 4, "": 8}
    assert said(target_latency_us="2.5").target_latency_us == 2.5


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"strategy": "latncy"}, "--strategy: 'latncy' is none of latency, resource, distributed_arithmetic; did you mean 'latency'?"),
        ({"reuse_factor": "0"}, "--reuse-factor: '0', must be a whole number of 1 or more, or NAME=NUMBER; as 8 or dense1=8,conv2=4"),
        ({"reuse_factor": "a=x"}, "--reuse-factor: 'a=x', must be a whole number of 1 or more, or NAME=NUMBER; as 8 or dense1=8,conv2=4"),
        ({"reuse_factor": ""}, "--reuse-factor: '', must be a whole number of 1 or more, or NAME=NUMBER; as 8 or dense1=8,conv2=4"),
        ({"reuse_factor": "9" * 20}, f"--reuse-factor: {'9' * 20}, must be at most 2,147,483,647"),
        ({"reuse_factor": "a=4,a=2"}, "--reuse-factor: names 'a' twice; leave one out"),
        ({"reuse_factor": "1,2"}, "--reuse-factor: names all products twice; leave one out"),
        ({"target_latency_us": "-1"}, "--target-latency-us: '-1', must be a positive number of microseconds"),
        ({"target_latency_us": "soon"}, "--target-latency-us: 'soon', must be a positive number of microseconds"),
        ({"target_latency_us": "nan"}, "--target-latency-us: 'nan', must be a positive number of microseconds"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_read(words: dict[str, str], text: str) -> None:
    with pytest.raises(ToolchainError) as error:
        said(**words)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("board", "wishes", "text"),
    [
        ("basys3", Wishes(tool="quartus"), "--hls: 'quartus' makes nothing for basys3 (xc7a35tcpg236-1); one of "),
        ("basys3", Wishes(io="serial"), "--io: 'serial' is none of parallel, stream"),
        ("basys3", Wishes(reuse_factor={"conv3": 2}), "--reuse-factor: 'conv3' is the output of no dense or convolution; there are conv1, conv2, logits; did you mean 'conv2'?"),
        ("basys3", Wishes(reuse_factor={"": 8}, target_latency_us=20.0), "--reuse-factor: 8 for all products leaves nothing to choose for --target-latency-us; leave one of the two out, or give it by name, as conv2=4"),
        ("basys3", Wishes(strategy="Latency", target_latency_us=20.0), "--strategy: 'latency' for every product shares nothing, and --target-latency-us chooses what is shared; leave one of the two out"),
        ("basys3", Wishes(strategy="distributed_arithmetic", target_latency_us=20.0), "--strategy: 'distributed_arithmetic' for every product shares nothing, "),
        ("native", Wishes(io="stream"), "native: is no FPGA board, and has no circuit to choose (--hls, --io, --strategy, --reuse-factor, --target-latency-us); leave them out"),
    ],
)  # fmt: skip
def test_wishes_that_cannot_be(board: str, wishes: Wishes, text: str, digits: Graph) -> None:
    with pytest.raises(ToolchainError) as error:
        choose(digits, boards.load(board), wishes)
    assert str(error.value).startswith(text)


def test_what_is_left_open(digits: Graph) -> None:
    board = boards.load("arty_a7_100")
    chosen = choose(digits, board, Wishes())
    assert (chosen.tool, chosen.io) == (board.fpga.tool if board.fpga else "", "io_stream")  # it has convolutions
    macs = [op.output.name for op in digits.ops if isinstance(op, ops.Mac)]
    assert set(chosen.reuse_factor) == set(macs)
    slow = choose(digits, board, Wishes(target_latency_us=50.0))
    assert all(slow.reuse_factor[n] >= chosen.reuse_factor[n] for n in macs)
    assert sum(slow.reuse_factor.values()) > sum(chosen.reuse_factor.values())
    kept = choose(digits, board, Wishes(strategy="Latency", io="parallel", tool="vivado"))
    assert (kept.tool, kept.io, dict(kept.strategy), dict(kept.reuse_factor)) == (
        "Vivado",
        "io_parallel",
        {"": "Latency"},
        {},
    )
    shared = choose(digits, board, Wishes(reuse_factor={"": 8}))
    assert (dict(shared.strategy), dict(shared.reuse_factor)) == ({"": "Resource"}, {"": 8})


def test_arrays_where_streams_cannot_be_built() -> None:
    """Inputs of one width go through the streams of the Artix top; of two widths, or one that nobody reads, they do not."""
    arty = boards.load("arty_a7_100")
    assert choose(two_inputs(), arty, Wishes()).stream
    maker = Maker()
    a, b = maker.input(5, 5, 2, name="a"), maker.input(5, 5, 3, name="b")
    both = maker.done(maker.conv(a), maker.conv(b, out=2))
    maker = Maker()
    x, _ = maker.input(5, 5, 2, name="x"), maker.input(3, name="nobody")
    unread = maker.done(maker.conv(x))
    for graph in (both, unread):
        assert not choose(graph, arty, Wishes()).stream
        flow.emit(graph, arty)
        with pytest.raises(ToolchainError, match="use --io parallel"):
            flow.emit(graph, arty, Wishes(io="stream"))
    assert choose(both, boards.load("zcu102"), Wishes()).stream  # which has no top of ours
    assert [f.text for f in flow.estimate(both, arty, Wishes(io="stream"))[1]] == [
        "its inputs have positions of 2 and 3 bytes, and one stream has words of one width; use --io parallel"
    ]


def test_a_tool_that_nothing_is_written_for_is_told_of() -> None:
    with pytest.raises(ToolchainError) as error:
        flow.emit(two_inputs(), "polarfire_kit")
    assert str(error.value) == (
        "board polarfire_kit: no project is made for Libero: hls4ml 1.3.0 leaves the templates of its build script out of its "
        "package; there is no other tool for its part: choose another board"
    )
    with pytest.raises(ToolchainError, match=r"no project is made for oneAPI: .*; use --hls Quartus$"):
        flow.emit(two_inputs(), "arria10_kit", Wishes(tool="oneAPI"))
    assert "error" in {f.severity for f in flow.estimate(two_inputs(), "polarfire_kit")[1]}


def test_a_board_without_a_design_that_answers_is_not_measured() -> None:
    with pytest.raises(ToolchainError) as error:
        flow.measure(two_inputs(), "kv260", graphs.inputs_for(two_inputs(), 4, 1))
    assert str(error.value) == (
        "board kv260: nothing on it would answer: for this board there is a project with reports, and no design with a serial "
        "port; measure with --board csim, or take a board with a top"
    )


def test_what_the_linter_calls_an_error_is_refused(digits: Graph) -> None:
    with pytest.raises(ToolchainError) as error:
        flow.emit(digits, "arty_a7_100", Wishes(reuse_factor={"logits": 7}))
    assert str(error.value) == "dense %logits: reuse_factor is 7, must divide 64, or be 64 times a divisor of 10; choose 4 or 8 (hls4ml would take 8 in silence)"  # fmt: skip


def test_measure_by_the_choices(digits: Graph) -> None:
    """Two circuits of one network are two projects, and both compute it."""
    samples = graphs.inputs_for(digits, 20, 5)
    one = flow.measure(digits, "csim", samples, runs=1, circuit=Wishes(io="stream", reuse_factor={"": 1, "logits": 64}))
    two = flow.measure(digits, "csim", samples, runs=1, circuit=Wishes(tool="Vivado", io="stream", strategy="Latency"))
    assert one.bit_exact
    assert two.bit_exact
    assert one.graph == two.graph
    assert one.project != two.project
    told = json.loads(json.dumps(one.as_json()))
    assert told["circuit"]["io"] == "io_stream"
    assert told["circuit"]["reuse_factor"] == {"": 1, "logits": 64}
    assert told["versions"]["hls4ml"] == version("hls4ml")
