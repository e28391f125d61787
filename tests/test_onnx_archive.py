"""Reading ONNX files: what a good file says, and one clear error for each thing that a file can do wrong."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import onnx_files
from toolchain import cli
from toolchain.errors import ToolchainError
from toolchain.frontends.qonnx import archive, dialects
from toolchain.frontends.qonnx.archive import Input, Model
from toolchain.options import LoadOptions

T = onnx.TensorProto
F32 = np.float32
QUANT = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
DENSE = {"w": np.ones((4, 3), F32), "s": F32(0.5), "z": F32(0), "b": F32(4)}


def dense(opset: int = 13, domain: str = "qonnx.custom_op.general", **more: Any) -> Any:
    specs = [(f"{domain}::Quant", "x s z b", "q", QUANT), ("MatMul", "q w", "m"), ("Relu", "m", "y")]
    return onnx_files.model(specs, DENSE, opset=opset, **{domain.replace(".", "__"): 1}, **more)


def refused(source: Any, options: LoadOptions | None = None) -> str:
    with pytest.raises(ToolchainError) as caught:
        archive.read(source, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def saved(folder: Path, proto: Any, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


# --- good files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, 21])
def test_what_the_file_says(opset: int, tmp_path: Path) -> None:
    proto = dense(opset)
    for source in (proto, saved(tmp_path, proto), str(saved(tmp_path, proto))):
        made = archive.read(source)  # type: ignore[arg-type]
        assert made.inputs == (Input("x", (1, 4), "float32"),) and made.outputs == ("y",) and made.opset == opset
        assert [(n.op, n.name, n.domain, n.opset) for n in made.nodes] == [
            ("Quant", "Quant_0", "qonnx", 1),
            ("MatMul", "MatMul_1", "", opset),
            ("Relu", "Relu_2", "", opset),
        ]
        assert dict(made.nodes[0].attributes) == QUANT and made.nodes[0].inputs == ("x", "s", "z", "b")
        assert {name: c.value.shape for name, c in made.constants.items()} == {"w": (4, 3), "s": (), "z": (), "b": ()}
        assert made.notes == () and made.name == ("made" if source is proto else "m")
    assert proto == dense(opset)  # a live model is not changed


@pytest.mark.parametrize("domain", sorted(archive.QONNX))
def test_every_spelling_of_the_domain(domain: str) -> None:
    assert archive.read(dense(domain=domain)).nodes[0].domain == "qonnx"


def test_a_domain_without_a_version_is_version_1_as_in_qonnx() -> None:
    """As in the models of the QONNX paper, which import none for onnx.brevitas."""
    proto = dense(domain="onnx.brevitas")
    del proto.opset_import[1:]
    assert archive.read(proto).nodes[0].opset == 1
    proto.opset_import.append(helper.make_opsetid("onnx.brevitas", 2))
    assert archive.read(proto).nodes[0].opset == 2


def test_initializers_among_the_inputs_are_no_inputs() -> None:
    proto = dense(9, ir=3)
    proto.graph.input.extend(helper.make_tensor_value_info(n, T.FLOAT, list(v.shape)) for n, v in DENSE.items())
    assert archive.read(proto).inputs == (Input("x", (1, 4), "float32"),)


def test_nodes_in_order_dead_ones_dropped_names_unique() -> None:
    specs = [
        ("Add", "b c", "y"),
        ("Neg", "x", "b"),
        ("Abs", "x", "dead"),
        ("Relu", "b", "c"),
        ("weird::Op", "dead", "d2"),
    ]
    proto = onnx_files.model(specs, {"unused": F32(1)})
    for node in proto.graph.node:
        node.name = "same"
    made = archive.read(proto)
    assert [(n.op, n.name) for n in made.nodes] == [("Neg", "same"), ("Relu", "same_2"), ("Add", "same_3")]
    assert made.constants == {}
    kept = archive.read(onnx_files.model([("Abs", "x", "a"), ("Neg", "x", "b"), ("Add", "b a", "y")], {}))
    assert [n.op for n in kept.nodes] == ["Abs", "Neg", "Add"]  # the file's order, where it is one


def test_a_long_chain() -> None:
    specs = [("Neg", f"t{i}", f"t{i + 1}") for i in range(5000)]
    proto = onnx_files.model([("Relu", "x", "t0"), *reversed(specs)], {}, outputs="t5000")
    assert len(archive.read(proto).nodes) == 5001


def test_constant_nodes_in_every_form() -> None:
    specs = [
        ("Constant", "", "a", {"value": numpy_helper.from_array(np.asarray([1, 2], F32))}),
        ("Constant", "", "b", {"value_float": 0.1}),
        ("Constant", "", "c", {"value_floats": [0.1, 0.2]}),
        ("Constant", "", "d", {"value_int": 3}),
        ("Constant", "", "e", {"value_ints": [1, 2]}),
        ("Sum", "x a b c", "f"),
        ("Concat", "d2 e", "g", {"axis": 0}),
        ("Unsqueeze", "d z", "d2"),
        ("Tile", "f g", "y"),
    ]
    made = archive.read(onnx_files.model(specs, {"z": np.asarray([0])}, {"x": [1, 2]}))
    found = {name: made.constants[name].value for name in "abcde"}
    assert [v.dtype for v in found.values()] == [F32, F32, F32, np.int64, np.int64]
    assert found["b"] == F32(0.1) and found["e"].tolist() == [1, 2] and found["d"].shape == ()
    assert "Constant" not in [n.op for n in made.nodes]


def test_attributes_are_python_values() -> None:
    specs = [
        ("Conv", "x w", "c", {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "group": 1}),
        ("LeakyRelu", "c", "y", {"alpha": 0.1}),
    ]
    conv, leaky = archive.read(onnx_files.model(specs, {"w": np.ones((2, 1, 3), F32)}, {"x": [1, 1, 8]})).nodes
    assert dict(conv.attributes) == {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "group": 1}
    assert leaky.attributes["alpha"] == float(F32(0.1))


def test_element_types() -> None:
    """Every integer type, raw and not; four-bit ones lie two to a byte and say their bits."""
    for name, dtype in (("INT4", np.int8), ("UINT4", np.uint8)):
        values = [-8, 7, -1] if name == "INT4" else [15, 0, 9]
        for raw in (False, True):
            proto = onnx_files.model([("DequantizeLinear", "w s", "d"), ("Add", "x d", "y")], {"s": F32(1)}, {"x": [1, 3]}, opset=21)  # fmt: skip
            tensor = helper.make_tensor("w", getattr(T, name), [3], values)
            if raw:
                packed = [(values[0] & 15) | (values[1] & 15) << 4, values[2] & 15]
                tensor = helper.make_tensor("w", getattr(T, name), [3], bytes(packed), raw=True)
            proto.graph.initializer.append(tensor)
            found = archive.read(proto).constants["w"]
            assert found.value.tolist() == values and found.value.dtype == dtype and found.bits == 4
    for dtype in (
        np.int8,
        np.uint8,
        np.int16,
        np.uint16,
        np.int32,
        np.int64,
        np.uint32,
        np.uint64,
        np.bool_,
        np.float64,
        F32,
    ):
        value = np.asarray([[1], [0]], dtype)
        listed = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(value.dtype), [2, 1], value.ravel().tolist())
        for tensor in (numpy_helper.from_array(value, "w"), listed):
            proto = onnx_files.model([("Cast", "w", "c", {"to": T.FLOAT}), ("Add", "x c", "y")], {}, {"x": [1, 2, 1]})
            proto.graph.initializer.append(tensor)
            found = archive.read(proto).constants["w"]
            assert found.value.dtype == dtype and found.bits is None
            np.testing.assert_array_equal(found.value, value)


def test_integer_inputs_say_their_type() -> None:
    for kind, dtype in ((T.UINT8, "uint8"), (T.INT8, "int8"), (T.INT32, "int32"), (T.INT4, "int4")):
        proto = onnx_files.model([("DequantizeLinear", "x s", "y")], {"s": F32(1)}, {"x": (kind, [1, 4])}, opset=21)
        assert archive.read(proto).inputs == (Input("x", (1, 4), dtype),)


def test_outputs_that_are_constants_are_left_out() -> None:
    """Brevitas returns a whole QuantTensor where the last layer is told to: value, scale, zero point, bits..."""
    proto = onnx_files.model([("Relu", "x", "y"), ("Identity", "s", "scale")], {"s": F32(1)}, outputs="y scale s")
    made = archive.read(proto)
    assert made.outputs == ("y",) and [n.op for n in made.nodes] == ["Relu"] and made.constants == {}
    assert made.notes == ("outputs that are constants are left out: scale, s",)
    only = onnx_files.model([("Identity", "s", "y")], {"s": F32(1)})
    assert refused(only) == "made: none of its outputs depends on an input; export the whole model"


# --- files that are none ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty (it begins with b'')"),
        (b"hello, this is text", "not a binary ONNX file (it begins with b'hello, t')"),
        (b'{"irVersion": 8}', "not a binary ONNX file (it begins with b'{\"irVers')"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "not a binary ONNX file (it begins with b'\\x89HDF\\r\\n\\x1a\\n')"),
    ],
)
def test_not_an_onnx_file(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    assert refused(path) == f"{path}: {said}; export or copy the model again"


def test_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert refused(path) == f"{path}: there is no such file; give the path of a saved .onnx model"
    assert refused(tmp_path) == f"{tmp_path}: there is no such file; give the path of a saved .onnx model"
    path.write_bytes(b"x")
    path.chmod(0)
    if not os.access(path, os.R_OK):  # root reads everything
        assert refused(path) == f"{path}: cannot be read (Permission denied); check the file"


def test_a_file_cut_anywhere_is_one_error(tmp_path: Path) -> None:
    data = dense().SerializeToString()
    last = len(onnx.load_model_from_string(data).opset_import[1].SerializeToString()) + 2
    for end in range(len(data)):
        if end == len(data) - last:  # protobuf has no end mark: without its last field this is another good file
            continue
        path = tmp_path / "cut.onnx"
        path.write_bytes(data[:end])
        said = refused(path)
        assert said.startswith(f"{path}: ") and said.endswith("export or copy the model again")


def test_damaged_files_raise_nothing_else(tmp_path: Path) -> None:
    """Random damage: a model that still reads, or one line."""
    chosen = random.Random(4)
    sources = [dense().SerializeToString(), dense(9, ir=3).SerializeToString()]
    path = tmp_path / "m.onnx"
    for _ in range(400):
        data = bytearray(chosen.choice(sources))
        for _ in range(chosen.randint(1, 3)):
            at = chosen.randrange(len(data))
            if chosen.random() < 0.9:
                data[at] = chosen.randrange(256)
            else:
                del data[at : at + chosen.randint(1, 20)]
        path.write_bytes(data)
        said = ""
        try:
            dialects.rewrite(archive.read(path))
        except ToolchainError as e:
            said = str(e)
        assert "\n" not in said


# --- versions ---------------------------------------------------------------------------------------------------------------


def test_ir_version() -> None:
    proto = dense(ir=onnx.IR_VERSION + 1)
    assert refused(proto) == (
        f"made: IR version {onnx.IR_VERSION + 1}, onnx {onnx.__version__} reads up to {onnx.IR_VERSION}; "
        f"install a newer onnx, or save the model with an older ir_version"
    )
    assert refused(dense(ir=0)).startswith("made: not a whole ONNX model: it has no IR version or no outputs")


def test_opsets_beyond_are_read_where_nothing_changed() -> None:
    newest = onnx.defs.onnx_opset_version()
    for opset in (7, 8, 22, newest):
        made = archive.read(dense(opset))
        assert made.opset == opset and [n.op for n in made.nodes] == ["Quant", "MatMul", "Relu"]
    for opset in (6, newest + 1):
        wanted = 9 if opset == 6 else 21
        assert refused(dense(opset)) == f"made: opset {opset}, must be 9 to 21; export with opset_version={wanted}"
    old = onnx_files.model([("Upsample", "x", "y", {"scales": [1.0, 1.0, 2.0, 2.0]})], {}, {"x": [1, 1, 2, 2]}, opset=8)
    assert re.fullmatch(
        r"node Upsample_0 \(Upsample\): is not valid at opset 8, and opsets 9 to 21 are read: .*; export with opset_version=13",
        refused(old),
    )
    if newest >= 23:
        new = onnx_files.model([("QuantizeLinear", "x s", "y", {"precision": 1})], {"s": F32(1)}, opset=23)
        assert "is not valid at opset 23, and opsets 9 to 21 are read: Unrecognized attribute: precision" in refused(
            new
        )


def test_no_opset() -> None:
    proto = dense()
    del proto.opset_import[:]
    said = "made: does not say which opset its operators are of; export or copy the model again"
    assert refused(proto) == said
    del proto.graph.node[1:]
    proto.graph.output[0].name = "q"
    assert archive.read(proto).opset == 21  # no standard operator in it


def test_an_operator_that_its_schema_forbids() -> None:
    assert refused(onnx_files.model([("Relu", "x x", "y")], {})).startswith("node Relu_0 (Relu): is not valid: Node")
    wrong = onnx_files.model([("Softmax", "x", "y", {"axis": 1.5})], {})
    assert refused(wrong).startswith("node Softmax_0 (Softmax): is not valid: Mismatched attribute type")
    assert (
        archive.read(onnx_files.model([("Novel", "x", "y")], {})).nodes[0].op == "Novel"
    )  # the lowering lists what it knows


def test_unknown_domains() -> None:
    known = ", ".join(sorted(archive.QONNX))
    said = refused(onnx_files.model([("com.microsoft::QGemm", "x", "y")], {}))
    assert said == (
        f"node QGemm_0 (QGemm): operator domain 'com.microsoft' is unknown; known: ai.onnx, {known}; quantize with "
        f"quant_format=QuantFormat.QDQ, which uses standard operators"
    )
    assert "make it channels-last" not in said
    last = refused(onnx_files.model([("qonnx.custom_op.channels_last::Conv", "x", "y")], {}))
    assert last.endswith("load the model as it was before qonnx made it channels-last")
    assert archive.read(onnx_files.model([("ai.onnx::Relu", "x", "y")], {})).nodes[0].domain == ""


# --- graphs that are none ---------------------------------------------------------------------------------------------------


def test_graphs_that_are_none() -> None:
    again = "export or copy the model again"
    cycle = onnx_files.model([("Add", "x b", "a"), ("Relu", "a", "b"), ("Neg", "b", "y")], {})
    assert refused(cycle) == f"made: its graph has a cycle through node Relu; {again}"
    itself = onnx_files.model([("Add", "x y", "y")], {})
    assert refused(itself) == f"made: its graph has a cycle through node Add; {again}"
    assert (
        refused(onnx_files.model([("Relu", "v", "y")], {}))
        == f"made: node Relu reads 'v', which nothing makes; {again}"
    )
    assert (
        refused(onnx_files.model([("Relu", "x", "v")], {})) == f"made: output y reads 'y', which nothing makes; {again}"
    )
    twice = onnx_files.model([("Relu", "x", "y"), ("Neg", "x", "y")], {})
    assert refused(twice) == f"made: tensor 'y' is made twice, must be made once; {again}"
    assert (
        refused(onnx_files.model([("Relu", "y", "x")], {}))
        == f"made: tensor 'x' is made twice, must be made once; {again}"
    )
    assert refused(onnx_files.model([("Relu", "x", "y")], {}, outputs="")).startswith("made: not a whole ONNX model")
    none = onnx_files.model([("Relu", "c", "y")], {"c": F32(1)}, inputs={})
    assert refused(none) == "made: has no inputs; export a model that reads something"


def test_names_are_text_of_one_line() -> None:
    for name in ("two\nlines", "a\tb"):
        proto = onnx_files.model([("Relu", "x", "y")], {})
        proto.graph.node[0].name = name
        assert refused(proto) == f"made: the name {name!r} is not text of one line; export or copy the model again"


def test_subgraphs() -> None:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])], "g", [], [helper.make_empty_tensor_value_info("t")]
    )
    proto = onnx_files.model(
        [("If", "c", "y", {"then_branch": inner, "else_branch": inner})], {"c": np.asarray(True)}, outputs="y x2"
    )  # fmt: skip
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["x2"]))
    proto.graph.node[0].input[0] = "c2"
    proto.graph.node.append(helper.make_node("Cast", ["x"], ["c2"], to=T.BOOL))
    assert re.fullmatch(
        r"node If_0 \(If\): holds a subgraph \((then|else)_branch\); export without control flow: if, loop and scan are refused",
        refused(proto),
    )


def test_sparse() -> None:
    values, indices = numpy_helper.from_array(np.asarray([1], F32), "w"), numpy_helper.from_array(np.asarray([0]))
    sparse = helper.make_sparse_tensor(values, indices, [4])
    proto = onnx_files.model([("Add", "x w", "y")], {})
    proto.graph.sparse_initializer.append(sparse)
    assert refused(proto) == "made: initializer 'w' is sparse; store it as a dense tensor"
    made = onnx_files.model([("Constant", "", "c", {"sparse_value": sparse}), ("Add", "x c", "y")], {})
    assert refused(made).endswith("attribute sparse_value is a sparse tensor; store it as a dense one")


# --- functions --------------------------------------------------------------------------------------------------------------


def with_function(name: str = "Twice", domain: str = "my", opset: int = 13, inner: str = "Mul") -> Any:
    proto = onnx_files.model([(f"{domain}::{name}", "x w", "y")], {"w": F32(2)}, **{domain.replace(".", "__"): 1})
    body = [
        helper.make_node(inner, ["a", "b"], ["t"], domain=domain if inner == name else ""),
        helper.make_node("Neg", ["t"], ["c"]),
    ]
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    proto.functions.append(helper.make_function(domain, name, ["a", "b"], ["c"], body, imports))
    return proto


def test_functions_are_put_in_place() -> None:
    made = archive.read(with_function())
    assert [n.op for n in made.nodes] == ["Mul", "Neg"]
    assert made.notes == ("functions of the file are put in place: Twice",)
    kept = archive.read(with_function("Quant", "qonnx.custom_op.general"))
    assert [(n.op, n.domain) for n in kept.nodes] == [("Quant", "qonnx")] and kept.notes == ()


def test_functions_that_cannot_be() -> None:
    assert refused(with_function(inner="Twice")) == (
        "made: function my.Twice calls itself, or too many others; export without functions"
    )
    assert refused(with_function(opset=17)).startswith("made: its functions cannot be put in place (")
    proto = with_function()
    for i in range(30):  # each twice the one before
        name = "Twice" if i == 0 else f"F{i}"
        body = [helper.make_node(name, [a, "b"], [c], domain="my") for a, c in (("a", "t"), ("t", "c"))]
        proto.functions.append(helper.make_function("my", f"F{i + 1}", ["a", "b"], ["c"], body, proto.opset_import))
    proto.graph.node[0].op_type = "F30"
    assert refused(proto) == "made: its functions in place make more than 100,000 nodes; export without functions"


# --- element types ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "COMPLEX64", "STRING"])
def test_element_types_refused(kind: str) -> None:
    proto = onnx_files.model([("Add", "x w", "y")], {})
    proto.graph.initializer.append(T(name="w", data_type=getattr(T, kind), dims=[0]))
    said = "must be float32 or integers; export the model in float32, with integers of 4 to 64 bits"
    assert refused(proto) == f"constant w: holds {kind.lower()} values, {said}"
    given = onnx_files.model([("Relu", "x", "y")], {}, {"x": (getattr(T, kind), [1, 4])})
    assert refused(given) == f"input x: holds {kind.lower()} values, {said}"
    proto.graph.node[0].input[1] = "x"
    archive.read(proto)  # nothing reads w any more


@pytest.mark.parametrize("kind", ["DOUBLE", "BOOL", "INT64"])
def test_input_types_refused(kind: str) -> None:
    given = onnx_files.model([("Cast", "x", "y", {"to": T.FLOAT})], {}, {"x": (getattr(T, kind), [1, 4])})
    assert refused(given) == (
        f"input x: is {kind.lower()}, must be float32 (real values) or integers of at most 32 bits; export with a float32 example input"
    )


def test_tensors_that_do_not_fit_their_shape() -> None:
    def with_tensor(tensor: Any) -> Any:
        proto = onnx_files.model([("Add", "x w", "y")], {})
        proto.graph.initializer.append(tensor)
        return proto

    raw = T(name="w", data_type=T.FLOAT, dims=[4], raw_data=bytes(12))
    again = "export the model again"
    assert refused(with_tensor(raw)) == f"constant w: holds 12 bytes, its shape [4] needs 16; {again}"
    listed = T(name="w", data_type=T.FLOAT, dims=[4], float_data=[1, 2])
    assert re.fullmatch(rf"constant w: cannot be read \(.*\); {again}", refused(with_tensor(listed)))
    negative = T(name="w", data_type=T.FLOAT, dims=[-1], float_data=[1])
    assert refused(with_tensor(negative)) == f"constant w: has the shape [-1], must not be negative; {again}"
    huge = T(name="w", data_type=T.FLOAT, dims=[2**40, 2**40], raw_data=b"")
    assert refused(with_tensor(huge)).startswith(
        "constant w: holds 0 bytes, its shape [1099511627776, 1099511627776] needs"
    )
    absent = T(name="w", data_type=T.INT4, dims=[4])
    assert refused(with_tensor(absent)) == f"constant w: holds 0 bytes, its shape [4] needs 2; {again}"


# --- external data ----------------------------------------------------------------------------------------------------------


def beside(folder: Path, edit: Callable[[Any], None] = lambda tensor: None, **fields: Any) -> Path:
    """A model whose w lies in w.bin, 8 bytes in; `fields` replace those of its external data."""
    proto = onnx_files.model([("Add", "x w", "y")], {"w": np.arange(4, dtype=F32)})
    [tensor] = proto.graph.initializer
    (folder / "w.bin").write_bytes(bytes(8) + tensor.raw_data + b"more")
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    for key, value in {"location": "w.bin", "offset": 8, "length": 16, **fields}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    edit(tensor)
    return saved(folder, proto)


def test_external_data(tmp_path: Path) -> None:
    for fields in ({}, {"length": None}, {"location": "./w.bin"}, {"checksum": "0"}):
        assert archive.read(beside(tmp_path, **fields)).constants["w"].value.tolist() == [0, 1, 2, 3]
    os.chdir(tmp_path)
    assert archive.read(Path("m.onnx")).constants["w"].value.tolist() == [0, 1, 2, 3]
    (tmp_path / "sub").mkdir()
    (tmp_path / "w.bin").rename(tmp_path / "sub" / "w")
    path = beside(tmp_path, location="sub/w")
    (tmp_path / "w.bin").unlink()
    assert archive.read(path).constants["w"].value.tolist() == [0, 1, 2, 3]


def test_external_data_of_nothing_needs_no_file(tmp_path: Path) -> None:
    """torch's exporter names a data file that it never writes when every tensor is small."""
    proto = onnx.load(beside(tmp_path, location="absent.bin", length=0), load_external_data=False)
    proto.graph.initializer[0].dims[0] = 0
    assert archive.read(saved(tmp_path, proto)).constants["w"].value.shape == (0,)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../w.bin", "sub/../../w.bin", "link", "linked/w.bin", "C:\\w.bin", "\\w.bin", "..\\w.bin", "", "loop/w"]
)  # fmt: skip
def test_external_data_outside(tmp_path: Path, location: str) -> None:
    outside, folder = tmp_path / "w.bin", tmp_path / "model"
    folder.mkdir()
    outside.write_bytes(bytes(64))
    (folder / "link").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    path = beside(folder, location=location)
    assert refused(path) in (
        f"constant w: its values lie in {location!r}, which is not inside the model's folder; save the model in one file, or "
        "with its data beside it",
        f"constant w: its values lie in {location!r}, which cannot be read (Too many levels of symbolic links); "
        "copy it beside the model",  # from Python 3.13 on
    )


