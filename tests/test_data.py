"""toolchain/data.py finds the data folders beside the package and inside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolchain import data
from toolchain.errors import ToolchainError


def test_the_checkout_goes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "toolchain"
    inside, beside = package / "_data" / "boards", tmp_path / "boards"
    inside.mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(package / "data.py"))
    assert data.folder("boards") == inside
    beside.mkdir()
    assert data.folder("boards") == beside
    with pytest.raises(ToolchainError) as error:
        data.folder("examples")
    assert str(error.value) == (
        f"data folder 'examples': is neither beside {package} nor in {package / '_data'}; install bitwright again"
    )


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(ToolchainError) as error:
        data.folder("boarsd")
    assert str(error.value) == (
        "data folder 'boarsd': is none of boards, examples, firmware_templates; did you mean 'boards'?"
    )
