"""Projects: deterministic, written whole or not at all; images: exact sizes, and what failed is shown."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import sample
from toolchain import boards, project, tools
from toolchain.errors import ToolchainError
from toolchain.project import Image, Project, Step

ROOT = Path(__file__).resolve().parents[1]
SMALL = Project(
    "small", {"a.txt": "one\n", "sub/b.bin": b"\0\1"}, ((sys.executable, "-c", "open('out','w')"),), "out", "g" * 64
)


STEP = Step("csynth", "vitis-run", ("-x",), "sub", ("a",), {"csynth": "a"})


class NoTools:
    def compiler(self, kind: str, core: str) -> tools.Compiler:
        return tools.Compiler(("cc", kind), ("-x", core), ("-lgcc",), "gcc", "9")


def said(act: object) -> str:
    with pytest.raises(ToolchainError) as caught:
        act()  # type: ignore[operator]
    return str(caught.value)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_digest_names_everything_but_the_order_of_files() -> None:
    same = dataclasses.replace(SMALL, files=dict(reversed(SMALL.files.items())))
    assert same.digest() == SMALL.digest()
    assert dataclasses.replace(SMALL, files={**SMALL.files, "a.txt": b"one\n"}).digest() == SMALL.digest()
    changed = (
        {"files": {**SMALL.files, "a.txt": "two\n"}},
        {"files": {"a.txt": "one\n"}},
        {"files": {"a.tx": "tone\n", "sub/b.bin": b"\0\1"}},
        {"commands": ()},
        {"product": "other"},
        {"graph_digest": "h" * 64},
        {"board": "b"},
        {"name": "n"},
        {"steps": (STEP,)},
        {"steps": (dataclasses.replace(STEP, reports={"csynth": "b"}),)},
        {"steps": (STEP, STEP)},
    )
    digests = {dataclasses.replace(SMALL, **change).digest() for change in changed}  # type: ignore[arg-type]
    assert len(digests | {SMALL.digest()}) == len(changed) + 1


def test_written_and_replaced(tmp_path: Path) -> None:
    root = SMALL.write(tmp_path / "deep" / "here")
    assert {name: data for name, data in tree(root).items() if name != "bitwright.json"} == {
        "a.txt": b"one\n",
        "sub/b.bin": b"\0\1",
    }
    dataclasses.replace(SMALL, files={"c": "3"}).write(root)
    assert sorted(tree(root)) == ["bitwright.json", "c"]
    assert [path.name for path in root.parent.iterdir()] == ["here"]  # no temporary folder stays
    assert root.stat().st_mode & 0o777 == 0o755


def test_what_the_user_added_stays_and_what_was_built_goes(tmp_path: Path) -> None:
    root = SMALL.build(tmp_path / "p", NoTools()).path.parent
    (root / "mine").mkdir()
    (root / "mine" / "main.c").write_text("int main(void) {}")
    dataclasses.replace(SMALL, files={"c": "3"}).write(root)
    assert sorted(tree(root)) == ["bitwright.json", "c", "mine/main.c"]  # `out`, of the old files, would be stale


def test_an_edit_is_refused_not_lost(tmp_path: Path) -> None:
    root = SMALL.write(tmp_path / "p")
    (root / "a.txt").write_text("mine\n")
    (root / "c").write_text("also mine")
    before = tree(root)
    text = f"{root}: holds changes of yours that would be lost: a.txt, c; choose another folder, or move them"
    assert said(lambda: dataclasses.replace(SMALL, files={"c": "3"}).write(root)) == text
    assert tree(root) == before


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    text = f"{tmp_path}/file/p: cannot be written: "
    assert said(lambda: SMALL.write(tmp_path / "file" / "p")).startswith(text)


def test_two_writes_are_equal(tmp_path: Path) -> None:
    made = sample.project("qemu_mps2_an386")
    assert tree(made.write(tmp_path / "a")) == tree(sample.project("qemu_mps2_an386").write(tmp_path / "b"))
    assert str(tmp_path) not in "".join(data.decode() for data in tree(tmp_path / "a").values())


def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    must = f"{tmp_path}: exists and is not a bitwright project; choose another folder or remove it"
    assert said(lambda: SMALL.write(tmp_path)) == must
    assert said(lambda: SMALL.write(tmp_path / "thesis.tex")).startswith(
        f"{tmp_path / 'thesis.tex'}: exists and is not"
    )
    assert sorted(tree(tmp_path)) == ["thesis.tex"]
    empty = tmp_path / "empty"
    empty.mkdir()
    SMALL.write(empty)
    (tmp_path / "link").symlink_to(empty)
    assert said(lambda: SMALL.write(tmp_path / "link")).startswith(f"{tmp_path / 'link'}: exists and is not")


def test_a_project_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    """What a vendor's tool made beside it may be large, and is not copied to say the same again."""
    made = dataclasses.replace(SMALL, steps=(STEP,))
    root = made.write(tmp_path / "p")
    (root / "large").write_text("made by a tool")
    before = (root / "large").stat().st_ino
    assert made.write(root) == root
    assert (root / "large").stat().st_ino == before
    (root / "a.txt").unlink()
    made.write(root)
    assert tree(root)["a.txt"] == b"one\n" and tree(root)["large"] == b"made by a tool"
    (root / "a.txt").write_text("mine")
    assert said(lambda: made.write(root)).endswith("would be lost: a.txt; choose another folder, or move them")


