"""Random valid graphs over every op, for everyone's differential tests, and inputs that look for trouble in them.

`random_graph(seed)` and the hypothesis strategy `graphs()` share one generator, which only asks for integers and choices.
Graphs are small, so that compiling what is emitted for one stays cheap: a few ops, tensors of at most MAX_SIZE elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st

from toolchain.errors import GraphError
from toolchain.ir import Const, Graph, QType, Tensor
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.ops import Padding, Rounding, inputs_of
from toolchain.ir.types import Ints, bits_for

T = TypeVar("T")
MAX_SIZE = 400
SCALES = [Fraction(1), Fraction(1, 2), Fraction(1, 16), Fraction(1, 255), Fraction(3, 7), Fraction(4)]


class Source(Protocol):
    """Where choices come from."""

    def integer(self, lo: int, hi: int) -> int: ...


class Seeded:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def integer(self, lo: int, hi: int) -> int:
        return int(self.rng.integers(lo, hi, endpoint=True))


class Drawn:
    """From hypothesis, so that a failing graph shrinks."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self.draw = draw

    def integer(self, lo: int, hi: int) -> int:
        return self.draw(st.integers(lo, hi))


def random_graph(seed: int, size: int = 6, max_bits: int = 63) -> Graph:
    """A checked graph of about `size` ops, the same for the same arguments; no tensor is wider than `max_bits`."""
    return _Maker(Seeded(seed), size, max_bits).graph(f"random_{seed}")


@st.composite
def graphs(draw: Any, size: int = 5, max_bits: int = 63) -> Graph:
    """As `random_graph`, for @given."""
    return _Maker(Drawn(draw), size, max_bits).graph("random")


def inputs_for(graph: Graph, n: int, seed: int = 0) -> dict[str, Ints]:
    """`n` samples for every input: first the corners (all least, all greatest, all zero, alternating, one step beside
    zero, powers of two, which make exact halves of shifts), then random ones, wide and close to zero by turns."""
    rng = np.random.default_rng(seed)
    return {t.name: np.stack([_sample(t, i, rng) for i in range(n)]) for t in graph.inputs}


def _sample(tensor: Tensor, i: int, rng: np.random.Generator) -> Ints:
    q, shape = tensor.qtype, tensor.shape
    index = np.arange(tensor.size).reshape(shape)
    zero = q.zero_point
    powers = zero + (1 << index % q.bits) * np.where(index % 2, -1, 1)
    corners: list[Any] = [q.min, q.max, zero, np.where(index % 2, q.min, q.max), zero - 1, zero + 1, powers]
    if i < len(corners):
        wanted = np.broadcast_to(np.asarray(corners[i]), shape)
    elif i % 2:
        wanted = rng.integers(q.min, q.max, shape, endpoint=True)
    else:
        wanted = zero + rng.integers(-4, 5, shape)
    return np.clip(wanted, q.min, q.max).astype(np.int64)


