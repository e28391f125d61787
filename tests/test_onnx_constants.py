"""Constants of ONNX models: quantizers against qonnx's own functions, exact rounding against Fraction, operators that move codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests import onnx_files
from toolchain.errors import UnsupportedError
from toolchain.frontends.qonnx.archive import Node
from toolchain.frontends.qonnx.constants import Constant, compressed, evaluate
from toolchain.frontends.qonnx.quantizers import BIPOLAR, MODES, exactly, integer_range, rounding_mode

F32 = np.float32
HALVES = np.arange(-9, 9.5, 0.5, F32)


def node(op: str, opset: int = 2, domain: str = "qonnx", outputs: int = 1, **attributes: Any) -> Node:
    return Node(op, "q", domain, ("x",), tuple(f"y{i}" for i in range(outputs)), attributes, opset)


def run(made: Node, *values: Any, notes: list[str] | None = None) -> Constant:
    constants = [v if isinstance(v, Constant) or v is None else Constant(np.asarray(v)) for v in values]
    found = evaluate(made, constants, [] if notes is None else notes)
    assert len(found) == 1
    return found[0]


def quant(x: Any, scale: Any, zero: Any = 0, bits: float = 8, notes: list[str] | None = None, **attributes: Any) -> Constant:  # fmt: skip
    attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    values = (np.asarray(x, F32), np.asarray(scale, F32), np.asarray(zero, F32), np.asarray(bits, F32))
    return run(node("Quant", **attributes), *values, notes=notes)


def corners(rng: np.random.Generator, scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Random values, exact halves of both signs, their float32 neighbours, zeros of both signs and far ends."""
    x = rng.normal(0, 40, shape) * scale
    flat = x.reshape(-1)
    grid = np.resize(HALVES, flat.size) * np.broadcast_to(scale, shape).reshape(-1)
    pick = rng.integers(0, 4, flat.size)
    flat = np.where(pick == 1, grid, flat).astype(F32)
    flat = np.where(pick == 2, np.nextafter(grid.astype(F32), F32(np.inf) * rng.choice([-1, 1], flat.size)), flat)
    flat[:6] = [0.0, -0.0, 1e30, -1e30, 1e-45, -1e-45]
    return flat.astype(F32).reshape(shape)


SCALES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "power of two": lambda rng: np.asarray(0.125, F32),
    "tenth": lambda rng: np.asarray(0.1, F32),
    "one element": lambda rng: np.asarray([0.037], F32),
    "per channel": lambda rng: rng.uniform(0.001, 2, (6, 1, 1)).astype(F32),
    "per element": lambda rng: rng.uniform(0.001, 2, (6, 4, 9)).astype(F32),
}


@pytest.mark.parametrize("mode", [*MODES, "half_even"])
@pytest.mark.parametrize("kind", SCALES)
def test_quant_is_qonnx(mode: str, kind: str) -> None:
    """Every value equal, bit for bit, to qonnx's own function, and codes * scale is what it means."""
    reference = pytest.importorskip("qonnx.custom_op.general.quant").quant
    rng = np.random.default_rng(len(mode) * 100 + len(kind))
    wide = (24, 32) if not mode.startswith("HALF_") else ()  # qonnx adds a half in float32: beyond the range of 24 bits
    for bits in (1, 2, 3, 4, 7, 8, 12, 16, 20, *wide):
        for signed in (0, 1):
            for narrow in (0, 1):
                for zero in (0, 1, 3, -7) if bits < 24 else (0,):
                    scale = SCALES[kind](rng)
                    x = corners(rng, scale, (6, 4, 9))
                    args = np.asarray(zero, F32), np.asarray(bits, F32)
                    want = reference(x, scale, *args, signed, narrow, mode).astype(F32)
                    got = quant(x, scale, *args, signed=signed, narrow=narrow, rounding_mode=mode)
                    np.testing.assert_array_equal(got.value, want)
                    assert got.value.dtype == np.float32 and got.bits == bits
                    assert got.codes is not None and got.scale is not None and got.codes.dtype == np.int64
                    assert got.codes.shape == x.shape and got.scale.ndim == 3
                    lo, hi = integer_range(bits, bool(signed), bool(narrow)) if bits > 1 or not signed else (-1, 1)
                    assert lo <= got.codes.min() + zero and got.codes.max() + zero <= hi
                    np.testing.assert_array_equal((got.codes.astype(F32) * got.scale.astype(F32)), got.value)