def test_what_another_projects_steps_made_is_put_aside(tmp_path: Path) -> None:
    """An old bitstream must not pass for the new project's, nor may hours of work be lost."""
    made = dataclasses.replace(SMALL, steps=(STEP, Step("bitstream", "vivado", (), makes=("x.bit", "prj"))))
    root = made.write(tmp_path / "p")
    for name in ("x.bit", "prj/a/net.v", "logs/bitstream.done", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    other = dataclasses.replace(made, files={**SMALL.files, "c": "3"})
    other.write(root)
    old = f"previous/{made.digest()[:12]}"
    aside = [f"{old}/{name}" for name in ("x.bit", "prj/a/net.v", "logs/bitstream.done")]
    assert sorted(tree(root)) == sorted([*other.files, "bitwright.json", "notes.txt", *aside])
    assert tree(root)[aside[0]] == b"x.bit"


def test_one_at_a_time_in_a_folder(tmp_path: Path) -> None:
    other = dataclasses.replace(SMALL, files={"c": "3"})
    with SMALL.held(tmp_path / "p") as root:
        before = tree(root)
        for act in (lambda: SMALL.build(root, NoTools()), lambda: other.write(root)):
            must = f"{root}: another build runs in this folder; wait for it, end it, or choose another folder"
            assert said(act) == must
        assert tree(root) == before
    other.write(root)
    assert sorted(tree(root)) == ["bitwright.json", "c"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}'])
def test_a_damaged_manifest_is_one_error(text: str, tmp_path: Path) -> None:
    root = SMALL.write(tmp_path / "p")
    (root / "bitwright.json").write_text(text)
    must = "is damaged: it must hold what bitwright wrote there; emit the project again in another folder"
    for act in (lambda: SMALL.write(root), lambda: SMALL.build(root, NoTools())):
        assert said(act) == f"{root}/bitwright.json: {must}"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc to see processes in")
def test_what_a_command_started_ends_with_it(tmp_path: Path) -> None:
    """A compiler driver starts others, which an interrupt of this process alone must end too."""
    script = (
        "import sys; from toolchain.project import Project; from pathlib import Path\n"
        "Project('p', {'a': ''}, (('sh', '-c', 'sleep 600 & echo $! > pid; wait'),), 'a').build(Path(sys.argv[1]))"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "p")], cwd=ROOT, stderr=subprocess.PIPE)
    pid = tmp_path / "p" / "pid"
    deadline = time.monotonic() + 60
    while not (pid.exists() and pid.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    sleeper = Path("/proc") / pid.read_text().strip()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert not sleeper.exists() or "State:\tZ" in (sleeper / "status").read_text()


@pytest.mark.parametrize("change", [{"folder": "../up"}, {"makes": ("/etc",)}, {"reports": {"csynth": "a/../../b"}}])
def test_a_step_stays_in_the_folder(change: dict[str, Any], tmp_path: Path) -> None:
    bad = dataclasses.replace(SMALL, steps=(dataclasses.replace(STEP, **change),))
    assert said(lambda: bad.write(tmp_path / "p")).endswith("is no name for a file of it; use a plain relative name")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\\b", "bitwright.json", "."])
def test_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    bad = dataclasses.replace(SMALL, files={"good": "", name: "x"})
    must = f"project small: {name!r} is no name for a file of it; use a plain relative name"
    assert said(lambda: bad.write(tmp_path / "p")) == must
    assert not list(tmp_path.iterdir())


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = SMALL.write(tmp_path / "p")
    before = tree(root)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(ToolchainError, match=r"p: cannot be written: disk full$"):
        dataclasses.replace(SMALL, files={"c": "3"}).write(root)
    with pytest.raises(ToolchainError, match=r"fresh: cannot be written: disk full$"):
        SMALL.write(tmp_path / "fresh")
    monkeypatch.undo()
    assert tree(root) == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_building(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    image = SMALL.build(tmp_path / "p", NoTools(), lambda what, done: seen.append((what, done)))
    assert image == Image(tmp_path / "p" / "out", "g" * 64, SMALL.digest(), "", {"flash_bytes": 0, "ram_bytes": 0}, {})
    assert [done for _, done in seen] == [0.0]


def test_placeholders() -> None:
    command = ("{compiler:arm:cortex-m0}", "a.c", '-DX="{project_digest}"', "{link:arm:cortex-m0}", "-o", "o")
    assert project.resolve(command, NoTools(), "12ab") == (
        "cc", "arm", "-x", "cortex-m0", "a.c", '-DX="12ab"', "-lgcc", "-o", "o",
    )  # fmt: skip
    assert project.versions([command], NoTools()) == {"cc arm": "9"}


def test_an_edited_project_is_another_build(tmp_path: Path) -> None:
    image = SMALL.build(tmp_path / "p", NoTools())
    (tmp_path / "p" / "a.txt").write_text("edited\n")
    assert project.build(tmp_path / "p", NoTools()).project_digest != image.project_digest
    (tmp_path / "p" / "a.txt").unlink()
    assert said(lambda: project.build(tmp_path / "p", NoTools())) == (
        f"{tmp_path / 'p'}: a.txt cannot be read; emit the project again"
    )


def test_what_a_failing_command_said_is_shown(tmp_path: Path) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    bad = dataclasses.replace(SMALL, commands=((sys.executable, "-c", code),))
    assert said(lambda: bad.build(tmp_path / "p", NoTools())) == (
        f"{tmp_path / 'p'}: the build failed (exit 3): {sys.executable} -c {code}\nout\nerr"
    )
    bad = dataclasses.replace(SMALL, commands=(("no-such-program",),))
    assert said(lambda: bad.build(tmp_path / "p", NoTools())) == (
        f"{tmp_path / 'p'}: no-such-program not found; run `bitwright doctor`"
    )
    bad = dataclasses.replace(SMALL, product="nothing")
    assert said(lambda: bad.build(tmp_path / "p", NoTools())) == (
        f"{tmp_path / 'p'}: the commands did not make nothing; read what they said"
    )


def test_a_folder_that_is_no_project(tmp_path: Path) -> None:
    must = f"{tmp_path}: has no bitwright.json that can be read; emit a project there first"
    assert said(lambda: project.build(tmp_path, NoTools())) == must
    (tmp_path / "bitwright.json").write_text('{"format": 99}')
    assert said(lambda: project.build(tmp_path, NoTools())) == (
        f"{tmp_path}: was written by another version of bitwright; emit the project again elsewhere"
    )


@pytest.mark.parametrize("family", sample.FAMILIES)
def test_sizes_are_those_of_an_independent_reader(family: str) -> None:
    elftools = pytest.importorskip("elftools.elf.elffile")
    for name in ("qemu_mps2_an386", "qemu_virt_rv32", "raspberry_pi_pico"):
        image = sample.image(name, family)
        with image.path.open("rb") as file:
            elf = elftools.ELFFile(file)
            parts = [s for s in elf.iter_sections() if s["sh_flags"] & 2]
            flash = sum(s["sh_size"] for s in parts if s["sh_type"] != "SHT_NOBITS")
            ram = sum(s["sh_size"] for s in parts if s["sh_flags"] & 1)
            segments = [
                (s["p_paddr"], s.data()) for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_filesz"]
            ]
        sizes = {k: v for k, v in image.sizes.items() if k != "stack_bound_bytes"}  # tests/test_stack.py's
        assert sizes == {"flash_bytes": flash, "ram_bytes": ram + boards.load(name).stack_bytes}
        assert project.elf_segments(image.path.read_bytes()) == segments


def test_initialised_variables_take_both_flash_and_ram(tmp_path: Path) -> None:
    plain = sample.image("qemu_mps2_an386")
    base = sample.project("qemu_mps2_an386")
    text = str(base.files["model.c"]) + "\nextern uint32_t more[100];\nuint32_t more[100] = {7};\n"
    text = text.replace("total[lane] = (int32_t)lane;", "total[lane] = (int32_t)(lane + more[1]);", 1)
    text = text.replace("static int32_t arena", "extern uint32_t more[100];\nstatic int32_t arena", 1)
    image = dataclasses.replace(base, files={**base.files, "model.c": text}).build(tmp_path / "p", sample.Toolbox(None))
    assert image.sizes["ram_bytes"] == plain.sizes["ram_bytes"] + 400
    sections = project.elf_sections(image.path.read_bytes())
    assert sections[".data"].size == 400
    assert image.sizes["flash_bytes"] == sum(sections[name].size for name in (".vectors", ".text", ".data"))


def test_what_does_not_fit_does_not_link(tmp_path: Path) -> None:
    base = sample.project("microbit")
    text = str(base.files["model.c"]).replace("arena[MODEL_ARENA_BYTES / 4]", "arena[4000]")
    big = dataclasses.replace(base, files={**base.files, "model.c": text})
    assert "the image exceeds the board's RAM" in said(lambda: big.build(tmp_path / "p", sample.Toolbox(None)))
