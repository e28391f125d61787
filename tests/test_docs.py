"""The documents, held to what they say: links lead somewhere, commands parse and run, tables are those of the files."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import pages
from tests.pages import Checkout, needs, needs_compiler
from toolchain import boards, cli, flow, fpga_boards, reference

ROOT = pages.ROOT
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
IDS = [page.name for page in PAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)")
TOOLCHAIN = ROOT / "toolchain"


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", pages.FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", pages.FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def commands(page: Path) -> list[str]:
    """Each `bitwright ...` of a page: in a block of sh or yaml, or indented; not in what a command printed."""
    text = page.read_text()
    blocks = [body for language, body in pages.FENCE.findall(text) if language in ("sh", "yaml")]
    blocks += re.findall(r"^    .+$", pages.FENCE.sub("", text), re.MULTILINE)
    lines = [line.strip().removeprefix("- run: ") for block in blocks for line in block.splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?bitwright ", line)]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_parse(page: Path) -> None:
    for command in commands(page):
        words = shlex.split(command.replace(" ... ", " model.h5 "), comments=True)[1:]
        try:
            cli.parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page.name}: the command line does not take: {command}")


def test_commands_are_found() -> None:
    assert len(commands(ROOT / "README.md")) >= 6
    assert len(commands(DOCS / "tutorial_qkeras.md")) >= 6
    assert len(commands(DOCS / "tutorial_ci.md")) >= 6
    assert len(commands(BREVITAS)) >= 6


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_verbs_and_make_targets_in_the_text_exist(page: Path) -> None:
    (sub,) = [a for a in cli.parser()._actions if isinstance(a.choices, dict)]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text()
    assert set(re.findall(r"`bitwright ([a-z]+)", text)) <= set(sub.choices or ())
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets


# docs/architecture.md

ARCHITECTURE = DOCS / "architecture.md"


def rows() -> list[list[str]]:
    """The names in backquotes of each table row's first cell."""
    found = re.findall(r"^\| (`.+?) \|", ARCHITECTURE.read_text(), re.MULTILINE)
    return [re.findall(r"`([^`]+)`", cell) for cell in found]


