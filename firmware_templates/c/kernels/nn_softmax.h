/* TensorFlow Lite Micro's integer softmax over the last axis; docs/numerics.md, softmax, has each step.
 *
 * Exponentials come from a table of 256 entries in Q0.31, one for each distance from the largest of the row, and are read
 * twice rather than kept, so that a row needs no memory. Their sum is turned into a reciprocal by Newton's steps: there is no
 * division. An element is read before its place is written and no row is read again, so y may lie over x. */
#ifndef NN_SOFTMAX_H
#define NN_SOFTMAX_H
#include "nn.h"

/* The high half of the doubled product, halves up. */
NN_INLINE int32_t nn_high_product(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* 2**61 / d in Q0.31, for d in 2**30 .. 2**31 - 1: x in Q2.29 starts at 48/17 - 32/17 d, and x += x (1 - d x) three times. */
NN_INLINE int32_t nn_reciprocal(int32_t d) {
    int32_t x = 1515870810 + nn_high_product(d, -1010580540);
    for (int step = 0; step < 3; step++) {
        x += nn_high_product(x, ((int32_t)1 << 29) - nn_high_product(d, x)) * 4;
    }
    return x < (int32_t)1 << 30 ? x * 2 : INT32_MAX;
}

NN_INLINE void nn_softmax(const void *x, nn_type x_type, void *y, nn_type y_type, const int32_t *table, size_t rows, size_t channels) {
    const int32_t bits = y_type == NN_S8 ? 8 : 16, top = ((int32_t)1 << bits) - 1, zero = (int32_t)1 << (bits - 1);
    for (size_t row = 0; row < rows; row++) {
        int32_t largest = (int32_t)nn_load(x, 0, x_type);
        for (size_t c = 1; c < channels; c++) {
            const int32_t value = (int32_t)nn_load(x, c, x_type);
            largest = value > largest ? value : largest;
        }
        uint32_t sum = 0; /* check has proved that it is 2**19 .. 2**31 - 1 */
        for (size_t c = 0; c < channels; c++) {
            sum += ((uint32_t)NN_ELEMENT(int32_t, table, (size_t)(largest - (int32_t)nn_load(x, c, x_type))) + 2048) >> 12;
        }
        int32_t shift = 42 - bits;
        for (; sum < (uint32_t)1 << 30; sum <<= 1) {
            shift--;
        }
        const int32_t reciprocal = nn_reciprocal((int32_t)sum);
        for (size_t c = 0; c < channels; c++) {
            const int32_t e = NN_ELEMENT(int32_t, table, (size_t)(largest - (int32_t)nn_load(x, c, x_type)));
            const uint32_t product = (uint32_t)nn_high_product(reciprocal, e);
            /* beyond 31 even the largest product is less than half a step */
            const int32_t value = shift > 31 ? 0 : (int32_t)((product + ((uint32_t)1 << (shift - 1))) >> shift);
            nn_store(y, c, (value > top ? top : value) - zero, y_type);
        }
        x = nn_at(x, channels, x_type);
        y = (nn_u8 *)y + channels * nn_size(y_type);
    }
}
#endif
