/* Convolutions whose weights lie in flash as nn_stored.h reads them, on cores with the DSP extension: four rows of weights at a time are
 * decoded into the packed rows of nn_dsp.h, and serve every position of the output. */
#ifndef NN_STORED_DSP_H
#define NN_STORED_DSP_H
#include "nn_dsp.h"
#include "nn_stored.h"

/* A row of weights, `segments` runs of `run` values in `row`, as row r of the four in `block`; even rows come first. */
NN_INLINE void nn_stored_pack(nn_s16 *block, const void *row, int32_t r, int32_t segments, int32_t run, nn_type type) {
    const int32_t pairs = (run + 1) / 2;
    int32_t from = 0;
    block += r / 2 * 2;
    for (int32_t i = 0; i < segments; i++) {
        for (int32_t k = 0; k < 2 * pairs; k++) {
            const int32_t value = k < run ? (int32_t)nn_load(row, (size_t)from++, type) : 0;
            nn_s16 *to = block + i * 4 * pairs + k / 2 * 4 + k % 2;
            *to = (nn_s16)(r % 2 == 0 ? value * 256 : *to + value);
        }
    }
}

NN_INLINE void nn_conv_stored_dsp(const void *x, const void *w, nn_param bias, void *y, nn_dsp_shape s, nn_stages stages, nn_stored_form f,
                                  nn_dsp_dot *dot, nn_s16 *rows, nn_s16 *block, void *row) {
    const int32_t run = s.k_w * s.in_c;
    nn_stored_reader r = nn_stored_start(w);
    for (int32_t o = 0; o < s.out_c; o += 4) {
        for (int32_t k = 0; k < 4; k++) {
            if (s.out_c % 4 == 0 || o + k < s.out_c) { /* what is left of rows before them is not stored */
                nn_stored_row(row, (size_t)(s.k_h * run), (size_t)(o + k), &r, f);
                nn_stored_pack(block, row, k, s.k_h, run, f.type);
            }
        }
        for (int32_t first = 0; first < s.out_w; first += s.tile) {
            const int32_t end = s.out_w - first < s.tile ? s.out_w - first : s.tile;
            for (int32_t oh = 0; oh < s.out_h; oh++) {
                nn_dsp_fill(rows, x, oh, first, s);
                for (int32_t ow = 0; ow < end; ow += 2) {
                    nn_s32 sums[8];
                    dot(rows + ow * s.stride_w * s.in_c, block, sums);
                    nn_dsp_put_four(y, (oh * s.out_w + first + ow) * s.out_c, sums, o, ow + 1 < end, bias, s, stages);
                }
            }
        }
    }
}
#endif
