"""The FPGA design at its pins, simulated clock by clock: it speaks the protocol whole, never takes what is damaged, and counts
from edge to edge. The core is a stand-in: its clocks prove the counter and are no figure of a network."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from tests import fpga
from tests.graphs import inputs_for
from toolchain import boards, firmware, layout, measurement, reference
from toolchain.errors import ToolchainError
from toolchain.links import Link, open_link
from toolchain.links.verilator import VerilatorLink
from toolchain.measurement import run_sample
from toolchain.protocol import Decoder, Frame, Message, ProtocolError, Session, Timing, cobs_encode, encode

DESIGNS = [("two_inputs", "io_parallel"), ("positions", "io_stream")]
TIMING = Timing(answer_s=10.0, run_s=30.0)
IN_BYTES, OUT_BYTES = (5, 6), (8, 12)  # of the tensors of two_inputs


def session_on(link: VerilatorLink, seq: int | None = None) -> Session:
    session = Session(link, TIMING, seq)
    session.hello()
    return session


@pytest.fixture(scope="module")
def line() -> Iterator[VerilatorLink]:
    with fpga.open_simulation("two_inputs") as link:
        yield link


def answers(link: Link, data: bytes, until: float = 0.0) -> list[Frame]:
    """What comes back for these bytes, each as a frame; waits for `until` seconds of silence, else for one frame."""
    decoder, frames = Decoder(), []
    link.send(data)
    quiet = time.monotonic() + (until or 20.0)
    while time.monotonic() < quiet and (until or not frames):
        got = link.recv(4096, until or 20.0)
        frames += decoder.feed(got)
        if until and got:
            quiet = time.monotonic() + until
    assert decoder.rejected == 0, "the design sent a damaged frame"
    return frames


def ask(link: VerilatorLink, kind: int, payload: bytes = b"", seq: int = 0) -> Frame:
    (frame,) = answers(link, encode(Frame(kind, seq, payload)))
    return frame


def error(link: VerilatorLink, kind: int, payload: bytes) -> tuple[int, str]:
    frame = ask(link, kind, payload, 77)
    assert (frame.type, frame.seq) == (Message.ERROR, 77)
    return frame.payload[0], frame.payload[1:].decode()


def write(tensor: int, offset: int, data: bytes) -> bytes:
    return struct.pack("<HI", tensor, offset) + data


@pytest.mark.parametrize(
    ("name", "io", "count"), [(*DESIGNS[0], 2000), (*DESIGNS[1], 100), ("convolution", "io_stream", 2000)]
)
def test_every_inference_is_exact(name: str, io: str, count: int) -> None:
    graph, plan = fpga.refined(name, io)
    samples = inputs_for(graph, count, seed=11)  # corners and random values
    expected, _ = reference.simulate(graph, samples)
    with fpga.open_simulation(name, io) as link:
        session = session_on(link)
        for k in range(count):
            _, got, _ = run_sample(session, graph, plan, samples, k)
            for output, value in got.items():
                np.testing.assert_array_equal(value, expected[output][k])
        assert session.retries == 0


@pytest.mark.parametrize(("name", "io", "least"), [(*DESIGNS[0], 0), (*DESIGNS[1], 700)])
def test_ticks_are_the_latency_of_the_core(name: str, io: str, least: int) -> None:
    """docs/fpga_top.md: the constant overhead is 0. The stream has 256 words in and out, and pauses as its dice say:
    fewer clocks than that it cannot take."""
    graph, plan = fpga.refined(name, io)
    samples = inputs_for(graph, 3)
    for latency in [least + 100, 1000, 4321, *([0, 1, 2, 3, 17, 65_537] if least == 0 else [])]:
        with fpga.open_simulation(name, io, arguments=[str(fpga.FAST), f"+latency={latency}"]) as link:
            session = session_on(link)
            for k in range(3):
                result, got, _ = run_sample(session, graph, plan, samples, k)
                assert (result.ticks, result.overhead, result.interrupts, result.stack_bytes) == (latency, 0, 0, 0)
                expected, _ = reference.simulate(graph, {n: v[k : k + 1] for n, v in samples.items()})
                for output, value in got.items():
                    np.testing.assert_array_equal(value, expected[output][0])
            (op,) = session.profile()
            assert (op.ticks, op.overhead, op.interrupts) == (latency, 0, 0)


def test_hello_says_who_it_is() -> None:
    image = fpga.image("two_inputs", "io_parallel")
    with fpga.open_simulation("two_inputs") as link:
        hello = Session(link, TIMING).hello(image)
        assert dataclasses.astuple(hello) == (
            1, image.graph_digest, image.project_digest, "fpga", 100_000_000, 1024, 1, "verilator_arty_a7_35",
        )  # fmt: skip
        for field in ("graph_digest", "project_digest", "board"):
            other = dataclasses.replace(image, **{field: "ab" * 32})
            with pytest.raises(ProtocolError, match=r"board (says|holds)"):
                Session(link, TIMING).hello(other)


def test_measure_gives_no_count() -> None:
    graph, plan = fpga.refined("two_inputs", "io_parallel")
    image, board = fpga.image("two_inputs", "io_parallel"), fpga.board()
    samples = inputs_for(graph, 20)
    with open_link(image, board) as link:
        assert isinstance(link, VerilatorLink)
        found = measurement.measure(link, image, board, graph, graph, plan, samples, None, 5, lambda *_: None)
    assert (found.bit_exact, found.samples, found.outputs_compared) == (True, 20, 20 * 7)
    assert (found.count, found.count_kind, found.overhead, found.counter_hz, found.latency_us) == (
        None, "none", None, None, None,
    )  # fmt: skip
    assert [op.count for op in found.ops] == [None]
    assert found.ops[0].macs == found.macs > 0
    assert found.versions["verilator"]


def test_requests_are_answered_as_the_firmware_answers_them(line: VerilatorLink) -> None:
    """A thousand random requests, right and wrong, to the design and to the C firmware of the same tensors."""
    graph, _ = fpga.refined("two_inputs", "io_parallel")
    native = boards.load("native")
    made = firmware.project(native, "two_inputs", graph.digest(), fpga.model("two_inputs").files)
    twin = made.build(Path(fpga._scratch().name) / "native")
    rng = random.Random(3)
    refused: dict[int, int] = {}
    with open_link(twin, native) as other:
        for seq in range(1000):
            kind = rng.choice([0, 2, 2, 2, 3, 3, 3, 6, 7, 0x80, 0xFF, rng.randrange(7, 256)])
            tensor = rng.choice([0, 1, 2, 3, 3, 200, 256, 65_535])
            offset = rng.choice([0, 0, 1, 4, 5, 6, 8, 12, 13, 1 << 24, 0xFFFFFFFF])
            data = rng.randbytes(rng.choice([0, 1, 2, 5, 6, rng.randrange(20), rng.randrange(1018)]))
            payload = write(tensor, offset, data)
            if kind == Message.READ:
                payload = write(tensor, offset, struct.pack("<H", rng.choice([0, 1, 5, 8, 12, 13, 1024, 1025, 65_535])))
            if rng.randrange(8) == 0:
                payload = payload[: rng.randrange(9)]
            if kind in (0x80, 0xFF):
                payload = payload[: rng.randrange(3)]
            frame = encode(Frame(kind, seq, payload))
            (mine,) = answers(line, frame)
            (theirs,) = answers(other, frame)
            assert mine == theirs, (kind, payload)
            if mine.type == Message.ERROR:
                refused[mine.payload[0]] = refused.get(mine.payload[0], 0) + 1
    assert set(refused) == {1, 2, 3, 4, 5}
    assert min(refused.values()) > 10


def test_pieces_of_tensors(line: VerilatorLink) -> None:
    assert ask(line, 2, write(0, 0, bytes(range(1, 6)))).type == 0x82
    assert ask(line, 2, write(1, 0, bytes(range(11, 17)))).type == 0x82
    assert ask(line, 2, write(0, 2, b"\xff\0")).payload == b""
    assert ask(line, 2, write(1, 5, b"\0")).payload == b""
    assert ask(line, 2, write(1, 6, b"")).payload == b""  # nothing, at the very end
    assert ask(line, 3, struct.pack("<HIH", 0, 0, 5)).payload == b"\1\2\xff\0\5"
    assert ask(line, 3, struct.pack("<HIH", 1, 1, 5)).payload == b"\x0c\x0d\x0e\x0f\0"
    assert error(line, 2, write(0, 0, bytes(6))) == (4, "reaches past the end of the tensor")
    assert error(line, 2, write(2, 0, bytes(1))) == (5, "only inputs can be written")
    assert error(line, 3, struct.pack("<HIH", 4, 0, 0)) == (3, "no tensor of this number")
    assert error(line, 3, b"") == (2, "wrong payload length for this request")
    assert error(line, 99, b"") == (1, "unknown request")
    assert ask(line, 3, struct.pack("<HIH", 0, 0, 5)).payload == b"\1\2\xff\0\5"


def test_run_and_profile_by_the_letter(line: VerilatorLink) -> None:
    assert error(line, 4, b"\0\0\0") == (2, "wrong payload length for this request")
    assert error(line, 5, b"\0") == (2, "wrong payload length for this request")
    assert error(line, 5, b"\2\0") == (4, "no op of this number")
    assert error(line, 6, b"\0") == (2, "wrong payload length for this request")
    assert ask(line, 6).payload == b""
    assert ask(line, 4, struct.pack("<I", 1), 9).payload == struct.pack("<QIII", 100, 0, 0, 0)
    before = ask(line, 3, struct.pack("<HIH", 3, 0, 12)).payload
    assert ask(line, 2, write(1, 0, bytes(range(1, 7)))).type == 0x82
    assert ask(line, 4, struct.pack("<I", 0), 10).payload == struct.pack("<QIII", 0, 0, 0, 0)  # no op: nothing ran
    assert ask(line, 3, struct.pack("<HIH", 3, 0, 12)).payload == before
    assert ask(line, 5, b"\0\0").payload == struct.pack("<HIQI", 0, 0, 100, 0)
    assert ask(line, 5, b"\1\0").payload == struct.pack("<HI", 1, 0)


def test_a_repeated_run_is_answered_and_not_run() -> None:
    with fpga.open_simulation("two_inputs") as link:
        read = struct.pack("<HIH", 3, 0, 12)
        end = struct.pack("<I", 0xFFFFFFFF)
        first = ask(link, 4, end, 500)
        zero = ask(link, 3, read).payload
        ask(link, 2, write(0, 0, b"\x11\x22\x33\x44\x55"))
        assert ask(link, 4, end, 500) == first
        assert ask(link, 3, read).payload == zero, "it ran again"
        ask(link, 5, b"\0\0")  # PROFILE runs, and does not forget the last RUN
        ran = ask(link, 3, read).payload
        assert ran != zero
        ask(link, 2, write(0, 0, bytes(5)))
        assert ask(link, 4, end, 500) == first
        assert ask(link, 3, read).payload == ran
        assert ask(link, 4, end, 501).payload == first.payload
        assert ask(link, 3, read).payload == zero
        ask(link, 2, write(0, 0, b"\x11\x22\x33\x44\x55"))
        ask(link, 1)  # a new session
        assert ask(link, 4, end, 501).payload == first.payload
        assert ask(link, 3, read).payload == ran


def damaged(rng: random.Random, payload: bytes) -> bytes:
    """A WRITE as it may arrive over a bad line; now and then by chance whole, which the caller sees."""
    wire = bytearray(encode(Frame(2, rng.randrange(1 << 16), payload)))
    body = bytearray(struct.pack("<BHH", 2, rng.randrange(1 << 16), len(payload)) + payload)
    match rng.randrange(7):
        case 0:  # bits flipped
            for _ in range(rng.randrange(1, 4)):
                wire[rng.randrange(len(wire))] ^= 1 << rng.randrange(8)
        case 1:  # cut short, the delimiter there
            del wire[rng.randrange(2, len(wire) - 1) : -1]
        case 2:  # bytes lost
            at = rng.randrange(1, len(wire) - 1)
            del wire[at : at + rng.randrange(1, 4)]
        case 3:  # bytes doubled or invented
            at = rng.randrange(1, len(wire))
            wire[at:at] = rng.randbytes(rng.randrange(1, 6))
        case 4:  # whole COBS, wrong CRC
            wire = bytearray(b"\0" + cobs_encode(bytes(body) + rng.randbytes(4)) + b"\0")
        case 5:  # right CRC, wrong length
            body[3:5] = struct.pack("<H", rng.choice([0, len(payload) - 1, len(payload) + 1, 1024, 65_535]))
            wire = bytearray(b"\0" + cobs_encode(bytes(body) + struct.pack("<I", crc32(body))) + b"\0")
        case _:  # noise
            wire = bytearray(rng.randbytes(rng.randrange(1, 40)))
    return bytes(wire)


def test_no_damaged_frame_is_ever_taken(line: VerilatorLink) -> None:
    rng = random.Random(8)
    kept = b"\x21\x43\x65\x87\xa9"
    assert ask(line, 2, write(0, 0, kept)).type == 0x82
    ask(line, 2, write(1, 0, bytes(6)))
    sent = 0
    for _ in range(80):
        block = b""
        while block.count(b"\0") < 100:
            piece = damaged(rng, write(rng.randrange(2), 0, rng.randbytes(5)))
            if not Decoder().feed(block + piece + b"\0"):  # else by chance it is whole
                block, sent = block + piece, sent + 1
        (frame,) = answers(line, block + encode(Frame(3, 1000, struct.pack("<HIH", 0, 0, 5))))
        assert (frame.type, frame.seq, frame.payload) == (0x83, 1000, kept)
    assert ask(line, 3, struct.pack("<HIH", 1, 0, 6)).payload == bytes(6)
    assert sent > 3000


def test_what_is_too_long_is_dropped_and_what_just_fits_is_not(line: VerilatorLink) -> None:
    assert error(line, 2, write(0, 0, bytes(1018))) == (4, "reaches past the end of the tensor")  # 1024 bytes in all
    for length in (1025, 1026, 1033, 1034, 1035, 2048, 5000, 65_535):
        frames = answers(line, encode(Frame(2, 1, bytes(length))) + encode(Frame(6, 2, b"")))
        assert frames == [Frame(0x86, 2, b"")], length


def test_runs_of_cobs_of_every_length(line: VerilatorLink) -> None:
    """Payloads without a zero, around 254 and 508 bytes: an unknown request is refused only if its frame came whole."""
    for length in [*range(240, 260), *range(495, 515), 762, 763, 1024]:
        frame = ask(line, 9, b"\x5a" * length, 0x0101)
        assert (frame.type, frame.payload[0]) == (0xFF, 1)


def test_replies_without_a_zero_of_every_length() -> None:
    """The encoder's runs of 254: an input is read back whose bytes are no zeros, or one or two."""
    with fpga.open_simulation("positions", "io_stream") as link:
        for zeros in ((), (300,), (0, 511), (254, 255)):
            data = bytearray(k % 255 + 1 for k in range(512))
            for at in zeros:
                data[at] = 0
            assert ask(link, 2, write(0, 0, bytes(data))).type == 0x82
            for n in [*range(5), *range(240, 262), *range(495, 513)]:
                got = ask(link, 3, struct.pack("<HIH", 0, 512 - n, n), 0x0101).payload
                assert got == data[512 - n :], (zeros, n)


