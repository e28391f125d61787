"""model.h, the API for somebody's own firmware, and model_debug.h, what the protocol needs beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from toolchain.ir import Graph, Tensor
from toolchain.layout import ctype, functions
from toolchain.passes.plan import Plan

from .names import check_names, field_name, macro_name
from .source import state_values, waiting
from .tables import INT64, number, rows


def header(graph: Graph, plan: Plan, banner: str, instance: bool = False) -> str:
    """With `instance` for models that write no memory but what each instance is given."""
    check_names("input", graph.inputs)
    check_names("output", graph.outputs)
    check_names("state", [s.input for s in graph.states], macros=False)
    digest = graph.digest()
    digest_bytes = ", ".join(f"0x{digest[i : i + 2]}" for i in range(0, 64, 2))
    notes = "".join(f"\n * note: {note.replace('*/', '* /').replace('/*', '/ *')}" for note in graph.notes)
    reset = (
        "Needed only to begin anew: at first states have"
        if graph.states
        else "Does nothing here: this model keeps no state. Where there are states they get back"
    )
    use, where = (_USE_INSTANCE, _WHERE_INSTANCE) if instance else (_USE, _WHERE)
    return f"""{banner}

/* A quantized model as plain C99: no heap, no float, no libc. Compile model.c and include this.
{use}
 * Fields hold stored integers, channels last: real = scale * (stored - zero_point). Values of inputs must lie within
 * MODEL_INPUT_<NAME>_MIN and _MAX. {where}{notes} */
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define MODEL_NAME "{graph.name}"
#define MODEL_GRAPH_DIGEST "{digest}" /* of what the model computes, on every board */
#define MODEL_GRAPH_DIGEST_BYTES {{ \\
{rows(digest_bytes.split(", ")).rstrip(",").replace(chr(10), f" {chr(92)}{chr(10)}")} }}
#define MODEL_ARENA_BYTES {plan.arena_bytes} /* RAM that an inference works in, beside inputs, outputs and states */

{_struct("model_inputs", graph.inputs)}

{_struct("model_outputs", graph.outputs)}

{_instance(graph, plan) if instance else ""}/* One inference: reads *in, writes every field of *out, and moves the states on. */
void model_run({"model_instance *self, " if instance else ""}const model_inputs *in, model_outputs *out);

/* {reset} their initial values. */
void model_reset_state({"model_instance *self" if instance else "void"});

/* Real to stored: nearest, halves to even as in `bitwright simulate`, clamped; and stored to real. For the caller's own
 * code: nothing in model.c uses floating point. */
static inline int64_t model_quantize(double steps, int64_t zero_point, int64_t min, int64_t max) {{
    int64_t whole;
    double rest;
    if (!(steps > (double)(min - zero_point))) {{
        return min;
    }}
    if (steps >= (double)(max - zero_point)) {{
        return max;
    }}
    whole = (int64_t)steps;
    rest = steps - (double)whole;
    if (rest > 0.5 || (rest == 0.5 && whole % 2 != 0)) {{
        whole++;
    }} else if (rest < -0.5 || (rest == -0.5 && whole % 2 != 0)) {{
        whole--;
    }}
    return whole + zero_point;
}}
#define MODEL_QUANTIZE(real, scale, zero_point, min, max) model_quantize((real) / (scale), zero_point, min, max)
#define MODEL_DEQUANTIZE(stored, scale, zero_point) ((scale) * (double)((stored) - (zero_point)))

{chr(10).join([*(_constants("INPUT", t) for t in graph.inputs), *(_constants("OUTPUT", t) for t in graph.outputs)])}
#ifdef __cplusplus
}}
#endif
#endif
"""


_USE = """ *     model_inputs in = {...};  model_outputs out;
 *     model_run(&in, &out);"""
_WHERE = "The arena and the states are static: one inference at a time."
_USE_INSTANCE = """ *     static uint64_t memory[(MODEL_MEMORY_BYTES + 7) / 8];  static model_instance self;
 *     model_inputs in = {...};  model_outputs out;
 *     model_init(&self, memory);
 *     model_run(&self, &in, &out);"""
_WHERE_INSTANCE = """Nothing is written but *self,
 * its memory and *out: instances with memory of their own may run at once, and those that never do may share one."""


def _instance(graph: Graph, plan: Plan) -> str:
    states = f"{state_values(graph)}\n\n" if graph.states else ""
    fields = ["uint8_t *memory; /* nothing in it is kept from one inference to the next */"]
    fields += ["model_state_values states;"] if graph.states else []
    fields += ["model_state_values next_states;"] if waiting(graph, plan) else []
    lines = "\n".join(f"    {field}" for field in fields)
    return f"""#define MODEL_MEMORY_BYTES MODEL_ARENA_BYTES

