"""docs/qonnx.md, held to the code: the operators of its table, and the rounding modes by qonnx's own definition."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from toolchain.frontends.qonnx.lowering import TABLE
from toolchain.frontends.qonnx.quant import ROUNDINGS
from toolchain.frontends.qonnx.quantizers import SYNONYMS
from toolchain.ir.exact import rounded

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "qonnx.md").read_text()


def rows(title: str) -> list[list[str]]:
    part = PAGE[PAGE.index(title) :].split("\n\n")[1 if title.startswith("#") else 0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()[2:]]


def test_every_operator_has_its_row_and_every_row_its_operator() -> None:
    found = [name for row in rows("## Operators") for name in re.findall(r"`([A-Z]\w+)`", row[0])]
    assert set(found) == {*TABLE, "Softmax", "LogSoftmax", "Cast", "Shape"}


def test_the_table_of_rounding_modes() -> None:
    halves = [Fraction(n, 2) for n in (-5, -3, -1, 1, 3, 5)]
    seen = set()
    for row in rows("| rounding_mode"):
        for name in re.findall(r"`(\w+)`", row[0]):
            mode = ROUNDINGS[SYNONYMS.get(name, name)]
            assert row[1] == f"`{mode.value}`"
            assert [rounded(v, mode) for v in halves] == [int(v) for v in row[2:]]
            seen.add(name)
    assert seen == {*ROUNDINGS, *SYNONYMS}
