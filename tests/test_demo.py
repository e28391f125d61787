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
    """Without what the host's clock said, the last digits of versions, and where an interrupt found the stack."""
    kept = [line.rstrip() for line in text.strip().splitlines() if not line.startswith(("round trip", "made and run"))]
    return [re.sub(r", [\d,]+ were used$", "", line) for line in kept]


def test_the_transcript_of_readme_is_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for name, version in MADE_WITH.items():
        tool = tools.find(name)
        if not tool.path or not (tool.version or "").startswith(version):
            pytest.skip(f"README's transcript was made with {name} {version}, here is {tool.version}")
    assert cli.main(["demo"]) == 0
    shown = re.search(r"<!-- transcript: bitwright demo -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown
    assert lines(capsys.readouterr().out) == lines(shown[1])


@pytest.mark.parametrize(
    ("name", "framework", "step"), [("qkeras", "QKeras", 1 / 64), ("brevitas", "Brevitas", 1 / 16)]
)
def test_a_wrong_logit_of_the_framework_is_noticed(
    name: str,
    framework: str,
    step: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The teeth: one saved logit of 3,600 a step off makes the demo fail and say so."""
    example = demo.EXAMPLES[name]
    for path in (example.model, example.held_out):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / "examples" / path).read_bytes())
    with np.load(tmp_path / example.held_out) as given:
        arrays = {key: given[key].copy() for key in given.files}
    arrays[example.logits][17, 3] += step
    np.savez(tmp_path / example.held_out, **arrays)
    real = data.folder
    monkeypatch.setattr(demo.data, "folder", lambda wanted: tmp_path if wanted == "examples" else real(wanted))
    assert cli.main(["demo", name, "--board", "native", "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found[f"{name}_equal"], found["bit_exact"]) == (False, True)
    assert f"NOT EXACT: {framework} = simulate: False; simulate = native: True" in err


def test_the_brevitas_demo(capsys: pytest.CaptureFixture[str]) -> None:
    """Power-of-two scales: Brevitas' own logits, simulate and the board are equal, and one wrong logit is noticed."""
    assert cli.main(["demo", "brevitas", "--board", "native", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["brevitas_equal"], found["bit_exact"], found["outputs_compared"]) == (True, True, 3600)
    assert "exact: Brevitas = simulate = native, 3,600 logits, every one equal" in err
