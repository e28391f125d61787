/* UART of the Arm Cortex-M System Design Kit (DDI 0479, 4.3): DATA 0, STATE 4, CTRL 8, BAUDDIV 0x10. */
#include "uart.h"

void port_init(void) {
    UART(0x10u) = UART_DIVISOR(1u) < 16u ? 16u : UART_DIVISOR(1u);
    UART(0x08u) = 3; /* receive and transmit */
}

uint8_t port_get(void) {
    while ((UART(0x04u) & 2u) == 0) {
    }
    return (uint8_t)UART(0x00u);
}

void port_put(uint8_t byte) {
    while ((UART(0x04u) & 1u) != 0) {
    }
    UART(0x00u) = byte;
}

void port_flush(void) {}
