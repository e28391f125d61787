"""model.c: tables, one function for each op or fused group, and one straight list of calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolchain.ir import Graph, State, Tensor, ops
from toolchain.ir.check import check_with_ranges
from toolchain.layout import WORDS, Function, copies, ctype, functions, head, nbytes, tensors
from toolchain.passes.plan import Plan

from .calls import Context, call, kernel
from .families import FAMILIES
from .names import field_name
from .tables import Tables, number, rows

SIGNATURE = "const model_inputs *in, model_outputs *out"
ALIGN = 8  # of NN_ALIGNED


@dataclass(frozen=True)
class Source:
    """model.c, the lines of assembly by family, the tables, and the kernel files that these include."""

    text: str
    assembled: Mapping[str, dict[str, None]]
    tables: Tables
    kernels: tuple[str, ...]


def source(graph: Graph, plan: Plan, banner: str, instance: bool = False) -> Source:
    """With `instance` the model writes no memory but what its caller gives it: `self`, beside in and out."""
    tables = Tables(plan)
    context = Context(graph, plan, check_with_ranges(graph), tables, instance)
    found = functions(graph, plan)
    bodies = [_function(f, context) for f in found]  # first: they ask for the tables
    headers = sorted(
        {kernel(head(f.ops), plan) for f in found if f.ops}
        | ({"nn_move.h"} if graph.states or copies(graph) else set())
    )
    parts = [
        banner,
        "\n".join([*_wants(graph), '#include "model_debug.h"', *(f'#include "kernels/{h}"' for h in headers)]),
        "" if instance else _memory(graph, plan),
        "\n".join(context.declared.values()),
        initial_states(graph) if instance else _states(graph, tables),
        tables.text(),
        *bodies,
        _run(found, context),
        _debug(graph, plan, context),
    ]
    headers += [FAMILIES[name].SOURCE for name in context.assembled]
    return Source("\n\n".join(filter(None, parts)) + "\n", context.assembled, tables, tuple(headers))


def _wants(graph: Graph) -> list[str]:
    """What kernels have only where a model needs it."""
    return ["#define NN_INTERPOLATES"] if any(isinstance(op, ops.Interpolate) for op in graph.ops) else []


def _memory(graph: Graph, plan: Plan) -> str:
    lines = []
    if plan.arena_bytes:
        lines.append("static uint8_t model_arena[MODEL_ARENA_BYTES] NN_ALIGNED;")
        lines.append(f"typedef char model_arena_is_exact[sizeof(model_arena) == {plan.arena_bytes} ? 1 : -1];")
    return "\n".join(lines)


def waiting(graph: Graph, plan: Plan) -> tuple[State, ...]:
    """States that become another state's value: copied aside first, for that one may have changed by then."""
    names = {s.input.name for s in graph.states}
    return tuple(
        s
        for s in graph.states
        if plan.place(s.output.name)[0] in names and plan.place(s.output.name) != plan.place(s.input.name)
    )


def state_values(graph: Graph) -> str:
    """The type of the states' values."""
    lines = ["typedef struct {"]
    for s in graph.states:
        aligned = f" __attribute__((aligned({ALIGN})))" if nbytes(s.input) >= WORDS else ""
        lines.append(f"    {ctype(s.input.qtype)} {field_name(s.input.name)}[{s.input.size}]{aligned};")
    return "\n".join([*lines, "} model_state_values;"])


def _initial(graph: Graph) -> str:
    values = []
    for s in graph.states:
        data = s.initial.array.ravel().tolist()
        text = "0" if not any(data) else "\n" + rows(map(number, data), "        ") + "\n    "
        values.append(f"    .{field_name(s.input.name)} = {{{text}}},")
    return "{\n" + "\n".join(values) + "\n}"


def initial_states(graph: Graph) -> str:
    return f"static const model_state_values model_initial_states = {_initial(graph)};" if graph.states else ""


def _states(graph: Graph, tables: Tables) -> str:
    if not graph.states:
        return ""
    lines = [state_values(graph), "", initial_states(graph)]
    lines.append(f"static model_state_values model_states = {_initial(graph)};")
    if waiting(graph, tables.plan):
        lines.append("static model_state_values model_next_states;")
    return "\n".join(lines)


