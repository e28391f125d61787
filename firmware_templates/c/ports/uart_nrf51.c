/* UART of the nRF51 (reference manual 3.0, chapter 29). Its pins are set by the board's steps. */
#include "uart.h"

#if BOARD_BAUD != 115200
#error "the nRF51 has no divisor but a table of rates; this driver knows 115200"
#endif

void port_init(void) {
    UART(0x524u) = 0x01D7E000u; /* BAUDRATE: 115200 */
    UART(0x500u) = 4;           /* ENABLE */
    UART(0x000u) = 1;           /* STARTRX */
    UART(0x008u) = 1;           /* STARTTX */
}

uint8_t port_get(void) {
    while (UART(0x108u) == 0) { /* RXDRDY: cleared before reading, so that a byte behind it in the FIFO sets it again */
    }
    UART(0x108u) = 0;
    return (uint8_t)UART(0x518u);
}

void port_put(uint8_t byte) {
    UART(0x11Cu) = 0;
    UART(0x51Cu) = byte;
    while (UART(0x11Cu) == 0) { /* TXDRDY */
    }
}

void port_flush(void) {}