def test_rounding_modes_by_definition() -> None:
    """The table of facts/quantizers.md, which names do not tell: HALF_UP is half away from zero."""
    x = [-2.5, -1.5, -1.2, -0.5, 0.5, 1.2, 1.5, 2.5]
    table = {
        "ROUND": [-2, -2, -1, 0, 0, 1, 2, 2],
        "half_even": [-2, -2, -1, 0, 0, 1, 2, 2],
        "CEIL": [-2, -1, -1, 0, 1, 2, 2, 3],
        "FLOOR": [-3, -2, -2, -1, 0, 1, 1, 2],
        "UP": [-3, -2, -2, -1, 1, 2, 2, 3],
        "DOWN": [-2, -1, -1, 0, 0, 1, 1, 2],
        "round_to_zero": [-2, -1, -1, 0, 0, 1, 1, 2],
        "HALF_UP": [-3, -2, -1, -1, 1, 1, 2, 3],
        "HALF_DOWN": [-2, -1, -1, 0, 0, 1, 1, 2],
    }
    for mode, want in table.items():
        np.testing.assert_array_equal(quant(x, 1, rounding_mode=mode).codes, want)
    assert set(MODES) == {rounding_mode("", m) for m in table}


def test_one_bit() -> None:
    assert quant([-2, -0.0, 0.0, 0.3], 0.5, bits=1).codes.tolist() == [-1, 1, 1, 1]
    assert quant([-2, -0.0, 0.0, 0.3], 0.5, bits=1).value.tolist() == [-0.5, 0.5, 0.5, 0.5]
    assert quant([-2, 0.2, 0.3, 9], 0.5, bits=1, signed=0).codes.tolist() == [0, 0, 1, 1]
    assert quant([-1, 0.4, 0.5, 3], 0.5, bits=2, narrow=1).codes.tolist() == [-1, 1, 1, 1]


def test_bipolar_is_qonnx() -> None:
    reference = pytest.importorskip("qonnx.custom_op.general.bipolar_quant").binary_quant
    rng = np.random.default_rng(3)
    for scale in (np.asarray(0.1, F32), np.asarray(10, F32), rng.uniform(0.1, 2, (6, 1)).astype(F32)):
        x = corners(rng, scale, (6, 40))
        got = run(node("BipolarQuant"), x, scale)
        np.testing.assert_array_equal(got.value, reference(x, scale))
        np.testing.assert_array_equal(got.codes, np.where(x >= 0, 1, -1))
        assert got.bits == 1 and got.scale.shape == ((1, 1) if scale.ndim == 0 else (6, 1))


@pytest.mark.parametrize("mode", MODES)
def test_trunc_is_qonnx(mode: str) -> None:
    module = pytest.importorskip("qonnx.custom_op.general.trunc")
    rng = np.random.default_rng(5)
    for trial in range(60):
        scale = np.asarray(rng.choice([0.25, 0.1, 0.037]), F32)
        shift = int(rng.integers(0, 5))
        zero = int(rng.integers(-3, 4)) << shift
        x = ((rng.integers(-300, 300, (5, 30)) - zero) * scale).astype(F32)
        in_bits, out_bits = np.asarray(10, F32), np.asarray(10 - shift, F32)
        one, zeros = node("Trunc", 1, rounding_mode=mode.lower()), np.asarray(zero, F32)
        got = run(one, x, scale, zeros, in_bits, out_bits)
        want = module.trunc_v1(x, scale, zeros, in_bits, out_bits, mode)
        np.testing.assert_array_equal(got.value, want)
        signed, narrow = trial % 2, trial // 2 % 2
        out_scale = np.asarray(scale * 2**shift, F32)
        two = node("Trunc", 2, rounding_mode=mode.lower(), signed=signed, narrow=narrow)
        bits = np.asarray(4 + trial % 3, F32)
        got = run(two, x, scale, zeros, in_bits, out_scale, bits)
        want = module.trunc_v2(x, scale, zeros, in_bits, narrow, signed, out_scale, bits, mode)
        np.testing.assert_array_equal(got.value, want)
        np.testing.assert_array_equal((got.codes * got.scale).astype(F32), want)
    assert run(node("Trunc", 3), np.asarray([2.75], F32), F32(0.25), F32(0), F32(8), F32(1), F32(4)).codes == [2]


