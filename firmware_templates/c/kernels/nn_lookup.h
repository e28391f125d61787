/* y = table[x - min], min the smallest value of x's type: the table has an entry for each. */
#ifndef NN_LOOKUP_H
#define NN_LOOKUP_H
#include "nn.h"

typedef struct {
    const void *table;
    nn_type type;
    int64_t min;
} nn_lookup_args;

NN_INLINE int64_t nn_lookup(int64_t x, nn_lookup_args a) { return nn_load(a.table, (size_t)((int32_t)x - (int32_t)a.min), a.type); }
#endif
