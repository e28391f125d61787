"""The command line as a user meets it: help, exit codes, whole error texts, JSON on the right stream, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import toolchain
from toolchain import boards, cli, flow, report, tools

ROOT = Path(__file__).resolve().parents[1]
VERBS = ("inspect", "simulate", "verify", "stream", "estimate", "emit", "build", "measure", "boards", "doctor", "demo")
GRAPH = """bitwright graph 1
graph small
input %x: u8 [4] scale 1/16
const %w: s4 [3,4] scale 1/8
  5 2 0 -4 -4 -8 -7 -8 -6 5 2 6
%acc: s14 [3] scale 1/128 = dense input=%x weight=%w bias=none
%y: s8 [3] scale 1/2 = requantize input=%acc multiplier=[1] offset=[0] shift=[6] output_offset=0 rounding=half_even clamp=[-128,127]
output %y
"""


class Folder:
    """A folder with a model in it, and the command line run there in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "small.graph").write_text(GRAPH)
        self.before = self.files()

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **more}
        return subprocess.Popen(
            [sys.executable, "-m", "toolchain", *arguments],
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **more: Any) -> tuple[int, str, str]:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def refuses(self, text: str, *arguments: str, code: int = 2, **more: Any) -> None:
        """The command ends with `code` and this very text, prints no result, and leaves no file behind."""
        assert self.run(*arguments, **more) == (code, "", f"error: {text}\n")
        assert self.files() == self.before


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_public_names_are_all_there() -> None:
    for name in toolchain.__all__:
        assert getattr(toolchain, name) is not None


