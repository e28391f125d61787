"""scripts/setup.py planned for machines that are not this one; no venv is made and nothing is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.modules import load

ROOT = Path(__file__).resolve().parents[1]


setup = load("bitwright_setup", "scripts/setup.py")
ALL = frozenset(setup.NATIVE)
BARE = setup.Machine((3, 11), frozenset(), None)
RICH = setup.Machine((3, 11), ALL, ())
BARE_MEANS = setup.Means(False, "", False)


def commands(level: str, machine: object) -> list[str]:
    return [" ".join(step.argv) for step in setup.pip_steps(level, machine, "V")]


INSTALL = "V/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt"
PIP = f"{INSTALL} --no-compile pip"


@pytest.mark.parametrize(
    ("programs", "what"),
    [
        (ALL, "."),
        (ALL - {"arm-none-eabi-gcc"}, ".[compiler]"),
        (ALL - {"qemu-system-arm"}, ".[emulator]"),
        (frozenset({"gcc"}), ".[compiler,emulator]"),
        (ALL - {"gcc", "qemu-system-riscv32", "riscv64-unknown-elf-gcc"}, "."),
    ],
)
def test_a_demo_takes_stand_ins_only_for_what_is_missing(programs: frozenset[str], what: str) -> None:
    machine = setup.Machine((3, 11), programs, ())
    assert commands("demo", machine) == [PIP, f"{INSTALL} -e {what}"]


def test_full_takes_torch_first_and_alone_and_the_fork_outside_site_packages() -> None:
    assert commands("full", RICH) == [
        PIP,
        f"{INSTALL} torch",
        f"{INSTALL} -e .[all,test]",
        f"{INSTALL} --no-deps --upgrade --target V/overlays/qkeras3 qkeras-v3==1.2.1",
        f"{INSTALL} --no-deps --upgrade --target V/overlays/aeon aeon==1.6.0",
    ]


@pytest.mark.parametrize("python", [(3, 10), (3, 14)])
def test_full_without_wheels_of_the_frameworks_still_runs_the_rest(python: tuple[int, int]) -> None:
    machine = setup.Machine(python, ALL, None)
    assert commands("full", machine) == [PIP, f"{INSTALL} -e .[compiler,emulator,test]"]


def test_apt_is_asked_only_for_what_is_missing() -> None:
    assert setup.apt_steps(RICH) == ([], [])
    steps, notes = setup.apt_steps(setup.Machine((3, 11), ALL - {"qemu-system-arm"}, ("sudo", "-n")))
    assert [" ".join(step.argv) for step in steps] == [
        "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get update -q",
        "sudo -n env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends qemu-system-arm",
    ]
    assert notes == []
    assert all(step.else_note for step in steps)  # no network for apt: the tests that need it are skipped, said so


def test_data_are_looked_for_in_their_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = setup.Native(("dataset-x",), "x is skipped", str(tmp_path / "x"))
    monkeypatch.setattr(setup, "NATIVE", {"x": data})
    stub(tmp_path / "x.bin" / "x", "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "x.bin"))  # a program of that name is not the data
    assert setup.look().programs == frozenset()
    (tmp_path / "x").mkdir()
    assert setup.look().programs == frozenset({"x"})


def test_without_root_it_says_what_is_skipped_and_why() -> None:
    assert setup.apt_steps(BARE) == (
        [],
        [
            "no arm-none-eabi-gcc: tests of GCC's Cortex-M firmware are skipped; zig's run",
            "no qemu-system-arm: tests on QEMU's Cortex-M boards are skipped; unicorn_m4 runs",
            "no qemu-system-riscv32: tests on qemu_virt_rv32 are skipped",
            "no riscv64-unknown-elf-gcc: tests of GCC's RV32 firmware are skipped; zig's run",
            "no gcc: tests that compile for the host use zig; those of UBSan and ASan are skipped",
            "no g++: tests of the C simulation of HLS projects are skipped",
            "no verilator: tests of the FPGA design at its pins are skipped",
            "no avr-gcc: tests of ATmega328P firmware are skipped",
            "no simavr: tests on simavr_uno are skipped",
            "no npm: tests on rp2040js_pico are skipped",
            "no fashion-mnist: its models in examples/zoo cannot be trained anew; tests of that are skipped",
            "to have them, as root: apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm "
            "qemu-system-misc gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf gcc libc6-dev g++ "
            "verilator make gcc-avr avr-libc simavr libsimavr-dev nodejs npm dataset-fashion-mnist",
        ],
    )


def test_npm_fills_a_folder_of_the_venv_once_and_by_the_lock(tmp_path: Path) -> None:
    """Run with a stand-in for npm that writes what npm writes; `make demo` needs none of it."""
    assert setup.npm_steps("demo", tmp_path) == []
    (step,) = setup.npm_steps("full", tmp_path)
    assert "tests on rp2040js_pico are skipped" in step.else_note
    stub(
        tmp_path / "bin" / "npm",
        'echo "$@" > "$3/called"; mkdir -p "$3/node_modules"; touch "$3/node_modules/.package-lock.json"',
    )
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(step.argv, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    called = (tmp_path / "npm" / "called").read_text()
    assert called == f"ci --prefix {tmp_path / 'npm'} --ignore-scripts --no-audit --no-fund\n"
    assert setup.npm_steps("full", tmp_path) == []
    (tmp_path / "npm" / "package-lock.json").write_text("{}")
    assert setup.npm_steps("full", tmp_path) == [step]


def ways(ensurepip: bool, pip: str, debs: bool) -> list[list[str]]:
    means = setup.Means(ensurepip, pip, debs)
    return [[" ".join(step.argv) for step in way] for way in setup.venv_ways(means, "py", "V")]


BARE_VENV = "py -m venv --clear --without-pip V"
WANTED = "install --quiet --disable-pip-version-check -c constraints.txt --no-compile pip"


def test_the_ways_to_a_first_pip_are_planned_in_order_and_only_where_there_is_something_to_try() -> None:
    first, second, third = ways(True, "/bin/python3.12", True)
    assert first == ["py -m venv --clear V"]
    assert second == [BARE_VENV, f"/bin/python3.12 -m pip --python V/bin/python {WANTED}"]
    assert third[0] == BARE_VENV
    assert third[3].endswith(" download python3-pip-whl")
    assert third[-1] == "rm -rf V/apt"
    assert ways(False, "", True) == [third]
    assert ways(False, "/bin/python3.12", False) == [second]
    assert ways(True, "", False) == [first]
    assert ways(False, "", False) == []


def test_debians_package_is_fetched_without_touching_the_system() -> None:
    (steps,) = ways(False, "", True)
    for verb in ("update", "download"):
        (step,) = [step for step in steps if "apt-get" in step and f" {verb}" in step]
        assert "-o Dir::State=V/apt/state -o Dir::Cache=V/apt/cache" in step
        assert "sudo" not in step
        assert " install" not in step


def stub(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_debians_wheel_is_found_whatever_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The chain of commands for real, with stand-ins for the programs; the folder's name has a space."""
    venv = tmp_path / "my venv"
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    log = tmp_path / "log"
    stub(tmp_path / "bin/py", f'mkdir -p "$5/bin"; cp {tmp_path}/venvpy "$5/bin/python"')
    stub(tmp_path / "venvpy", f'echo "$@" >> {log}')
    stub(tmp_path / "bin/apt-get", 'case "$*" in *download*) : > python3-pip-whl_1.2_all.deb;; esac')
    stub(
        tmp_path / "bin/dpkg-deb",
        'wheels="$3/usr/share/python-wheels"; mkdir -p "$wheels"; cp "$2" "$wheels/pip-1.2-py3.whl"',
    )
    (way,) = setup.venv_ways(setup.Means(False, "", True), "py", str(venv))
    for step in way:
        setup.run(step)
    assert log.read_text() == f"{venv}/apt/usr/share/python-wheels/pip-1.2-py3.whl/pip {WANTED}\n"
    assert sorted(path.name for path in venv.iterdir()) == ["bin"]


