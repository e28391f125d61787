/* The stack's high-water mark: the startup code painted it, what is still painted was never used. */
#include "startup.h"

uint32_t port_stack_used(void) {
    const volatile uint32_t *p = _stack_bottom;
    while (p < _estack && *p == STACK_PAINT) {
        p++;
    }
    return (uint32_t)((uintptr_t)_estack - (uintptr_t)p);
}

uint32_t port_stack_overflown(void) { return *(volatile uint32_t *)_stack_bottom != STACK_PAINT; }