def test_external_data_missing(tmp_path: Path) -> None:
    lie = "constant w: its values lie in"
    path = beside(tmp_path, location="no.bin")
    assert (
        refused(path) == f"{lie} 'no.bin', which cannot be read (No such file or directory); copy it beside the model"
    )
    assert refused(beside(tmp_path, location=".")).startswith(f"{lie} '.', which cannot be read (Is a directory)")
    assert refused(beside(tmp_path, offset=16)) == (
        f"{lie} 'w.bin', which is too short: bytes 16 to 32 of 28; copy the whole file beside the model"
    )
    assert refused(beside(tmp_path, length=12)) == (
        "constant w: holds 12 bytes in 'w.bin', its shape [4] needs 16; export it again"
    )
    assert refused(beside(tmp_path, offset="-8")) == (
        "constant w: offset of its external data is '-8', must be a count of bytes; export again"
    )
    live = onnx.load(beside(tmp_path), load_external_data=False)
    assert refused(live) == "constant w: is not loaded: it lies in 'w.bin'; save the model and give its path"


# --- shapes and batches -------------------------------------------------------------------------------------------------------

FIXED = "export with an example of fixed shape and a batch of 1"


def test_shapes_refused() -> None:
    def given(*shape: Any) -> str:
        return refused(onnx_files.model([("Relu", "x", "y")], {}, {"x": list(shape)}))

    assert given(1, "height", 3) == f"input x: axis 1 is dynamic (height), must be a number; {FIXED}"
    assert given("N", 4, None) == f"input x: axis 2 is dynamic (unknown), must be a number; {FIXED}"
    assert given(1, 0) == f"input x: axis 1 is dynamic (0), must be a number; {FIXED}"
    assert given(1, -1) == f"input x: axis 1 is dynamic (-1), must be a number; {FIXED}"
    assert given(4) == f"input x: has 1 axes, must be a batch of 1 and at least one more; {FIXED}"
    assert given() == f"input x: has 0 axes, must be a batch of 1 and at least one more; {FIXED}"
    proto = onnx_files.model([("Relu", "x", "y")], {})
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    assert refused(proto) == f"input x: its shape is not in the file; {FIXED}"
    proto.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", T.FLOAT, [1, 4]))
    assert refused(proto) == "input x: is a sequence_type, must be a tensor"
    proto.graph.input[0].ClearField("type")
    assert refused(proto) == "input x: is a value without a type, must be a tensor"


