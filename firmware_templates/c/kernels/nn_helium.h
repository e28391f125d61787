/* Dense layers and convolutions on Cortex-M cores with Helium (MVE). For a row of the output, the rows of x that its windows see are
 * copied column by column into `columns`: what a column has in each row of the window, one after another, so that a window is one run of
 * bytes; outside the input it is the zero point. Where x is such runs already nothing is copied. The sums of four positions (or of one) are
 * made by a function of nn_helium.S, then four channels at a time go through the stages. */
#ifndef NN_HELIUM_H
#define NN_HELIUM_H
#include "nn_helium_stages.h"

typedef struct {
    int32_t in_h, in_w, out_h, out_w, out_c, k_h, stride_h, stride_w, top, left;
    int32_t in_c;                       /* channels side by side in the columns */
    int32_t x_row, x_col, y_row, y_col; /* elements from a row to the next, and from a column: rows may be the image's columns */
    int32_t tile;       /* output positions of a row that are made of one filling of `columns` */
    int32_t positions;  /* of one call of nn_helium_dot */
    int32_t row;        /* channels of one call, and from the sums of a position to those of the next */
    int32_t weights;    /* bytes of packed weights for a channel */
    int32_t columns;    /* of one filling; 0: windows are read from x */
    int32_t sums_bytes; /* of the scratch memory, before the columns */
    int32_t zero_point;
    int flip; /* x is unsigned: 128 is taken off each value */
} nn_helium_shape;

typedef void nn_helium_dot(const nn_s8 *x, const nn_s8 *w, nn_s32 *sums, const nn_s32 *end);

#ifdef __ARM_FEATURE_MVE
#define NN_HELIUM_DOT(name, positions, taps, slices, step, row) nn_helium_dot name; /* model_helium.S */
#else
/* What the functions of nn_helium.S compute, for cores without the instructions: a model made for one core runs on any. */
NN_INLINE void nn_helium_sums(const nn_s8 *x, const nn_s8 *w, nn_s32 *sums, const nn_s32 *end, int32_t positions, int32_t taps,
                              int32_t slices, int32_t step, int32_t row) {
    const int32_t rows = 8 / positions;
    for (; sums < end; sums += rows) {
        uint32_t made[8] = {0};
        for (int32_t s = 0; s < slices; s++) {
            for (int32_t r = 0; r < rows; r++) {
                for (int32_t t = 0; t < taps; t++) {
                    for (int32_t k = 0; k < 16; k++) {
                        for (int32_t p = 0; p < positions; p++) {
                            made[r * positions + p] += (uint32_t)*w * (uint32_t)x[(p + t) * step + 16 * s + k];
                        }
                        w++;
                    }
                }
            }
        }
        for (int32_t r = 0; r < rows; r++) {
            for (int32_t p = 0; p < positions; p++) {
                sums[p * row + r] = (int32_t)made[r * positions + p];
            }
        }
    }
}
#define NN_HELIUM_DOT(name, positions, taps, slices, step, row)                                   \
    static void name(const nn_s8 *x, const nn_s8 *w, nn_s32 *sums, const nn_s32 *end) {           \
        nn_helium_sums(x, w, sums, end, positions, taps, slices, step, row);                      \
    }
#endif

#ifdef __ARM_FEATURE_MVE
#define NN_HELIUM_WINDOWS(name, taps, width, step, row) nn_helium_dot name; /* model_helium.S */
#else
NN_INLINE void nn_helium_window_sums(const nn_s8 *x, const nn_s8 *w, nn_s32 *sums, const nn_s32 *end, int32_t taps, int32_t width,
                                     int32_t step, int32_t row) {
    for (; sums < end; sums++, x++, w += 16) {
        for (int32_t p = 0; p < 4; p++) {
            uint32_t made = 0;
            for (int32_t t = 0; t < taps; t++) {
                made += (uint32_t)w[t] * (uint32_t)x[p * step + t * width];
            }
            sums[p * row] = (int32_t)made;
        }
    }
}
#define NN_HELIUM_WINDOWS(name, taps, width, step, row)                                           \
    static void name(const nn_s8 *x, const nn_s8 *w, nn_s32 *sums, const nn_s32 *end) {           \
        nn_helium_window_sums(x, w, sums, end, taps, width, step, row);                           \
    }
#endif

/* n bytes; `flip` takes 128 off each. */
NN_INLINE void nn_helium_copy(nn_s8 *to, const nn_s8 *from, int32_t n, int flip) {
#ifdef __ARM_FEATURE_MVE
    for (; n >= 16; n -= 16) {
        const uint8x16_t all = vldrbq_u8((const uint8_t *)from);
        vstrbq_u8((uint8_t *)to, flip ? veorq_u8(all, vdupq_n_u8(0x80)) : all);
        from += 16;
        to += 16;
    }
    if (n == 8) { /* eight lanes, which need no predicate */
        const uint16x8_t all = vldrbq_u16((const uint8_t *)from);
        vstrbq_u16((uint8_t *)to, flip ? veorq_u16(all, vdupq_n_u16(0x80)) : all);
        return;
    }
    if (n > 4) {
        const mve_pred16_t there = vctp8q((uint32_t)n);
        const uint8x16_t all = vldrbq_z_u8((const uint8_t *)from, there);
        vstrbq_p_u8((uint8_t *)to, flip ? veorq_u8(all, vdupq_n_u8(0x80)) : all, there);
        return;
    }
#endif
    if (!flip) {
        for (; n >= 4; n -= 4) {
            uint32_t four;
            __builtin_memcpy(&four, from, 4);
            __builtin_memcpy(to, &four, 4);
            from += 4;
            to += 4;
        }
    }
    for (; n > 0; n--) {
        *to++ = flip ? (nn_s8)((nn_u8)*from ^ 0x80u) : *from;
        from++;
    }
}