def test_trunc_has_the_inputs_of_its_version() -> None:
    five = [np.ones(3, F32), F32(1), F32(0), F32(8), F32(4)]
    with pytest.raises(UnsupportedError) as caught:
        run(node("Trunc", 2), *five)
    assert str(caught.value) == (
        "node q (Trunc): Trunc of version 2 has 5 inputs, must have 6: what it quantizes, scale, zero point, input bit width, "
        "output scale, output bit width; export the model again"
    )
    with pytest.raises(UnsupportedError, match="Trunc of version 1 has 6 inputs, must have 5"):
        run(node("Trunc", 1), *five, F32(4))
    with pytest.raises(UnsupportedError, match="its zero point is not a multiple of the truncated step"):
        run(node("Trunc", 2), np.ones(3, F32), F32(1), F32(3), F32(8), F32(4), F32(4))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scale": 0}, "its scale is 0.0, must be positive and finite; train or export it again"),
        ({"scale": [[1], [-2]]}, "its scale is -2.0, must be positive and finite; train or export it again"),
        ({"scale": math.nan}, "its scale is nan, must be positive and finite; train or export it again"),
        ({"scale": math.inf}, "its scale is inf, must be positive and finite; train or export it again"),
        ({"bits": 3.5}, "its bit width is 3.5, must be a whole number from 1 to 32"),
        ({"bits": 33}, "its bit width is 33, must be a whole number from 1 to 32"),
        ({"bits": 0}, "its bit width is 0, must be a whole number from 1 to 32"),
        ({"bits": math.nan}, "its bit width is nan, must be a whole number from 1 to 32"),
        ({"bits": [4, 8]}, "has 2 different bit widths, must have one; use one for all channels"),
        ({"zero": 0.5}, "its zero point is 0.5, must be an integer; train or export it again"),
        ({"zero": math.nan}, "its zero point is nan, must be an integer; train or export it again"),
        ({"x": [[math.nan, 1], [math.inf, 2]]}, "values hold 2 NaN or infinite values; train or restore them again"),
        ({"scale": [1, 1, 1]}, "its scale or zero point does not broadcast to [2, 2]; export the model again"),
        ({"signed": 2}, "attribute signed is 2, must be 0 or 1; export the model again"),
        (
            {"rounding_mode": "STOCHASTIC"},
            "rounding_mode is 'STOCHASTIC', must be one of ROUND, CEIL, FLOOR, UP, DOWN, HALF_UP, HALF_DOWN, HALF_EVEN, ROUND_TO_ZERO",
        ),
        (
            {"rounding_mode": "FLOR"},
            "rounding_mode is 'FLOR', must be one of ROUND, CEIL, FLOOR, UP, DOWN, HALF_UP, HALF_DOWN, HALF_EVEN, ROUND_TO_ZERO; "
            "did you mean 'FLOOR'?",
        ),
    ],
    ids=str,
)
def test_what_no_quantizer_may_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        quant(**{"x": [[1, 2], [3, 4]], "scale": 1, **given})
    assert str(caught.value) == f"node q (Quant): {said}"


