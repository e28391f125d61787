/* The sample model: three ops, one state, one arena tensor. tests/sample.py says the same in Python. */
#include "model.h"

#include "model_debug.h"

static int32_t arena[MODEL_ARENA_BYTES / 4];
static int32_t total[4];

static __attribute__((noinline)) void op0(const model_inputs *in) {
    for (uint32_t lane = 0; lane < 4; lane++) {
        uint32_t sum = lane + 1u;
        for (uint32_t i = 0; i < 300; i++) {
            sum += (uint32_t)(in->x[i] * (int32_t)(i + 1u));
        }
        for (uint32_t r = 0; r < in->rounds[0]; r++) {
            sum = (sum & 1u) != 0 ? sum * 1664525u + 1013904223u : sum >> 1 ^ r;
        }
        arena[lane] = (int32_t)sum;
    }
}

static __attribute__((noinline)) void op1(model_outputs *out) {
    for (uint32_t lane = 0; lane < 4; lane++) {
        out->y[lane] = (int32_t)((uint32_t)arena[lane] + (uint32_t)total[lane]);
    }
}

static __attribute__((noinline)) void op2(const model_outputs *out) {
    for (uint32_t lane = 0; lane < 4; lane++) {
        total[lane] = out->y[lane];
    }
}

void model_reset_state(void) {
    for (uint32_t lane = 0; lane < 4; lane++) {
        total[lane] = (int32_t)lane;
    }
}

void model_run(const model_inputs *in, model_outputs *out) {
    op0(in);
    op1(out);
    op2(out);
}

void model_op(uint32_t k, const model_inputs *in, model_outputs *out) {
    switch (k) {
    case 0: op0(in); break;
    case 1: op1(out); break;
    case 2: op2(out); break;
    default: break;
    }
}

void model_run_until(const model_inputs *in, model_outputs *out, uint32_t stop) {
    for (uint32_t k = 0; k < stop && k < MODEL_OPS; k++) {
        model_op(k, in, out);
    }
}

uint32_t model_tensor_get(uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *tensor) {
    switch (index) {
    case 0: *tensor = (model_tensor){in->x, sizeof in->x}; return 1;
    case 1: *tensor = (model_tensor){in->rounds, sizeof in->rounds}; return 1;
    case 2: *tensor = (model_tensor){out->y, sizeof out->y}; return 1;
    case 3: *tensor = (model_tensor){total, sizeof total}; return 1;
    case 4: *tensor = (model_tensor){arena, sizeof arena}; return 1;
    default: return 0;
    }
}