def _locals(f: Function, text: str, c: Context) -> list[str]:
    """Names of memory that a body uses: the instance's, and the part of the arena that its kernel needs while it runs."""
    lines = []
    scratch = "model_scratch" in text
    if c.instance and (scratch or "model_arena" in text):
        lines.append(f"    uint8_t *const model_arena = __builtin_assume_aligned(self->memory, {ALIGN});")
    if scratch:
        at = c.plan.scratch_at[head(f.ops).output.name]
        lines.append(f"    nn_s16 *const model_scratch = (nn_s16 *)(void *)(model_arena + {at});")
    return lines


def _function(f: Function, c: Context) -> str:
    body = call(f, c) if f.ops else _finish(c)
    text = "\n".join(f"    {line}" for line in body)
    local = _locals(f, text, c)
    used = "\n".join([*local, text])
    unused = [f"    (void){arg};" for arg in (*c.self, "in", "out") if f"{arg}->" not in used]
    names = " -> ".join(f"%{op.output.name}" for op in f.ops) or "copies to outputs and states"
    return "\n".join(
        [
            f"/* {f.kind}: {names} */",
            f"static NN_FUNCTION void {f.symbol}({c.takes}{SIGNATURE}) {{",
            *unused,
            *local,
            text,
            "}",
        ]
    )


def _finish(c: Context) -> list[str]:
    """Outputs first, while states are still what the inference read."""
    lines = [line for t in copies(c.graph) for line in _copy(t, c.at(t), f"out->{field_name(t.name)}")]
    aside = waiting(c.graph, c.plan)
    for s in aside:
        lines += _copy(s.input, c.at(s.output), f"{c.next_states}.{field_name(s.input.name)}")
    for s in c.graph.states:
        name = field_name(s.input.name)
        if s not in aside and c.plan.place(s.output.name) != c.plan.place(s.input.name):
            lines += _copy(s.input, c.at(s.output), f"{c.states}.{name}")
    for s in aside:
        lines += _copy(s.input, f"{c.next_states}.{field_name(s.input.name)}", f"{c.states}.{field_name(s.input.name)}")
    return lines


def _copy(tensor: Tensor, x: str, y: str) -> list[str]:
    return [f"nn_copy({x}, {y}, {nbytes(tensor)});"]


def _run(found: tuple[Function, ...], c: Context) -> str:
    given = f"{c.takes}{SIGNATURE}"
    lines = [f"void model_run({given}) {{"]
    lines += [f"    {f.symbol}({c.passes}in, out);" for f in found]
    lines += ["}", "", f"void model_op({c.takes}uint32_t k, {SIGNATURE}) {{", "    switch (k) {"]
    lines += [f"    case {f.index}: {f.symbol}({c.passes}in, out); break;" for f in found]
    lines += ["    default: break;", "    }", "}", ""]
    lines += [
        f"void model_run_until({given}, uint32_t stop) {{",
        "    for (uint32_t k = 0; k < stop && k < MODEL_OPS; k++) {",
        f"        model_op({c.passes}k, in, out);",
        "    }",
        "}",
    ]
    return "\n".join(lines)


def _debug(graph: Graph, plan: Plan, c: Context) -> str:
    reset = f"    nn_copy(&model_initial_states, &{c.states}, sizeof({c.states}));\n" if graph.states else ""
    lines = []
    if c.instance:
        reset = reset or "    (void)self;\n"
        lines = ["void model_init(model_instance *self, void *memory) {", "    self->memory = memory;"]
        lines += ["    model_reset_state(self);", "}", ""]
    lines += [f"void model_reset_state({c.takes.removesuffix(', ') or 'void'}) {{\n{reset}}}", ""]
    before = f"const {c.takes}" if c.instance else ""
    lines += [
        f"uint32_t model_tensor_get({before}uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *t) {{",
        *(["    (void)self;"] if c.instance else []),
        "    switch (index) {",
    ]
    for slot in tensors(graph, plan):
        name = field_name(slot.name)
        base = {
            "input": f"in->{name}",
            "output": f"out->{name}",
            "state": f"{c.states}.{name}",
            "arena": f"{'self->memory' if c.instance else 'model_arena'} + {plan.arena.get(slot.name)}",
        }[slot.role]
        lines.append(f"    case {slot.index}: t->data = {base}; t->bytes = {slot.bytes}; break; /* %{slot.name} */")
    lines += ["    default: return 0;", "    }", "    return 1;", "}"]
    return "\n".join(lines)
