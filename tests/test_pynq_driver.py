"""The program that runs on a Zynq board: the toolchain's own Session over a terminal, with a stand-in for pynq whose DMA
computes the network by `simulate`."""

from __future__ import annotations

import json
import os
import pty
import random
import runpy
import select
import struct
import subprocess
import sys
import textwrap
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import fpga, zoo
from tests.graphs import inputs_for
from toolchain import bitstream, data, flow, layout, passes, reference
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, dump
from toolchain.measurement import run_sample
from toolchain.protocol import Decoder, Frame, Message, ProtocolError, Session, Timing, cobs_decode, cobs_encode, encode

DRIVER = data.folder("firmware_templates") / "hls" / "pynq" / "driver.py"
PYNQ = '''
"""A stand-in for pynq: the overlay's DMA hands what it is sent to `simulate`, in the element type of the buffer."""
import os
import numpy as np
from toolchain import reference
from toolchain.ir import parse

graph = parse(open(os.environ["STAND_IN_GRAPH"]).read())
hangs = int(os.environ.get("STAND_IN_HANGS", "0"))


def allocate(shape, dtype):
    return np.full(shape, 77, dtype)


class Channel:
    def __init__(self, name):
        self.name, self.idle = name, True

    def transfer(self, buffer):
        global hangs
        assert self.idle
        self.idle, dma[self.name] = False, buffer
        if self.name == "send":
            hangs -= 1
            self.idle = True
            (given,), (made,) = graph.inputs, graph.outputs
            assert "receive" in dma, "the network's answer has nowhere to go"
            values = np.array(buffer)
            assert (values == values.astype(np.int64)).all()
            out, _ = reference.simulate(graph, {given.name: values.astype(np.int64).reshape(1, *given.shape)})
            if hangs != 0:
                dma["receive"][:] = out[made.name].reshape(-1)
                dma.pop("receive")
                channels["receive"].idle = True

    def wait(self):
        assert self.idle


dma = {}
channels = {"send": Channel("send"), "receive": Channel("receive")}


class Overlay:
    def __init__(self, bitfile):
        assert bitfile.endswith("design_1.bit")
        dma = type("Dma", (), {"sendchannel": channels["send"], "recvchannel": channels["receive"]})
        self.hier_0 = type("Hierarchy", (), {"axi_dma_0": dma})
'''


class Holds:
    def __init__(self, project: dict[str, str]) -> None:
        self.graph_digest, self.project_digest, self.board = (
            project["graph_digest"],
            project["digest"],
            project["board"],
        )


class Zynq:
    """The driver, running."""

    def __init__(self, graph: Graph, folder: Path, **env: str) -> None:
        self.graph = graph
        self.manifest = {"graph_digest": graph.digest(), "digest": "5a" * 32, "board": "pynq_z2"}
        (folder / "board").mkdir()
        for name, text in bitstream.pynq_files(graph).items():
            (folder / "board" / Path(name).name).write_text(text)
        (folder / "board" / "bitwright.json").write_text(json.dumps(self.manifest))
        (folder / "pynq.py").write_text(textwrap.dedent(PYNQ))
        (folder / "graph.txt").write_text(dump(graph))
        path = os.pathsep.join([str(folder), str(Path(__file__).resolve().parents[1])])
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "board" / "driver.py"), "--device", os.ttyname(slave)],
            env={**os.environ, "PYTHONPATH": path, "STAND_IN_GRAPH": str(folder / "graph.txt"), **env},
        )
        self.slave = slave
        self.where, self.count_kind = "pynq_z2", "none"

    def send(self, data: bytes) -> None:
        os.write(self.master, data)

    def recv(self, n: int, timeout_s: float) -> bytes:
        if not select.select([self.master], [], [], timeout_s)[0]:
            return b""
        return os.read(self.master, n)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def digits() -> Graph:
    return passes.run(flow.load(zoo.ZOO / "digits_mlp_4.onnx", zoo.options("digits_mlp_4")), None)[0]


@pytest.fixture(scope="module")
def zynq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zynq]:
    made = Zynq(digits(), tmp_path_factory.mktemp("zynq"))
    yield made
    made.close()


def test_every_output_is_exact_and_nothing_is_counted(zynq: Zynq) -> None:
    session = Session(zynq, Timing(answer_s=10.0))
    hello = session.hello(Holds(zynq.manifest))
    assert (hello.counter, hello.counter_hz, hello.ops, hello.board) == ("none", 0, 1, "pynq_z2")
    _, plan = passes.run(zynq.graph, None)
    samples = inputs_for(zynq.graph, 300, seed=4)
    expected, _ = reference.simulate(zynq.graph, samples)
    for k in range(300):
        result, got, _ = run_sample(session, zynq.graph, plan, samples, k)
        assert (result.ticks, result.overhead) == (0, 0)
        for name, value in got.items():
            np.testing.assert_array_equal(value, expected[name][k])
    assert [(op.ticks, op.overhead) for op in session.profile()] == [(0, 0)]
    with pytest.raises(ProtocolError, match="board holds graph"):
        session.hello(Holds({**zynq.manifest, "graph_digest": "00" * 32}))


def ask(zynq: Zynq, kind: int, payload: bytes, seq: int = 1) -> Frame:
    decoder, frames = Decoder(), []
    zynq.send(encode(Frame(kind, seq, payload)))
    while not frames:
        got = zynq.recv(4096, 20.0)
        assert got, "no answer"
        frames = decoder.feed(got)
    (frame,) = frames
    return frame


