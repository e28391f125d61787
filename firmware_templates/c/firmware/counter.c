/* The counters of counter.h; board.h says which to try first (BOARD_COUNTER_*). A counter that does not move (QEMU
 * models no DWT) is not believed: DWT falls back to SysTick, SysTick to none. */
#include "counter.h"

#include "board.h"

#define REG32(address) (*(volatile uint32_t *)(uintptr_t)(address))

#if defined(BOARD_COUNTER_DWT) || defined(BOARD_COUNTER_SYSTICK)
#define SYSTICK_CTRL REG32(0xE000E010u)
#define SYSTICK_LOAD REG32(0xE000E014u)
#define SYSTICK_VALUE REG32(0xE000E018u)
#define ICSR REG32(0xE000ED04u)
#define ICSR_PENDSTSET (1u << 26)
#ifndef COUNTER_SYSTICK_PERIOD /* a power of two; a test shortens it to provoke the wrap race */
#define COUNTER_SYSTICK_PERIOD 0x1000000u
#endif
extern volatile uint32_t counter_wraps;
volatile uint32_t counter_wraps;

/* Exactly 5 instructions: on an emulator the host subtracts 5 for each interrupt it is told of. */
void SysTick_Handler(void);
__attribute__((naked)) void SysTick_Handler(void) {
    __asm__ volatile(".syntax unified\n"
                     "ldr r0, =counter_wraps\n"
                     "ldr r1, [r0]\n"
                     "adds r1, r1, #1\n"
                     "str r1, [r0]\n"
                     "bx lr\n"
                     ".ltorg\n");
}
#endif

#if defined(BOARD_COUNTER_DWT)
#define DEMCR REG32(0xE000EDFCu)
#define DWT_CTRL REG32(0xE0001000u)
#define DWT_CYCCNT REG32(0xE0001004u)
#define DWT_LAR REG32(0xE0001FB0u)
#endif

#if defined(BOARD_COUNTER_TIMER) /* nRF51 TIMER0 (reference manual 3.0, chapter 18): 16 MHz, 32 bits, started once */
#define TIMER 0x40008000u
#define TIMER_START REG32(TIMER + 0x000u)
#define TIMER_CLEAR REG32(TIMER + 0x00Cu)
#define TIMER_CAPTURE0 REG32(TIMER + 0x040u)
#define TIMER_MODE REG32(TIMER + 0x504u)
#define TIMER_BITMODE REG32(TIMER + 0x508u)
#define TIMER_PRESCALER REG32(TIMER + 0x510u)
#define TIMER_CC0 REG32(TIMER + 0x540u)
#endif

#if defined(BOARD_COUNTER_TIMER1) /* ATmega328P, DS40002061B, chapter 16: Timer/Counter1 at the core's clock */
#define REG8(address) (*(volatile uint8_t *)(uintptr_t)(address))
#define TIFR1 REG8(0x36u)
#define TIMSK1 REG8(0x6Fu)
#define TCCR1A REG8(0x80u)
#define TCCR1B REG8(0x81u)
#define TCNT1 (*(volatile uint16_t *)(uintptr_t)0x84u)
extern volatile uint32_t counter_wraps;
volatile uint32_t counter_wraps;

/* TIMER1_OVF, always as many cycles: the host subtracts them for each interrupt it is told of. */
void __vector_13(void);
__attribute__((naked, signal, used, externally_visible)) void __vector_13(void) {
    __asm__ volatile("push r24\n"
                     "in r24, 0x3F\n"
                     "push r24\n"
                     "lds r24, counter_wraps\n"
                     "subi r24, 0xFF\n"
                     "sts counter_wraps, r24\n"
                     "lds r24, counter_wraps + 1\n"
                     "sbci r24, 0xFF\n"
                     "sts counter_wraps + 1, r24\n"
                     "lds r24, counter_wraps + 2\n"
                     "sbci r24, 0xFF\n"
                     "sts counter_wraps + 2, r24\n"
                     "lds r24, counter_wraps + 3\n"
                     "sbci r24, 0xFF\n"
                     "sts counter_wraps + 3, r24\n"
                     "pop r24\n"
                     "out 0x3F, r24\n"
                     "pop r24\n"
                     "reti\n");
}
#endif

/* Of this board's counters: the one of 32 bits that is not the DWT's, and the one that an interrupt extends. */
#if defined(BOARD_COUNTER_MPCCR)
#define NARROW_KIND COUNTER_KIND_MPCCR
#else
#define NARROW_KIND COUNTER_KIND_TIMER
#endif
#if defined(BOARD_COUNTER_TIMER1)
#define SERVED_KIND COUNTER_KIND_TIMER1
#else
#define SERVED_KIND COUNTER_KIND_SYSTICK
#endif

static uint32_t kind;
static uint32_t overhead;

__attribute__((noinline)) void counter_take(counter_mark *mark) {
#if defined(BOARD_COUNTER_DWT)
    if (kind == COUNTER_KIND_DWT) {
        mark->low = DWT_CYCCNT;
        mark->high = 0;
        mark->handled = 0;
        return;
    }
#endif
#if defined(BOARD_COUNTER_DWT) || defined(BOARD_COUNTER_SYSTICK)
    __asm__ volatile("cpsid i" ::: "memory");
    mark->low = SYSTICK_VALUE;
    mark->high = ICSR; /* after the value: a wrap seen here and a young value mean it wrapped before the value was read */
    mark->handled = counter_wraps;
    __asm__ volatile("cpsie i" ::: "memory");
#elif defined(BOARD_COUNTER_MCYCLE)
    __asm__ volatile("csrr %0, mcycleh\n csrr %1, mcycle\n csrr %2, mcycleh"
                     : "=&r"(mark->high), "=&r"(mark->low), "=&r"(mark->handled)::"memory");
#elif defined(BOARD_COUNTER_TIMER1)
    __asm__ volatile("cli" ::: "memory");
    mark->low = TCNT1;
    mark->high = TIFR1; /* after the count, as above */
    mark->handled = counter_wraps;
    __asm__ volatile("sei" ::: "memory");
#elif defined(BOARD_COUNTER_MPCCR)
    __asm__ volatile("csrr %0, 0x7E2" : "=r"(mark->low)::"memory");
    mark->high = 0;
    mark->handled = 0;
#elif defined(BOARD_COUNTER_TIMER)
    TIMER_CAPTURE0 = 1;
    mark->low = TIMER_CC0;
    mark->high = 0;
    mark->handled = 0;
#else
    mark->low = 0;
    mark->high = 0;
    mark->handled = 0;
#endif
}

