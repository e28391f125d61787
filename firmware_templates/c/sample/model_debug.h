/* For the firmware's protocol, not for users: ops one by one and tensors by number.
 * Numbers: inputs, then outputs, then states, then arena tensors in op order. */
#ifndef MODEL_DEBUG_H
#define MODEL_DEBUG_H
#include "model.h"

#define MODEL_OPS 3u

typedef struct {
    const void *data;
    uint32_t bytes;
} model_tensor;

void model_run_until(const model_inputs *in, model_outputs *out, uint32_t stop); /* ops [0, stop) */
void model_op(uint32_t k, const model_inputs *in, model_outputs *out);
/* 1 and the tensor's memory, or 0; inputs and outputs are the caller's */
uint32_t model_tensor_get(uint32_t index, const model_inputs *in, const model_outputs *out, model_tensor *tensor);

#endif
