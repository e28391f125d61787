/* Values carried elsewhere unchanged. Transpose, concat, pad, upsample and plain copies are all one loop nest over an
 * input and an output with a step for each axis; a step of 0 repeats. */
#ifndef NN_MOVE_H
#define NN_MOVE_H
#include "nn.h"

#define NN_MOVE_AXES 6

typedef struct {
    size_t size[NN_MOVE_AXES], x_step[NN_MOVE_AXES], y_step[NN_MOVE_AXES];
    nn_type x_type, y_type;
} nn_move_shape;

NN_INLINE void nn_move(const void *x, void *y, nn_move_shape s) {
    const int run = s.x_step[5] == 1 && s.y_step[5] == 1 && s.x_type == s.y_type;
    for (size_t i = 0; i < s.size[0]; i++) {
        for (size_t j = 0; j < s.size[1]; j++) {
            for (size_t k = 0; k < s.size[2]; k++) {
                for (size_t l = 0; l < s.size[3]; l++) {
                    for (size_t m = 0; m < s.size[4]; m++) {
                        const size_t p = i * s.x_step[0] + j * s.x_step[1] + k * s.x_step[2] + l * s.x_step[3] + m * s.x_step[4];
                        const size_t q = i * s.y_step[0] + j * s.y_step[1] + k * s.y_step[2] + l * s.y_step[3] + m * s.y_step[4];
                        if (run) {
                            nn_copy_bytes((nn_u8 *)y + q * nn_size(s.y_type), nn_at(x, p, s.x_type), s.size[5] * nn_size(s.x_type));
                        } else {
                            for (size_t n = 0; n < s.size[5]; n++) {
                                nn_store(y, q + n * s.y_step[5], nn_load(x, p + n * s.x_step[5], s.x_type), s.y_type);
                            }
                        }
                    }
                }
            }
        }
    }
}

NN_INLINE void nn_copy(const void *x, void *y, size_t bytes) { nn_copy_bytes(y, x, bytes); }

NN_INLINE void nn_fill(void *y, nn_type type, size_t count, int64_t value) {
    if (nn_size(type) == 1 || value == 0) {
        __builtin_memset(y, (int)(uint8_t)value, count * nn_size(type));
    } else {
        for (size_t i = 0; i < count; i++) {
            nn_store(y, i, value, type);
        }
    }
}
#endif
