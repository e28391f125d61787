"""Every TFLite operator alone against TensorFlow Lite Micro's interpreter: random shapes, scales, windows, corner inputs.

One rule: integers are compared, all of them. What one-in-a-million ties tell apart (float or double) has tests of its own.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from tests import tflite_files
from tests.tflite_cases import OPS
from tests.tflite_files import T, constant, one_op
from toolchain import flow, reference
from toolchain.frontends.tflite import archive, fixedpoint
from toolchain.frontends.tflite.softmax import exponentials
from toolchain.inputs import made_up
from toolchain.ir import Graph

SEEDS = 12
INT16 = {  # what TensorFlow Lite Micro computes with 16-bit activations and a graph can say
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS", "FULLY_CONNECTED", "LEAKY_RELU", "LOGISTIC",
    "MAX_POOL_2D", "MEAN", "MUL", "PACK", "PAD", "PADV2", "QUANTIZE", "RELU", "RELU6", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE",
    "SOFTMAX", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "UNPACK",
}  # fmt: skip
CASES = [(op, "int8") for op in OPS] + [(op, "int16") for op in OPS if op in INT16]


def load(folder: Path, file: bytes) -> Graph:
    path = folder / "model.tflite"
    path.write_bytes(file)
    return flow.load(path)


def compare(folder: Path, file: bytes, *samples: np.ndarray) -> None:
    """The graph's outputs are the interpreter's; samples [count, *the file's shape] for each input."""
    graph = load(folder, file)
    given = {t.name: np.asarray(s).reshape(-1, *t.shape) for t, s in zip(graph.inputs, samples, strict=True)}
    found, _ = reference.simulate(graph, given)
    answers = tflite_files.run(file, *samples, arena_bytes=1 << 23)
    assert len(answers) == len(graph.outputs)
    for tensor, answer in zip(graph.outputs, answers, strict=True):
        np.testing.assert_array_equal(found[tensor.name], answer.reshape(found[tensor.name].shape))


def samples_for(graph: Graph) -> list[np.ndarray]:
    """Corners and random ones; where an input has 256 elements of 8 bits, all its integers."""
    made = made_up(graph, 12)
    for tensor in graph.inputs:
        q = tensor.qtype
        if tensor.size == 256 == 1 << q.bits:
            made[tensor.name][4] = np.arange(q.min, q.max + 1).reshape(tensor.shape)
    return [made[t.name] for t in graph.inputs]


@pytest.mark.parametrize(("op", "kind"), CASES)
def test_an_operator_computes_what_tflm_computes(tmp_path: Path, op: str, kind: str) -> None:
    for seed in range(SEEDS):
        file = OPS[op](np.random.default_rng([seed, *op.encode()]), kind)
        compare(tmp_path, file, *samples_for(load(tmp_path, file)))


def scales(rng: np.random.Generator, count: int) -> list[float]:
    return [float(np.float32(2.0 ** rng.uniform(-6, -2))) for _ in range(count)]


def wide(scale: float, zero_point: int = 0, count: int = 1 << 16, kind: str = "int16") -> T:
    return T((1, count, 1), kind, float(np.float32(scale)), zero_point)


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_factors_of_two_inputs_are_in_double(tmp_path: Path, op: str) -> None:
    """65,536 sums of 16 bits tell a factor of float32 apart; all pairs of 8 bits are compared as well."""
    rng = np.random.default_rng(1)
    for _ in range(3):
        a, b, ratio = *scales(rng, 2), rng.uniform(0.8, 2)
        y = max(a, b) * ratio if op != "MUL" else a * b * ratio * 9000
        samples = rng.integers(-32768, 32768, (2, 1, 1 << 16))
        compare(tmp_path, one_op(op, [wide(a), wide(b)], [wide(y)], activation="none"), *samples)
        inputs = [T((1, 256, 1, 1), "int8", a, 3), T((1, 1, 256, 1), "int8", b, -5)]
        out = T((1, 256, 256, 1), "int8", float(np.float32(y / (1 if op != "MUL" else 60))), 1)
        each = np.arange(-128, 128)
        pairs = each.reshape(1, 1, 256, 1, 1), each.reshape(1, 1, 1, 256, 1)
        compare(tmp_path, one_op(op, inputs, [out], activation="none"), *pairs)


@pytest.mark.parametrize(("op", "options"), [("LEAKY_RELU", {"alpha": 0.3}), ("RELU", {}), ("QUANTIZE", {})])
def test_factors_of_one_input_are_in_double(tmp_path: Path, op: str, options: dict[str, float]) -> None:
    rng = np.random.default_rng(2)
    for a in scales(rng, 4):
        file = one_op(op, [wide(a)], [wide(a * rng.uniform(0.6, 2))], **options)
        compare(tmp_path, file, np.arange(-32768, 32768)[None])


@pytest.mark.parametrize("per_channel", [False, True])
def test_factors_of_products_are_in_double(tmp_path: Path, per_channel: bool) -> None:
    """Biases at the edges of output steps: what a factor of float32 would move to another step."""
    rng, out = np.random.default_rng(3), 4096
    for x, w in zip(scales(rng, 6), scales(rng, 6), strict=True):
        y = float(np.float32(x * w * 2.0 ** rng.uniform(9, 14)))
        edges = np.rint((rng.integers(-128, 128, out) + 0.5) * y / (x * w)).astype(np.int64) + rng.integers(-1, 2, out)
        weight = constant(np.zeros((out, 1)), "int8", scale=[w] * out if per_channel else w)
        bias = constant(edges, "int32", scale=x * w)
        file = one_op(
            "FULLY_CONNECTED", [T((1, 1), "int8", x), weight, bias], [T((1, out), "int8", y)], activation="none"
        )
        compare(tmp_path, file, np.zeros((1, 1, 1), np.int64))


@pytest.mark.parametrize("kind", ["int8", "int16"])
def test_halves_of_products(tmp_path: Path, kind: str) -> None:
    """Scales that are powers of two, sums at exact halves of both signs."""
    halves = np.arange(-100, 100) * 2 + 1
    for power in (1, 4, 9):
        weight = constant(np.zeros((len(halves), 1)), "int8", scale=0.5)
        bias = constant(halves << power - 1, "int32" if kind == "int8" else "int64", scale=0.25)
        y = T((1, len(halves)), kind, 0.25 * 2**power)
        file = one_op("FULLY_CONNECTED", [T((1, 1), kind, 0.5), weight, bias], [y], activation="none")
        compare(tmp_path, file, np.zeros((1, 1, 1), np.int64))


@pytest.mark.parametrize(
    ("op", "height", "width"), [("MEAN", 5, 6), ("MEAN", 7, 1), ("AVERAGE_POOL_2D", 5, 6), ("AVERAGE_POOL_2D", 4, 1)]
)
def test_a_mean_of_every_sum(tmp_path: Path, op: str, height: int, width: int) -> None:
    count, rng = height * width, np.random.default_rng(5)
    sums = np.arange(-128 * count, 127 * count + 1)
    each = np.floor_divide(sums[:, None] + np.arange(count), count)  # count integers of that sum
    assert (each.sum(1) == sums).all()
    samples = each.reshape(len(sums), 1, height, width, 1)
    for x, y in ((0.3, 0.3), (0.5, 0.25), (0.3, 0.3 * rng.uniform(0.5, 1))) if op == "MEAN" else ((0.3, 0.3),):
        tensors = [T((1, height, width, 1), "int8", x, 3)], [T((1, 1, 1, 1), "int8", float(y), 3 if x == y else -7)]
        pool = {
            "padding": "valid",
            "stride_h": 1,
            "stride_w": 1,
            "filter_h": height,
            "filter_w": width,
            "activation": "none",
        }
        more, options = ([constant([1, 2])], {"keep_dims": True}) if op == "MEAN" else ([], pool)
        compare(tmp_path, one_op(op, [*tensors[0], *more], tensors[1], **options), samples)


def test_means_of_16_bits(tmp_path: Path) -> None:
    rng, shape = np.random.default_rng(6), (1, 5, 6, 4096)
    for x, y in ((0.3, 0.3), (0.3, 0.2), (0.5, 0.25)):
        tensors = T(shape, "int16", x), T((1, 1, 1, 4096), "int16", y)
        file = one_op("MEAN", [tensors[0], constant([1, 2])], [tensors[1]], keep_dims=True)
        compare(tmp_path, file, rng.integers(-32768, 32768, (10, *shape)) // 2)


def test_beta_times_scale_is_in_double(tmp_path: Path) -> None:
    """Scales whose exponentials differ where the product is rounded to float32: seen in outputs of 16 bits."""
    node, rng, seen = archive.Node(0, "SOFTMAX", (), (), {}), np.random.default_rng(7), 0
    pairs = np.stack([np.full(256, 127), np.arange(-128, 128)], 1).reshape(1, 1, 256, 2)
    while seen < 60:
        scale, beta = np.float32(2.0 ** rng.uniform(-10, -3)), np.float32(rng.uniform(0.2, 3))
        if exponentials(node, float(beta) * float(scale)) == exponentials(node, float(beta * scale)):
            continue
        seen += 1
        tensors = T((1, 256, 2), "int8", float(scale)), T((1, 256, 2), "int16", 1 / 65536, -32768)
        compare(tmp_path, one_op("SOFTMAX", [tensors[0]], [tensors[1]], beta=float(beta)), pairs)


def test_softmax_of_steps_that_leave_all_but_the_largest_nothing(tmp_path: Path) -> None:
    """Where beta times the scale is 16 and more, the multiplier is the largest that there is."""
    rng = np.random.default_rng(5)
    for scale in (15.99, 16.0, 20.0, 1e6):
        file = one_op("SOFTMAX", [T((1, 9), "int8", scale, 3)], [T((1, 9), "int8", 1 / 256, -128)], beta=1.0)
        compare(tmp_path, file, np.concatenate([rng.integers(-128, 128, (20, 1, 9)), rng.integers(5, 7, (20, 1, 9))]))


def test_constants_of_exp_are_those_of_the_function() -> None:
    exact = [int(Decimal(1 << 31) * (-(Decimal(2) ** k)).exp() + Decimal("0.5")) for k in range(-2, 5)]
    assert list(fixedpoint.EXP) == exact
    assert round(Decimal(1 << 31) * Decimal("-0.125").exp()) == fixedpoint.EXP_EIGHTH
    assert round((1 << 31) / 3) == fixedpoint.THIRD


def test_factors_of_hard_swish_are_in_double(tmp_path: Path) -> None:
    def differs(x: np.float32, y: np.float32) -> bool:
        short = [np.floor(np.frexp(q)[0] * 2.0**15 + 0.5) for q in (np.float64(x / y), np.float64(x) / np.float64(y))]
        return bool(short[0] != short[1])

    rng, found = np.random.default_rng(0), []
    while len(found) < 16:
        x = np.float32(2.0 ** rng.uniform(-7, -2))
        y = np.float32(x * rng.uniform(0.3, 1.5))
        if differs(x, y):
            found.append((float(x), float(y)))
    for a, b in found:
        compare(
            tmp_path,
            one_op("HARD_SWISH", [wide(a, 0, 256, "int8")], [wide(b, -100, 256, "int8")]),
            np.arange(-128, 128)[None],
        )


@pytest.mark.parametrize(("op", "limit"), [("RELU6", 6.0), ("AVERAGE_POOL_2D", 6.0), ("AVERAGE_POOL_2D", 1.0)])
def test_ends_of_activations_are_quantized_in_float(tmp_path: Path, op: str, limit: float) -> None:
    """Scales at which the limit lies at a half in float32, and beside it in double."""
    rng, seen = np.random.default_rng(4), 0
    options = {"padding": "valid", "stride_h": 1, "stride_w": 1, "filter_h": 1, "filter_w": 1, "activation": "relu6" if limit == 6 else "relu_n1_to_1"}  # fmt: skip
    while seen < 8:
        half = np.float32(limit / (int(rng.integers(10, 30000)) + 0.5))
        for scale in (half, np.nextafter(half, np.float32(1)), np.nextafter(half, np.float32(0))):
            if np.floor(np.float32(limit) / scale + np.float32(0.5)) == np.floor(limit / float(scale) + 0.5):
                continue
            seen += 1
            tensors = [T((1, 1, 1, 1), "int16", float(scale)) for _ in range(2)]
            file = one_op(op, tensors[:1], tensors[1:], **({} if op == "RELU6" else options))
            compare(tmp_path, file, np.full((1, 1, 1, 1, 1), 32767))
