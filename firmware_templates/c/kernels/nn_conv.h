/* Convolution, NHWC by OHWI: with groups, strides, dilation and padding. A window is clipped to the input, so that what
 * lies outside adds nothing; where there is padding the zero point of x is subtracted from each x, else it is folded into
 * the bias. One dimension is two with a height of 1. */
#ifndef NN_CONV_H
#define NN_CONV_H
#include "nn_stages.h"

typedef struct {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, k_h, k_w, stride_h, stride_w, dilation_h, dilation_w, top, left, groups;
    int padded;         /* some window reaches outside the input */
    int64_t zero_point; /* to subtract from each x */
    nn_type x_type, w_type;
    int wide; /* the sum needs int64 */
} nn_conv_shape;

/* The first tap whose position start + tap * dilation is inside, and the first after it that is beyond size. */
NN_INLINE int32_t nn_first_tap(int32_t start, int32_t dilation) { return start >= 0 ? 0 : (dilation - 1 - start) / dilation; }
NN_INLINE int32_t nn_end_tap(int32_t start, int32_t taps, int32_t dilation, int32_t size) {
    const int32_t end = size <= start ? 0 : (size - start + dilation - 1) / dilation;
    return end < taps ? end : taps;
}

/* sum + that of the window whose first tap is at row h and column v, rows h0 to h1 of it, by the weights of channel o. */
NN_INLINE nn_sum nn_conv_window(nn_sum sum, const void *x, const void *w_out, int32_t o, int32_t h, int32_t h0, int32_t h1, int32_t v,
                                nn_conv_shape s) {
    const int32_t group_in = s.in_c / s.groups, group_out = s.out_c / s.groups;
    const int32_t w0 = s.padded ? nn_first_tap(v, s.dilation_w) : 0;
    const int32_t w1 = s.padded ? nn_end_tap(v, s.k_w, s.dilation_w, s.in_w) : s.k_w;
    const int32_t rows_end = w1 > w0 ? h1 : h0; /* a window beside the input has no tap */
    for (int32_t i = h0; i < rows_end; i++) {
        const int32_t row = (h + i * s.dilation_h) * s.in_w + v, c = o / group_out * group_in;
        if (s.dilation_w == 1 && s.groups == 1) { /* the taps of a row lie side by side, in x as in w */
            const size_t n = (size_t)((w1 - w0) * group_in);
            const void *x_run = nn_at(x, (size_t)((row + w0) * s.in_c), s.x_type);
            const void *w_run = nn_at(w_out, (size_t)((i * s.k_w + w0) * group_in), s.w_type);
            sum = nn_dot(sum, x_run, 1, s.x_type, s.zero_point, w_run, 1, s.w_type, n, s.wide);
        } else {
            for (int32_t j = w0; j < w1; j++) {
                const void *x_run = nn_at(x, (size_t)((row + j * s.dilation_w) * s.in_c + c), s.x_type);
                const void *w_run = nn_at(w_out, (size_t)((i * s.k_w + j) * group_in), s.w_type);
                sum = nn_dot(sum, x_run, 1, s.x_type, s.zero_point, w_run, 1, s.w_type, (size_t)group_in, s.wide);
            }
        }
    }
    return sum;
}

NN_INLINE void nn_conv(const void *x, const void *w, nn_param bias, void *y, nn_conv_shape s, nn_stages stages) {
    size_t at = 0;
    for (int32_t oh = 0; oh < s.out_h; oh++) {
        const int32_t h = oh * s.stride_h - s.top;
        const int32_t h0 = s.padded ? nn_first_tap(h, s.dilation_h) : 0;
        const int32_t h1 = s.padded ? nn_end_tap(h, s.k_h, s.dilation_h, s.in_h) : s.k_h;
        for (int32_t ow = 0; ow < s.out_w; ow++) {
            const int32_t v = ow * s.stride_w - s.left;
            const void *w_out = w;
            for (int32_t o = 0; o < s.out_c; o++) {
                const nn_sum sum = nn_conv_window(nn_start(nn_get(bias, (size_t)o), s.wide), x, w_out, o, h, h0, h1, v, s);
                w_out = nn_at(w_out, (size_t)(s.k_h * s.k_w * (s.in_c / s.groups)), s.w_type);
                nn_put(y, at++, nn_total(sum, s.wide), (size_t)o, stages);
            }
        }
    }
}
#endif
