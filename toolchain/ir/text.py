"""The canonical text of a graph: `parse(dump(g)) == g`. Golden files, cache keys and the digest are made of it.

docs/graph_text.md describes it. Whatever is not such a text is a GraphError that names the line, never another exception.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from enum import Enum
from fractions import Fraction
from hashlib import sha256
from typing import Any

import numpy as np

from toolchain.errors import GraphError

from .check import check
from .graph import Graph, State
from .ops import OPS, Op, Rounding, consts_of, kind
from .types import Const, QType, Tensor

VERSION = 1
VALUES_A_LINE = 24


def dump(graph: Graph) -> str:
    """The canonical text: header, notes, inputs, states, then each op after the constants it is first to use; outputs last."""
    lines = [f"bitwright graph {VERSION}", f"graph {graph.name}", *(f"note {note}" for note in graph.notes)]
    seen: set[str] = set()
    lines += [f"input {_tensor(t)}" for t in graph.inputs]
    for state in graph.states:
        lines += _const(state.initial, seen)
        lines.append(f"state {_tensor(state.input)} next %{state.output.name} initial %{state.initial.tensor.name}")
    for op in graph.ops:
        for const in consts_of(op):
            lines += _const(const, seen)
        args = [f"{f.name}={_value(getattr(op, f.name))}" for f in fields(op) if f.name != "output"]
        lines.append(f"{_tensor(op.output)} = {kind(op)} {' '.join(args)}")
    lines += [f"output %{t.name}" for t in graph.outputs]
    return "\n".join(lines) + "\n"


def digest(graph: Graph) -> str:
    """sha256 in hex of the text without its notes."""
    text = "".join(line for line in dump(graph).splitlines(keepends=True) if not line.startswith("note "))
    return sha256(text.encode()).hexdigest()


def _tensor(tensor: Tensor) -> str:
    q = tensor.qtype
    text = f"%{tensor.name}: {q.text} {_ints(tensor.shape)} scale {_scale(q)}"
    return text + (f" zero_point {q.zero_point}" if q.zero_point else "")


def _scale(q: QType) -> str:
    return str(q.scale) if isinstance(q.scale, Fraction) else f"axis {q.axis} [{','.join(map(str, q.scale))}]"


def _ints(values: Any) -> str:
    return f"[{','.join(map(str, values))}]"


def _const(const: Const, seen: set[str]) -> list[str]:
    if const.tensor.name in seen:
        return []
    seen.add(const.tensor.name)
    values = const.array.ravel().tolist()
    rows = (values[i : i + VALUES_A_LINE] for i in range(0, len(values), VALUES_A_LINE))
    return [f"const {_tensor(const.tensor)}", *("  " + " ".join(map(str, row)) for row in rows)]


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case Tensor():
            return f"%{value.name}"
        case Const():
            return f"%{value.tensor.name}"
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case tuple():
            return f"[{','.join(map(_value, value))}]"
    raise AssertionError(f"no text for {value!r}")


RATIO = r"\d{1,2000}(?:/\d{1,2000})?"
TENSOR = re.compile(
    r"%(?P<name>\w+): (?P<sign>[su])(?P<bits>\d{1,3}) \[(?P<shape>\d{1,12}(?:,\d{1,12})*)?\] scale "
    rf"(?:axis (?P<axis>\d{{1,3}}) \[(?P<scales>{RATIO}(?:,{RATIO})*)\]|(?P<scale>{RATIO}))"
    r"(?: zero_point (?P<zero>-?\d{1,30}))?",
    re.ASCII,
)
STATE = re.compile(r"(?P<tensor>.*) next (?P<next>%\w+) initial (?P<initial>%\w+)", re.ASCII)
INTEGER = re.compile(r"-?\d{1,30}", re.ASCII)
ROW = re.compile(r" ( -?\d{1,30})+", re.ASCII)
BY_KIND: dict[str, type[Op]] = {cls.__name__.lower(): cls for cls in OPS}


def parse(text: str) -> Graph:
    """The graph that `dump` wrote, checked; GraphError with the line number where the text is not one."""
    return _Parser(text).graph()


class _Parser:
    def __init__(self, text: str) -> None:
        self.lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        self.at = 0
        self.tensors: dict[str, Tensor] = {}
        self.consts: dict[str, Const] = {}
        self.used: set[str] = set()

    def fail(self, what: str) -> GraphError:
        return GraphError(f"graph text line {self.at}", what)

    def graph(self) -> Graph:
        name, notes, inputs, outputs = "", [], [], []
        found: list[Op] = []
        pending: list[tuple[int, Tensor, str, Const]] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            word, _, rest = line.partition(" ")
            if self.at == 1:
                if line != f"bitwright graph {VERSION}":
                    raise self.fail(f"is {line[:40]!r}, must be 'bitwright graph {VERSION}'")
            elif not line or line.startswith("#"):
                continue
            elif word == "graph":
                if name:
                    raise self.fail("names the graph twice")
                name = rest
            elif word == "note":
                notes.append(rest)
            elif word == "input":
                inputs.append(self.define(rest))
            elif word == "const":
                self.const(rest)
            elif word == "state":
                m = STATE.fullmatch(rest)
                if not m:
                    raise self.fail(f"{rest[:60]!r} is not '%name: type next %tensor initial %const'")
                pending.append((self.at, self.define(m["tensor"]), m["next"], self.one_const(m["initial"])))
            elif word == "output":
                outputs.append(self.one_tensor(rest))
            elif word.startswith("%"):
                found.append(self.op(line))
            else:
                raise self.fail(f"starts with {word[:40]!r}, must be graph, note, input, const, state, output or %name")
        states = []
        for line_number, tensor, following, initial in pending:
            self.at = line_number
            states.append(State(tensor, self.one_tensor(following), initial))
        unused = [n for n in self.consts if n not in self.used]
        if unused:
            raise GraphError("graph text", f"const %{unused[0]} is used by nothing")
        return check(Graph(name, tuple(inputs), tuple(outputs), tuple(found), tuple(states), tuple(notes)))

    def new(self, name: str) -> None:
        if name in self.tensors or name in self.consts:
            raise self.fail(f"%{name} is defined twice")

    def one_tensor(self, text: str) -> Tensor:
        if not text.startswith("%") or text[1:] not in self.tensors:
            raise self.fail(f"{text[:40]!r} is no tensor defined above")
        return self.tensors[text[1:]]

    def one_const(self, text: str) -> Const:
        if not text.startswith("%") or text[1:] not in self.consts:
            raise self.fail(f"{text[:40]!r} is no const defined above")
        self.used.add(text[1:])
        return self.consts[text[1:]]

    def tensor(self, text: str) -> Tensor:
        m = TENSOR.fullmatch(text)
        if not m:
            raise self.fail(f"{text[:60]!r} is not '%name: s8 [shape] scale p/q'")
        try:
            scale = tuple(map(Fraction, m["scales"].split(","))) if m["scales"] else Fraction(m["scale"])
            axis = int(m["axis"]) if m["axis"] else None
            qtype = QType(int(m["bits"]), m["sign"] == "s", scale, axis, int(m["zero"] or 0))
            shape = tuple(map(int, m["shape"].split(","))) if m["shape"] else ()
        except GraphError as error:
            raise self.fail(f"{error.where}: {error.what}") from None
        except ZeroDivisionError:
            raise self.fail(f"{text[:60]!r} has a scale with denominator 0") from None
        return Tensor(m["name"], shape, qtype)

    def define(self, text: str) -> Tensor:
        tensor = self.tensor(text)
        self.new(tensor.name)
        self.tensors[tensor.name] = tensor
        return tensor

    def const(self, text: str) -> None:
        tensor = self.tensor(text)
        self.new(tensor.name)
        values: list[int] = []
        while self.at < len(self.lines) and self.lines[self.at].startswith("  "):
            row = self.lines[self.at]
            self.at += 1
            if not ROW.fullmatch(row):
                raise self.fail(f"{row[:40]!r} is not a row of integers, with two spaces before and one between")
            values += map(int, row.split())
        if len(values) != tensor.size:
            raise self.fail(f"const %{tensor.name} has {len(values)} values, must have {tensor.size}")
        try:
            array = np.array(values, dtype=object).reshape(tensor.shape)
            self.consts[tensor.name] = Const.of(tensor.name, array, tensor.qtype)
        except GraphError as error:
            raise self.fail(str(error)) from None

    def op(self, line: str) -> Op:
        declared, _, call = line.partition(" = ")
        word, _, tail = call.partition(" ")
        if word not in BY_KIND:
            raise self.fail(f"{word[:40]!r} is not an op; ops: {', '.join(BY_KIND)}")
        cls = BY_KIND[word]
        parts = [part.partition("=")[::2] for part in tail.split()]
        given = dict(parts)
        known = {f.name: f for f in fields(cls) if f.name != "output"}
        missing = [n for n, f in known.items() if n not in given and f.default is MISSING]
        if missing or set(given) - set(known) or len(given) != len(parts):
            unknown = sorted(set(given) - set(known))
            raise self.fail(f"{word} takes {', '.join(known)}, each once; missing {missing}, unknown {unknown}")
        values = {name: self.value(str(known[name].type), text, name) for name, text in given.items()}
        return cls(**values, output=self.define(declared))

    def value(self, kind: str, text: str, name: str) -> Any:
        """`text` as the op's field says, by its annotation."""
        if kind == "Tensor":
            return self.one_tensor(text)
        if kind == "Const" or (kind == "Const | None" and text != "none"):
            return self.one_const(text)
        if kind == "Const | None":
            return None
        if kind == "int":
            return self.integer(text, name)
        if kind == "bool":
            if text not in ("true", "false"):
                raise self.fail(f"{name}={text!r} must be true or false")
            return text == "true"
        if kind == "Rounding":
            if text not in list(Rounding):
                raise self.fail(f"{text!r} is not a rounding; roundings: {', '.join(r.value for r in Rounding)}")
            return Rounding(text)
        parts = self.parts(text, name)
        if kind == "tuple[Tensor, ...]":
            return tuple(self.one_tensor(part) for part in parts)
        if kind == "Padding":
            return tuple(self.pair(part, name) for part in parts)
        if kind == "tuple[int, int]":
            return self.pair(text, name)
        assert kind == "tuple[int, ...]", kind
        return tuple(self.integer(part, name) for part in parts)

    def pair(self, text: str, name: str) -> tuple[int, int]:
        parts = self.parts(text, name)
        if len(parts) != 2:
            raise self.fail(f"{name}: {text!r} must be two integers")
        return self.integer(parts[0], name), self.integer(parts[1], name)

    def parts(self, text: str, name: str) -> list[str]:
        """What stands between the commas of [a,b,[c,d]], at its own level."""
        if not (text.startswith("[") and text.endswith("]")):
            raise self.fail(f"{name}={text!r} must be a list in []")
        inside = text[1:-1]
        parts, depth, start = [], 0, 0
        for i, char in enumerate(inside):
            depth += (char == "[") - (char == "]")
            if char == "," and depth == 0:
                parts.append(inside[start:i])
                start = i + 1
        return [*parts, inside[start:]] if inside else []

    def integer(self, text: str, name: str) -> int:
        if not INTEGER.fullmatch(text):
            raise self.fail(f"{name}={text[:40]!r} must be an integer")
        return int(text)
