#!/usr/bin/env python3
"""Runs on the processor of a Zynq board: speaks bitwright's protocol over the serial console, and lets the fabric compute.

    python3 driver.py [--device /dev/ttyPS0] [--bitfile design_1.bit]

Needs numpy and pynq, nothing else. Beside it lie network.json (tensors, types) and bitwright.json (digests) of the project,
and the bitstream that hls4ml's VivadoAccelerator project made. A console that a login sits on is no line:
    systemctl stop serial-getty@ttyPS0.service

Its one rule: it counts nothing. The only clock here is the processor's, around a DMA transfer that Linux and Python start
and wait for; that is no latency of the network, so HELLO says counter kind `none` and ticks are 0.
"""

import argparse
import json
import os
import select
import struct
import sys
import termios
import time
import tty
import zlib
from pathlib import Path

import numpy as np

VERSION = 1
HELLO, WRITE, READ, RUN, PROFILE, RESET_STATE, ERROR, REPLY = 1, 2, 3, 4, 5, 6, 0xFF, 0x80
MAX_PAYLOAD = 1024
LONGEST_BLOCK = 2048  # of what is between delimiters: more is noise
OPS = 1
BAUDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[1:].isdigit() and name[0] == "B"}
TRANSFER_TIMEOUT_S = 10.0


class Refused(Exception):
    """What ERROR tells the host: a code and its words."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code, self.text = code, text


def cobs_encode(data):
    out = bytearray()
    for i, part in enumerate(pieces := data.split(b"\0")):
        while len(part) >= 254:
            out += b"\xff" + part[:254]
            part = part[254:]
            if not part and i == len(pieces) - 1:
                return bytes(out)  # a full run at the very end needs no code after it
        out += bytes([len(part) + 1]) + part
    return bytes(out)


def cobs_decode(block):
    out, at = bytearray(), 0
    while at < len(block):
        code = block[at]
        if at + code > len(block):
            return None
        out += block[at + 1 : at + code]
        at += code
        if code != 0xFF and at < len(block):
            out.append(0)
    return bytes(out)


class Line:
    """Frames over a serial device: whole and undamaged ones, all others dropped without a word."""

    def __init__(self, device, baud):
        self.fd = os.open(device, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)
        speed = next((key for key, value in BAUDS.items() if value == baud), None)
        if speed is None:
            raise SystemExit(f"driver: {baud} baud is none of {', '.join(map(str, sorted(BAUDS.values())))}")
        settings = termios.tcgetattr(self.fd)
        settings[4] = settings[5] = speed
        termios.tcsetattr(self.fd, termios.TCSANOW, settings)
        self.block, self.frames = bytearray(), []

    def receive(self):
        """The next (type, seq, payload)."""
        while not self.frames:
            for i, part in enumerate(os.read(self.fd, 4096).split(b"\0")):
                if i:
                    self._end()
                if len(self.block) <= LONGEST_BLOCK:
                    self.block += part
        return self.frames.pop(0)

    def _end(self):
        data = cobs_decode(bytes(self.block)) if len(self.block) <= LONGEST_BLOCK else None
        self.block.clear()
        if data is None or len(data) < 9:
            return
        kind, seq, length = struct.unpack_from("<BHH", data)
        whole = length == len(data) - 9 and length <= MAX_PAYLOAD
        if whole and struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4]):
            self.frames.append((kind, seq, data[5:-4]))

    def send(self, kind, seq, payload):
        body = struct.pack("<BHH", kind, seq, len(payload)) + payload
        data = b"\0" + cobs_encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"
        while data:
            select.select([], [self.fd], [])
            data = data[os.write(self.fd, data) :]


class Tensor:
    """An input or output: its stored bytes as the protocol sees them, and how the DMA wants them.

    A DMA element of an integer type holds the stored integer; one of a float type holds its real value, stored / 2**frac_bits,
    which is exact: network.json never names a float type too narrow for the tensor's bits.
    """

    def __init__(self, spec):
        self.stored = np.zeros(spec["count"], np.dtype(spec["stored"]).newbyteorder("<"))
        self.dma = np.dtype(spec["dma"])
        self.step = 2.0 ** -spec["frac_bits"]
        self.bytes = self.stored.view(np.uint8)

    def to_dma(self, buffer):
        values = self.stored * self.step if self.dma.kind == "f" else self.stored
        buffer[:] = values.astype(self.dma).reshape(buffer.shape)

    def from_dma(self, buffer):
        values = np.array(buffer).reshape(-1)
        values = np.rint(values / self.step) if self.dma.kind == "f" else values
        self.stored[:] = values.astype(self.stored.dtype)


class Fabric:
    """The overlay of hls4ml's VivadoAccelerator project: a DMA and the network, in the hierarchy `hier_0`."""

    def __init__(self, bitfile, given, made):
        from pynq import Overlay, allocate

        dma = Overlay(bitfile).hier_0.axi_dma_0
        self.send, self.receive = dma.sendchannel, dma.recvchannel
        self.given, self.made = given, made
        self.into = allocate(shape=(given.stored.size,), dtype=given.dma)
        self.out_of = allocate(shape=(made.stored.size,), dtype=made.dma)

    def run(self):
        self.given.to_dma(self.into)
        self.receive.transfer(self.out_of)  # ready before the first word comes
        self.send.transfer(self.into)
        for channel in (self.send, self.receive):
            end = time.monotonic() + TRANSFER_TIMEOUT_S
            while not channel.idle:
                if time.monotonic() > end:
                    raise Refused(7, "the network did not finish; load the bitstream again")
            channel.wait()
        self.made.from_dma(self.out_of)


