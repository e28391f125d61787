"""How a graph and a plan lie in memory and in calls: storage types, the functions a model is made of, the tensor table.

One rule: the generated C and the host both ask here, so that tensor 7 and op 3 are the same thing on both sides of the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from toolchain.ir import Graph, QType, Tensor, ops
from toolchain.ir.ops import Op

if TYPE_CHECKING:
    from toolchain.passes.plan import Plan

STAGES = (
    ops.Requantize,
    ops.Threshold,
    ops.Lookup,
    ops.Interpolate,
)  # ops on one value at a time, which need not be stored between
SIZES = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "uint16_t": 2, "int32_t": 4, "uint32_t": 4, "int64_t": 8}
WORDS = 16  # bytes of a state from which on it is copied by words, for which it and its next value are aligned


def ctype(qtype: QType) -> str:
    """The C type a value of this type is stored in: the narrowest that holds its bits; beyond 32 bits always int64_t."""
    for bits in (8, 16, 32):
        if qtype.bits <= bits:
            return f"{'' if qtype.signed else 'u'}int{bits}_t"
    return "int64_t"  # an unsigned type has at most 63 bits


def nbytes(tensor: Tensor) -> int:
    """The bytes a tensor takes in memory."""
    return tensor.size * SIZES[ctype(tensor.qtype)]


@dataclass(frozen=True)
class Function:
    """One generated function: ops whose in-between values stay in registers, the end of an inference (no ops), or `whole`:
    a circuit that runs every op at once."""

    index: int
    ops: tuple[Op, ...]
    whole: bool = False

    @property
    def kind(self) -> str:
        """`conv2d+requantize`; `finish` for the last copies to outputs and states; `network` for a whole circuit."""
        return "network" if self.whole else "+".join(map(ops.kind, self.ops)) or "finish"

    @property
    def output(self) -> Tensor | None:
        return self.ops[-1].output if self.ops else None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the function reads from memory."""
        return reads(self.ops) if self.ops else ()

    @property
    def symbol(self) -> str:
        """The C function, `model_op3_conv2d`: named by the op that does the work."""
        return f"model_op{self.index}_{ops.kind(head(self.ops)) if self.ops else 'finish'}"


Chain = tuple[Op, ...]
"""Ops of one function in the order of the graph: lookups of the head's operands, the head, the stages after it."""


def head(chain: Chain) -> Op:
    """The op of a chain whose kernel it is: the one that is no stage, or the first of nothing but stages."""
    return next((op for op in chain if not isinstance(op, STAGES)), chain[0])


def reads(chain: Chain) -> tuple[Tensor, ...]:
    """What a chain reads from memory, one tensor for each operand of its head."""
    before = {op.output.name: op for op in chain[: chain.index(head(chain))]}
    operands = ops.inputs_of(head(chain))
    return tuple(ops.inputs_of(before[t.name])[0] if t.name in before else t for t in operands)


def chains(graph: Graph, fused: frozenset[str]) -> tuple[Chain, ...]:
    """The ops in the order they run, each with those whose value it takes over without a store."""
    open_chains: dict[str, Chain] = {}
    done: list[Chain] = []
    for op in graph.ops:
        taken = [open_chains.pop(t.name) for t in ops.inputs_of(op) if t.name in open_chains]
        chain = (*(each for before in taken for each in before), op)
        if op.output.name in fused:
            open_chains[op.output.name] = chain
        else:
            done.append(chain)
    assert not open_chains, f"fused but never read: {sorted(open_chains)}"
    return tuple(done)


def functions(graph: Graph, plan: Plan) -> tuple[Function, ...]:
    """The functions of the model in the order of their calls; what is only another name for the same memory has none."""
    if plan.hls is not None:
        return (Function(0, graph.ops, whole=True),)
    running = [g for g in chains(graph, plan.fused) if not is_view(head(g), plan)]
    if copies(graph) or graph.states:
        running.append(())
    return tuple(Function(k, g) for k, g in enumerate(running))


def is_view(op: Op, plan: Plan) -> bool:
    """Whether an op only names memory that is filled already: a Reshape or rows of a Slice in place, or a Concat of which every
    input is."""
    if isinstance(op, ops.Concat):
        return all(in_place(op, plan))
    start = view_start(op)
    if start is None:
        return False
    (space, at), found = plan.place(ops.inputs_of(op)[0].name), plan.place(op.output.name)
    return found == (space, at + start)


