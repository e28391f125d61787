"""Reuse factors: which ones hls4ml accepts, and what it takes instead of another.

Rule: our own closed form, tested against hls4ml's search over many shapes. A product of n_in inputs and n_out outputs takes the
divisors of n_in and, beyond n_in, n_in times a divisor of n_out; hls4ml replaces any other without an error.
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil

from toolchain.ir import ops
from toolchain.streams import kernel_of

UNROLL_LIMIT = 4096  # config_array_partition -maximum_size of hls4ml's scripts; Vivado HLS unrolls no further (issues 904, 1013, 1157)
ALWAYS_RESOURCE = ("Quartus", "oneAPI")  # these back ends know no other strategy for dense and convolutions


def divisors(n: int) -> list[int]:
    low = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)})


def valid(n_in: int, n_out: int) -> list[int]:
    """Every reuse factor that hls4ml leaves as it is, ascending."""
    return sorted({*divisors(n_in), *(n_in * d for d in divisors(n_out))})


def replaced_by(choices: list[int], wanted: int) -> int:
    """What hls4ml takes for `wanted`: the closest, the smaller of two equally close."""
    at = bisect_left(choices, wanted)
    if at == len(choices):
        return choices[-1]
    if at == 0 or choices[at] - wanted < wanted - choices[at - 1]:
        return choices[at]
    return choices[at - 1]


def mult_size(op: ops.Mac) -> tuple[int, int]:
    """(n_in, n_out) of the product that hls4ml makes of the op: groups and dilation are written out with zeros."""
    shape = op.weight.tensor.shape
    if isinstance(op, ops.Dense):
        return shape[1], shape[0]
    taps = 1
    for k in kernel_of(op):
        taps *= k
    out = shape[-1] if isinstance(op, ops.DepthwiseConv2D) else shape[0]
    return taps * op.input.shape[-1], out


def by_positions(op: ops.Mac) -> bool:
    """Whether hls4ml's kernel is a convolution: so is a Dense over more than one position."""
    return not isinstance(op, ops.Dense) or len(op.input.shape) > 1


def products(op: ops.Mac) -> int:
    """Multiplications of one output position."""
    n_in, n_out = mult_size(op)
    return n_in if isinstance(op, ops.DepthwiseConv2D) else n_in * n_out


def choices(op: ops.Mac, stream: bool) -> list[int]:
    """The reuse factors that may be chosen: hls4ml's valid ones that leave no more products than the tools unroll (or the last,
    where all do), less those with which a kernel of it reads out of bounds (its io_parallel convolution of strategy Resource
    beyond n_in: hls4ml 1.3.0, run: most outputs of a 3x3 convolution wrong, and no message; docs/fpga_cost.md)."""
    n_in, n_out = mult_size(op)
    found = valid(n_in, n_out)
    if not stream and by_positions(op):
        found = [rf for rf in found if rf <= n_in]
    return [rf for rf in found if ceil(products(op) / rf) <= UNROLL_LIMIT] or found[-1:]
