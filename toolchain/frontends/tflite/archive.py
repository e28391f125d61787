"""Read a .tflite file into one neutral description: tensors by number, operators in the file's order, options by name.

Its one rule: what is returned is what the file says, every number of it checked to lead somewhere; what cannot be read without
guessing is one ToolchainError that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.tflite import schema
from toolchain.frontends.tflite.flatbuffer import AGAIN, Buffer, Table

MAX_ELEMENTS = 1 << 24  # of a tensor: a file of a few bytes can say any shape
MAX_AXES = 8
TOO_MANY = 1 << 16  # operators or tensors


@dataclass(frozen=True, eq=False)
class Tensor:
    """`shape` with the batch; scales as the file's float32; `data` for a constant, whose type numpy has."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    scales: tuple[np.float32, ...]
    zero_points: tuple[int, ...]
    axis: int
    data: npt.NDArray[np.generic] | None
    flaw: str = ""  # why a tensor of this kind is refused where an operator reads or makes it

    @property
    def where(self) -> str:
        return f"tensor {self.index} ({self.name})"

    @property
    def scale(self) -> np.float32:
        """Of a tensor that must have one."""
        if len(self.scales) != 1:
            raise UnsupportedError(
                self.where,
                f"has {len(self.scales)} scales, must have one",
                "convert with full integer quantization" if not self.scales else "",
            )
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        return self.zero_points[0]

    @property
    def fraction(self) -> Fraction:
        return Fraction(float(self.scale))


@dataclass(frozen=True, eq=False)
class Node:
    """An operator; inputs and outputs by number, None where an optional input is left out."""

    index: int
    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Mapping[str, int | float]

    @property
    def where(self) -> str:
        """How messages call it: by its place, as netron does, and by what it makes."""
        made = f" ({self.outputs[0].name})" if self.outputs else ""
        return f"operator {self.index} {self.op}{made}"

    def option(self, name: str) -> int:
        return int(self.options[name])

    def choice(self, name: str, names: Mapping[int, str]) -> str:
        """An option that is one of an enumeration."""
        number = self.option(name)
        if number not in names:
            raise ToolchainError(self.where, f"{name} is {number}, must be one of {', '.join(names.values())}", AGAIN)
        return names[number]

    def constant(self, position: int, what: str) -> npt.NDArray[np.int64]:
        """The integers of an input that must be a constant."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise ToolchainError(self.where, f"has no {what}", AGAIN)
        if found.data is None:
            raise UnsupportedError(
                self.where, f"{what} {found.where} is computed, must be a constant", "export with fixed shapes"
            )
        if found.type not in ("int8", "int16", "int32", "int64"):
            raise UnsupportedError(self.where, f"{what} {found.where} is {found.type}, must be integers")
        return found.data.astype(np.int64)


@dataclass(frozen=True)
class Model:
    """The neutral result."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]


def read(path: Path) -> Model:
    """The model in a .tflite file."""
    if not path.is_file():
        raise ToolchainError(str(path), "there is no such file", "give the path of a saved .tflite model")
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ToolchainError(str(path), f"cannot be read ({e.strerror})", "check the file") from None
    return parse(data, str(path), path.stem)


def parse(data: bytes, where: str, name: str) -> Model:
    """The model in these bytes; `where` is what messages call the file."""
    if not data:
        raise ToolchainError(where, "the file is empty", AGAIN)
    if data[4:8] != schema.IDENTIFIER:
        raise ToolchainError(where, f"not a TFLite file: its bytes 4 to 7 are {data[4:8]!r}, must be b'TFL3'", AGAIN)
    model = Buffer(where, data).root()
    version = model.integer(schema.MODEL["version"], "I")
    if version != schema.VERSION:
        raise UnsupportedError(where, f"version {version} of the format, must be {schema.VERSION}")
    graphs = list(model.tables(schema.MODEL["subgraphs"]))
    if len(graphs) != 1:
        what = f"has {len(graphs)} subgraphs (control flow), must have one"
        raise UnsupportedError(where, what, "export without if, while and stateful functions")
    return _Reader(where, model, graphs[0]).model(name)


