"""`--optimize`: what C is made for, whose integers are the same whatever it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.pages import needs, needs_compiler
from tests.test_arena import written_bytes
from tests.test_tflite_models import MODELS, graph, samples
from toolchain import boards, cli, command_line, flow, passes, project
from toolchain.backends import c
from toolchain.boards import Board
from toolchain.errors import ToolchainError
from toolchain.ir import Graph, QType
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import nbytes
from toolchain.passes.plan import OPTIMIZE, Plan

KWS = str(MODELS / "kws_ref_model.tflite")


def test_code_is_small() -> None:
    """All but the tables: kernels, the list of calls, firmware and start-up."""
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    found, code = {}, {}
    for optimize in ("speed", "size"):
        given = graph("kws_ref_model")
        x = {given.inputs[0].name: samples("kws_ref_model")[:4]}
        found[optimize] = flow.measure(given, "unicorn_m4", x, runs=1, optimize=optimize)
        assert found[optimize].bit_exact
        _, plan = passes.run(given, boards.load("unicorn_m4"), optimize=optimize)
        _, tables = c.model_files(given, plan, "unicorn_m4")
        code[optimize] = found[optimize].flash_bytes - sum(tables.values())
    if any("arm-none-eabi-gcc" in name for name in found["size"].versions):
        assert code["size"] <= 10_680 < code["speed"]
        assert found["size"].flash_bytes <= 43_100
        per_mac = found["size"].count_per_mac
        assert per_mac is not None
        assert per_mac <= 1.37


@pytest.mark.parametrize(
    ("name", "most"), [("ad01_int8", 256), ("kws_ref_model", 9_728), ("pretrainedResnet_quant", 17_951)]
)
def test_ram_is_the_least_of_all(name: str, most: int) -> None:
    board = boards.load("unicorn_m4")
    made, least = passes.run(graph(name), board, optimize="ram")
    assert least.arena_bytes == most <= passes.run(graph(name), board)[1].arena_bytes
    assert least.digest() != passes.run(graph(name), board)[1].digest()
    assert written_bytes(made, least) == []


def test_small_code_of_clang_keeps_its_stack_bound() -> None:
    """zig's -Os strips symbols unless some debug information is asked for, and a bound would be of nothing."""
    needs("qemu-system-arm")
    board = boards.load("qemu_mps3_an547")
    needs_compiler(board.compiler, board.core)
    given = graph("ad01_int8")
    found = flow.measure(given, board, {given.inputs[0].name: samples("ad01_int8")[:2]}, runs=1, optimize="size")
    assert found.bit_exact
    assert 100 < found.stack_bytes <= found.stack_bound_bytes < 1000
    assert found.ram_bytes > board.stack_bytes


def of_memory(board: Board, graph: Graph, arena: int) -> Board:
    """The board with just so much memory that an arena of this size is left."""
    ends = sum(map(nbytes, (*graph.inputs, *graph.outputs)))
    return replace(board, ram_bytes=arena + ends + board.stack_bytes + board.largest_payload + passes.FIRMWARE)


def test_what_would_not_fit_is_made_for_less_memory() -> None:
    """And of what fits, the fewest instructions: the first ops go in bands, in more of them the less memory there is."""
    board, given = boards.load("unicorn_m4"), graph("pretrainedResnet_quant")
    found = []
    for arena in (36_080, 36_079, 24_000, 20_000, 17_951):
        made, plan = passes.run(given, of_memory(board, given, arena))
        assert plan.arena_for_speed == (36_080 if arena < 36_080 else 0)
        found.append((plan.arena_bytes, len(plan.kernels), len(made.ops)))
        assert plan.arena_bytes <= arena
        assert plan.optimize == "speed"
        assert written_bytes(made, plan) == []
    assert found == [(36_080, 10, 36), (29_424, 13, 51), (23_792, 28, 109), (19_696, 36, 155), (17_951, 42, 201)]