def test_a_frame_that_comes_during_an_answer_is_lost_whole() -> None:
    """The design has one buffer. What is lost is lost to the next delimiter, and the host's next try is answered."""
    with fpga.open_simulation("two_inputs") as link:
        ask(link, 2, write(0, 0, b"\1\2\3\4\5"))
        hello = encode(Frame(1, 1, b""))
        for cut in range(0, 60, 3):  # the second frame begins at another point of the answer each time
            later = encode(Frame(2, 2, write(0, 0, b"\x77" * 5)))
            (first, *rest) = answers(link, hello + b"\0" * cut + later, until=0.1)
            assert first.type == 0x81
            assert rest == []
            assert ask(link, 3, struct.pack("<HIH", 0, 0, 5)).payload == b"\1\2\3\4\5"
        # what began while the design was busy is no frame, though all the rest of it comes later and is right
        assert [f.type for f in answers(link, hello + b"\x55" * 20, until=0.2)] == [0x81]
        assert answers(link, encode(Frame(6, 2, b""))[1:], until=0.2) == []
        assert ask(link, 6).type == 0x86
        (first, second) = answers(link, hello + b"\0" * 150 + encode(Frame(6, 2, b"")), until=0.3)
        assert (first.type, second) == (0x81, Frame(0x86, 2, b""))


