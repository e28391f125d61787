/* Dense layers and convolutions on cores without the DSP extension. The values of x that a row of the output needs are put into words of
 * two once: eight lanes, each a part of the output, move through it in step, and a word holds the values that lanes j and j + 4
 * need. A dense layer has one position, so there two rows of weights share a word, and x is what they are multiplied with. The
 * sums of eight lanes (or rows) are made by a function of nn_scalar.S, which has the idea and its bound; what follows is
 * as in every other kernel. Zero points are folded into the bias: outside the input x is the zero point. */
#ifndef NN_SCALAR_H
#define NN_SCALAR_H
#include "nn_scalar_core.h"
#include "nn_stages.h"

typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, top, left;
    int32_t lanes_w;        /* parts of a row of the output: 1, 2, 4 or 8; there are 8 / lanes_w parts of its height */
    int32_t part_h, part_w; /* rows and columns of a lane's part of the output */
    int32_t tile;           /* columns of a part that are made of the values in `words` */
    int32_t pieces;         /* the rows of the window, or 1 where they lie one behind the other */
    int flip;               /* x is uint8: it is taken 128 lower, which the bias knows */
    int twice;              /* the first stage is nn_tflm_short */
} nn_scalar_shape;

typedef struct {
    int32_t rows, skip;
    nn_s32 sums[8];
} nn_scalar_job;

typedef const nn_u8 *nn_scalar_dot(const nn_s32 *words, const nn_s8 *bytes, const nn_u8 *runs, nn_scalar_job *job);

#ifdef NN_SCALAR_CORE
#define NN_SCALAR_DOT(name, most) nn_scalar_dot name; /* model_scalar.S */
#else
/* What the functions of nn_scalar.S compute, for any core. */
NN_INLINE const nn_u8 *nn_scalar_sums(const nn_s32 *words, const nn_s8 *bytes, const nn_u8 *runs, nn_scalar_job *job) {
    uint32_t high[4] = {0}, sum[4] = {0};
    for (int32_t row = 0; row < job->rows; row++) {
        for (; *runs != 0; runs++) {
            uint32_t t[4] = {32768, 32768, 32768, 32768};
            for (int32_t k = 0; k < *runs; k++) {
                for (int32_t j = 0; j < 4; j++) {
                    t[j] += (uint32_t)*words++ * (uint32_t)*bytes;
                }
                bytes++;
            }
            for (int32_t j = 0; j < 4; j++) {
                high[j] += (uint32_t)((int32_t)t[j] >> 16);
                sum[j] += t[j];
            }
        }
        runs++;
        words += job->skip / 4;
    }
    for (int32_t j = 0; j < 4; j++) {
        job->sums[j] = (int32_t)(sum[j] - (high[j] << 16));
        job->sums[4 + j] = (int32_t)high[j];
    }
    return runs;
}
#define NN_SCALAR_DOT(name, most)                                                                                                   \
    static const nn_u8 *name(const nn_s32 *words, const nn_s8 *bytes, const nn_u8 *runs, nn_scalar_job *job) {                      \
        return nn_scalar_sums(words, bytes, runs, job);                                                                             \
    }
#endif

/* n values of two lanes into words that lie four apart. */
static NN_FUNCTION __attribute__((unused)) void nn_scalar_pack(nn_s32 *to, const nn_u8 *low, const nn_u8 *high, int32_t n, uint32_t flip) {
    for (; n >= 4; n -= 4) {
        const int32_t a = (nn_s8)(low[0] ^ flip), b = (nn_s8)(low[1] ^ flip), c = (nn_s8)(low[2] ^ flip), d = (nn_s8)(low[3] ^ flip);
        to[0] = a + (nn_s8)(high[0] ^ flip) * 65536;
        to[4] = b + (nn_s8)(high[1] ^ flip) * 65536;
        to[8] = c + (nn_s8)(high[2] ^ flip) * 65536;
        to[12] = d + (nn_s8)(high[3] ^ flip) * 65536;
        to += 16;
        low += 4;
        high += 4;
    }
    for (; n > 0; n--) {
        *to = (nn_s8)(*low++ ^ flip) + (nn_s8)(*high++ ^ flip) * 65536;
        to += 4;
    }
}

/* 4 * n words down in memory. */
static NN_FUNCTION __attribute__((unused)) void nn_scalar_down(nn_s32 *to, const nn_s32 *from, int32_t n) {
    for (; n > 0; n--) {
        const int32_t a = from[0], b = from[1], c = from[2], d = from[3];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
        to += 4;
        from += 4;
        __asm__("" : "+r"(to)); /* or compilers call memmove, which is slower here */
    }
}

/* One pixel of x, or zeros, which hold the zero point. */
NN_INLINE const nn_u8 *nn_scalar_pixel(const void *x, const nn_u8 *zeros, int32_t h, int32_t v, nn_scalar_shape s) {
    return h < 0 || h >= s.in_h || v < 0 || v >= s.in_w ? zeros : (const nn_u8 *)x + (h * s.in_w + v) * s.in_c;
}

