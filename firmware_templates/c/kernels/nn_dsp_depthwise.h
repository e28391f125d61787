/* Depthwise convolutions with 3 by 3 windows on Cortex-M cores with the DSP extension. Four channels at a time are taken apart
 * into planes of int16, padding included; then two neighbouring outputs come from aligned words X = (s0, s1), N = (s2, s3) and, for
 * each row of a window, two words of weights (w0, w1), (w1, w2): twelve SMLAD and its half forms for eighteen products, nothing
 * shifted. At stride 2 the second output's words are the next ones. */
#ifndef NN_DSP_DEPTHWISE_H
#define NN_DSP_DEPTHWISE_H
#include "nn_dsp_words.h"
#include "nn_stages.h"

typedef struct {
    int32_t in_h, in_w, out_h, out_w, channels, stride, top, left;
    int32_t strip; /* rows of the output made of one filling of the planes */
    int32_t pitch; /* elements from a row of a plane to the next, even */
    int32_t zero_point;
    int x_signed;
    uint32_t shifts; /* where weights and bias are doubled for nn_tflm_short: bit n for a channel that shifts right by n; else 0 */
} nn_dsp_depthwise_shape;

/* All outputs of one channel in a strip of rows by a function of nn_dsp.S: `right` says which, `end` is behind the last row of y. */
typedef void nn_dsp_rows(const nn_s16 *plane, nn_s8 *y, const nn_u32 *w, const nn_s8 *end, int32_t multiplier, int32_t start,
                         int32_t right);

/* n channels of a pixel as the bytes of a word. */
NN_INLINE uint32_t nn_dsp_pixel(const nn_u8 *x, int32_t n) {
    uint32_t word = 0;
    if (n == 4) {
        __builtin_memcpy(&word, x, 4);
        return word;
    }
    for (int32_t k = 0; k < n; k++) {
        word |= (uint32_t)x[k] << (8 * k);
    }
    return word;
}

/* Two pixels, a and b, as columns j and j + 1 of four planes. */
NN_INLINE void nn_dsp_split(nn_s16 *to, int32_t plane, uint32_t a, uint32_t b, int x_signed) {
    const uint32_t low = nn_dsp_lows(a, b), high = nn_dsp_highs(a, b);
    *(nn_u32 *)(void *)to = nn_dsp_even(low, x_signed);
    *(nn_u32 *)(void *)(to + plane) = nn_dsp_odd(low, x_signed);
    *(nn_u32 *)(void *)(to + 2 * plane) = nn_dsp_even(high, x_signed);
    *(nn_u32 *)(void *)(to + 3 * plane) = nn_dsp_odd(high, x_signed);
}

/* One pixel as a column of four planes. */
NN_INLINE void nn_dsp_column(nn_s16 *to, int32_t plane, uint32_t a, int x_signed) {
    to[0] = x_signed ? (nn_s16)(int8_t)a : (nn_s16)(uint8_t)a;
    to[plane] = x_signed ? (nn_s16)(int8_t)(a >> 8) : (nn_s16)(uint8_t)(a >> 8);
    to[2 * plane] = x_signed ? (nn_s16)(int8_t)(a >> 16) : (nn_s16)(uint8_t)(a >> 16);
    to[3 * plane] = x_signed ? (nn_s16)(int8_t)(a >> 24) : (nn_s16)(uint8_t)(a >> 24);
}

/* Columns of the input that a row of a plane has room for. */
NN_INLINE int32_t nn_dsp_inside(nn_dsp_depthwise_shape s) {
    const int32_t room = s.pitch > s.left ? s.pitch - s.left : 0;
    return s.in_w < room ? s.in_w : room;
}

/* What no channel writes in `rows` rows of four planes, of which the first is row h of the input: the zero point. */
NN_INLINE void nn_dsp_margins(nn_s16 *planes, int32_t plane, int32_t h, int32_t rows, nn_dsp_depthwise_shape s) {
    const int32_t before = s.left < s.pitch ? s.left : s.pitch, behind = before + nn_dsp_inside(s);
    for (int32_t i = 0; i < rows; i++) {
        const int outside = h + i < 0 || h + i >= s.in_h;
        for (int32_t k = 0; k < 4; k++) {
            nn_s16 *row = planes + k * plane + i * s.pitch;
            for (int32_t j = 0; j < (outside ? s.pitch : before); j++) {
                row[j] = (nn_s16)s.zero_point;
            }
            for (int32_t j = behind; j < s.pitch; j++) {
                row[j] = (nn_s16)s.zero_point;
            }
        }
    }
}