@pytest.mark.parametrize("error_percent", [-2.0, -1.0, 1.0, 2.0])
def test_the_line_may_be_two_percent_off(error_percent: float) -> None:
    """Frames of a thousand bytes back to back: a sampling point that drifts would lose bits within one of them."""
    with fpga.open_simulation("two_inputs", arguments=[str(fpga.FAST * (1 + error_percent / 100))]) as link:
        rng = random.Random(4)
        for seq in range(30):
            frame = ask(link, 9, rng.randbytes(1024), seq)
            assert (frame.seq, frame.payload[0]) == (seq, 1)


@pytest.mark.parametrize("error_percent", [-2.0, 0.0, 2.0])
def test_the_real_divisor(error_percent: float) -> None:
    graph, plan = fpga.refined("two_inputs", "io_parallel")
    samples = inputs_for(graph, 3)
    expected, _ = reference.simulate(graph, samples)
    speed = str(fpga.REAL * (1 + error_percent / 100))
    with fpga.open_simulation("two_inputs", "io_parallel", fpga.REAL, [speed]) as link:
        session = Session(link, Timing(hello_s=20.0, answer_s=20.0, run_s=20.0))
        session.hello(fpga.image("two_inputs", "io_parallel", fpga.REAL))
        for k in range(3):
            result, got, _ = run_sample(session, graph, plan, samples, k)
            assert result.ticks == 100
            for output, value in got.items():
                np.testing.assert_array_equal(value, expected[output][k])


