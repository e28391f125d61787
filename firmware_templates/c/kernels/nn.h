/* What every kernel shares: stored types, loads and stores, tables, accumulators.
 *
 * Kernels are always-inline functions called with literals: shapes, types and flags are arguments that the compiler
 * folds, so one source serves every width and leaves no test of a type or flag in the code. Loads and stores go through
 * may_alias types, because the arena holds tensors of one type after another. Right shifts of negative numbers are
 * arithmetic, and conversions to a narrower signed type keep the low bits: implementation-defined in C99, and so in
 * every compiler named in toolchain/tools.py. */
#ifndef NN_H
#define NN_H
#include <stddef.h>
#include <stdint.h>

#define NN_INLINE static inline __attribute__((always_inline, unused))
/* A generated function: one call, one place in a profile. noipa for GCC (seen in 12.2, -O1 and above): its ivopts may write
 * a load and a store in one array as offsets from address 0, which its pure-const pass takes for a null access and the
 * function for one without effect; then a caller drops the call. */
#define NN_FUNCTION __attribute__((noinline))
#ifdef __has_attribute
#if __has_attribute(noipa)
#undef NN_FUNCTION
#define NN_FUNCTION __attribute__((noinline, noipa))
#endif
#endif
/* Before a loop of two or three turns whose tests are known when it is unrolled. */
#if defined(__GNUC__) && !defined(__clang__)
#define NN_UNROLL _Pragma("GCC unroll 4")
#else
#define NN_UNROLL
#endif
#define NN_ALIGNED __attribute__((aligned(8)))

typedef enum { NN_S8, NN_U8, NN_S16, NN_U16, NN_S32, NN_U32, NN_S64 } nn_type;

typedef int8_t __attribute__((may_alias)) nn_s8;
typedef uint8_t __attribute__((may_alias)) nn_u8;
typedef int16_t __attribute__((may_alias)) nn_s16;
typedef uint16_t __attribute__((may_alias)) nn_u16;
typedef int32_t __attribute__((may_alias)) nn_s32;
typedef uint32_t __attribute__((may_alias)) nn_u32;
typedef int64_t __attribute__((may_alias)) nn_s64;

/* Element i of what lies at p, which may be a table. An AVR reads flash by an instruction of its own; its RAM ends below 0x8000,
 * and so does the flash of those that we build for, so a set bit 15 marks the address of a table (NN_TABLE). */
#if defined(__AVR__)
#define NN_FLASH 0x8000u
#define NN_TABLE(type, name) ((const type *)((uintptr_t)(name) + NN_FLASH))
NN_INLINE uint8_t nn_byte(const void *p, size_t i) {
    uintptr_t at = (uintptr_t)p + i;
    uint8_t byte;
    if ((at & NN_FLASH) == 0) {
        return *(const uint8_t *)at;
    }
    __asm__("lpm %0, Z" : "=r"(byte) : "z"(at ^ NN_FLASH));
    return byte;
}
NN_INLINE uint16_t nn_half(const void *p, size_t i) { return (uint16_t)(nn_byte(p, i) | (uint16_t)nn_byte(p, i + 1) << 8); }
NN_INLINE uint32_t nn_word(const void *p, size_t i) { return nn_half(p, i) | (uint32_t)nn_half(p, i + 2) << 16; }
NN_INLINE uint64_t nn_read(const void *p, size_t i, size_t size) {
    switch (size) {
    case 1: return nn_byte(p, i);
    case 2: return nn_half(p, 2 * i);
    case 4: return nn_word(p, 4 * i);
    default: return nn_word(p, 8 * i) | (uint64_t)nn_word(p, 8 * i + 4) << 32;
    }
}
#define NN_ELEMENT(type, p, i) ((type)nn_read((p), (i), sizeof(type)))
NN_INLINE void nn_copy_bytes(void *y, const void *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        ((uint8_t *)y)[i] = nn_byte(x, i);
    }
}
#else
#define NN_ELEMENT(type, p, i) (((const type *)(p))[i])
#define nn_copy_bytes(y, x, count) __builtin_memcpy((y), (x), (count))
#endif

NN_INLINE size_t nn_size(nn_type type) {
    switch (type) {
    case NN_S8:
    case NN_U8: return 1;
    case NN_S16:
    case NN_U16: return 2;
    case NN_S32:
    case NN_U32: return 4;
    default: return 8;
    }
}

NN_INLINE int64_t nn_load(const void *p, size_t i, nn_type type) {
    switch (type) {
    case NN_S8: return NN_ELEMENT(nn_s8, p, i);
    case NN_U8: return NN_ELEMENT(nn_u8, p, i);
    case NN_S16: return NN_ELEMENT(nn_s16, p, i);
    case NN_U16: return NN_ELEMENT(nn_u16, p, i);
    case NN_S32: return NN_ELEMENT(nn_s32, p, i);
    case NN_U32: return NN_ELEMENT(nn_u32, p, i);
    default: return NN_ELEMENT(nn_s64, p, i);
    }
}

