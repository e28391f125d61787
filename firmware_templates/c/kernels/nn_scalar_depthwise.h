/* Depthwise convolutions with 3 by 3 windows on cores without the DSP extension. One channel at a time is taken apart into a plane of
 * words, padding included: a word holds a value of the upper half of the output and the one that lies as far into the
 * lower half, low + 65536 * high, so that nine multiplications make eighteen products (nn_scalar.S has the arithmetic). Where the weights
 * of a channel are too large for one sum of nine, their sum is cut into runs: the generator says after which taps. */
#ifndef NN_SCALAR_DEPTHWISE_H
#define NN_SCALAR_DEPTHWISE_H
#include "nn_stages.h"

typedef struct {
    int32_t in_h, in_w, out_h, out_w, channels, stride_h, stride_w, top, left;
    int32_t part_h; /* rows of the upper half: the lower has as many, or one less */
    int32_t strip;  /* rows of a half made of one filling of the plane */
    int32_t flip;   /* 128 where x is uint8: it is taken 128 lower, which the bias knows; else 0 */
    int32_t zero;   /* the zero point as it is multiplied */
    uint32_t cuts;  /* bit n: some channel has the n-th of NN_SCALAR_CUTS */
    int twice;      /* the first stage is nn_tflm_short */
} nn_scalar_depthwise_shape;

/* Nine products at two places. `cuts`: bit k where a run ends after tap k; each run adds 32768 to the lower sum. */
NN_INLINE void nn_scalar_nine(const nn_s32 *p, int32_t pitch, const int32_t *w, uint32_t cuts, uint32_t *low, uint32_t *high) {
    uint32_t t = 32768, h = 0, sum = 0;
#define NN_SCALAR_NINTH(k)                                                                       \
    t += (uint32_t)w[k] * (uint32_t)p[(k) / 3 * pitch + (k) % 3];                                \
    if ((cuts >> (k) & 1u) != 0) {                                                               \
        h += (uint32_t)((int32_t)t >> 16);                                                       \
        sum += t;                                                                                \
        t = 32768;                                                                               \
    }
    NN_SCALAR_NINTH(0)
    NN_SCALAR_NINTH(1)
    NN_SCALAR_NINTH(2)
    NN_SCALAR_NINTH(3)
    NN_SCALAR_NINTH(4)
    NN_SCALAR_NINTH(5)
    NN_SCALAR_NINTH(6)
    NN_SCALAR_NINTH(7)
    NN_SCALAR_NINTH(8)
#undef NN_SCALAR_NINTH
    *low = sum - (h << 16);
    *high = h;
}

NN_INLINE void nn_scalar_depthwise_put(void *y, uint32_t value, int twice, nn_stages own) {
    if (twice) {
        nn_put_twice(y, 0, (int32_t)(value << 1), 0, own);
    } else {
        nn_put(y, 0, (int32_t)value, 0, own);
    }
}

/* Rows `first` to `end` of both halves of channel c. */
NN_INLINE void nn_scalar_channel(const nn_s32 *plane, const nn_s8 *taps, int32_t low_bias, int32_t high_bias, void *y, int32_t c, int32_t first,
                                 int32_t end, uint32_t cuts, nn_scalar_depthwise_shape s, nn_stages stages) {
    const nn_stages own = nn_stages_at(stages, (size_t)c);
    const int32_t pitch = (s.out_w - 1) * s.stride_w + 3, lower = s.part_h * s.out_w * s.channels;
    const int32_t w[9] = {taps[0], taps[1], taps[2], taps[3], taps[4], taps[5], taps[6], taps[7], taps[8]};
    const int32_t size = (int32_t)nn_size(stages.type);
    nn_u8 *at = (nn_u8 *)y + (first * s.out_w * s.channels + c) * size;
    for (int32_t oh = first; oh < end; oh++) {
        const nn_s32 *from = plane + (oh - first) * s.stride_h * pitch;
        for (int32_t ow = 0; ow < s.out_w; ow++) {
            uint32_t low, high;
            nn_scalar_nine(from, pitch, w, cuts, &low, &high);
            nn_scalar_depthwise_put(at, low + (uint32_t)low_bias, s.twice, own);
            if (2 * s.part_h == s.out_h || oh + s.part_h < s.out_h) {
                nn_scalar_depthwise_put(at + lower * size, high + (uint32_t)high_bias, s.twice, own);
            }
            at += s.channels * size;
            from += s.stride_w;
        }
    }
}