def test_a_batch_without_a_size_is_1() -> None:
    for axis, two in (("N", [1, 4]), (None, ["batch", 4]), (0, [1, 4])):
        proto = onnx_files.model([("Add", "x x2", "y")], {}, {"x": [axis, 4], "x2": two})
        made = archive.read(proto)
        assert [value.shape for value in made.inputs] == [(1, 4), (1, 4)]
        names = "x" if two[0] == 1 else "x, x2"
        assert made.notes == (f"the batch axis of {names} has no fixed size in the file, and is 1",)


def flattened(batch: int, shape: Any, **more: Any) -> Any:
    """Conv, pool, a Reshape to `shape`, dense: as exporters bake the batch in."""
    rng = np.random.default_rng(batch)
    constants = {
        "k": rng.normal(0, 1, (2, 1, 3, 3)).astype(F32), "to": np.asarray(shape), "w": rng.normal(0, 1, (18, 3)).astype(F32),
        "s": F32(0.5), "z": F32(0), "b": F32(8), **more,
    }  # fmt: skip
    specs = [
        ("Conv", "x k", "c"),
        ("Relu", "c", "r"),
        ("MaxPool", "r", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Reshape", "p to", "f"),
        ("MatMul", "f w", "y"),
    ]
    return onnx_files.model(specs, constants, {"x": [batch, 1, 8, 8]})


def run(proto: Any, x: np.ndarray) -> np.ndarray:
    runtime = pytest.importorskip("onnxruntime")
    return runtime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


def rewritten(proto: Any) -> Model:
    return archive.read(proto, LoadOptions(batch=1))


@pytest.mark.parametrize("shape", [(5, 18), (-1, 18), (5, -1), (0, 18)])
def test_a_batch_is_rewritten_on_request(shape: tuple[int, ...]) -> None:
    proto = flattened(5, shape)
    assert refused(proto) == (
        f"input x: a batch of 5 is baked in, must be 1; give --batch 1 (or LoadOptions(batch=1)) to rewrite it, or {FIXED}"
    )
    made = rewritten(proto)
    assert made.inputs == (Input("x", (1, 1, 8, 8), "float32"),) and made.notes == ("rewritten from a batch of 5 to 1",)
    x = np.random.default_rng(1).normal(0, 1, (5, 1, 8, 8)).astype(F32)
    want = run(proto, x)
    for row, sample in zip(want, x, strict=True):
        np.testing.assert_allclose(onnx_files.interpret(made, {"x": sample[None]})["y"][0], row, rtol=1e-4, atol=1e-4)
    assert archive.read(flattened(1, (1, 18)), LoadOptions(batch=1)).notes == ()


def test_a_shared_shape_is_rewritten_only_where_the_batch_is() -> None:
    """The Reshape of a weight that happens to read the same shape keeps it."""
    specs = [("Reshape", "x to", "f"), ("Reshape", "w to", "v"), ("MatMul", "f t", "y"), ("Transpose", "v", "t")]
    constants = {"to": np.asarray([6, 4]), "w": np.arange(24, dtype=F32)}
    made = rewritten(onnx_files.model(specs, constants, {"x": [6, 2, 2]}))
    assert made.constants["to"].value.tolist() == [6, 4]
    assert onnx_files.interpret(made, {"x": np.ones((1, 2, 2))})["y"].shape == (1, 6)


def test_other_ways_to_bake_it_in() -> None:
    concat = [
        ("Constant", "", "a", {"value_ints": [6]}),
        ("Concat", "a b", "to", {"axis": 0}),
        ("Reshape", "x to", "y"),
    ]
    made = rewritten(onnx_files.model(concat, {"b": np.asarray([4])}, {"x": [6, 2, 2]}))
    assert onnx_files.interpret(made, {"x": np.ones((1, 2, 2))})["y"].shape == (1, 4)
    constant = [
        ("Constant", "", "to", {"value": numpy_helper.from_array(np.asarray([6, 4]))}),
        ("Reshape", "x to", "y"),
    ]
    made = rewritten(onnx_files.model(constant, {}, {"x": [6, 2, 2]}))
    assert onnx_files.interpret(made, {"x": np.ones((1, 2, 2))})["y"].shape == (1, 4)
    dynamic = [
        ("Shape", "x", "n"), ("Gather", "n zero", "g", {"axis": 0}), ("Unsqueeze", "g axes", "u"),
        ("Concat", "u b", "to", {"axis": 0}), ("Reshape", "x to", "y"),
    ]  # fmt: skip
    constants = {"zero": np.asarray(0), "axes": np.asarray([0]), "b": np.asarray([-1])}
    assert rewritten(onnx_files.model(dynamic, constants, {"x": [3, 2, 2]})).inputs[0].shape == (1, 2, 2)
    quant = rewritten(dense_batch := dense())
    assert quant.notes == () and dense_batch.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_quantizers_keep_the_shape_for_the_proof() -> None:
    specs = [("qonnx.custom_op.general::Quant", "x s z b", "q", QUANT), ("Reshape", "q to", "y")]
    made = rewritten(onnx_files.model(specs, {**DENSE, "to": np.asarray([7, 4])}, {"x": [7, 2, 2]}))
    assert made.inputs[0].shape == (1, 2, 2) and made.nodes[1].inputs[1] in made.constants
    assert made.constants[made.nodes[1].inputs[1]].value.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("specs", "constants", "said"),
    [
        ([("Add", "x c", "y")], {"c": np.ones((6, 4), F32)}, "node Add_0: a batch of 6 cannot be rewritten to 1: its output is [6, 4] with 6 and [6, 4] with 1, must change in its first axis alone"),
        ([("Reshape", "x to", "y")], {"to": np.asarray([12, 2])}, "node Reshape_0: a batch of 6 cannot be rewritten to 1: with a batch of 1 it cannot be computed from its constants: cannot reshape array of size 4 into shape (12,2)"),
        ([("Reshape", "x to", "y")], {"to": np.asarray([-1, 2])}, "node Reshape_0: a batch of 6 cannot be rewritten to 1: its output is [12, 2] with 6 and [2, 2] with 1, must change in its first axis alone"),
        ([("Transpose", "x", "y", {"perm": [1, 0]})], {}, "node Transpose_0: a batch of 6 cannot be rewritten to 1: its output is [4, 6] with 6 and [4, 1] with 1, must change in its first axis alone"),
        ([("Concat", "x c", "y", {"axis": 0})], {"c": np.ones((2, 4), F32)}, "node Concat_0: a batch of 6 cannot be rewritten to 1: its output is [8, 4] with 6 and [3, 4] with 1, must change in its first axis alone"),
    ],
    ids=["constant", "reshape", "reshape -1", "transpose", "concat"],
)  # fmt: skip
def test_a_batch_that_cannot_be_rewritten(specs: Any, constants: Any, said: str) -> None:
    proto = onnx_files.model(specs, constants, {"x": [6, 4]})
    assert refused(proto, LoadOptions(batch=1)) == f"{said}; {FIXED}"


