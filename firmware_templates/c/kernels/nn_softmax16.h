/* TensorFlow Lite Micro's softmax of 16 bits over the last axis; docs/numerics.md, softmax of 16 bits, has each step.
 *
 * Exponentials and the reciprocal of their sum are read off lines between the 513 entries of two tables, in Q0.15: there is no
 * division. An exponential costs a product and an interpolation, so it is kept where its result will be, as y has 16 bits as
 * well. An element of x is read for the last time before its place is written and no row is read again, so y may lie over x. */
#ifndef NN_SOFTMAX16_H
#define NN_SOFTMAX16_H
#include "nn.h"
#include "nn_interpolate.h"
#include "nn_requantize.h"

/* The line of 0 .. 65535 through 513 entries, one for each 128. */
NN_INLINE uint32_t nn_line16(const void *table, nn_type type, uint32_t at) {
    const nn_interpolate_args a = {.table = table, .type = type, .min = 0, .bits = 7, .add = 64, .shift = 7, .rounding = NN_FLOOR};
    return (uint32_t)nn_interpolate(at, a);
}

NN_INLINE void nn_softmax16(const void *x, void *y, const void *table, nn_type table_type, const void *reciprocal, nn_type reciprocal_type,
                            int32_t multiplier, uint32_t shift, size_t rows, size_t channels) {
    for (size_t row = 0; row < rows; row++) {
        int32_t largest = (int32_t)nn_load(x, 0, NN_S16);
        for (size_t c = 1; c < channels; c++) {
            const int32_t value = (int32_t)nn_load(x, c, NN_S16);
            largest = value > largest ? value : largest;
        }
        uint32_t sum = 0; /* check has proved that it is 2 .. 2**31 - 1 */
        for (size_t c = 0; c < channels; c++) {
            const int64_t below = nn_tflm((int32_t)nn_load(x, c, NN_S16) - largest, multiplier, shift);
            const uint32_t e = nn_line16(table, table_type, below < -65535 ? 0 : (uint32_t)(65535 + below));
            nn_store(y, c, e, NN_S16);
            sum += e;
        }
        uint32_t up = 0;
        for (; sum < (uint32_t)1 << 30; sum <<= 1) {
            up++;
        }
        const uint32_t mantissa = ((sum + 8192) >> 14) - 65536; /* 0 .. 65536 */
        const uint32_t r = nn_line16(reciprocal, reciprocal_type, mantissa > 65535 ? 65535 : mantissa);
        for (size_t c = 0; c < channels; c++) { /* below 2**30 each, and half a step */
            const uint32_t value = ((uint32_t)nn_load(y, c, NN_S16) * r + ((uint32_t)1 << (29 - up))) >> (30 - up);
            nn_store(y, c, value > 32767 ? 32767 : value, NN_S16);
        }
        x = nn_at(x, channels, NN_S16);
        y = (nn_u8 *)y + channels * nn_size(NN_S16);
    }
}
#endif
