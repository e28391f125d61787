"""Damaged ONNX models: one or two things of a good one changed. Each is refused in one line, or means exactly what it says.

Never a traceback, never a wrong answer: what loads is compared with the exact interpreter. BITWRIGHT_MORE=20 takes 20 times as many.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from tests import onnx_models
from tests.onnx_exact import Interpreter
from tests.test_onnx_exact import CASES, compare, shapes
from toolchain.errors import ToolchainError

KNOWN = [case for case in CASES if case.name != "constant-nodes"]  # has no initializers to damage
MORE = int(os.environ.get("BITWRIGHT_MORE", "1"))
OPS = (
    "Relu", "Quant", "Add", "MatMul", "Conv", "Flatten", "BipolarQuant", "Clip", "Identity", "Gemm", "Concat", "Mul", "Div",
    "QuantizeLinear", "Transpose", "Trunc", "Softmax",
)  # fmt: skip
VALUES = (0, -1, 1, np.nan, np.inf, 0.5, 1e30, -2, 3, 1e-40, 255, 7)
TYPES = (np.float64, np.int64, np.int32, np.float16, np.int8, np.uint8, bool)


def node_of(model: Any, rng: np.random.Generator) -> Any:
    return model.graph.node[int(rng.integers(len(model.graph.node)))]


def constant_of(model: Any, rng: np.random.Generator) -> Any:
    return model.graph.initializer[int(rng.integers(len(model.graph.initializer)))]


def replaced(tensor: Any, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), tensor.name))


def attribute_gone(model: Any, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    if node.attribute:
        del node.attribute[int(rng.integers(len(node.attribute)))]


def input_blank(model: Any, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = ""


def input_gone(model: Any, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    if node.input:
        del node.input[-1]


def input_other(model: Any, rng: np.random.Generator) -> None:
    g = model.graph
    names = [v.name for v in (*g.initializer, *g.input)] + [name for n in g.node for name in n.output]
    node = node_of(model, rng)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = names[int(rng.integers(len(names)))]


def value(model: Any, rng: np.random.Generator) -> None:
    tensor = constant_of(model, rng)
    array, v = numpy_helper.to_array(tensor).copy(), VALUES[int(rng.integers(len(VALUES)))]
    if array.size and (array.dtype.kind == "f" or (array.dtype.kind in "iu" and v in (0, 1, 3, 7))):
        with np.errstate(over="ignore"):
            array.reshape(-1)[int(rng.integers(array.size))] = v
        replaced(tensor, array)


def shape(model: Any, rng: np.random.Generator) -> None:
    tensor = constant_of(model, rng)
    a = numpy_helper.to_array(tensor)
    flat = a.reshape(-1)
    replaced(tensor, [flat[:0], flat, a[None], a.T, np.stack([a, a]), flat[:1]][int(rng.integers(6))])


def dtype(model: Any, rng: np.random.Generator) -> None:
    tensor = constant_of(model, rng)
    a = numpy_helper.to_array(tensor)
    if a.dtype.kind in "fiu":
        with np.errstate(all="ignore"):
            replaced(tensor, a.astype(TYPES[int(rng.integers(len(TYPES)))]))


def attribute(model: Any, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    if not node.attribute:
        return
    a = node.attribute[int(rng.integers(len(node.attribute)))]
    if a.type == a.INT:
        a.i = int(rng.integers(-3, 9))
    elif a.type == a.FLOAT:
        a.f = float([0, -1, np.nan, 1e30, 0.3][int(rng.integers(5))])
    elif a.type == a.STRING:
        a.s = [b"", b"ROUND", b"NHWC", b"\xff", b"linear", b"SAME_UPPER"][int(rng.integers(6))]
    elif a.ints:
        match int(rng.integers(3)):
            case 0:
                a.ints[int(rng.integers(len(a.ints)))] = int(rng.integers(-3, 9))
            case 1:
                a.ints.append(1)
            case _:
                del a.ints[-1]


def operator(model: Any, rng: np.random.Generator) -> None:
    node = node_of(model, rng)
    node.op_type = OPS[int(rng.integers(len(OPS)))]
    node.domain = onnx_models.QONNX if node.op_type in ("Quant", "BipolarQuant", "Trunc") else ""


def domain(model: Any, rng: np.random.Generator) -> None:
    node_of(model, rng).domain = ["", onnx_models.QONNX, "com.acme", "ai.onnx.ml"][int(rng.integers(4))]


def dimension(model: Any, rng: np.random.Generator) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[int(rng.integers(len(dims)))].dim_value = int(rng.integers(-1, 9))


def opset(model: Any, rng: np.random.Generator) -> None:
    model.opset_import[0].version = int(rng.integers(7, 24))


def node_gone(model: Any, rng: np.random.Generator) -> None:
    del model.graph.node[int(rng.integers(len(model.graph.node)))]


DAMAGE: tuple[Callable[[Any, np.random.Generator], None], ...] = (
    attribute_gone, input_blank, input_gone, input_other, value, value, shape, shape, dtype, attribute, attribute, operator,
    domain, dimension, opset, node_gone,
)  # fmt: skip


def damaged(seed: int) -> tuple[onnx_models.Case, Any, str]:
    rng = np.random.default_rng(seed)
    case = KNOWN[int(rng.integers(len(KNOWN)))]
    model = case.make()
    told = []
    for _ in range(1 + int(rng.random() < 0.25)):
        damage = DAMAGE[int(rng.integers(len(DAMAGE)))]
        damage(model, rng)
        told.append(damage.__name__)
    return case, model, f"seed {seed}: {case} with {' and '.join(told)}"


def understood(model: Any) -> bool:
    """Whether the interpreter runs it; the shapes of its outputs are then what they are now."""
    with contextlib.suppress(Exception):
        made = Interpreter(model)
        zeros = {name: np.zeros(shapes(model)[name], int) for name in made.inputs}
        found = made.run(zeros)
        for out in model.graph.output:
            kind = out.type.tensor_type.elem_type
            out.CopyFrom(helper.make_tensor_value_info(out.name, kind, found[out.name].shape))
        return True
    return False


def one(seed: int, seen: Counter[str]) -> None:
    import toolchain

    case, model, told = damaged(seed)
    seen["all"] += 1
    try:
        toolchain.load(model, case.options)
    except ToolchainError as error:
        seen["refused"] += 1
        if "\n" in str(error):
            raise AssertionError(f"{told}: {error}") from error
        return
    except Exception as error:
        raise AssertionError(f"{told}: {type(error).__name__} {error}") from error
    if not understood(model):
        seen["not understood"] += 1
        return
    try:
        compare(model, case.options, seed)
    except AssertionError as error:
        raise AssertionError(f"{told}: {error}") from error
    seen["equal"] += 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(0, 250 * MORE, 50))
def test_refused_or_right(start: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(start, start + 50):
        one(seed, seen)
    assert seen["refused"] > 15 and seen["equal"] > 5, seen
    assert seen["not understood"] <= 3, seen