@pytest.mark.parametrize(("name", "io"), DESIGNS)
def test_a_core_that_never_ends_is_reported_and_reset(name: str, io: str) -> None:
    graph, plan = fpga.refined(name, io)
    samples = inputs_for(graph, 2, seed=2)
    expected, _ = reference.simulate(graph, samples)
    with fpga.open_simulation(name, io, arguments=[str(fpga.FAST), "+hangs=2", "+latency=900"]) as link:
        session = session_on(link)
        run_sample(session, graph, plan, samples, 0)
        with pytest.raises(ProtocolError, match=r"refused RUN: the network did not finish; a deadlock\? \(error 7\)$"):
            run_sample(session, graph, plan, samples, 1)
        for k in (1, 0):
            result, got, _ = run_sample(session, graph, plan, samples, k)
            assert result.ticks == 900
            for output, value in got.items():
                np.testing.assert_array_equal(value, expected[output][k])


def test_tensors_are_numbered_as_the_host_numbers_them() -> None:
    graph, plan = fpga.refined("two_inputs", "io_parallel")
    slots = layout.tensors(graph, plan)[:4]
    assert [(slot.role, slot.bytes) for slot in slots] == [
        *(("input", n) for n in IN_BYTES), *(("output", n) for n in OUT_BYTES),
    ]  # fmt: skip


def test_a_simulation_that_ends_is_told_and_nothing_is_left() -> None:
    link = fpga.open_simulation("two_inputs")
    session_on(link)
    os.kill(link.pid, signal.SIGKILL)
    link._process.wait()
    with pytest.raises(ToolchainError, match=r"^verilator_arty_a7_35: the simulation ended by itself \(exit -9\)$"):
        link.recv(1, 0.2)
    link.close()
    link.close()
    link = fpga.open_simulation("two_inputs")
    link.close()
    assert link._process.returncode is not None
