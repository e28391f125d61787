/* What the protocol needs of a byte pipe: a UART driver or the process's standard streams. One of ports/uart_*.c or
 * ports/process.c implements it. */
#ifndef PORT_H
#define PORT_H
#include <stdint.h>

void port_init(void);
uint8_t port_get(void); /* waits for a byte */
void port_put(uint8_t byte);
void port_flush(void); /* everything put is on its way when this returns */

/* Painted by the startup code; the process has a stack of the host's and answers 0. */
uint32_t port_stack_used(void);     /* high-water mark in bytes since reset */
uint32_t port_stack_overflown(void);

#endif
