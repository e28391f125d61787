"""Read an ONNX file into one neutral description: nodes in order, constants by name, shapes with a batch of 1.

Its one rule: what is returned is what the file says, checked against the operators' own schemas; whatever in it cannot
be read without guessing is one ToolchainError that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.qonnx import tensors
from toolchain.frontends.qonnx.constants import Constant, first_line
from toolchain.options import LoadOptions

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto

OPSETS = range(
    9, 22
)  # read as they are; others where every operator of the model is what it was in the nearest of these
QONNX = {  # spellings of one domain over the years, as qonnx 1.0.0 reads them
    "qonnx",
    "qonnx.custom_op.general",
    "qonnx.custom_op.intquant",
    "qonnx.custom_op.general.intquant",
    "onnx.brevitas",
    "finn.custom_op.general",
    "finn",
}
UNKNOWN_DOMAINS = {
    "com.microsoft": "quantize with quant_format=QuantFormat.QDQ, which uses standard operators",
    "qonnx.custom_op.channels_last": "load the model as it was before qonnx made it channels-last",
    "finn.custom_op.fpgadataflow": "load the model as it was before FINN",
}
_AGAIN = "export or copy the model again"


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. `attributes` are Python values: int, float, str, lists of these, arrays for tensors."""

    op: str
    name: str  # unique
    domain: str  # "" or "qonnx"
    inputs: tuple[str, ...]  # "" where an optional one is left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int  # the version of its domain that the file imports

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"node {self.name} ({self.op})" if self.op not in self.name else f"node {self.name}"


@dataclass(frozen=True)
class Input:
    """An input of the model: shape with the batch axis, which is 1; dtype is numpy's name, or int4 and uint4."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, eq=False)
class Model:
    """The neutral result. Nodes are in topological order, and only those that an output needs."""

    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    opset: int  # of the standard domain
    notes: tuple[str, ...] = ()


def read(source: Path | ModelProto, options: LoadOptions | None = None) -> Model:
    """The model in a .onnx file, or a live ModelProto (which is not changed)."""
    from toolchain.frontends.qonnx import batch

    notes: list[str] = []
    o = opened(source, options or LoadOptions(), notes)
    model = _model(o.where, o.path, o.proto, o.inputs, o.versions, notes)
    return model if o.baked == 1 else batch.rewritten(model, o.baked)


@dataclass(frozen=True, eq=False)
class Opened:
    """The model itself, without functions."""

    where: str  # what messages call it
    path: Path | None
    proto: ModelProto
    inputs: list[ValueInfoProto]  # but for the initializers
    versions: dict[str, int]  # of each domain, as the file spells it
    baked: int  # the batch that it is made for


def opened(source: Path | ModelProto, options: LoadOptions, notes: list[str]) -> Opened:
    """Read and checked as a whole; its nodes are not."""
    from toolchain.frontends.qonnx import batch, functions

    live = not isinstance(source, (str, Path))
    path = None if live else Path(str(source))
    proto: ModelProto = source if path is None else _parse(path)
    where = proto.graph.name or "model" if path is None else str(path)
    _check_versions(where, proto)
    _check_names(where, proto)
    proto = functions.inlined(where, proto, notes)
    versions = _versions(where, proto)
    inputs = batch.inputs(proto)
    baked = batch.baked_in(where, inputs, options.batch, notes)
    return Opened(where, path, proto, inputs, versions, baked)


def _parse(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ToolchainError(str(path), "there is no such file", "give the path of a saved .onnx model")
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ToolchainError(str(path), f"cannot be read ({e.strerror})", "check the file") from None
    try:
        proto: ModelProto = onnx.load_model_from_string(data)
    except DecodeError:
        raise ToolchainError(str(path), f"{_looks(data)} (it begins with {data[:8]!r})", _AGAIN) from None
    if not proto.ir_version or not proto.HasField("graph"):
        raise ToolchainError(str(path), f"{_looks(data)} (it begins with {data[:8]!r})", _AGAIN)
    return proto


def _looks(data: bytes) -> str:
    """What a file that does not parse is: a binary ONNX file begins with field 1, the IR version."""
    if not data:
        return "the file is empty"
    return "a truncated or damaged ONNX file" if data[0] == 8 and data[1:2] < b"\x20" else "not a binary ONNX file"


def _check_versions(where: str, proto: ModelProto) -> None:
    import onnx

    if not proto.ir_version or not proto.graph.output:
        raise ToolchainError(where, "not a whole ONNX model: it has no IR version or no outputs", _AGAIN)
    if proto.ir_version > onnx.IR_VERSION:
        raise UnsupportedError(
            where,
            f"IR version {proto.ir_version}, onnx {onnx.__version__} reads up to {onnx.IR_VERSION}",
            "install a newer onnx, or save the model with an older ir_version",
        )


def _check_names(where: str, proto: ModelProto) -> None:
    """Protobuf hands out a string that is no UTF-8 as bytes."""
    graph = proto.graph
    names: list[object] = [graph.name, *(v.name for v in (*graph.input, *graph.output, *graph.initializer))]
    for node in (*graph.node, *(node for function in proto.functions for node in function.node)):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    for name in names:
        if not isinstance(name, str) or any(c < " " for c in name):
            raise ToolchainError(where, f"the name {name!r} is not text of one line", _AGAIN)


def _versions(where: str, proto: ModelProto) -> dict[str, int]:
    """Version by the file's spelling of each domain; qonnx reads a domain that the file does not import as version 1."""
    from onnx import defs

    found = {_standard(entry.domain): int(entry.version) for entry in proto.opset_import}
    if "" not in found:
        if any(not _standard(node.domain) for node in proto.graph.node):
            raise ToolchainError(where, "does not say which opset its operators are of", _AGAIN)
        found[""] = OPSETS[-1]
    if not 7 <= found[""] <= defs.onnx_opset_version():
        raise UnsupportedError(
            where,
            f"opset {found['']}, must be {OPSETS[0]} to {OPSETS[-1]}",
            f"export with opset_version={OPSETS[0] if found[''] < 9 else OPSETS[-1]}",
        )
    return found


