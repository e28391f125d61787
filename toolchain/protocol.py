"""The wire format and the host's end of a session; twin of firmware_templates/c/firmware/protocol.h.

Rule: nothing damaged, stale or foreign is ever taken for an answer. A frame counts only if its COBS block, length and
CRC-32 agree, its seq is the request's and its type the request's reply. docs/protocol.md tells it in words.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from toolchain.errors import ToolchainError

VERSION = 1


class Message(IntEnum):
    HELLO = 1
    WRITE = 2
    READ = 3
    RUN = 4
    PROFILE = 5
    RESET_STATE = 6
    SELECT = 7
    ERROR = 0xFF


REPLY = 0x80
COUNTER_KINDS = ("none", "dwt", "systick", "mcycle", "fpga", "timer", "mpccr", "timer1")
COUNTERS_OF_32_BITS = ("dwt", "timer", "mpccr")
HEADER = struct.Struct("<BHH")
CRC = struct.Struct("<I")
HELLO_REPLY = struct.Struct("<B32s32sBIHH")
WRITE_REQUEST = struct.Struct("<HI")
READ_REQUEST = struct.Struct("<HIH")
RUN_REPLY = struct.Struct("<QIII")
PROFILE_HEAD = struct.Struct("<HI")
PROFILE_ENTRY = struct.Struct("<QI")
RUN_TO_END = 0xFFFF_FFFF
SMALLEST_PAYLOAD = 128  # every board takes at least this


class ProtocolError(ToolchainError):
    """The board did not answer, or not as this session needs."""


@dataclass(frozen=True)
class Frame:
    type: int
    seq: int
    payload: bytes


@dataclass(frozen=True)
class Hello:
    """Who answers: what it holds, what it counts with, how much it takes at once."""

    version: int
    graph_digest: str
    project_digest: str
    counter: str
    counter_hz: int
    largest_payload: int
    ops: int
    board: str


@dataclass(frozen=True)
class RunResult:
    """Device counts of one run: raw ticks, those of an empty measurement, and counter interrupts served meanwhile."""

    ticks: int
    overhead: int
    interrupts: int
    stack_bytes: int


@dataclass(frozen=True)
class OpCount:
    ticks: int
    overhead: int
    interrupts: int


def cobs_encode(data: bytes) -> bytes:
    out = bytearray()
    at = 0
    while True:
        end = data.find(0, at, at + 254)
        full = end < 0 and len(data) - at >= 254
        end = at + 254 if full else len(data) if end < 0 else end
        out.append(end - at + 1)
        out += data[at:end]
        if end >= len(data):
            return bytes(out)
        at = end if full else end + 1


def cobs_decode(block: bytes) -> bytes | None:
    """The data of one block between delimiters, or None if it is not one."""
    out = bytearray()
    at = 0
    while at < len(block):
        code = block[at]
        if code == 0 or at + code > len(block):
            return None
        out += block[at + 1 : at + code]
        at += code
        if code != 0xFF and at < len(block):
            out.append(0)
    return bytes(out)


def encode(frame: Frame) -> bytes:
    """The bytes on the wire; the leading delimiter ends whatever noise came before."""
    body = HEADER.pack(frame.type, frame.seq, len(frame.payload)) + frame.payload
    return b"\0" + cobs_encode(body + CRC.pack(zlib.crc32(body))) + b"\0"


def decode(block: bytes) -> Frame | None:
    """The frame of one block between delimiters, or None if anything about it is wrong."""
    data = cobs_decode(block)
    if data is None or len(data) < HEADER.size + CRC.size:
        return None
    body, crc = data[: -CRC.size], CRC.unpack(data[-CRC.size :])[0]
    kind, seq, length = HEADER.unpack_from(body)
    if crc != zlib.crc32(body) or length != len(body) - HEADER.size:
        return None
    return Frame(kind, seq, body[HEADER.size :])


class Decoder:
    """Frames out of a stream that may hold garbage; whatever comes, the next delimiter is a fresh start."""

    LONGEST = 70_000  # more than any frame: bounds memory when a foreign device talks without end

    def __init__(self) -> None:
        self._block = bytearray()
        self.rejected = 0

    def feed(self, data: bytes) -> list[Frame]:
        frames = []
        for i, part in enumerate(data.split(b"\0")):
            if i:
                frame = decode(bytes(self._block)) if self._block else None
                self.rejected += bool(self._block) and frame is None
                frames += [frame] if frame is not None else []
                self._block.clear()
            self._block += part[: max(0, self.LONGEST - len(self._block))]
        return frames


class Holds(Protocol):
    """The part of an Image that HELLO is compared with."""

    @property
    def graph_digest(self) -> str: ...

    @property
    def project_digest(self) -> str: ...

    @property
    def board(self) -> str: ...


class Pipe(Protocol):
    """The part of a link a session needs."""

    where: str
    count_kind: Any

    def send(self, data: bytes) -> None: ...

    def recv(self, n: int, timeout_s: float) -> bytes: ...


@dataclass(frozen=True)
class Timing:
    """How long to wait and how often to ask again. A RUN's time is the model's, the others' the wire's."""

    hello_s: float = 0.4
    hello_tries: int = 15
    answer_s: float = 3.0
    run_s: float = 120.0
    tries: int = 4


class Session:
    """Requests and their answers over one link, one at a time."""

    def __init__(self, link: Pipe, timing: Timing | None = None, seq: int | None = None) -> None:
        self.link, self.timing = link, timing or Timing()
        self._decoder = Decoder()
        self._seq = random.randrange(1 << 16) if seq is None else seq
        self._hello: Hello | None = None
        self.retries = 0

    def hello(self, image: Holds | None = None) -> Hello:
        """Finds the board and, given an image, refuses by name a board that is another one or does not hold it.

        Retried briskly: an STM32's USART drops what arrives before the firmware enables it.
        """
        where, timing = self.link.where, self.timing
        self._hello = None
        reply = self._ask(Message.HELLO, b"", timing.hello_s, timing.hello_tries)
        if reply and reply[0] != VERSION:
            what = f"the board speaks protocol version {reply[0]}, this host version {VERSION}"
            raise ProtocolError(where, what, "build and flash it with this version of bitwright")
        if len(reply) < HELLO_REPLY.size:
            raise ProtocolError(
                where, f"HELLO was answered with {len(reply)} bytes, at least {HELLO_REPLY.size} expected"
            )
        version, graph, project, kind, hz, largest, ops = HELLO_REPLY.unpack_from(reply)
        name = reply[HELLO_REPLY.size :].decode("utf-8", "replace")
        if kind >= len(COUNTER_KINDS) or largest < SMALLEST_PAYLOAD:
            raise ProtocolError(where, f"HELLO names counter kind {kind} and payload {largest}, which no board has")
        hello = Hello(version, graph.hex(), project.hex(), COUNTER_KINDS[kind], hz, largest, ops, name)
        if image is not None:
            self._refuse_other(hello, image)
        self._hello = hello
        return hello

    def _refuse_other(self, hello: Hello, image: Holds) -> None:
        where = self.link.where
        if hello.board != image.board:
            what = f"the board says it is {hello.board!r} but the image is for {image.board!r}"
            raise ProtocolError(where, what, "check --board and --port")
        if hello.graph_digest != image.graph_digest:
            what = f"board holds graph {hello.graph_digest[:8]}… but this model is {image.graph_digest[:8]}…"
            raise ProtocolError(where, what, "build and flash it, or measure the model the board holds")
        if hello.project_digest != image.project_digest:
            held, wanted = hello.project_digest[:8], image.project_digest[:8]
            what = f"board holds build {held}… of this model but the image is {wanted}…"
            raise ProtocolError(where, what, "flash the image, or build with what the board was built with")

    def select(self, model: int) -> str:
        """Which of an image's models all that follows is about, HELLO too; its name. An image of one model knows no SELECT."""
        timing = self.timing
        reply = self._ask(Message.SELECT, struct.pack("<H", model), timing.hello_s, timing.hello_tries)
        if len(reply) < 2:
            raise ProtocolError(self.link.where, f"SELECT was answered with {len(reply)} bytes, at least 2 expected")
        return reply[2:].decode("utf-8", "replace")

    def write(self, tensor: int, data: bytes) -> None:
        """Fills an input from its first byte, in pieces the board can take."""
        step = self._largest() - WRITE_REQUEST.size
        for offset in range(0, len(data), step):
            piece = data[offset : offset + step]
            self._expect(Message.WRITE, WRITE_REQUEST.pack(tensor, offset) + piece, 0)

    def read(self, tensor: int, n: int, offset: int = 0) -> bytes:
        """`n` bytes of any tensor."""
        out = bytearray()
        while len(out) < n:
            count = min(self._largest(), n - len(out))
            out += self._expect(Message.READ, READ_REQUEST.pack(tensor, offset + len(out), count), count)
        return bytes(out)

    def run(self, stop: int | None = None) -> RunResult:
        """Runs the model, or its ops before `stop`. Asked again under the same seq, the board answers without running
        again, so that a lost answer never advances a model's state twice."""
        request = struct.pack("<I", RUN_TO_END if stop is None else stop)
        started = time.monotonic()
        reply = self._expect(Message.RUN, request, RUN_REPLY.size, self.timing.run_s)
        elapsed_s, hello = time.monotonic() - started, self._hello
        narrow = self.link.count_kind == "counted" and hello is not None and hello.counter in COUNTERS_OF_32_BITS
        if narrow and hello is not None and hello.counter_hz * elapsed_s >= 1 << 32:
            what = f"a run took up to {elapsed_s:.1f} s, in which the 32-bit counter may have wrapped"
            raise ProtocolError(self.link.where, what, "use a smaller model or a slower clock")
        return RunResult(*RUN_REPLY.unpack(reply))

    def profile(self) -> tuple[OpCount, ...]:
        """The count of every op. Each page runs the model anew from its initial state, so that pages agree."""
        ops: list[OpCount] = []
        total = self._total_ops()
        while len(ops) < total:
            reply = self._expect(Message.PROFILE, struct.pack("<H", len(ops)), None, self.timing.run_s)
            first, overhead = PROFILE_HEAD.unpack_from(reply) if len(reply) >= PROFILE_HEAD.size else (-1, 0)
            entries = reply[PROFILE_HEAD.size :]
            if first != len(ops) or not entries or len(entries) % PROFILE_ENTRY.size:
                raise ProtocolError(self.link.where, f"PROFILE from op {len(ops)} was answered with {len(reply)} bytes")
            ops += [OpCount(ticks, overhead, served) for ticks, served in PROFILE_ENTRY.iter_unpack(entries)]
        self.reset_state()
        return tuple(ops)

    def reset_state(self) -> None:
        """Every state to its initial value."""
        self._expect(Message.RESET_STATE, b"", 0)

    def request(self, kind: Message, payload: bytes, timeout_s: float | None = None, tries: int | None = None) -> bytes:
        """Any request, for tests and tools: the reply's payload, or the fault as a ProtocolError."""
        timing = self.timing
        return self._ask(kind, payload, timeout_s or timing.answer_s, timing.tries if tries is None else tries)

    def _largest(self) -> int:
        return self._hello.largest_payload if self._hello else SMALLEST_PAYLOAD

    def _total_ops(self) -> int:
        return (self._hello or self.hello()).ops

    def _expect(self, kind: Message, payload: bytes, size: int | None, timeout_s: float | None = None) -> bytes:
        reply = self.request(kind, payload, timeout_s)
        if size is not None and len(reply) != size:
            raise ProtocolError(self.link.where, f"{kind.name} was answered with {len(reply)} bytes, {size} expected")
        return reply

    def _ask(self, kind: Message, payload: bytes, timeout_s: float, tries: int) -> bytes:
        """Sends until answered. All tries bear one seq: every request may be repeated (the board remembers a RUN)."""
        self._seq = (self._seq + 1) & 0xFFFF
        seq = self._seq
        data = encode(Frame(kind, seq, payload))
        for attempt in range(tries):
            self.retries += attempt > 0
            self.link.send(data)
            reply = self._await(seq, kind, time.monotonic() + timeout_s)
            if reply is not None:
                return reply
        what = f"no answer to {kind.name} ({tries} tries of {timeout_s:g} s)"
        if kind is Message.HELLO:
            advice = "is the board powered, flashed with a bitwright image, and is this its port?"
        else:
            advice = "the board answered before: reset it, and check the cable"
        raise ProtocolError(self.link.where, what, advice)

    def _await(self, seq: int, kind: Message, deadline: float) -> bytes | None:
        while (left := deadline - time.monotonic()) > 0:
            data = self.link.recv(65_536, left)
            for frame in self._decoder.feed(data):
                if frame.seq != seq:
                    continue  # the late answer to a request given up
                if frame.type == Message.ERROR and frame.payload:
                    text = frame.payload[1:].decode("utf-8", "replace")
                    raise ProtocolError(
                        self.link.where, f"the board refused {kind.name}: {text} (error {frame.payload[0]})"
                    )
                if frame.type == kind | REPLY:
                    return frame.payload
        return None
