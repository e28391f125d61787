/* Sums of products whose weights lie in flash as toolchain/forms/stored.py stores them: streams of digits, tables of values, zeros left
 * out. A row of weights is decoded when its turn comes, into memory of its own, and serves every position of the output; then it is as
 * in the general kernels. So outputs of a convolution are written channel by channel. */
#ifndef NN_STORED_H
#define NN_STORED_H
#include "nn_conv.h"
#include "nn_dense.h"
#include "nn_depthwise.h"

typedef struct {
    uint32_t levels, digits, bits; /* a group of `bits` bits holds `digits` numbers below `levels` */
    int32_t low, step;             /* a number means low + step * number, where there is no table */
    const void *table;
    nn_type table_type;
    uint32_t each; /* entries from the table of a row to the next: 0 where one serves all */
    enum { NN_ALL_VALUES, NN_BITMAP, NN_INDEX } zeros;
    uint32_t gap;  /* bits of a count of zeros */
    nn_type type;  /* of a decoded weight */
} nn_stored_form;

/* Where reading is: bytes that follow, bits that were read and not yet used, numbers left of a group, zeros before the next value. */
typedef struct {
    const nn_u8 *from;
    uint32_t bits, have, group, left, zeros;
    int value; /* whether one follows the zeros */
} nn_stored_reader;

NN_INLINE nn_stored_reader nn_stored_start(const void *from) {
    const nn_stored_reader r = {(const nn_u8 *)from, 0, 0, 0, 0, 0, 0};
    return r;
}

/* The next n bits, of 1 to 24. */
NN_INLINE uint32_t nn_stored_take(nn_stored_reader *r, uint32_t n) {
    while (r->have < n) {
        r->bits |= (uint32_t)*r->from++ << r->have;
        r->have += 8;
    }
    const uint32_t found = r->bits & ((1u << n) - 1);
    r->bits >>= n;
    r->have -= n;
    return found;
}

NN_INLINE int32_t nn_stored_value(nn_stored_reader *r, const void *table, nn_stored_form f) {
    uint32_t number;
    if (f.digits == 1 && f.bits == 8 && f.zeros == NN_ALL_VALUES) { /* nothing is ever left over */
        number = *r->from++;
    } else if (f.digits == 1) {
        number = nn_stored_take(r, f.bits);
    } else {
        if (r->left == 0) {
            r->group = f.bits == 8 ? *r->from++ : nn_stored_take(r, f.bits);
            r->left = f.digits;
        }
        number = r->group % f.levels;
        r->group /= f.levels;
        r->left--;
    }
    return f.table ? (int32_t)nn_load(table, number, f.table_type) : f.low + f.step * (int32_t)number;
}

/* The n weights of row o. */
NN_INLINE void nn_stored_row(void *row, size_t n, size_t o, nn_stored_reader *reader, nn_stored_form f) {
    const void *table = f.table ? nn_at(f.table, o * f.each, f.table_type) : 0;
    nn_stored_reader r = *reader; /* in registers */
    for (size_t i = 0; i < n; i++) {
        int32_t value = 0;
        if (f.zeros == NN_ALL_VALUES) {
            value = nn_stored_value(&r, table, f);
        } else if (f.zeros == NN_BITMAP) {
            value = nn_stored_take(&r, 1) != 0 ? nn_stored_value(&r, table, f) : 0;
        } else {
            if (r.zeros == 0 && !r.value) {
                r.zeros = nn_stored_take(&r, f.gap);
                r.value = r.zeros != (1u << f.gap) - 1;
            }
            if (r.zeros != 0) {
                r.zeros--;
            } else {
                value = nn_stored_value(&r, table, f);
                r.value = 0;
            }
        }
        nn_store(row, i, value, f.type);
    }
    *reader = r;
}

NN_INLINE void nn_dense_stored(const void *x, const void *w, nn_param bias, void *y, nn_dense_shape d, nn_stages stages, nn_stored_form f,
                               void *row) {
    nn_stored_reader r = nn_stored_start(w);
    for (size_t o = 0; o < d.out; o++) {
        nn_stored_row(row, d.in, o, &r, f);
        for (size_t k = 0; k < d.rows; k++) {
            nn_sum sum = nn_start(nn_get(bias, o), d.wide);
            sum = nn_dot(sum, nn_at(x, k * d.in, d.x_type), 1, d.x_type, 0, row, 1, d.w_type, d.in, d.wide);
            nn_put(y, k * d.out + o, nn_total(sum, d.wide), o, stages);
        }
    }
}

NN_INLINE void nn_conv_stored(const void *x, const void *w, nn_param bias, void *y, nn_conv_shape s, nn_stages stages, nn_stored_form f,
                              void *row) {
    nn_stored_reader r = nn_stored_start(w);
    for (int32_t o = 0; o < s.out_c; o++) {
        nn_stored_row(row, (size_t)(s.k_h * s.k_w * (s.in_c / s.groups)), (size_t)o, &r, f);
        size_t at = (size_t)o;
        for (int32_t oh = 0; oh < s.out_h; oh++) {
            const int32_t h = oh * s.stride_h - s.top;
            const int32_t h0 = s.padded ? nn_first_tap(h, s.dilation_h) : 0;
            const int32_t h1 = s.padded ? nn_end_tap(h, s.k_h, s.dilation_h, s.in_h) : s.k_h;
            for (int32_t ow = 0; ow < s.out_w; ow++) {
                const int32_t v = ow * s.stride_w - s.left;
                const nn_sum sum = nn_conv_window(nn_start(nn_get(bias, (size_t)o), s.wide), x, row, o, h, h0, h1, v, s);
                nn_put(y, at, nn_total(sum, s.wide), (size_t)o, stages);
                at += (size_t)s.out_c;
            }
        }
    }
}

/* Few weights: all of them at once. */
NN_INLINE void nn_depthwise_stored(const void *x, const void *w, nn_param bias, void *y, nn_conv_shape s, nn_stages stages, nn_stored_form f,
                                   void *row) {
    nn_stored_reader r = nn_stored_start(w);
    nn_stored_row(row, (size_t)(s.k_h * s.k_w * s.out_c), 0, &r, f);
    nn_depthwise(x, row, bias, y, s, stages);
}
#endif
