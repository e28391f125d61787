"""Random graphs: the generated C, natively and under sanitizers, is the reference. On emulated cores: test_differential.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.graphs import graphs, inputs_for, random_graph
from tests.native import run_native, run_tensors
from toolchain import passes, reference
from toolchain.ir import Graph
from toolchain.layout import tensors

SAMPLES = 10


def compare(graph: Graph, seed: int, sanitize: bool) -> None:
    inputs = inputs_for(graph, SAMPLES, seed)
    expected, _ = reference.simulate(graph, inputs)
    got = run_native(graph, inputs, sanitize=sanitize)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_native_is_the_reference_on_what_hypothesis_draws(graph: Graph) -> None:
    compare(graph, 0, sanitize=True)


@pytest.mark.parametrize("seed", range(16))
def test_native_is_the_reference(seed: int) -> None:
    compare(random_graph(1000 + seed, 10), seed, sanitize=seed % 4 == 0)


@pytest.mark.parametrize("seed", range(6))
def test_every_tensor_is_the_reference(seed: int) -> None:
    graph, plan = passes.run(random_graph(3000 + seed, 10))
    inputs = inputs_for(graph, 4, seed)
    values = reference.trace(graph, inputs)
    for slot, got in zip(tensors(graph, plan), run_tensors(graph, plan, inputs).values(), strict=True):
        np.testing.assert_array_equal(got, values[slot.name].reshape(len(got), -1), err_msg=slot.name)
