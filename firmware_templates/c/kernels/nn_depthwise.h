/* Convolution with one input channel for each output: weight [kh, kw, out], channel o reads input channel o / (out / in). */
#ifndef NN_DEPTHWISE_H
#define NN_DEPTHWISE_H
#include "nn_conv.h"

NN_INLINE void nn_depthwise(const void *x, const void *w, nn_param bias, void *y, nn_conv_shape s, nn_stages stages) {
    const int32_t repeat = s.out_c / s.in_c;
    size_t at = 0;
    for (int32_t oh = 0; oh < s.out_h; oh++) {
        const int32_t h = oh * s.stride_h - s.top;
        const int32_t h0 = s.padded ? nn_first_tap(h, s.dilation_h) : 0;
        const int32_t h1 = s.padded ? nn_end_tap(h, s.k_h, s.dilation_h, s.in_h) : s.k_h;
        for (int32_t ow = 0; ow < s.out_w; ow++) {
            const int32_t v = ow * s.stride_w - s.left;
            const int32_t w0 = s.padded ? nn_first_tap(v, s.dilation_w) : 0;
            const int32_t w1 = s.padded ? nn_end_tap(v, s.k_w, s.dilation_w, s.in_w) : s.k_w;
            const int32_t rows_end = w1 > w0 ? h1 : h0; /* a window beside the input has no tap */
            for (int32_t o = 0; o < s.out_c; o++) {
                nn_sum sum = nn_start(nn_get(bias, (size_t)o), s.wide);
                for (int32_t i = h0; i < rows_end; i++) {
                    const int32_t pixel = (h + i * s.dilation_h) * s.in_w + v + w0 * s.dilation_w;
                    const void *x_run = nn_at(x, (size_t)(pixel * s.in_c + o / repeat), s.x_type);
                    const void *w_run = nn_at(w, (size_t)((i * s.k_w + w0) * s.out_c + o), s.w_type);
                    sum = nn_dot(sum, x_run, (size_t)(s.dilation_w * s.in_c), s.x_type, s.zero_point, w_run, (size_t)s.out_c,
                                 s.w_type, (size_t)(w1 - w0), s.wide);
                }
                nn_put(y, at++, nn_total(sum, s.wide), (size_t)o, stages);
            }
        }
    }
}
#endif