def view_start(op: Op) -> int | None:
    """The bytes from the start of an op's input to its output, where that is a run of the input's memory: 0 for a Reshape, those of
    the rows before for a Slice of whole rows; None for every other op."""
    if isinstance(op, ops.Reshape):
        return 0
    if not isinstance(op, ops.Slice):
        return None
    x, y = op.input, op.output
    axis = next((k for k, n in enumerate(y.shape) if n != 1), len(y.shape) - 1)  # before it one index of each axis
    whole = y.shape[axis + 1 :] == x.shape[axis + 1 :] and not any(op.begin[axis + 1 :])
    if not y.shape or not whole or (op.strides[axis] != 1 and y.shape[axis] > 1) or ctype(x.qtype) != ctype(y.qtype):
        return None
    steps = [prod(x.shape[k + 1 :]) for k in range(len(x.shape))]
    return sum(begin * step for begin, step in zip(op.begin, steps, strict=True)) * SIZES[ctype(x.qtype)]


def concat_starts(op: ops.Concat) -> tuple[int, ...] | None:
    """The bytes from the start of a Concat's output to each input's place, where that is one run of memory: no axis before the
    joined one has more than one index, and the input is stored as the output is."""
    kind = ctype(op.output.qtype)
    if prod(op.output.shape[: op.axis]) != 1:
        return None
    sizes = [t.size * SIZES[kind] for t in op.inputs]
    return tuple(sum(sizes[:k]) for k in range(len(sizes)))


def in_place(op: ops.Concat, plan: Plan) -> tuple[bool, ...]:
    """Which inputs of a Concat were written straight to their place in its output."""
    space, at = plan.place(op.output.name)
    starts, kind = concat_starts(op), ctype(op.output.qtype)
    if starts is None:
        return (False,) * len(op.inputs)
    return tuple(
        ctype(t.qtype) == kind and plan.place(t.name) == (space, at + start)
        for t, start in zip(op.inputs, starts, strict=True)
    )


def copies(graph: Graph) -> tuple[Tensor, ...]:
    """Outputs that no op writes: an input or state given out as it is."""
    given = {t.name for t in (*graph.inputs, *(s.input for s in graph.states))}
    return tuple(t for t in graph.outputs if t.name in given)


def ram_bytes(graph: Graph, plan: Plan) -> dict[str, int]:
    """The parts of a model's static RAM by name."""
    return {
        "arena": plan.arena_bytes,
        "inputs": sum(map(nbytes, graph.inputs)),
        "outputs": sum(map(nbytes, graph.outputs)),
        "states": sum(nbytes(s.input) for s in graph.states),
    }


@dataclass(frozen=True)
class TensorSlot:
    """A tensor that the protocol can read; `available_after_op` is the function that makes it, -1 for inputs and states."""

    index: int
    name: str
    ctype: str
    count: int
    bytes: int
    available_after_op: int
    role: str  # input, output, state or arena


def tensors(graph: Graph, plan: Plan) -> tuple[TensorSlot, ...]:
    """Inputs, outputs, states, then what lies in the arena in the order it is made."""
    found = functions(graph, plan)
    made: dict[str, int] = {
        op.output.name: function.index for function in found if function.whole for op in function.ops
    }
    for function in found:
        if function.output is not None:
            made[function.output.name] = function.index
    for op in graph.ops:  # what only names memory is there as soon as the last of that is
        if isinstance(op, (ops.Reshape, ops.Slice, ops.Concat)) and op.output.name not in made:
            made[op.output.name] = max(made.get(t.name, -1) for t in ops.inputs_of(op))
    copied = {t.name for t in copies(graph)}
    rows = [(t, "input", -1) for t in graph.inputs]
    rows += [(t, "output", found[-1].index if t.name in copied else made[t.name]) for t in graph.outputs]
    rows += [(s.input, "state", -1) for s in graph.states]
    rows += [(op.output, "arena", made[op.output.name]) for op in graph.ops if op.output.name in plan.arena]
    return tuple(
        TensorSlot(k, t.name, ctype(t.qtype), t.size, nbytes(t), after, role) for k, (t, role, after) in enumerate(rows)
    )