/* Row h of the input, channels c to c + n - 1, in a row of four planes; two columns at once where a word begins with the first. */
NN_INLINE void nn_dsp_planes(nn_s16 *to, int32_t plane, const nn_u8 *x, int32_t h, int32_t c, int32_t n, nn_dsp_depthwise_shape s) {
    const int32_t inside = nn_dsp_inside(s), alone = inside > 0 ? s.left % 2 : 0;
    const int32_t pairs = (inside - alone) / 2;
    const nn_u8 *from = x + h * s.in_w * s.channels + c;
    nn_s16 *at = to + s.left;
    if (alone != 0) {
        nn_dsp_column(at, plane, nn_dsp_pixel(from, n), s.x_signed);
        from += s.channels;
        at++;
    }
    NN_UNROLL
    for (int32_t k = 0; k < pairs; k++) {
        nn_dsp_split(at, plane, nn_dsp_pixel(from, n), nn_dsp_pixel(from + s.channels, n), s.x_signed);
        from += 2 * s.channels;
        at += 2;
    }
    if (inside - alone > 2 * pairs) {
        nn_dsp_column(at, plane, nn_dsp_pixel(from, n), s.x_signed);
    }
}

/* From the sum to memory. Where `right` is not 0 the sum is twice the sum, and a shift known here makes of TensorFlow Lite Micro's
 * rounding three instructions: half and output offset come in with the product (SMMLAR), the sign, and a shift that saturates. */
NN_INLINE void nn_dsp_depthwise_put(void *y, int32_t at, int32_t sum, int32_t right, nn_stages own, nn_type type) {
#ifdef __ARM_FEATURE_DSP
    if (right != 0 && own.first.requantize.saturate == 8 && own.second.kind == NN_KEEP) {
        const int32_t offset = (int32_t)(((uint32_t)1 << right >> 1) + ((uint32_t)own.first.requantize.output_offset << right));
        int32_t d;
        __asm__("smmlar %0, %1, %2, %3" : "=r"(d) : "r"(sum), "r"((int32_t)own.first.requantize.multiplier.value), "r"(offset));
        d += sum >> 31;
        __asm__("ssat %0, #8, %1, asr %2" : "=r"(d) : "r"(d), "I"(right) : "cc");
        nn_store(y, (size_t)at, d, type);
        return;
    }
#endif
    if (right != 0) {
        own.type = type;
        nn_put_twice(y, (size_t)at, sum, 0, own);
    } else {
        nn_store(y, (size_t)at, nn_stage_apply(nn_stage_apply(sum, 0, own.first), 0, own.second), type);
    }
}