/* What row h of the window sees of x from the lanes' columns `first` on. */
NN_INLINE void nn_scalar_row(nn_s32 *to, const void *x, const nn_u8 *zeros, int32_t h, int32_t first, nn_scalar_shape s) {
    const int32_t all = (s.tile - 1) * s.stride_w + s.k_w, lanes_h = 8 / s.lanes_w;
    const int32_t down = s.part_h * s.stride_h, right = s.part_w * s.stride_w; /* from a lane to the next */
    for (int32_t j = 0; j < 4; j++) {
        const int32_t h0 = h + (lanes_h == 1 ? 0 : j / s.lanes_w * down), v0 = first + (lanes_h == 1 ? j : j % s.lanes_w) * right;
        const int32_t h1 = h + (lanes_h == 1 ? 0 : (j + 4) / s.lanes_w * down), v1 = first + (lanes_h == 1 ? j + 4 : (j + 4) % s.lanes_w) * right;
        const int inside = h0 >= 0 && h1 < s.in_h && v0 >= 0 && v1 >= 0 && v0 + all <= s.in_w && v1 + all <= s.in_w;
        const int32_t run = inside ? all : 1;
        for (int32_t i = 0; i < all; i += run) {
            nn_scalar_pack(to + 4 * i * s.in_c + j, nn_scalar_pixel(x, zeros, h0, v0 + i, s), nn_scalar_pixel(x, zeros, h1, v1 + i, s), run * s.in_c,
                           s.flip ? 128u : 0u);
        }
    }
}

NN_INLINE void nn_scalar_put(void *y, size_t at, int32_t sum, int64_t bias, size_t o, int twice, nn_stages stages) {
    const uint32_t value = (uint32_t)sum + (uint32_t)bias;
    if (twice) {
        nn_put_twice(y, at, (int32_t)(value << 1), o, stages);
    } else {
        nn_put(y, at, (int32_t)value, o, stages);
    }
}

/* Four lanes that have the same bias. */
NN_INLINE void nn_scalar_lanes(void *y, int32_t from, int32_t oh, int32_t ow, const nn_s32 *sums, int64_t bias, int32_t o, int whole,
                               nn_scalar_shape s, nn_stages stages) {
    NN_UNROLL
    for (int32_t j = from; j < from + 4; j++) {
        const int32_t lane_h = j / s.lanes_w * s.part_h, lane_w = j % s.lanes_w * s.part_w;
        if (whole || (oh + lane_h < s.out_h && ow + lane_w < s.out_w)) {
            nn_scalar_put(y, (size_t)((lane_h * s.out_w + lane_w) * s.out_c + o), sums[j], bias, (size_t)o, s.twice, stages);
        }
    }
}

/* bias: of the low lanes, which carry 32768 for each run, and of the high. */
NN_INLINE void nn_conv_scalar(const void *x, const nn_s8 *w, const nn_u8 *runs, nn_param low, nn_param high, void *y, nn_scalar_shape s,
                              nn_stages stages, nn_scalar_dot *dot, void *scratch, const nn_u8 *zeros) {
    nn_s32 *const words = (nn_s32 *)scratch;
    const int32_t pitch = 4 * ((s.tile - 1) * s.stride_w + s.k_w) * s.in_c;
    const int32_t kept = s.k_h > s.stride_h ? s.k_h - s.stride_h : 0; /* rows that the next row of the output needs too */
    const int32_t lanes_h = 8 / s.lanes_w;
    const int whole = s.part_h * lanes_h == s.out_h && s.part_w * s.lanes_w == s.out_w;
    nn_scalar_job job;
    job.rows = s.pieces;
    job.skip = 4 * (pitch - 4 * s.k_w * s.in_c);
    for (int32_t first = 0; first < s.part_w; first += s.tile) {
        const int32_t end = s.part_w - first < s.tile ? s.part_w - first : s.tile;
        for (int32_t oh = 0; oh < s.part_h; oh++) {
            int32_t have = 0;
            if (oh != 0 && kept != 0) {
                nn_scalar_down(words, words + s.stride_h * pitch, kept * pitch / 4);
                have = kept;
            }
            for (int32_t i = have; i < s.k_h; i++) {
                nn_scalar_row(words + i * pitch, x, zeros, oh * s.stride_h - s.top + i, first * s.stride_w - s.left, s);
            }
            for (int32_t ow = 0; ow < end; ow++) {
                const nn_u8 *runs_at = runs;
                nn_s8 *at = (nn_s8 *)y + (oh * s.out_w + first + ow) * s.out_c * (int32_t)nn_size(stages.type);
                for (int32_t o = 0; o < s.out_c; o++) {
                    const nn_stages here = nn_stages_at(stages, (size_t)o);
                    runs_at = dot(words + 4 * ow * s.stride_w * s.in_c, w + o * s.k_h * s.k_w * s.in_c, runs_at, &job);
                    const int64_t b_low = nn_get(low, (size_t)o), b_high = nn_get(high, (size_t)o);
                    nn_scalar_lanes(at, 0, oh, first + ow, job.sums, b_low, o, whole, s, here);
                    nn_scalar_lanes(at, 4, oh, first + ow, job.sums, b_high, o, whole, s, here);
                }
            }
        }
    }
}

/* One position: in_c values, eight rows of weights at once, rows j and j + 4 in a word. */
NN_INLINE void nn_dense_scalar(const void *x, const nn_s32 *w, const nn_u8 *runs, nn_param bias, void *y, nn_scalar_shape s, nn_stages stages,
                               nn_scalar_dot *dot, void *scratch) {
    nn_scalar_job job;
    job.rows = 1;
    job.skip = 0;
    if (s.flip) {
        for (int32_t i = 0; i < s.in_c; i++) {
            ((nn_u8 *)scratch)[i] = (nn_u8)(((const nn_u8 *)x)[i] ^ 128u);
        }
        x = scratch;
    }
    for (int32_t o = 0; o < s.out_c; o += 8) {
        runs = dot(w + o / 2 * s.in_c, (const nn_s8 *)x, runs, &job);
        for (int32_t j = 0; j < 8; j++) {
            if (s.out_c % 8 == 0 || o + j < s.out_c) {
                nn_scalar_put(y, (size_t)(o + j), job.sums[j], nn_get(bias, (size_t)(o + j)), (size_t)(o + j), s.twice, stages);
            }
        }
    }
}
#endif