def test_parameters_must_be_there_and_known() -> None:
    x, one = np.ones(3, F32), np.asarray(1, F32)
    with pytest.raises(UnsupportedError, match="attribute narrow is missing, must be 0 or 1"):
        run(node("Quant", signed=1), x, one, one, one)
    with pytest.raises(UnsupportedError, match="its scale is not a constant; use a quantizer with a stored scale"):
        run(node("Quant", signed=1, narrow=0), x, None, one, one)
    with pytest.raises(
        UnsupportedError, match=r"Quant has 2 inputs, must have 4: what it quantizes, scale, zero point, bit"
    ):
        run(node("Quant", signed=1, narrow=0), x, one)
    with pytest.raises(UnsupportedError, match=r"MultiThreshold of a constant, must be Quant, BipolarQuant or Trunc"):
        run(node("MultiThreshold"), x, one)


def fraction_round(value: Fraction, mode: str) -> int:
    """The definitions again, of exact numbers, by other means than the code's."""
    low = math.floor(value)
    rest, up = value - low, 0 if value >= 0 else 1  # up: floor is away from zero
    match mode:
        case "BIPOLAR":
            return 1 if value >= 0 else -1
        case "ROUND":
            return round(value)
        case "CEIL":
            return math.ceil(value)
        case "FLOOR":
            return low
        case "UP":
            return low if rest == 0 else low + 1 - up
        case "DOWN":
            return low if rest == 0 else low + up
        case "HALF_UP":
            return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and not up))
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and bool(up)))


@pytest.mark.parametrize("mode", [*MODES, BIPOLAR])
def test_exact_rounding_is_fraction(mode: str) -> None:
    rng = np.random.default_rng(7)
    for scale in (F32(0.1), F32(0.25), F32(1.1754944e-38), F32(3e25), 0.1):
        for top in (8, 2.0**20, 2.0**31):
            for zero in (0, 5, -128):
                wide = np.asarray(scale).dtype
                n = np.concatenate([np.round(rng.uniform(-top, top, 40)) / 2, rng.uniform(-top, top, 10), HALVES])
                x = ((n - zero) * scale).astype(wide)
                x = np.concatenate([x, np.nextafter(x, wide.type(np.inf)), np.nextafter(x, wide.type(-np.inf))])
                want = [fraction_round(Fraction(float(v)) / Fraction(float(scale)) + zero, mode) for v in x]
                got = exactly(x, np.asarray(scale), np.asarray(zero), mode)
                np.testing.assert_array_equal(got, want)


def test_what_float32_division_changes_is_counted() -> None:
    notes: list[str] = []
    x = (np.arange(-60, 60) + F32(0.5)).astype(F32) * F32(0.1)  # near ties: float32 falls on either side of them
    found = quant(x, 0.1, notes=notes)
    exact = np.asarray([fraction_round(Fraction(float(v)) / Fraction(float(F32(0.1))), "ROUND") for v in x])
    different = int((found.codes != exact).sum())
    assert different > 10
    assert notes == [
        f"node q (Quant): {different} of 120 values are other integers in float32, as the framework computes and as they are "
        f"taken, than in exact arithmetic"
    ]
    quiet: list[str] = []
    quant(x, 0.125, notes=quiet)
    assert quiet == []


def test_wide_codes_are_clamped_where_float32_has_no_such_bound() -> None:
    """float32 holds no 2**31 - 1: qonnx clamps to 2**31, an integer of 32 bits may not."""
    got = quant([3e9, -3e9], 1, bits=32)
    assert got.codes.tolist() == [2**31 - 1, -(2**31)]
    assert got.value.tolist() == [2.0**31, -(2.0**31)]
    assert quant([5e9], 1, bits=32, signed=0).codes.tolist() == [2**32 - 1]


