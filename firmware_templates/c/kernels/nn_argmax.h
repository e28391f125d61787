/* The index of the largest along the last axis, the first of equals. */
#ifndef NN_ARGMAX_H
#define NN_ARGMAX_H
#include "nn.h"

NN_INLINE void nn_argmax(const void *x, nn_type x_type, void *y, nn_type y_type, size_t rows, size_t channels) {
    for (size_t row = 0; row < rows; row++) {
        size_t best = 0;
        int64_t largest = nn_load(x, row * channels, x_type);
        for (size_t c = 1; c < channels; c++) {
            const int64_t value = nn_load(x, row * channels + c, x_type);
            if (value > largest) {
                largest = value;
                best = c;
            }
        }
        nn_store(y, row, (int64_t)best, y_type);
    }
}
#endif
