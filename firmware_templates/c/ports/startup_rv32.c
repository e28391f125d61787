/* Reset and traps for a 32-bit RISC-V that starts at the first byte of its flash in machine mode. */
#include "startup.h"

#ifndef BOARD_TRAP_ALIGNMENT
#define BOARD_TRAP_ALIGNMENT 4 /* what the standard asks of mtvec; some cores ask more */
#endif

void Reset_Handler(void);
void firmware_fault(void);

__attribute__((noreturn, used)) static void start(void) {
    board_steps();
    set_up_ram();
    (void)main();
    for (;;) {
    }
}

__attribute__((naked, aligned(BOARD_TRAP_ALIGNMENT), used)) static void trap(void) {
    __asm__ volatile("la sp, _estack\n"
                     "j firmware_fault\n");
}

/* norelax: with relaxation `la gp` becomes an addition to gp itself. */
__attribute__((naked, section(".vectors"), used)) void Reset_Handler(void) {
    __asm__ volatile(".option push\n"
                     ".option norelax\n"
                     "la gp, __global_pointer$\n"
                     ".option pop\n"
                     "la sp, _estack\n"
                     "la t0, %0\n"
                     "csrw mtvec, t0\n"
                     "j %1\n" ::"i"(trap), "i"(start));
}
