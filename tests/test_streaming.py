"""`bitwright stream`: at every step the integers of the full model on the present window, on the host, in C and on a core."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.graphs import Seeded, _Maker
from tests.native import run_native
from tests.pages import needs_compiler
from toolchain import boards, cli, flow, reference
from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.ir import Graph, QType, Tensor, ops, parse
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.ir.types import Const
from toolchain.streaming import Stream, step, stream
from toolchain.streaming.proof import compare, steps

S8 = QType(8, True)
ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def conv(b: GraphBuilder, x: Tensor, out: int, kernel: int, name: str, stride: int = 1, dilation: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:  # fmt: skip
    w = b.const(f"{name}_w", rng().integers(-90, 90, (out, kernel, x.shape[-1])))
    acc = b.conv1d(x, w, None, f"{name}_acc", (stride,), (dilation,), (pad,))
    return b.requantize(acc, S8, [3], [40], [9], Rounding.HALF_UP, name)


def head(b: GraphBuilder, x: Tensor, out: int = 3) -> None:
    flat = b.reshape(x, (x.size,), "flat")
    b.output(b.dense(flat, b.const("head_w", rng().integers(-90, 90, (out, x.size))), None, "scores"))


def begun(frames: int = 40, channels: int = 3, zero: int = 0) -> tuple[GraphBuilder, Tensor]:
    b = GraphBuilder("net")
    return b, b.input("x", (frames, channels), replace(S8, zero_point=zero))


def macs_of(made: Stream, name: str) -> int:
    return sum(op.output.size for op in made.graph.ops if isinstance(op, ops.Mac) and op.output.name.startswith(name))


def test_valid_padding_computes_each_position_once() -> None:
    b, x = begun()
    y = conv(b, conv(b, x, 4, 5, "one"), 5, 3, "two", dilation=2)
    head(b, y)
    made = stream(b.graph())
    assert (made.frames, made.graph.inputs[0].shape) == (1, (1, 3))
    assert macs_of(made, "one") == 4 and macs_of(made, "two") == 5
    assert made.anew == ("reshape %flat, and all after it: mixes all frames of the window",)
    assert compare(made) == 80


def test_a_step_has_as_many_frames_as_the_strides_need() -> None:
    b, x = begun(41)
    y = conv(b, conv(b, x, 4, 3, "one", stride=2), 5, 4, "two", stride=3)
    head(b, b.max_pool(y, (2,), (1,), ((0, 0),), "top"))
    made = stream(b.graph())
    assert made.frames == 6
    assert macs_of(made, "one") == 3 * 4 and macs_of(made, "two") == 5
    compare(made)


def test_causal_padding_is_exact_where_the_window_reaches_further() -> None:
    """The last position does not see the padding: then nothing is computed twice. With a longer reach padding is, and is exact too."""
    for frames, edges in ((40, False), (12, True)):
        b, x = begun(frames, zero=7)
        y = x
        for k in range(3):
            y = conv(b, y, 4, 3, f"c{k}", dilation=2**k, pad=(2 * 2**k, 0))
        last = b.slice(y, (frames - 1, 0), (1, 4), None, "last")
        head(b, last)
        made = stream(b.graph())
        assert compare(made) == 2 * frames
        assert [line for line in made.anew if "padding reaches" in line] == [] or edges
        assert bool(edges) == (macs_of(made, "c0") > 4)


def test_same_padding_computes_its_edges_anew() -> None:
    b, x = begun(30)
    y = conv(b, conv(b, x, 4, 3, "one", pad=(1, 1)), 4, 5, "two", pad=(2, 2))
    head(b, y)
    made = stream(b.graph())
    assert made.anew[:2] == (
        "conv1d %one_acc: 2 of its 30 positions, which padding reaches",
        "conv1d %two_acc: 6 of its 30 positions, which padding reaches",
    )
    assert macs_of(made, "one") == 3 * 4 and macs_of(made, "two") == 7 * 4
    compare(made)


def test_an_output_along_time_gives_its_new_positions() -> None:
    b, x = begun(24)
    y = conv(b, conv(b, x, 4, 3, "one", stride=2, pad=(1, 1)), 2, 3, "two", pad=(2, 0))
    b.output(y)
    b.output(b.argmax(y, "best"))
    made = stream(b.graph())
    assert [t.shape for t in made.graph.outputs] == [(1, 2), (1, 1)]
    assert made.given == {"two": (0, (11, 12)), "best": (0, (11, 12))}
    compare(made)
    made = stream(b.graph(), frames=6)
    assert [t.shape for t in made.graph.outputs] == [(3, 2), (3, 1)]
    compare(made)


def test_branches_that_are_cut_added_and_joined() -> None:
    b, x = begun(33)
    y = conv(b, x, 3, 5, "one")
    cut = b.slice(x, (4, 0), (29, 3), None, "cut")
    both = b.concat([b.add(cut, y, "sum"), y], 1, "both")
    z = b.requantize(both, S8, [1], [0], [1], Rounding.FLOOR, "z")
    head(b, b.sum_pool(conv(b, z, 4, 3, "two"), (27,), (27,), ((0, 0),), "mean"))
    made = stream(b.graph())
    assert made.frames == 1 and macs_of(made, "one") == 3 and macs_of(made, "two") == 4
    compare(made)


@pytest.mark.parametrize("shape", [(1, 36, 2), (36, 1, 2), (36, 2, 1)])
def test_time_in_two_dimensions(shape: tuple[int, ...]) -> None:
    b = GraphBuilder("net")
    x = b.input("x", shape, S8)
    kernel = [3 if n == 36 else 1 for n in shape[:2]]
    w = b.const("w", rng().integers(-90, 90, (4, *kernel, shape[-1])))
    y = b.requantize(b.conv2d(x, w, None, "acc"), S8, [3], [0], [8], Rounding.FLOOR, "y")
    d = b.depthwise_conv2d(y, b.const("d", rng().integers(-90, 90, (*kernel, 4))), None, "dw")
    head(b, b.max_pool(d, (1, 1), (1, 1), ((0, 0), (0, 0)), "top"))
    made = stream(b.graph())
    assert (made.axis, made.frames) == (shape.index(36), 1)
    compare(made)


def test_a_flat_row_of_frames_is_told_apart() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (60,), S8)
    head(b, conv(b, b.reshape(x, (20, 3), "rows"), 4, 3, "one"))
    made = stream(b.graph())
    assert made.frames == 3 and macs_of(made, "one") == 4
    compare(made)


def random_net(seed: int) -> Graph | None:
    m = _Maker(Seeded(seed), 6, 32)
    m.wide = False
    n = m.integer(6, 40)
    shapes = [(n, m.integer(1, 3)), (n, m.integer(1, 3)), (n,), (1, n, 2), (n, m.integer(1, 4), m.integer(1, 2))]
    m.live.append(m.b.input("x", m.choice(shapes), m.qtype(2, 8)))
    for _ in range(m.integer(2, 8)):
        m.step()
    for t in m.live[1:]:
        if t.name not in m.read:
            m.b.output(t)
    return m.b.graph() if m.b.outputs else None


def test_random_networks() -> None:
    """Any network, saved work or none: most keep something, and all are equal from the first step on."""
    kept = compared = refused = 0
    for seed in range(120):
        graph = random_net(seed)
        for frames in (None, 1, 3) if graph else ():
            assert graph is not None
            try:
                made = step(graph, frames)
            except UnsupportedError:  # scales for each channel, as test_refusals has it
                refused += 1
                continue
            compare(made, 10, seed)
            compared += 1
            kept += made.macs[1] < made.macs[0]
    assert compared > 300 and kept > 100 and refused < 10


def test_generated_code_goes_on_from_step_to_step() -> None:
    b, x = begun(18)
    y = conv(b, conv(b, x, 4, 3, "one", stride=2, pad=(1, 1)), 5, 3, "two")
    head(b, y)
    made = stream(b.graph())
    frames = rng().integers(-128, 128, (18 + 40, 3))
    windows = np.stack([frames[k : k + 18] for k in range(0, 41, 2)])
    expected, _ = reference.simulate(made.full, {"x": windows})
    got = run_native(made.graph, {"x": frames.reshape(-1, 2, 3)}, keep_state=True, sanitize=True)
    assert_array_equal(got["scores"][8:], expected["scores"])


def test_measured_on_an_emulated_core() -> None:
    needs_compiler("arm", "cortex-m4f")
    made = stream(flow.load(ZOO / "motions_cnn_8.onnx"), frames=4)
    found = flow.measure(made.graph, boards.load("unicorn_m4"), {made.input: _frames(made, 12)}, runs=1)
    assert found.bit_exact


def _frames(made: Stream, count: int) -> np.ndarray:
    (x,) = made.graph.inputs
    return rng().integers(x.qtype.min, x.qtype.max, (count, *x.shape), endpoint=True)


def test_a_wrong_step_is_found_out() -> None:
    b, x = begun(12)
    head(b, conv(b, x, 4, 3, "one"))
    made = stream(b.graph())
    (first, *rest) = made.graph.states
    t = first.initial.tensor
    other = replace(first, initial=Const.of(t.name, first.initial.array + 1, t.qtype))
    with pytest.raises(ToolchainError, match="output scores of step 1 differs from the full model's"):
        compare(replace(made, graph=replace(made.graph, states=(other, *rest))))
    assert steps(made) == 24


def test_refusals() -> None:
    b, x = begun(12)
    head(b, x)
    with pytest.raises(UnsupportedError) as caught:
        stream(b.graph())
    assert str(caught.value) == (
        "reshape %flat: mixes all frames of the window, so no work on one window of 12 frames saves any on the next; "
        "stream a model with convolutions along time before it; --axis says which axis is time"
    )
    b, x = begun(12)
    head(b, conv(b, x, 4, 12, "one"))
    with pytest.raises(UnsupportedError, match="conv1d %one_acc: gives one position for the window, so no work"):
        stream(b.graph())
    b, x = begun(12)
    w = b.const("w", rng().integers(-9, 9, (2, 3, 3)), [1, 2])
    b.output(b.max_pool(b.conv1d(x, w, None, "acc"), (3,), (1,), ((0, 0),), "top"))
    with pytest.raises(UnsupportedError) as caught:
        stream(b.graph())
    what = (
        "%acc: has 2 scales, one for each channel, and is kept from one window to the next; requantize it to one scale"
    )
    assert str(caught.value) == what
    b, x = begun(12)
    head(b, conv(b, x, 4, 3, "one"))
    graph = b.graph()
    for given, text in (
        ({"frames": 12}, "--frames 12: must be 1 to 11: a window has 12 frames"),
        ({"axis": 2}, "--axis 2: is no axis of time of input x [12, 3], must be 0 or 1"),
        ({"name": "y"}, "--stream-input y: is no input of the model, must be one of x"),
    ):
        with pytest.raises(ToolchainError) as found:
            stream(graph, **given)  # type: ignore[arg-type]
        assert str(found.value) == text
    with pytest.raises(
        UnsupportedError, match="graph net_stream: keeps states already, must be a model of a whole window"
    ):
        stream(stream(graph).graph)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data = tmp_path / "step.graph", tmp_path / "step.json"
    model = str(ZOO / "motions_cnn_8.onnx")
    assert cli.main(["stream", model, "--out", str(out), "--frames", "4", "--json", str(data)]) == 0
    said = capsys.readouterr().out
    assert "50 steps of seeded random frames: every output equals the full model's on its window" in said
    found = json.loads(data.read_text())
    assert (found["step_frames"], found["window_frames"], found["steps_compared"]) == (4, 100, 50)
    assert parse(out.read_text()).digest() == found["graph"]
    assert cli.main(["stream", model, "--out", str(tmp_path / "step.onnx")]) == 2
    assert "must end in .graph: the text of a graph is written" in capsys.readouterr().err