class _Maker:
    def __init__(self, source: Source, size: int, max_bits: int) -> None:
        self.source, self.size, self.max_bits = source, size, max_bits
        self.b = GraphBuilder("random")
        self.live: list[Tensor] = []
        self.read: set[str] = set()
        self.wide = self.maybe(6)  # accumulators beyond 32 bits

    # choices

    def integer(self, lo: int, hi: int) -> int:
        return self.source.integer(lo, hi)

    def choice(self, items: Sequence[T]) -> T:
        return items[self.integer(0, len(items) - 1)]

    def maybe(self, one_in: int) -> bool:
        return self.integer(1, one_in) == one_in

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.integer(0, 1 << 32))

    def array(self, lo: int, hi: int, shape: Sequence[int]) -> Ints:
        values = self.rng().integers(lo, hi, tuple(shape), endpoint=True)
        return values * (self.rng().random(shape) > 0.3) if self.maybe(3) and lo <= 0 <= hi else values

    def qtype(self, lo: int = 1, hi: int = 16, zero: bool = True, scale: Fraction | None = None) -> QType:
        bits, signed = self.integer(lo, hi), bool(self.integer(0, 1))
        bits = max(bits, min(hi, 14)) if self.wide else bits
        q = QType(bits, signed, scale or self.choice(SCALES))
        if zero and self.maybe(3):
            q = QType(bits, signed, q.scale, None, self.integer(q.min, q.max))
        return q

    def channels(self) -> int:
        return self.integer(65, 70) if self.maybe(15) else self.choice([1, 1, 2, 3, 4, 5, 8])

    def padding(self, rank: int, most: int = 2) -> Padding:
        if self.maybe(2):
            return ((0, 0),) * rank
        return tuple((self.integer(0, most), self.integer(0, most)) for _ in range(rank))

    # the graph

    def graph(self, name: str) -> Graph:
        self.b.name = name
        for i in range(self.choice([1, 1, 1, 2, 3])):
            self.live.append(self.b.input(f"x{i}", self.shape(), self.qtype()))
        states = [self.state(i) for i in range(self.choice([0, 0, 0, 1, 2]))]
        for _ in range(4 * self.size):
            if len(self.b.ops) >= self.size:
                break
            self.step()
        for state in states:
            self.b.next_state(state, self.following(state))
        nexts = {s.output.name for s in self.b.states}
        leaves = [
            t for t in self.live if t.name not in self.read | nexts and t not in self.b.inputs and t not in states
        ]
        for tensor in leaves or self.live[-1:]:
            self.b.output(tensor)
        if self.maybe(4):  # anything may be an output, an input and a state too
            extra = self.choice(self.live)
            if extra not in self.b.outputs:
                self.b.output(extra)
        return self.b.graph()

    def shape(self) -> tuple[int, ...]:
        rank = self.choice([1, 2, 3, 3, 3])
        return (
            *(self.integer(1, 7) for _ in range(rank - 1)),
            self.channels() if rank < 3 else self.choice([1, 2, 3, 4]),
        )

    def state(self, i: int) -> Tensor:
        if i and self.maybe(2):  # of one type with the first, so that they can be swapped
            shape, q = self.b.states[0].input.shape, self.b.states[0].input.qtype
        elif self.maybe(3):
            shape, q = self.b.inputs[0].shape, self.b.inputs[0].qtype
        else:
            shape, q = (self.integer(1, 6),), self.qtype()
        tensor = self.b.state(f"h{i}", self.array(q.min, q.max, shape), q)
        self.live.append(tensor)
        return tensor

    def following(self, state: Tensor) -> Tensor:
        """What replaces the state: itself, an input, another state, an op's output, or one made for it."""
        same = [t for t in self.live if (t.shape, t.qtype) == (state.shape, state.qtype)]
        if self.maybe(2):
            return self.choice(same)
        x = self.choice(self.live)
        if len(x.qtype.scales) > 1:
            x = self.requantized(x, self.qtype(2, 8))
        flat = self.b.reshape(x, (x.size,), "flat")
        acc = self.b.dense(
            flat, self.b.const("w_state", self.array(-3, 3, (prod(state.shape), flat.size))), None, "acc_state"
        )
        return self.b.reshape(self.requantized(acc, state.qtype), state.shape, "next_state")

    def step(self) -> None:
        x = self.choice(self.live if self.maybe(3) else self.live[-2:])
        makers = {
            1: [self.dense, self.dense, self.reshape],
            2: [*[self.conv1d] * 6, *[self.pool] * 3, self.dense, self.upsample, self.transpose, self.reshape],
            3: [*[self.conv2d] * 6, *[self.depthwise] * 3, *[self.pool] * 4, self.dense, self.upsample, self.transpose],
        }.get(len(x.shape), [self.reshape, self.transpose])
        anywhere = [
            self.requantize,
            self.threshold,
            self.lookup,
            self.add,
            self.multiply,
            self.concat,
            self.pad,
            self.argmax,
            self.slice,
            self.softmax,
        ]
        wide = x.qtype.bits > 16 and not self.maybe(4)
        make = self.choice([self.requantize, self.requantize, self.threshold] if wide else makers + anywhere)
        before = len(self.b.ops), len(self.live)
        try:
            y = make(x)
        except GraphError:  # not every choice is a legal op; what it wrote before it failed goes
            y = None
        made = [op.output for op in self.b.ops[before[0] :]]
        if y is None or any(t.size > MAX_SIZE or t.qtype.bits > self.max_bits for t in made):
            del self.b.ops[before[0] :]
            return
        for op in self.b.ops[before[0] :]:
            self.read |= {t.name for t in inputs_of(op)}
        self.live += [t for t in made if t not in self.live]

    # one op each, or a few that belong together

    def weight(self, shape: Sequence[int], axis: int) -> Const:
        bits = self.choice([16, 20, 24] if self.wide else [1, 2, 3, 4, 8, 8, 12, 16])
        lo, hi = (-1, 1) if bits == 1 else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        scale: Any = [self.choice(SCALES) for _ in range(shape[axis])] if self.maybe(3) else self.choice(SCALES)
        return self.b.const("w", self.array(lo, hi, shape), scale, axis)

    def bias(self, x: Tensor, weight: Const, out: int, axis: int) -> Const | None:
        if self.maybe(2):
            return None
        scales = [s * t for s, t in zip(x.qtype.scale_list(out), weight.tensor.qtype.scale_list(out), strict=True)]
        return self.b.const("bias", self.array(-(1 << self.integer(1, 14)), 1 << self.integer(1, 14), (out,)), scales)

    def one(self, x: Tensor) -> None:
        if len(x.qtype.scales) > 1:
            raise GraphError("maker", "needs one scale")

    def dense(self, x: Tensor) -> Tensor:
        self.one(x)
        out = self.channels()
        weight = self.weight((out, x.shape[-1]), 0)
        return self.b.dense(x, weight, self.bias(x, weight, out, 0), "acc")

    def conv1d(self, x: Tensor) -> Tensor:
        self.one(x)
        groups = self.choice([g for g in range(1, x.shape[-1] + 1) if x.shape[-1] % g == 0])
        out = groups * self.integer(1, 3)
        weight = self.weight((out, self.integer(1, 3), x.shape[-1] // groups), 0)
        return self.b.conv1d(x, weight, self.bias(x, weight, out, 0), "acc", (self.integer(1, 2),), (self.integer(1, 2),),
                             self.padding(1), groups)  # fmt: skip

    def conv2d(self, x: Tensor) -> Tensor:
        self.one(x)
        groups = self.choice([g for g in range(1, x.shape[-1] + 1) if x.shape[-1] % g == 0])
        out = self.channels() if groups == 1 else groups * self.integer(1, 2)
        weight = self.weight((out, self.integer(1, 3), self.integer(1, 3), x.shape[-1] // groups), 0)
        return self.b.conv2d(x, weight, self.bias(x, weight, out, 0), "acc", (self.integer(1, 2), self.integer(1, 3)),
                             (self.integer(1, 2), self.integer(1, 2)), self.padding(2), groups)  # fmt: skip

    def depthwise(self, x: Tensor) -> Tensor:
        out = x.shape[-1] * self.choice([1, 1, 2, 3])
        weight = self.weight((self.integer(1, 3), self.integer(1, 3), out), 2)
        bias = self.bias(x, weight, out, 2) if len(x.qtype.scales) == 1 else None
        return self.b.depthwise_conv2d(x, weight, bias, "acc", (self.integer(1, 2), self.integer(1, 2)),
                                       (self.integer(1, 2), self.integer(1, 2)), self.padding(2))  # fmt: skip

    def requantize(self, x: Tensor) -> Tensor:
        return self.requantized(x, self.qtype())

    def requantized(self, x: Tensor, q: QType) -> Tensor:
        """Any multiplier, offset and shift that brings values of x into sight of q; powers of two alone make halves."""
        rounding = self.choice(list(Rounding))
        lo, hi = self.b.range(x).whole
        if rounding is Rounding.TFLM and (lo < -(1 << 31) or hi >= 1 << 31):
            rounding = Rounding.HALF_EVEN
        size = x.channels if self.maybe(3) else 1
        steps = [self.affine_step(max(-lo, hi, 1).bit_length(), q, rounding) for _ in range(size)]
        if rounding is not Rounding.TFLM and self.maybe(6):  # the widest product that fits
            wide = 61 - max(-lo, hi, 1).bit_length()
            steps = [(self.integer(1, 1 << min(wide, 46)), o, min(wide, 40)) for _, o, _ in steps]
        clamp = q.min, q.max
        if self.maybe(4):
            clamp = tuple(sorted((self.integer(q.min, q.max), self.integer(q.min, q.max))))  # type: ignore[assignment]
        offset = q.zero_point if self.maybe(2) else self.choice([0, 0, 1, -3])
        m, o, s = zip(*steps, strict=True)
        return self.b.requantize(x, q, m, o, s, rounding, "y", clamp, offset)

    def affine_step(self, bits: int, q: QType, rounding: Rounding) -> tuple[int, int, int]:
        fall = max(bits - q.bits + self.integer(0, 1), 0)
        if rounding is Rounding.TFLM:
            return self.integer(1 << 30, (1 << 31) - 1), 0, min(31 + fall - self.choice([0, 0, 1]), 62)
        style = self.choice([0, 0, 0, 1, 2, 3])
        if style == 0:
            return self.choice([1, -1]), self.choice([0, 0, 1 << fall >> 1, -1, 3]), fall
        if style == 1:
            return self.choice([1, 3, -5, 7, 0]), self.integer(-9, 9), fall + self.integer(0, 2)
        if style == 2:
            return self.choice([1, -1]) << self.integer(0, 3), 0, 0
        shift, most = min(fall + 20, 50), max(min(20, 61 - bits), 1)  # bits of the multiplier: the product fits int64
        return (
            self.choice([1, -1]) * self.integer(1 << most - 1, 1 << most),
            self.integer(-(1 << shift), 1 << shift) >> 2,
            shift,
        )

    def threshold(self, x: Tensor) -> Tensor:
        q = self.qtype(2, 8)
        lo, hi = self.b.range(x).whole
        rows = x.channels if self.maybe(3) else 1
        count = self.choice([1, 1, 2, 3, 7, 15])
        ladder = np.sort(
            self.array(max(lo, -(1 << 62)) - self.integer(0, 2), min(hi, 1 << 62) + self.integer(0, 2), (rows, count))
        )
        style = self.integer(0, 3)
        levels = self.array(q.min, q.max, (rows if self.maybe(2) else 1, count + 1))
        if style == 0:
            levels = np.sort(levels)
        elif style == 1:
            levels = np.sort(levels)[:, ::-1]
        elif style == 2 and q.signed:  # bipolar
            levels = np.where(np.arange(count + 1) % 2, 1, -1)[None]
        return self.b.threshold(x, q, ladder, levels, "y")

    def lookup(self, x: Tensor) -> Tensor:
        if x.qtype.bits > (12 if self.maybe(8) else 8):
            return self.interpolate(x)
        q = self.qtype()
        return self.b.lookup(x, q, self.array(q.min, q.max, (1 << x.qtype.bits,)), "y")

    def interpolate(self, x: Tensor) -> Tensor:
        """Lines between entries that are as large as 32 bits allow, or small; every rounding but tflm."""
        lines = 1 << self.integer(0, min(x.qtype.bits, 9))
        steps, shift = (1 << x.qtype.bits) // lines, self.choice([0, 1, 3, 10, 20])
        most = ((1 << 30) - (1 << shift) - 1) // steps
        if most < 1:
            raise GraphError("maker", "table too coarse")
        most = min(most, self.choice([1, 100, 32767, 1 << 29]))
        table = self.b.const("table", self.array(-most, most, (lines + 1,)))
        offset = self.choice([0, 0, 5, -1000])
        ends = [-(most * steps >> shift) - 1 + offset, (most * steps >> shift) + 1 + offset]
        rounding = self.choice([r for r in Rounding if r is not Rounding.TFLM])
        q = QType(*bits_for(*ends, True), self.choice(SCALES))
        return self.b.interpolate(x, q, table, shift, rounding, "line", offset)

    def partner(self, x: Tensor, like: QType) -> Tensor:
        """A tensor of a shape that goes with x: x itself, a window of it that repeats, or another of `like`."""
        if self.maybe(3) and len(x.shape) in (2, 3):
            spatial = tuple(x.shape[:-1]) if self.maybe(2) else (*x.shape[:-2], 1)
            small = self.b.max_pool(x, spatial, spatial, ((0, 0),) * len(spatial), "most")
            return small if small.qtype == like else self.requantized(small, like)
        others = [t for t in self.live if t.shape == x.shape and t.qtype == like]
        return self.choice(others) if others and self.maybe(2) else self.requantized(x, like)

    def add(self, x: Tensor) -> Tensor:
        if x.qtype.zero_point:
            x = self.requantized(x, self.qtype(2, 12, zero=False))
        if len(x.qtype.scales) == 1:
            bits, signed = self.integer(1, 12), bool(self.integer(0, 1))
            other = self.partner(x, QType(bits, signed, x.qtype.scale))
        else:
            other = x
        a, b = (x, other) if self.maybe(2) else (other, x)
        return self.b.add(a, b, "sum") if self.maybe(2) else self.b.sub(a, b, "difference")

    def multiply(self, x: Tensor) -> Tensor:
        return self.b.multiply(x, self.partner(x, self.qtype(1, 16 if self.wide else 8)), "product")

    def concat(self, x: Tensor) -> Tensor:
        zero = x.qtype.zero_point
        axis = self.integer(0, len(x.shape) - 1)
        q = self.qtype(zero=False, scale=None if axis == len(x.shape) - 1 else x.qtype.scales[0])
        fits = q.min <= zero <= q.max
        other = self.requantized(x, QType(q.bits, q.signed, q.scale, None, zero)) if fits else x
        inputs = [x, other] if self.maybe(2) else [other, x, x]
        return self.b.concat(inputs, axis, "joined")

    def pool(self, x: Tensor) -> Tensor:
        spatial = len(x.shape) - 1
        if self.maybe(5):  # global
            kernel, padding = x.shape[:-1], ((0, 0),) * spatial
        else:
            kernel, padding = tuple(self.integer(1, 3) for _ in range(spatial)), self.padding(spatial, 1)
        strides, ceil = tuple(self.integer(1, 3) for _ in range(spatial)), bool(self.integer(0, 1))
        if self.maybe(2):
            return self.b.max_pool(x, kernel, strides, padding, "most", ceil)
        return self.b.sum_pool(x, kernel, strides, padding, "average", ceil, bool(self.integer(0, 1)))

    def reshape(self, x: Tensor) -> Tensor | None:
        sizes = [d for d in range(1, x.size + 1) if x.size % d == 0]
        last = self.choice([x.size, self.choice(sizes), x.shape[-1]])
        first = self.choice([d for d in range(1, x.size // last + 1) if (x.size // last) % d == 0])
        shape = self.choice([(x.size // last, last), (first, x.size // last // first, last), (x.size,)])
        return None if shape == x.shape else self.b.reshape(x, shape, "reshaped")

    def transpose(self, x: Tensor) -> Tensor:
        return self.b.transpose(x, [int(k) for k in self.rng().permutation(len(x.shape))], "turned")

    def pad(self, x: Tensor) -> Tensor:
        value = None if self.maybe(2) else self.integer(x.qtype.min, x.qtype.max)
        return self.b.pad(x, tuple((self.integer(0, 1), self.integer(0, 2)) for _ in x.shape), "padded", value)

    def upsample(self, x: Tensor) -> Tensor:
        return self.b.upsample(x, [self.integer(1, 3) for _ in x.shape[:-1]], "larger")

    def argmax(self, x: Tensor) -> Tensor:
        return self.b.argmax(x, "index")

    def slice(self, x: Tensor) -> Tensor:
        begin = [self.integer(0, n - 1) for n in x.shape]
        strides = [self.integer(1, 3) for _ in x.shape]
        most = [(n - 1 - b) // s + 1 for n, b, s in zip(x.shape, begin, strides, strict=True)]
        return self.b.slice(x, begin, [self.integer(1, n) for n in most], strides, "part")

    def softmax(self, x: Tensor) -> Tensor:
        """A table that falls slowly, at once, or not at all steadily; rows as they are, or all elements in one."""
        if x.qtype.bits > 9 and self.maybe(2):
            return self.softmax16(x)
        if x.qtype.bits != 8 or len(x.qtype.scales) > 1:
            x = self.requantized(x, self.qtype(8, 8))
        if self.maybe(3):
            x = self.b.reshape(x, (x.size,), "row")
        bits, keep = self.choice([8, 16]), self.choice([1, 100, 230, 250, 255])
        table = [(1 << 31) - 1]
        while len(table) < 256:
            table.append(table[-1] * keep >> 8)
        if self.maybe(4):
            table[1:] = self.array(0, (1 << 31) - 1, (255,)).tolist()
        q = QType(bits, True, Fraction(1, 1 << bits), None, -1 << bits - 1)
        return self.b.softmax(x, table, q, "share")

    def softmax16(self, x: Tensor) -> Tensor:
        """Tables that rise and fall as those of a file do, or hold anything."""
        x = self.requantized(x, QType(16, True, self.choice(SCALES)))
        exp = np.sort(self.array(0, 32767, (513,)) >> self.choice([0, 3, 10]))
        exp[-2:] |= 16384
        exp = exp if self.maybe(2) else (32767 >> (512 - np.arange(513)) // 40) | (np.arange(513) > 510) * 4
        table, reciprocal = self.b.const("exp", exp), self.b.const("reciprocal", self.array(0, 32767, (513,)))
        multiplier, shift = self.integer(0, (1 << 31) - 1), self.integer(18, 40)
        return self.b.softmax16(x, table, reciprocal, multiplier, shift, QType(16, True, Fraction(1, 1 << 15)), "share")