def test_a_way_that_fails_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    good, bad, worse = (
        setup.Step(*step) for step in (("good", ("mkdir", "V")), ("bad", ("false",)), ("no", ("true",)))
    )
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "venv_ways", lambda *_: [[bad, worse], [good], [bad]])
    setup.make_venv(tmp_path / "V", BARE_MEANS)
    assert setup.python_of(tmp_path / "V") is None  # an empty folder is no venv, but
    assert (tmp_path / "V/.bitwright-home").read_text() == str(tmp_path)  # it is marked as made here


def test_with_no_way_to_a_pip_one_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(setup.SetupError) as error:
        setup.make_venv(tmp_path / ".venv", BARE_MEANS)
    assert str(error.value) == (
        "no pip for .venv:\n"
        "  ensurepip is missing from this Python\n"
        "  no python3.N on PATH has pip 22.3 or newer\n"
        "  no apt-get and dpkg-deb to fetch one with\n"
        "mend one of them, then run it again; on Debian and Ubuntu, as root: apt-get install python3-venv"
    )
    assert not (tmp_path / ".venv").exists()


def test_when_every_way_fails_the_error_holds_what_each_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    say = [[setup.Step("x", ("sh", "-c", f"echo {word}; exit 1"))] for word in ("red", "green", "blue")]
    monkeypatch.setattr(setup, "venv_ways", lambda *_: say)
    with pytest.raises(setup.SetupError) as error:
        setup.make_venv(tmp_path / ".venv", setup.Means(True, "/bin/python3.12", True))
    lines = str(error.value).splitlines()
    assert [line for line in lines if line in ("red", "green", "blue")] == ["red", "green", "blue"]
    assert lines[-5:-1] == [
        "no pip for .venv:",
        "  ensurepip failed",
        "  pip of /bin/python3.12 failed",
        "  fetching Debian's python3-pip-whl failed: has apt its network and Debian's own sources?",
    ]
    assert not (tmp_path / ".venv/.bitwright-home").exists()


