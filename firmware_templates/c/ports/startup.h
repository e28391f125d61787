/* What every bare-metal start does, in C, on registers and constants only until the RAM is set up. */
#ifndef STARTUP_H
#define STARTUP_H
#include <stdint.h>

#include "board.h"
#include "port.h"

#define STACK_PAINT 0xB17B17A5u

extern uint32_t _sidata[], _sdata[], _edata[], _sbss[], _ebss[], _estack[], _stack_bottom[];
int main(void);

/* The board's own list of register steps (clocks, pins), from its file in boards/. */
typedef struct {
    uint32_t what, address, bits;
} board_step;
#define STEP_SET 0u
#define STEP_CLEAR 1u
#define STEP_WRITE 2u
#define STEP_WAIT 3u /* until all the bits are set */

static inline __attribute__((always_inline)) void board_steps(void) {
#ifdef BOARD_STEPS
    static const board_step steps[] = {BOARD_STEPS};
    for (uint32_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        volatile uint32_t *reg = (volatile uint32_t *)(uintptr_t)steps[i].address;
        uint32_t bits = steps[i].bits;
        if (steps[i].what == STEP_SET) {
            *reg |= bits;
        } else if (steps[i].what == STEP_CLEAR) {
            *reg &= ~bits;
        } else if (steps[i].what == STEP_WRITE) {
            *reg = bits;
        } else {
            while ((*reg & bits) != bits) {
            }
        }
    }
#endif
}

/* Loops written so that no compiler makes memcpy or vector code of them before the machine can run it. */
static inline __attribute__((always_inline)) void set_up_ram(void) {
    const volatile uint32_t *from = _sidata;
    for (volatile uint32_t *to = _sdata; to < _edata; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = _sbss; to < _ebss; to++) {
        *to = 0;
    }
    uint32_t *here = (uint32_t *)__builtin_frame_address(0);
    for (volatile uint32_t *to = _stack_bottom; to < here - 32; to++) { /* this function's own frame stays */
        *to = STACK_PAINT;
    }
}

#endif