def test_batches_that_differ() -> None:
    proto = onnx_files.model([("Concat", "x x2", "y", {"axis": 0})], {}, {"x": [2, 4], "x2": [3, 4]})
    assert refused(proto, LoadOptions(batch=1)) == f"made: its inputs have batches of 2 and 3, must be 1; {FIXED}"


def test_no_other_batch_may_be_asked_for() -> None:
    with pytest.raises(ToolchainError) as caught:
        LoadOptions(batch=4)
    assert str(caught.value) == "--batch: is 4, must be 1: a graph is one inference of one sample"


# --- files made elsewhere -----------------------------------------------------------------------------------------------------


def test_the_given_model(shared: Path) -> None:
    made = dialects.rewrite(archive.read(shared / "data" / "qonnx" / "TFC_2W2A.onnx"))
    assert made.inputs == (Input("0", (1, 1, 28, 28), "float32"),) and made.opset == 9
    kinds = [n.op for n in made.nodes]
    assert kinds[:8] == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape", "Mul", "Sub", "Quant"]
    assert kinds[8:] == ["MatMul", "BatchNormalization", "Quant"] * 3 + ["MatMul", "Sub", "Div", "Mul", "Add"]
    weights = [made.constants[n.inputs[1]] for n in made.nodes if n.op == "MatMul"]
    assert [w.value.shape for w in weights] == [(784, 64), (64, 64), (64, 64), (64, 10)]
    for w in weights:
        assert w.codes is not None and set(np.unique(w.codes)) <= {-1, 0, 1} and w.bits == 2
        np.testing.assert_array_equal(w.codes, w.value)


