"""What a vendor's simulation of a network is fed and must answer: hls4ml's test bench reads the one and writes the other.

Rule: expected outputs are the reference's. A log that a vendor's tool wrote is compared as integers; one that is shorter is no pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from toolchain import reference
from toolchain.errors import ToolchainError
from toolchain.inputs import made_up
from toolchain.ir import Graph, Tensor
from toolchain.ir.types import Ints

SAMPLES = 16
INPUTS, OUTPUTS = "hls/tb_data/tb_input_features.dat", "hls/tb_data/tb_output_predictions.dat"
# AMD's and Catapult's C simulation and cosimulation; Intel's cosimulation
LOGS = tuple(f"hls/tb_data/{name}.log" for name in ("csim_results", "rtl_cosim_results", "results"))


def files(graph: Graph) -> dict[str, str]:
    """A line for each sample: the stored integers of all inputs, and of all outputs."""
    samples = made_up(graph, SAMPLES)
    outputs, _ = reference.simulate(graph, samples)
    return {INPUTS: _lines(graph.inputs, samples), OUTPUTS: _lines(graph.outputs, outputs)}


def _lines(tensors: tuple[Tensor, ...], values: Mapping[str, Ints]) -> str:
    rows = np.concatenate([values[t.name].reshape(SAMPLES, -1) for t in tensors], axis=1)
    return "".join(" ".join(map(str, row)) + "\n" for row in rows.tolist())


def check(root: Path) -> tuple[str, ...]:
    """The logs that are there, each equal to what was expected; ToolchainError names the first integer that is not."""
    expected = (root / OUTPUTS).read_text(encoding="utf-8").split()
    found = []
    for name in LOGS:
        if not (root / name).is_file():
            continue
        said = (root / name).read_text(encoding="utf-8", errors="replace").split()
        for k, (want, got) in enumerate(zip(expected, said, strict=False)):
            if not _same(want, got):
                each = len(expected) // SAMPLES
                what = f"sample {k // each}, value {k % each} is {got}, the reference says {want}"
                raise ToolchainError(str(root / name), what, "the circuit computes something else: do not use it")
        if len(said) != len(expected):
            raise ToolchainError(
                str(root / name), f"has {len(said):,} values, must have {len(expected):,}", "run the step again"
            )
        found.append(name)
    return tuple(found)


def _same(want: str, got: str) -> bool:
    try:
        return int(got) == int(want)  # never as floats: they hold no integers of more than 53 bits
    except ValueError:
        return False
