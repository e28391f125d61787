/* Counting what a stretch of code costs, on the device. A mark is taken by one straight-line function that is never
 * inlined, so that its own cost is the same each time and `counter_overhead` (an empty pair of marks) cancels it; all
 * arithmetic happens after the second mark. */
#ifndef COUNTER_H
#define COUNTER_H
#include <stdint.h>

#define COUNTER_KIND_NONE 0u
#define COUNTER_KIND_DWT 1u     /* CYCCNT of Cortex-M3 and up: 32 bits of core clocks */
#define COUNTER_KIND_SYSTICK 2u /* 24 bits, extended by an interrupt of exactly 5 instructions */
#define COUNTER_KIND_MCYCLE 3u  /* RISC-V, 64 bits */
#define COUNTER_KIND_FPGA 4u
#define COUNTER_KIND_MPCCR 6u /* ESP32-C3: 32 bits of core clocks, in CSRs of its own */
#define COUNTER_KIND_TIMER1 7u /* AVR: 16 bits of core clocks, extended by an interrupt */
#define COUNTER_KIND_TIMER 5u /* a 32-bit peripheral timer clocked with the core (nRF51 has neither DWT nor SysTick) */

typedef struct {
    uint32_t low;
    uint32_t high;    /* SysTick: the interrupt control register; mcycle: mcycleh before */
    uint32_t handled; /* SysTick: interrupts served so far; mcycle: mcycleh after */
} counter_mark;

void counter_init(void); /* picks the counter, sees that it moves, measures the overhead */
uint32_t counter_kind(void);
uint32_t counter_hz(void);
uint32_t counter_overhead(void);
void counter_take(counter_mark *mark);
uint64_t counter_ticks(const counter_mark *begin, const counter_mark *end);
uint32_t counter_interrupts(const counter_mark *begin, const counter_mark *end);

#endif