static uint64_t position(const counter_mark *mark) {
#if defined(BOARD_COUNTER_DWT) || defined(BOARD_COUNTER_SYSTICK)
    /* SysTick counts down and pends its interrupt on reaching 0: 0 is the first tick of a period, not the last. */
    uint32_t into = (0u - mark->low) & (COUNTER_SYSTICK_PERIOD - 1u);
    uint32_t wraps = mark->handled;
    if (into == 0 || ((mark->high & ICSR_PENDSTSET) != 0 && into < COUNTER_SYSTICK_PERIOD / 2u)) {
        wraps++;
    }
    return (uint64_t)wraps * COUNTER_SYSTICK_PERIOD + into;
#elif defined(BOARD_COUNTER_TIMER1)
    uint32_t wraps = mark->handled;
    if ((mark->high & 1u) != 0 && mark->low < 0x8000u) { /* TOV1: it wrapped and nobody was told */
        wraps++;
    }
    return (uint64_t)wraps << 16 | mark->low;
#elif defined(BOARD_COUNTER_MCYCLE)
    uint32_t high = mark->low < 0x80000000u ? mark->handled : mark->high;
    return (uint64_t)high << 32 | mark->low;
#else
    return mark->low;
#endif
}

uint64_t counter_ticks(const counter_mark *begin, const counter_mark *end) {
    if (kind == COUNTER_KIND_DWT || kind == NARROW_KIND) {
        return end->low - begin->low; /* modulo 2**32: the host refuses a run long enough to wrap */
    }
    return kind == COUNTER_KIND_NONE ? 0 : position(end) - position(begin);
}

uint32_t counter_interrupts(const counter_mark *begin, const counter_mark *end) {
    return kind == SERVED_KIND ? end->handled - begin->handled : 0;
}

static void wait_a_little(void) {
    for (uint32_t i = 0; i < 64; i++) {
        __asm__ volatile("nop");
    }
}

static uint32_t moves(void) {
    counter_mark begin, end;
    counter_take(&begin);
    wait_a_little();
    counter_take(&end);
    return begin.low != end.low;
}

static void choose(void) {
#if defined(BOARD_COUNTER_DWT)
    DEMCR |= 1u << 24; /* TRCENA */
#if defined(BOARD_CORE_CORTEX_M7)
    DWT_LAR = 0xC5ACCE55u; /* the M7 locks its DWT until told this */
#endif
    DWT_CYCCNT = 0;
    DWT_CTRL |= 1u;
    kind = COUNTER_KIND_DWT;
    if (moves()) {
        return;
    }
#endif
#if defined(BOARD_COUNTER_DWT) || defined(BOARD_COUNTER_SYSTICK)
    SYSTICK_LOAD = COUNTER_SYSTICK_PERIOD - 1u;
    SYSTICK_VALUE = 0;
    SYSTICK_CTRL = 7u; /* core clock, interrupt, enable */
    kind = COUNTER_KIND_SYSTICK;
#elif defined(BOARD_COUNTER_MCYCLE)
    kind = COUNTER_KIND_MCYCLE;
#elif defined(BOARD_COUNTER_TIMER1)
    TCCR1A = 0;
    TCCR1B = 1;
    TIMSK1 = 1;
    kind = COUNTER_KIND_TIMER1;
#elif defined(BOARD_COUNTER_MPCCR) /* ESP32-C3 Technical Reference Manual 1.1, 1.4: it has no mcycle */
    __asm__ volatile("csrwi 0x7E0, 1\n csrwi 0x7E1, 1" ::: "memory"); /* MPCER: cycles; MPCMR: count, and wrap */
    kind = COUNTER_KIND_MPCCR;
#elif defined(BOARD_COUNTER_TIMER)
    TIMER_MODE = 0;
    TIMER_BITMODE = 3;
    TIMER_PRESCALER = 0;
    TIMER_CLEAR = 1;
    TIMER_START = 1;
    kind = COUNTER_KIND_TIMER;
#else
    kind = COUNTER_KIND_NONE;
#endif
    if (!moves()) {
        kind = COUNTER_KIND_NONE;
    }
}

void counter_init(void) {
    choose();
    overhead = 0;
    for (uint32_t i = 0, found = 0; kind != COUNTER_KIND_NONE && i < 64 && found < 8; i++) {
        counter_mark begin, end;
        counter_take(&begin);
        counter_take(&end);
        if (counter_interrupts(&begin, &end) != 0) {
            continue;
        }
        uint32_t ticks = (uint32_t)counter_ticks(&begin, &end);
        overhead = found == 0 || ticks < overhead ? ticks : overhead;
        found++;
    }
}

uint32_t counter_kind(void) { return kind; }
uint32_t counter_hz(void) { return kind == COUNTER_KIND_NONE ? 0 : BOARD_CLOCK_HZ; }
uint32_t counter_overhead(void) { return overhead; }
