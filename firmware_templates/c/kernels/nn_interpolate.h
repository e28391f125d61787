/* y = output_offset + round((line from table[i] to table[i + 1] at x) / 2**shift), where x - min = (i << bits) + r; docs/numerics.md,
 * interpolate. The generator has proved that every value in between, and what rounding adds to it, fits 32 bits. */
#ifndef NN_INTERPOLATE_H
#define NN_INTERPOLATE_H
#include "nn.h"
#include "nn_requantize.h"

typedef struct {
    const void *table;
    nn_type type;
    int64_t min; /* the smallest value of x's type */
    int bits;    /* 2**bits values of x from one entry to the next */
    int64_t add; /* before rounding: what makes half_up and its like a floor */
    uint32_t shift;
    nn_rounding rounding;
    int64_t output_offset;
} nn_interpolate_args;

NN_INLINE int32_t nn_interpolate(int64_t x, nn_interpolate_args a) {
    const uint32_t at = (uint32_t)x - (uint32_t)a.min;
    const size_t i = (size_t)(at >> a.bits);
    const uint32_t here = nn_load_low(a.table, i, a.type), next = nn_load_low(a.table, i + 1, a.type);
    const uint32_t line = (here << a.bits) + (next - here) * (at & (((uint32_t)1 << a.bits) - 1)) + (uint32_t)a.add;
    return nn_round32((int32_t)line, a.shift, a.rounding) + (int32_t)a.output_offset;
}
#endif
