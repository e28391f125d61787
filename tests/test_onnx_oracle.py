"""The exact interpreter against qonnx and onnxruntime: equal wherever float32 holds every value, within its rounding elsewhere.

The quick run takes a part of the table, BITWRIGHT_FULL=1 all of it.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests import onnx_models
from tests.onnx_exact import Interpreter
from tests.onnx_numbers import Exact, rounded, sigmoid, square_root, tanh

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
FRAMEWORKS = [m for m in ("qonnx", "onnxruntime") if importlib.util.find_spec(m) is None]
needs_frameworks = pytest.mark.skipif(bool(FRAMEWORKS), reason=f"not installed here: {', '.join(FRAMEWORKS)}")

SCALES = {
    "Quant": (1,), "IntQuant": (1,), "BipolarQuant": (1,), "Trunc": (1, 4), "QuantizeLinear": (1,), "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6), "QLinearMatMul": (1, 4, 6),
}  # fmt: skip

# What the frameworks do not run, or run otherwise, with the reason.
NOT_THERE = {
    "domain-finn": "qonnx knows this domain only where finn is installed",
}


def framework(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """qonnx where the model has its ops, else onnxruntime alone."""
    import onnxruntime

    if any(n.domain for n in model.graph.node):
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        return dict(execute_onnx(ModelWrapper(model).transform(InferShapes()), inputs))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [o.name for o in model.graph.output]
    return dict(zip(names, session.run(names, inputs), strict=True))


def short(v: float) -> bool:
    """Few enough bits that products and quotients inside a node stay exact."""
    part = Fraction(float(v))
    return abs(part.numerator).bit_length() <= 12 and part.denominator.bit_length() <= 12


def power_of_two(v: Fraction) -> bool:
    return v > 0 and v.numerator & (v.numerator - 1) == 0 and v.denominator & (v.denominator - 1) == 0


def plain(interpreter: Interpreter) -> bool:
    """Every scale is a power of two and every float attribute short."""
    nodes = interpreter.model.graph.node
    names = {n.input[i] for n in nodes for i in SCALES.get(n.op_type, ()) if i < len(n.input)}
    known = [v for name in names for v in interpreter.constants[name].exact.fractions().flat]
    return all(short(a.f) for n in nodes for a in n.attribute if a.f) and all(map(power_of_two, known))


def representable(values: dict[str, Exact]) -> bool:
    """float32 holds every value of the inference exactly."""
    with np.errstate(over="ignore"):
        return all(Fraction(float(np.float32(float(v)))) == v for x in values.values() for v in x.fractions().flat)


def samples(interpreter: Interpreter, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Float inputs anywhere; on a coarse grid by turns where the scales are plain, so that ties are met and are exact."""
    rng = np.random.default_rng(seed)
    coarse = plain(interpreter)
    made = []
    for k in range(count):
        one = {}
        for info in interpreter.model.graph.input:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            size = 2.0 ** int(rng.integers(-1, 5))
            values = rng.uniform(-size, size, shape)
            one[info.name] = (np.round(values * 8) / 8 if coarse and k % 2 == 0 else values).astype(np.float32)
        made.append({name: one[name] for name in interpreter.inputs})
    return made


def compare(model: Any, count: int, seed: int, found: Counter[str]) -> None:
    interpreter = Interpreter(model)
    for inputs in samples(interpreter, count, seed):
        trace = interpreter.trace(inputs)
        got = framework(model, inputs)
        exact = plain(interpreter) and representable(trace)
        for name in interpreter.outputs:
            if next(n for n in model.graph.node if name in n.output).op_type == "Softmax":
                continue
            want = trace[name].fractions()
            assert got[name].shape == want.shape
            value = got[name].astype(np.float64)
            apart = np.abs(value - want.astype(np.float64))
            found["values"] += apart.size
            if exact:
                found["exact"] += apart.size
                assert (apart == 0).all(), (name, inputs, value, want)
            found["apart"] += int((apart > 1e-5 * np.maximum(1, np.abs(value))).sum())


def chosen() -> list[onnx_models.Case]:
    cases = [c for c in onnx_models.table() if c.name not in NOT_THERE]
    return cases if FULL else cases[::12]


@needs_frameworks
def test_equals_the_frameworks() -> None:
    found: Counter[str] = Counter()
    for k, case in enumerate(chosen()):
        try:
            compare(case.make(), 6 if FULL else 2, k, found)
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}") from None
    assert found["apart"] < found["values"] * 0.003, found  # float32 on the other side of a tie
    assert found["exact"] > found["values"] * 0.3, found


@needs_frameworks
@pytest.mark.parametrize("seed", range(200 if FULL else 3))
def test_random_networks_equal_the_frameworks(seed: int) -> None:
    found: Counter[str] = Counter()
    compare(onnx_models.random_model(seed), 4, seed, found)
    assert found["apart"] <= found["values"] * 0.3  # one flip may spread through the layers after it


# --- its parts by definition --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("ROUND", [-2, -2, -1, 0, 0, 1, 2, 2]),
        ("HALF_EVEN", [-2, -2, -1, 0, 0, 1, 2, 2]),
        ("CEIL", [-2, -1, -1, 0, 1, 2, 2, 3]),
        ("FLOOR", [-3, -2, -2, -1, 0, 1, 1, 2]),
        ("UP", [-3, -2, -2, -1, 1, 2, 2, 3]),
        ("DOWN", [-2, -1, -1, 0, 0, 1, 1, 2]),
        ("HALF_UP", [-3, -2, -1, -1, 1, 1, 2, 3]),
        ("HALF_DOWN", [-2, -1, -1, 0, 0, 1, 1, 2]),
    ],
)
def test_rounding_is_by_definition(mode: str, expected: list[int]) -> None:
    """The table of the specification: -2.5 -1.5 -1.2 -0.5 0.5 1.2 1.5 2.5."""
    seen: Counter[str] = Counter()
    got = rounded(Exact.of(np.array([Fraction(v, 10) for v in (-25, -15, -12, -5, 5, 12, 15, 25)], object)), mode, seen)
    assert list(got) == expected
    assert seen == {"tie+": 3, "tie-": 3}


def test_roots_and_exponentials() -> None:
    assert square_root(Fraction(9, 4)) == Fraction(3, 2)
    for v in (Fraction(2), Fraction(1, 3), Fraction(10**12 + 1, 10**3)):
        assert abs(square_root(v) ** 2 / v - 1) < Fraction(1, 2**250)
    assert sigmoid(Fraction(0)) == Fraction(1, 2)
    assert tanh(Fraction(0)) == 0
    for v in (Fraction(-7, 3), Fraction(1, 1000), Fraction(5)):
        assert float(sigmoid(v)) == pytest.approx(1 / (1 + np.exp(-float(v))), rel=1e-14)
        assert float(tanh(v)) == pytest.approx(np.tanh(float(v)), rel=1e-14)
        assert abs(2 * sigmoid(2 * v) - 1 - tanh(v)) < Fraction(1, 10**55)
