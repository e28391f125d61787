"""LOGISTIC, TANH and SOFTMAX of 16 bits in C: natively, over their own input, in bands of rows, on boards; refused by circuits."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.native import SANITIZE, compile_native, run_native
from tests.test_bands import cut
from tests.test_tflite_ops import compare, load
from tests.test_wide import EVERY, FULL, changed, compare_c, every_distance, function, line, rows_of, softmax, tensor
from tests.tflite_files import Node, model
from toolchain import boards, flow, passes, reference, tools
from toolchain.backends.c import kernel_files
from toolchain.backends.hls4ml.lowering import lower
from toolchain.errors import UnsupportedError
from toolchain.frontends.tflite import wide
from toolchain.ir import Const, QType, check
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Rounding
from toolchain.layout import functions
from toolchain.passes.plan import Hls, no_circuit

BOARDS = {"unicorn_m4": "unicorn"} | ({"simavr_uno": "simavr", "qemu_virt_rv32": "qemu-system-riscv32"} if FULL else {})


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
