/* Sums of products on Cortex-M cores with Helium (MVE): the inner loops of nn_helium.h, as assembler macros whose shapes are constants.
 * model_helium.S makes one function for each shape that a model has.
 *
 * Idea. VMLADAVA.S8 adds sixteen products of bytes to a register; there are eight registers that it can add to, the even ones. Four
 * positions times two rows of weights fill them: six loads for eight such instructions. Where windows of neighbouring positions share
 * columns, a column is loaded one time for all of its taps: six loads of x serve three taps. Odd registers point: r1, r3, r5, r7 to x, r9
 * to the weights, r11 to the sums. Nothing is assumed of alignment where taps are 1; else x is aligned to 4. Sums are modulo 2**32: no bound. */
#include "nn_assembly.h"

#ifdef __ARM_FEATURE_MVE
    .syntax unified
    .thumb
    .text

    .macro NN_HELIUM_BEGIN name
    NN_BEGIN \name
    push {r4-r11, lr}
    vpush {d8-d15}
    sub sp, #24
    mov r9, r1
    strd r2, r3, [sp, #16] /* the sums; their end */
    .endm

    .macro NN_HELIUM_END name
    add sp, #24
    vpop {d8-d15}
    pop {r4-r11, pc}
    NN_END \name
    .endm

    /* Sixteen weights of a row with as many values at each of four positions. */
    .macro NN_HELIUM_ROW mla, a, b, c, d, s0, s1, s2, s3
    vldrb.8 q7, [r9], #16
    \mla\().s8 \s0, \a, q7
    \mla\().s8 \s1, \b, q7
    \mla\().s8 \s2, \c, q7
    \mla\().s8 \s3, \d, q7
    .endm

    .macro NN_HELIUM_SLICE_1 mla, step
    vldrb.8 q0, [r1], #16
    vldrb.8 q1, [r3], #16
    vldrb.8 q2, [r5], #16
    vldrb.8 q3, [r7], #16
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r0, r2, r4, r6
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r8, r10, r12, lr
    .endm

    .macro NN_HELIUM_SLICE_2 mla, step
    vldrw.32 q1, [r1, #\step]
    vldrw.32 q0, [r1], #16
    vldrw.32 q3, [r3, #\step]
    vldrw.32 q2, [r3], #16
    vldrw.32 q4, [r5], #16
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r0, r2, r4, r6
    NN_HELIUM_ROW vmladava, q1, q2, q3, q4, r0, r2, r4, r6
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r8, r10, r12, lr
    NN_HELIUM_ROW vmladava, q1, q2, q3, q4, r8, r10, r12, lr
    .endm

    .macro NN_HELIUM_SLICE_3 mla, step
    vldrw.32 q1, [r1, #\step]
    vldrw.32 q0, [r1], #16
    vldrw.32 q3, [r3, #\step]
    vldrw.32 q2, [r3], #16
    vldrw.32 q5, [r5, #\step]
    vldrw.32 q4, [r5], #16
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r0, r2, r4, r6
    NN_HELIUM_ROW vmladava, q1, q2, q3, q4, r0, r2, r4, r6
    NN_HELIUM_ROW vmladava, q2, q3, q4, q5, r0, r2, r4, r6
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r8, r10, r12, lr
    NN_HELIUM_ROW vmladava, q1, q2, q3, q4, r8, r10, r12, lr
    NN_HELIUM_ROW vmladava, q2, q3, q4, q5, r8, r10, r12, lr
    .endm

    .macro NN_HELIUM_SLICE_4 mla, step
    vldrw.32 q1, [r1, #\step]
    vldrw.32 q0, [r1], #16
    vldrw.32 q3, [r3, #\step]
    vldrw.32 q2, [r3], #16
    vldrw.32 q5, [r5, #\step]
    vldrw.32 q4, [r5], #16
    vldrw.32 q6, [r7], #16
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r0, r2, r4, r6
    NN_HELIUM_ROW vmladava, q1, q2, q3, q4, r0, r2, r4, r6
    NN_HELIUM_ROW vmladava, q2, q3, q4, q5, r0, r2, r4, r6
    NN_HELIUM_ROW vmladava, q3, q4, q5, q6, r0, r2, r4, r6
    NN_HELIUM_ROW \mla, q0, q1, q2, q3, r8, r10, r12, lr
    NN_HELIUM_ROW vmladava, q1, q2, q3, q4, r8, r10, r12, lr
    NN_HELIUM_ROW vmladava, q2, q3, q4, q5, r8, r10, r12, lr
    NN_HELIUM_ROW vmladava, q3, q4, q5, q6, r8, r10, r12, lr
    .endm

    /* void name(const int8_t *x, const int8_t *weights, int32_t *sums, const int32_t *end): for each two rows of weights the sums at four
     * positions, `row` apart; 1 + loops * unroll + rest slices of sixteen values. `step` bytes from a position to the next where taps
     * are 1, else from a column to the next. */
    .macro NN_HELIUM_4 name, taps, loops, unroll, rest, step, row
    NN_HELIUM_BEGIN \name
    mov r1, r0
    movw r7, #\step
    .if \taps == 1
    add r3, r1, r7
    add r5, r3, r7
    add r7, r5
    .else
    add r3, r1, r7, lsl #1
    add r5, r3, r7, lsl #1
    add r7, r5, r7, lsl #1
    .endif
    strd r1, r3, [sp]
    strd r5, r7, [sp, #8]
    .if \loops == 0
    mov r11, r2
    .endif
10:
    NN_HELIUM_SLICE_\taps vmladav, \step
    .if \loops > 0
    movw r11, #\loops
11:
    .rept \unroll
    NN_HELIUM_SLICE_\taps vmladava, \step
    .endr
    subs r11, #1
    bne 11b
    .endif
    .rept \rest
    NN_HELIUM_SLICE_\taps vmladava, \step
    .endr
    .if \loops > 0
    ldr r11, [sp, #16]
    .endif
    strd r2, r10, [r11, #4 * \row]
    strd r4, r12, [r11, #8 * \row]
    strd r6, lr, [r11, #12 * \row]
    strd r0, r8, [r11], #8
    .if \loops > 0
    str r11, [sp, #16]
    .endif
    ldr r0, [sp, #20]
    cmp r11, r0
    ldrd r1, r3, [sp]
    ldrd r5, r7, [sp, #8]
    bne.w 10b
    NN_HELIUM_END \name
    .endm

    .macro NN_HELIUM_EIGHT mla
    vldrb.8 q0, [r1], #16
    .irp sum, r0, r2, r4, r6, r8, r10, r12, lr
    vldrb.8 q1, [r9], #16
    \mla\().s8 \sum, q0, q1
    .endr
    .endm

    /* The same for one position: eight rows of weights at once. */
    .macro NN_HELIUM_1 name, taps, loops, unroll, rest, step, row
    NN_HELIUM_BEGIN \name
    mov r3, r0
    mov r5, r2
10:
    mov r1, r3
    NN_HELIUM_EIGHT vmladav
    .if \loops > 0
    movw r11, #\loops
11:
    .rept \unroll
    NN_HELIUM_EIGHT vmladava
    .endr
    subs r11, #1
    bne 11b
    .endif
    .rept \rest
    NN_HELIUM_EIGHT vmladava
    .endr
    strd r4, r6, [r5, #8]
    strd r8, r10, [r5, #16]
    strd r12, lr, [r5, #24]
    strd r0, r2, [r5], #32
    ldr r0, [sp, #20]
    cmp r5, r0
    bne.w 10b
    NN_HELIUM_END \name
    .endm

    /* Windows of each channel alone, at four positions. `width` channels lie side by side in the columns, so tap t of a channel is t *
     * width bytes on: one gathering load brings all taps of a window, and one VMLADAV gives its sum. Lanes without a tap have the weight
     * 0, whatever they read. Offsets are bytes: q4 and q5 of two positions, q6 and q7 of the next channel there. */
    .macro NN_HELIUM_GATHER sum, x, offsets, w
    vldrb.u8 q0, [\x, \offsets]
    vmladav.s8 \sum, q0, \w
    .endm

    .macro NN_HELIUM_WINDOWS name, width, step, row
    NN_HELIUM_BEGIN \name
    mov r1, r0
    add r3, r1, #2 * \step
    ldr r5, [sp, #20]
    mov r11, r2
    movs r0, #0
    .if \width == 16
    vidup.u8 q4, r0, #8
    vadd.i8 q4, q4, q4
    .else
    vidup.u8 q4, r0, #\width
    .endif
    movs r0, #\step
    movs r2, #1
    vadd.i8 q5, q4, r0
    vadd.i8 q6, q4, r2
    vadd.i8 q7, q5, r2
10:
    vldrb.8 q2, [r9], #16
    vldrb.8 q3, [r9], #16
    NN_HELIUM_GATHER r0, r1, q4, q2
    NN_HELIUM_GATHER r2, r1, q5, q2
    NN_HELIUM_GATHER r4, r3, q4, q2
    NN_HELIUM_GATHER r6, r3, q5, q2
    NN_HELIUM_GATHER r8, r1, q6, q3
    NN_HELIUM_GATHER r10, r1, q7, q3
    NN_HELIUM_GATHER r12, r3, q6, q3
    NN_HELIUM_GATHER lr, r3, q7, q3
    adds r1, #2
    adds r3, #2
    strd r2, r10, [r11, #4 * \row]
    strd r4, r12, [r11, #8 * \row]
    strd r6, lr, [r11, #12 * \row]
    strd r0, r8, [r11], #8
    cmp r11, r5
    bne 10b
    NN_HELIUM_END \name
    .endm
#endif
