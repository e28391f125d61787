/* Sums of products on Cortex-M cores with the DSP extension: the inner loops of nn_dsp.h, as assembler macros whose shapes are
 * constants. model_dsp.S makes one function for each shape that a model has.
 *
 * Idea. Two rows of weights a, b share a halfword, 256 * a + b; a word holds two such pairs for two neighbouring values of x.
 * SMLAD of that word gives S = 256 * A + B, where A and B are the sums of the two rows. SXTB16 leaves the low bytes, b, of both
 * halfwords, and SMLAD of that gives B. So two instructions and half an SXTB16 do four products, and flash holds a byte for a weight.
 * A = (S - B) >> 8 is exact while 256 * A fits 32 bits; what overflows on the way does so modulo 2**32 and comes back.
 * Static bound, checked for each row by toolchain/forms/dsp.py: largest |x| * sum |a| < 2**23, and 256 * a + b fits a halfword. */
#include "nn_assembly.h"

#ifdef __ARM_FEATURE_DSP
    .syntax unified
    .thumb
    .text

    .macro NN_DSP_BEGIN name
    NN_BEGIN \name
    push {r2, r4-r11, lr} /* r2: where the sums go */
    movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
    mov r8, r4
    mov r9, r4
    mov r10, r4
    mov r11, r4
    .endm

    .macro NN_DSP_END name
    pop {r0}
    stm r0, {r4-r11}
    pop {r4-r11, pc}
    NN_END \name
    .endm

    /* Two rows of weights at one position. */
    .macro NN_DSP_ROWS_1 x, sum, low
    ldr r2, [r1], #4
    smlad \sum, r2, \x, \sum
    sxtb16 r2, r2
    smlad \low, r2, \x, \low
    .endm

    /* Two rows of weights at the positions whose values r12 and lr hold. */
    .macro NN_DSP_ROWS_2 sum0, sum1, low0, low1
    ldr r2, [r1], #4
    smlad \sum0, r2, r12, \sum0
    smlad \sum1, r2, lr, \sum1
    sxtb16 r2, r2
    smlad \low0, r2, r12, \low0
    smlad \low1, r2, lr, \low1
    .endm

    /* Two values of x at two positions `step` bytes apart, four rows: 14 instructions for 16 products. */
    .macro NN_DSP_PAIR_4X2 step
    ldr r12, [r0], #4
    ldr lr, [r0, #\step - 4]
    NN_DSP_ROWS_2 r4, r5, r6, r7
    NN_DSP_ROWS_2 r8, r9, r10, r11
    .endm

    /* Two values of x at one position, eight rows: 17 instructions for 16 products. */
    .macro NN_DSP_PAIR_8X1 step
    ldr r12, [r0], #4
    NN_DSP_ROWS_1 r12, r4, r5
    NN_DSP_ROWS_1 r12, r6, r7
    NN_DSP_ROWS_1 r12, r8, r9
    NN_DSP_ROWS_1 r12, r10, r11
    .endm

    /* void name(const int16_t *x, const int16_t *weights, int32_t sums[8]): `segments` runs of loops * unroll + rest pairs of x,
     * the next run `skip` bytes behind the end of the one before. form: 4X2 or 8X1. straight: no loop over the runs. */
    .macro NN_DSP_DOT name, form, loops, unroll, rest, segments, skip, step, straight
    NN_DSP_BEGIN \name
    .if \straight
    .rept \segments - 1
    .rept \unroll
    NN_DSP_PAIR_\form \step
    .endr
    addw r0, r0, #\skip
    .endr
    .rept \unroll
    NN_DSP_PAIR_\form \step
    .endr
    .else
    .if \segments > 1
    movw r3, #\segments
    .endif
10:
    .if \loops > 1
    .if \segments > 1
    push {r3}
    .endif
    movw r3, #\loops
11:
    .endif
    .rept \unroll
    NN_DSP_PAIR_\form \step
    .endr
    .if \loops > 1
    subs r3, r3, #1
    bne 11b
    .if \segments > 1
    pop {r3}
    .endif
    .endif
    .rept \rest
    NN_DSP_PAIR_\form \step
    .endr
    .if \segments > 1
    movw r12, #\skip
    add r0, r0, r12
    subs r3, r3, #1
    bne 10b
    .endif
    .endif
    NN_DSP_END \name
    .endm

/* Depthwise, 3 by 3: the rows of a strip of one channel, for nn_dsp_depthwise.h, which says how the products are taken. All taps stay in
 * r2 to r7, multiplier and addend of the rounding in r8 and r9; what the sums start from is read from the stack. */
    /* A row of the window for outputs r12 and lr; at stride 1 from two words, at stride 2 from three. */
    .macro NN_DSP_WINDOW_1 at, first, second
    ldrd r10, r11, [r0, #\at]
    smlad r12, r10, \first, r12
    smlatb lr, r10, \first, lr
    smlabt r12, r11, \second, r12
    smlad lr, r11, \second, lr
    .endm
    .macro NN_DSP_WINDOW_2 at, first, second
    ldrd r10, r11, [r0, #\at]
    smlad r12, r10, \first, r12
    ldr r10, [r0, #\at + 8]
    smlabt r12, r11, \second, r12
    smlad lr, r11, \first, lr
    smlabt lr, r10, \second, lr
    .endm

    /* The same for one output. */
    .macro NN_DSP_WINDOW_ALONE at, first, second
    ldrd r10, r11, [r0, #\at]
    smlad r12, r10, \first, r12
    smlabt r12, r11, \second, r12
    .endm

    /* Two outputs of row and column offset `pair`: the sums, TensorFlow Lite Micro's rounding, the stores. */
    .macro NN_DSP_OUTPUTS pair, stride, shift, channels, pitch
    ldrd r12, lr, [sp]
    NN_DSP_WINDOW_\stride 4 * \stride * \pair, r2, r3
    NN_DSP_WINDOW_\stride \pitch + 4 * \stride * \pair, r4, r5
    NN_DSP_WINDOW_\stride 2 * \pitch + 4 * \stride * \pair, r6, r7
    smmlar r10, r12, r8, r9
    smmlar r11, lr, r8, r9
    add r10, r10, r12, asr #31
    add r11, r11, lr, asr #31
    ssat r10, #8, r10, asr #\shift
    ssat r11, #8, r11, asr #\shift
    strb r10, [r1, #2 * \pair * \channels]
    strb r11, [r1, #2 * \pair * \channels + \channels]
    .endm

    /* void name(const int16_t *plane, int8_t *y, const uint32_t *w, const int8_t *end, int32_t multiplier, int32_t start): six words
     * of doubled weights, twice the start; high and low half of half + (output offset << shift); pitch in bytes; `loops` times
     * `unroll` pairs in a row. */
    .macro NN_DSP_DEPTHWISE name, stride, shift, high, low, channels, pitch, loops, unroll, odd
    NN_BEGIN \name
    push {r4-r11, lr}
    ldrd r8, r12, [sp, #36]
    sub sp, sp, #20
    str r3, [sp, #8]
    movw r9, #\low
    movt r9, #\high
    strd r12, r12, [sp]
    ldm r2, {r2-r7}
10:
    .if \loops > 1
    movw r10, #2 * \loops * \unroll * \channels
    add r10, r10, r1
    str r10, [sp, #12]
    .endif
    .if \loops > 0
11:
    NN_DSP_OUTPUTS 0, \stride, \shift, \channels, \pitch
    .if \unroll > 1
    NN_DSP_OUTPUTS 1, \stride, \shift, \channels, \pitch
    .endif
    .if \unroll > 2
    NN_DSP_OUTPUTS 2, \stride, \shift, \channels, \pitch
    .endif
    .if \unroll > 3
    NN_DSP_OUTPUTS 3, \stride, \shift, \channels, \pitch
    .endif
    .if \loops > 1
    add r0, r0, #4 * \stride * \unroll
    addw r1, r1, #2 * \unroll * \channels
    ldr r10, [sp, #12]
    cmp r1, r10
    bne 11b
    .endif
    .endif
    /* where the pairs of one turn are all, nothing was moved: what follows reaches over them */
    .if \loops > 1
    .set nn_dsp_pairs, 0
    .else
    .set nn_dsp_pairs, \loops * \unroll
    .endif
    .if \odd
    ldr r12, [sp]
    NN_DSP_WINDOW_ALONE 4 * \stride * nn_dsp_pairs, r2, r3
    NN_DSP_WINDOW_ALONE \pitch + 4 * \stride * nn_dsp_pairs, r4, r5
    NN_DSP_WINDOW_ALONE 2 * \pitch + 4 * \stride * nn_dsp_pairs, r6, r7
    smmlar r10, r12, r8, r9
    add r10, r10, r12, asr #31
    ssat r10, #8, r10, asr #\shift
    strb r10, [r1, #2 * nn_dsp_pairs * \channels]
    .endif
    .if \odd || nn_dsp_pairs
    addw r1, r1, #(2 * nn_dsp_pairs + \odd) * \channels
    .endif
    addw r0, r0, #\pitch * \stride - 4 * \stride * (\loops * \unroll - nn_dsp_pairs)
    ldr r10, [sp, #8]
    cmp r1, r10
    bne 10b
    add sp, sp, #20
    pop {r4-r11, pc}
    NN_END \name
    .endm
#endif