def test_dequantize_linear() -> None:
    x = np.arange(-12, 12, dtype=np.int8).reshape(2, 3, 4)
    scale, zero = np.asarray([0.1, 0.2, 0.3], F32), np.asarray([1, -2, 3], np.int8)
    got = run(node("DequantizeLinear", 13, "", axis=-2), x, scale, zero)
    np.testing.assert_array_equal(got.codes, x.astype(np.int64) - np.asarray([1, -2, 3])[:, None])
    np.testing.assert_array_equal(got.value, got.codes.astype(F32) * scale[:, None])
    assert got.value.dtype == np.float32 and got.scale.shape == (1, 3, 1) and got.bits == 8
    np.testing.assert_array_equal(got.scale, scale.astype(np.float64)[None, :, None])
    bias = run(node("DequantizeLinear", 13, "", axis=0), np.asarray([2**31 - 1, -5], np.int32), F32(0.5), np.int32(0))
    assert bias.codes.tolist() == [2**31 - 1, -5] and bias.bits == 32 and bias.value[0] == np.float32(2**30)
    bare = run(node("DequantizeLinear", 10, ""), np.asarray([3], np.uint8), np.asarray([0.5], F32))
    assert bare.value.tolist() == [1.5] and bare.scale.shape == (1,)
    narrow = run(node("DequantizeLinear", 21, ""), Constant(np.asarray([[-8]], np.int8), bits=4), F32(1))
    assert narrow.bits == 4