BREVITAS = {  # what the exporters write of it: legacy (opset 13), dynamo
    "mlp": (["Quant", "Gemm", "Relu", "Quant", "MatMul"], ["Quant", "Gemm", "Relu", "Quant", "Gemm"]),
    "cnn": (
        ["Quant", "Conv", "BatchNormalization", "Relu", "Quant", "MaxPool", "Flatten", "Gemm"],
        ["Quant", "Conv", "BatchNormalization", "Relu", "Quant", "MaxPool", "Reshape", "Gemm"],
    ),
    "binary": (["BipolarQuant", "MatMul", "Tanh", "Quant"], ["BipolarQuant", "Gemm", "Tanh", "Quant"]),
    "pool": (["Quant", "AveragePool", "Trunc", "Flatten"], ["Quant", "AveragePool", "Trunc", "Reshape"]),
}


def brevitas_model(name: str) -> tuple[Any, tuple[int, ...]]:
    nn = pytest.importorskip("torch").nn
    qnn = pytest.importorskip("brevitas.nn")
    from brevitas import quant

    if name == "mlp":
        layers = [
            qnn.QuantIdentity(bit_width=4, return_quant_tensor=True),
            qnn.QuantLinear(8, 6, bias=True, weight_bit_width=3, bias_quant=quant.Int16Bias),
            qnn.QuantReLU(bit_width=4),
            qnn.QuantLinear(6, 3, bias=False, weight_quant=quant.Int8WeightPerChannelFloat),
        ]
        return nn.Sequential(*layers), (1, 8)
    if name == "cnn":
        layers = [
            qnn.QuantIdentity(bit_width=8),
            qnn.QuantConv2d(1, 4, 3, padding=1, weight_bit_width=4, bias=True),
            nn.BatchNorm2d(4), qnn.QuantReLU(bit_width=3), nn.MaxPool2d(2), nn.Flatten(), qnn.QuantLinear(64, 3, bias=True),
        ]  # fmt: skip
        return nn.Sequential(*layers), (1, 1, 8, 8)
    if name == "binary":
        layers = [
            qnn.QuantIdentity(act_quant=quant.SignedBinaryActPerTensorConst),
            qnn.QuantLinear(8, 4, bias=False, weight_quant=quant.SignedBinaryWeightPerTensorConst),
            qnn.QuantTanh(bit_width=4),
        ]
        return nn.Sequential(*layers), (1, 8)
    layers = [qnn.QuantIdentity(bit_width=4, return_quant_tensor=True), qnn.TruncAvgPool2d(2, 2), nn.Flatten()]
    return nn.Sequential(*layers), (1, 2, 4, 4)


