/* What avr-libc's start-up leaves to do: the stack is painted before main, so that its high-water mark can be read. */
#include "board.h"
#include "port.h"

#define STACK_PAINT 0xA5u

extern uint8_t _stack_bottom[], _estack[];
void paint_stack(void);

/* .init3: the stack pointer is set, nothing is on the stack, variables come later. */
__attribute__((naked, used, section(".init3"))) void paint_stack(void) {
    __asm__ volatile("ldi r30, lo8(_stack_bottom)\n"
                     "ldi r31, hi8(_stack_bottom)\n"
                     "ldi r24, 0xA5\n"
                     "1: st Z+, r24\n"
                     "cpi r30, lo8(_estack)\n"
                     "ldi r25, hi8(_estack)\n"
                     "cpc r31, r25\n"
                     "brne 1b\n");
}

uint32_t port_stack_used(void) {
    volatile uint8_t *p = _stack_bottom;
    while (p < _estack && *p == STACK_PAINT) {
        p++;
    }
    return (uint32_t)(_estack - (uint8_t *)p);
}

uint32_t port_stack_overflown(void) { return *(volatile uint8_t *)_stack_bottom != STACK_PAINT; }
