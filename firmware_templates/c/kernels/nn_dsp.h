/* Dense layers and convolutions on Cortex-M cores with the DSP extension. The values of x that a row of the output needs are
 * widened to int16 once, in `rows`; the sums of two positions and four rows of weights (or of one position and eight rows) are
 * made by a function of nn_dsp.S; what follows is as in every other kernel. Zero points are folded into the bias: outside the input
 * x is the zero point. */
#ifndef NN_DSP_H
#define NN_DSP_H
#include "nn_dsp_words.h"
#include "nn_stages.h"

typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, top, left;
    int32_t tile;       /* output positions of a row that are made of the values in `rows` */
    int32_t pitch;      /* elements from a row of `rows` to the next */
    int32_t block;      /* elements of packed weights for a block of rows */
    int32_t zero_point; /* of x */
    int x_signed;
    int twice; /* the bias is twice the bias, for nn_put_twice */
} nn_dsp_shape;

typedef void nn_dsp_dot(const nn_s16 *x, const nn_s16 *w, nn_s32 *sums);

#ifdef __ARM_FEATURE_DSP
#define NN_DSP_DOT(name, rows, positions, pairs, segments, skip, step) nn_dsp_dot name; /* model_dsp.S */
#else
/* What the functions of nn_dsp.S compute, for cores without the instructions: a model made for one core runs on any. */
NN_INLINE void nn_dsp_sums(const nn_s16 *x, const nn_s16 *w, nn_s32 *sums, int32_t rows, int32_t positions, int32_t pairs, int32_t segments,
                           int32_t skip, int32_t step) {
    uint32_t made[8] = {0};
    for (int32_t i = 0; i < segments; i++) {
        for (int32_t k = 0; k < pairs; k++) {
            for (int32_t r = 0; r < rows / 2; r++) {
                for (int32_t v = 0; v < 2; v++, w++) {
                    for (int32_t p = 0; p < positions; p++) {
                        const uint32_t value = (uint32_t)x[p * step + v];
                        made[2 * positions * r + p] += (uint32_t)*w * value;
                        made[2 * positions * r + positions + p] += (uint32_t)(int8_t)*w * value;
                    }
                }
            }
            x += 2;
        }
        x += skip;
    }
    for (int32_t i = 0; i < 8; i++) {
        sums[i] = (int32_t)made[i];
    }
}
#define NN_DSP_DOT(name, rows, positions, pairs, segments, skip, step)                             \
    static void name(const nn_s16 *x, const nn_s16 *w, nn_s32 *sums) {                             \
        nn_dsp_sums(x, w, sums, rows, positions, pairs, segments, (skip) / 2, (step) / 2);         \
    }
#endif

/* Four values of x as int16, wherever both lie. */
NN_INLINE void nn_dsp_four(nn_s16 *to, const nn_u8 *from, int x_signed) {
    uint32_t four;
    __builtin_memcpy(&four, from, 4);
    const uint32_t even = nn_dsp_even(four, x_signed), odd = nn_dsp_odd(four, x_signed);
    const uint32_t low = nn_dsp_lows(even, odd), high = nn_dsp_highs(even, odd);
    __builtin_memcpy(to, &low, 4);
    __builtin_memcpy(to + 2, &high, 4);
}

/* n values of x as int16. */
NN_INLINE void nn_dsp_widen(nn_s16 *to, const void *x, int32_t n, int x_signed) {
    const nn_u8 *from = (const nn_u8 *)x;
    for (; n >= 16; n -= 16) {
        nn_dsp_four(to, from, x_signed);
        nn_dsp_four(to + 4, from + 4, x_signed);
        nn_dsp_four(to + 8, from + 8, x_signed);
        nn_dsp_four(to + 12, from + 12, x_signed);
        from += 16;
        to += 16;
    }
    for (; n >= 4; n -= 4) {
        nn_dsp_four(to, from, x_signed);
        from += 4;
        to += 4;
    }
    for (; n > 0; n--) {
        *to++ = x_signed ? (nn_s16)(nn_s8)*from : (nn_s16)*from;
        from++;
    }
}

/* n values down in memory, four at a time: up to three more are copied, which lie in a row that is filled next. */
NN_INLINE void nn_dsp_down(nn_s16 *to, const nn_s16 *from, int32_t n) {
    for (; n > 0; n -= 4) {
#ifdef __ARM_FEATURE_DSP
        uint32_t low, high;
        __asm__ volatile("ldrd %0, %1, [%2], #8" : "=&r"(low), "=&r"(high), "+r"(from) : : "memory");
        __asm__ volatile("strd %1, %2, [%0], #8" : "+r"(to) : "r"(low), "r"(high) : "memory");
#else
        for (int32_t i = 0; i < 4; i++) {
            *to++ = *from++;
        }
#endif
    }
}

/* Row h of the input, from column v on, as one row of `rows`; outside the input the zero point. */
NN_INLINE void nn_dsp_row(nn_s16 *to, const void *x, int32_t h, int32_t v, nn_dsp_shape s) {
    const int32_t all = (s.tile - 1) * s.stride_w + s.k_w;
    int32_t before = v < 0 ? -v : 0, end = s.in_w - v < all ? s.in_w - v : all;
    if (h < 0 || h >= s.in_h || end < before) {
        before = end = all;
    }
    for (int32_t i = 0; i < before * s.in_c; i++) {
        to[i] = (nn_s16)s.zero_point;
    }
    if (end > before) {
        nn_dsp_widen(to + before * s.in_c, (const nn_u8 *)x + (h * s.in_w + v + before) * s.in_c, (end - before) * s.in_c, s.x_signed);
    }
    for (int32_t i = end * s.in_c; i < all * s.in_c; i++) {
        to[i] = (nn_s16)s.zero_point;
    }
}