@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", BREVITAS)
def test_brevitas_exports(name: str, dynamo: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("qonnx")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net, shape = brevitas_model(name)
    from brevitas.export import export_qonnx

    net(torch.randn(*shape))
    net.eval()
    more: dict[str, Any] = {} if dynamo else {"opset_version": 13}
    live = export_qonnx(net, torch.randn(*shape), export_path=str(tmp_path / "m.onnx"), dynamo=dynamo, **more)
    for source in (live, tmp_path / "m.onnx"):
        made = dialects.rewrite(archive.read(source))
        assert [n.op for n in made.nodes] == BREVITAS[name][dynamo]
        assert [value.shape for value in made.inputs] == [shape] and len(made.outputs) == 1
        weights = [c for c in made.constants.values() if c.codes is not None]
        assert len(weights) == {"mlp": 3, "cnn": 2, "binary": 1, "pool": 0}[name]
    given = [p.detach().numpy() for n, p in net.named_parameters() if n.endswith("weight") and p.ndim > 1]
    layers = [m for m in net if hasattr(m, "quant_weight")]
    assert len(given) == len(layers)
    for layer in layers:  # the codes are Brevitas' own integers
        own = layer.quant_weight()
        want = own.int().numpy() if name != "binary" else np.sign(own.value.detach().numpy())
        found = [c.codes for c in weights]
        assert any(np.array_equal(f, w) for f in found for w in (want, want.T) if f is not None)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, dense())
    for given, said in (
        ("4", "error: --batch: is 4, must be 1: a graph is one inference of one sample\n"),
        ("0", "error: --batch: is 0, must be 1: a graph is one inference of one sample\n"),
    ):
        assert cli.main(["inspect", str(path), "--batch", given]) == 2
        assert capsys.readouterr().err == said
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(path), "--batch", "one"])
    arguments = cli.parser().parse_args(
        ["inspect", "m.onnx", "--batch", "1", "--input-type", "u8", "--input-scale", "1"]
    )
    assert LoadOptions.from_text(arguments).batch == 1
    assert LoadOptions.from_text(cli.parser().parse_args(["inspect", "m.onnx", "--batch", "1"])).batch == 1
    assert LoadOptions.from_text(cli.parser().parse_args(["inspect", "m.onnx"])).batch is None
