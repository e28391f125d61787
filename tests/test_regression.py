"""Exact instruction counts and sizes of the digits CNN, for each version of a compiler that somebody recorded.

The same compiler makes the same code, and an emulator counts the same instructions, so a figure that moved is a change of
ours: `make golden` records it, and the diff of tests/golden/counts.json belongs in the commit that caused it.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from toolchain import boards, data, flow, inputs, tools
from toolchain.errors import MissingToolError

GOLDEN = Path(__file__).parent / "golden" / "counts.json"
BOARDS = ("unicorn_m4", "qemu_mps2_an386", "qemu_microbit", "qemu_virt_rv32")
HOSTS = ("bitwright", "python", "numpy", "unicorn", "capstone")  # what does not make code


@pytest.mark.parametrize(
    ("name", "family"), [*((name, "gcc") for name in BOARDS), ("unicorn_m4", "clang"), ("qemu_virt_rv32", "clang")]
)
def test_counts_are_the_recorded_ones(
    name: str, family: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "compiler", partial(tools.compiler, family=family))
    board = boards.load(name)
    graph = flow.load(data.folder("examples") / "digits" / "model.h5")
    try:
        tools.compiler(board.compiler, board.core)
        found = flow.measure(graph, board, inputs.made_up(graph, 1), runs=3)
    except MissingToolError as error:
        pytest.skip(str(error))
    assert found.bit_exact
    assert found.count is not None
    assert found.count.min == found.count.max  # one sample: on cores that branch for a maximum or a clamp, data counts
    made_by = [f"{k} {v}" for k, v in found.versions.items() if k not in HOSTS and not k.startswith("qemu")]
    assert len(made_by) == 1, found.versions
    now = {
        "count": found.count.median,
        "arena_bytes": found.arena_bytes,
        "flash_bytes": found.flash_bytes,
        "ram_bytes": found.ram_bytes,
        "ops": {f"{op.name} {op.kind}": op.count for op in found.ops},
    }
    recorded: dict[str, Any] = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if request.config.getoption("--update-golden"):
        recorded.setdefault(name, {})[made_by[0]] = now
        GOLDEN.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    known = recorded.get(name, {})
    if made_by[0] not in known:
        pytest.skip(f"no counts of {made_by[0]} on {name} are recorded, only of {', '.join(known) or 'none'}")
    assert now == known[made_by[0]], "if that is what you meant: make golden"
