/* What follows a sum, four channels at a time, for cores with Helium (MVE): the stages of nn_stages.h by vector instructions where they are
 * requantizations without 64-bit numbers, or a lookup after one; else, and on other cores, value by value.
 *
 * TensorFlow Lite Micro's rounding is exact: its first step, floor((a * m + 2**30) / 2**31), is VQRDMULH, (2 * a * m + 2**31) >> 32, as m is
 * never -2**31. Its second takes halves away from zero where VRSHL takes them up: they differ for negative numbers, from which 1 is taken
 * first, floor((h - 1 + half) / 2**right), but only where there is a shift. h is above -2**31, so nothing overflows; VRSHL's sum does not. */
#ifndef NN_HELIUM_STAGES_H
#define NN_HELIUM_STAGES_H
#include "nn_stages.h"

#ifdef __ARM_FEATURE_MVE
#include <arm_mve.h>

/* Four channels of a table, or one value for all; `left` channels are there, `whole` says that they are always four. */
NN_INLINE int32x4_t nn_helium_param(nn_param p, int32_t c, int32_t left, int whole) {
    if (p.table == 0) {
        return vdupq_n_s32((int32_t)p.value);
    }
    const mve_pred16_t there = whole ? (mve_pred16_t)0xFFFF : vctp32q((uint32_t)left);
    switch (p.type) {
    case NN_S8: return whole ? vldrbq_s32((const int8_t *)p.table + c) : vldrbq_z_s32((const int8_t *)p.table + c, there);
    case NN_U8:
        return vreinterpretq_s32_u32(whole ? vldrbq_u32((const uint8_t *)p.table + c) : vldrbq_z_u32((const uint8_t *)p.table + c, there));
    case NN_S16: return whole ? vldrhq_s32((const int16_t *)p.table + c) : vldrhq_z_s32((const int16_t *)p.table + c, there);
    case NN_U16:
        return vreinterpretq_s32_u32(whole ? vldrhq_u32((const uint16_t *)p.table + c)
                                           : vldrhq_z_u32((const uint16_t *)p.table + c, there));
    default: return whole ? vldrwq_s32((const int32_t *)p.table + c) : vldrwq_z_s32((const int32_t *)p.table + c, there);
    }
}

/* Whether the vector forms below do these stages. */
NN_INLINE int nn_helium_takes(nn_stages s) {
    const nn_requantize_args q = s.first.requantize;
    const int rounding = q.rounding == NN_TFLM || q.rounding == NN_TFLM_SHORT ||
                         (!q.wide && (q.rounding == NN_FLOOR || q.rounding == NN_HALF_EVEN));
    const int second = s.second.kind == NN_KEEP ||
                       (s.second.kind == NN_LOOKUP && (s.second.lookup.type == NN_S8 || s.second.lookup.type == NN_U8 ||
                                                       s.second.lookup.type == NN_S16 || s.second.lookup.type == NN_S32));
    return s.first.kind == NN_REQUANTIZE && !q.wide_result && rounding && second && s.type != NN_S64;
}

NN_INLINE int32x4_t nn_helium_requantize(int32x4_t a, int32x4_t m, int32x4_t offset, int32x4_t shift, nn_requantize_args q) {
    if (q.rounding == NN_TFLM_SHORT) {
        a = vqrdmulhq_s32(a, m);
        a = vrshlq_s32(vaddq_s32(a, vshrq_n_s32(a, 31)), vnegq_s32(shift));
    } else if (q.rounding == NN_TFLM) {
        const int32x4_t left = vsubq_s32(vdupq_n_s32(31), shift); /* negative: the second shift */
        const int32x4_t right = vminq_s32(left, vdupq_n_s32(0));
        a = vqrdmulhq_s32(vqshlq_s32(a, vmaxq_s32(left, vdupq_n_s32(0))), m);
        a = vrshlq_s32(vaddq_s32(a, vshrq_n_s32(vandq_s32(a, right), 31)), right);
    } else {
        a = vaddq_s32(vmulq_s32(a, m), offset);
        if (q.rounding == NN_HALF_EVEN) { /* half a step less one unit, and that unit where the result would be odd */
            const int32x4_t one = vdupq_n_s32(1), below = vsubq_s32(vshlq_s32(one, shift), one);
            const int32x4_t odd = vandq_s32(vshlq_s32(a, vnegq_s32(shift)), vminq_s32(shift, one));
            a = vaddq_s32(a, vaddq_s32(vshrq_n_s32(below, 1), odd));
        }
        a = vshlq_s32(a, vnegq_s32(shift));
    }
    if (q.output_offset != 0) {
        a = vaddq_n_s32(a, (int32_t)q.output_offset);
    }
    if (q.min > INT32_MIN) {
        a = vmaxq_s32(a, vdupq_n_s32((int32_t)q.min));
    }
    if (q.max < INT32_MAX) {
        a = vminq_s32(a, vdupq_n_s32((int32_t)q.max));
    }
    return a;
}