def test_where_nothing_fits_the_least_is_taken() -> None:
    """What says that it does not fit has the smallest numbers to say."""
    board, given = boards.load("unicorn_m4"), graph("ad01_int8")
    _, plan = passes.run(given, of_memory(board, given, 100))
    assert (plan.arena_bytes, plan.optimize) == (256, "ram")


@pytest.mark.parametrize(("name", "arena"), [("ad01_int8", 256), ("pretrainedResnet_quant", 20_000)])
def test_with_less_memory_it_computes_the_same(name: str, arena: int, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    given = graph(name)
    monkeypatch.setattr(boards, "load", lambda name, load=boards.load: of_memory(load(name), given, arena))
    x = {given.inputs[0].name: samples(name)[:4]}
    found = flow.measure(given, "unicorn_m4", x, runs=1)
    assert found.bit_exact
    assert found.arena_bytes <= arena
    assert found.arena_for_speed == {"ad01_int8": 1408, "pretrainedResnet_quant": 36_080}[name]


def test_the_command_says_what_it_was_made_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["emit", KWS, "--board", "nucleo_f446re", "--out", str(tmp_path / "p"), "--json", "-"]
    projects = {}
    for optimize in ("speed", "size", "ram"):
        assert cli.main([*argv, "--optimize", optimize]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["optimize"] == optimize
        projects[optimize] = said["project"]
    assert projects["speed"] != projects["size"]
    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["project"] == projects["speed"]


@pytest.mark.parametrize("verb", ["emit", "build", "measure"])
def test_gates_are_refused(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        verb,
        KWS,
        "--board",
        "csim" if verb == "measure" else "arty_a7_35",
        "--out",
        str(tmp_path / "p"),
        "--optimize",
        "size",
    ]
    assert cli.main(argv) == 2
    assert "--optimize size: is for kernels in C" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "p").exists()


def test_what_a_plan_can_be_made_for() -> None:
    with pytest.raises(
        ToolchainError, match=r"^plan: optimize is 'small', must be one of speed, size, ram; correct it$"
    ):
        Plan(optimize="small")
    assert command_line.OPTIMIZE == OPTIMIZE


def wide(outputs: int, channels: int = 64) -> Graph:
    b = GraphBuilder("wide")
    q = QType.of(8, True, 1)
    x = b.input("x", (channels,), q)
    w = b.const("w", np.random.default_rng(0).integers(-127, 128, (outputs, channels)))
    acc = b.dense(x, w, None, "acc")
    b.output(b.max_pool(b.reshape(b.requantize(acc, q, [1], [0], [9], Rounding.FLOOR, "y"), (outputs, 1), "tall"),
                        (outputs,), (outputs,), ((0, 0),), "most"))  # fmt: skip
    return b.graph()


@pytest.mark.parametrize("family", ["gcc", "clang"])
def test_an_image_that_is_too_large_is_said_in_a_line(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where code, or what firmware needs, is what exceeds the board: by how much, and which option might help."""
    if family == "gcc":
        needs_compiler("arm", "cortex-m0")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("ARM_NONE_EABI_GCC", raising=False)
    board = boards.load("microbit")
    with pytest.raises(
        ToolchainError, match=r"the image exceeds the board's flash by [\d,]+ bytes; use --optimize size, a"
    ):
        flow.build(flow.emit(wide(261_000 // 64), board), tmp_path / "q")


def test_what_linkers_say_of_regions() -> None:
    """GNU's for an AVR gives no number; what is no overflow stays as it is."""
    said = "address 0x800734 of image.elf section `.bss' is not within region `data'"
    assert project._overflow(said) == (
        "the image exceeds the board's RAM",
        "use --optimize ram, a smaller model or a larger board",
    )
    found = project._overflow("ld.lld: error: section '.bss' will not fit in region 'RAM': overflowed by 1400 bytes")
    assert found is not None and found[0] == "the image exceeds the board's RAM by 1,400 bytes"
    assert project._overflow("error: region of interest") is None
