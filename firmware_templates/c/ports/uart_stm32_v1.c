/* USART of the STM32F1/F2/F4 (RM0390 rev 6, 25.6): SR 0, DR 4, BRR 8, CR1 0xC. Reading SR then DR clears an overrun. */
#include "uart.h"

void port_init(void) {
    UART(0x08u) = UART_DIVISOR(1u); /* 16 samples a bit: the mantissa and fraction together are clock / baud */
    UART(0x0Cu) = 0x200Cu;          /* UE, TE, RE */
}

uint8_t port_get(void) {
    while ((UART(0x00u) & 0x20u) == 0) {
    }
    return (uint8_t)UART(0x04u);
}

void port_put(uint8_t byte) {
    while ((UART(0x00u) & 0x80u) == 0) {
    }
    UART(0x04u) = byte;
}

void port_flush(void) {
    while ((UART(0x00u) & 0x40u) == 0) {
    }
}