def test_the_verbs_are_these() -> None:
    (sub,) = [a for a in cli.parser()._actions if isinstance(a.choices, dict)]
    assert tuple(sub.choices or ()) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example_that_parses(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    assert end.value.code == 0
    help_text = " ".join(capsys.readouterr().out.split())
    _, found, example = help_text.partition("example: bitwright ")
    assert found
    assert example.split()[0] == verb
    assert cli.parser().parse_args(example.split()).run is getattr(cli, verb)


def test_help_of_all_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "example: bitwright measure" in shown
    assert all(f"    {verb} " in shown for verb in VERBS)


def test_help_imports_nothing_heavy() -> None:
    """`--help` under 0.4 s is a figure of the benchmarks; that nothing heavy is imported for it is exact."""
    code = """
import sys
from toolchain import cli
try:
    cli.main(["--help"])
except SystemExit:
    pass
heavy = {"numpy", "rich", "h5py", "onnx", "serial", "unicorn", "tensorflow", "torch"} & set(sys.modules)
ours = sorted(m for m in sys.modules if m.startswith("toolchain"))
print(sorted(heavy), ours, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == "[] ['toolchain', 'toolchain.cli', 'toolchain.command_line', 'toolchain.errors']\n"


def test_inspecting_a_saved_model_imports_no_framework() -> None:
    code = """
import sys
from toolchain import cli
cli.main(["inspect", "examples/digits/model.h5"])
print(sorted({"tensorflow", "torch", "keras", "tf_keras", "qkeras", "onnx", "serial"} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"
    assert "graph digits" in done.stdout


# what is refused: (text, arguments)
READ_BY = (
    "brevitas: live torch.nn.Module objects built with Brevitas; graph_text: .graph text files; "
    "qkeras: .h5 and .keras files, live keras.Model objects; "
    "qonnx: .onnx files and live onnx.ModelProto objects (QONNX, QCDQ, QOp); tflite: .tflite files (int8, int16x8)"
)
REFUSED = {
    "an absent model": ("absent.h5: does not exist, must be a saved model", ["inspect", "absent.h5"]),
    "a foreign file": (f"foreign.txt: is no model that a front end reads ({READ_BY})", ["inspect", "foreign.txt"]),
    "a foreign file with a model's name": (
        "foreign.h5: neither an HDF5 file nor a .keras zip archive (it begins with b'hell'); save the whole model with "
        "model.save('name.h5') (QKeras 0.9, tf_keras) or model.save('name.keras') (qkeras-v3)",
        ["inspect", "foreign.h5"],
    ),
    "a folder": (f".: is no model that a front end reads ({READ_BY})", ["inspect", "."]),
    "an absent board": (
        "no board 'qemu_mps2_an368'; did you mean 'qemu_mps2_an386'? to add one, write boards/qemu_mps2_an368.toml",
        ["build", "small.graph", "--board", "qemu_mps2_an368", "--out", "out"],
    ),
    "a board like none": (
        "no board 'zzz'; see `bitwright boards`; to add one, write boards/zzz.toml",
        ["emit", "small.graph", "--board", "zzz", "--out", "out"],
    ),
    "a port for a board that has none": (
        "native: has no port: its link is 'process'; leave --port out",
        ["measure", "small.graph", "--board", "native", "--port", "/dev/ttyACM0"],
    ),
    "inputs of another shape": (
        "shape.npy: input 'x': shape [3, 5], must be [batch, 4]",
        ["simulate", "small.graph", "--inputs", "shape.npy", "--out", "y.npz"],
    ),
    "inputs that are not finite": (
        "nan.npy: input 'x': holds NaN or infinity, must be finite",
        ["simulate", "small.graph", "--inputs", "nan.npy", "--out", "y.npz"],
    ),
    "inputs that are no numbers": (
        "complex.npy: input 'x': holds complex128, must be floats (real values) or integers (stored values)",
        ["simulate", "small.graph", "--inputs", "complex.npy", "--out", "y.npz"],
    ),
    "inputs out of range": (
        "range.npy: input 'x': values 300..300, must be in 0..255 (u8)",
        ["measure", "small.graph", "--board", "native", "--inputs", "range.npy", "--out", "out"],
    ),
    "inputs by another name": (
        "named.npz: inputs: no input 'z', the graph has 'x'",
        ["simulate", "small.graph", "--inputs", "named.npz", "--out", "y.npz"],
    ),
    "absent inputs": (
        "absent.npy: does not exist, must be an .npy or .npz file",
        ["simulate", "small.graph", "--inputs", "absent.npy", "--out", "y.npz"],
    ),
    "inputs cut short": (
        "short.npy: is not an .npy or .npz file of numbers, or is cut short",
        ["simulate", "small.graph", "--inputs", "short.npy", "--out", "y.npz"],
    ),
    "too few labels": (
        "labels.npy: holds int64 [3], must be integers [2], a class for each sample",
        ["measure", "small.graph", "--board", "native", "--inputs", "good.npy", "--labels", "labels.npy"],
    ),
    "an output folder that is not there": (
        "absent/y.npz: cannot be written: No such file or directory",
        ["simulate", "small.graph", "--out", "absent/y.npz"],
    ),
    "a JSON file that cannot be": (
        "--json absent/y.json: cannot be written; name a file in a folder that is there",
        ["simulate", "small.graph", "--json", "absent/y.json"],
    ),
    "a JSON file that is a folder": (
        "--json .: cannot be written; name a file in a folder that is there",
        ["measure", "small.graph", "--board", "native", "--json", "."],
    ),
    "a name for one model": (
        "net=small.graph: one model alone has no name in C; leave NAME= out, or add --instances, for which it is put in "
        "front of all names",
        ["emit", "net=small.graph", "--board", "native", "--out", "out"],
    ),
    "a file that is a folder": (
        "folder.npz: cannot be written: Is a directory",
        ["simulate", "small.graph", "--out", "folder.npz"],
    ),
    "a folder that is no project": (
        "foreign.txt: exists and is not a bitwright project; choose another folder or remove it",
        ["emit", "small.graph", "--board", "native", "--out", "foreign.txt"],
    ),
    "an input type without a scale": (
        "--input-type: is given without --input-scale; say what one step is worth, as --input-scale 1/255",
        ["inspect", "small.graph", "--input-type", "u8"],
    ),
    "a scale without an input type": (
        "--input-scale: is given without --input-type; say the stored type too, as --input-type u8",
        ["inspect", "small.graph", "--input-scale", "1/255"],
    ),
    "an input type for a model that has one": (
        "small.graph: says its own input type; leave out --input-type",
        ["inspect", "small.graph", "--input-type", "u8", "--input-scale", "1/255"],
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_mistake_is_one_line_and_leaves_nothing(folder: Folder, fault: str) -> None:
    for name in ("foreign.txt", "foreign.h5"):
        (folder.root / name).write_text("hello\n")
    (folder.root / "folder.npz").mkdir()
    good = np.zeros((2, 4), np.int64)
    arrays = {
        "shape": np.zeros((3, 5), np.int64),
        "nan": np.full((1, 4), np.nan),
        "complex": np.zeros((1, 4), complex),
        "range": np.full((1, 4), 300),
        "good": good,
        "labels": np.zeros(3, np.int64),
    }
    for name, array in arrays.items():
        np.save(folder.root / f"{name}.npy", array)
    np.savez(folder.root / "named.npz", z=good)
    (folder.root / "short.npy").write_bytes((folder.root / "good.npy").read_bytes()[:-9])
    folder.before = folder.files()
    text, arguments = REFUSED[fault]
    folder.refuses(text, *arguments)


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("argument --seed: '-1', must be a whole number of 0 or more", ["simulate", "small.graph", "--seed", "-1"]),
        ("argument VERB: invalid choice: 'measur' (choose from ", ["measur"]),
        ("the following arguments are required: VERB", []),
        ("the following arguments are required: --board", ["measure", "small.graph"]),
        (
            "argument -n: '0', must be a whole number of 1 or more",
            ["measure", "small.graph", "--board", "b", "-n", "0"],
        ),
        ("unrecognized arguments: --bord", ["boards", "--bord"]),
    ],
)
def test_a_wrong_command_line_is_one_line_and_code_2(folder: Folder, said: str, arguments: list[str]) -> None:
    code, out, err = folder.run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: bitwright")
    assert said in err
    assert err.count("\n") == 1
    assert err.endswith("--help`\n")


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--out", ["simulate", "small.graph", "--out", "small.graph"]),
        ("--json", ["inspect", "small.graph", "--json", "./small.graph"]),
        ("--out", ["simulate", "small.graph", "--inputs", "x.npy", "--out", "x.npy"]),
    ],
)
def test_what_a_command_reads_is_never_written_over(folder: Folder, option: str, arguments: list[str]) -> None:
    np.save(folder.root / "x.npy", np.zeros((1, 4), np.int64))
    before = (folder.root / arguments[-1]).read_bytes()
    code, out, err = folder.run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {option} ")
    assert err.endswith(f"{Path(arguments[-1]).name}: is a file that this command reads; choose another name\n")
    assert (folder.root / arguments[-1]).read_bytes() == before


def test_simulate_writes_npz_alone(folder: Folder) -> None:
    text = "error: --out y.npy: must end in .npz: an array for each output is written\n"
    assert folder.run("simulate", "small.graph", "--out", "y.npy") == (2, "", text)


def test_a_port_that_is_not_there_names_those_that_are(folder: Folder) -> None:
    code, out, err = folder.run("measure", "small.graph", "--board", "nucleo_f446re")
    assert (code, out) == (2, "")
    start = "error: nucleo_f446re: is reached over a serial port and none was named; give --port; "
    assert err.startswith((start + "ports on this machine: ", start + "this machine has no serial port"))


def test_a_missing_tool_is_code_3_and_the_project_is_there(folder: Folder) -> None:
    """Emitted, but not built: what was done before the tool was needed stays."""
    code, out, err = folder.run(
        "build", "small.graph", "--board", "unicorn_m4", "--out", "out", ARM_NONE_EABI_GCC="/absent/gcc"
    )
    assert (code, out) == (3, "")
    text = "ARM_NONE_EABI_GCC is '/absent/gcc', which is no program; correct ARM_NONE_EABI_GCC or unset it"
    assert err == f"error: arm-none-eabi-gcc: {text}\n"
    assert (folder.root / "out" / "model.c").is_file()
    assert not (folder.root / "out" / "image.elf").exists()


def test_a_failed_command_leaves_the_old_project(folder: Folder) -> None:
    assert folder.run("emit", "small.graph", "--board", "native", "--out", "out")[0] == 0
    old = {name: (folder.root / name).read_bytes() for name in folder.files() if (folder.root / name).is_file()}
    folder.before = folder.files()
    text = "no board 'zzz'; see `bitwright boards`; to add one, write boards/zzz.toml"
    folder.refuses(text, "emit", "small.graph", "--board", "zzz", "--out", "out")
    assert {name: (folder.root / name).read_bytes() for name in old} == old


def outputs_differ(*_: Any, **__: Any) -> Any:
    from toolchain.measurement import Measurement, Spread

    return Measurement(
        "b", "0" * 64, "1" * 64, False, 1, 1, None, "y", None, None, "none", None, None, None, 1, 0, (), 0, 0, 0,
        Spread(1, 1, 1, 1), {},
    )  # fmt: skip


def test_outputs_that_differ_are_code_1_and_have_no_count(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("toolchain.flow.measure", outputs_differ)
    assert cli.main(["measure", str(folder.root / "small.graph"), "--board", "native", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["bit_exact"], found["count"], found["count_per_mac"], found["latency_us"]) == (
        False,
        None,
        None,
        None,
    )


JSON: dict[str, tuple[list[str], set[str]]] = {
    "inspect": (["inspect", "small.graph"], {"name", "graph", "inputs", "outputs", "macs", "weight_bytes", "ops"}),
    "simulate": (["simulate", "small.graph"], {"graph", "real", "outputs"}),
    "emit": (["emit", "small.graph", "--board", "native", "--out", "out"], {"board", "graph", "project", "files", "arena_lower_bound"}),
    "build": (
        ["build", "small.graph", "--board", "native", "--out", "out"],
        {"board", "graph", "project", "image", "flash_bytes", "ram_bytes", "arena_bytes", "arena_proved"},
    ),
    "measure": (
        ["measure", "small.graph", "--board", "native"],
        {
            "board", "graph", "bit_exact", "outputs_compared", "count_kind", "count", "overhead", "macs", "count_per_mac",
            "ops", "arena_bytes", "arena_lower_bound", "arena_proved", "flash_bytes", "ram_bytes", "round_trip_us", "versions", "accuracy", "first_difference",
        },
    ),
    "doctor": (["doctor"], {"python", "tools"}),
}  # fmt: skip


def has_compiler() -> bool:
    return tools.find("host-cc").path is not None or tools.find("zig").path is not None


@pytest.mark.parametrize("verb", JSON)
def test_json_is_the_only_thing_on_standard_output(folder: Folder, verb: str) -> None:
    if verb in ("build", "measure") and not has_compiler():
        pytest.skip(f"needs a host compiler: {tools.advice('host-cc')}")
    arguments, keys = JSON[verb]
    for option in (["--json"], ["--json", "-"]):
        code, out, _ = folder.run(*arguments, *option)
        assert code == 0
        assert keys <= set(json.loads(out))
    code, _, _ = folder.run(*arguments, "--json", "found.json")
    assert code == 0
    assert keys <= set(json.loads((folder.root / "found.json").read_text()))


def test_json_to_a_file_leaves_the_table_to_people(folder: Folder) -> None:
    code, out, err = folder.run("inspect", "small.graph", "--json", "found.json")
    assert (code, err) == (0, "")
    assert out.startswith("graph small  ")
    (folder.root / "found.json").unlink()
    assert folder.files() == folder.before


def test_boards_json_lists_every_board(folder: Folder) -> None:
    code, out, _ = folder.run("boards", "--json")
    assert code == 0
    assert [board["name"] for board in json.loads(out)] == list(boards.names())


def test_a_table_in_a_pipe_is_whole(folder: Folder) -> None:
    code, out, _ = folder.run("boards", COLUMNS="40")
    assert code == 0
    assert "…" not in out
    assert all(f"\n{name} " in out for name in boards.names())


def test_simulate_writes_what_python_gives(folder: Folder) -> None:
    x = np.arange(40).reshape(10, 4) * 6
    np.save(folder.root / "x.npy", x)
    assert folder.run("simulate", "small.graph", "--inputs", "x.npy", "--out", "y.npz")[0] == 0
    assert folder.run("simulate", "small.graph", "--inputs", "x.npy", "--out", "real.npz", "--real")[0] == 0
    expected, _ = toolchain.simulate(toolchain.load(folder.root / "small.graph"), x)
    with np.load(folder.root / "y.npz") as y, np.load(folder.root / "real.npz") as real:
        np.testing.assert_array_equal(y["y"], expected["y"])
        np.testing.assert_array_equal(real["y"], expected["y"] / 2)


def test_inspect_text_is_the_model_again(folder: Folder) -> None:
    assert folder.run("inspect", "small.graph", "--text") == (0, GRAPH, "")


@pytest.mark.parametrize("arguments", [["--json"], []])
def test_a_closed_pipe_is_no_error(folder: Folder, arguments: list[str]) -> None:
    """`bitwright ... | true`: whether the text is flushed as it is written or at the very end."""
    process = folder.start("simulate", "small.graph", *arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # long before a Python can have begun to write
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


@pytest.mark.parametrize("verb", [["boards"], ["boards", "--json"], ["inspect", "small.graph"]])
def test_a_pipe_closed_at_once_is_no_error(folder: Folder, verb: list[str]) -> None:
    process = folder.start(*verb)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0


@pytest.mark.parametrize("exact", [True, False])
def test_a_closed_pipe_does_not_change_what_was_compared(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(flow, "measure", lambda *_, **__: SimpleNamespace(bit_exact=exact, as_json=dict))
    monkeypatch.setattr(report, "measurement", closed)
    monkeypatch.setattr(cli.os, "dup2", lambda *_: None)
    assert cli.main(["measure", str(folder.root / "small.graph"), "--board", "native"]) == (0 if exact else 1)


def _many(root: Path) -> Path:
    np.save(root / "many.npy", np.zeros((40_000, 4), np.int64))
    return root / "many.npy"


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_interrupted_nothing_is_half_written(folder: Folder) -> None:
    """Ctrl-C in the middle of a build: the compiler here hangs, and is told to by its own stand-in."""
    compiler = folder.root / "hangs"
    compiler.write_text('#!/bin/sh\ncase "$*" in *--version*) echo 1.0; exit;; esac\ntouch started\nsleep 60\n')
    compiler.chmod(0o755)
    np.save(folder.root / "x.npy", np.zeros((1, 4), np.int64))
    folder.before = folder.files()
    process = folder.start(
        "measure", "small.graph", "--board", "native", "--inputs", "x.npy", "--json", "found.json",
        HOST_CC=str(compiler), TMPDIR=str(folder.root),
    )  # fmt: skip
    wait_for(lambda: any(folder.root.rglob("started")))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted; no file is half-written\n")
    assert folder.files() == folder.before
