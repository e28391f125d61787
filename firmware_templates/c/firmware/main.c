/* The protocol loop around a generated model. It knows the model only through model.h and model_debug.h, the board only
 * through board.h, port.h and counter.h. */
#include "board.h"
#include "counter.h"
#include "model.h"
#include "model_debug.h"
#include "port.h"
#include "protocol.h"

#ifndef PROJECT_DIGEST
#error "PROJECT_DIGEST: 64 hex digits, given by the build"
#endif

static model_inputs inputs;
static model_outputs outputs;
static protocol_frame frame;

/* The reply to the last RUN: the same request asked again (its answer was lost) is answered, not run again, so that a
 * model with states advances once. HELLO starts a new session and forgets it. */
static struct {
    uint16_t seq;
    uint8_t valid;
    uint64_t ticks;
    uint32_t interrupts;
} last_run;

static uint8_t *put_hex(uint8_t *p, const char *hex) {
    for (uint32_t i = 0; i < 32; i++) {
        uint32_t byte = 0;
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t c = (uint8_t)hex[2 * i + k];
            byte = byte << 4 | (c >= 'a' ? c - 'a' + 10u : c - '0');
        }
        *p++ = (uint8_t)byte;
    }
    return p;
}

static void bad_length(void) { protocol_error(&frame, ERROR_BAD_LENGTH, "wrong payload length for this request"); }

static void hello(void) {
    uint8_t *p = protocol_payload(&frame);
    last_run.valid = 0;
    *p++ = PROTOCOL_VERSION;
    p = put_hex(p, MODEL_GRAPH_DIGEST);
    p = put_hex(p, PROJECT_DIGEST);
    *p++ = (uint8_t)counter_kind();
    p = put_u32(p, counter_hz());
    p = put_u16(p, BOARD_MAX_PAYLOAD);
    p = put_u16(p, MODEL_OPS);
    for (const char *name = BOARD_NAME; *name != 0; name++) {
        *p++ = (uint8_t)*name;
    }
    protocol_reply(&frame, (uint32_t)(p - protocol_payload(&frame)));
}

/* The part of a tensor a WRITE or READ names, or 0 after an ERROR was sent. */
static const uint8_t *find(uint32_t count) {
    const uint8_t *p = protocol_payload(&frame);
    uint32_t offset = get_u32(p + 2);
    model_tensor tensor;
    if (!model_tensor_get(get_u16(p), &inputs, &outputs, &tensor)) {
        protocol_error(&frame, ERROR_NO_SUCH_TENSOR, "no tensor of this number");
        return 0;
    }
    if (offset > tensor.bytes || count > tensor.bytes - offset) {
        protocol_error(&frame, ERROR_OUT_OF_RANGE, "reaches past the end of the tensor");
        return 0;
    }
    return (const uint8_t *)tensor.data + offset;
}

static void write_tensor(void) {
    if (frame.length < 6) {
        bad_length();
        return;
    }
    uint32_t count = frame.length - 6u;
    const uint8_t *to = find(count);
    if (to == 0) {
        return;
    }
    uintptr_t at = (uintptr_t)to - (uintptr_t)&inputs;
    if (at > sizeof inputs || count > sizeof inputs - at) { /* below the inputs `at` wraps to a large number */
        protocol_error(&frame, ERROR_NOT_WRITABLE, "only inputs can be written");
        return;
    }
    uint8_t *input = (uint8_t *)&inputs + at;
    for (uint32_t i = 0; i < count; i++) {
        input[i] = protocol_payload(&frame)[6 + i];
    }
    protocol_reply(&frame, 0);
}

static void read_tensor(void) {
    uint8_t *p = protocol_payload(&frame);
    uint32_t count = frame.length == 8 ? get_u16(p + 6) : 0;
    if (frame.length != 8 || count > BOARD_MAX_PAYLOAD) {
        bad_length();
        return;
    }
    const uint8_t *from = find(count);
    if (from == 0) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        p[i] = from[i];
    }
    protocol_reply(&frame, count);
}

