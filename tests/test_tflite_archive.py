"""Damaged .tflite files: each is one ToolchainError of one line, soon, or is a model still.

Its one rule: what is done to a file here, a bad disk, a bad download or a bad tool does.
"""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest

from tests.tflite_cases import OPS
from tests.tflite_files import T, one_op
from toolchain.errors import ToolchainError
from toolchain.frontends.tflite import archive
from toolchain.frontends.tflite.lowering import lower_model

AGAIN = "export or copy the model again"


def load(data: bytes) -> str:
    """What loading says: "" where it is a model."""
    try:
        lower_model(archive.parse(data, "m.tflite", "m"))
    except ToolchainError as error:
        return str(error)
    return ""


def conv() -> bytes:
    return OPS["CONV_2D"](np.random.default_rng(1))


def test_every_truncation_is_one_error() -> None:
    whole = conv()
    assert load(whole) == ""
    for length in range(len(whole) - 64):  # the last bytes may be nothing that is read
        said = load(whole[:length])
        assert said
        assert "\n" not in said


def test_what_no_tflite_file_is() -> None:
    assert load(b"") == f"m.tflite: the file is empty; {AGAIN}"
    assert load(b"x") == f"m.tflite: not a TFLite file: its bytes 4 to 7 are b'', must be b'TFL3'; {AGAIN}"
    assert (
        load(b"PK\3\4aaaabb") == f"m.tflite: not a TFLite file: its bytes 4 to 7 are b'aaaa', must be b'TFL3'; {AGAIN}"
    )
    far = struct.pack("<I", 1 << 30) + b"TFL3"
    assert load(far) == f"m.tflite: a truncated or damaged TFLite file: 4 bytes at {1 << 30} lie outside its 8; {AGAIN}"


@pytest.mark.parametrize("op", ["CONCATENATION", "FULLY_CONNECTED", "PADV2"])
def test_changed_bytes_are_an_error_or_a_model(op: str) -> None:
    """Each byte of a file in turn, set to what offsets and counts fear most."""
    whole = bytearray(OPS[op](np.random.default_rng(2)))
    begun, said = time.monotonic(), set()
    for at in range(len(whole)):
        for value in (0, 0xFF):
            changed = bytearray(whole)
            changed[at] = value
            text = load(bytes(changed))
            assert "\n" not in text
            said.add(text[:60])
    assert len(said) > 20
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize("value", [0x7FFFFFFF, 0xFFFFFFFF, 4])
def test_changed_words_are_an_error_or_a_model(value: int) -> None:
    whole = conv()
    for at in range(0, len(whole) - 3, 4):
        assert "\n" not in load(whole[:at] + struct.pack("<I", value) + whole[at + 4 :])


def test_a_file_that_refers_to_itself_over_and_over_is_no_bomb() -> None:
    """A vector of tables that are all one table, which holds a long vector."""
    count = 20000
    numbers = struct.pack("<I", count) + b"\0" * (8 * count)  # zero points
    body = bytearray(b"\0\0\0\0TFL3")

    def add(data: bytes) -> int:
        body.extend(b"\0" * (-len(body) % 4))
        place = len(body)
        body.extend(data)
        return place

    def table(slots: int, fields: dict[int, bytes]) -> tuple[int, dict[int, int]]:
        size = 4 + 4 * len(fields)
        offsets = {slot: 4 + 4 * k for k, slot in enumerate(fields)}
        vtable = add(struct.pack(f"<HH{slots}H", 4 + 2 * slots, size, *(offsets.get(s, 0) for s in range(slots))))
        at = add(b"")
        body.extend(struct.pack("<i", at - vtable) + b"".join(fields.values()))
        return at, {slot: at + place for slot, place in offsets.items()}

    def refer(place: int, target: int) -> None:
        body[place : place + 4] = struct.pack("<I", target - place)

    root, of_root = table(5, {0: struct.pack("<I", 3), 2: b"\0" * 4})
    refer(0, root)
    graphs = add(struct.pack("<I", 1) + b"\0" * 4)
    refer(of_root[2], graphs)
    graph, of_graph = table(4, {0: b"\0" * 4})
    refer(graphs + 4, graph)
    tensors = add(struct.pack("<I", count) + b"\0" * (4 * count))
    refer(of_graph[0], tensors)
    tensor, of_tensor = table(5, {4: b"\0" * 4})
    for k in range(count):
        refer(tensors + 4 + 4 * k, tensor)
    quantization, of_quantization = table(4, {3: b"\0" * 4})
    refer(of_tensor[4], quantization)
    refer(of_quantization[3], add(numbers))
    begun = time.monotonic()
    what = "its parts refer to each other over and over"
    assert load(bytes(body)) == f"m.tflite: a truncated or damaged TFLite file: {what}; {AGAIN}"
    assert time.monotonic() - begun < 10


def test_names_of_any_bytes_are_one_line() -> None:
    x = T((1, 4), "int8", 0.5, name="a\nb\x07")
    graph = lower_model(
        archive.parse(one_op("RELU", [x], [T((1, 4), "int8", 0.5, name="größe 1/2:0")]), "m.tflite", "m")
    )
    assert [t.name for t in graph.inputs] == ["a_b_"]
    assert [t.name for t in graph.outputs] == ["gr__e_1_2"]
