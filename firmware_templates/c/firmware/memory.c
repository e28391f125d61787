/* memcpy and memset for a machine without libc: compilers emit calls to them by themselves. The empty asm keeps a
 * compiler from recognising the loops and turning memcpy into a call of memcpy. */
#include <stddef.h>
#include <stdint.h>

typedef uint32_t __attribute__((may_alias)) word;

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memset(void *to, int value, size_t count);

void *memcpy(void *restrict to, const void *restrict from, size_t count) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((((uintptr_t)d | (uintptr_t)s) & 3u) == 0) {
        for (; count >= 4; count -= 4, d += 4, s += 4) {
            *(word *)(void *)d = *(const word *)(const void *)s;
            __asm__ volatile("" ::: "memory");
        }
    }
    for (; count != 0; count--) {
        *d++ = *s++;
        __asm__ volatile("" ::: "memory");
    }
    return to;
}

void *memset(void *to, int value, size_t count) {
    uint8_t *d = to;
    uint32_t pattern = (uint8_t)value * 0x01010101u;
    if (((uintptr_t)d & 3u) == 0) {
        for (; count >= 4; count -= 4, d += 4) {
            *(word *)(void *)d = pattern;
            __asm__ volatile("" ::: "memory");
        }
    }
    for (; count != 0; count--) {
        *d++ = (uint8_t)pattern;
        __asm__ volatile("" ::: "memory");
    }
    return to;
}
