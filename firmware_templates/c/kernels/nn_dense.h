/* acc[o] = bias[o] + sum of x[i] * weight[o, i]; the zero point of x is folded into the bias. */
#ifndef NN_DENSE_H
#define NN_DENSE_H
#include "nn_stages.h"

typedef struct {
    size_t rows, in, out; /* rows: the earlier axes, which are kept */
    nn_type x_type, w_type;
    int wide; /* the sum needs int64 */
} nn_dense_shape;

NN_INLINE void nn_dense(const void *x, const void *w, nn_param bias, void *y, nn_dense_shape d, nn_stages stages) {
    for (size_t row = 0; row < d.rows; row++) {
        const void *x_row = nn_at(x, row * d.in, d.x_type), *w_row = w;
        for (size_t o = 0; o < d.out; o++) {
            nn_sum sum = nn_start(nn_get(bias, o), d.wide);
            sum = nn_dot(sum, x_row, 1, d.x_type, 0, w_row, 1, d.w_type, d.in, d.wide);
            w_row = nn_at(w_row, d.in, d.w_type);
            nn_put(y, row * d.out + o, nn_total(sum, d.wide), o, stages);
        }
    }
}
#endif
