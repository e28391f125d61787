/* Two halfwords of a word at once: taking bytes apart, putting halves together, and two products in one instruction, for cores with
 * the DSP extension; elsewhere the same in plain C. */
#ifndef NN_DSP_WORDS_H
#define NN_DSP_WORDS_H
#include "nn.h"

/* Bytes 0 and 2 of a word as halfwords, bytes 1 and 3, and the low or high halves of two words side by side. */
NN_INLINE uint32_t nn_dsp_even(uint32_t word, int is_signed) {
#ifdef __ARM_FEATURE_DSP
    if (is_signed) {
        __asm__("sxtb16 %0, %1" : "=r"(word) : "r"(word));
    } else {
        __asm__("uxtb16 %0, %1" : "=r"(word) : "r"(word));
    }
    return word;
#else
    const uint32_t low = is_signed ? (uint32_t)(int8_t)word : word & 0xFFu;
    const uint32_t high = is_signed ? (uint32_t)(int8_t)(word >> 16) : word >> 16 & 0xFFu;
    return (low & 0xFFFFu) | high << 16;
#endif
}
NN_INLINE uint32_t nn_dsp_odd(uint32_t word, int is_signed) {
#ifdef __ARM_FEATURE_DSP
    if (is_signed) {
        __asm__("sxtb16 %0, %1, ror #8" : "=r"(word) : "r"(word));
    } else {
        __asm__("uxtb16 %0, %1, ror #8" : "=r"(word) : "r"(word));
    }
    return word;
#else
    return nn_dsp_even(word >> 8, is_signed);
#endif
}
NN_INLINE uint32_t nn_dsp_lows(uint32_t a, uint32_t b) {
#ifdef __ARM_FEATURE_DSP
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(a) : "r"(a), "r"(b));
    return a;
#else
    return (a & 0xFFFFu) | b << 16;
#endif
}
NN_INLINE uint32_t nn_dsp_highs(uint32_t a, uint32_t b) {
#ifdef __ARM_FEATURE_DSP
    __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(b) : "r"(b), "r"(a));
    return b;
#else
    return (b & 0xFFFF0000u) | a >> 16;
#endif
}

/* sum + the products of both halves; of the low half and the high one; of the high half and the low one. */
#ifdef __ARM_FEATURE_DSP
#define NN_DSP_MAC(name, op)                                                                                     \
    NN_INLINE uint32_t name(uint32_t a, uint32_t b, uint32_t sum) {                                              \
        __asm__(op " %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(sum));                                    \
        return sum;                                                                                              \
    }
NN_DSP_MAC(nn_dsp_both, "smlad")
NN_DSP_MAC(nn_dsp_low_high, "smlabt")
NN_DSP_MAC(nn_dsp_high_low, "smlatb")
#else
NN_INLINE uint32_t nn_dsp_product(uint32_t a, uint32_t b) { return (uint32_t)((int32_t)(int16_t)a * (int32_t)(int16_t)b); }
NN_INLINE uint32_t nn_dsp_low_high(uint32_t a, uint32_t b, uint32_t sum) { return sum + nn_dsp_product(a, b >> 16); }
NN_INLINE uint32_t nn_dsp_high_low(uint32_t a, uint32_t b, uint32_t sum) { return sum + nn_dsp_product(a >> 16, b); }
NN_INLINE uint32_t nn_dsp_both(uint32_t a, uint32_t b, uint32_t sum) {
    return sum + nn_dsp_product(a, b) + nn_dsp_product(a >> 16, b >> 16);
}
#endif
#endif
