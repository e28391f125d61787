/* y = levels[c, number of t with x >= thresholds[c, t]]: rows of a short ladder are walked, of a long one halved. */
#ifndef NN_THRESHOLD_H
#define NN_THRESHOLD_H
#include "nn.h"

#define NN_SHORT_LADDER 8

typedef struct {
    const void *thresholds, *levels;
    nn_type threshold_type, level_type;
    size_t count;                     /* thresholds in a row; a row of levels has one more */
    size_t threshold_row, level_row;  /* from one channel's row to the next: 0 where all share it */
} nn_threshold_args;

/* The rows of channel c for every channel. */
NN_INLINE nn_threshold_args nn_threshold_at(nn_threshold_args a, size_t c) {
    a.thresholds = nn_at(a.thresholds, c * a.threshold_row, a.threshold_type);
    a.levels = nn_at(a.levels, c * a.level_row, a.level_type);
    a.threshold_row = a.level_row = 0;
    return a;
}

NN_INLINE int64_t nn_threshold(int64_t x, size_t c, nn_threshold_args a) {
    const void *ladder = nn_at(a.thresholds, c * a.threshold_row, a.threshold_type);
    size_t at = 0;
    if (a.count <= NN_SHORT_LADDER) {
        for (size_t t = 0; t < a.count; t++) {
            at += x >= nn_load(ladder, t, a.threshold_type) ? 1u : 0u;
        }
    } else {
        size_t end = a.count; /* every threshold before `at` is reached, none from `end` on */
        while (at < end) {
            const size_t middle = (at + end) / 2;
            if (x >= nn_load(ladder, middle, a.threshold_type)) {
                at = middle + 1;
            } else {
                end = middle;
            }
        }
    }
    return nn_load(a.levels, c * a.level_row + at, a.level_type);
}
#endif