/* The sums of two rows of weights from their packed sums, with the bias, through the stages; modulo 2**32 until the bias is in. */
NN_INLINE void nn_dsp_put(void *y, int32_t at, int32_t sum, int32_t low, int32_t o, nn_param bias, nn_dsp_shape s, nn_stages stages) {
    const int32_t high = (int32_t)((uint32_t)sum - (uint32_t)low); /* 256 times the sum of the first row */
    const int both = s.out_c % 2 == 0 || o + 1 < s.out_c;
    const uint32_t b0 = (uint32_t)nn_get(bias, (size_t)o), b1 = both ? (uint32_t)nn_get(bias, (size_t)o + 1) : 0;
    if (s.twice) {
        nn_put_twice(y, (size_t)(at + o), (int32_t)((uint32_t)(high >> 7) + b0), (size_t)o, stages);
        if (both) {
            nn_put_twice(y, (size_t)(at + o + 1), (int32_t)(((uint32_t)low << 1) + b1), (size_t)o + 1, stages);
        }
        return;
    }
    nn_put(y, (size_t)(at + o), (int32_t)((uint32_t)(high >> 8) + b0), (size_t)o, stages);
    if (both) {
        nn_put(y, (size_t)(at + o + 1), (int32_t)((uint32_t)low + b1), (size_t)o + 1, stages);
    }
}

/* `rows` as row oh of the output needs them, from column `first` of it on; what the row before left there is kept. */
NN_INLINE void nn_dsp_fill(nn_s16 *rows, const void *x, int32_t oh, int32_t first, nn_dsp_shape s) {
    const int32_t kept = s.k_h > s.stride_h ? s.k_h - s.stride_h : 0; /* rows that the next row of the output needs too */
    int32_t have = 0;
    if (oh != 0 && kept != 0) {
        nn_dsp_down(rows, rows + s.stride_h * s.pitch, kept * s.pitch);
        have = kept;
    }
    for (int32_t i = have; i < s.k_h; i++) {
        nn_dsp_row(rows + i * s.pitch, x, oh * s.stride_h - s.top + i, first * s.stride_w - s.left, s);
    }
}

/* Rows o to o + 3, where there are so many, of the position whose outputs begin at `at`, and of the next where there are both. */
NN_INLINE void nn_dsp_put_four(void *y, int32_t at, const nn_s32 *sums, int32_t o, int both, nn_param bias, nn_dsp_shape s,
                               nn_stages stages) {
    nn_dsp_put(y, at, sums[0], sums[2], o, bias, s, stages);
    if (s.out_c % 4 == 0 || o + 2 < s.out_c) {
        nn_dsp_put(y, at, sums[4], sums[6], o + 2, bias, s, stages);
    }
    if (both) {
        nn_dsp_put(y, at + s.out_c, sums[1], sums[3], o, bias, s, stages);
        if (s.out_c % 4 == 0 || o + 2 < s.out_c) {
            nn_dsp_put(y, at + s.out_c, sums[5], sums[7], o + 2, bias, s, stages);
        }
    }
}

NN_INLINE void nn_conv_dsp(const void *x, const nn_s16 *w, nn_param bias, void *y, nn_dsp_shape s, nn_stages stages, nn_dsp_dot *dot,
                           nn_s16 *rows) {
    for (int32_t first = 0; first < s.out_w; first += s.tile) {
        const int32_t end = s.out_w - first < s.tile ? s.out_w - first : s.tile;
        for (int32_t oh = 0; oh < s.out_h; oh++) {
            nn_dsp_fill(rows, x, oh, first, s);
            for (int32_t ow = 0; ow < end; ow += 2) {
                const nn_s16 *w_block = w;
                const int32_t at = (oh * s.out_w + first + ow) * s.out_c;
                for (int32_t o = 0; o < s.out_c; o += 4) {
                    nn_s32 sums[8];
                    dot(rows + ow * s.stride_w * s.in_c, w_block, sums);
                    w_block += s.block;
                    nn_dsp_put_four(y, at, sums, o, (s.out_w % 2 == 0 && s.tile % 2 == 0) || ow + 1 < end, bias, s, stages);
                }
            }
        }
    }
}

/* One position: in_c values, eight rows of weights at once. */
NN_INLINE void nn_dense_dsp(const void *x, const nn_s16 *w, nn_param bias, void *y, nn_dsp_shape s, nn_stages stages, nn_dsp_dot *dot,
                            nn_s16 *rows) {
    nn_dsp_widen(rows, x, s.in_c, s.x_signed);
    for (int32_t o = 0; o < s.out_c; o += 8) {
        nn_s32 sums[8];
        dot(rows, w, sums);
        w += s.block;
        for (int32_t k = 0; k < 4; k++) {
            if (s.out_c % 8 == 0 || o + 2 * k < s.out_c) {
                nn_dsp_put(y, 0, sums[2 * k], sums[2 * k + 1], o + 2 * k, bias, s, stages);
            }
        }
    }
}
#endif
