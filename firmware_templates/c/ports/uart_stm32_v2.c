/* USART and LPUART of the STM32L4/H7 (RM0432 rev 9, chapters 50 and 51): CR1 0, CR3 8, BRR 0xC, ISR 0x1C, RDR 0x24, TDR 0x28.
 * An LPUART's divisor counts in 1/256 of a clock. OVRDIS: a lost byte spoils one frame, never the receiver. */
#include "uart.h"

#if defined(BOARD_UART_LPUART)
#define DIVISOR ((uint32_t)((256ull * BOARD_UART_CLOCK_HZ + BOARD_BAUD / 2u) / BOARD_BAUD))
#else
#define DIVISOR UART_DIVISOR(1u)
#endif

void port_init(void) {
    UART(0x0Cu) = DIVISOR;
    UART(0x08u) = 1u << 12; /* OVRDIS */
    UART(0x00u) = 0x0Du;    /* UE, RE, TE */
}

uint8_t port_get(void) {
    while ((UART(0x1Cu) & 0x20u) == 0) {
    }
    return (uint8_t)UART(0x24u);
}

void port_put(uint8_t byte) {
    while ((UART(0x1Cu) & 0x80u) == 0) {
    }
    UART(0x28u) = byte;
}

void port_flush(void) {
    while ((UART(0x1Cu) & 0x40u) == 0) {
    }
}
