/* The block hook of toolchain/links/unicorn.py in C, where this machine has a compiler: Python's costs 2 us a block, and
 * a block is 8 instructions. Counts exactly what `PythonCounter` there counts. */
#include <stdint.h>

typedef struct {
    uint32_t size; /* in bytes, of the block that was last seen to begin here; 0 for none */
    uint16_t length, cycles;
} block_cost;

typedef struct {
    uint64_t count;
    uint64_t cycles;       /* modelled */
    uint64_t last_address; /* of the block begun last */
    uint64_t end;          /* where it ends: a block that begins elsewhere was branched to */
    uint64_t end_before;
    uint32_t last_length;
    uint32_t last_cycles;
    uint32_t refill;  /* cycles of a branch that is taken */
    uint32_t outside; /* a block that is not in flash: not counted, and the link refuses to go on */
    uint64_t origin, bytes;
    block_cost *blocks;                             /* one for each half-word of flash */
    void (*learn)(uint64_t address, uint32_t size); /* fills in the one of this block */
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
    const block_cost *block = counter->blocks + (address - counter->origin) / 2;
    if (block->size != size) {
        counter->learn(address, size);
    }
    counter->last_address = address;
    counter->last_length = block->length;
    counter->last_cycles = block->cycles + (address == counter->end ? 0 : counter->refill);
    counter->end_before = counter->end;
    counter->end = address + size;
    counter->count += counter->last_length;
    counter->cycles += counter->last_cycles;
    if (counter->stop) {
        counter->emu_stop(emulator);
    }
}