@pytest.mark.parametrize(
    ("answer", "serves"),
    [
        ("echo pip 22.3 from /x", True),
        ("echo pip 26.3.1 from /x", True),
        ("echo pip 22.2.2 from /x", False),
        ("echo pip 9.0.3 from /x", False),
        ("echo No module named pip >&2; exit 1", False),
    ],
)
def test_a_pip_serves_if_it_can_fill_another_venv(tmp_path: Path, answer: str, serves: bool) -> None:
    stub(tmp_path / "py", answer)
    assert setup.has_pip(str(tmp_path / "py")) is serves
    assert setup.has_pip(str(tmp_path / "gone")) is False


def test_a_pip_of_another_python_on_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, answer in (("here", "exit 1"), ("bin/python3.13", "echo pip 20.0"), ("bin/python3.12", "echo pip 24.0")):
        stub(tmp_path / name, answer)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(setup.sys, "executable", str(tmp_path / "here"))
    monkeypatch.setattr(setup.importlib.util, "find_spec", lambda name: None)
    assert setup.look_for_pip() == setup.Means(False, str(tmp_path / "bin/python3.12"), False)
    stub(tmp_path / "bin/apt-get", "exit 1")
    assert not setup.look_for_pip().debs
    stub(tmp_path / "bin/dpkg-deb", "exit 1")
    assert setup.look_for_pip().debs


def test_the_key_changes_with_what_is_installed_and_with_nothing_else() -> None:
    inputs = {"constraints.txt": b"numpy==2.4.6\n"}
    key = setup.key("demo", RICH, "V", inputs)
    assert key == setup.key("demo", setup.Machine((3, 11), ALL, None), "V", dict(inputs))
    assert key != setup.key("demo", BARE, "V", inputs)
    assert key != setup.key("full", RICH, "V", inputs)
    assert key != setup.key("demo", RICH, "V", {"constraints.txt": b"numpy==2.4.5\n"})


