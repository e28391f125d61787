/* The 16550 of QEMU's riscv virt machine, byte registers. Never write FCR: with a byte pending it wedges QEMU's input. */
#include "uart.h"

#define UART8(offset) (*(volatile uint8_t *)(uintptr_t)(BOARD_UART_BASE + (offset)))

void port_init(void) { UART8(3u) = 3; } /* LCR: 8 bits */

uint8_t port_get(void) {
    while ((UART8(5u) & 1u) == 0) {
    }
    return UART8(0u);
}

void port_put(uint8_t byte) {
    while ((UART8(5u) & 0x20u) == 0) {
    }
    UART8(0u) = byte;
}

void port_flush(void) {}
