/* The block hook of toolchain/links/unicorn.py in C, where this machine has a compiler: Python's costs 2 us a block, and
 * a block is 8 instructions. Counts exactly what `PythonCounter` there counts. */
#include <stdint.h>

typedef struct {
    uint64_t count;
    uint64_t last_address; /* of the block begun last */
    uint32_t last_length;
    uint32_t outside; /* a block that is not in flash: not counted, and the link refuses to go on */
    uint64_t origin, bytes;
    const uint8_t *code;
    int (*emu_stop)(void *emulator);
    volatile uint32_t stop; /* set by another thread: stop here, between this hook and its block */
} block_counter;

void on_block(void *emulator, uint64_t address, uint32_t size, void *user);

void on_block(void *emulator, uint64_t address, uint32_t size, void *user) {
    block_counter *counter = user;
    if (address < counter->origin || address - counter->origin + size > counter->bytes) {
        counter->outside = 1;
        return;
    }
    const uint8_t *code = counter->code + (address - counter->origin);
    uint32_t length = 0;
    for (uint32_t at = 0; at < size; length++) {
        at += code[at + 1] >> 3 >= 29 ? 4u : 2u; /* 32 bits where the first half-word begins 0b11101 or higher */
    }
    counter->last_address = address;
    counter->last_length = length;
    counter->count += length;
    if (counter->stop) {
        counter->emu_stop(emulator);
    }
}