/* Lanes that are not there read nothing. */
NN_INLINE int32x4_t nn_helium_lookup(int32x4_t a, int32_t left, int whole, nn_lookup_args t) {
    const mve_pred16_t there = whole ? (mve_pred16_t)0xFFFF : vctp32q((uint32_t)left);
    const uint32x4_t at = vreinterpretq_u32_s32(vsubq_n_s32(a, (int32_t)t.min));
    switch (t.type) {
    case NN_S8:
        return whole ? vldrbq_gather_offset_s32((const int8_t *)t.table, at)
                     : vldrbq_gather_offset_z_s32((const int8_t *)t.table, at, there);
    case NN_U8:
        return vreinterpretq_s32_u32(whole ? vldrbq_gather_offset_u32((const uint8_t *)t.table, at)
                                           : vldrbq_gather_offset_z_u32((const uint8_t *)t.table, at, there));
    case NN_S16:
        return whole ? vldrhq_gather_shifted_offset_s32((const int16_t *)t.table, at)
                     : vldrhq_gather_shifted_offset_z_s32((const int16_t *)t.table, at, there);
    default:
        return whole ? vldrwq_gather_shifted_offset_s32((const int32_t *)t.table, at)
                     : vldrwq_gather_shifted_offset_z_s32((const int32_t *)t.table, at, there);
    }
}

NN_INLINE void nn_helium_store(void *y, int32_t at, int32x4_t a, int32_t left, int whole, nn_type type) {
    const mve_pred16_t there = whole ? (mve_pred16_t)0xFFFF : vctp32q((uint32_t)left);
    switch (nn_size(type)) {
    case 1:
        if (whole) {
            vstrbq_s32((int8_t *)y + at, a);
        } else {
            vstrbq_p_s32((int8_t *)y + at, a, there);
        }
        break;
    case 2:
        if (whole) {
            vstrhq_s32((int16_t *)y + at, a);
        } else {
            vstrhq_p_s32((int16_t *)y + at, a, there);
        }
        break;
    default:
        if (whole) {
            vstrwq_s32((int32_t *)y + at, a);
        } else {
            vstrwq_p_s32((int32_t *)y + at, a, there);
        }
        break;
    }
}

/* Four channels at `count` positions. */
NN_INLINE void nn_helium_four(void *y, int32_t at, int32_t step, int32_t count, const nn_s32 *sums, int32_t row, int32_t c, int32_t left,
                              int whole, nn_param bias, nn_stages s) {
    const nn_requantize_args q = s.first.requantize;
    const int32x4_t start = nn_helium_param(bias, c, left, whole), m = nn_helium_param(q.multiplier, c, left, whole);
    const int32x4_t offset = nn_helium_param(q.offset, c, left, whole), shift = nn_helium_param(q.shift, c, left, whole);
    for (int32_t p = 0; p < count; p++) {
        int32x4_t a = vaddq_s32(vldrwq_s32((const int32_t *)sums + p * row), start);
        a = nn_helium_requantize(a, m, offset, shift, q);
        if (s.second.kind == NN_LOOKUP) {
            a = nn_helium_lookup(a, left, whole, s.second.lookup);
        }
        nn_helium_store(y, at + p * step, a, left, whole, s.type);
    }
}
#endif

/* n sums at each of `count` positions, `row` apart, of channels c and following, with the bias through the stages: y[at] is the first of
 * the outputs, `step` from a position to the next. whole: n is a multiple of 4. */
NN_INLINE void nn_helium_put(void *y, int32_t at, int32_t step, int32_t count, const nn_s32 *sums, int32_t row, int32_t c, int32_t n, int whole,
                             nn_param bias, nn_stages s) {
#ifdef __ARM_FEATURE_MVE
    if (nn_helium_takes(s)) {
        for (int32_t i = 0; i < n; i += 4) {
            if (count == 4) {
                nn_helium_four(y, at + i, step, 4, sums + i, row, c + i, n - i, whole, bias, s);
            } else {
                nn_helium_four(y, at + i, step, count, sums + i, row, c + i, n - i, whole, bias, s);
            }
        }
        return;
    }
#endif
    (void)whole;
    for (int32_t p = 0; p < count; p++) {
        for (int32_t i = 0; i < n; i++) {
            const uint32_t sum = (uint32_t)sums[p * row + i] + (uint32_t)nn_get(bias, (size_t)(c + i));
            nn_put(y, (size_t)(at + p * step + i), (int32_t)sum, (size_t)(c + i), s);
        }
    }
}
#endif