def test_what_architecture_names_exists() -> None:
    absent = [name for row in rows() for name in row if not (TOOLCHAIN / name).exists() and not (ROOT / name).exists()]
    assert absent == []
    text = ARCHITECTURE.read_text()
    named = set(re.findall(r"`((?:docs|toolchain|tests|scripts|firmware_templates)/[\w/.]+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_architecture_names_every_module() -> None:
    """Modules of toolchain/ and of ir/ by file, what lies in the other rooms by its name in the room's row."""
    text = ARCHITECTURE.read_text()
    named = {name for row in rows() for name in row}
    missing = []
    for path in sorted(TOOLCHAIN.iterdir()):
        if path.suffix == ".py" and path.name != "__init__.py" and path.name not in named:
            missing.append(path.name)
        if not path.is_dir() or path.name == "__pycache__":
            continue
        if path.name != "ir" and f"{path.name}/" not in named:
            missing.append(f"{path.name}/")
        for inner in sorted(path.iterdir()):
            if inner.name.startswith(("_", ".")) or inner.suffix not in ("", ".py"):
                continue
            if path.name == "ir":
                missing += [f"ir/{inner.name}"] * (f"ir/{inner.name}" not in named)
            elif not re.search(rf"\b{inner.stem}\b", _row(text, path.name)):
                missing.append(f"{path.name}/{inner.name}")
    assert missing == []


def _row(text: str, room: str) -> str:
    found = re.search(rf"^\| `{room}/` .*$", text, re.MULTILINE)
    return found[0] if found else ""


# docs/boards.md

BOARDS = DOCS / "boards.md"


def markdown(header: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def board_tables() -> dict[str, str]:
    every = [boards.load(name) for name in boards.names()]
    listed, gates, flashed = [], [], []
    for b in every:
        clock = f"{b.clock_hz / 1e6:g} MHz" if b.clock_hz else ""
        if b.fpga:
            f = b.fpga
            sizes = [f"{n:,}" if n else "" for n in (f.luts, f.ffs, f.dsps, f.brams, f.bram_bits, f.urams)]
            core = f"{f.core_clock_hz / 1e6:g} MHz"
            gates.append([f"`{b.name}`", b.part, ", ".join(f.tools), f.top, b.link, clock, core, *sizes])
        else:
            sizes = [f"{n:,}" if n else "" for n in (b.flash_bytes, b.ram_bytes)]
            listed.append([f"`{b.name}`", b.part, b.core, clock, *sizes, b.link, b.counter])
        if b.flash_command:
            file = "firmware/image.elf" if not b.fpga else "firmware/nn_board.bit"
            command = shlex.join(b.flash_command).replace("{image}", file)
            flashed.append([f"`{b.name}`", f"`{command}`"])
    header = ["board", "part", "core", "clock", "flash bytes", "RAM bytes", "link", "counter"]
    fpga = [
        "board",
        "part",
        "tools",
        "top",
        "link",
        "oscillator",
        "core clock",
        "LUTs",
        "FFs",
        "DSPs",
        "BRAMs",
        "bits of a BRAM",
        "URAMs",
    ]
    return {
        "boards": markdown(header, listed),
        "fpga": markdown(fpga, gates),
        "flash": markdown(["board", "command"], flashed),
    }


@pytest.mark.parametrize("name", ["boards", "fpga", "flash"])
def test_tables_of_boards_are_those_of_the_files(name: str, request: pytest.FixtureRequest) -> None:
    text = BOARDS.read_text()
    pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    wanted = f"\n{board_tables()[name]}\n\n"
    if request.config.getoption("--update-golden"):
        text = pattern.sub(lambda m: m[1] + wanted + m[3], text)
        BOARDS.write_text(text)
    found = pattern.search(text)
    assert found
    assert found[2] == wanted, "make golden"


def test_every_key_of_a_board_is_documented() -> None:
    section = pages.sections(BOARDS)["The keys of a board file"]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    documented = [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(f.name for f in dataclasses.fields(boards.Board) if f.name != "name")
    words = set(re.findall(r"`(\w[\w-]*)`", section))
    section = pages.sections(BOARDS)["The keys of fpga"]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    documented = [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]
    assert sorted(documented) == sorted(field.name for field in dataclasses.fields(boards.Fpga))
    assert {*fpga_boards.TOOLS, *filter(None, fpga_boards.TOPS), *fpga_boards.PINS} <= set(
        re.findall(r"`(\w+)`", section)
    )
    assert set(boards.CORES) <= words
    assert set(boards.COUNTERS) - {"fpga"} <= words
    assert set(boards.modules("links")) <= words
    assert set(boards.STEPS) <= words


def test_every_board_of_silicon_has_a_flash_command() -> None:
    for name in boards.names():
        board = boards.load(name)
        loaded = board.link == "serial" and (not board.fpga or board.fpga.top == "artix")
        assert bool(board.flash_command) == loaded, name


# the tutorials, run

TUTORIAL, CI = DOCS / "tutorial_qkeras.md", DOCS / "tutorial_ci.md"
BREVITAS, FPGA = DOCS / "tutorial_brevitas.md", DOCS / "tutorial_fpga_hls.md"


def checkout(page: Path, folder: Path) -> Checkout:
    return Checkout(folder, [page.read_text()], ["examples"])


def test_the_tutorial_runs(tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    if not shutil.which("cc"):
        pytest.skip("needs cc")
    tutorial = checkout(TUTORIAL, tmp_path)
    said = {command: tutorial.run(command) for command in tutorial.commands if " verify " not in command}
    assert said["python3 diagnose.py examples/digits/model.h5 native"] == "every tensor equals the reference\n"
    measured = tutorial.json("measured.json")
    assert measured["bit_exact"] is True
    assert measured["outputs_compared"] == 3600
    assert measured["accuracy"] == measured["reference_accuracy"] > 0.95
    graph = flow.load(tmp_path / "examples/digits/model.h5")
    logits = reference.simulate(graph, {"image": np.load(tmp_path / "x.npy")})[0]["logits"]
    with np.load(tmp_path / "logits.npz") as saved:
        np.testing.assert_array_equal(saved["logits"], logits)
    own = [line.split() for line in (tmp_path / "digits.txt").read_text().splitlines()]
    np.testing.assert_array_equal([int(digit) for digit, _ in own], logits.argmax(axis=1))
    np.testing.assert_array_equal([float(value) * 64 for _, value in own], logits.max(axis=1))


def test_the_tutorials_verify_runs(tmp_path: Path) -> None:
    if importlib.util.find_spec("qkeras") is None or importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs QKeras and TensorFlow: make test")
    tutorial = checkout(TUTORIAL, tmp_path)
    (verify,) = [command for command in tutorial.commands if " verify " in command]
    tutorial.run("python3 split.py")
    assert "\nequal: " in tutorial.run(verify)


def test_the_brevitas_tutorial_runs(tmp_path: Path) -> None:
    needs("arm-none-eabi-gcc", "qemu-system-arm")
    for package in ("torch", "brevitas", "qonnx", "onnxruntime", "sklearn", "unicorn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: make test")
    tutorial = checkout(BREVITAS, tmp_path)
    said = {command.split()[1] + command.split()[-1]: tutorial.run(command) for command in tutorial.commands}
    assert re.search(r"^equal", said["verifyx.npy"], re.MULTILINE)
    assert said["live.pylive.py"].startswith("equal")
    assert said["live.pylive.py"].endswith("True\n")
    measured = tutorial.json("measured.json")
    assert measured["bit_exact"] is True
    assert measured["outputs_compared"] == 3600
    assert measured["accuracy"] == measured["reference_accuracy"] > 0.9
    graph = flow.load(tmp_path / "model.onnx")
    with np.load(tmp_path / "logits.npz") as saved:
        logits, _ = flow.simulate(graph, np.load(tmp_path / "x.npy"))
        np.testing.assert_array_equal(saved["logits"], logits["logits"])
    assert (tmp_path / "firmware" / "image.elf").is_file()


def test_the_fpga_tutorial_runs(tmp_path: Path) -> None:
    """As far as a machine without a vendor's tools goes: the build ends with code 3, everything before it done."""
    needs("host-cxx", "verilator")
    if importlib.util.find_spec("hls4ml") is None:
        pytest.skip("needs hls4ml: make test")
    tutorial = checkout(FPGA, tmp_path)
    said: dict[str, str] = {}
    for command in tutorial.commands:
        missing = command.endswith("# code 3")
        said[command] = tutorial.run(command.removesuffix("# code 3").rstrip(), code=3 if missing else 0)
    estimated = tutorial.json("estimate.json")
    assert estimated["total"]["latency_us"] <= 20
    assert estimated["label"] == "modelled"
    for name in ("csim.json", "simulated.json"):
        measured = tutorial.json(name)
        assert measured["bit_exact"] is True
        assert (measured["count"], measured["count_kind"]) == (None, "none")
    assert tutorial.json("csim.json")["accuracy"] == tutorial.json("csim.json")["reference_accuracy"] > 0.95
    assert sum(text.startswith("exact on csim") for text in said.values()) == 3
    manifest = tutorial.json("design/bitwright.json")
    assert [step["name"] for step in manifest["steps"]] == ["csynth", "cosim", "ip", "bitstream"]
    assert {"hls/firmware/network.cpp", "verilog/nn_top.v", "bitstream.tcl", "board.xdc"} <= set(manifest["files"])


def test_diagnose_finds_where_a_difference_begins(tmp_path: Path) -> None:
    """With the weights of the second convolution negated in the C alone."""
    needs_compiler("host", "host")
    tutorial = checkout(TUTORIAL, tmp_path)
    source = tmp_path / "toolchain" / "backends" / "c" / "tables.py"
    line = "return ctype(const.tensor.qtype), const.array.ravel().tolist()"
    text = source.read_text()
    assert line in text
    broken = line.replace(
        ".tolist()", ".tolist() if 'conv2' not in const.tensor.name else (-const.array).ravel().tolist()"
    )
    source.write_text(text.replace(line, broken))
    told = tutorial.run("python3 diagnose.py examples/digits/model.h5 native", code=1)
    assert told == "sample 0: %relu2 is the first that differs\n"


def test_the_ci_page_runs(tmp_path: Path) -> None:
    needs("qemu-system-arm")
    needs_compiler("arm", "cortex-m4f")
    page = checkout(CI, tmp_path)
    (tmp_path / "bin" / "openocd").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > flashed\n')
    (tmp_path / "bin" / "openocd").chmod(0o755)
    said = dict(zip(["measure", "first", "second", "build", "flash"], page.run_all(), strict=True))
    assert said["first"] == "wrote baseline.json: commit it\n"
    assert said["second"] == "no dearer than the baseline\n"
    assert "program firmware/image.elf verify reset exit" in (tmp_path / "flashed").read_text()
    known = (tmp_path / "baseline.json").read_text()
    (tmp_path / "baseline.json").write_text(re.sub(r'"count": \d+', '"count": 1', known))
    assert page.run("python3 gate.py measured.json baseline.json", code=1).startswith(
        "costs more than baseline.json: count 1 -> "
    )
    wrong = (tmp_path / "measured.json").read_text().replace('"bit_exact": true', '"bit_exact": false')
    (tmp_path / "wrong.json").write_text(wrong)
    assert page.run("python3 gate.py wrong.json baseline.json", code=1) == "outputs differ: None\n"
    told = page.run("python3 flash.py native firmware/image.elf", code=1)
    assert told == "native is not flashed: its link is process\n"