def test_dequantize_linear_is_onnxruntime() -> None:
    runtime = pytest.importorskip("onnxruntime")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(9)
    for kind, high in ((np.int8, 128), (np.uint8, 256), (np.int32, 2**31)):
        x = rng.integers(-high if kind != np.uint8 else 0, high, (3, 5)).astype(kind)
        scale = rng.uniform(0.001, 1, 5).astype(F32)
        zero = rng.integers(0, 100, 5).astype(kind) * (kind != np.int32)
        made = helper.make_node("DequantizeLinear", ["x", "s", "z"], ["y"], axis=1)
        stored = [numpy_helper.from_array(v, n) for v, n in ((x, "x"), (scale, "s"), (zero.astype(kind), "z"))]
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 5])
        graph = helper.make_graph([made], "g", [], [out], stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        [want] = runtime.InferenceSession(model.SerializeToString()).run(None, {})
        got = run(node("DequantizeLinear", 13, "", axis=1), x, scale, zero.astype(kind))
        np.testing.assert_array_equal(got.value, want)


def test_quantize_linear() -> None:
    """Rounds before the zero point is added: an odd zero point does not move the ties."""
    x = np.asarray([-0.5, 0.5, 1.5, 2.5, 200, -200], F32)
    got = run(node("QuantizeLinear", 13, ""), x, F32(1), np.uint8(3))
    assert got.value.tolist() == [3, 3, 5, 5, 203, 0] and got.value.dtype == np.uint8
    assert got.codes.tolist() == got.value.tolist() and got.scale.tolist() == [1.0]
    assert run(node("QuantizeLinear", 13, ""), x, F32(1)).value.tolist() == [0, 0, 2, 2, 200, 0]
    assert run(node("QuantizeLinear", 13, "", lo=-1, hi=4), x, F32(1), np.int8(0)).value.tolist() == [0, 0, 2, 2, 4, -1]
    narrow = Constant(np.asarray(1, np.int8), bits=4)
    assert run(node("QuantizeLinear", 21, ""), x, F32(1), narrow).value.tolist() == [1, 1, 3, 3, 7, -8]
    per_axis = run(node("QuantizeLinear", 13, "", axis=0), x, np.full(6, 2, F32), np.zeros(6, np.int8))
    assert per_axis.value.tolist() == [0, 0, 1, 1, 100, -100]


@pytest.mark.parametrize(
    ("scale", "attributes", "said"),
    [
        (np.ones((3, 2), F32), {}, "its scale has the shape [3, 2], must be one value or one per channel; blocked quantization"),
        (np.ones(4, F32), {"axis": 2}, "axis is 2, must be -2 to 1; export the model again"),
        (np.zeros(4, F32), {}, "its scale is 0.0, must be positive and finite"),
        (np.ones(4, np.int32), {}, "its scale holds int32 values, must be float32"),
    ],
)  # fmt: skip
def test_dequantize_linear_refused(scale: np.ndarray, attributes: dict[str, int], said: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        run(node("DequantizeLinear", 13, "", **attributes), np.ones((3, 4), np.int8), scale)
    assert str(caught.value).startswith(f"node q (DequantizeLinear): {said}")


def weights() -> Constant:
    rng = np.random.default_rng(1)
    scale = np.asarray([0.1, 0.2, 0.3], F32).reshape(3, 1, 1, 1)
    return quant(rng.normal(0, 1, (3, 2, 2, 2)), scale, bits=4)


MOVES: list[tuple[str, int, dict[str, Any], tuple[Any, ...], tuple[int, ...]]] = [
    ("Identity", 13, {}, (), (3, 1, 1, 1)),
    ("Transpose", 13, {"perm": [1, 0, 3, 2]}, (), (1, 3, 1, 1)),
    ("Transpose", 13, {}, (), (1, 1, 1, 3)),
    ("Reshape", 13, {}, ([3, -1],), (3, 1)),
    ("Reshape", 13, {}, ([2, 12],), (2, 12)),
    ("Flatten", 13, {"axis": 1}, (), (3, 1)),
    ("Unsqueeze", 13, {}, ([0],), (1, 3, 1, 1, 1)),
    ("Unsqueeze", 11, {"axes": [1]}, (), (3, 1, 1, 1, 1)),
    ("Slice", 13, {}, ([1], [2], [0]), (1, 1, 1, 1)),
    ("Slice", 9, {"starts": [1], "ends": [3], "axes": [0]}, (), (2, 1, 1, 1)),
]


@pytest.mark.parametrize(("op", "opset", "attributes", "more", "shape"), MOVES, ids=lambda v: str(v).replace(" ", ""))
def test_what_moves_numbers_keeps_their_codes(op: str, opset: int, attributes: Any, more: Any, shape: Any) -> None:
    w = weights()
    got = run(node(op, opset, "", **attributes), w, *(np.asarray(m, np.int64) for m in more))
    assert got.codes is not None and got.scale is not None and got.codes.dtype == np.int64
    assert got.scale.shape == shape and got.bits == 4
    np.testing.assert_array_equal(got.codes.astype(F32) * got.scale.astype(F32), got.value)
    if op in ("Reshape", "Flatten", "Identity"):
        np.testing.assert_array_equal(got.codes.ravel(), w.codes.ravel())


def test_squeeze_and_concat_keep_codes() -> None:
    w = weights()
    wide = run(node("Unsqueeze", 13, ""), w, np.asarray([0], np.int64))
    back = run(node("Squeeze", 13, ""), wide, np.asarray([0], np.int64))
    np.testing.assert_array_equal(back.codes, w.codes)
    both = run(node("Concat", 13, "", axis=1), w, quant(np.ones((3, 1, 2, 2)), 0.5, bits=8))
    assert both.bits == 8 and both.scale.shape == (3, 3, 1, 1)
    np.testing.assert_array_equal(both.codes.astype(F32) * both.scale.astype(F32), both.value)
    plain = run(node("Concat", 13, "", axis=0), w, np.ones((1, 2, 2, 2), F32))
    assert plain.codes is None and plain.scale is None and plain.value.shape == (4, 2, 2, 2)


def test_compressed() -> None:
    a = np.broadcast_to(np.asarray([1.0, 2.0])[:, None], (2, 3))
    assert compressed(a).tolist() == [[1.0], [2.0]]
    assert compressed(np.ones((0, 3))).shape == (0, 1)
    np.testing.assert_array_equal(np.broadcast_to(compressed(a), a.shape), a)


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, 21])
def test_other_operators_are_onnx_reference_in_float32(opset: int) -> None:
    a, b = np.asarray([346.1243, 2], F32), np.asarray(0.5, F32)
    root = run(node("Pow", opset, ""), a, b)
    assert root.value.dtype == np.float32 and root.codes is None
    np.testing.assert_array_equal(root.value, np.power(a, b))
    third = run(node("Div", opset, ""), np.asarray([1, 2], F32), np.asarray(3, F32))
    np.testing.assert_array_equal(third.value, np.asarray([1, 2], F32) / F32(3))
    cast = run(node("Cast", opset, "", to=7), np.asarray([1.7], F32))
    assert cast.value.dtype == np.int64 and cast.value.tolist() == [1]
    gathered = run(node("Gather", opset, "", axis=0), np.asarray([1, 1, 28, 28]), np.asarray(0))
    assert gathered.value.shape == () and gathered.value == 1
    filled = run(node("ConstantOfShape", opset, "", value=np.asarray([2.5], F32)), np.asarray([2, 2]))
    assert filled.value.tolist() == [[2.5, 2.5], [2.5, 2.5]]
    double = run(node("Add", opset, ""), np.asarray([0.1]), np.asarray([0.2]))
    assert double.value.dtype == np.float64  # the file says float64