def test_a_venv_of_another_checkout_is_not_used(tmp_path: Path) -> None:
    venv = tmp_path / ".venv"
    assert setup.python_of(venv) is None
    (venv / "bin").mkdir(parents=True)
    (venv / "lib/python3.12").mkdir(parents=True)
    (venv / "bin/python").symlink_to(sys.executable)
    home = venv / ".bitwright-home"
    home.write_text(str(setup.ROOT))
    assert setup.python_of(venv) == (3, 12)
    home.write_text("/elsewhere")
    assert setup.python_of(venv) is None
    home.write_text(str(setup.ROOT))
    (venv / "bin/python").unlink()
    (venv / "bin/python").symlink_to(tmp_path / "gone")
    assert setup.python_of(venv) is None


def test_a_failed_step_shows_what_it_printed(capfd: pytest.CaptureFixture[str]) -> None:
    say = ("sh", "-c", "echo no such package; exit 3")
    with pytest.raises(setup.SetupError) as error:
        setup.run(setup.Step("install", say))
    assert str(error.value) == (
        "sh -c 'echo no such package; exit 3'\nno such package\nfailed with exit code 3; mend it, run it again"
    )
    assert setup.run(setup.Step("apt", say, "no qemu: skipped")) is False
    assert capfd.readouterr().out.splitlines()[1:] == ["  apt ... failed (3)", "no such package", "  no qemu: skipped"]


def test_an_old_python_with_no_newer_beside_it_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(setup.sys, "version_info", (3, 9, 2))
    with pytest.raises(setup.SetupError) as error:
        setup.right_python("demo")
    assert str(error.value) == "python3 is 3.9, 3.10 or newer is needed; install one as python3.N on PATH"


def test_another_python_on_path_takes_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for minor in (10, 12, 13):
        path = tmp_path / f"python3.{minor}"
        path.write_text(f"#!/bin/sh\nexit {1 if minor == 13 else 0}\n")  # a shim whose Python is not there fails
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr(setup.sys, "version_info", (3, 10, 1))
    taken: list[str] = []
    monkeypatch.setattr(setup.os, "execv", lambda path, argv: taken.append(path))
    setup.right_python("demo")
    assert taken == []
    setup.right_python("full")
    assert taken[0] == str(tmp_path / "python3.12")


def test_a_dry_run_changes_nothing() -> None:
    def listing() -> list[str]:
        return sorted(path.name for path in ROOT.iterdir())

    before = listing()
    done = subprocess.run(
        [sys.executable, "scripts/setup.py", "full", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ".venv/bin/python -m pip install" in done.stdout
    assert listing() == before


def test_no_package_of_anyone_lies_in_the_repository() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    assert [name for name in tracked if name.endswith((".whl", ".deb", ".egg", ".jar", ".tar.gz", ".zip"))] == []


def test_the_six_packages_are_declared_and_pinned() -> None:
    tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    declared = " ".join(requirement for requirements in lists for requirement in requirements)
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    for name in ("hls4ml", "qkeras", "tensorflow", "numpy", "pyserial", "brevitas"):
        assert f"{name}>=" in declared or f"{name}==" in declared
        assert any(line.startswith(f"{name}==") for line in pinned)


STRICT = """
import pytest

def test_good():
    pass

def test_skipped():
    pytest.skip("no tool")
"""


@pytest.mark.parametrize(("strict", "workers", "code"), [("", "0", 0), ("1", "0", 1), ("1", "2", 1), ("0", "0", 0)])
def test_strict_fails_on_a_skip(tmp_path: Path, strict: str, workers: str, code: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(STRICT)
    argv = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-n", workers, str(tmp_path)]
    env = {**os.environ, "BITWRIGHT_STRICT": strict}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == code, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert "no tool" in done.stdout
    assert ("STRICT=1: a skip is a failure" in done.stdout) == bool(code)