class Device:
    """The protocol's other end: docs/protocol.md, with one op, as the FPGA design nn_protocol.v answers it."""

    def __init__(self, tensors, inputs, run, hello):
        self.tensors, self.inputs, self.run, self.hello = tensors, inputs, run, hello
        self.last_seq = None

    def answer(self, kind, seq, payload):
        """(type, payload) of the reply."""
        try:
            return kind | REPLY, self._answer(kind, seq, payload)
        except Refused as refused:
            return ERROR, bytes([refused.code]) + refused.text.encode("ascii")

    def _answer(self, kind, seq, payload):
        if kind == HELLO:
            self.last_seq = None
            return self.hello
        if kind == WRITE:
            self._length(len(payload) >= 6)
            number, place = self._find(payload, len(payload) - 6)
            if number >= self.inputs:
                raise Refused(5, "only inputs can be written")
            place[:] = np.frombuffer(payload[6:], np.uint8)
            return b""
        if kind == READ:
            self._length(len(payload) == 8 and struct.unpack_from("<H", payload, 6)[0] <= MAX_PAYLOAD)
            return self._find(payload, struct.unpack_from("<H", payload, 6)[0])[1].tobytes()
        if kind == RUN:
            self._length(len(payload) == 4)
            if self.last_seq != seq and struct.unpack("<I", payload)[0] >= OPS:
                self.run()
            self.last_seq = seq
            return struct.pack("<QIII", 0, 0, 0, 0)
        if kind == PROFILE:
            self._length(len(payload) == 2)
            (first,) = struct.unpack("<H", payload)
            if first > OPS:
                raise Refused(4, "no op of this number")
            self.run()
            return struct.pack("<HI", first, 0) + struct.pack("<QI", 0, 0) * (OPS - first)
        if kind == RESET_STATE:
            self._length(not payload)
            return b""  # nothing is kept from one inference to the next
        raise Refused(1, "unknown request")

    @staticmethod
    def _length(right):
        if not right:
            raise Refused(2, "wrong payload length for this request")

    def _find(self, payload, count):
        number, offset = struct.unpack_from("<HI", payload)
        if number >= len(self.tensors):
            raise Refused(3, "no tensor of this number")
        place = self.tensors[number].bytes
        if offset > len(place) or count > len(place) - offset:
            raise Refused(4, "reaches past the end of the tensor")
        return number, place[offset : offset + count]


def hello_of(project):
    """The reply to HELLO: the digests of the project's manifest, counter kind none."""
    digests = bytes.fromhex(project["graph_digest"]) + bytes.fromhex(project["digest"])
    head = bytes([VERSION]) + digests + struct.pack("<BIHH", 0, 0, MAX_PAYLOAD, OPS)
    return head + project["board"].encode("utf-8")


def serve(line, device):
    while True:
        kind, seq, payload = line.receive()
        reply, answer = device.answer(kind, seq, payload)
        line.send(reply, seq, answer)


def main(argv=None):
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="bitwright's protocol on a Zynq board")
    parser.add_argument("--device", default="/dev/ttyPS0", help="the serial console (default %(default)s)")
    parser.add_argument("--baud", type=int, default=115200)
    parser.add_argument(
        "--bitfile", default=str(here / "design_1.bit"), help="its .hwh beside it (default %(default)s)"
    )
    options = parser.parse_args(argv)
    network = json.loads((here / "network.json").read_text())
    given, made = Tensor(network["input"]), Tensor(network["output"])
    hello = hello_of(json.loads((here / "bitwright.json").read_text()))
    fabric = Fabric(options.bitfile, given, made)
    serve(Line(options.device, options.baud), Device([given, made], 1, fabric.run, hello))


if __name__ == "__main__":
    sys.exit(main())