/* n columns of a row of the window, `channels` of each; x: the first of them, or 0 outside the input. */
NN_INLINE void nn_helium_columns(nn_s8 *to, const nn_s8 *x, int32_t n, int32_t channels, nn_helium_shape s) {
    if (x != 0 && s.k_h == 1 && s.x_col == s.in_c) {
        nn_helium_copy(to, x, n * s.in_c, s.flip);
        return;
    }
    for (; n > 0; n--) {
        if (x != 0) {
            nn_helium_copy(to, x, channels, s.flip);
            x += s.x_col;
        } else {
            for (int32_t i = 0; i < s.in_c; i++) {
                to[i] = (nn_s8)s.zero_point;
            }
        }
        to += s.k_h * s.in_c;
    }
}

/* The columns of the windows from row h and column v of the input on. */
NN_INLINE void nn_helium_fill(nn_s8 *to, const nn_s8 *x, int32_t h, int32_t v, int32_t channels, nn_helium_shape s) {
    for (int32_t i = 0; i < s.k_h; i++, h++, to += s.in_c) {
        int32_t before = v < 0 ? -v : 0, end = s.in_w - v < s.columns ? s.in_w - v : s.columns;
        if (h < 0 || h >= s.in_h || end < before) {
            before = end = s.columns;
        }
        const int32_t column = s.k_h * s.in_c;
        nn_helium_columns(to, 0, before, channels, s);
        if (end > before) {
            nn_helium_columns(to + before * column, x + h * s.x_row + (v + before) * s.x_col, end - before, channels, s);
        }
        nn_helium_columns(to + end * column, 0, s.columns - end, channels, s);
    }
}

/* All positions of a row of the output, of which n follow one another in `from`; channels c to c + channels - 1. The last are made as
 * four all the same, some of them twice. */
NN_INLINE void nn_helium_positions(const nn_s8 *from, const nn_s8 *w, nn_param bias, void *y, int32_t at, int32_t n, int32_t c, int32_t channels,
                                   nn_helium_shape s, nn_stages stages, nn_helium_dot *dot, nn_s32 *sums) {
    const int32_t rows = 8 / s.positions, step = s.stride_w * s.k_h * s.in_c;
    for (int32_t next = 0; next < n; next += s.positions) {
        const int32_t p = n - next < s.positions && n >= s.positions ? n - s.positions : next;
        const int32_t count = n < s.positions ? n : s.positions;
        dot(from + p * step, w + c * s.weights, sums, sums + (channels + rows - 1) / rows * rows);
        nn_helium_put(y, at + p * s.y_col + c, s.y_col, count, sums, s.row, c, channels, s.out_c % 4 == 0 && s.row % 4 == 0, bias,
                      stages);
    }
}

NN_INLINE void nn_conv_helium(const void *x, const nn_s8 *w, nn_param bias, void *y, nn_helium_shape s, nn_stages stages, nn_helium_dot *dot,
                              nn_s16 *scratch) {
    nn_s32 *sums = (nn_s32 *)(void *)scratch;
    nn_s8 *columns = (nn_s8 *)(void *)scratch + s.sums_bytes;
    for (int32_t oh = 0; oh < s.out_h; oh++) {
        for (int32_t first = 0; first < s.out_w; first += s.tile) {
            const int32_t n = s.out_w - first < s.tile ? s.out_w - first : s.tile;
            const nn_s8 *from = columns;
            if (s.columns != 0) {
                nn_helium_fill(columns, (const nn_s8 *)x, oh * s.stride_h - s.top, first * s.stride_w - s.left, s.in_c, s);
            } else {
                from = (const nn_s8 *)x + oh * s.stride_h * s.x_row;
            }
            for (int32_t c = 0; c < s.out_c; c += s.row) {
                const int32_t channels = s.out_c - c < s.row ? s.out_c - c : s.row;
                nn_helium_positions(from, w, bias, y, oh * s.y_row + first * s.y_col, n, c, channels, s, stages, dot, sums);
            }
        }
    }
}

/* Each channel alone: as many of them at a time as lie side by side in the columns. */
NN_INLINE void nn_depthwise_helium(const void *x, const nn_s8 *w, nn_param bias, void *y, nn_helium_shape s, nn_stages stages,
                                   nn_helium_dot *dot, nn_s16 *scratch) {
    nn_s32 *sums = (nn_s32 *)(void *)scratch;
    nn_s8 *columns = (nn_s8 *)(void *)scratch + s.sums_bytes;
    for (int32_t c = 0; c < s.out_c; c += s.in_c) {
        const int32_t channels = s.out_c - c < s.in_c ? s.out_c - c : s.in_c;
        for (int32_t oh = 0; oh < s.out_h; oh++) {
            nn_helium_fill(columns, (const nn_s8 *)x + c, oh * s.stride_h - s.top, -s.left, channels, s);
            nn_helium_positions(columns, w, bias, y, oh * s.y_row, s.out_w, c, channels, s, stages, dot, sums);
        }
    }
}
#endif
