"""`bitwright build` for FPGA boards from a model to the end, with stand-ins for the vendors' tools: what is printed, resumed, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import GRAPH
from toolchain import boards, testbench, vendor_steps

ROOT = Path(__file__).resolve().parents[1]
REAL = sorted(
    name for name in boards.names() if (b := boards.load(name)).fpga and not b.emulated and b.fpga.tool != "Libero"
)


def build(folder: Path, board: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    (folder / "small.graph").write_text(GRAPH)
    path = f"{ROOT / 'tests' / 'fake_tools'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "FAKE_LOG": str(folder / "calls"), **more}
    argv = [
        sys.executable,
        "-m",
        "toolchain",
        "build",
        "small.graph",
        "--board",
        board,
        "--out",
        "design",
        "--json",
        "built.json",
        *words,
    ]
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines()) if (folder / "calls").exists() else 0


@pytest.mark.parametrize("board", REAL)
def test_every_board_builds_to_the_end(board: str, tmp_path: Path) -> None:
    done = build(tmp_path, board)
    fpga = boards.load(board).fpga
    assert fpga is not None
    if fpga.tool != "Quartus" and fpga.core_clock_hz > 101_245_000:  # what the stand-ins' reports say was reached
        assert done.returncode == 2
        assert f"the design misses timing: fmax 101.2 MHz of {fpga.core_clock_hz / 1e6:g} MHz" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    built = json.loads((tmp_path / "built.json").read_text())
    labels = [row["label"] for row in built["resources"]]
    assert labels[0] == "estimated"
    assert "post-route" in labels
    if "bitstream" in vendor_steps.stages(fpga.tool, boards.load(board)):
        assert (tmp_path / built["image"]).suffix == ".bit"
        assert (tmp_path / built["image"]).is_file()
        assert "bitstream design/" in done.stdout
    before = calls(tmp_path)
    assert before > 0
    assert build(tmp_path, board).returncode == 0
    assert calls(tmp_path) == before  # every step was done


def test_a_cosimulation_that_answers_otherwise_is_an_error(tmp_path: Path) -> None:
    assert build(tmp_path, "arty_a7_35").returncode == 0
    expected = (tmp_path / "design" / testbench.OUTPUTS).read_text().split()
    log = tmp_path / "design" / testbench.LOGS[1]
    log.write_text(" ".join(expected))
    assert build(tmp_path, "arty_a7_35").returncode == 0
    log.write_text(" ".join([str(int(expected[0]) + 1), *expected[1:]]))
    done = build(tmp_path, "arty_a7_35")
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        f"sample 0, value 0 is {int(expected[0]) + 1}, the reference says {expected[0]}; the circuit computes something else: do not use it"
    )


def test_timing_that_is_missed_is_said_by_how_much(tmp_path: Path) -> None:
    done = build(tmp_path, "arty_a7_35", FAKE_FAIL="vivado:late")
    assert done.returncode == 2
    assert "the worst setup slack is -0.402 ns" in done.stderr
    assert build(tmp_path, "arty_a7_35").returncode == 0  # and goes on from there


def test_catapult_builds_to_the_end(tmp_path: Path) -> None:
    done = build(tmp_path, "arty_a7_35", "--hls", "catapult")
    assert done.returncode == 0, done.stderr
    assert [row["label"] for row in json.loads((tmp_path / "built.json").read_text())["resources"]] == [
        "post-synthesis"
    ]


def test_stages_are_told_where_nobody_watches(tmp_path: Path) -> None:
    done = build(tmp_path, "arty_a7_35")
    said = done.stderr.splitlines()
    assert said[-4:] == ["csynth: vitis-run", "cosim: vitis-run", "ip: vitis-run", "bitstream: vivado"]
    assert "C simulation" in said
    assert len(said) == len(set(said))
    # both reports of estimates are in the table, each under its name
    assert "network_csynth.xml" in done.stdout
    assert "bitwright_top_csynth.xml" in done.stdout


def test_a_report_that_is_cut_off_is_no_success(tmp_path: Path) -> None:
    done = build(tmp_path, "arty_a7_35", FAKE_FAIL="vivado:truncated")
    assert done.returncode == 2
    assert "reports/utilization.rpt: is cut off or is another report: it says nothing of dsps, brams" in done.stderr
    assert build(tmp_path, "arty_a7_35").returncode == 0


def test_with_a_part_of_the_tools_a_part_is_done(tmp_path: Path) -> None:
    only = tmp_path / "only"
    only.mkdir()
    for name in ("vitis-run", "fake.py", "reports.py"):
        (only / name).symlink_to(ROOT / "tests" / "fake_tools" / name)
    path = f"{only}{os.pathsep}{os.environ['PATH']}"
    done = build(tmp_path, "arty_a7_35", PATH=path)
    assert done.returncode == 3
    assert "csynth, cosim, ip ran to the end" in done.stderr
    assert (tmp_path / "design" / "logs" / "ip.done").exists()
    assert not (tmp_path / "design" / "logs" / "bitstream.done").exists()


def test_another_model_in_the_folder_finds_no_old_bitstream(tmp_path: Path) -> None:
    assert build(tmp_path, "arty_a7_35").returncode == 0
    assert (tmp_path / "design" / "nn_board.bit").exists()
    assert build(tmp_path, "arty_a7_35", "--io", "stream", FAKE_FAIL="vitis-run:exit").returncode == 2
    assert not (tmp_path / "design" / "nn_board.bit").exists()
    assert len(list((tmp_path / "design" / "previous").glob("*/nn_board.bit"))) == 1
