/* USART0 of the ATmega328P (DS40002061B, chapter 20): UCSR0A 0, UCSR0B 1, UCSR0C 2, UBRR0 4 and 5, UDR0 6; double speed. */
#include "uart.h"

#define UART8(offset) (*(volatile uint8_t *)(uintptr_t)(BOARD_UART_BASE + (offset)))
#define DIVISOR ((BOARD_UART_CLOCK_HZ / 8u + BOARD_BAUD / 2u) / BOARD_BAUD - 1u)

void port_init(void) {
    UART8(0u) = 0x02; /* U2X */
    UART8(5u) = (uint8_t)(DIVISOR >> 8);
    UART8(4u) = (uint8_t)(DIVISOR & 255u);
    UART8(2u) = 0x06; /* 8 bits */
    UART8(1u) = 0x18; /* receiver, transmitter */
}

uint8_t port_get(void) {
    while ((UART8(0u) & 0x80u) == 0) {
    }
    return UART8(6u);
}

void port_put(uint8_t byte) {
    while ((UART8(0u) & 0x20u) == 0) {
    }
    UART8(6u) = byte;
}

void port_flush(void) {}
