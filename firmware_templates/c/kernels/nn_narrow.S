/* Sums of products with weights of 4, 2 and 1 bits on Cortex-M cores with the DSP extension: the inner loops of nn_narrow.h, as
 * assembler macros whose shapes are constants. model_narrow.S makes one function for each shape that a model has.
 *
 * Idea. A halfword holds the same column of several rows of weights, side by side in fields: four rows of 4 bits or eight of 2. A word
 * holds two columns. A mask that Thumb-2 has as an immediate leaves one row in both halves, and SMLAD over that gives the row's sum times
 * 2**(bits * field). So four products at two positions cost 3.5 instructions, as they do with bytes (nn_dsp.S), and flash holds half or a
 * quarter of it. A mask takes the sign away, so a field holds its weight plus 2**(bits - 1), 8 or 2, and its sum starts from
 * -2**(bits - 1) times the sum of all x, which `moved` brings; the last field keeps its sign. SMLAD over the word unmasked saves the last
 * mask: it gives the sum of all fields, from which nn_narrow.h takes the others.
 * Static bound, checked for each row by toolchain/forms/narrow.py: largest |x| * sum |w| < 2**(31 - bits * field); what overflows
 * on the way does so modulo 2**32 and comes back.
 *
 * One bit. Two values of a weight have 16 sums over four values of x. nn_narrow.h makes the table of them once for all rows, so that
 * four products are a lookup and an addition; with two positions in the halves of a table's words they are eight. */
#include "nn_assembly.h"

