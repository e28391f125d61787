/* UART of the ESP32-C3 (Technical Reference Manual 1.1, chapter 26): FIFO 0, STATUS 0x1C, CLKDIV 0x14, CLK_CONF 0x78; clocked by
 * the crystal. The ROM leaves its pins as they are wanted, and has said on them what it booted. */
#include "uart.h"

#define DIVISOR UART_DIVISOR(16u) /* clock / baud in 16ths */
#define WAITING(status) ((status) & 0x3FFu)
#define TO_SEND(status) ((status) >> 16 & 0x3FFu)
#define ROOM 120u /* of 128 */

void port_init(void) {
    UART(0x78u) = 1u << 25 | 1u << 24 | 1u << 22 | 3u << 20; /* receiver, transmitter and core clocked, by the crystal, undivided */
    UART(0x14u) = DIVISOR >> 4 | (DIVISOR & 15u) << 20;
}

uint8_t port_get(void) {
    while (WAITING(UART(0x1Cu)) == 0) {
    }
    return (uint8_t)UART(0x00u);
}

void port_put(uint8_t byte) {
    while (TO_SEND(UART(0x1Cu)) > ROOM) {
    }
    UART(0x00u) = byte;
}

void port_flush(void) {
    while (TO_SEND(UART(0x1Cu)) != 0) {
    }
}
