"""docs/tflite.md, held to the code: the operators of its table, and what it says of the page of numerics."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tflite_cases import OPS
from toolchain.frontends.tflite import schema
from toolchain.frontends.tflite.lowering import TABLE

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "tflite.md").read_text()


def test_every_operator_has_its_row_and_every_row_its_operator() -> None:
    part = PAGE[PAGE.index("## Operators") :].split("\n\n")[1]
    found = [name for line in part.splitlines()[2:] for name in re.findall(r"`([A-Z]\w+)`", line.split("|")[1])]
    assert sorted(found) == sorted([*TABLE, "DEQUANTIZE", "SHAPE"])


def test_every_operator_is_compared_with_the_interpreter() -> None:
    assert set(TABLE) == set(OPS)
    assert set(TABLE) <= set(schema.OPERATORS)
