/* Sums of products on cores without the DSP extension: the inner loop of nn_scalar.h for RV32IM, for Thumb-2 and for Thumb-1.
 * model_scalar.S makes one function for each number of taps in a straight line that a model needs.
 *
 * Idea. A word holds two values, low + 65536 * high; one multiplication by a small number makes both their products, and one
 * addition adds both to their sums, so four words do eight products for four multiplications. The sum of a run of taps starts at 32768: while the low sum
 * lies in -32768 .. 32767 the low half never borrows, and the arithmetic shift by 16 gives the high sum. After each run
 *     H += T >> 16;  S += T
 * and at the end L = S - (H << 16), all modulo 2**32: three instructions for two sums. L has 32768 too much for each run.
 * Static bound, checked for each run by toolchain/forms/scalar.py: both sums of a run lie in -32768 .. 32767 whatever the values are.
 *
 * Runs differ in length: their lengths are read from a table, and a jump goes in that many taps before the end of the line.
 *
 * const uint8_t *name(const int32_t *words, const int8_t *bytes, const uint8_t *runs, nn_scalar_job *job)
 * words: four for each tap; bytes: one for each tap; runs: for each row of the window the lengths of its runs, then 0.
 * job: {int32 rows, skip, sums[8]}: rows of the window, bytes of words between them, the four L and the four H. Returns where runs go on. */
#include "nn_assembly.h"
#include "nn_scalar_core.h"

#ifdef NN_SCALAR_CORE
    .text

    /* `tap` n for n = most .. 1. */
    .macro NN_SCALAR_LINE most
    .irp i, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1
    .if \i <= \most
    NN_SCALAR_TAP \i
    .endif
    .endr
    .endm
#endif

#if NN_SCALAR_CORE == 1
    /* One of `n` taps before the end: 13 instructions for 8 products, 52 bytes. */
    .macro NN_SCALAR_TAP n
    lb t6, -\n(a1)
    lw t4, -16*\n(a0)
    lw t5, -16*\n+4(a0)
    lw a6, -16*\n+8(a0)
    lw a7, -16*\n+12(a0)
    mul t4, t4, t6
    mul t5, t5, t6
    mul a6, a6, t6
    mul a7, a7, t6
    add t0, t0, t4
    add t1, t1, t5
    add t2, t2, a6
    add t3, t3, a7
    .endm

    .macro NN_SCALAR_UNPACK t, high, sum
    srai t4, \t, 16
    add \sum, \sum, \t
    add \high, \high, t4
    .endm

    .macro NN_SCALAR_PUT high, sum, at
    slli t4, \high, 16
    sub \sum, \sum, t4
    sw \sum, 8+\at(a3)
    sw \high, 24+\at(a3)
    .endm

    .macro NN_SCALAR_DOT name, most
    NN_BEGIN \name
    addi sp, sp, -48
    sw s0, 0(sp)
    sw s1, 4(sp)
    sw s2, 8(sp)
    sw s3, 12(sp)
    sw s4, 16(sp)
    sw s5, 20(sp)
    sw s6, 24(sp)
    sw s7, 28(sp)
    sw s8, 32(sp)
    sw s9, 36(sp)
    sw s10, 40(sp)
    lw a4, 0(a3)
    lw a5, 4(a3)
    li s0, 0
    li s1, 0
    li s2, 0
    li s3, 0
    li s4, 0
    li s5, 0
    li s6, 0
    li s7, 0
    lla s8, 2f
    li s9, -52
    li s10, 32768
    j 1f
3:  /* the next row of the window */
    addi a4, a4, -1
    add a0, a0, a5
    bnez a4, 1f
    NN_SCALAR_PUT s0, s4, 0
    NN_SCALAR_PUT s1, s5, 4
    NN_SCALAR_PUT s2, s6, 8
    NN_SCALAR_PUT s3, s7, 12
    lw s0, 0(sp)
    lw s1, 4(sp)
    lw s2, 8(sp)
    lw s3, 12(sp)
    lw s4, 16(sp)
    lw s5, 20(sp)
    lw s6, 24(sp)
    lw s7, 28(sp)
    lw s8, 32(sp)
    lw s9, 36(sp)
    lw s10, 40(sp)
    addi sp, sp, 48
    mv a0, a2
    ret
    .balign 4
    .option push
    .option norvc
    NN_SCALAR_LINE \most
    .option pop
2:
    NN_SCALAR_UNPACK t0, s0, s4
    NN_SCALAR_UNPACK t1, s1, s5
    NN_SCALAR_UNPACK t2, s2, s6
    NN_SCALAR_UNPACK t3, s3, s7
1:
    lbu a6, 0(a2)
    addi a2, a2, 1
    beqz a6, 3b
    mul a7, a6, s9
    slli t4, a6, 4
    add a1, a1, a6
    add a0, a0, t4
    add a7, a7, s8
    mv t0, s10
    mv t1, s10
    mv t2, s10
    mv t3, s10
    jr a7
    NN_END \name
    .endm