/* Row h of channel c for the upper half, and the row below it for the lower, as a row of the plane. */
NN_INLINE void nn_scalar_plane_row(nn_s32 *to, const nn_u8 *x, int32_t h, nn_scalar_depthwise_shape s) {
    const int32_t pitch = (s.out_w - 1) * s.stride_w + 3, h1 = h + s.part_h * s.stride_h, row = s.in_w * s.channels;
    const int32_t inside = pitch - s.left < s.in_w ? pitch - s.left : s.in_w;
    const nn_u8 *low = x + h * row, *high = x + h1 * row;
    int32_t i = 0;
    for (; i < s.left && i < pitch; i++) {
        to[i] = s.zero * 65537;
    }
    if (h >= 0 && h1 < s.in_h) {
        for (int32_t k = 0; k < inside; k++, i++) {
            to[i] = (nn_s8)(*low ^ s.flip) + (nn_s8)(*high ^ s.flip) * 65536;
            low += s.channels;
            high += s.channels;
        }
    } else {
        const int upper = h >= 0 && h < s.in_h, under = h1 >= 0 && h1 < s.in_h;
        for (int32_t k = 0; k < inside; k++, i++) {
            const int32_t a = upper ? (nn_s8)(low[k * s.channels] ^ s.flip) : s.zero, b = under ? (nn_s8)(high[k * s.channels] ^ s.flip) : s.zero;
            to[i] = a + b * 65536;
        }
    }
    for (; i < pitch; i++) {
        to[i] = s.zero * 65537;
    }
}

/* w: nine taps and the index of its cuts for each channel; bias: of the upper half, less 32768 for each run, and of the lower. */
NN_INLINE void nn_depthwise_scalar(const void *x, const nn_s8 *w, nn_param low, nn_param high, void *y, nn_scalar_depthwise_shape s,
                                   nn_stages stages, void *scratch) {
    nn_s32 *const plane = (nn_s32 *)scratch;
    const int32_t pitch = (s.out_w - 1) * s.stride_w + 3;
    for (int32_t first = 0; first < s.part_h; first += s.strip) {
        const int32_t end = first + s.strip < s.part_h ? first + s.strip : s.part_h;
        const nn_s8 *taps = w;
        for (int32_t c = 0; c < s.channels; c++) {
            const int32_t b_low = (int32_t)nn_get(low, (size_t)c), b_high = (int32_t)nn_get(high, (size_t)c);
            for (int32_t i = 0; i < (end - first - 1) * s.stride_h + 3; i++) {
                nn_scalar_plane_row(plane + i * pitch, (const nn_u8 *)x + c, first * s.stride_h - s.top + i, s);
            }
#define NN_SCALAR_CUTS(n, ends)                                                                               \
    if ((s.cuts >> (n) & 1u) != 0 && (s.cuts == 1u << (n) || taps[9] == (n))) {                               \
        nn_scalar_channel(plane, taps, b_low, b_high, y, c, first, end, ends, s, stages);                     \
    }
            NN_SCALAR_CUTS(0, 0x100u)
            NN_SCALAR_CUTS(1, 0x110u)
            NN_SCALAR_CUTS(2, 0x124u)
            NN_SCALAR_CUTS(3, 0x1AAu)
#undef NN_SCALAR_CUTS
            taps += 10;
        }
    }
}
#endif
