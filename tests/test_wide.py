"""LOGISTIC, TANH and SOFTMAX of 16 bits: the graph is TensorFlow Lite Micro, integer for integer.

BITWRIGHT_FULL=1 takes more scales and rows. In C: test_wide_c.py; what is built through TensorFlow: test_wide_models.py.
"""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import slow
from tests.native import run_native
from tests.test_tflite_ops import compare, load
from tests.tflite_files import T, one_op
from toolchain import reference
from toolchain.frontends.tflite import wide
from toolchain.ir import Const, Graph, QType, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding

FULL = bool(os.environ.get("BITWRIGHT_FULL"))
EVERY = np.arange(-32768, 32768)
# 2**-12 is the scale that both functions treat apart, 2**-11 one that TANH does; a scale within 0.07 % of it is it, and one at 0.09 % is not
SCALES = [2.0**-12, 2.0**-11, 2.0**-12 * 1.0005, 2.0**-12 * 1.0009, 0.0003, 16 / 3 - 1e-6]
SCALES += [
    2.0**-13,
    3e-9,
    2.0**-15,
    2.0**-11 * 0.9995,
    2.0**-10,
    1.0,
    2.0**-44,
    1e-6,
    0.000123,
    0.00033,
    0.004,
    0.05,
    0.3,
    2.9,
] * FULL


def tensor(shape: tuple[int, ...], scale: float = 2.0**-15) -> T:
    return T((1, *shape), "int16", float(np.float32(scale)))


def function(op: str, scale: float, size: int = 1 << 16) -> bytes:
    return one_op(op, [tensor((size,), scale)], [tensor((size,))])


def softmax(n: int, scale: float, beta: float = 1.0, rows: int = 1) -> bytes:
    return one_op("SOFTMAX", [tensor((rows, n), scale)], [tensor((rows, n))], beta=beta)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_every_value_is_tflms(tmp_path: Path, op: str, scale: float) -> None:
    compare(tmp_path, function(op, scale), EVERY[None, None])


def test_where_a_power_of_two_begins_is_tflms(tmp_path: Path) -> None:
    """Scales about where CheckedLog2 says no, a few float32 apart, told by the functions' steepest values."""
    samples = np.arange(-1024, 1024)[None, None]
    seen = set()
    for op, power in (("LOGISTIC", -12), ("TANH", -12), ("TANH", -11)):
        for sign in (-1, 1):
            edge = np.float32(2.0 ** (power + sign * 1e-3))
            for by in (-200, -40, 0, 40, 200):
                scale = np.float32(float(edge) * (1 + by * 2.0**-23))
                seen.add(wide.power_of_two(scale) is None)
                compare(tmp_path, function(op, float(scale), samples.size), samples)
    assert seen == {True, False}


def rows_of(n: int, seed: int) -> np.ndarray:
    """All least, greatest and alike, one hot either way, steps, close together, and at random."""
    rng = np.random.default_rng(seed)
    hot, cold = np.full(n, -32768), np.full(n, 32767)
    hot[n // 2], cold[-1] = 32767, -32768
    alike = [np.full(n, v) for v in (-32768, 32767, 0)]
    steps = [np.arange(n) * 97 % 65536 - 32768, -(np.arange(n) % 5), np.arange(n) % 2 * 65535 - 32768]
    near = [rng.integers(-9, 9, (3, n)), rng.integers(-900, 900, (3, n)), rng.integers(-32768, 32768, (6, n))]
    return np.concatenate([np.stack([*alike, hot, cold, *steps]), *near])


def test_a_sum_that_rounds_up_to_a_power_of_two(tmp_path: Path) -> None:
    """Its mantissa would be 2; its reciprocal is that of the largest below. Sums from below to above it."""
    given = np.full((63, 63), -32768)
    given[:, :16] = 32767
    given[:, 62] += np.arange(63) * 1040
    file = softmax(63, 0.00017)
    (op,) = load(tmp_path, file).ops
    assert isinstance(op, ops.Softmax16)
    first, top = int(op.table.array[0]), int(op.table.array[511] + 127 * op.table.array[512] + 64 >> 7)
    assert 16 * top + 47 * first == (1 << 19) - 2
    compare(tmp_path, file, given[:, None, None])
    compare_c(tmp_path, file, given)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000])