{states}typedef struct {{
{lines}
}} model_instance;

/* A new instance, its states at their initial values. memory: MODEL_MEMORY_BYTES at a multiple of 8. */
void model_init(model_instance *self, void *memory);

"""


def debug_header(graph: Graph, plan: Plan, banner: str, instance: bool = False) -> str:
    takes = "model_instance *self, " if instance else ""
    return f"""{banner}

/* What the firmware's protocol needs beyond model.h; a product does not include this. */
#ifndef MODEL_DEBUG_H
#define MODEL_DEBUG_H
#include "model.h"

#define MODEL_OPS {len(functions(graph, plan))} /* generated functions: an op, or several fused into one */

/* Runs functions 0 to stop - 1, and function k alone. */
void model_run_until({takes}const model_inputs *in, model_outputs *out, uint32_t stop);
void model_op({takes}uint32_t k, const model_inputs *in, model_outputs *out);

typedef struct {{
    const void *data;
    uint32_t bytes;
}} model_tensor;

/* Where a tensor lies (inputs, outputs, states, then the arena's in the order they are made); 0 where there is none. */
uint32_t model_tensor_get({f"const {takes}" if instance else ""}uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *t);
#endif
"""


def _struct(name: str, tensors: Sequence[Tensor]) -> str:
    lines = [
        f"    {ctype(t.qtype)} {field_name(t.name)}[{t.size}]; /* {t.qtype.text} [{', '.join(map(str, t.shape))}] */"
        for t in tensors
    ]
    return "\n".join(["typedef struct {", *lines, f"}} {name};"])


def _constants(role: str, tensor: Tensor) -> str:
    q, at = tensor.qtype, f"MODEL_{role}_{macro_name(tensor.name)}"
    lines = [f"#define {at}_SIZE {tensor.size}"]
    if len(q.scales) == 1:
        scale = q.scales[0]
        lines += [
            f"#define {at}_SCALE_NUM {_whole(scale.numerator)}",
            f"#define {at}_SCALE_DEN {_whole(scale.denominator)}",
            f"#define {at}_SCALE {_real(scale)}",
        ]
    else:  # one for each channel, as initialisers
        lines += [
            f"#define {at}_SCALE_NUMS {{{', '.join(_whole(s.numerator) for s in q.scales)}}}",
            f"#define {at}_SCALE_DENS {{{', '.join(_whole(s.denominator) for s in q.scales)}}}",
            f"#define {at}_SCALES {{{', '.join(map(_real, q.scales))}}}",
        ]
    lines += [
        f"#define {at}_ZERO_POINT {_in_brackets(q.zero_point)}",
        f"#define {at}_MIN {_in_brackets(q.min)}",
        f"#define {at}_MAX {_in_brackets(q.max)}",
    ]
    if role == "INPUT":
        macro, call, arg = "QUANTIZE", f"{at}_ZERO_POINT, {at}_MIN, {at}_MAX", "real"
    else:
        macro, call, arg = "DEQUANTIZE", f"{at}_ZERO_POINT", "stored"
    if len(q.scales) == 1:
        lines.append(f"#define {at}_{macro}({arg}) MODEL_{macro}({arg}, {at}_SCALE, {call})")
    else:
        lines.append(f"#define {at}_{macro}({arg}, scale) MODEL_{macro}({arg}, scale, {call})")
    return "\n".join(lines) + "\n"


def _in_brackets(value: int) -> str:
    """An integer constant that keeps its sign in any expression."""
    return f"({number(value)})" if value < 0 else number(value)


def _whole(value: int) -> str:
    """An integer constant, or beyond 64 bits the double nearest to it."""
    return number(value) if value <= INT64[1] else f"{value}.0"


def _real(scale: Fraction) -> str:
    return repr(scale.numerator / scale.denominator) if scale.denominator != 1 else f"{scale.numerator}.0"
