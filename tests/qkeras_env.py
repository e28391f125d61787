"""Where the tests find live QKeras: 0.9.0 with tf_keras in this interpreter, and the fork qkeras-v3 in a folder of its own.

Its one rule: a framework that is not here is a skip with its reason, never a silent pass.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}


def v3_folder() -> Path:
    return Path(os.environ.get("BITWRIGHT_QKERAS_V3", Path(sys.prefix) / "overlays" / "qkeras3"))


def env_of(framework: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if k not in ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND", "PYTHONPATH")}
    if framework == "qkeras-0.9":
        return {**env, **QUIET, "TF_USE_LEGACY_KERAS": "1"}
    return {**env, **QUIET, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(v3_folder())}


@functools.cache
def missing(framework: str) -> str:
    """Why `framework` cannot be used here, or an empty string."""
    if framework == "qkeras-v3" and not (v3_folder() / "qkeras").is_dir():
        return f"qkeras-v3 is not in {v3_folder()}; python3 scripts/setup.py full puts it there"
    modules = ("tensorflow", "keras") if framework == "qkeras-v3" else ("tensorflow", "tf_keras", "qkeras")
    absent = [m for m in modules if importlib.util.find_spec(m) is None]
    return f"{framework} needs {', '.join(absent)}, not installed here" if absent else ""


def need(framework: str) -> None:
    why = missing(framework)
    if why:
        pytest.skip(why)


def run(framework: str, script: str, *args: str, timeout: float = 600) -> str:
    """Run tests/<script> under the framework; its standard output."""
    need(framework)
    command = [sys.executable, str(ROOT / "tests" / script), *args]
    r = subprocess.run(command, env=env_of(framework), capture_output=True, text=True, timeout=timeout, check=False)
    assert r.returncode == 0, r.stderr[-4000:]
    return r.stdout
