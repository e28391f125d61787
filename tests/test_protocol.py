"""Frames and sessions: nothing damaged, stale or foreign is ever taken for an answer, and every fault is named."""

from __future__ import annotations

import dataclasses
import random
import re
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import sample
from toolchain import data, protocol
from toolchain.links import Link
from toolchain.project import Image
from toolchain.protocol import Decoder, Frame, Message, ProtocolError, Session, Timing

QUICK = Timing(hello_s=0.05, hello_tries=3, answer_s=0.05, run_s=0.05, tries=3)
frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=1200))


# The frame


@given(st.binary(max_size=1500))
def test_cobs_has_no_zero_and_comes_back(block: bytes) -> None:
    coded = protocol.cobs_encode(block)
    assert 0 not in coded
    assert len(coded) <= len(block) + len(block) // 254 + 1
    assert protocol.cobs_decode(coded) == block


@pytest.mark.parametrize("n", [0, 1, 253, 254, 255, 507, 508, 509, 762])
def test_cobs_at_the_edges_of_a_block(n: int) -> None:
    for block in (b"\1" * n, b"\1" * n + b"\0", b"\0" + b"\1" * n):
        assert protocol.cobs_decode(protocol.cobs_encode(block)) == block
    assert protocol.cobs_encode(b"") == b"\1"
    assert protocol.cobs_encode(b"\0") == b"\1\1"
    assert protocol.cobs_encode(b"ab\0c") == b"\3ab\2c"


def test_a_frame_on_the_wire() -> None:
    """Spelled out, so that the format cannot change by a slip on both sides."""
    body = bytes([3, 0x34, 0x12, 2, 0, 0xAA, 0])
    raw = body + struct.pack("<I", zlib.crc32(body))
    assert protocol.encode(Frame(3, 0x1234, b"\xaa\0")) == b"\0" + protocol.cobs_encode(raw) + b"\0"
    assert zlib.crc32(b"123456789") == 0xCBF43926


@given(frames, st.data())
def test_a_damaged_frame_is_never_another_frame(frame: Frame, data: st.DataObject) -> None:
    """Any burst of up to 32 bits is caught for certain by a CRC-32; here also lost and doubled bytes."""
    raw = bytearray(protocol.encode(frame)[1:-1])
    at = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["flip", "lose", "double"])):
        case "flip":
            raw[at] ^= data.draw(st.integers(1, 255))
        case "lose":
            del raw[at]
        case _:
            raw.insert(at, raw[at])
    assert protocol.decode(bytes(raw)) in (None, frame)  # doubling a byte of a run may move nothing


@given(st.lists(st.one_of(frames, st.binary(max_size=40)), max_size=8), st.data())
def test_the_decoder_finds_every_whole_frame_between_garbage(parts: list[Frame | bytes], data: st.DataObject) -> None:
    stream = b"".join(protocol.encode(part) if isinstance(part, Frame) else part for part in parts) + b"\0"
    decoder, found = Decoder(), []
    while stream:
        n = data.draw(st.integers(1, len(stream)))
        found += decoder.feed(stream[:n])
        stream = stream[n:]
    assert found == [part for part in parts if isinstance(part, Frame)]


def test_the_decoder_does_not_grow_with_endless_noise() -> None:
    decoder = Decoder()
    for _ in range(40):
        assert decoder.feed(b"\xff" * 10_000) == []
    assert len(decoder._block) == Decoder.LONGEST
    assert decoder.feed(b"\0" + protocol.encode(Frame(1, 2, b"3"))) == [Frame(1, 2, b"3")]
    assert decoder.rejected == 1


def test_both_sides_have_the_same_table() -> None:
    """protocol.h and counter.h against protocol.py."""
    folder = data.folder("firmware_templates") / "c" / "firmware"
    defines = dict(re.findall(r"#define (\w+) (0x[0-9A-F]+|\d+)u", (folder / "protocol.h").read_text()))
    assert {m.name: m.value for m in Message} == {
        name[4:]: int(value, 0) for name, value in defines.items() if name.startswith("MSG_") and name != "MSG_REPLY"
    }
    assert int(defines["MSG_REPLY"], 0) == protocol.REPLY
    assert int(defines["PROTOCOL_VERSION"]) == protocol.VERSION
    assert int(defines["FRAME_HEADER"]) == protocol.HEADER.size
    kinds = re.findall(r"#define COUNTER_KIND_(\w+) (\d+)u", (folder / "counter.h").read_text())
    assert {name.lower(): int(value) for name, value in kinds} == {k: i for i, k in enumerate(protocol.COUNTER_KINDS)}


# The session, against a board made of Python


