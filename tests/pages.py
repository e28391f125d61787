"""A page of docs/ as something to run: its files written into a copy of the checkout, its commands typed there.

The first line of a fenced block names its file; blocks of `sh` are commands. A page so tested cannot rot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from toolchain import tools
from toolchain.errors import MissingToolError

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("toolchain", "boards", "firmware_templates")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = re.compile(r"(?:#|//|/\*) (\S+\.\w+)(?:, in (\w+))?(?: \*/)?\n")


def sections(page: Path) -> dict[str, str]:
    """A page by its second headings."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def write(root: Path, text: str) -> list[str]:
    """Put the files of a text into a checkout; the commands it types there."""
    commands = []
    for language, body in FENCE.findall(text):
        if language == "sh":
            commands += body.splitlines()
            continue
        named = NAMES.match(body)
        assert named, f"the first line of a block must name its file: {body.splitlines()[0]!r}"
        path, table = root / named[1], named[2]
        if table:  # a line of a table of a file that is there
            before, opened, after = path.read_text().partition(f"\n{table}: ")
            declared, bracket, rest = after.partition(" = (\n")
            assert opened, f"{named[1]} has no {table}"
            assert bracket, f"{table} is no tuple over several lines"
            path.write_text(before + opened + declared + bracket + body[named.end() :] + rest)
            continue
        assert not path.exists(), f"{named[1]} is there already: what the page adds is no new file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body[named.end() :] if path.suffix in (".json", ".graph") else body)
    return commands


class Checkout:
    """A copy of this checkout in which `bitwright` and `python3` are those of the tests."""

    def __init__(self, root: Path, texts: Sequence[str], more: Sequence[str] = ()) -> None:
        self.root = root
        for name in (*COPIED, *more):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.commands = [write(root, text) for text in texts][-1]
        (root / "bin").mkdir()
        for name, rest in {"bitwright": " -m toolchain", "python3": ""}.items():
            (root / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{rest} "$@"\n')
            (root / "bin" / name).chmod(0o755)

    def run(self, command: str, code: int = 0) -> str:
        path = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(self.root)}
        done = subprocess.run(
            command, shell=True, cwd=self.root, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout + (done.stderr if code else "")

    def run_all(self) -> list[str]:
        assert self.commands
        return [self.run(command) for command in self.commands]

    def json(self, name: str) -> Any:
        return json.loads((self.root / name).read_text())


def needs(*names: str) -> None:
    for name in names:
        if not tools.find(name).path:
            pytest.skip(f"needs {name}: {tools.advice(name)}")


def needs_compiler(kind: Any, core: str) -> None:
    try:
        tools.compiler(kind, core)
    except MissingToolError as error:
        pytest.skip(str(error))
