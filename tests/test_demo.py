"""`bitwright demo` does what README says it does: the same transcript, figure for figure, and JSON for scripts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from toolchain import cli, data, demo, tools

ROOT = Path(__file__).resolve().parents[1]
MADE_WITH = {"arm-none-eabi-gcc": "12.2", "qemu-system-arm": "7.2"}


def lines(text: str) -> list[str]:
    """Without what the host's clock said, and the last digits of versions."""
    return [line.rstrip() for line in text.strip().splitlines() if not line.startswith(("round trip", "made and run"))]


def test_the_transcript_of_readme_is_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for name, version in MADE_WITH.items():
        tool = tools.find(name)
        if not tool.path or not (tool.version or "").startswith(version):
            pytest.skip(f"README's transcript was made with {name} {version}, here is {tool.version}")
    assert cli.main(["demo"]) == 0
    shown = re.search(r"<!-- transcript: bitwright demo -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown
    assert lines(capsys.readouterr().out) == lines(shown[1])


def test_a_wrong_logit_of_qkeras_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teeth: one saved logit of 3,600 a step off makes the demo fail and say so."""
    folder = tmp_path / "digits"
    folder.mkdir()
    (folder / "model.h5").write_bytes((ROOT / "examples/digits/model.h5").read_bytes())
    with np.load(ROOT / "examples/digits/test.npz") as given:
        arrays = {name: given[name].copy() for name in given.files}
    arrays["qkeras_logits"][17, 3] += 1 / 64
    np.savez(folder / "test.npz", **arrays)
    real = data.folder
    monkeypatch.setattr(demo.data, "folder", lambda name: tmp_path if name == "examples" else real(name))
    assert cli.main(["demo", "--board", "native", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["qkeras_equal"], found["bit_exact"]) == (False, True)
    assert "NOT EXACT: QKeras = simulate: False; simulate = native: True" in err


def test_the_brevitas_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """Power-of-two scales: Brevitas' own logits, simulate and the board are equal, and one wrong logit is noticed."""
    assert cli.main(["demo", "brevitas", "--board", "native", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["brevitas_equal"], found["bit_exact"], found["outputs_compared"]) == (True, True, 3600)
    assert "exact: Brevitas = simulate = native, 3,600 logits, every one equal" in err


def test_a_wrong_logit_of_brevitas_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "digits_cnn_4_po2.onnx").write_bytes((ROOT / "examples/zoo/digits_cnn_4_po2.onnx").read_bytes())
    with np.load(ROOT / "examples/zoo/data-digits.npz") as given:
        arrays = {name: given[name].copy() for name in given.files}
    arrays["digits_cnn_4_po2"][5, 1] += 1 / 16
    np.savez(folder / "data-digits.npz", **arrays)
    real = data.folder
    monkeypatch.setattr(demo.data, "folder", lambda name: tmp_path if name == "examples" else real(name))
    assert cli.main(["demo", "brevitas", "--board", "native"]) == 1
