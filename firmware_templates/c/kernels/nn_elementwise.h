/* One value of the output from one or two values of the inputs at the same place. Outputs are written in rising order,
 * each after its inputs were read: y may lie where an input of the same shape and no narrower a type lies. */
#ifndef NN_ELEMENTWISE_H
#define NN_ELEMENTWISE_H
#include "nn_stages.h"

/* y[i] = stages(x[i]); `channels` is the last axis where a stage has tables by channel, else the whole. */
NN_INLINE void nn_map(const void *x, nn_type x_type, void *y, size_t rows, size_t channels, nn_stages stages) {
    for (size_t row = 0; row < rows; row++) {
        for (size_t c = 0; c < channels; c++) {
            nn_put(y, row * channels + c, nn_load(x, row * channels + c, x_type), c, stages);
        }
    }
}

typedef enum { NN_ADD, NN_SUB, NN_MULTIPLY } nn_binary_kind;

#define NN_BINARY_AXES 4

typedef struct {
    nn_binary_kind kind;
    size_t size[NN_BINARY_AXES], a_step[NN_BINARY_AXES], b_step[NN_BINARY_AXES]; /* step 0 repeats */
    nn_type a_type, b_type;
    nn_lookup_args a_lookup, b_lookup; /* what becomes of each operand first; a table of NULL: nothing */
    int64_t a_zero, b_zero; /* zero points, for multiply */
    int wide;               /* the result needs int64 */
} nn_binary_shape;

NN_INLINE int64_t nn_operand(const void *x, size_t i, nn_type type, nn_lookup_args a) {
    return a.table ? nn_lookup(nn_load(x, i, type), a) : nn_load(x, i, type);
}

NN_INLINE uint32_t nn_operand_low(const void *x, size_t i, nn_type type, nn_lookup_args a) {
    return a.table ? nn_load_low(a.table, (size_t)(nn_load_low(x, i, type) - (uint32_t)a.min), a.type) : nn_load_low(x, i, type);
}

/* Modulo 2**32 or 2**64, which is exact: the generator has proved that the result fits. */
NN_INLINE int64_t nn_binary_value(const void *a, size_t i, const void *b, size_t j, nn_binary_shape s) {
    if (s.wide) {
        const uint64_t p = (uint64_t)nn_operand(a, i, s.a_type, s.a_lookup), q = (uint64_t)nn_operand(b, j, s.b_type, s.b_lookup);
        const uint64_t product = (p - (uint64_t)s.a_zero) * (q - (uint64_t)s.b_zero);
        return (int64_t)(s.kind == NN_ADD ? p + q : s.kind == NN_SUB ? p - q : product);
    }
    const uint32_t p = nn_operand_low(a, i, s.a_type, s.a_lookup), q = nn_operand_low(b, j, s.b_type, s.b_lookup);
    const uint32_t product = (p - (uint32_t)s.a_zero) * (q - (uint32_t)s.b_zero);
    return (int32_t)(s.kind == NN_ADD ? p + q : s.kind == NN_SUB ? p - q : product);
}

NN_INLINE void nn_binary(const void *a, const void *b, void *y, nn_binary_shape s, nn_stages stages) {
    size_t at = 0;
    for (size_t i = 0; i < s.size[0]; i++) {
        for (size_t j = 0; j < s.size[1]; j++) {
            for (size_t k = 0; k < s.size[2]; k++) {
                const size_t p = i * s.a_step[0] + j * s.a_step[1] + k * s.a_step[2];
                const size_t q = i * s.b_step[0] + j * s.b_step[1] + k * s.b_step[2];
                for (size_t c = 0; c < s.size[3]; c++) {
                    nn_put(y, at++, nn_binary_value(a, p + c * s.a_step[3], b, q + c * s.b_step[3], s), c, stages);
                }
            }
        }
    }
}
#endif