/* The low 32 bits of what is stored. */
NN_INLINE uint32_t nn_load_low(const void *p, size_t i, nn_type type) {
    switch (type) {
    case NN_S8: return (uint32_t)NN_ELEMENT(nn_s8, p, i);
    case NN_U8: return NN_ELEMENT(nn_u8, p, i);
    case NN_S16: return (uint32_t)NN_ELEMENT(nn_s16, p, i);
    case NN_U16: return NN_ELEMENT(nn_u16, p, i);
    case NN_S32: return (uint32_t)NN_ELEMENT(nn_s32, p, i);
    case NN_U32: return NN_ELEMENT(nn_u32, p, i);
    default: return (uint32_t)NN_ELEMENT(nn_s64, p, i);
    }
}

NN_INLINE void nn_store(void *p, size_t i, int64_t value, nn_type type) {
    switch (type) {
    case NN_S8: ((nn_s8 *)p)[i] = (nn_s8)value; break;
    case NN_U8: ((nn_u8 *)p)[i] = (nn_u8)value; break;
    case NN_S16: ((nn_s16 *)p)[i] = (nn_s16)value; break;
    case NN_U16: ((nn_u16 *)p)[i] = (nn_u16)value; break;
    case NN_S32: ((nn_s32 *)p)[i] = (nn_s32)value; break;
    case NN_U32: ((nn_u32 *)p)[i] = (nn_u32)value; break;
    default: ((nn_s64 *)p)[i] = value; break;
    }
}

/* Element i of a tensor of this type. */
NN_INLINE const void *nn_at(const void *p, size_t i, nn_type type) { return (const nn_u8 *)p + i * nn_size(type); }

/* One value for all channels, or a table with one for each. */
typedef struct {
    const void *table;
    nn_type type;
    int64_t value;
} nn_param;

#define NN_ALL(number) {.table = 0, .type = NN_S64, .value = (number)}
#define NN_EACH(array, stored) {.table = (array), .type = (stored), .value = 0}

NN_INLINE int64_t nn_get(nn_param p, size_t i) { return p.table ? nn_load(p.table, i, p.type) : p.value; }

/* An exact sum. The generator has proved that the sum fits int32 (or int64 where `wide`), so adding modulo 2**32 gives
 * it whatever the partial sums are, and unsigned arithmetic cannot overflow. */
typedef struct {
    uint32_t narrow;
    uint64_t wide;
} nn_sum;

NN_INLINE nn_sum nn_start(int64_t value, int wide) {
    nn_sum s = {wide ? 0u : (uint32_t)value, wide ? (uint64_t)value : 0u};
    return s;
}

NN_INLINE int64_t nn_total(nn_sum s, int wide) { return wide ? (int64_t)s.wide : (int64_t)(int32_t)s.narrow; }

/* (x[i] - zero_point) * w[j], its low 32 bits. */
NN_INLINE uint32_t nn_term(const void *x, size_t i, nn_type x_type, uint32_t zero_point, const void *w, size_t j, nn_type w_type) {
    return (nn_load_low(x, i, x_type) - zero_point) * nn_load_low(w, j, w_type);
}

/* s + sum of (x[i * dx] - zero_point) * w[i * dw] over n terms. */
NN_INLINE nn_sum nn_dot(nn_sum s, const void *x, size_t dx, nn_type x_type, int64_t zero_point, const void *w, size_t dw, nn_type w_type,
                        size_t n, int wide) {
    const uint32_t zero = (uint32_t)zero_point;
    if (wide) {
        for (; n != 0; n--) {
            s.wide += ((uint64_t)nn_load(x, 0, x_type) - (uint64_t)zero_point) * (uint64_t)nn_load(w, 0, w_type);
            x = nn_at(x, dx, x_type);
            w = nn_at(w, dw, w_type);
        }
        return s;
    }
    for (; n >= 8; n -= 8) { /* eight at a time: moving two pointers and counting costs as much as a term and a half */
        s.narrow += nn_term(x, 0, x_type, zero, w, 0, w_type) + nn_term(x, dx, x_type, zero, w, dw, w_type);
        s.narrow += nn_term(x, 2 * dx, x_type, zero, w, 2 * dw, w_type) + nn_term(x, 3 * dx, x_type, zero, w, 3 * dw, w_type);
        s.narrow += nn_term(x, 4 * dx, x_type, zero, w, 4 * dw, w_type) + nn_term(x, 5 * dx, x_type, zero, w, 5 * dw, w_type);
        s.narrow += nn_term(x, 6 * dx, x_type, zero, w, 6 * dw, w_type) + nn_term(x, 7 * dx, x_type, zero, w, 7 * dw, w_type);
        x = nn_at(x, 8 * dx, x_type);
        w = nn_at(w, 8 * dw, w_type);
    }
    for (; n != 0; n--) {
        s.narrow += nn_term(x, 0, x_type, zero, w, 0, w_type);
        x = nn_at(x, dx, x_type);
        w = nn_at(w, dw, w_type);
    }
    return s;
}
#endif
