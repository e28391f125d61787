/* A hand-written stand-in for a generated model, so that the firmware compiles and is tested alone.
 *   mixed = sum(x[i] * (i+1)) + 1 for each y lane, stirred `rounds` times;  y = mixed + total;  total = y */
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>

#define MODEL_GRAPH_DIGEST "5a3d1e00c0ffee0000000000000000000000000000000000000000000000beef"
#define MODEL_ARENA_BYTES 16

typedef struct {
    int8_t x[300];
    uint32_t rounds[1];
} model_inputs;

typedef struct {
    int32_t y[4];
} model_outputs;

void model_run(const model_inputs *in, model_outputs *out);
void model_reset_state(void);

#endif
