"""model.c: tables, one function for each op or fused group, and one straight list of calls."""

from __future__ import annotations

from toolchain.ir import Graph, State, Tensor
from toolchain.ir.check import check_with_ranges
from toolchain.layout import WORDS, Function, copies, ctype, functions, head, nbytes, tensors
from toolchain.passes.plan import Plan

from .calls import Context, call, kernel
from .families import FAMILIES, assembly
from .names import field_name
from .tables import Tables, number, rows

SIGNATURE = "(const model_inputs *in, model_outputs *out)"


def source(graph: Graph, plan: Plan, banner: str) -> tuple[dict[str, str], Tables, tuple[str, ...]]:
    """The texts of model.c and of the assembly beside it, the tables, and the kernel files that they include."""
    tables = Tables(plan)
    context = Context(graph, plan, check_with_ranges(graph), tables)
    found = functions(graph, plan)
    bodies = [_function(f, context) for f in found]  # first: they ask for the tables
    headers = sorted(
        {kernel(head(f.ops), plan) for f in found if f.ops}
        | ({"nn_move.h"} if graph.states or copies(graph) else set())
    )
    parts = [
        banner,
        "\n".join(['#include "model_debug.h"', *(f'#include "kernels/{h}"' for h in headers)]),
        _memory(graph, plan),
        "\n".join(context.declared.values()),
        _states(graph, tables),
        tables.text(),
        *bodies,
        _run(found),
        _debug(graph, plan, found),
    ]
    texts = {"model.c": "\n\n".join(filter(None, parts)) + "\n"}
    texts |= assembly(context.assembled, banner)
    headers += [FAMILIES[name].SOURCE for name in context.assembled]
    return texts, tables, tuple(headers)


def _memory(graph: Graph, plan: Plan) -> str:
    lines = []
    if plan.arena_bytes:
        lines.append("static uint8_t model_arena[MODEL_ARENA_BYTES] NN_ALIGNED;")
        lines.append(f"typedef char model_arena_is_exact[sizeof(model_arena) == {plan.arena_bytes} ? 1 : -1];")
    if plan.scratch_bytes:
        lines.append(f"static nn_s16 model_scratch[{-(-plan.scratch_bytes // 2)}] NN_ALIGNED;")
    return "\n".join(lines)


def waiting(graph: Graph, plan: Plan) -> tuple[State, ...]:
    """States that become another state's value: copied aside first, for that one may have changed by then."""
    names = {s.input.name for s in graph.states}
    return tuple(
        s
        for s in graph.states
        if plan.place(s.output.name)[0] in names and plan.place(s.output.name) != plan.place(s.input.name)
    )


def _states(graph: Graph, tables: Tables) -> str:
    if not graph.states:
        return ""
    lines = ["typedef struct {"]
    for s in graph.states:
        aligned = " NN_ALIGNED" if nbytes(s.input) >= WORDS else ""
        lines.append(f"    {ctype(s.input.qtype)} {field_name(s.input.name)}[{s.input.size}]{aligned};")
    lines += ["} model_state_values;", ""]
    values = []
    for s in graph.states:
        data = s.initial.array.ravel().tolist()
        text = "0" if not any(data) else "\n" + rows(map(number, data), "        ") + "\n    "
        values.append(f"    .{field_name(s.input.name)} = {{{text}}},")
    initial = "{\n" + "\n".join(values) + "\n}"
    lines.append(f"static const model_state_values model_initial_states = {initial};")
    lines.append(f"static model_state_values model_states = {initial};")
    if waiting(graph, tables.plan):
        lines.append("static model_state_values model_next_states;")
    return "\n".join(lines)


def _function(f: Function, c: Context) -> str:
    body = call(f, c) if f.ops else _finish(c)
    text = "\n".join(f"    {line}" for line in body)
    unused = [f"    (void){arg};" for arg in ("in", "out") if f"{arg}->" not in text]
    names = " -> ".join(f"%{op.output.name}" for op in f.ops) or "copies to outputs and states"
    return "\n".join(
        [f"/* {f.kind}: {names} */", f"static NN_FUNCTION void {f.symbol}{SIGNATURE} {{", *unused, text, "}"]
    )


def _finish(c: Context) -> list[str]:
    """Outputs first, while states are still what the inference read."""
    lines = [line for t in copies(c.graph) for line in _copy(t, c.at(t), f"out->{field_name(t.name)}")]
    aside = waiting(c.graph, c.plan)
    for s in aside:
        lines += _copy(s.input, c.at(s.output), f"model_next_states.{field_name(s.input.name)}")
    for s in c.graph.states:
        name = field_name(s.input.name)
        if s not in aside and c.plan.place(s.output.name) != c.plan.place(s.input.name):
            lines += _copy(s.input, c.at(s.output), f"model_states.{name}")
    for s in aside:
        lines += _copy(
            s.input, f"model_next_states.{field_name(s.input.name)}", f"model_states.{field_name(s.input.name)}"
        )
    return lines


def _copy(tensor: Tensor, x: str, y: str) -> list[str]:
    return [f"nn_copy({x}, {y}, {nbytes(tensor)});"]


def _run(found: tuple[Function, ...]) -> str:
    lines = ["void model_run(const model_inputs *in, model_outputs *out) {"]
    lines += [f"    {f.symbol}(in, out);" for f in found]
    lines += ["}", "", "void model_op(uint32_t k, const model_inputs *in, model_outputs *out) {", "    switch (k) {"]
    lines += [f"    case {f.index}: {f.symbol}(in, out); break;" for f in found]
    lines += ["    default: break;", "    }", "}", ""]
    lines += [
        "void model_run_until(const model_inputs *in, model_outputs *out, uint32_t stop) {",
        "    for (uint32_t k = 0; k < stop && k < MODEL_OPS; k++) {",
        "        model_op(k, in, out);",
        "    }",
        "}",
    ]
    return "\n".join(lines)


def _debug(graph: Graph, plan: Plan, found: tuple[Function, ...]) -> str:
    reset = "    nn_copy(&model_initial_states, &model_states, sizeof(model_states));\n" if graph.states else ""
    lines = [f"void model_reset_state(void) {{\n{reset}}}", ""]
    lines += [
        "uint32_t model_tensor_get(uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *t) {",
        "    switch (index) {",
    ]
    for slot in tensors(graph, plan):
        name = field_name(slot.name)
        base = {
            "input": f"in->{name}",
            "output": f"out->{name}",
            "state": f"model_states.{name}",
            "arena": f"model_arena + {plan.arena.get(slot.name)}",
        }[slot.role]
        lines.append(f"    case {slot.index}: t->data = {base}; t->bytes = {slot.bytes}; break; /* %{slot.name} */")
    lines += ["    default: return 0;", "    }", "    return 1;", "}"]
    return "\n".join(lines)