def test_rows_are_tflms(tmp_path: Path, n: int) -> None:
    given = rows_of(n, n)
    pairs = [
        (2.0**-12, 1.0),
        (10 / 65535, 1.0),
        (0.0003, 2.5),
        (0.001, 0.3),
        (1.0, 1.0),
        (5.0, 1.0),
        (1e-9, 1.0),
        (1e-5, 7.0),
    ]
    pairs += [(s, b) for s in (2.0**-15, 0.00017, 0.01, 0.31) for b in (1.0, 0.1, 3.3)] * FULL
    for scale, beta in pairs:
        compare(tmp_path, softmax(n, scale, beta), given[:, None, None])


def test_rows_of_several_axes_are_tflms(tmp_path: Path) -> None:
    given = np.random.default_rng(1).integers(-5000, 5000, (9, 1, 3, 4, 6))
    file = one_op("SOFTMAX", [tensor((3, 4, 6), 0.001)], [tensor((3, 4, 6))], beta=1.0)
    compare(tmp_path, file, given)


def every_distance() -> np.ndarray:
    """Rows of two, every distance between them: every argument of exp at a step of 10/65535, and sums of every mantissa."""
    return np.stack([np.full(1 << 16, 32767), 32767 - np.arange(1 << 16)], axis=1)


def test_every_distance_is_tflms(tmp_path: Path) -> None:
    compare(tmp_path, softmax(2, 10 / 65535, rows=1 << 16), every_distance()[None, None])


def changed(const: Const, k: int, by: int) -> Const:
    values = const.array.copy()
    values[k] = values[k] - by if values[k] + by > 32767 else values[k] + by
    return Const.of(const.tensor.name, values, const.tensor.qtype)


def test_no_entry_of_a_softmax_could_be_another(tmp_path: Path) -> None:
    """What every distance gives tells each entry of both tables from the next integer, so both are TFLM's."""
    (op,) = load(tmp_path, softmax(2, 10 / 65535)).ops
    assert isinstance(op, ops.Softmax16)
    pairs = every_distance()
    right = reference.evaluate(op, pairs)
    at, e = 65535 - np.arange(1 << 16), right  # of exp; the larger share falls as the sum rises
    order = np.argsort(-e[:, 0], kind="stable")
    step = 1 if FULL else 16
    for k in range(0, 513, step):
        near = pairs[(at > 128 * (k - 1)) & (at < 128 * (k + 1))]
        other = reference.evaluate(replace(op, table=changed(op.table, k, 1)), near)
        assert (other != reference.evaluate(op, near)).any(), f"exp, entry {k}"
    for k in range(0, 513, step):
        part = pairs[order]
        other = reference.evaluate(replace(op, reciprocal=changed(op.reciprocal, k, 1)), part)
        assert (other != right[order]).any(), f"reciprocal, entry {k}"


@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_no_entry_of_the_sigmoid_could_be_another(tmp_path: Path, op: str) -> None:
    """Over every step. The two ends are never read, for from there on a value is kept; LOGISTIC, which halves, rounds those beside
    them away."""
    line, rim = load(tmp_path, function(op, 2.0**-12, 4)).ops[-1], 2 if op == "LOGISTIC" else 1
    assert isinstance(line, ops.Interpolate)
    bits = 9 if op == "LOGISTIC" else 8
    every = np.arange(-(255 << bits) + 1, 255 << bits)
    for k in range(0, 513, 1 if FULL else 4) if rim == 1 else [0, 1, 2, 100, 510, 511, 512]:
        near = every[np.abs(every - (k - 256 << bits)) <= 1 << bits]
        other = reference.evaluate(replace(line, table=changed(line.table, k, 2)), near)
        assert (other != reference.evaluate(line, near)).any() == (rim <= k <= 512 - rim), k


