"""What every test may use, and the rule for skips: each is printed with its reason, and fails a run with STRICT=1."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"

# before anything imports TensorFlow: QKeras 0.9.0 is Keras 2
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing")


def _strict_skips(config: pytest.Config) -> list[str]:
    """What was skipped in a strict run; a worker of xdist has no reporter, the session that started it has."""
    if os.environ.get("BITWRIGHT_STRICT", "") in ("", "0"):
        return []
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return [report.nodeid for report in reporter.stats.get("skipped", [])] if reporter else []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _strict_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skips = _strict_skips(config)
    if skips:
        terminalreporter.section("STRICT=1: a skip is a failure")
        for nodeid in skips:
            terminalreporter.line(nodeid)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of given data, named by BITWRIGHT_SHARED; the test is skipped where it is not there."""
    folder = Path(os.environ.get("BITWRIGHT_SHARED") or "../shared")
    folder = folder if folder.is_absolute() else ROOT / folder
    if not folder.is_dir():
        pytest.skip(f"no folder of given data at {folder}; set BITWRIGHT_SHARED")
    return folder


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: text equals tests/golden/name, or becomes it under --update-golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.is_file(), f"no {path.relative_to(ROOT)}; `make golden` writes it"
        assert text == path.read_text(), f"differs from {path.relative_to(ROOT)}; `make golden` and read the diff"

    return check
