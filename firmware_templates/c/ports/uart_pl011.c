/* Arm PL011 (DDI 0183; RP2040 datasheet 4.2): DR 0, FR 0x18, IBRD 0x24, FBRD 0x28, LCR_H 0x2C, CR 0x30. */
#include "uart.h"

#define DIVISOR UART_DIVISOR(4u) /* clock / (16 * baud) in 64ths */

void port_init(void) {
    UART(0x30u) = 0;
    UART(0x24u) = DIVISOR >> 6;
    UART(0x28u) = DIVISOR & 63u;
    UART(0x2Cu) = 0x70u;  /* 8 bits, FIFOs; this write also takes the divisor */
    UART(0x30u) = 0x301u; /* enable, transmit, receive */
}

uint8_t port_get(void) {
    while ((UART(0x18u) & 0x10u) != 0) {
    }
    return (uint8_t)UART(0x00u);
}

void port_put(uint8_t byte) {
    while ((UART(0x18u) & 0x20u) != 0) {
    }
    UART(0x00u) = byte;
}

void port_flush(void) {}