#ifdef __ARM_FEATURE_DSP
    .syntax unified
    .thumb
    .text

    .macro NN_NARROW_BEGIN name
    NN_BEGIN \name
    push {r1-r11, lr} /* the places of r1 and r3 hold counters, that of r2 where the sums go */
    .endm

    .macro NN_NARROW_END name
    pop {r1-r3}
    stm r2, {r4-r11}
    pop {r4-r11, pc}
    NN_END \name
    .endm

    /* What the sums start from, by bits, rows and positions; L and H: the first and the last four rows of eight. */
    .macro NN_NARROW_START_4X4X2
    ldrd r4, r5, [r3]
    lsl r6, r4, #4
    lsl r7, r5, #4
    lsl r8, r4, #8
    lsl r9, r5, #8
    add r10, r4, r6
    add r11, r5, r7
    add r10, r10, r8
    add r11, r11, r9
    .endm
    .macro NN_NARROW_START_4X8X1
    ldr r4, [r3]
    lsl r5, r4, #4
    lsl r6, r4, #8
    add r7, r4, r5
    add r7, r7, r6
    mov r8, r4
    mov r9, r5
    mov r10, r6
    mov r11, r7
    .endm
    .macro NN_NARROW_START_2X8X1
    ldr r4, [r3]
    lsl r5, r4, #2
    lsl r6, r4, #4
    lsl r7, r4, #6
    lsl r8, r4, #8
    lsl r9, r4, #10
    lsl r10, r4, #12
    add r11, r4, r5
    add r11, r11, r6
    add r11, r11, r7
    add r11, r11, r8
    add r11, r11, r9
    add r11, r11, r10
    .endm
    .macro NN_NARROW_START_2LX4X2
    ldrd r4, r5, [r3]
    lsl r6, r4, #2
    lsl r7, r5, #2
    lsl r8, r4, #4
    lsl r9, r5, #4
    lsl r10, r4, #6
    lsl r11, r5, #6
    .endm
    .macro NN_NARROW_START_2HX4X2
    ldrd r10, r11, [r3]
    lsl r4, r10, #8
    lsl r5, r11, #8
    lsl r6, r10, #10
    lsl r7, r11, #10
    lsl r8, r10, #12
    lsl r9, r11, #12
    movs r10, #0
    mov r11, r10
    .endm

    /* One row of the weights in r2 at the positions whose values r12 and lr hold, and at one. */
    .macro NN_NARROW_ROW_2 mask, sum0, sum1
    and r3, r2, #\mask
    smlad \sum0, r3, r12, \sum0
    smlad \sum1, r3, lr, \sum1
    .endm
    .macro NN_NARROW_ROW_1 mask, sum
    and lr, r2, #\mask
    smlad \sum, lr, r12, \sum
    .endm

    /* Two values of x, four rows of 4 bits at two positions: 14 instructions for 16 products. */
    .macro NN_NARROW_PAIR_4X4X2 step
    ldr r12, [r0], #4
    ldr lr, [r0, #\step - 4]
    ldr r2, [r1], #4
    NN_NARROW_ROW_2 0x000F000F, r4, r5
    NN_NARROW_ROW_2 0x00F000F0, r6, r7
    NN_NARROW_ROW_2 0x0F000F00, r8, r9
    smlad r10, r2, r12, r10
    smlad r11, r2, lr, r11
    .endm

    /* Eight rows of 4 bits at one position: 17 instructions for 16 products. */
    .macro NN_NARROW_PAIR_4X8X1 step
    ldr r12, [r0], #4
    ldr r2, [r1], #4
    NN_NARROW_ROW_1 0x000F000F, r4
    NN_NARROW_ROW_1 0x00F000F0, r5
    NN_NARROW_ROW_1 0x0F000F00, r6
    smlad r7, r2, r12, r7
    ldr r2, [r1], #4
    NN_NARROW_ROW_1 0x000F000F, r8
    NN_NARROW_ROW_1 0x00F000F0, r9
    NN_NARROW_ROW_1 0x0F000F00, r10
    smlad r11, r2, r12, r11
    .endm

    /* Eight rows of 2 bits at one position: 17 instructions for 16 products. */
    .macro NN_NARROW_PAIR_2X8X1 step
    ldr r12, [r0], #4
    ldr r2, [r1], #4
    NN_NARROW_ROW_1 0x00030003, r4
    NN_NARROW_ROW_1 0x000C000C, r5
    NN_NARROW_ROW_1 0x00300030, r6
    NN_NARROW_ROW_1 0x00C000C0, r7
    NN_NARROW_ROW_1 0x03000300, r8
    NN_NARROW_ROW_1 0x0C000C00, r9
    NN_NARROW_ROW_1 0x30003000, r10
    smlad r11, r2, r12, r11
    .endm

    /* Four of eight rows of 2 bits at two positions: 15 instructions for 16 products. */
    .macro NN_NARROW_PAIR_2LX4X2 step
    ldr r12, [r0], #4
    ldr lr, [r0, #\step - 4]
    ldr r2, [r1], #4
    NN_NARROW_ROW_2 0x00030003, r4, r5
    NN_NARROW_ROW_2 0x000C000C, r6, r7
    NN_NARROW_ROW_2 0x00300030, r8, r9
    NN_NARROW_ROW_2 0x00C000C0, r10, r11
    .endm
    .macro NN_NARROW_PAIR_2HX4X2 step
    ldr r12, [r0], #4
    ldr lr, [r0, #\step - 4]
    ldr r2, [r1], #4
    NN_NARROW_ROW_2 0x03000300, r4, r5
    NN_NARROW_ROW_2 0x0C000C00, r6, r7
    NN_NARROW_ROW_2 0x30003000, r8, r9
    NN_NARROW_ROW_2 0xC000C000, r10, r11
    .endm

    /* void name(const int16_t *x, const uint16_t *weights, int32_t sums[8], const int32_t moved[2]): `segments` runs of
     * loops * unroll + rest pairs of x, the next run `skip` bytes behind the end of the one before. straight: no loop over the runs.
     * No register is left for counters: they are on the stack. */
    .macro NN_NARROW_DOT name, form, loops, unroll, rest, segments, skip, step, straight
    NN_NARROW_BEGIN \name
    NN_NARROW_START_\form
    .if \straight
    .rept \segments - 1
    .rept \unroll
    NN_NARROW_PAIR_\form \step
    .endr
    addw r0, r0, #\skip
    .endr
    .rept \unroll
    NN_NARROW_PAIR_\form \step
    .endr
    .else
    .if \segments > 1
    movw r3, #\segments
    str r3, [sp]
    .endif
10:
    .if \loops > 1
    movw r3, #\loops
11:
    str r3, [sp, #8]
    .endif
    .rept \unroll
    NN_NARROW_PAIR_\form \step
    .endr
    .if \loops > 1
    ldr r3, [sp, #8]
    subs r3, r3, #1
    bne.w 11b
    .endif
    .rept \rest
    NN_NARROW_PAIR_\form \step
    .endr
    .if \segments > 1
    movw r12, #\skip
    add r0, r0, r12
    ldr r3, [sp]
    subs r3, r3, #1
    str r3, [sp]
    bne.w 10b
    .endif
    .endif
    NN_NARROW_END \name
    .endm

    /* Four values of x, eight rows of one bit: 26 instructions for 32 products, or for 64 where a table's word holds two positions. */
    .macro NN_NARROW_LOOK at, load, by, sum
    ubfx r3, r12, #\at, #4
    \load r3, [r0, r3, lsl #\by]
    add \sum, \sum, r3
    .endm
    .macro NN_NARROW_FOUR load, by
    ldr r12, [r1], #4
    NN_NARROW_LOOK 0, \load, \by, r4
    NN_NARROW_LOOK 4, \load, \by, r5
    NN_NARROW_LOOK 8, \load, \by, r6
    NN_NARROW_LOOK 12, \load, \by, r7
    NN_NARROW_LOOK 16, \load, \by, r8
    NN_NARROW_LOOK 20, \load, \by, r9
    NN_NARROW_LOOK 24, \load, \by, r10
    NN_NARROW_LOOK 28, \load, \by, r11
    add r0, r0, #16 << \by
    .endm

    /* void name(const void *tables, const uint32_t *weights, int32_t sums[8]): loops * unroll + rest tables of 16. */
    .macro NN_NARROW_LOOKUPS name, load, by, loops, unroll, rest
    NN_NARROW_BEGIN \name
    movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
    mov r8, r4
    mov r9, r4
    mov r10, r4
    mov r11, r4
    .if \loops > 1
    movw lr, #\loops
11:
    .endif
    .rept \unroll
    NN_NARROW_FOUR \load, \by
    .endr
    .if \loops > 1
    subs lr, lr, #1
    bne.w 11b
    .endif
    .rept \rest
    NN_NARROW_FOUR \load, \by
    .endr
    NN_NARROW_END \name
    .endm
#endif
