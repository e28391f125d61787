"""`--optimize`: what C is made for, whose integers are the same whatever it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pages import needs, needs_compiler
from tests.test_tflite_models import MODELS, graph, samples
from toolchain import boards, cli, command_line, flow, passes
from toolchain.backends import c
from toolchain.errors import ToolchainError
from toolchain.passes.plan import OPTIMIZE, Plan

KWS = str(MODELS / "kws_ref_model.tflite")


def ram(plan: Plan) -> int:
    return plan.arena_bytes + plan.scratch_bytes


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
        assert code["size"] <= 10_650 < code["speed"]
        assert found["size"].flash_bytes <= 43_100
        per_mac = found["size"].count_per_mac
        assert per_mac is not None
        assert per_mac <= 1.37


@pytest.mark.parametrize(
    ("name", "most"), [("ad01_int8", 256), ("kws_ref_model", 9_728), ("pretrainedResnet_quant", 33_311)]
)
def test_ram_is_the_least_of_all(name: str, most: int) -> None:
    board = boards.load("unicorn_m4")
    least = passes.run(graph(name), board, optimize="ram")[1]
    assert ram(least) == most <= ram(passes.run(graph(name), board)[1])
    assert least.digest() != passes.run(graph(name), board)[1].digest()


def test_what_would_not_fit_is_made_for_less_memory() -> None:
    board = boards.load("unicorn_m4")
    rest = 2 * 640 + board.stack_bytes + board.largest_payload + passes.FIRMWARE
    for spare, kernels in ((0, 10), (-1, 0)):
        small = replace(board, ram_bytes=128 + 1280 + rest + spare)
        _, plan = passes.run(graph("ad01_int8"), small)
        assert (len(plan.kernels), plan.optimize) == (kernels, "speed")


def test_ram_computes_the_same() -> None:
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    given = graph("ad01_int8")
    x = {given.inputs[0].name: samples("ad01_int8")[:4]}
    assert flow.measure(given, "unicorn_m4", x, runs=1, optimize="ram").bit_exact


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
