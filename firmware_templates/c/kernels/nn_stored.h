/* Sums of products whose weights lie in flash as toolchain/forms/stored.py stores them: streams of digits, tables of values, zeros left
 * out. A row of weights is decoded when its turn comes, into memory of its own, and serves every position of the output; then it is as
 * in the general kernels. So outputs of a convolution are written channel by channel. Of a dense layer with one row of x weights are
 * multiplied where they are decoded. */
#ifndef NN_STORED_H
#define NN_STORED_H
#include "nn_conv.h"
#include "nn_dense.h"
#include "nn_depthwise.h"

#if defined(__GNUC__) && !defined(__clang__)
#define NN_STORED_UNROLL _Pragma("GCC unroll 6") /* the most numbers that share a group */
#else
#define NN_STORED_UNROLL
#endif

typedef struct {
    uint32_t levels, digits, bits; /* a group of `bits` bits holds `digits` numbers below `levels` */
    int32_t low, step;             /* a number means low + step * number, where there is no table */
    const void *table;
    nn_type table_type;
    uint32_t each; /* entries from the table of a row to the next: 0 where one serves all */
    enum { NN_ALL_VALUES, NN_BITMAP, NN_INDEX } zeros;
    uint32_t gap;  /* bits of a count of zeros */
    nn_type type;  /* of a decoded weight */
    size_t bytes;  /* of the stream */
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

NN_INLINE uint32_t nn_stored_number(nn_stored_reader *r, nn_stored_form f) {
    if (f.digits == 1 && f.bits == 8 && f.zeros == NN_ALL_VALUES) { /* nothing is ever left over */
        return *r->from++;
    }
    if (f.digits == 1) {
        return nn_stored_take(r, f.bits);
    }
    if (r->left == 0) {
        r->group = f.bits == 8 ? *r->from++ : nn_stored_take(r, f.bits);
        r->left = f.digits;
    }
    const uint32_t number = r->group % f.levels;
    r->group /= f.levels;
    r->left--;
    return number;
}

NN_INLINE int32_t nn_stored_value(nn_stored_reader *r, const void *table, nn_stored_form f) {
    const uint32_t number = nn_stored_number(r, f);
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

/* What number k of eight, of so many bits, adds to a sum: x times its entry of the table, or times itself. */
NN_INLINE uint32_t nn_stored_term(uint32_t low, uint32_t high, uint32_t k, const void *x, nn_type x_type, const void *table,
                                  nn_stored_form f) {
    const uint32_t at = k * f.bits, mask = (1u << f.bits) - 1;
    uint32_t number = at >= 32 ? high >> ((at - 32) & 31) : low >> (at & 31);
    if (at < 32 && at + f.bits > 32) {
        number |= high << ((32 - at) & 31);
    }
    number &= mask;
    return nn_load_low(x, k, x_type) * (f.table ? nn_load_low(table, number, f.table_type) : number);
}

/* The sum over one row of x of weights that are used once, decoded where they are multiplied; `end`: of the stream. Without a table
 * and with every value in the stream the sum is that of x times the numbers. */
NN_INLINE uint32_t nn_stored_sum(const void *x, nn_type x_type, size_t n, size_t o, nn_stored_reader *reader, const nn_u8 *end,
                                 nn_stored_form f) {
    const void *table = f.table ? nn_at(f.table, o * f.each, f.table_type) : 0;
    nn_stored_reader r = *reader; /* in registers */
    uint32_t sum = 0;
    size_t i = 0;
    if (f.zeros == NN_INDEX) {
        while (i < n) {
            if (r.zeros == 0 && !r.value) {
                r.zeros = nn_stored_take(&r, f.gap);
                r.value = r.zeros != (1u << f.gap) - 1;
            }
            if (r.zeros >= n - i) { /* the next value is in another row */
                r.zeros -= (uint32_t)(n - i);
                break;
            }
            i += r.zeros;
            r.zeros = 0;
            if (r.value) {
                sum += nn_load_low(x, i++, x_type) * (uint32_t)nn_stored_value(&r, table, f);
                r.value = 0;
            }
        }
    } else if (f.zeros == NN_BITMAP) {
        for (; i < n; i++) {
            if (nn_stored_take(&r, 1) != 0) {
                sum += nn_load_low(x, i, x_type) * (uint32_t)nn_stored_value(&r, table, f);
            }
        }
    } else {
        if (f.digits == 1 && f.bits <= 8 && n * f.bits % 8 == 0) { /* rows begin at bytes: eight numbers are f.bits of them */
            for (; n - i >= 8 && (size_t)(end - r.from) >= 8; i += 8) {
                const void *from = nn_at(x, i, x_type);
                uint32_t low, high;
                __builtin_memcpy(&low, r.from, 4);
                __builtin_memcpy(&high, r.from + 4, 4);
                sum += nn_stored_term(low, high, 0, from, x_type, table, f) + nn_stored_term(low, high, 1, from, x_type, table, f);
                sum += nn_stored_term(low, high, 2, from, x_type, table, f) + nn_stored_term(low, high, 3, from, x_type, table, f);
                sum += nn_stored_term(low, high, 4, from, x_type, table, f) + nn_stored_term(low, high, 5, from, x_type, table, f);
                sum += nn_stored_term(low, high, 6, from, x_type, table, f) + nn_stored_term(low, high, 7, from, x_type, table, f);
                r.from += f.bits;
            }
        } else if (f.digits > 1 && n % f.digits == 0) { /* rows begin at groups */
            for (; i < n; i += f.digits) {
                uint32_t group = f.bits == 8 ? *r.from++ : nn_stored_take(&r, f.bits);
                NN_STORED_UNROLL
                for (uint32_t k = 0; k < f.digits; k++) {
                    const uint32_t number = group % f.levels;
                    group /= f.levels;
                    sum += nn_load_low(x, i + k, x_type) * (f.table ? nn_load_low(table, number, f.table_type) : number);
                }
            }
        }
        for (; i < n; i++) {
            const uint32_t number = nn_stored_number(&r, f);
            sum += nn_load_low(x, i, x_type) * (f.table ? nn_load_low(table, number, f.table_type) : number);
        }
    }
    *reader = r;
    return sum;
}

NN_INLINE void nn_dense_stored(const void *x, const void *w, nn_param bias, void *y, nn_dense_shape d, nn_stages stages, nn_stored_form f,
                               void *row) {
    nn_stored_reader r = nn_stored_start(w);
    if (d.rows == 1 && !d.wide) {
        const int plain = f.zeros == NN_ALL_VALUES && !f.table;
        uint32_t all = 0;
        for (size_t i = 0; plain && i < d.in; i++) {
            all += nn_load_low(x, i, d.x_type);
        }
        for (size_t o = 0; o < d.out; o++) {
            uint32_t sum = nn_stored_sum(x, d.x_type, d.in, o, &r, (const nn_u8 *)w + f.bytes, f);
            sum = plain ? sum * (uint32_t)f.step + all * (uint32_t)f.low : sum;
            nn_put(y, o, (int32_t)(sum + (uint32_t)nn_get(bias, o)), o, stages);
        }
        return;
    }
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