def test_the_tables_do_not_depend_on_how_a_machine_rounds_exp() -> None:
    """One unit in the last place of every exp, either way, leaves every entry."""
    exact, exps = wide.line_table(wide._exp, -10.0, 0.0), []
    for towards in (0, np.inf):
        exps.append(wide.line_table(lambda x, t=towards: float(np.nextafter(np.float32(np.exp(np.float64(x))), np.float32(t))), -10.0, 0.0))  # type: ignore[misc]  # fmt: skip
    moved = [int((np.array(e) != exact).sum()) for e in exps]
    assert moved == [0, 0]
    assert wide.sigmoid() == [-v for v in wide.sigmoid()[::-1]]


def compare_c(folder: Path, file: bytes, given: np.ndarray) -> None:
    graph = load(folder, file)
    name = graph.outputs[0].name
    stored = {graph.inputs[0].name: given.reshape(-1, *graph.inputs[0].shape)}
    assert_array_equal(run_native(graph, stored)[name], reference.simulate(graph, stored)[0][name])


# --- the op itself ---------------------------------------------------------------------------------------------------


def line(
    bits: int, signed: bool, entries: list[int], shift: int, rounding: Rounding, out: QType, offset: int = 0
) -> Graph:
    b = GraphBuilder("line")
    x = b.input("x", (1 << bits,), QType(bits, signed, Fraction(1)))
    b.output(b.interpolate(x, out, b.const("table", entries), shift, rounding, "y", offset))
    return b.graph()


def test_every_rounding_natively() -> None:
    """Lines that rise, fall and cross 0, with halves of both signs; shift 0 rounds nothing."""
    entries, b, want = [-7, 9, -9, 30, 0], GraphBuilder("lines"), {}
    table = b.const("table", entries)
    exact = [Fraction(entries[k // 64] * (64 - k % 64) + entries[k // 64 + 1] * (k % 64)) for k in range(256)]
    for signed in (True, False):
        x = b.input("xs" if signed else "xu", (256,), QType(8, signed, Fraction(1)))
        for rounding in [r for r in Rounding if r is not Rounding.TFLM]:
            for shift in (0, 1, 7):
                y = b.interpolate(x, QType(13, True, Fraction(1)), table, shift, rounding, "y", -3)
                want[y.name] = [slow.round_real(v / 2**shift, rounding.value) - 3 for v in exact]
                b.output(y)
    given = {"xs": np.arange(-128, 128)[None], "xu": np.arange(256)[None]}
    outputs, _ = reference.simulate(b.graph(), given)
    found = run_native(b.graph(), given)
    assert len(want) == 2 * 9 * 3
    for name, values in want.items():
        assert_array_equal(outputs[name][0], values)
        assert_array_equal(found[name][0], values)


def test_a_table_of_every_value_is_a_lookup_and_of_two_entries_one_line() -> None:
    rng = np.random.default_rng(0)
    entries = rng.integers(-100, 100, 17).tolist()
    graph = line(4, True, entries, 0, Rounding.FLOOR, QType(8, True, Fraction(1)))
    given = {"x": np.arange(-8, 8)[None]}
    assert_array_equal(reference.simulate(graph, given)[0]["y"][0], entries[:16])
    one = line(4, True, [-5, 11], 0, Rounding.FLOOR, QType(12, True, Fraction(1)))
    assert_array_equal(reference.simulate(one, given)[0]["y"][0], [-5 * 16 + 16 * k for k in range(16)])
    for g in (graph, one):
        assert_array_equal(run_native(g, given)["y"], reference.simulate(g, given)[0]["y"])


def test_the_largest_entries_of_32_bits_natively() -> None:
    """At the bound of check: 2**29 between entries, of a type of 32 bits without a sign."""
    b = GraphBuilder("line")
    x = b.input("x", (5,), QType(32, False, Fraction(1)))
    y = b.interpolate(x, QType(31, True, Fraction(1)), b.const("t", [511, -511] * 2048 + [511]), 0, Rounding.FLOOR, "y")
    b.output(y)
    graph, most = b.graph(), (1 << 32) - 1
    given = {"x": np.array([[0, most, 1 << 31, (1 << 20) - 1, 1 << 20]])}
    outputs, _ = reference.simulate(graph, given)
    assert b.range(y).whole == (-(511 << 20), 511 << 20)
    assert_array_equal(run_native(graph, given, sanitize=True)["y"], outputs["y"])
