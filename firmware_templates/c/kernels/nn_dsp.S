/* Sums of products on Cortex-M cores with the DSP extension: the inner loops of nn_dsp.h, as assembler macros whose shapes are
 * constants. model_dsp.S makes one function for each shape that a model has.
 *
 * Idea. Two rows of weights a, b share a halfword, 256 * a + b; a word holds two such pairs for two neighbouring values of x.
 * SMLAD of that word gives S = 256 * A + B, where A and B are the sums of the two rows. SXTB16 leaves the low bytes, b, of both
 * halfwords, and SMLAD of that gives B. So two instructions and half an SXTB16 do four products, and flash holds a byte for a weight.
 * A = (S - B) >> 8 is exact while 256 * A fits 32 bits; what overflows on the way does so modulo 2**32 and comes back.
 * Static bound, checked for each row by toolchain/packed.py: largest |x| * sum |a| < 2**23, and 256 * a + b fits a halfword. */
#ifdef __ARM_FEATURE_DSP
    .syntax unified
    .thumb
    .text

    .macro NN_DSP_BEGIN name
    .section .text.\name, "ax", %progbits
    .balign 4
    .thumb_func
    .global \name
    .type \name, %function
\name:
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
    .size \name, . - \name
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
     * the next run `skip` bytes behind the end of the one before. form: 4X2 or 8X1. */
    .macro NN_DSP_DOT name, form, loops, unroll, rest, segments, skip, step
    NN_DSP_BEGIN \name
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
    NN_DSP_END \name
    .endm
#endif