static void run(void) {
    uint8_t *p = protocol_payload(&frame);
    if (frame.length != 4) {
        bad_length();
        return;
    }
    if (!last_run.valid || last_run.seq != frame.seq) {
        counter_mark begin, end;
        uint32_t stop = get_u32(p);
        if (stop >= MODEL_OPS) {
            counter_take(&begin);
            model_run(&inputs, &outputs);
            counter_take(&end);
        } else {
            counter_take(&begin);
            model_run_until(&inputs, &outputs, stop);
            counter_take(&end);
        }
        last_run.seq = frame.seq;
        last_run.valid = 1;
        last_run.ticks = counter_ticks(&begin, &end);
        last_run.interrupts = counter_interrupts(&begin, &end);
    }
    if (port_stack_overflown()) {
        protocol_error(&frame, ERROR_STACK_OVERFLOW, "the stack overflowed: outputs and counts are not to be trusted");
        return;
    }
    p = put_u64(p, last_run.ticks);
    p = put_u32(p, counter_overhead());
    p = put_u32(p, last_run.interrupts);
    p = put_u32(p, port_stack_used());
    protocol_reply(&frame, (uint32_t)(p - protocol_payload(&frame)));
}

/* From the initial state, runs the ops before `first` untimed, then times as many as fit the reply: a page asked twice (its
 * answer was lost) is the same page, though the last op moves the states on. */
static void profile(void) {
    uint8_t *start = protocol_payload(&frame), *p = start;
    if (frame.length != 2) {
        bad_length();
        return;
    }
    uint32_t first = get_u16(p);
    if (first > MODEL_OPS) {
        protocol_error(&frame, ERROR_OUT_OF_RANGE, "no op of this number");
        return;
    }
    p = put_u32(p + 2, counter_overhead());
    model_reset_state();
    model_run_until(&inputs, &outputs, first);
    for (uint32_t k = first; k < MODEL_OPS && p + 12 <= start + BOARD_MAX_PAYLOAD; k++) {
        counter_mark begin, end;
        counter_take(&begin);
        model_op(k, &inputs, &outputs);
        counter_take(&end);
        p = put_u64(p, counter_ticks(&begin, &end));
        p = put_u32(p, counter_interrupts(&begin, &end));
    }
    protocol_reply(&frame, (uint32_t)(p - start));
}

static void reset_state(void) {
    if (frame.length != 0) {
        bad_length();
        return;
    }
    model_reset_state();
    protocol_reply(&frame, 0);
}

#ifdef MODELS /* a project of several: model.h is then the one that was selected last, the first at reset */
static void select_model(void) {
    uint8_t *p = protocol_payload(&frame);
    if (frame.length != 2) {
        bad_length();
        return;
    }
    uint32_t which = get_u16(p);
    if (which >= MODELS) {
        protocol_error(&frame, ERROR_NO_SUCH_MODEL, "no model of this number");
        return;
    }
    last_run.valid = 0;
    model_select(which);
    p = put_u16(p, MODELS);
    for (const char *name = model_name(); *name != 0; name++) {
        *p++ = (uint8_t)*name;
    }
    protocol_reply(&frame, (uint32_t)(p - protocol_payload(&frame)));
}
#endif

void firmware_fault(void); /* startup code comes here, on a fresh stack, from a fault handler */
void firmware_fault(void) {
    protocol_error(&frame, ERROR_FAULT, "the processor faulted; reset the board");
    for (;;) {
    }
}

int main(void) {
    port_init();
    counter_init();
    model_reset_state();
    for (;;) {
        protocol_receive(&frame);
        switch (frame.type) {
        case MSG_HELLO: hello(); break;
        case MSG_WRITE: write_tensor(); break;
        case MSG_READ: read_tensor(); break;
        case MSG_RUN: run(); break;
        case MSG_PROFILE: profile(); break;
        case MSG_RESET_STATE: reset_state(); break;
#ifdef MODELS
        case MSG_SELECT: select_model(); break;
#endif
        default: protocol_error(&frame, ERROR_UNKNOWN_REQUEST, "unknown request"); break;
        }
    }
}
