"""What a network is made of for hls4ml: plain layers with every type spelled out. No hls4ml is imported here.

One rule: nothing is left for hls4ml to infer. A stored integer is an `int<W>` or `uint<W>` of its own bits, so a value means
the same in the C++ as in the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toolchain.ir.types import QType, bits_for


@dataclass(frozen=True)
class Int:
    """A type of integers: bits and sign."""

    bits: int
    signed: bool

    @classmethod
    def of(cls, qtype: QType) -> Int:
        return cls(qtype.bits, qtype.signed)

    @classmethod
    def holding(cls, lo: int, hi: int, signed: bool | None = None) -> Int:
        return cls(*bits_for(lo, hi, signed))

    @property
    def hls(self) -> str:
        """As hls4ml's configuration writes it."""
        return f"{'' if self.signed else 'u'}int<{self.bits}>"

    @property
    def fixed(self) -> str:
        """The same values as fixed point without a fraction."""
        return f"{'' if self.signed else 'u'}fixed<{self.bits},{self.bits}>"

    def cpp(self, family: str) -> str:
        """As C++ writes it: `family` is ap (Vivado, Vitis) or ac (Intel, Catapult)."""
        if family == "ap":
            return f"ap_{'' if self.signed else 'u'}int<{self.bits}>"
        return f"ac_int<{self.bits}, {str(self.signed).lower()}>"

    @property
    def signed_bits(self) -> int:
        """Bits of a signed type that holds every value of this one."""
        return self.bits + (not self.signed)


@dataclass(frozen=True)
class Table:
    """Constant integers of one of our kernels: an argument of its call."""

    values: tuple[int, ...]
    type: Int

    @classmethod
    def of(cls, values: Sequence[int], signed: bool | None = None) -> Table:
        return cls(tuple(values), Int.holding(min(values), max(values), signed))


@dataclass(frozen=True)
class Layer:
    """One hls4ml layer. `attributes` are hls4ml's own; of our kernels `numbers` and `tables` are all there is.

    `op` is the op, by name of its output, that errors and Plan speak of."""

    name: str
    class_name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    result: Int
    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, Int] = field(default_factory=dict)  # weight, bias, accum
    numbers: Mapping[str, int | str] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)
    inner: bool = False  # a step within an op: its result is no tensor of the graph

    @property
    def ours(self) -> bool:
        return self.class_name in KERNELS


KERNELS = {
    "NnRequantize": "nn_requantize",
    "NnThreshold": "nn_threshold",
    "NnLookup": "nn_lookup",
    "NnPad": "nn_pad",
    "NnPool": "nn_pool",
    "NnRepeat": "nn_repeat",
    "NnConcat": "nn_concat",
    "NnTranspose": "nn_transpose",
    "NnReshape": "nn_reshape",
    "NnArgMax": "nn_argmax",
    "NnSlice": "nn_slice",
}  # hls4ml's name of a layer of ours -> its function in firmware_templates/hls/nnet_utils/nn_kernels.h


@dataclass(frozen=True)
class Network:
    """All layers in order; `inputs` are the first of them, `outputs` layer names in the graph's order."""

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)
