"""LOGISTIC, TANH and SOFTMAX of 16 bits: the graph, the generated C and a board are TensorFlow Lite Micro, integer for integer.

BITWRIGHT_FULL=1 takes more scales, rows and boards. What is built through TensorFlow is in test_wide_models.py.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import slow
from tests.native import SANITIZE, compile_native, run_native
from tests.test_bands import cut
from tests.test_tflite_ops import compare, load
from tests.tflite_files import Node, T, model, one_op
from toolchain import boards, flow, passes, reference, tools
from toolchain.backends.c import kernel_files
from toolchain.backends.hls4ml.lowering import lower
from toolchain.errors import UnsupportedError
from toolchain.frontends.tflite import wide
from toolchain.ir import Const, Graph, QType, check, ops
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import functions
from toolchain.passes.plan import Hls, no_circuit

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
BOARDS = {"unicorn_m4": "unicorn"} | ({"simavr_uno": "simavr", "qemu_virt_rv32": "qemu-system-riscv32"} if FULL else {})


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


# --- in C ------------------------------------------------------------------------------------------------------------


def both(n: int) -> bytes:
    """A logistic and a tanh whose input a layer made, and a softmax of their sum; of an input that is used again, too."""
    x, r, a, b, s, y = (tensor((n,), s) for s in (0.0004, 0.0005, 2.0**-15, 2.0**-15, 2.0**-13, 2.0**-15))
    nodes = [Node("RELU", [x], [r]), Node("LOGISTIC", [r], [a]), Node("TANH", [x], [b]), Node("ADD", [a, b], [s], {"activation": "none"})]  # fmt: skip
    return model([*nodes, Node("SOFTMAX", [s], [y], {"beta": 9.0})])


def test_the_c_code_is_the_reference(tmp_path: Path) -> None:
    for n in (7, 300):
        graph = load(tmp_path, both(n))
        given = {graph.inputs[0].name: rows_of(n, n)}
        want, _ = reference.simulate(graph, given)
        got = run_native(graph, given, sanitize=True)
        assert_array_equal(got[graph.outputs[0].name], want[graph.outputs[0].name])
        compare(tmp_path, both(n), rows_of(n, n)[:, None])


def test_every_value_in_c(tmp_path: Path) -> None:
    n = 2048
    x, big, ends = tensor((n,), 0.00021), tensor((n,), 0.3), [tensor((n,)) for _ in range(3)]
    nodes = [Node("LOGISTIC", [x], [ends[0]]), Node("TANH", [x], [ends[1]]), Node("QUANTIZE", [x], [big]), Node("TANH", [big], [ends[2]])]  # fmt: skip
    graph = load(tmp_path, model(nodes, outputs=ends))
    given = {graph.inputs[0].name: EVERY.reshape(-1, n)}
    want, found = reference.simulate(graph, given)[0], run_native(graph, given)
    for name, values in want.items():
        assert_array_equal(found[name], values)


def compare_c(folder: Path, file: bytes, given: np.ndarray) -> None:
    graph = load(folder, file)
    name = graph.outputs[0].name
    stored = {graph.inputs[0].name: given.reshape(-1, *graph.inputs[0].shape)}
    assert_array_equal(run_native(graph, stored)[name], reference.simulate(graph, stored)[0][name])


def test_every_distance_in_c_and_rows_of_every_length(tmp_path: Path) -> None:
    compare_c(tmp_path, softmax(2, 10 / 65535, rows=1 << 16), every_distance())
    for n, scale in ((1, 0.001), (33, 0.0002), (1000, 0.0001), (4097, 1e-9)):
        compare_c(tmp_path, softmax(n, scale), rows_of(n, n))


def test_a_softmax_over_its_own_input() -> None:
    """The arena lets it write over what it reads, rows and all, and its exponentials lie there meanwhile."""
    b = GraphBuilder("over")
    x = b.input("x", (3, 11), QType(16, True, Fraction(1, 4096)))
    own = b.transpose(x, (1, 0), "own")
    exp, reciprocal = (
        b.const("exp", wide.line_table(wide._exp, -10.0, 0.0)),
        b.const("reciprocal", wide.line_table(wide._reciprocal, 0.0, 1.0)),
    )
    share = b.softmax16(own, exp, reciprocal, 1 << 30, 30, wide.Q15, "share")
    b.output(b.transpose(share, (1, 0), "y"))
    graph, plan = passes.run(b.graph())
    assert plan.arena["share"] == plan.arena["own"]
    given = {"x": np.random.default_rng(0).integers(-32768, 32768, (20, 3, 11))}
    assert_array_equal(
        run_native(graph, given, plan=plan, sanitize=True)["y"], reference.simulate(graph, given)[0]["y"]
    )


def test_steps_of_a_table_are_never_stored(tmp_path: Path) -> None:
    """32 bits a value, between a layer of 16 bits and a function of 16: both ends are stored, not the middle."""
    graph, plan = passes.run(load(tmp_path, both(50)))
    kinds = [f.kind for f in functions(graph, plan)]
    assert kinds.count("requantize+interpolate") == 2, kinds
    assert all(
        t.qtype.bits <= 17 or t.name in plan.fused or "sum" in t.name or t.name[-1] in "ab" for t in graph.tensors()
    )


def test_in_bands_of_rows() -> None:
    """As `--optimize ram` cuts the first layers of an image."""
    rng, b = np.random.default_rng(3), GraphBuilder("bands")
    x = b.input("x", (12, 5, 2), wide.Q15)
    acc = b.conv2d(x, b.const("w", rng.integers(-8, 8, (3, 3, 3, 2))), None, "acc", padding=((1, 1), (1, 1)))
    fine = b.requantize(
        acc, QType(17, True, Fraction(1, 12288)), [1], [0], [6], Rounding.HALF_UP, "fine", (-65279, 65279)
    )
    curve = b.interpolate(fine, wide.Q15, b.const("sigmoid", wide.sigmoid()), 8, Rounding.HALF_AWAY, "curve")
    exp, reciprocal = (
        b.const("exp", wide.line_table(wide._exp, -10.0, 0.0)),
        b.const("r", wide.line_table(wide._reciprocal, 0.0, 1.0)),
    )
    b.output(b.softmax16(curve, exp, reciprocal, 1 << 30, 31, wide.Q15, "y"))
    given = {"x": rng.integers(-32768, 32768, (9, 12, 5, 2))}
    want, seen = reference.simulate(b.graph(), given)[0]["y"], 0
    for made in cut(b.graph()):
        assert_array_equal(reference.simulate(check(made), given)[0]["y"], want)
        seen += any(op.output.name.startswith("y_band") for op in made.ops)
    assert seen > 1
    graph, plan = passes.run(b.graph(), None, optimize="ram")
    assert_array_equal(run_native(graph, given, plan=plan, sanitize=True)["y"], want)


STEP = """
#include <stdio.h>
#include "kernels/nn_interpolate.h"
static const int16_t table[5] = {-7, 9, -9, 30, 0};
int main(void) {
    for (int32_t x = -128; x < 128; x++) {
        const nn_interpolate_args a = {table, NN_S16, -128, 6, 0, 3, NN_HALF_AWAY, 1000};
        const int16_t y = (int16_t)nn_interpolate(x, a);
        if (fwrite(&y, sizeof y, 1, stdout) != 1) return 1;
    }
    return 0;
}
"""


def test_the_kernel_alone(tmp_path: Path) -> None:
    program = compile_native(kernel_files(("nn_softmax16.h",)), tmp_path, SANITIZE, driver=STEP)
    done = subprocess.run([program], capture_output=True, check=True)
    graph = line(8, True, [-7, 9, -9, 30, 0], 3, Rounding.HALF_AWAY, QType(12, True, Fraction(1)), 1000)
    want, _ = reference.simulate(graph, {"x": np.arange(-128, 128)[None]})
    assert_array_equal(np.frombuffer(done.stdout, "<i2"), want["y"][0])


@pytest.mark.parametrize("name", BOARDS)
def test_on_a_board(name: str, tmp_path: Path) -> None:
    if not tools.find(BOARDS[name]).path:
        pytest.skip(f"{name} needs {BOARDS[name]}: {tools.advice(BOARDS[name])}")
    graph = load(tmp_path, both(40))
    given = rows_of(40, 4)
    found = flow.measure(graph, boards.load(name), {graph.inputs[0].name: given}, runs=1)
    assert found.bit_exact
    assert found.outputs_compared == given.size


@pytest.mark.parametrize("table", ["sigmoid", "exp", "reciprocal"])
def test_a_corrupted_entry_is_seen(tmp_path: Path, table: str) -> None:
    """One entry of the generated C off by three: some output is another."""
    given = EVERY[None, 1::16] if table == "sigmoid" else every_distance()[None, ::16]
    graph = load(
        tmp_path, function("TANH", 2.0**-11, 4096) if table == "sigmoid" else softmax(2, 10 / 65535, rows=4096)
    )
    wrong = tuple(
        replace(op, **{
            field: changed(const, 380, 3)
            for field, const in vars(op).items() if isinstance(const, Const) and const.tensor.name == table
        })
        for op in graph.ops
    )  # fmt: skip
    assert wrong != graph.ops
    stored = {graph.inputs[0].name: given}
    want, name = reference.simulate(graph, stored)[0], graph.outputs[0].name
    assert_array_equal(run_native(graph, stored)[name], want[name])
    assert (run_native(replace(graph, ops=wrong), stored)[name] != want[name]).any()


# --- circuits --------------------------------------------------------------------------------------------------------


def test_a_circuit_refuses_them_by_name(tmp_path: Path) -> None:
    graph = load(tmp_path, both(4))
    said = [str(error) for op in graph.ops if (error := no_circuit(op))]
    assert len(said) == 3
    assert sum("leave the softmax to the host" in text for text in said) == 1
    assert (
        sum("leave the function to the host: end the model at what it reads, or use 8 bits" in text for text in said)
        == 2
    )
    only = load(tmp_path, function("TANH", 0.001, 4))
    with pytest.raises(UnsupportedError, match=r"^interpolate %\w+: has no kernel in a circuit"):
        lower(only, Hls().stream)
