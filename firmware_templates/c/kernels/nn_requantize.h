/* y = clamp(output_offset + round((acc * multiplier + offset) / 2**shift)); docs/numerics.md, requantize.
 *
 * Floor is the one rounding that a shift does; each other mode adds what makes it that mode first. The generator turns
 * half_up, half_down and ceil into floor by their offsets, which is exact. It has proved that the whole sum fits int32,
 * or int64 where `wide`, and that the result before clamping fits int32, or int64 where `wide_result`. */
#ifndef NN_REQUANTIZE_H
#define NN_REQUANTIZE_H
#include "nn.h"

typedef enum { NN_FLOOR, NN_HALF_EVEN, NN_HALF_AWAY, NN_HALF_TOWARD_ZERO, NN_TOWARD_ZERO, NN_AWAY_FROM_ZERO, NN_TFLM, NN_TFLM_SHORT } nn_rounding;

typedef struct {
    nn_rounding rounding;
    nn_param multiplier, offset, shift;
    int64_t output_offset, min, max;
    int wide, wide_result;
    int saturate; /* n: min and max are those of a signed number of n bits; else 0 */
} nn_requantize_args;

/* y within min and max. One instruction does it on some cores; compilers find it themselves for numbers without a sign. */
NN_INLINE int32_t nn_clamp(int32_t y, nn_requantize_args q) {
#ifdef __ARM_FEATURE_SAT
#define NN_SATURATE(n)                                             \
    if (q.saturate == (n)) {                                       \
        __asm__("ssat %0, #" #n ", %1" : "=r"(y) : "r"(y) : "cc"); \
        return y;                                                  \
    }
    NN_SATURATE(2)
    NN_SATURATE(3)
    NN_SATURATE(4)
    NN_SATURATE(5)
    NN_SATURATE(6)
    NN_SATURATE(7)
    NN_SATURATE(8)
    NN_SATURATE(16)
#undef NN_SATURATE
#endif
    const int32_t min = (int32_t)q.min, max = (int32_t)q.max;
    return y < min ? min : y > max ? max : y;
}

NN_INLINE int64_t nn_round64(int64_t t, uint32_t shift, nn_rounding rounding) {
    const int64_t below = ((int64_t)1 << shift) - 1; /* the bits that go */
    const int64_t half = ((int64_t)1 << shift) >> 1;
    switch (rounding) {
    case NN_HALF_EVEN: t += (below >> 1) + (shift != 0 ? (t >> shift) & 1 : 0); break;
    case NN_HALF_AWAY: t += t < 0 ? below - half : half; break;
    case NN_HALF_TOWARD_ZERO: t += t < 0 ? half : below - half; break;
    case NN_TOWARD_ZERO: t += t < 0 ? below : 0; break;
    case NN_AWAY_FROM_ZERO: t += t < 0 ? 0 : below; break;
    default: break;
    }
    return t >> shift;
}

NN_INLINE int32_t nn_round32(int32_t t, uint32_t shift, nn_rounding rounding) {
    const int32_t below = (int32_t)(((uint32_t)1 << shift) - 1);
    const int32_t half = (int32_t)(((uint32_t)1 << shift) >> 1);
    switch (rounding) {
    case NN_HALF_EVEN: t += (below >> 1) + (shift != 0 ? (t >> shift) & 1 : 0); break;
    case NN_HALF_AWAY: t += t < 0 ? below - half : half; break;
    case NN_HALF_TOWARD_ZERO: t += t < 0 ? half : below - half; break;
    case NN_TOWARD_ZERO: t += t < 0 ? below : 0; break;
    case NN_AWAY_FROM_ZERO: t += t < 0 ? 0 : below; break;
    default: break;
    }
    return t >> shift;
}

/* TensorFlow Lite Micro rounds twice: a saturating left shift, the high half of the doubled product, then a right shift
 * that rounds halves away from zero. Its nudge and truncating division together are floor((product + 2**30) / 2**31). */
NN_INLINE int64_t nn_tflm(int64_t acc, int64_t multiplier, uint32_t shift) {
    const uint32_t left = shift < 31 ? 31 - shift : 0, right = shift > 31 ? shift - 31 : 0;
    int64_t x = acc * ((int64_t)1 << left);
    x = x < INT32_MIN ? INT32_MIN : x > INT32_MAX ? INT32_MAX : x;
    x = ((int64_t)(int32_t)x * (int32_t)multiplier + ((int64_t)1 << 30)) >> 31;
    return nn_round64(x, right, NN_HALF_AWAY);
}

/* The same where twice the accumulator fits int32, nothing is shifted left, and `right`, the second shift, is 1 or more: the
 * generator has proved it. The second rounding is floor((d + half - [d < 0]) / 2**right); the sign of acc stands for that of d,
 * which differ only where d is 0, and there the -1 changes nothing. */
NN_INLINE int32_t nn_tflm_short(int32_t twice, int32_t multiplier, uint32_t right, int32_t output_offset) {
    int32_t d;
#ifdef __ARM_FEATURE_DSP
    __asm__("smmulr %0, %1, %2" : "=r"(d) : "r"(twice), "r"(multiplier));
    d += twice >> 31;
    if (__builtin_constant_p(output_offset) && output_offset >= -255 && output_offset <= 255) {
        /* the last bit that goes out is the half; the assembler writes adc of a negative number as sbc */
        __asm__("asrs %0, %0, %1\n\tadc %0, %0, %2" : "+r"(d) : "r"(right), "i"(output_offset) : "cc");
        return d;
    }
    __asm__("asrs %0, %0, %1\n\tadc %0, %0, #0" : "+r"(d) : "r"(right) : "cc");
    return d + output_offset;
#else
#if defined(__thumb__) && !defined(__thumb2__)
    /* No product has more than 32 bits here: four of halves, in an order in which no sum overflows. */
    const int32_t low = twice & 0xFFFF, m_high = multiplier >> 16, m_low = multiplier & 0xFFFF;
    const int32_t one = (twice >> 16) * m_low + (int32_t)((uint32_t)low * (uint32_t)m_low >> 16);
    const int32_t two = low * m_high + (one & 0xFFFF);
    d = (twice >> 16) * m_high + (one >> 16) + (((two >> 15) + 1) >> 1);
#else
    const int64_t product = (int64_t)twice * multiplier;
    d = (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31); /* the first bit that goes out is the half */
#endif
    d += twice >> 31;
    return ((d + (int32_t)(((uint32_t)1 << right) >> 1)) >> right) + output_offset;
#endif
}

NN_INLINE int64_t nn_requantize(int64_t acc, size_t c, nn_requantize_args q) {
    const uint32_t shift = (uint32_t)nn_get(q.shift, c);
    int64_t y;
    if (q.rounding == NN_TFLM) {
        y = nn_tflm(acc, nn_get(q.multiplier, c), shift);
    } else if (q.rounding == NN_TFLM_SHORT) {
        const int32_t twice = (int32_t)((uint32_t)acc << 1);
        return nn_clamp(nn_tflm_short(twice, (int32_t)nn_get(q.multiplier, c), shift, (int32_t)q.output_offset), q);
    } else if (q.wide) { /* modulo 2**64, as sums are: of product and sum only the sum is proved to fit */
        const uint64_t product = (uint64_t)acc * (uint64_t)nn_get(q.multiplier, c);
        y = nn_round64((int64_t)(product + (uint64_t)nn_get(q.offset, c)), shift, q.rounding);
    } else {
        const uint32_t product = (uint32_t)acc * (uint32_t)nn_get(q.multiplier, c);
        y = nn_round32((int32_t)(product + (uint32_t)nn_get(q.offset, c)), shift, q.rounding);
    }
    if (q.wide_result) {
        y += q.output_offset;
        return y < q.min ? q.min : y > q.max ? q.max : y;
    }
    return nn_clamp((int32_t)y + (int32_t)q.output_offset, q);
}
#endif