/* All outputs of one channel in a strip of rows; w: (w0, w1), (w1, w2) for each row of the window. */
NN_INLINE void nn_dsp_channel(const nn_s16 *plane, const nn_u32 *w, int32_t bias, void *y, int32_t at, int32_t rows, int32_t c,
                              int32_t right, nn_dsp_depthwise_shape s, nn_stages stages) {
    const nn_stages own = nn_stages_at(stages, (size_t)c);
    const uint32_t a01 = w[0], a12 = w[1], b01 = w[2], b12 = w[3], c01 = w[4], c12 = w[5];
    for (int32_t oh = 0; oh < rows; oh++) {
        const nn_s16 *from = plane + oh * s.stride * s.pitch;
        for (int32_t ow = 0; ow < s.out_w; ow += 2) {
            uint32_t first = (uint32_t)bias, second = (uint32_t)bias;
#define NN_DSP_WINDOW_ROW(row, w01, w12)                                                            \
    {                                                                                               \
        const nn_u32 *words = (const nn_u32 *)(const void *)(from + (row)*s.pitch);                 \
        const uint32_t x0 = words[0], x1 = words[1];                                                \
        first = nn_dsp_low_high(x1, w12, nn_dsp_both(x0, w01, first));                              \
        if (s.stride == 1) {                                                                        \
            second = nn_dsp_both(x1, w12, nn_dsp_high_low(x0, w01, second));                        \
        } else {                                                                                    \
            second = nn_dsp_low_high(words[2], w12, nn_dsp_both(x1, w01, second));                  \
        }                                                                                           \
    }
            NN_DSP_WINDOW_ROW(0, a01, a12)
            NN_DSP_WINDOW_ROW(1, b01, b12)
            NN_DSP_WINDOW_ROW(2, c01, c12)
#undef NN_DSP_WINDOW_ROW
            nn_dsp_depthwise_put(y, at, (int32_t)first, right, own, stages.type);
            if (s.out_w % 2 == 0 || ow + 1 < s.out_w) {
                nn_dsp_depthwise_put(y, at + s.channels, (int32_t)second, right, own, stages.type);
                at += s.channels;
            }
            at += s.channels;
            from += 2 * s.stride;
        }
    }
}

/* `all` is 0 where there is no function in nn_dsp.S for this shape. */
NN_INLINE void nn_depthwise_dsp(const void *x, const nn_u32 *w, nn_param bias, void *y, nn_dsp_depthwise_shape s, nn_stages stages,
                                nn_s16 *planes, nn_dsp_rows *all) {
    const int32_t plane = ((s.strip - 1) * s.stride + 3) * s.pitch;
    for (int32_t first = 0; first < s.out_h; first += s.strip) {
        const int32_t rows = s.out_h - first < s.strip ? s.out_h - first : s.strip, top = first * s.stride - s.top;
        const int32_t given = (rows - 1) * s.stride + 3;
        const int32_t begin = top < 0 ? -top : 0, end = s.in_h - top < given ? s.in_h - top : given; /* rows inside the input */
        nn_dsp_margins(planes, plane, top, given, s);
        for (int32_t c = 0; c < s.channels; c += 4) {
            const int32_t n = s.channels % 4 == 0 || s.channels - c >= 4 ? 4 : s.channels - c;
            for (int32_t i = begin; i < end; i++) {
                nn_dsp_planes(planes + i * s.pitch, plane, (const nn_u8 *)x, top + i, c, n, s);
            }
            for (int32_t k = 0; k < n; k++) {
                const int32_t at = first * s.out_w * s.channels + c + k, start = (int32_t)nn_get(bias, (size_t)(c + k));
                const nn_u32 *words = w + 6 * (c + k);
                const nn_s16 *from = planes + k * plane;
                if (s.shifts == 0) {
                    nn_dsp_channel(from, words, start, y, at, rows, c + k, 0, s, stages);
                    continue;
                }
                const int32_t right = (int32_t)nn_get(stages.first.requantize.shift, (size_t)(c + k));
                if (all != 0) {
                    nn_s8 *to = (nn_s8 *)y + at;
                    const int32_t multiplier = (int32_t)nn_get(stages.first.requantize.multiplier, (size_t)(c + k));
                    all(from, to, words, to + rows * s.out_w * s.channels, multiplier, start, right);
                    continue;
                }
#define NN_DSP_SHIFT(n)                                                                \
    if ((s.shifts >> (n) & 1u) != 0 && right == (n)) {                                 \
        nn_dsp_channel(from, words, start, y, at, rows, c + k, n, s, stages);          \
    }
                NN_DSP_SHIFT(1)
                NN_DSP_SHIFT(2)
                NN_DSP_SHIFT(3)
                NN_DSP_SHIFT(4)
                NN_DSP_SHIFT(5)
                NN_DSP_SHIFT(6)
                NN_DSP_SHIFT(7)
                NN_DSP_SHIFT(8)
                NN_DSP_SHIFT(9)
                NN_DSP_SHIFT(10)
                NN_DSP_SHIFT(11)
                NN_DSP_SHIFT(12)
#undef NN_DSP_SHIFT
            }
        }
    }
}
#endif
