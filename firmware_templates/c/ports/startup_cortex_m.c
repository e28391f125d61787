/* Vector table and reset for every Cortex-M: board steps, FPU, caches of the M7, RAM, main. */
#include "startup.h"

#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))

void Reset_Handler(void);
void SysTick_Handler(void);
void firmware_fault(void);

__attribute__((naked, noreturn)) static void fault(void) {
    __asm__ volatile(".syntax unified\n"
                     "ldr r0, =_estack\n"
                     "mov sp, r0\n"
                     "ldr r0, =firmware_fault\n"
                     "bx r0\n"
                     ".ltorg\n");
}

__attribute__((weak, noreturn)) void SysTick_Handler(void) {
    for (;;) {
    }
}

#if defined(BOARD_CORE_CORTEX_M7)
/* Armv7-M Architecture Reference Manual (DDI 0403E), B2.2.7 and B3.2: invalidate by set and way, then enable. */
static inline __attribute__((always_inline)) void enable_caches(void) {
    REG32(0xE000EF50u) = 0; /* ICIALLU */
    __asm__ volatile("dsb\n isb" ::: "memory");
    REG32(0xE000ED14u) |= 1u << 17; /* CCR.IC */
    REG32(0xE000ED84u) = 0;         /* CSSELR: level 1 data */
    __asm__ volatile("dsb" ::: "memory");
    uint32_t size = REG32(0xE000ED80u); /* CCSIDR */
    for (uint32_t set = size >> 13 & 0x7FFFu;; set--) {
        for (uint32_t way = size >> 3 & 0x3FFu;; way--) {
            REG32(0xE000EF60u) = way << 30 | set << 5; /* DCISW: 4 ways of 32-byte lines on the M7 */
            if (way == 0) {
                break;
            }
        }
        if (set == 0) {
            break;
        }
    }
    __asm__ volatile("dsb" ::: "memory");
    REG32(0xE000ED14u) |= 1u << 16; /* CCR.DC */
    __asm__ volatile("dsb\n isb" ::: "memory");
}
#endif

#if defined(__ARM_FEATURE_MVE)
/* Compilers may make vector code or low-overhead loops of any C, so both are allowed before the first: CPACR.CP10 and CP11, CCR.LOB
 * (Armv8-M Architecture Reference Manual, DDI 0553). */
__attribute__((noreturn, used)) static void reset(void);
__attribute__((naked, noreturn)) void Reset_Handler(void) {
    __asm__ volatile(".syntax unified\n"
                     "ldr r0, =0xE000ED88\n"
                     "ldr r1, [r0]\n"
                     "orr r1, r1, #0xF00000\n"
                     "str r1, [r0]\n"
                     "ldr r0, =0xE000ED14\n"
                     "ldr r1, [r0]\n"
                     "orr r1, r1, #0x80000\n"
                     "str r1, [r0]\n"
                     "dsb\n"
                     "isb\n"
                     "b.w %c0\n"
                     ".ltorg\n" ::"i"(reset));
}
#define STARTED reset
#else
#define STARTED Reset_Handler
#endif

__attribute__((noreturn, used)) void STARTED(void) {
#if defined(__ARM_FP) && !defined(__ARM_FEATURE_MVE)
    REG32(0xE000ED88u) |= 0xFu << 20; /* CPACR: the FPU before any instruction of it */
    __asm__ volatile("dsb\n isb" ::: "memory");
#endif
    board_steps();
#if defined(BOARD_CORE_CORTEX_M7)
    enable_caches();
#endif
    set_up_ram();
    (void)main();
    for (;;) {
    }
}

typedef void (*handler)(void);
__attribute__((section(".vectors"), used)) static const union {
    void *stack;
    handler code;
} vectors[16] = {
    {.stack = _estack}, {.code = Reset_Handler}, {.code = fault}, {.code = fault}, {.code = fault}, {.code = fault},
    {.code = fault},    {.code = 0},             {.code = 0},     {.code = 0},     {.code = 0},     {.code = fault},
    {.code = fault},    {.code = 0},             {.code = fault}, {.code = SysTick_Handler},
};
