"""The canonical text of a graph: `parse(dump(g)) == g`. Golden files, cache keys and the digest are made of it; docs/graph_text.md describes it."""

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


TENSOR = re.compile(
    r"%(?P<name>\w+): (?P<sign>[su])(?P<bits>\d+) \[(?P<shape>[\d,]*)\] scale "
    r"(?:axis (?P<axis>\d+) \[(?P<scales>[\d/,]+)\]|(?P<scale>[\d/]+))(?: zero_point (?P<zero>-?\d+))?"
)
BY_KIND: dict[str, type[Op]] = {cls.__name__.lower(): cls for cls in OPS}


def parse(text: str) -> Graph:
    """The graph that `dump` wrote, checked; GraphError with the line number where the text is not one."""
    return _Parser(text).graph()


class _Parser:
    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.at = 0
        self.tensors: dict[str, Tensor] = {}
        self.consts: dict[str, Const] = {}

    def fail(self, what: str) -> GraphError:
        return GraphError(f"graph text line {self.at}", what)

    def graph(self) -> Graph:
        name, notes, inputs, states, outputs = "", [], [], [], []
        found: list[Op] = []
        pending: list[tuple[Tensor, str, Const]] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            word, _, rest = line.partition(" ")
            if self.at == 1:
                if line != f"bitwright graph {VERSION}":
                    raise self.fail(f"is {line[:40]!r}, must be 'bitwright graph {VERSION}'")
            elif word == "graph":
                name = rest
            elif word == "note":
                notes.append(rest)
            elif word == "input":
                inputs.append(self.define(rest))
            elif word == "const":
                self.const(rest)
            elif word == "state":
                declared, _, tail = rest.partition(" next %")
                following, _, initial = tail.partition(" initial %")
                pending.append((self.define(declared), following, self.named(self.consts, initial)))
            elif word == "output":
                outputs.append(self.named(self.tensors, rest.removeprefix("%")))
            elif word.startswith("%"):
                found.append(self.op(line))
            else:
                raise self.fail(f"starts with {word!r}, must be graph, note, input, const, state, output or %name")
        for tensor, following, initial_value in pending:
            states.append(State(tensor, self.named(self.tensors, following), initial_value))
        return check(Graph(name, tuple(inputs), tuple(outputs), tuple(found), tuple(states), tuple(notes)))

    def named(self, table: dict[str, Any], name: str) -> Any:
        if name not in table:
            raise self.fail(f"%{name} is not defined above")
        return table[name]

    def tensor(self, text: str) -> Tensor:
        m = TENSOR.fullmatch(text)
        if not m:
            raise self.fail(f"{text[:60]!r} is not '%name: s8 [shape] scale p/q'")
        scale = tuple(map(Fraction, m["scales"].split(","))) if m["scales"] else Fraction(m["scale"])
        axis = int(m["axis"]) if m["axis"] else None
        qtype = QType(int(m["bits"]), m["sign"] == "s", scale, axis, int(m["zero"] or 0))
        return Tensor(m["name"], tuple(map(int, filter(None, m["shape"].split(",")))), qtype)

    def define(self, text: str) -> Tensor:
        tensor = self.tensor(text)
        self.tensors[tensor.name] = tensor
        return tensor

    def const(self, text: str) -> None:
        tensor = self.tensor(text)
        values: list[int] = []
        while self.at < len(self.lines) and self.lines[self.at].startswith("  "):
            try:
                values += map(int, self.lines[self.at].split())
            except ValueError:
                self.at += 1
                raise self.fail(f"{self.lines[self.at - 1].strip()[:40]!r} must be integers") from None
            self.at += 1
        if len(values) != tensor.size:
            raise self.fail(f"const %{tensor.name} has {len(values)} values, must have {tensor.size}")
        self.consts[tensor.name] = Const.of(tensor.name, np.array(values, np.int64).reshape(tensor.shape), tensor.qtype)

    def op(self, line: str) -> Op:
        declared, _, call = line.partition(" = ")
        word, _, tail = call.partition(" ")
        if word not in BY_KIND:
            raise self.fail(f"{word!r} is not an op; ops: {', '.join(BY_KIND)}")
        cls = BY_KIND[word]
        given = dict(part.partition("=")[::2] for part in tail.split())
        known = {f.name: f for f in fields(cls) if f.name != "output"}
        missing = [n for n, f in known.items() if n not in given and f.default is MISSING]
        if missing or set(given) - set(known):
            raise self.fail(
                f"{word} takes {', '.join(known)}; missing {missing}, unknown {sorted(set(given) - set(known))}"
            )
        values = {name: self.value(text, name) for name, text in given.items()}
        return cls(**values, output=self.define(declared))

    def value(self, text: str, name: str) -> Any:
        if text.startswith("["):
            return tuple(self.value(part, name) for part in _split(text[1:-1]))
        if text.startswith("%"):
            table: dict[str, Any] = self.consts if text[1:] in self.consts else self.tensors
            return self.named(table, text[1:])
        if text in ("true", "false", "none"):
            return {"true": True, "false": False, "none": None}[text]
        if name == "rounding":
            try:
                return Rounding(text)
            except ValueError:
                raise self.fail(
                    f"{text!r} is not a rounding; roundings: {', '.join(r.value for r in Rounding)}"
                ) from None
        try:
            return int(text)
        except ValueError:
            raise self.fail(f"{name}={text!r} must be an integer") from None


def _split(text: str) -> list[str]:
    """The parts between commas that are not inside brackets."""
    parts, depth, start = [], 0, 0
    for i, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]] if text else []
