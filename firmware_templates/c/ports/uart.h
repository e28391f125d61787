/* What the UART drivers share: a register by offset, and the baud rate divisor from board.h, rounded. */
#ifndef UART_H
#define UART_H
#include "board.h"
#include "port.h"

#define UART(offset) (*(volatile uint32_t *)(uintptr_t)(BOARD_UART_BASE + (offset)))
#define UART_DIVISOR(scale) (((scale) * BOARD_UART_CLOCK_HZ + BOARD_BAUD / 2u) / BOARD_BAUD)

#endif
