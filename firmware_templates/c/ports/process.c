/* The firmware as a process of the host: the same protocol on standard input and output, until the input ends. */
#include <stdio.h>
#include <stdlib.h>

#include "port.h"

void port_init(void) {}

uint8_t port_get(void) {
    int byte = getchar();
    if (byte == EOF) {
        exit(0);
    }
    return (uint8_t)byte;
}

void port_put(uint8_t byte) { (void)putchar(byte); }
void port_flush(void) { (void)fflush(stdout); }
uint32_t port_stack_used(void) { return 0; }
uint32_t port_stack_overflown(void) { return 0; }
