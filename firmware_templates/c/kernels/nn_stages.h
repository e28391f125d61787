/* What happens to each value between the op that makes it and memory: up to two of requantize, threshold, lookup and
 * interpolate, so that an accumulator is never stored; then the store. */
#ifndef NN_STAGES_H
#define NN_STAGES_H
#include "nn.h"
#include "nn_interpolate.h"
#include "nn_lookup.h"
#include "nn_requantize.h"
#include "nn_threshold.h"

typedef struct {
    enum { NN_KEEP, NN_REQUANTIZE, NN_THRESHOLD, NN_LOOKUP, NN_INTERPOLATE } kind;
    nn_requantize_args requantize;
    nn_threshold_args threshold;
    nn_lookup_args lookup;
#ifdef NN_INTERPOLATES /* of model.c, where an op does: stages are as small as they can be for compilers that copy them */
    nn_interpolate_args interpolate;
#endif
} nn_stage;

typedef struct {
    nn_stage first, second;
    nn_type type; /* of what is stored */
} nn_stages;

NN_INLINE int64_t nn_stage_apply(int64_t x, size_t c, nn_stage s) {
    switch (s.kind) {
    case NN_REQUANTIZE: return nn_requantize(x, c, s.requantize);
    case NN_THRESHOLD: return nn_threshold(x, c, s.threshold);
    case NN_LOOKUP: return nn_lookup(x, s.lookup);
#ifdef NN_INTERPOLATES
    case NN_INTERPOLATE: return nn_interpolate(x, s.interpolate);
#endif
    default: return x;
    }
}

/* The stages of channel c alone, for loops over its values: tables are read once. Thresholds keep their tables. */
NN_INLINE nn_stage nn_stage_at(nn_stage s, size_t c) {
    if (s.kind == NN_REQUANTIZE) {
        s.requantize.multiplier = (nn_param)NN_ALL(nn_get(s.requantize.multiplier, c));
        s.requantize.offset = (nn_param)NN_ALL(nn_get(s.requantize.offset, c));
        s.requantize.shift = (nn_param)NN_ALL(nn_get(s.requantize.shift, c));
    } else if (s.kind == NN_THRESHOLD) {
        s.threshold = nn_threshold_at(s.threshold, c);
    }
    return s;
}
NN_INLINE nn_stages nn_stages_at(nn_stages s, size_t c) {
    s.first = nn_stage_at(s.first, c);
    s.second = nn_stage_at(s.second, c);
    return s;
}

/* y[i] = the value of channel c after the stages. */
NN_INLINE void nn_put(void *y, size_t i, int64_t value, size_t c, nn_stages s) {
    nn_store(y, i, nn_stage_apply(nn_stage_apply(value, c, s.first), c, s.second), s.type);
}

/* The same from twice the value, where the first stage is nn_tflm_short, which needs that: a kernel may have it for nothing. */
NN_INLINE void nn_put_twice(void *y, size_t i, int32_t twice, size_t c, nn_stages s) {
    const nn_requantize_args q = s.first.requantize;
    const int32_t right = (int32_t)nn_get(q.shift, c), multiplier = (int32_t)nn_get(q.multiplier, c);
    const int32_t value = nn_clamp(nn_tflm_short(twice, multiplier, (uint32_t)right, (int32_t)q.output_offset), q);
    nn_store(y, i, nn_stage_apply(value, c, s.second), s.type);
}
#endif