A = np.asarray([[0.3, -1.7, 2.5], [4.1, 0.5, -0.5]], F32)
FOLDED: list[tuple[str, dict[str, Any], tuple[Any, ...], range]] = [  # op, attributes, inputs, opsets
    *[(op, {}, (A,), range(9, 22)) for op in ("Abs", "Neg", "Relu", "Sigmoid", "Tanh", "Exp", "Floor", "Ceil", "Identity")],
    *[(op, {}, (A, A[:1]), range(9, 22)) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum")],
    ("Pow", {}, (np.abs(A), np.asarray(0.5, F32)), range(9, 22)),
    ("Sqrt", {}, (np.abs(A),), range(9, 22)),
    ("LeakyRelu", {"alpha": 0.1}, (A,), range(9, 22)),
    ("Clip", {"min": -1.0, "max": 1.0}, (A,), range(9, 11)),
    ("Clip", {}, (A, np.asarray(-1, F32), np.asarray(1, F32)), range(11, 22)),
    ("MatMul", {}, (A, A.T.copy()), range(9, 22)),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, (A, A, np.ones(2, F32)), range(9, 22)),
    ("Conv", {"pads": [1, 1], "strides": [2]}, (A[None], np.ones((4, 2, 3), F32), np.ones(4, F32)), range(9, 22)),
    ("BatchNormalization", {"momentum": 0.5}, (A, *(np.asarray(v, F32) for v in ([1, 2, 3], [0.1, 0.2, 0.3], [1, 0, 1], [4, 5, 6]))), range(9, 22)),
    ("Softmax", {"axis": 1}, (A,), range(9, 22)),
    ("ReduceMean", {"axes": [1], "keepdims": 0}, (A,), range(9, 18)),
    ("ReduceSum", {"axes": [0]}, (A,), range(9, 13)),
    ("ReduceSum", {}, (A, np.asarray([0])), range(13, 22)),
    ("ArgMax", {"axis": 1, "keepdims": 0}, (A,), range(9, 22)),
    ("Transpose", {"perm": [1, 0]}, (A,), range(9, 22)),
    ("Reshape", {}, (A, np.asarray([0, -1, 1])), range(9, 22)),
    ("Flatten", {"axis": 0}, (A,), range(9, 22)),
    ("Squeeze", {"axes": [0]}, (A[None],), range(9, 13)),
    ("Squeeze", {}, (A[None], np.asarray([0])), range(13, 22)),
    ("Unsqueeze", {"axes": [1]}, (A,), range(9, 13)),
    ("Unsqueeze", {}, (A, np.asarray([-1])), range(13, 22)),
    ("Concat", {"axis": -1}, (A, A), range(11, 22)),
    ("Slice", {"starts": [1], "ends": [99], "axes": [1]}, (A,), range(9, 10)),
    ("Slice", {}, (A, np.asarray([-1]), np.asarray([-99]), np.asarray([1]), np.asarray([-2])), range(10, 22)),
    ("Gather", {"axis": 1}, (A, np.asarray([2, 0])), range(9, 22)),
    ("Split", {"axis": 1, "split": [1, 2]}, (A,), range(9, 13)),
    ("Expand", {}, (A[:, :1].copy(), np.asarray([2, 4])), range(9, 22)),
    ("Tile", {}, (A, np.asarray([1, 2])), range(9, 22)),
    ("Where", {}, (A > 0, A, -A), range(9, 22)),
    ("Pad", {"pads": [0, 1, 0, 2], "value": 1.5}, (A,), range(9, 11)),
    ("Pad", {}, (A, np.asarray([0, 1, 0, 2]), np.asarray(1.5, F32)), range(11, 22)),
    ("Shape", {}, (A,), range(9, 22)),
    ("Cast", {"to": 7}, (A,), range(9, 22)),
    ("Cast", {"to": 3}, (A,), range(9, 22)),
    ("MaxPool", {"kernel_shape": [2]}, (A[None],), range(9, 22)),
    ("AveragePool", {"kernel_shape": [2], "pads": [1, 0]}, (A[None],), range(9, 22)),
    ("GlobalAveragePool", {}, (A[None],), range(9, 22)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes", "inputs", "opsets"), FOLDED, ids=[f"{f[0]}-{f[3][0]}" for f in FOLDED])
def test_folding_is_onnxruntime(op: str, attributes: Any, inputs: Any, opsets: range) -> None:
    """onnx.reference has bugs of its own (BatchNormalization before opset 14): another implementation must agree."""
    runtime = pytest.importorskip("onnxruntime")
    names = [f"i{i}" for i in range(len(inputs))]
    ends = "a b" if op == "Split" else "a"
    for opset in sorted({opsets[0], opsets[-1]} | ({9, 11, 13, 17, 20, 21} & set(opsets))):
        graph = onnx_files.model(
            [(op, " ".join(names), ends, attributes)], dict(zip(names, inputs, strict=True)), {}, ends, opset
        )
        kind = {"ArgMax": 7, "Shape": 7, "Cast": attributes.get("to")}.get(op, 1)
        graph = onnx_files.typed(graph, a=kind)
        want = runtime.InferenceSession(graph.SerializeToString()).run(None, {})
        got = evaluate(node(op, opset, "", len(want), **attributes), [Constant(v) for v in inputs], [])
        for g, w in zip(got, want, strict=True):
            assert g.value.dtype == w.dtype and g.value.shape == w.shape
            np.testing.assert_allclose(g.value, w, rtol=1e-6, atol=1e-7)


def test_optional_inputs_and_several_outputs() -> None:
    clipped = run(node("Clip", 13, ""), np.asarray([-9, 3, 9], np.int8), None, np.asarray(7, np.int8))
    assert clipped.value.tolist() == [-9, 3, 7] and clipped.value.dtype == np.int8
    parts = evaluate(
        node("Split", 13, "", outputs=2, axis=0), [Constant(np.arange(4)), Constant(np.asarray([1, 3]))], []
    )
    assert [p.value.tolist() for p in parts] == [[0], [1, 2, 3]]


def test_what_cannot_be_computed_is_one_line() -> None:
    with pytest.raises(
        UnsupportedError, match=r"^node q \(Add\): cannot be computed from its constants: .*; fold it before"
    ):
        run(node("Add", 13, ""), np.ones(3, F32), np.ones(4, F32))
    with pytest.raises(UnsupportedError, match=r"^node q \(Nonsense\): cannot be computed"):
        run(node("Nonsense", 13, ""), np.ones(3, F32))
    with pytest.raises(
        UnsupportedError, match=r"^node q \(RandomNormal\): RandomNormal makes other numbers at every run; store"
    ):
        run(node("RandomNormal", 13, "", shape=[3]))