def is_qonnx(domain: str) -> bool:
    """True for every spelling of QONNX's domain."""
    return domain in QONNX


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _model(
    where: str, path: Path | None, proto: ModelProto, inputs: list[ValueInfoProto], versions: Mapping[str, int], notes: list[str]
) -> Model:  # fmt: skip
    graph, all_nodes = proto.graph, list(proto.graph.node)
    names, sparse = [v.name for v in inputs], {t.values.name for t in graph.sparse_initializer}
    stored = {t.name for t in graph.initializer} | sparse
    outputs = [v.name for v in graph.output]
    order = needed(where, all_nodes, names, stored, outputs)
    live = set(names)
    for i in order:
        subgraph = any(a.type in (a.GRAPH, a.GRAPHS) for a in all_nodes[i].attribute)  # may read any tensor
        if subgraph or live.intersection(all_nodes[i].input):
            live.update(all_nodes[i].output)
    if fixed := [name for name in outputs if name not in live]:  # Brevitas returns a QuantTensor's scale, bits, ...
        notes.append(f"outputs that are constants are left out: {', '.join(fixed)}")
        outputs = [name for name in outputs if name in live]
        order = needed(where, all_nodes, names, stored, outputs)
    if not outputs:
        raise UnsupportedError(where, "none of its outputs depends on an input", "export the whole model")
    read = {name for i in order for name in all_nodes[i].input} | set(outputs)
    if found := sorted(sparse & read):
        raise UnsupportedError(where, f"initializer {found[0]!r} is sparse", "store it as a dense tensor")
    folder = path.parent if path else None
    constants = {t.name: tensors.read(f"constant {t.name}", t, folder) for t in graph.initializer if t.name in read}
    made: list[Node] = []
    taken: set[str] = set()
    for i in order:
        name = _unique(all_nodes[i].name or f"{all_nodes[i].op_type}_{i}", taken)
        node = _node(all_nodes[i], name, versions, folder)
        if node.op == "Constant" and not node.domain:
            constants[node.outputs[0]] = _constant(node)
        else:
            made.append(node)
    return Model(
        path.stem if path else graph.name or "model",
        tuple(_input(v) for v in inputs),
        tuple(outputs),
        tuple(made),
        constants,
        versions[""],
        tuple(notes),
    )


def _input(value: ValueInfoProto) -> Input:
    kind = tensors.supported(f"input {value.name}", value.type.tensor_type.elem_type)
    if kind in ("DOUBLE", "BOOL", "INT64", "UINT64", "UINT32"):
        raise UnsupportedError(
            f"input {value.name}",
            f"is {kind.lower()}, must be float32 (real values) or integers of at most 32 bits",
            "export with a float32 example input",
        )
    dtype = kind.lower() if kind in tensors.NARROW else tensors.KINDS[kind]
    return Input(value.name, (1, *(int(d.dim_value) for d in value.type.tensor_type.shape.dim[1:])), dtype)


def needed(
    where: str, nodes: Sequence[NodeProto], inputs: Sequence[str], constants: set[str], outputs: Sequence[str]
) -> list[int]:  # fmt: skip
    """Which nodes the outputs need, each after those it reads; the file's own order where that is one."""
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers or name in inputs or name in constants:
                raise ToolchainError(where, f"tensor {name!r} is made twice, must be made once", _AGAIN)
            makers[name] = i
    known, placed, entered = {*inputs, *constants, ""}, dict[int, None](), set[int]()
    for output in outputs:
        stack: list[tuple[int | str, str]] = [(output, f"output {output}")]  # of our own: chains are long
        while stack:
            what, reader = stack.pop()
            if isinstance(what, int):  # all that it reads is placed
                entered.discard(what)
                placed[what] = None
                continue
            if what in known or makers.get(what) in placed:
                continue
            if what not in makers:
                raise ToolchainError(where, f"{reader} reads {what!r}, which nothing makes", _AGAIN)
            i = makers[what]
            if i in entered:
                raise ToolchainError(where, f"its graph has a cycle through {_label(nodes[i])}", _AGAIN)
            entered.add(i)
            stack.append((i, ""))
            stack.extend((name, _label(nodes[i])) for name in reversed(nodes[i].input))
    if all(makers[name] < i for i in placed for name in nodes[i].input if name in makers):
        return sorted(placed)
    return list(placed)


