"""Small TFLite networks against TensorFlow Lite Micro's interpreter, and the ends of a model: real inputs, real outputs, names.

One rule: a network is what its operators are, one after another; here it is seen that nothing gets lost between them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests import tflite_files
from tests.test_tflite_ops import compare, load, samples_for
from tests.tflite_cases import ACTIVATIONS, Rng, pick, scale, size, zero
from tests.tflite_files import Node, T, constant, model
from toolchain import boards, flow, inputs, inspect, reference

WINDOW = {"padding": "same", "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1}


class Net:
    """A network that grows by random operators, each reading what was made before it."""

    def __init__(self, seed: int, kind: str) -> None:
        self.rng, self.kind, self.nodes = np.random.default_rng(seed), kind, list[Node]()
        self.last = self.data((1, size(self.rng, 8, 4), size(self.rng, 8, 4), size(self.rng, 4)))
        self.seen = [self.last]

    def data(self, shape: tuple[int, ...], like: T | None = None) -> T:
        if like is not None:
            return T(shape, self.kind, like.scale, like.zero_point)
        return T(shape, self.kind, scale(self.rng, -5, -3), zero(self.rng, self.kind))

    def put(self, op: str, more: list[T | None], y: T, **options: object) -> None:
        self.nodes.append(Node(op, [self.last, *more], [y], options))
        self.last = y
        self.seen.append(y)

    def product(self, op: str, weights: tuple[int, ...], axis: int, shape: tuple[int, ...], **options: object) -> None:
        rng, x, out = self.rng, self.last, weights[axis]
        y = self.data(shape)
        terms = int(np.prod(weights)) // out
        sw = np.float32(y.scale / x.scale / (60 * np.sqrt(terms))) * rng.uniform(0.5, 1.5, out).astype(np.float32)
        weight = constant(rng.integers(-127, 128, weights), "int8", scale=sw.tolist(), axis=axis)
        wide = "int32" if self.kind == "int8" else "int64"
        bias = constant(rng.integers(-2000, 2000, out), wide, scale=(sw * np.float32(x.scale)).tolist())
        self.put(op, [weight, bias], y, activation=pick(rng, ACTIVATIONS[:3]), **options)

    def grow(self) -> None:
        _, h, w, c = self.last.shape
        op = pick(self.rng, ("conv", "depthwise", "add", "mul", "pool", "pad", "concat", "relu", "mean"))
        same = [t for t in self.seen if t.shape == self.last.shape]
        other, shape = pick(self.rng, same), self.last.shape
        if op == "conv":
            n, k = size(self.rng, 5), pick(self.rng, (1, 3))
            self.product("CONV_2D", (n, k, k, c), 0, (1, h, w, n), **WINDOW)
        elif op == "depthwise":
            self.product("DEPTHWISE_CONV_2D", (1, 3, 3, c), 3, shape, depth_multiplier=1, **WINDOW)
        elif op in ("add", "mul"):
            y = self.data(shape)
            y = replace(y, scale=float(np.float32(max(self.last.scale, other.scale) * (1.3 if op == "add" else 0.5))))
            self.put(op.upper(), [other], y, activation="relu")
        elif op == "pool" and min(h, w) > 1:
            y = self.data((1, h // 2, w // 2, c), self.last)
            kind = pick(self.rng, ("MAX_POOL_2D", "AVERAGE_POOL_2D"))
            self.put(kind, [], y, padding="valid", stride_h=2, stride_w=2, filter_h=2, filter_w=2, activation="none")
        elif op == "pad":
            self.put("PAD", [constant([[0, 0], [1, 0], [0, 1], [0, 0]])], self.data((1, h + 1, w + 1, c), self.last))
        elif op == "concat":
            alike = [t for t in same if (t.scale, t.zero_point) == (self.last.scale, self.last.zero_point)]
            self.put("CONCATENATION", [pick(self.rng, alike)], self.data((1, h, w, 2 * c), self.last), axis=3)
        elif op == "mean":
            self.put("MEAN", [constant([1, 2])], self.data((1, 1, 1, c)), keep_dims=True)
        else:
            self.put("RELU", [], self.data(shape))

    def file(self) -> bytes:
        for _ in range(size(self.rng, 7, 3)):
            self.grow()
        flat = int(np.prod(self.last.shape))
        self.put("RESHAPE", [constant([1, flat])], self.data((1, flat), self.last))
        self.product("FULLY_CONNECTED", (5, flat), 0, (1, 5))
        y = T((1, 5), "int8", 1 / 256, -128) if self.kind == "int8" else T((1, 5), "int16", 1 / 32768)
        self.put("SOFTMAX", [], y, beta=1.0)
        return model(self.nodes, outputs=[self.last])


@pytest.mark.parametrize("kind", ["int8", "int16"])
@pytest.mark.parametrize("seed", range(24))
def test_a_network_computes_what_tflm_computes(tmp_path: Path, seed: int, kind: str) -> None:
    file = Net(seed, kind).file()
    compare(tmp_path, file, *samples_for(load(tmp_path, file)))


def test_a_network_of_16_bits_in_c(tmp_path: Path) -> None:
    graph = load(tmp_path, Net(3, "int16").file())
    found = flow.measure(graph, boards.load("native"), inputs.made_up(graph, 8), runs=1)
    assert found.bit_exact


def real_ends(rng: Rng) -> tuple[bytes, T, T]:
    x, y = (
        T((1, 64), "float32", name="serving_default_image:0"),
        T((1, 64), "float32", name="StatefulPartitionedCall:0"),
    )
    q, r = T((1, 64), "int8", scale(rng), zero(rng)), T((1, 64), "int8", scale(rng, -3, 0), zero(rng))
    nodes = [Node("QUANTIZE", [x], [q]), Node("RELU", [q], [r]), Node("DEQUANTIZE", [r], [y])]
    return model(nodes), q, r


def test_real_ends_are_the_types_of_the_ends(tmp_path: Path) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        file, q, r = real_ends(rng)
        graph = load(tmp_path, file)
        ((x,), (y,)) = graph.inputs, graph.outputs
        assert (x.name, y.name) == ("image", "output")
        assert (float(x.qtype.scales[0]), x.qtype.zero_point) == (np.float32(q.scale), q.zero_point)
        assert (float(y.qtype.scales[0]), y.qtype.zero_point) == (np.float32(r.scale), r.zero_point)
        assert graph.notes == (
            "input image: the model's QUANTIZE rounds halves away from zero in float32, real samples are rounded half to even here; "
            "give stored integers where that matters",
            "output output: the model's DEQUANTIZE makes float32 of these integers; their type says their real values",
        )
        steps = rng.integers(-128, 128, (8, 64))
        real = ((steps - q.zero_point) * np.float64(np.float32(q.scale))).astype(np.float32)  # no halves
        found, _ = flow.simulate(graph, real)
        (answer,) = tflite_files.run(file, real)
        assert_array_equal(inputs.dequantize(y, found["output"]).astype(np.float32), answer.reshape(8, 64))


def test_unsigned_ends(tmp_path: Path) -> None:
    x, y = T((1, 16), "uint8", 0.5, 3), T((1, 16), "uint8", 0.25, 7)
    a, b = T((1, 16), "int8", 0.5, -125), T((1, 16), "int8", 0.3, 4)
    file = model([Node("QUANTIZE", [x], [a]), Node("TANH", [a], [b]), Node("QUANTIZE", [b], [y])])
    compare(tmp_path, file, np.random.default_rng(0).integers(0, 256, (20, 1, 16)))


def test_several_inputs_and_outputs_keep_their_order_and_names(tmp_path: Path) -> None:
    a, b = T((1, 3), "int8", 0.5, 1, name="left"), T((1, 3), "int8", 0.25, -4, name="right")
    s = T((1, 3), "int8", 0.6, 2, name="model/add/Add")
    r = T((1, 3), "int8", 0.6, 2, name="model/out/Relu;model/out/BiasAdd")
    file = model([Node("ADD", [b, a], [s], {"activation": "none"}), Node("RELU", [s], [r])], [b, a], [r, s])
    graph = load(tmp_path, file)
    assert [t.name for t in graph.inputs] == ["right", "left"]
    assert [t.name for t in graph.outputs] == ["out_Relu", "add_Add"]
    compare(tmp_path, file, *samples_for(graph))


def test_an_output_that_is_an_input_or_another_output_is_a_tensor_of_its_own(tmp_path: Path) -> None:
    x, y = T((1, 4), "int8", 0.5, 1), T((1, 4), "int8", 0.5, 1)
    graph = load(tmp_path, model([Node("RESHAPE", [x, constant([1, 4])], [y])], [x], [x, y]))
    given = np.arange(8).reshape(2, 4)
    found, _ = reference.simulate(graph, {graph.inputs[0].name: given})
    assert len(found) == 2
    for values in found.values():
        assert_array_equal(values, given)
    compare(tmp_path, model([Node("RESHAPE", [x, constant([1, 4])], [y])], [x], [y]), given[:, None])


def test_a_tensor_and_its_real_values_may_both_be_outputs(tmp_path: Path) -> None:
    x, q, y = T((1, 4), "int8", 0.5), T((1, 4), "int8", 0.25, 3, name="q"), T((1, 4), "float32", name="y")
    file = model([Node("RELU", [x], [q]), Node("DEQUANTIZE", [q], [y])], [x], [y, q])
    given = np.arange(-8, 8).reshape(4, 4)
    graph = load(tmp_path, file)
    assert [t.name for t in graph.outputs] == ["y", "q"]
    found, _ = reference.simulate(graph, {graph.inputs[0].name: given})
    real, stored = tflite_files.run(file, given)
    assert_array_equal(found["q"], stored.reshape(4, 4))
    assert_array_equal(inputs.dequantize(graph.outputs[0], found["y"]), real.reshape(4, 4))


def test_shapes_that_the_model_computes_are_known_already(tmp_path: Path) -> None:
    """As converters write Flatten where the batch was open: Shape, its first entry, Pack, Reshape."""
    x, y = T((1, 2, 3, 4), "int8", 0.5, 7), T((1, 24), "int8", 0.5, 7)
    shape, first, packed = T((4,), "int32"), T((), "int32"), T((2,), "int32")
    cut = {"begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 1}
    nodes = [
        Node("SHAPE", [x], [shape], {"out_type": 2}),
        Node("STRIDED_SLICE", [shape, constant([0]), constant([1]), constant([1])], [first], cut),
        Node("PACK", [first, constant(24)], [packed], {"values_count": 2, "axis": 0}),
        Node("RESHAPE", [x, packed], [y]),
    ]
    compare(tmp_path, model(nodes), np.random.default_rng(0).integers(-128, 128, (4, 1, 2, 3, 4)))


@pytest.mark.parametrize("op", ["SOFTMAX", "LOGISTIC", "TANH"])
def test_functions_of_16_bits_inside_and_at_the_end(tmp_path: Path, op: str) -> None:
    x, a = T((1, 9), "int16", 2.0**-12), T((1, 9), "int16", 2.0**-11)
    y, z = T((1, 9), "int16", 2.0**-15, name="y"), T((1, 9), "int16", 2.0**-14)
    given = np.random.default_rng(0).integers(-32768, 32768, (40, 1, 9))
    node = Node(op, [a], [y], {"beta": 1.0} if op == "SOFTMAX" else {})
    end, inside = [Node("RELU", [x], [a]), node], Node("ADD", [y, y], [z], {"activation": "none"})
    compare(tmp_path, model([*end, inside]), given)
    compare(tmp_path, model(end), given)
    real = T((1, 9), "float32", name="real")
    graph = load(tmp_path, model([*end, Node("DEQUANTIZE", [y], [real])]))
    assert [note.split(":")[0] for note in graph.notes] == ["output real"]


def test_a_table_is_there_one_time_however_many_operators_read_it(tmp_path: Path) -> None:
    """Gates, as those of a GRU: sigmoids and tanhs of one table."""
    x = T((1, 9), "int16", 2.0**-12)
    gates = [T((1, 9), "int16", 2.0**-15, name=f"gate{k}") for k in range(4)]
    nodes = [Node(op, [x], [y], {}) for op, y in zip(("LOGISTIC", "TANH", "LOGISTIC", "TANH"), gates, strict=True)]
    file = model(nodes, outputs=gates)
    graph = load(tmp_path, file)
    assert {c.tensor.name for c in graph.consts()} == {"sigmoid"}
    assert inspect.as_json(graph)["weight_bytes"] == inspect.facts(graph)[1].weight_bytes == 1026
    compare(tmp_path, file, np.arange(-32768, 32768, 7)[: 9 * 1000].reshape(-1, 1, 9))
    built = flow.emit(graph, boards.load("native"))
    assert built.files["model.c"].count("static const int16_t model_const_sigmoid[513]") == 1


def test_what_moves_integers_moves_them_whatever_their_scales(tmp_path: Path) -> None:
    x, y = T((1, 2, 4), "int8", 0.5, 1), T((1, 4, 2), "int8", 0.25, -3)
    z = T((1, 1, 4, 2), "int8", 0.125, 9)
    file = model(
        [Node("TRANSPOSE", [x, constant([0, 2, 1])], [y]), Node("PACK", [y], [z], {"axis": 0, "values_count": 1})]
    )
    compare(tmp_path, file, np.random.default_rng(1).integers(-128, 128, (5, 1, 2, 4)))
    (out,) = load(tmp_path, file).outputs
    assert (float(out.qtype.scales[0]), out.qtype.zero_point) == (0.125, 9)
