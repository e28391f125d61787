"""What the HLS kernel of one op costs: multipliers, adders, LUTs, flip-flops, DSPs, RAM blocks, cycles. A model, not a measurement.

Rule: one function per kernel, from the op's own integers (weights that are zero or a power of two take no multiplier where
they are folded) and the primitives of gates.py. docs/fpga_cost.md states every formula.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2, prod

import numpy as np

from toolchain.errors import assert_never
from toolchain.folding import ALWAYS_RESOURCE, mult_size, products
from toolchain.gates import Family, constant_bits, digits, memory_blocks, multiplier, needs_dsp
from toolchain.ir import Tensor, ops
from toolchain.ir.ops import Op, Rounding, consts_of
from toolchain.streams import kernel_of, tokens, window_padding

DSP_STAGES = 3  # NUM_STAGE of the multipliers that Vivado HLS makes at 5 ns (hls4ml issue 49)
ADDER_NS = 2.0  # time of an addition, so that 5 ns hold two levels of a tree: the Vivado report's dense takes 7 cycles
SHARED = 2 / 3  # additions that da4ml leaves of all: its paper's "up to a third fewer"
ONEAPI_STAGES = 170  # cycles that any oneAPI kernel takes at 480 MHz: 17 + 159 of the report's relu, less our 6
CONTROL_LUTS, CONTROL_FFS = 20, 20  # of one process
MUX = 3  # inputs of a multiplexer for each LUT and bit
ROM_BITS = 8  # a lookup of more input bits lies in RAM blocks


@dataclass(frozen=True)
class Kernel:
    """Costs of one op. `step`: cycles from one token (io_stream), position (io_parallel convolution) or inference to the next;
    `idle`: the same where a token makes no output. `stages`: cycles from a step's input to its output beyond `step`."""

    multipliers: int = 0
    adders: int = 0
    luts: float = 0.0
    ffs: float = 0.0
    dsps: float = 0.0
    brams: int = 0
    step: int = 1
    idle: int = 1
    stages: int = 1
    weight_bits: int = 0  # kept in RAM blocks


@dataclass(frozen=True)
class Target:
    """What a kernel is built for."""

    family: Family
    block_bits: int
    period_ns: float
    stream: bool
    tool: str = "Vitis"

    @property
    def levels(self) -> int:
        """Levels of an adder tree in one cycle."""
        return max(int(self.period_ns / ADDER_NS), 1)


def strategy_used(op: Op, strategy: str, tool: str) -> str:
    """The strategy that hls4ml builds the op with; "" where it has none."""
    if not isinstance(op, ops.Mac):
        return ""
    return "Resource" if tool in ALWAYS_RESOURCE else strategy


def kernel(op: Op, target: Target, strategy: str, reuse: int) -> Kernel:
    """The kernel of an op at a strategy and a reuse factor."""
    made = _kernel(op, target, strategy, reuse)
    return replace(made, stages=made.stages + ONEAPI_STAGES) if target.tool == "oneAPI" and made.stages else made


def _kernel(op: Op, target: Target, strategy: str, reuse: int) -> Kernel:
    match op:
        case ops.Dense() | ops.Conv1D() | ops.Conv2D() | ops.DepthwiseConv2D():
            return _mac(op, target, strategy_used(op, strategy, target.tool), reuse)
        case ops.Requantize():
            return _requantize(op, target)
        case ops.Threshold():
            rows = op.thresholds.array
            lanes = _lanes(op.output, target)
            compare = rows.shape[1] * op.input.qtype.bits / 2 + op.output.qtype.bits * (rows.shape[1] + 1) / MUX
            return _lane_cost(op, target, lanes, compare, adders=rows.shape[1] * lanes)
        case ops.Lookup():
            return _lookup(op, target)
        case ops.Add() | ops.Sub():
            lanes = _lanes(op.output, target)
            return _lane_cost(op, target, lanes, op.output.qtype.bits, adders=lanes)
        case ops.Multiply():
            lanes, (blocks, luts) = _lanes(op.output, target), multiplier(target.family, *map(_signed, (op.a, op.b)))
            stages = 1 + DSP_STAGES if blocks else 2
            return _lane_cost(op, target, lanes, luts, blocks, lanes, stages=stages)
        case ops.MaxPool() | ops.SumPool():
            return _pool(op, target)
        case ops.ArgMax():
            n = op.input.shape[-1]
            each = (n - 1) * (op.input.qtype.bits + op.output.qtype.bits)
            return _lane_cost(op, target, tokens(op.output) if not target.stream else 1, each, adders=n - 1,
                              stages=1 + ceil(log2(max(n, 2)) / target.levels))  # fmt: skip
        case ops.Transpose():
            held = op.output.size * op.output.qtype.bits
            moved = held * log2(max(op.output.size, 2)) / MUX if target.stream else 0
            return Kernel(luts=moved + CONTROL_LUTS * target.stream, ffs=held)
        case ops.Softmax() | ops.Softmax16() | ops.Interpolate():
            return Kernel(stages=0)  # never built: the linter and the back end refuse it
        case ops.Concat() | ops.Reshape() | ops.Pad() | ops.UpSample() | ops.Slice():
            if target.stream:
                width = op.output.channels * op.output.qtype.bits
                return Kernel(luts=CONTROL_LUTS + width, ffs=CONTROL_FFS + width)
            return Kernel(stages=0)  # wires
        case _:
            raise assert_never(op)


