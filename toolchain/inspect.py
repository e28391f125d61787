"""What a graph is made of, in numbers: for `bitwright inspect`, reports and the search. Counts only; nothing is estimated."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from toolchain.ir import Const, Graph, Tensor, ops
from toolchain.ir.ops import Op


@dataclass(frozen=True)
class OpFacts:
    name: str  # of the output tensor
    kind: str
    shape: tuple[int, ...]
    type: str  # of the output: s8, u4
    macs: int
    weight_bits: int  # bits of one weight, 0 where there are none
    weight_bytes: int  # information of what it reads, be it another's too: values times bits, rounded up to whole bytes
    accumulator_bits: int  # 0 where the op does not accumulate


def macs(op: Op) -> int:
    """Multiply-accumulates of one inference; padding is counted as if it were data, as the field does."""
    match op:
        case ops.Dense() | ops.Conv1D() | ops.Conv2D():
            return op.output.size * (op.weight.tensor.size // op.weight.tensor.shape[0])
        case ops.DepthwiseConv2D():
            return op.output.size * (op.weight.tensor.size // op.weight.tensor.shape[-1])
        case _:
            return 0


def const_bytes(*consts: Const) -> int:
    """Information: values times bits, rounded up to whole bytes, each constant counted once."""
    return sum((t.size * t.qtype.bits + 7) // 8 for t in {c.tensor.name: c.tensor for c in consts}.values())


def weight_bytes(graph: Graph) -> int:
    """Of all ops: what several of them read is there one time."""
    return const_bytes(*(c for op in graph.ops for c in ops.consts_of(op)))


def facts(graph: Graph) -> tuple[OpFacts, ...]:
    return tuple(_facts(op) for op in graph.ops)


def _facts(op: Op) -> OpFacts:
    accumulates = isinstance(op, ops.Mac | ops.SumPool | ops.Add | ops.Sub | ops.Multiply)
    return OpFacts(
        name=op.output.name,
        kind=ops.kind(op),
        shape=op.output.shape,
        type=op.output.qtype.text,
        macs=macs(op),
        weight_bits=op.weight.tensor.qtype.bits if isinstance(op, ops.Mac) else 0,
        weight_bytes=const_bytes(*ops.consts_of(op)),
        accumulator_bits=op.output.qtype.bits if accumulates else 0,
    )


def as_json(graph: Graph) -> dict[str, object]:
    """The same as a JSON-able dict, with the graph's inputs, outputs, notes and digest."""
    found = facts(graph)
    return {
        "name": graph.name,
        "graph": graph.digest(),
        "inputs": [_tensor(t) for t in graph.inputs],
        "outputs": [_tensor(t) for t in graph.outputs],
        "states": [_tensor(s.input) for s in graph.states],
        "notes": list(graph.notes),
        "macs": sum(f.macs for f in found),
        "weight_bytes": weight_bytes(graph),
        "ops": [asdict(f) for f in found],
    }


def _tensor(tensor: Tensor) -> dict[str, object]:
    q = tensor.qtype
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "type": q.text,
        "scale": [str(s) for s in q.scales],
        "zero_point": q.zero_point,
    }
