"""Storage: which weights lie in flash as a stream of few bits, or without their zeros, and are decoded when they are needed.

Rule: the format comes from the weights themselves; for speed nothing is stored so unless flash would not hold the model without.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from toolchain import forms
from toolchain.forms import dsp, stored
from toolchain.ir import Graph
from toolchain.ir.check import check_with_ranges
from toolchain.ir.ops import Mac
from toolchain.layout import SIZES, ctype
from toolchain.special_kernels import special

from .kernels import fits
from .plan import Plan

if TYPE_CHECKING:
    from toolchain.boards import Board

DECODER = 256  # bytes of code that a function's decoder takes, roughly: what storage must save to be worth it
LEAST = 8  # of weights it must save one byte in so many, or it is not worth its instructions
# Bytes of flash that firmware and kernels take, roughly: the digits CNN's whole image is 10 KiB, unrolled loops add some.
CODE = 20 * 1024
TABLES = 12  # bytes of bias, multiplier and shift for each channel


def run(graph: Graph, plan: Plan, board: Board | None) -> tuple[Graph, Plan]:
    # an AVR's decoder could not read its flash, nor shift 24 bits in an int; what is not C has ways of its own
    if board is None or board.backend != "c" or board.core == "atmega328p":
        return graph, plan
    macs = [op for op in graph.ops if isinstance(op, Mac)]
    ranges = check_with_ranges(graph)
    narrow = {op.output.name for op in macs if fits(ranges[op.output.name])}
    users = Counter(op.weight.tensor.name for op in macs)
    now = {op.output.name: _bytes(op, plan, board) for op in macs}
    over = sum(now.values()) + sum(TABLES * op.output.channels for op in macs) + CODE - board.flash_bytes
    if plan.optimize != "size" and (over <= 0 or not board.flash_bytes):
        return graph, plan
    saved = []
    for op in macs:
        form = None if special(op) or users[op.weight.tensor.name] > 1 else stored.smallest(op)
        size = now[op.output.name]
        least = max(DECODER, size / LEAST) if plan.optimize == "size" else DECODER
        if form is not None and size - form.weight_bytes > least:
            saved.append((size - form.weight_bytes, op, form))
    kernels, packing, scratch = dict(plan.kernels), dict(plan.packing), dict(plan.scratch)
    for gain, op, form in sorted(saved, key=lambda each: -each[0]):
        if plan.optimize != "size" and over <= 0:
            break
        packs = op.output.name in narrow and board.core in dsp.CORES and stored.layer(op) is not None
        kernels[op.output.name] = stored.DSP if packs else stored.NAME
        packing[op.weight.tensor.name] = form.text
        wide = op.output.name not in narrow
        needs = stored.scratch_bytes(op, kernels[op.output.name], SIZES[ctype(op.weight.tensor.qtype)], wide)
        scratch[op.output.name] = needs
        over -= gain - DECODER
    return graph, replace(plan, kernels=kernels, packing=packing, scratch={k: n for k, n in scratch.items() if n})


def _bytes(op: Mac, plan: Plan, board: Board) -> int:
    name = plan.kernels.get(op.output.name)
    form = next((form for found, form in forms.choices(op, board.core, plan.optimize) if found == name), None)
    return forms.flash(op, form)


__all__ = ["run"]