class Board:
    """Answers as the firmware does; `spoil` may change what goes onto the wire in either direction."""

    where, count_kind = "fake", "counted"

    def __init__(self, largest: int = 128) -> None:
        self.tensor, self.largest, self.runs, self.out = bytearray(1000), largest, 0, bytearray()
        self.version, self.name, self.kind, self.ops = protocol.VERSION, "fake", 1, 30
        self.spoil: Callable[[bytes], bytes] = lambda data: data
        self._decoder, self._last = Decoder(), (-1, b"")

    def send(self, data: bytes) -> None:
        for frame in self._decoder.feed(self.spoil(data)):
            kind, payload = self.answer(frame)
            self.out += self.spoil(protocol.encode(Frame(kind, frame.seq, payload)))

    def recv(self, n: int, timeout_s: float) -> bytes:
        data, self.out = bytes(self.out[:n]), self.out[n:]
        return data

    def answer(self, frame: Frame) -> tuple[int, bytes]:
        payload = b""
        match frame.type:
            case Message.HELLO:
                digests = bytes([0xAA] * 32), bytes([0xBB] * 32)
                payload = protocol.HELLO_REPLY.pack(self.version, *digests, self.kind, 1000, self.largest, self.ops)
                payload += self.name.encode()
            case Message.WRITE:
                at = struct.unpack_from("<HI", frame.payload)[1]
                self.tensor[at : at + len(frame.payload) - 6] = frame.payload[6:]
            case Message.READ:
                _, at, n = protocol.READ_REQUEST.unpack(frame.payload)
                payload = bytes(self.tensor[at : at + n])
            case Message.RUN:
                if self._last[0] != frame.seq:
                    self.runs += 1
                    self._last = frame.seq, protocol.RUN_REPLY.pack(self.runs, 2, 3, 4)
                payload = self._last[1]
            case Message.PROFILE:
                first = struct.unpack("<H", frame.payload)[0]
                ops = range(first, min(self.ops, first + (self.largest - 6) // 12))
                payload = protocol.PROFILE_HEAD.pack(first, 9)
                payload += b"".join(protocol.PROFILE_ENTRY.pack(100 + k, k) for k in ops)
        return frame.type | protocol.REPLY, payload


@dataclasses.dataclass
class Holds:
    graph_digest: str = "aa" * 32
    project_digest: str = "bb" * 32
    board: str = "fake"


def test_a_session() -> None:
    board = Board()
    session = Session(board)
    assert session.hello(Holds()) == protocol.Hello(1, "aa" * 32, "bb" * 32, "dwt", 1000, 128, 30, "fake")
    content = bytes(i % 251 for i in range(1000))
    session.write(0, content)
    assert bytes(board.tensor) == content
    assert session.read(0, 1000) == content
    assert session.read(0, 300, offset=17) == content[17:317]
    assert session.run() == protocol.RunResult(1, 2, 3, 4)
    assert session.profile() == tuple(protocol.OpCount(100 + k, 9, k) for k in range(30))
    assert session.retries == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
def test_a_bad_line_costs_time_but_never_a_wrong_answer(seed: int) -> None:
    """A tenth of all transfers loses, doubles or flips a byte or brings noise along, both ways; the model must have run
    exactly as often as asked."""
    rng = random.Random(seed)
    board = Board(256)

    def spoil(data: bytes) -> bytes:
        raw = bytearray(data)
        if rng.random() < 0.1:
            at = rng.randrange(len(raw))
            match rng.randrange(4):
                case 0:
                    del raw[at]
                case 1:
                    raw.insert(at, raw[at])
                case 2:
                    raw[at] ^= 1 << rng.randrange(8)
                case _:
                    raw[at:at] = rng.randbytes(rng.randrange(1, 30))
        return bytes(raw)

    board.spoil = spoil
    session = Session(board, Timing(hello_s=0.002, hello_tries=30, answer_s=0.002, run_s=0.002, tries=30))
    session.hello(Holds())
    for k in range(1, 6):
        content = rng.randbytes(1000)
        session.write(0, content)
        assert session.run().ticks == k
        assert session.read(0, 1000) == content
    assert board.runs == 5


def test_stale_and_foreign_answers_are_passed_over() -> None:
    board = Board()
    session = Session(board, QUICK, seq=10)
    session.hello()
    board.out += protocol.encode(Frame(Message.READ | protocol.REPLY, 11, b"stale"))
    board.out += protocol.encode(Frame(Message.WRITE | protocol.REPLY, 12, b"other"))
    board.tensor[:5] = b"fresh"
    assert session.read(0, 5) == b"fresh"
    assert session.retries == 0


def test_a_wrong_crc_is_no_answer() -> None:
    """The CRC check itself: a frame right in all but its CRC."""
    body = protocol.HEADER.pack(Message.READ | protocol.REPLY, 11, 5) + b"wrong"
    bad = b"\0" + protocol.cobs_encode(body + struct.pack("<I", zlib.crc32(body) ^ 1)) + b"\0"
    assert Decoder().feed(bad) == []
    board = Board()
    session = Session(board, QUICK, seq=9)
    session.hello()
    board.spoil = lambda data: bad if data[1] != 1 else data
    with pytest.raises(ProtocolError):
        session.read(0, 5)


def misfit(kind: int, seq: int, payload: bytes, length: int) -> bytes:
    """A frame whose CRC is right and whose length is not."""
    body = protocol.HEADER.pack(kind, seq, length) + payload
    return b"\0" + protocol.cobs_encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def test_a_wrong_length_is_no_frame() -> None:
    payload = struct.pack("<HI", 0, 0) + b"\x55" * 8
    assert Decoder().feed(misfit(2, 1, payload, len(payload))) == [Frame(2, 1, payload)]
    wrong = [misfit(2, 1, payload, length) for length in (0, len(payload) - 1, len(payload) + 1, 0xFFFF)]
    assert Decoder().feed(b"".join(wrong)) == []
    with sample.open_board("native") as link:
        session = Session(link)
        session.hello()
        link.send(b"".join(wrong))
        assert session.read(sample.X, 8) == bytes(8)


def fault(session: Session, act: Callable[[Session], object]) -> str:
    with pytest.raises(ProtocolError) as caught:
        act(session)
    return str(caught.value)


def test_faults_are_named() -> None:
    session = Session(Board(), QUICK)
    session.link.spoil = lambda data: b""  # type: ignore[attr-defined]
    assert fault(session, lambda s: s.hello()) == (
        "fake: no answer to HELLO (3 tries of 0.05 s); is the board powered, flashed with a bitwright image, and is this "
        "its port?"
    )
    assert fault(session, lambda s: s.reset_state()) == (
        "fake: no answer to RESET_STATE (3 tries of 0.05 s); the board answered before: reset it, and check the cable"
    )
    session = Session(Board(), QUICK)
    assert fault(session, lambda s: s.hello(Holds(board="nucleo_f446re"))) == (
        "fake: the board says it is 'fake' but the image is for 'nucleo_f446re'; check --board and --port"
    )
    assert fault(session, lambda s: s.hello(Holds(graph_digest="77b1" * 16))) == (
        "fake: board holds graph aaaaaaaa… but this model is 77b177b1…; build and flash it, or measure the model the board "
        "holds"
    )
    assert fault(session, lambda s: s.hello(Holds(project_digest="77b1" * 16))) == (
        "fake: board holds build bbbbbbbb… of this model but the image is 77b177b1…; flash the image, or build with what "
        "the board was built with"
    )
    board = Board()
    board.version = 2
    assert fault(Session(board, QUICK), lambda s: s.hello()) == (
        "fake: the board speaks protocol version 2, this host version 1; build and flash it with this version of bitwright"
    )
    board = Board()
    board.kind = 9
    assert fault(Session(board, QUICK), lambda s: s.hello()) == (
        "fake: HELLO names counter kind 9 and payload 128, which no board has"
    )


def test_a_run_long_enough_to_wrap_a_32_bit_counter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    session = Session(board, QUICK)
    session._hello = dataclasses.replace(session.hello(), counter_hz=1 << 31)
    clock = iter([0.0, 0.0, 0.0, 2.5, 2.5])
    monkeypatch.setattr(protocol.time, "monotonic", lambda: next(clock))
    assert fault(session, lambda s: s.run()) == (
        "fake: a run took up to 2.5 s, in which the 32-bit counter may have wrapped; use a smaller model or a slower clock"
    )


# The session, against the firmware


@pytest.fixture(scope="module")
def native() -> Image:
    return sample.image("native")


def test_the_firmware_refuses_by_name(native: Image) -> None:
    with sample.open_board("native") as link:
        session = Session(link)
        session.hello(native)
        for kind, payload, message in (
            (Message.READ, struct.pack("<HIH", 9, 0, 1), "refused READ: no tensor of this number (error 3)"),
            (Message.READ, struct.pack("<HIH", 2, 13, 4), "refused READ: reaches past the end of the tensor (error 4)"),
            (Message.READ, struct.pack("<HIH", 2, 0xFFFFFFFF, 4), "refused READ: reaches past the end of the tensor (error 4)"),
            (Message.READ, b"", "refused READ: wrong payload length for this request (error 2)"),
            (Message.WRITE, struct.pack("<HI", 0, 299) + b"ab", "refused WRITE: reaches past the end of the tensor (error 4)"),
            (Message.WRITE, struct.pack("<HI", 2, 0) + b"a", "refused WRITE: only inputs can be written (error 5)"),
            (Message.WRITE, struct.pack("<HI", 3, 0) + b"a", "refused WRITE: only inputs can be written (error 5)"),
            (Message.RUN, b"", "refused RUN: wrong payload length for this request (error 2)"),
            (Message.PROFILE, struct.pack("<H", 4), "refused PROFILE: no op of this number (error 4)"),
            (Message.RESET_STATE, b"x", "refused RESET_STATE: wrong payload length for this request (error 2)"),
            (Message.ERROR, b"", "refused ERROR: unknown request (error 1)"),
        ):  # fmt: skip
            assert fault(session, lambda s, k=kind, p=payload: s.request(k, p)) == f"native: the board {message}"  # type: ignore[misc]
        assert sample.run(session, sample.inputs(), 5) == sample.expect(sample.inputs(), 5)


def test_a_session_survives_noise_on_the_firmwares_line(native: Image) -> None:
    """The firmware's own decoder: garbage before, within and after frames; overlong frames; then it answers."""
    rng = random.Random(1)
    with sample.open_board("native") as link:
        session = Session(link)
        hello = session.hello(native)
        good = protocol.encode(Frame(Message.WRITE, 1, struct.pack("<HI", 0, 0) + bytes(300)))
        for _ in range(300):
            link.send(rng.randbytes(rng.randrange(1, 80)))
            link.send(good[: rng.randrange(len(good))])
            link.send(b"\xff" * rng.randrange(0, 3 * hello.largest_payload))
            x, rounds = rng.randbytes(300), rng.randrange(4)
            session.reset_state()
            assert sample.run(session, x, rounds) == sample.expect(x, rounds)
            assert session.read(sample.X, 300) == x  # nothing of the noise was written


def test_the_firmware_takes_no_damaged_frame(native: Image) -> None:
    """Every single-byte change of a WRITE: none may write."""
    rng = random.Random(2)
    with sample.open_board("native") as link:
        session = Session(link)
        session.hello(native)
        session.write(sample.X, bytes(300))
        raw = protocol.encode(Frame(Message.WRITE, 7, struct.pack("<HI", 0, 0) + b"\x55" * 40))
        for at in range(1, len(raw) - 1):
            bad = bytearray(raw)
            bad[at] ^= rng.randrange(1, 256)
            link.send(bytes(bad))
            link.send(raw[:at] + raw[at + 1 :] if raw[at : at + 1] != raw[at + 1 : at + 2] else b"")
        assert session.read(sample.X, 300) == bytes(300)


class Lossy:
    """A link that drops the first answer to every RUN."""

    def __init__(self, link: Link) -> None:
        self.link, self.where, self.count_kind = link, link.where, link.count_kind
        self.drop = False
        self.dropped = 0

    def send(self, data: bytes) -> None:
        self.drop = protocol.decode(data[1:-1]).type == Message.RUN and not self.drop  # type: ignore[union-attr]
        self.link.send(data)

    def recv(self, n: int, timeout_s: float) -> bytes:
        data = self.link.recv(n, timeout_s)
        if self.drop and data:
            self.dropped += 1
            return b""
        return data


def test_a_run_whose_answer_is_lost_runs_once(native: Image) -> None:
    """The state advances once a run, however often the answer must be asked for."""
    x = sample.inputs()
    with sample.open_board("native") as link:
        lossy = Lossy(link)
        session = Session(lossy, Timing(run_s=0.2))
        session.hello(native)
        total: tuple[int, ...] = sample.STARTS
        for _ in range(3):
            total = sample.expect(x, 1, total)
            assert sample.run(session, x, 1) == total
        assert lossy.dropped == session.retries == 3
        session.reset_state()
        assert sample.run(session, x, 1) == sample.expect(x, 1)


def test_a_profile_whose_answer_is_lost_is_of_the_same_state(native: Image) -> None:
    """Asked for twice, a page that ends with the last op runs from the initial state twice."""
    x = sample.inputs()
    with sample.open_board("native") as link:
        session = Session(link)
        session.hello(native)
        sample.run(session, x, 3)
        for _ in range(2):
            session.request(Message.PROFILE, struct.pack("<H", 0))
            after = sample.expect(x, 3)
            assert struct.unpack("<4i", session.read(sample.Y, 16)) == after
            assert struct.unpack("<4i", session.read(sample.TOTAL, 16)) == after


def test_another_build_is_refused(native: Image) -> None:
    with sample.open_board("native") as link:
        other = dataclasses.replace(native, project_digest="0" * 64)
        assert fault(Session(link), lambda s: s.hello(other)).startswith(
            f"native: board holds build {native.project_digest[:8]}… of this model but the image is 00000000…; "
        )
