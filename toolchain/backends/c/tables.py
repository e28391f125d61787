"""Constants as C arrays, and the small pieces of C text that everything generated is made of.

One rule: what a kernel reads a value at a time lies in flash as `stored` says, a stream as toolchain/forms/stored.py does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from toolchain.errors import UnsupportedError
from toolchain.forms.stored import Stored
from toolchain.ir import Const
from toolchain.layout import SIZES, ctype
from toolchain.passes.plan import Plan

CODES = {
    "int8_t": "NN_S8",
    "uint8_t": "NN_U8",
    "int16_t": "NN_S16",
    "uint16_t": "NN_U16",
    "int32_t": "NN_S32",
    "uint32_t": "NN_U32",
    "int64_t": "NN_S64",
}
INT32 = (-(1 << 31), (1 << 31) - 1)
INT64 = (-(1 << 63), (1 << 63) - 1)
LINE = 110


def number(value: int) -> str:
    """A C constant of this value; the smallest int64 has no literal of its own, and beyond 32 bits int64_t is named."""
    if value == INT64[0]:
        return "INT64_MIN"
    if value == INT32[0]:
        return "INT32_MIN"
    return str(value) if INT32[0] < value <= INT32[1] else f"INT64_C({value})"


def rows(texts: Iterable[str], indent: str = "    ") -> str:
    """Texts with commas between them, as many to a line as fit."""
    lines, line = [], indent
    for text in texts:
        if len(line) + len(text) + 1 > LINE and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += f"{text}, "
    return "\n".join([*lines, line.rstrip()])


def fields(**values: object) -> str:
    """`{.a = 1, .b = 2}` of literals and texts."""
    parts = (f".{k} = {number(v) if isinstance(v, int) else v}" for k, v in values.items())
    return "{" + ", ".join(parts) + "}"


def narrowest(values: Sequence[int]) -> str:
    """The smallest C type that holds all values."""
    lo, hi = min(values), max(values)
    for name in ("int8_t", "uint8_t", "int16_t", "uint16_t", "int32_t", "uint32_t"):
        bits = 8 * SIZES[name]
        low, high = (0, (1 << bits) - 1) if name[0] == "u" else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        if low <= lo and hi <= high:
            return name
    return "int64_t"


def wrapped(value: int, wide: bool) -> int:
    """The value modulo 2**64 or 2**32 as a signed number: what a sum of that width starts from."""
    bits = 64 if wide else 32
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def stored(const: Const, plan: Plan) -> tuple[str, list[int]]:
    """The C type and the values in which a constant lies in flash."""
    packing = plan.packing.get(const.tensor.name, "plain")
    if packing != "plain":
        what = f"packing {packing!r} is not known to the kernel that reads it"
        raise UnsupportedError(f"const %{const.tensor.name}", what, "known: plain; let the passes choose")
    return ctype(const.tensor.qtype), const.array.ravel().tolist()


class Tables:
    """The arrays that model.c opens with, in the order they were first asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.forms: dict[
            str, tuple[str, int]
        ] = {}  # of packed weights, by array: how they lie there, how many they are

    def array(self, name: str, kind: str, values: Sequence[int]) -> str:
        """The C name of an array. What several ops read of one constant may lie in as many types and orders, with a number each."""
        given = (kind, tuple(map(int, values)))
        own = f"model_{name}"
        names = (own, f"{own}_{kind.removesuffix('_t')}", *(f"{own}_{k}" for k in range(2, len(self.arrays) + 3)))
        found = next(n for n in names if self.arrays.get(n, given) == given)
        self.arrays[found] = given
        return found

    def const(self, const: Const) -> tuple[str, str]:
        """The C name of a constant and its type code."""
        kind, values = stored(const, self.plan)
        return self.array(f"const_{const.tensor.name}", kind, values), CODES[kind]

    def packed(self, const: Const, form: Stored) -> tuple[str, str, str]:
        """The C names of a constant as `form` stores it and of the table of its values, and that one's type code."""
        text = self.plan.packing.get(const.tensor.name)
        assert text == form.text, f"{const.tensor.name}: {text} is planned, {form.text} is what its values lie in"
        name = f"stored_{const.tensor.name}"
        data = self.array(name, "uint8_t", list(form.data))
        self.forms[data] = form.text, const.tensor.size
        if form.tables is None:
            return data, "0", "NN_S8"
        return data, *self.values(f"{name}_values", form.tables.ravel().tolist())

    def values(self, name: str, values: Sequence[int]) -> tuple[str, str]:
        """The C name of derived values in the smallest type that holds them, and its type code."""
        kind = narrowest(values)
        return self.array(name, kind, values), CODES[kind]

    def param(self, name: str, values: Sequence[int]) -> str:
        """An initialiser of nn_param: one value where all are equal, else a table."""
        if len(set(values)) == 1:
            return f"NN_ALL({number(int(values[0]))})"
        array, code = self.values(name, values)
        return f"NN_EACH({array}, {code})"

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each array."""
        return {name: SIZES[kind] * len(values) for name, (kind, values) in self.arrays.items()}

    def text(self) -> str:
        return "\n".join(
            f"{self._comment(name)}static const {kind} {name}[{len(values)}] = {{\n{rows(map(number, values))}\n}};"
            for name, (kind, values) in self.arrays.items()
        )

    def _comment(self, name: str) -> str:
        if name not in self.forms:
            return ""
        form, count = self.forms[name]
        return f"/* {count:,} weights in {self.sizes[name]:,} bytes: {form} */\n"

    def weights(self) -> dict[str, dict[str, str | int]]:
        """Of each array of packed weights how they lie there, how many they are, and its bytes."""
        return {
            name: {"format": form, "values": count, "bytes": self.sizes[name]}
            for name, (form, count) in self.forms.items()
        }