def _signed(tensor: Tensor) -> int:
    """Bits of an operand as the signed product takes it."""
    return tensor.qtype.bits + (not tensor.qtype.signed)


def _lanes(tensor: Tensor, target: Target) -> int:
    """Elements worked on at once: a token's channels, or all."""
    return tensor.channels if target.stream else tensor.size


def _lane_cost(op: Op, target: Target, lanes: int, luts: float, dsps: float = 0.0, multipliers: int = 0, adders: int = 0,
               stages: int = 1) -> Kernel:  # fmt: skip
    return Kernel(
        multipliers,
        adders,
        lanes * luts + CONTROL_LUTS,
        lanes * op.output.qtype.bits * stages + CONTROL_FFS,
        lanes * dsps,
        stages=stages,
    )


def matrix(op: ops.Mac) -> np.ndarray:
    """The weights as [outputs, products of one output]."""
    w = op.weight.array
    return w.reshape(-1, w.shape[-1]).T if isinstance(op, ops.DepthwiseConv2D) else w.reshape(len(w), -1)


def _mac(op: ops.Mac, target: Target, strategy: str, reuse: int) -> Kernel:
    in_bits, acc = _signed(op.input), op.output.qtype.bits
    n_in, _ = mult_size(op)
    weights = matrix(op)
    bias = np.zeros(len(weights), bool) if op.bias is None else op.bias.array != 0
    weight_bits = op.weight.tensor.qtype.bits
    if reuse == 1 and target.tool not in ALWAYS_RESOURCE:  # the oneAPI report has all 80 multipliers of 80 weights
        made = _folded(weights, bias, in_bits, acc, target, strategy)
        addends = max(made[2], 1)
    else:
        made, addends = _shared(op, target, strategy, reuse, in_bits, acc), max(n_in // reuse, 1)
    multipliers, adders, _, luts, dsps, adder_bits, brams = made
    mult_stages = DSP_STAGES if dsps else int(multipliers > 0)
    stages = 1 + mult_stages + ceil(ceil(log2(max(addends, 2))) / target.levels)
    ffs = adder_bits + n_in * in_bits + len(weights) * acc + CONTROL_FFS
    luts += CONTROL_LUTS
    positions = 1 if isinstance(op, ops.Dense) else prod(op.output.shape[:-1])
    if target.stream:
        rows, registers = _line_buffer(op) if not isinstance(op, ops.Dense) else (0, 0)
        luts, ffs = luts + rows, ffs + registers
    elif positions > 1:  # the window of each position is selected from the whole input
        luts += n_in * in_bits * positions / MUX
        ffs += op.output.size * acc
    elif isinstance(op, ops.Dense):  # unrolled over every position
        count = tokens(op.output)
        multipliers, adders = multipliers * count, adders * count
        luts, ffs, dsps = luts * count, ffs * count, dsps * count
    step = idle = reuse
    if (
        strategy == "Resource" and reuse > 1 and not isinstance(op, ops.Dense)
    ):  # the loop over positions is not pipelined
        step, idle = reuse + stages, 2
    held = weight_bits * op.weight.tensor.size if brams else 0
    return Kernel(multipliers, adders, luts, ffs, dsps, brams, step, idle, stages, held)


def _folded(
    weights: np.ndarray, bias: np.ndarray, in_bits: int, acc: int, target: Target, strategy: str
) -> tuple[int, int, int, float, float, float, int]:
    """Every weight a constant of its own: (multipliers, adders, most addends, luts, dsps, adder bits, brams)."""
    count = digits(weights)
    bits = constant_bits(weights)
    real = count > 1
    blocks = np.zeros(weights.shape)
    if strategy != "distributed_arithmetic":
        for width in np.unique(bits[real]):
            if needs_dsp(in_bits, int(width)):
                blocks[real & (bits == width)] = multiplier(target.family, in_bits, int(width))[0]
    addends = np.where(blocks > 0, 1, count).sum(axis=1) + bias
    adders = int(np.maximum(addends - 1, 0).sum())
    if strategy == "distributed_arithmetic":
        adders = ceil(adders * SHARED)
    widest = int(bits[count > 0].max(initial=1))
    adder_bits = adders * (min(in_bits + widest, acc) + acc) / 2
    return int(real.sum()), adders, int(addends.max(initial=0)), adder_bits, float(blocks.sum()), adder_bits, 0


def _shared(
    op: ops.Mac, target: Target, strategy: str, reuse: int, in_bits: int, acc: int
) -> tuple[int, int, int, float, float, float, int]:
    """Multipliers that take `reuse` weights in turn, from RAM blocks (Resource) or from a multiplexer (Latency)."""
    n_in, _ = mult_size(op)
    bits = op.weight.tensor.qtype.bits
    if strategy == "Resource":
        count = ceil(products(op) / reuse)
        brams = memory_blocks(target.family, target.block_bits, count * bits, reuse) if reuse > 1 else 0
        select = n_in * in_bits / MUX
    else:
        count = ceil(np.count_nonzero(op.weight.array) / reuse)
        brams, select = 0, count * reuse * (in_bits + bits) / MUX
    dsps, luts = multiplier(target.family, in_bits, bits)
    return count, count, 0, count * (luts + acc) + select, count * dsps, count * acc, brams


def _line_buffer(op: ops.Conv1D | ops.Conv2D | ops.DepthwiseConv2D | ops.MaxPool | ops.SumPool) -> tuple[float, float]:
    """(LUTs of the rows kept in shift registers, flip-flops of the window)."""
    window = kernel_of(op)
    width = op.input.channels * op.input.qtype.bits
    rows = 0.0
    if len(window) == 2:
        columns = op.input.shape[1] + sum(window_padding(op)[1])
        rows = (window[0] - 1) * ceil(columns / 32) * width
    return rows, prod(window) * width


def _requantize(op: ops.Requantize, target: Target) -> Kernel:
    """A product by a constant, the rounding's addition, a shift that is wires, a clamp."""
    lanes, size = _lanes(op.output, target), len(op.multiplier)
    m = np.array(op.multiplier, np.int64)
    bits = constant_bits(m)
    acc = _signed(op.input)
    dsps = luts = adders = 0.0
    for k in range(size):
        count, width = int(digits(m[k : k + 1])[0]), int(bits[k])
        total = acc + width
        if count > 1 and needs_dsp(acc, width):
            blocks, extra = multiplier(target.family, acc, width)
            dsps, luts = dsps + blocks, luts + extra
        elif count > 1:
            luts, adders = luts + (count - 1) * total, adders + count - 1
        shift, offset = op.shift[k % len(op.shift)], op.offset[k % len(op.offset)]
        rounds = shift > 0 and op.rounding is not Rounding.FLOOR
        if offset or rounds or op.output_offset:
            luts, adders = luts + total, adders + 1
        luts += total / 2 + op.output.qtype.bits  # two comparisons with constants and what they select
    products = sum(int(c) > 1 for c in digits(m))
    stages = 1 + (DSP_STAGES if dsps else 0) + (1 if adders else 0)
    share = lanes / size
    return _lane_cost(op, target, lanes, luts / size, dsps / size, int(products * share), int(adders * share), stages)


def _lookup(op: ops.Lookup, target: Target) -> Kernel:
    lanes, bits, out = _lanes(op.output, target), op.input.qtype.bits, op.output.qtype.bits
    if bits <= ROM_BITS:
        return _lane_cost(op, target, lanes, max(2**bits / 64, 0.5) * out)
    blocks = memory_blocks(target.family, target.block_bits, out, 2**bits) * ceil(lanes / 2)  # two ports each
    made = _lane_cost(op, target, lanes, 0, stages=2)
    held = sum(c.tensor.size * c.tensor.qtype.bits for c in consts_of(op))
    return Kernel(luts=made.luts, ffs=made.ffs, brams=blocks, stages=2, weight_bits=held)


def _pool(op: ops.MaxPool | ops.SumPool, target: Target) -> Kernel:
    taps, lanes = prod(op.kernel), _lanes(op.output, target)
    each = (taps - 1) * (op.output.qtype.bits if isinstance(op, ops.SumPool) else 1.5 * op.output.qtype.bits)
    stages = 1 + ceil(ceil(log2(max(taps, 2))) / target.levels)
    made = _lane_cost(op, target, lanes, each, adders=(taps - 1) * lanes, stages=stages)
    rows, registers = _line_buffer(op) if target.stream else (0.0, 0.0)
    return Kernel(0, made.adders, made.luts + rows, made.ffs + registers, stages=stages)