def _label(node: NodeProto) -> str:
    return f"node {node.name or node.op_type}"


def _unique(name: str, taken: set[str]) -> str:
    """The name, or the name with the first free number behind it."""
    chosen, number = name, 1
    while chosen in taken:
        number += 1
        chosen = f"{name}_{number}"
    taken.add(chosen)
    return chosen


def _node(proto: NodeProto, name: str, versions: Mapping[str, int], folder: Path | None) -> Node:
    spelling = _standard(proto.domain)
    domain = "qonnx" if is_qonnx(spelling) else spelling
    where = f"node {name} ({proto.op_type})"
    if domain not in ("", "qonnx"):
        raise UnsupportedError(
            where,
            f"operator domain {spelling!r} is unknown; known: ai.onnx, {', '.join(sorted(QONNX))}",
            UNKNOWN_DOMAINS.get(spelling, ""),
        )
    for attribute in proto.attribute:
        if attribute.type in (attribute.GRAPH, attribute.GRAPHS):
            raise UnsupportedError(
                where, f"holds a subgraph ({attribute.name})", "export without control flow: if, loop and scan are refused"
            )  # fmt: skip
    opset = versions.get(spelling, 1)
    if not domain:
        _check_schema(where, proto, opset)
    attributes = dict(_attributes(where, proto, folder))
    return Node(proto.op_type, name, domain, tuple(proto.input), tuple(proto.output), attributes, opset)


def _check_schema(where: str, proto: NodeProto, opset: int) -> None:
    """The node is what its operator's schema says, in its own opset and in the nearest that the front end was written for.

    Between opsets 7 and 9, and after 21, only element types were added and a few attributes: a node that passes both
    checks means the same in both. Operators that no schema knows are left to the lowering, which lists what it supports.
    """
    from onnx import checker, defs

    nearest = min(max(opset, OPSETS[0]), OPSETS[-1])
    for version in dict.fromkeys((opset, nearest)):
        if not defs.has(proto.op_type):
            return
        plain = type(proto)()
        plain.CopyFrom(proto)
        plain.domain = ""
        context = checker.DEFAULT_CONTEXT.__class__()
        context.ir_version = checker.DEFAULT_CONTEXT.ir_version
        context.opset_imports = {"": version}
        try:
            checker.check_node(plain, context)
        except (checker.ValidationError, UnicodeDecodeError) as e:
            beyond = f" at opset {opset}, and opsets {OPSETS[0]} to {OPSETS[-1]} are read" if version != opset else ""
            said = first_line(e).partition("==> Context")[0].strip()
            raise UnsupportedError(where, f"is not valid{beyond}: {said}", "export with opset_version=13") from None


def _attributes(where: str, proto: NodeProto, folder: Path | None) -> Iterator[tuple[str, Any]]:
    for attribute in proto.attribute:
        kind = attribute.type
        if attribute.ref_attr_name or kind in (attribute.TYPE_PROTO, attribute.TYPE_PROTOS, attribute.UNDEFINED):
            raise UnsupportedError(where, f"attribute {attribute.name} is not a value", _AGAIN)
        if kind in (attribute.SPARSE_TENSOR, attribute.SPARSE_TENSORS):
            raise UnsupportedError(where, f"attribute {attribute.name} is a sparse tensor", "store it as a dense one")
        yield attribute.name, _value(where, attribute, folder)


def _value(where: str, a: AttributeProto, folder: Path | None) -> Any:
    if a.type == a.TENSOR:
        constant = tensors.read(f"{where}: attribute {a.name}", a.t, folder)
        return constant if constant.bits else constant.value
    if a.type == a.TENSORS:
        return [tensors.read(f"{where}: attribute {a.name}", t, folder).value for t in a.tensors]
    if a.type == a.STRING:
        return a.s.decode("utf-8", "replace")
    if a.type == a.STRINGS:
        return [s.decode("utf-8", "replace") for s in a.strings]
    if a.type in (a.INTS, a.FLOATS):
        return list(a.ints if a.type == a.INTS else a.floats)
    return a.i if a.type == a.INT else a.f


def _constant(node: Node) -> Constant:
    """The value of a Constant node, in whichever attribute it stands."""
    import numpy as np

    [(key, value)] = node.attributes.items() if len(node.attributes) == 1 else [("", None)]
    if isinstance(value, Constant):
        return value
    if key == "value":
        return Constant(np.asarray(value))
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if key not in kinds:
        raise UnsupportedError(node.where, f"holds {key or 'no single value'}, must be a tensor of numbers", _AGAIN)
    return Constant(np.asarray(value, kinds[key]))