#elif NN_SCALAR_CORE == 2
    .syntax unified
    .thumb

    /* 6 instructions for 8 products, 24 bytes. */
    .macro NN_SCALAR_TAP n
    ldrsb r12, [r1], #1
    ldm r0!, {r8-r11}
    mla r4, r8, r12, r4
    mla r5, r9, r12, r5
    mla r6, r10, r12, r6
    mla r7, r11, r12, r7
    .endm

    .macro NN_SCALAR_UNPACK t, at /* the stack has sum and high of each word */
    ldrd r8, r9, [sp, #\at]
    add r8, r8, \t
    add r9, r9, \t, asr #16
    strd r8, r9, [sp, #\at]
    .endm

    .macro NN_SCALAR_PUT at
    ldrd r8, r9, [sp, #2*\at]
    sub r8, r8, r9, lsl #16
    str r8, [r3, #8+\at]
    str r9, [r3, #24+\at]
    .endm

    .macro NN_SCALAR_DOT name, most
    NN_BEGIN \name
    push {r4-r11, lr}
    mov lr, r2
    movs r4, #0
    movs r5, #0
    push {r4, r5}
    push {r4, r5}
    push {r4, r5}
    push {r4, r5}
    ldr r4, [r3]
    push {r3, r4} /* the job, the rows left; eight sums are at sp + 8 */
    b.w 1f
    .balign 4
    NN_SCALAR_LINE \most
2:
    NN_SCALAR_UNPACK r4, 8
    NN_SCALAR_UNPACK r5, 16
    NN_SCALAR_UNPACK r6, 24
    NN_SCALAR_UNPACK r7, 32
1:
    ldrb r2, [lr], #1
    cbz r2, 3f
    adr.w r8, 2b
    add r2, r2, r2, lsl #1 /* 24 bytes a tap */
    sub r8, r8, r2, lsl #3
    mov r4, #32768
    mov r5, r4
    mov r6, r4
    mov r7, r4
    mov pc, r8
3:
    ldrd r3, r4, [sp]
    ldr r2, [r3, #4]
    add r0, r0, r2
    subs r4, r4, #1
    str r4, [sp, #4]
    bne 1b
    add sp, sp, #8
    NN_SCALAR_PUT 0
    NN_SCALAR_PUT 4
    NN_SCALAR_PUT 8
    NN_SCALAR_PUT 12
    add sp, sp, #32
    mov r0, lr
    pop {r4-r11, pc}
    NN_END \name
    .endm

#elif NN_SCALAR_CORE == 3
    .syntax unified
    .thumb

    /* 11 instructions for 8 products, 22 bytes; r7 is 0: LDRSB takes no other offset than a register. */
    .macro NN_SCALAR_TAP n
    ldm r0!, {r3-r6}
    ldrsb r2, [r1, r7]
    adds r1, #1
    muls r3, r2, r3
    muls r4, r2, r4
    muls r5, r2, r5
    muls r6, r2, r6
    add r8, r3
    add r9, r4
    add r10, r5
    add r11, r6
    .endm

    /* Two words; r2 is where the stack has high and sum of each. */
    .macro NN_SCALAR_UNPACK t0, t1
    ldm r2!, {r3-r6}
    subs r2, #16
    add r4, \t0
    add r6, \t1
    mov r7, \t0
    asrs r7, r7, #16
    adds r3, r3, r7
    mov r7, \t1
    asrs r7, r7, #16
    adds r5, r5, r7
    stm r2!, {r3-r6}
    .endm

    .macro NN_SCALAR_PUT at
    ldr r3, [sp, #2*\at]
    ldr r4, [sp, #2*\at+4]
    str r3, [r2, #24+\at]
    lsls r3, r3, #16
    subs r4, r4, r3
    str r4, [r2, #8+\at]
    .endm

    .macro NN_SCALAR_DOT name, most
    NN_BEGIN \name
    push {r4-r7, lr}
    mov r4, r8
    mov r5, r9
    mov r6, r10
    mov r7, r11
    push {r3-r7} /* the job lies lowest */
    ldr r5, [r3]
    push {r5} /* rows left */
    sub sp, #32
    mov lr, r2
    movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
    mov r2, sp
    stm r2!, {r4-r7}
    stm r2!, {r4-r7}
    movs r2, #1
    lsls r2, r2, #15
    mov r12, r2
    b 1f
    .balign 4
3:  /* the next row of the window */
    ldr r2, [sp, #36]
    ldr r3, [r2, #4]
    adds r0, r0, r3
    ldr r3, [sp, #32]
    subs r3, #1
    str r3, [sp, #32]
    bne 1f
    NN_SCALAR_PUT 0
    NN_SCALAR_PUT 4
    NN_SCALAR_PUT 8
    NN_SCALAR_PUT 12
    add sp, #40
    mov r0, lr
    pop {r4-r7}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    mov r11, r7
    pop {r4-r7, pc}
    .balign 4
1:
    mov r2, lr
    ldrb r3, [r2]
    adds r2, #1
    mov lr, r2
    cmp r3, #0
    beq 3b
    movs r4, #22
    muls r3, r4, r3
    adr r2, 2f
    subs r2, r2, r3
    mov r8, r12
    mov r9, r12
    mov r10, r12
    mov r11, r12
    mov pc, r2
    .balign 4 /* most is even, so the end of the line is a multiple of four too, for ADR */
    NN_SCALAR_LINE \most
2:
    mov r2, sp
    NN_SCALAR_UNPACK r8, r9
    NN_SCALAR_UNPACK r10, r11
    movs r7, #0
    b 1b
    NN_END \name
    .endm
#endif
