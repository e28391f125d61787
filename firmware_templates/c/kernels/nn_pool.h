/* The largest of each window, or its sum times a factor for its row and one for its column (what makes the counts of
 * clipped windows equal). What lies outside the input does not take part. One dimension is two with a height of 1. */
#ifndef NN_POOL_H
#define NN_POOL_H
#include "nn_stages.h"

typedef struct {
    int32_t in_h, in_w, channels, out_h, out_w, k_h, k_w, stride_h, stride_w, top, left;
    int64_t zero_point;           /* sum: to subtract from each x */
    nn_param factor_h, factor_w;  /* sum: for each output row and column */
    nn_type x_type;
    int wide; /* the sum needs int64 */
} nn_pool_shape;

NN_INLINE int32_t nn_inside(int32_t at, int32_t size) { return at < 0 ? 0 : at > size ? size : at; }

#ifdef __ARM_FEATURE_DSP
/* The larger of each pair of four bytes: the differences set a flag for each byte, by which SEL chooses. */
NN_INLINE uint32_t nn_max4(uint32_t a, uint32_t b, nn_type type) {
    uint32_t larger;
    if (type == NN_S8) {
        __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    } else {
        __asm__("usub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    }
    return larger;
}

NN_INLINE uint32_t nn_four(const void *x, size_t at) {
    uint32_t word;
    __builtin_memcpy(&word, (const nn_u8 *)x + at, 4); /* one load, at any address */
    return word;
}

/* The largest of a window in each of four channels side by side, of 8 bits. All is read before the four are written. */
NN_INLINE void nn_max_window(const void *x, void *y, size_t at, size_t first, int32_t rows, int32_t columns, nn_pool_shape s) {
    const size_t pixel = (size_t)s.channels, row = (size_t)s.in_w * pixel;
    uint32_t best = nn_four(x, first);
#pragma GCC unroll 3
    for (int32_t h = 0; h < rows; h++) {
#pragma GCC unroll 3
        for (int32_t w = 0; w < columns; w++) {
            best = nn_max4(best, nn_four(x, first + (size_t)h * row + (size_t)w * pixel), s.x_type);
        }
    }
    __builtin_memcpy((nn_u8 *)y + at, &best, 4);
}
#endif

NN_INLINE void nn_max_pool(const void *x, void *y, nn_pool_shape s) {
    size_t at = 0;
    for (int32_t oh = 0; oh < s.out_h; oh++) {
        const int32_t h0 = nn_inside(oh * s.stride_h - s.top, s.in_h), h1 = nn_inside(oh * s.stride_h - s.top + s.k_h, s.in_h);
        for (int32_t ow = 0; ow < s.out_w; ow++) {
            const int32_t w0 = nn_inside(ow * s.stride_w - s.left, s.in_w), w1 = nn_inside(ow * s.stride_w - s.left + s.k_w, s.in_w);
            int32_t c = 0;
#ifdef __ARM_FEATURE_DSP
            for (; (s.x_type == NN_S8 || s.x_type == NN_U8) && c + 4 <= s.channels; c += 4, at += 4) {
                const size_t first = (size_t)((h0 * s.in_w + w0) * s.channels + c);
                if (h1 - h0 == s.k_h && w1 - w0 == s.k_w) { /* a straight line for small windows */
                    nn_max_window(x, y, at, first, s.k_h, s.k_w, s);
                } else {
                    nn_max_window(x, y, at, first, h1 - h0, w1 - w0, s);
                }
            }
#endif
            for (; c < s.channels; c++) {
                int64_t best = nn_load(x, (size_t)((h0 * s.in_w + w0) * s.channels + c), s.x_type);
                for (int32_t h = h0; h < h1; h++) {
                    for (int32_t w = w0; w < w1; w++) {
                        const int64_t value = nn_load(x, (size_t)((h * s.in_w + w) * s.channels + c), s.x_type);
                        best = value > best ? value : best;
                    }
                }
                nn_store(y, at++, best, s.x_type);
            }
        }
    }
}

/* sum + n values of x, `step` elements apart; eight at a time, for moving a pointer and counting cost as much as two values. */
NN_INLINE nn_sum nn_sum_run(nn_sum sum, const void *x, size_t step, size_t n, nn_type type, int wide) {
    if (wide) {
        for (; n != 0; n--) {
            sum.wide += (uint64_t)nn_load(x, 0, type);
            x = nn_at(x, step, type);
        }
        return sum;
    }
    for (; n >= 8; n -= 8) {
        sum.narrow += nn_load_low(x, 0, type) + nn_load_low(x, step, type);
        sum.narrow += nn_load_low(x, 2 * step, type) + nn_load_low(x, 3 * step, type);
        sum.narrow += nn_load_low(x, 4 * step, type) + nn_load_low(x, 5 * step, type);
        sum.narrow += nn_load_low(x, 6 * step, type) + nn_load_low(x, 7 * step, type);
        x = nn_at(x, 8 * step, type);
    }
    for (; n != 0; n--) {
        sum.narrow += nn_load_low(x, 0, type);
        x = nn_at(x, step, type);
    }
    return sum;
}

NN_INLINE void nn_sum_pool(const void *x, void *y, nn_pool_shape s, nn_stages stages) {
    size_t at = 0;
    for (int32_t oh = 0; oh < s.out_h; oh++) {
        const int32_t h0 = nn_inside(oh * s.stride_h - s.top, s.in_h), h1 = nn_inside(oh * s.stride_h - s.top + s.k_h, s.in_h);
        for (int32_t ow = 0; ow < s.out_w; ow++) {
            const int32_t w0 = nn_inside(ow * s.stride_w - s.left, s.in_w), w1 = nn_inside(ow * s.stride_w - s.left + s.k_w, s.in_w);
            const uint64_t factor = (uint64_t)nn_get(s.factor_h, (size_t)oh) * (uint64_t)nn_get(s.factor_w, (size_t)ow);
            const uint64_t zero = (uint64_t)((h1 - h0) * (w1 - w0)) * (uint64_t)s.zero_point;
            for (int32_t c = 0; c < s.channels; c++) {
                nn_sum sum = nn_start((int64_t)(0 - zero), s.wide);
                if (s.k_w >= s.in_w && w0 == 0 && w1 == s.in_w) { /* whole rows follow one another */
                    const void *run = nn_at(x, (size_t)(h0 * s.in_w * s.channels + c), s.x_type);
                    const size_t n = h1 > h0 ? (size_t)((h1 - h0) * s.in_w) : 0;
                    sum = nn_sum_run(sum, run, (size_t)s.channels, n, s.x_type, s.wide);
                } else {
                    for (int32_t h = h0; h < h1; h++) {
                        const void *run = nn_at(x, (size_t)((h * s.in_w + w0) * s.channels + c), s.x_type);
                        sum = nn_sum_run(sum, run, (size_t)s.channels, w1 > w0 ? (size_t)(w1 - w0) : 0, s.x_type, s.wide);
                    }
                }
                sum.narrow *= (uint32_t)factor;
                sum.wide *= factor;
                nn_put(y, at++, nn_total(sum, s.wide), (size_t)c, stages);
            }
        }
    }
}
#endif