def test_every_error(zynq: Zynq) -> None:
    inputs, outputs = 64, layout.nbytes(zynq.graph.outputs[0])
    for kind, payload, code in (
        (0, b"", 1), (7, b"", 1), (2, b"\0" * 5, 2), (3, b"\0" * 7, 2), (4, b"", 2), (5, b"\0", 2), (6, b"\0", 2),
        (3, struct.pack("<HIH", 0, 0, 1025), 2), (3, struct.pack("<HIH", 2, 0, 1), 3),
        (2, struct.pack("<HI", 0, inputs) + b"1", 4), (3, struct.pack("<HIH", 1, 0xFFFFFFFF, 1), 4), (5, b"\2\0", 4),
        (2, struct.pack("<HI", 1, 0) + b"1", 5),
    ):  # fmt: skip
        frame = ask(zynq, kind, payload, 9)
        assert (frame.type, frame.seq, frame.payload[0]) == (Message.ERROR, 9, code), (kind, payload)
    assert len(ask(zynq, 3, struct.pack("<HIH", 1, 0, outputs)).payload) == outputs


def test_a_repeated_run_is_answered_and_not_run(zynq: Zynq) -> None:
    read = struct.pack("<HIH", 1, 0, layout.nbytes(zynq.graph.outputs[0]))
    ask(zynq, 1, b"")
    ask(zynq, 2, struct.pack("<HI", 0, 0) + bytes(64))
    ask(zynq, 4, b"\xff" * 4, 50)
    zero = ask(zynq, 3, read).payload
    ask(zynq, 2, struct.pack("<HI", 0, 0) + bytes(range(64)))
    ask(zynq, 4, b"\xff" * 4, 50)
    assert ask(zynq, 3, read).payload == zero
    ask(zynq, 4, b"\0" * 4, 51)  # the ops before op 0: none
    assert ask(zynq, 3, read).payload == zero
    ask(zynq, 4, b"\xff" * 4, 52)
    assert ask(zynq, 3, read).payload != zero


def test_no_damaged_frame_is_taken(zynq: Zynq) -> None:
    rng = random.Random(1)
    ask(zynq, 2, struct.pack("<HI", 0, 0) + bytes(range(64)))
    for _ in range(30):
        block = b""
        while len(block) < 3000:
            wire = bytearray(encode(Frame(2, 3, struct.pack("<HI", 0, 0) + rng.randbytes(64))))
            for _ in range(rng.randrange(1, 3)):
                wire[rng.randrange(len(wire))] ^= 1 << rng.randrange(8)
            block += bytes(wire) if not Decoder().feed(block + bytes(wire) + b"\0") else b""
        zynq.send(block)
        assert ask(zynq, 3, struct.pack("<HIH", 0, 0, 64)).payload == bytes(range(64))
    zynq.send(b"\0" + b"\x02" * 100_000 + b"\0")  # endless noise takes no memory
    assert ask(zynq, 6, b"").type == 0x86


def test_a_network_that_does_not_finish(tmp_path: Path) -> None:
    made = Zynq(digits(), tmp_path, STAND_IN_HANGS="1")
    try:
        Session(made).hello(Holds(made.manifest))
        assert ask(made, 4, b"\xff" * 4).payload == b"\7the network did not finish; load the bitstream again"
    finally:
        made.close()


def test_cobs_is_the_toolchains() -> None:
    names: dict[str, Any] = runpy.run_path(str(DRIVER))
    rng = random.Random(2)
    for length in [*range(20), *range(250, 260), *range(505, 515), 762, 763]:
        for fill in (b"\0", b"\1", None):
            given = rng.choices(range(3), k=length) if fill is None else fill * length
            raw = bytes(given)
            assert names["cobs_encode"](raw) == cobs_encode(raw)
            assert names["cobs_decode"](cobs_encode(raw)) == raw
    for _ in range(2000):
        block = bytes(rng.choices(range(1, 7), k=rng.randrange(1, 12)))
        assert names["cobs_decode"](block) == cobs_decode(block)


def test_the_driver_knows_nothing_of_the_toolchain() -> None:
    text = DRIVER.read_text()
    assert "toolchain" not in text
    assert {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))} == {
        "argparse", "json", "numpy", "os", "pathlib", "select", "struct", "sys", "termios", "time", "tty", "zlib",
    }  # fmt: skip


def test_float_elements_hold_real_values_exactly() -> None:
    names: dict[str, Any] = runpy.run_path(str(DRIVER))
    tensor = names["Tensor"]({"count": 3, "stored": "int16", "dma": "float32", "frac_bits": 5})
    tensor.bytes[:] = np.frombuffer(struct.pack("<3h", -32768, 32767, 1), np.uint8)
    buffer = np.zeros(3, np.float32)
    tensor.to_dma(buffer)
    assert buffer.tolist() == [-1024.0, 32767 / 32, 1 / 32]
    tensor.bytes[:] = 0
    tensor.from_dma(buffer)
    assert tensor.stored.tolist() == [-32768, 32767, 1]


def test_what_the_accelerator_cannot_carry_is_refused() -> None:
    with pytest.raises(
        ToolchainError, match=r"^two_inputs: has 2 inputs and 2 outputs, the accelerator of hls4ml takes 1"
    ):
        bitstream.pynq_files(fpga.two_inputs())
