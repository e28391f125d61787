"""Builder: how a lowering writes layers; Value: where a tensor stands. Its one rule: every name is given here, once.

Layers are called `op<k>_<kind>`, what an op needs besides `op<k>_<kind>_<what>`: lower case, since hls4ml looks precisions up
in lower case and two names that differ in case would share them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .layers import Int, Layer, Table

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor in the network: the layer that makes it, its shape and its type."""

    layer: str
    shape: Shape
    type: Int


def hwc(shape: Shape) -> tuple[int, int, int]:
    """Height, width and channels of a tensor of one to three axes; an axis that is not there has size 1."""
    h, w, c = (1,) * (3 - len(shape)) + shape
    return h, w, c


def elements(shape: Shape) -> dict[str, int]:
    """The numbers of a kernel that goes over elements."""
    h, w, c = hwc(shape)
    return {"size": h * w * c, "channels": c}


class Builder:
    """Collects layers; `begin` says which op, and which input or output of the graph, the next ones are for."""

    def __init__(self, stream: bool, depthwise: bool, shared: Container[str] = ()) -> None:
        self.stream, self.depthwise, self.shared = stream, depthwise, shared
        self.layers: list[Layer] = []
        self._prefix = self._op = ""

    def begin(self, prefix: str, op: str) -> None:
        self._prefix, self._op = prefix, op

    def add(
        self,
        class_name: str,
        inputs: Sequence[Value],
        shape: Shape,
        result: Int,
        what: str = "",
        attributes: Mapping[str, Any] | None = None,
        types: Mapping[str, Int] | None = None,
        numbers: Mapping[str, int | str] | None = None,
        tables: Mapping[str, Table] | None = None,
    ) -> Value:
        """One layer; `what` tells the layers of one op apart and is empty for the one that makes its output."""
        name = f"{self._prefix}_{what}" if what else self._prefix
        reads = tuple(v.layer for v in inputs)
        given = (attributes or {}, types or {}, numbers or {}, tables or {})
        self.layers.append(Layer(name, class_name, reads, shape, result, self._op, *given, inner=bool(what)))
        return Value(name, shape, result)

    def minus(self, x: Value, zero_point: int, what: str, always: bool = False) -> Value:
        """x - zero_point, on as many bits as that takes; x itself where nothing changes, unless a copy is wanted `always`."""
        if not zero_point and not always:
            return x
        lo = (-(1 << (x.type.bits - 1)) if x.type.signed else 0) - zero_point
        hi = (1 << (x.type.bits - x.type.signed)) - 1 - zero_point
        return self.requantize(x, Int.holding(lo, hi), (1,), (-zero_point,), (0,), 0, "floor", (lo, hi), what)

    def requantize(
        self,
        x: Value,
        result: Int,
        multiplier: tuple[int, ...],
        offset: tuple[int, ...],
        shift: tuple[int, ...],
        output_offset: int,
        rounding: str,
        clamp: tuple[int, int],
        what: str = "",
    ) -> Value:
        """Our kernel for Requantize; its arithmetic is wide enough for every value of x's type."""
        rows = max(len(multiplier), len(offset), len(shift))
        tables = {
            "mult": Table.of(multiplier * (rows // len(multiplier)), signed=True),
            "offset": Table.of(offset * (rows // len(offset)), signed=True),
            "shift": Table.of(shift * (rows // len(shift)), signed=False),
        }
        product = x.type.signed_bits + tables["mult"].type.bits
        if rounding == "tflm":  # saturates to 32 bits after a left shift of up to 31, then multiplies by 32
            product = max(x.type.signed_bits + 31, 32 + tables["mult"].type.bits)
        clamped = Int.holding(min(*clamp, output_offset), max(*clamp, output_offset), True).bits
        # one bit for the sum, one for the rounding, two so that 2**shift and twice it have their sign
        work = max(product, tables["offset"].type.bits, max(shift) + 1, clamped) + 3
        numbers: dict[str, int | str] = {
            **elements(x.shape),
            "rows": rows,
            "work_bits": work,
            "rounding": f"nnet::nn_{rounding}",
            "output_offset": output_offset,
            "lo": clamp[0],
            "hi": clamp[1],
        }
        return self.add("NnRequantize", [x], x.shape, result, what, numbers=numbers, tables=tables)