class _Reader:
    def __init__(self, where: str, model: Table, graph: Table) -> None:
        self.where, self.graph = where, graph
        self.codes = [self.operator_name(code) for code in model.tables(schema.MODEL["operator_codes"])]
        self.buffers = list(model.tables(schema.MODEL["buffers"]))
        tables = list(graph.tables(schema.SUBGRAPH["tensors"]))
        if len(tables) > TOO_MANY:
            raise self.damaged(f"{len(tables)} tensors")
        self.tensors = [self.tensor(index, table) for index, table in enumerate(tables)]

    def damaged(self, what: str) -> ToolchainError:
        return self.graph.buffer.damaged(what)

    def model(self, name: str) -> Model:
        inputs, outputs = (self.chosen(self.graph, schema.SUBGRAPH[s], s) for s in ("inputs", "outputs"))
        operators = list(self.graph.tables(schema.SUBGRAPH["operators"]))
        if len(operators) > TOO_MANY:
            raise self.damaged(f"{len(operators)} operators")
        if not inputs or not outputs or not operators:
            what = f"has {len(inputs)} inputs, {len(outputs)} outputs and {len(operators)} operators, must have some of each"
            raise ToolchainError(self.where, what, AGAIN)
        nodes = tuple(self.node(index, table) for index, table in enumerate(operators))
        return Model(name, _all(inputs), _all(outputs), nodes)

    def operator_name(self, code: Table) -> str:
        number = max(code.integer(schema.CODE["deprecated_builtin"], "b"), code.integer(schema.CODE["builtin"]))
        if not 0 <= number < len(schema.OPERATORS):
            return f"number {number}"
        name = schema.OPERATORS[number]
        return f"CUSTOM {code.text(schema.CODE['custom'])[:60]!r}" if name == "CUSTOM" else name

    def chosen(self, table: Table, slot: int, what: str) -> list[Tensor | None]:
        """The tensors whose numbers a vector lists; -1 is none."""
        found: list[Tensor | None] = []
        for number in table.numbers(slot, "<i4").tolist():
            if not -1 <= number < len(self.tensors):
                raise self.damaged(f"{what} name tensor {number} of {len(self.tensors)}")
            found.append(None if number < 0 else self.tensors[number])
        return found

    def tensor(self, index: int, table: Table) -> Tensor:
        f = schema.TENSOR
        name = "".join(c if c.isprintable() else "?" for c in table.text(f["name"]))
        where = f"tensor {index} ({name})"
        shape = tuple(table.numbers(f["shape"], "<i4").tolist())
        number = table.integer(f["type"], "b")
        if number not in schema.TYPES:
            raise UnsupportedError(where, f"is of type number {number}, which is not known")
        kind = schema.TYPES[number]
        if len(shape) > MAX_AXES or any(n < 0 for n in shape) or prod(shape) > MAX_ELEMENTS:
            raise ToolchainError(
                where, f"shape {list(shape)[:9]}, must be {MAX_AXES} axes and {MAX_ELEMENTS} elements at most"
            )
        scales, zeros, axis, flaw = self.quantization(where, table.table(f["quantization"]))
        signature = table.numbers(f["signature"], "<i4").tolist()
        if table.integer(f["is_variable"], "b"):
            flaw = "is a variable, which keeps its value from one inference to the next"
        elif table.has(f["sparsity"]):
            flaw = "is stored sparse"
        elif any(n < 0 for n in signature[1:]):
            flaw = f"has a dynamic shape {signature}"
        elif 0 in shape:
            flaw = f"has no elements (shape {list(shape)})"
        elif kind not in schema.STORED:
            flaw = f"is {kind}"
        data = self.data(where, table.integer(f["buffer"], "I"), shape, kind)
        return Tensor(index, name, shape, kind, scales, zeros, axis, data, flaw)

    def quantization(self, where: str, table: Table | None) -> tuple[tuple[np.float32, ...], tuple[int, ...], int, str]:
        if table is None:
            return (), (), 0, ""
        f = schema.QUANTIZATION
        scales = tuple(np.float32(s) for s in table.numbers(f["scale"], "<f4"))
        zeros = tuple(table.numbers(f["zero_point"], "<i8").tolist()) or (0,) * len(scales)
        flaw = "has quantization parameters of another scheme" if table.integer(f["details_type"], "B") else ""
        if any(not np.isfinite(s) or s <= 0 for s in scales):
            raise ToolchainError(where, "a scale is not positive and finite", AGAIN)
        if len(zeros) == 1:
            zeros *= max(len(scales), 1)
        if len(zeros) != max(len(scales), 1) and scales:
            raise ToolchainError(where, f"has {len(scales)} scales and {len(zeros)} zero points", AGAIN)
        return scales, zeros, table.integer(f["axis"]), flaw

    def data(self, where: str, number: int, shape: Sequence[int], kind: str) -> npt.NDArray[np.generic] | None:
        if number >= len(self.buffers):
            if number == 0:
                return None
            raise self.damaged(f"{where} is in buffer {number} of {len(self.buffers)}")
        buffer = self.buffers[number]
        if buffer.integer(schema.BUFFER["offset"], "Q") > 1:
            raise UnsupportedError(where, "is stored behind the model, not in it", "export models below 2 GB")
        found = buffer.bytes(schema.BUFFER["data"])
        if not len(found):
            return None
        if kind not in schema.STORED:
            return found
        dtype = np.dtype(schema.STORED[kind])
        if len(found) != prod(shape) * dtype.itemsize:
            raise ToolchainError(
                where,
                f"is {kind} {list(shape)}, {prod(shape) * dtype.itemsize} bytes, but {len(found)} are stored",
                AGAIN,
            )
        return found.view(dtype).reshape(shape)

    def node(self, index: int, table: Table) -> Node:
        f = schema.OPERATOR
        number = table.integer(f["code"], "I")
        if number >= len(self.codes):
            raise self.damaged(f"operator {index} is of kind {number} of {len(self.codes)}")
        op = self.codes[number]
        inputs = tuple(self.chosen(table, f["inputs"], f"operator {index}'s inputs"))
        outputs = _all(self.chosen(table, f["outputs"], f"operator {index}'s outputs"))
        options: dict[str, int | float] = {}
        if op in schema.OPTIONS:
            kind, fields = schema.OPTIONS[op]
            given = table.table(f["options"])
            if given is not None and table.integer(f["options_type"], "B") != kind:
                raise self.damaged(f"operator {index} {op} has the options of another operator")
            options = {
                n: default if given is None else given.number(slot, letter, default)
                for n, slot, letter, default in fields
            }
        return Node(index, op, inputs, outputs, options)


def _all(found: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in found if tensor is not None)
