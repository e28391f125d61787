/* The network of the simulated core, through model.h and model_debug.h: of the C back end's model.c, or of anything else
 * that has the same interface. */
#include "core.h"

#include "design.h"
#include "model.h"
#include "model_debug.h"

static model_inputs inputs;
static model_outputs outputs;

/* The byte `at` of tensors that follow one another, `first` the number of the first of them. */
static unsigned char *byte_of(uint32_t first, uint32_t at) {
    model_tensor tensor = {0, 0};
    for (uint32_t k = first; model_tensor_get(k, &inputs, &outputs, &tensor); k++) {
        if (at < tensor.bytes) {
            return (unsigned char *)tensor.data + at;
        }
        at -= tensor.bytes;
    }
    return (unsigned char *)0; /* design.vh and model.h disagree: better to stop here */
}

void core_put(int at, char value) { *byte_of(0, (uint32_t)at) = (unsigned char)value; }
void core_run(void) { model_run(&inputs, &outputs); }
char core_get(int at) { return (char)*byte_of(DESIGN_INPUTS, (uint32_t)at); }
