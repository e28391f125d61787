/* Dense layers and convolutions with weights of 4 bits, of 2 and of two values on Cortex-M cores with the DSP extension: as nn_dsp.h,
 * whose widened rows these are, with the inner loops of nn_narrow.S, which says how the products are taken. Weights may have a common
 * factor, `times`, which is not in flash. */
#ifndef NN_NARROW_H
#define NN_NARROW_H
#include "nn_dsp.h"

typedef struct {
    int32_t bits;  /* of a field: 4 or 2; 1 for two values */
    int32_t pairs; /* of values in a run */
    int32_t times; /* what every weight in flash is to be multiplied by */
    int32_t run;   /* values in a run; for two values only, which are: */
    int32_t low, step; /* the lesser, and what the greater has more */
    int32_t shared; /* two positions in the words of a table */
} nn_narrow_form;

typedef void nn_narrow_dot(const nn_s16 *x, const nn_u16 *w, nn_s32 *sums, const nn_s32 *moved);
typedef void nn_narrow_lookups(const void *tables, const nn_u32 *w, nn_s32 *sums);

#ifdef __ARM_FEATURE_DSP
#define NN_NARROW_DOT(name, bits, first, fields, words, whole, positions, pairs, segments, skip, step) nn_narrow_dot name;
#define NN_NARROW_LOOKUPS(name, shared, tables) nn_narrow_lookups name;
#else
/* What the functions of nn_narrow.S compute, for cores without the instructions: a model made for one core runs on any. `words` words
 * for two values of x, of which `fields` fields from `first` on are taken; whole: the last sum is that of all fields. */
NN_INLINE void nn_narrow_sums(const nn_s16 *x, const nn_u16 *w, nn_s32 *sums, const nn_s32 *moved, uint32_t bits, uint32_t first,
                              uint32_t fields, uint32_t words, int whole, uint32_t positions, uint32_t pairs, uint32_t segments,
                              uint32_t skip, uint32_t step) {
    const uint32_t last = 16 / bits - 1; /* the field that keeps its sign */
    uint32_t made[8];
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t f = first + i / positions % fields, start = (uint32_t)moved[i % positions];
        made[i] = f < last ? start << (bits * f) : 0;
        for (uint32_t k = 0; k < last && f == last && whole; k++) {
            made[i] += start << (bits * k);
        }
    }
    for (uint32_t i = 0; i < segments; i++) {
        for (uint32_t k = 0; k < pairs; k++) {
            for (uint32_t n = 0; n < words; n++) {
                for (uint32_t v = 0; v < 2; v++, w++) {
                    for (uint32_t r = 0; r < fields; r++) {
                        const uint32_t f = first + r, mask = f == last && whole ? 0xFFFFu : ((1u << bits) - 1) << (bits * f);
                        const uint32_t taken = *w & mask, weight = f == last ? taken - 2 * (taken & 0x8000u) : taken;
                        for (uint32_t p = 0; p < positions; p++) {
                            const uint32_t value = (uint32_t)x[p * step + v];
                            made[positions * (n * fields + r) + p] += weight * value;
                        }
                    }
                }
            }
            x += 2;
        }
        x += skip;
    }
    for (uint32_t i = 0; i < 8; i++) {
        sums[i] = (int32_t)made[i];
    }
}
NN_INLINE void nn_narrow_looks(const void *tables, const nn_u32 *w, nn_s32 *sums, int shared, uint32_t n) {
    uint32_t made[8] = {0};
    for (uint32_t i = 0; i < n; i++, w++) {
        for (uint32_t r = 0; r < 8; r++) {
            made[r] += nn_load_low(tables, 16 * i + (*w >> (4 * r) & 15), shared ? NN_S32 : NN_S16);
        }
    }
    for (uint32_t r = 0; r < 8; r++) {
        sums[r] = (int32_t)made[r];
    }
}
#define NN_NARROW_DOT(name, bits, first, fields, words, whole, positions, pairs, segments, skip, step)                                \
    static void name(const nn_s16 *x, const nn_u16 *w, nn_s32 *sums, const nn_s32 *moved) {                                          \
        nn_narrow_sums(x, w, sums, moved, bits, first, fields, words, whole, positions, pairs, segments, (skip) / 2, (step) / 2);     \
    }
#define NN_NARROW_LOOKUPS(name, shared, tables)                                                                                      \
    static void name(const void *from, const nn_u32 *w, nn_s32 *sums) { nn_narrow_looks(from, w, sums, shared, tables); }
#endif

/* -2**(bits - 1) times the sum of the window at x, of every value that its inner loop reads, those behind a run among them. */
NN_INLINE int32_t nn_narrow_moved(const nn_s16 *x, nn_dsp_shape s, nn_narrow_form f) {
    uint32_t sum = 0;
    for (int32_t i = 0; i < s.k_h; i++) {
        const nn_u8 *from = (const nn_u8 *)(x + i * s.pitch);
        int32_t n = f.pairs;
        uint32_t two, next;
        for (; n >= 8; n -= 8) {
            NN_UNROLL
            for (int32_t k = 0; k < 4; k++) {
                __builtin_memcpy(&two, from, 4);
                __builtin_memcpy(&next, from + 4, 4);
                sum = nn_dsp_both(next, 0x10001u, nn_dsp_both(two, 0x10001u, sum));
                from += 8;
            }
        }
        for (; n > 0; n--) {
            __builtin_memcpy(&two, from, 4);
            sum = nn_dsp_both(two, 0x10001u, sum);
            from += 4;
        }
    }
    return (int32_t)((0u - sum) << (f.bits - 1));
}

/* One sum, 2**shift times what it should be, with the bias, through the stages. `of`: rows of a block, beyond which there may be none. */
NN_INLINE void nn_narrow_put(void *y, int32_t at, int32_t sum, int32_t shift, int32_t o, int32_t of, nn_param bias, nn_dsp_shape s,
                             int32_t times, nn_stages stages) {
    if (s.out_c % of != 0 && o >= s.out_c) {
        return;
    }
    const uint32_t b = (uint32_t)nn_get(bias, (size_t)o);
    if (s.twice) {
        const uint32_t value = shift != 0 ? (uint32_t)(sum >> (shift - 1)) : (uint32_t)sum << 1;
        nn_put_twice(y, (size_t)(at + o), (int32_t)(value * (uint32_t)times + b), (size_t)o, stages);
    } else {
        nn_put(y, (size_t)(at + o), (int32_t)((uint32_t)(sum >> shift) * (uint32_t)times + b), (size_t)o, stages);
    }
}

/* Four rows from their sums, `dp` apart, the first in field `first`. */
NN_INLINE void nn_narrow_four(void *y, int32_t at, const nn_s32 *sums, int32_t dp, int32_t first, int32_t o, int32_t of, nn_param bias,
                              nn_dsp_shape s, nn_narrow_form f, nn_stages stages) {
    nn_narrow_put(y, at, sums[0], f.bits * first, o, of, bias, s, f.times, stages);
    nn_narrow_put(y, at, sums[dp], f.bits * (first + 1), o + 1, of, bias, s, f.times, stages);
    nn_narrow_put(y, at, sums[2 * dp], f.bits * (first + 2), o + 2, of, bias, s, f.times, stages);
    nn_narrow_put(y, at, sums[3 * dp], f.bits * (first + 3), o + 3, of, bias, s, f.times, stages);
}

NN_INLINE int32_t nn_narrow_less(int32_t sum, int32_t a, int32_t b, int32_t c) {
    return (int32_t)((uint32_t)sum - (uint32_t)a - (uint32_t)b - (uint32_t)c);
}

/* Two positions; `dot` for four rows of 4 bits, or for the first four of eight of 2 bits, whose others are made by `high`. */
NN_INLINE void nn_conv_narrow(const void *x, const nn_u16 *w, nn_param bias, void *y, nn_dsp_shape s, nn_narrow_form f, nn_stages stages,
                              nn_narrow_dot *dot, nn_narrow_dot *high, nn_s16 *rows) {
    const int32_t of = f.bits == 4 ? 4 : 8;
    for (int32_t first = 0; first < s.out_w; first += s.tile) {
        const int32_t end = s.out_w - first < s.tile ? s.out_w - first : s.tile;
        for (int32_t oh = 0; oh < s.out_h; oh++) {
            nn_dsp_fill(rows, x, oh, first, s);
            for (int32_t ow = 0; ow < end; ow += 2) {
                const nn_s16 *at_x = rows + ow * s.stride_w * s.in_c;
                const nn_s32 moved[2] = {nn_narrow_moved(at_x, s, f), nn_narrow_moved(at_x + s.stride_w * s.in_c, s, f)};
                const nn_u16 *w_block = w;
                const int32_t at = (oh * s.out_w + first + ow) * s.out_c;
                const int both = (s.out_w % 2 == 0 && s.tile % 2 == 0) || ow + 1 < end;
                for (int32_t o = 0; o < s.out_c; o += of) {
                    nn_s32 sums[8];
                    dot(at_x, w_block, sums, moved);
                    if (f.bits == 4) {
                        sums[6] = nn_narrow_less(sums[6], sums[0], sums[2], sums[4]);
                        sums[7] = nn_narrow_less(sums[7], sums[1], sums[3], sums[5]);
                    }
                    nn_narrow_four(y, at, sums, 2, 0, o, of, bias, s, f, stages);
                    if (both) {
                        nn_narrow_four(y, at + s.out_c, sums + 1, 2, 0, o, of, bias, s, f, stages);
                    }
                    if (f.bits == 2 && (s.out_c % 8 == 0 || o + 4 < s.out_c)) {
                        high(at_x, w_block, sums, moved);
                        nn_narrow_four(y, at, sums, 2, 4, o + 4, of, bias, s, f, stages);
                        if (both) {
                            nn_narrow_four(y, at + s.out_c, sums + 1, 2, 4, o + 4, of, bias, s, f, stages);
                        }
                    }
                    w_block += s.block;
                }
            }
        }
    }
}

/* One position: eight rows of weights at once. */
NN_INLINE void nn_dense_narrow(const void *x, const nn_u16 *w, nn_param bias, void *y, nn_dsp_shape s, nn_narrow_form f, nn_stages stages,
                               nn_narrow_dot *dot, nn_s16 *rows) {
    nn_dsp_widen(rows, x, s.in_c, s.x_signed);
    const nn_s32 moved[1] = {nn_narrow_moved(rows, s, f)};
    for (int32_t o = 0; o < s.out_c; o += 8) {
        nn_s32 sums[8];
        dot(rows, w, sums, moved);
        w += s.block;
        if (f.bits == 4) {
            sums[3] = nn_narrow_less(sums[3], sums[0], sums[1], sums[2]);
            sums[7] = nn_narrow_less(sums[7], sums[4], sums[5], sums[6]);
        } else {
            sums[7] = nn_narrow_less(nn_narrow_less(sums[7], sums[0], sums[1], sums[2]), sums[3], sums[4], sums[5]);
            sums[7] = (nn_s32)((uint32_t)sums[7] - (uint32_t)sums[6]);
        }
        nn_narrow_four(y, 0, sums, 1, 0, o, 8, bias, s, f, stages);
        nn_narrow_four(y, 0, sums + 4, 1, f.bits == 4 ? 0 : 4, o + 4, 8, bias, s, f, stages);
    }
}

/* Entry m of a table: the sum over four values of x of the lesser weight, or the greater where m has the value's bit. */
NN_INLINE void nn_narrow_table(void *tables, int32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d, nn_narrow_form f) {
    const uint32_t step = (uint32_t)f.step, none = (a + b + c + d) * (uint32_t)f.low;
    uint32_t made[16];
    a *= step, b *= step, c *= step, d *= step;
    made[0] = none, made[1] = none + a, made[2] = none + b, made[3] = made[1] + b;
    made[4] = none + c, made[5] = made[1] + c, made[6] = made[2] + c, made[7] = made[3] + c;
    made[8] = none + d, made[9] = made[1] + d, made[10] = made[2] + d, made[11] = made[3] + d;
    made[12] = made[4] + d, made[13] = made[5] + d, made[14] = made[6] + d, made[15] = made[7] + d;
    if (f.shared) {
        nn_u32 *to = (nn_u32 *)tables + 16 * at;
        to[0] = made[0], to[1] = made[1], to[2] = made[2], to[3] = made[3], to[4] = made[4], to[5] = made[5], to[6] = made[6], to[7] = made[7];
        to[8] = made[8], to[9] = made[9], to[10] = made[10], to[11] = made[11], to[12] = made[12], to[13] = made[13], to[14] = made[14];
        to[15] = made[15];
    } else {
        nn_u16 *to = (nn_u16 *)tables + 16 * at;
        to[0] = (nn_u16)made[0], to[1] = (nn_u16)made[1], to[2] = (nn_u16)made[2], to[3] = (nn_u16)made[3];
        to[4] = (nn_u16)made[4], to[5] = (nn_u16)made[5], to[6] = (nn_u16)made[6], to[7] = (nn_u16)made[7];
        to[8] = (nn_u16)made[8], to[9] = (nn_u16)made[9], to[10] = (nn_u16)made[10], to[11] = (nn_u16)made[11];
        to[12] = (nn_u16)made[12], to[13] = (nn_u16)made[13], to[14] = (nn_u16)made[14], to[15] = (nn_u16)made[15];
    }
}

/* Value k of x, with that of the next position in the upper half where both share a table. */
NN_INLINE uint32_t nn_narrow_value(const nn_s16 *x, int32_t k, int32_t next, nn_narrow_form f) {
    return (uint32_t)x[k] + (f.shared ? (uint32_t)x[next + k] << 16 : 0);
}

/* The tables of the window at x, of the next one too where they share. */
NN_INLINE void nn_narrow_tables(void *tables, const nn_s16 *x, nn_dsp_shape s, nn_narrow_form f) {
    const int32_t next = s.stride_w * s.in_c;
    int32_t at = 0;
    for (int32_t i = 0; i < s.k_h; i++, x += s.pitch) {
        const nn_s16 *from = x;
        for (int32_t k = 0; k < f.run / 4; k++, from += 4) {
            nn_narrow_table(tables, at++, nn_narrow_value(from, 0, next, f), nn_narrow_value(from, 1, next, f),
                            nn_narrow_value(from, 2, next, f), nn_narrow_value(from, 3, next, f), f);
        }
        if (f.run % 4 != 0) { /* what is behind the run is no x */
            nn_narrow_table(tables, at++, nn_narrow_value(from, 0, next, f), f.run % 4 > 1 ? nn_narrow_value(from, 1, next, f) : 0,
                            f.run % 4 > 2 ? nn_narrow_value(from, 2, next, f) : 0, 0, f);
        }
    }
}

/* Eight rows of the one or two positions from `at` on. */
NN_INLINE void nn_narrow_eight(void *y, int32_t at, const nn_s32 *sums, int32_t o, int both, nn_param bias, nn_dsp_shape s, nn_narrow_form f,
                               nn_stages stages) {
    nn_s32 first[8];
    NN_UNROLL
    for (int32_t r = 0; r < 8; r++) {
        first[r] = f.shared ? (int16_t)sums[r] : sums[r];
        nn_narrow_put(y, at, first[r], 0, o + r, 8, bias, s, f.times, stages);
    }
    if (f.shared && both) {
        NN_UNROLL
        for (int32_t r = 0; r < 8; r++) {
            nn_narrow_put(y, at + s.out_c, (int32_t)((uint32_t)sums[r] - (uint32_t)first[r]) >> 16, 0, o + r, 8, bias, s, f.times, stages);
        }
    }
}

/* Two values of a weight: tables for one position, or for two that share, behind `rows`. */
NN_INLINE void nn_conv_subsets(const void *x, const nn_u32 *w, nn_param bias, void *y, nn_dsp_shape s, nn_narrow_form f, nn_stages stages,
                               nn_narrow_lookups *lookups, nn_s16 *rows, void *tables) {
    const int32_t positions = f.shared ? 2 : 1;
    for (int32_t first = 0; first < s.out_w; first += s.tile) {
        const int32_t end = s.out_w - first < s.tile ? s.out_w - first : s.tile;
        for (int32_t oh = 0; oh < s.out_h; oh++) {
            nn_dsp_fill(rows, x, oh, first, s);
            for (int32_t ow = 0; ow < end; ow += positions) {
                const nn_u32 *w_block = w;
                nn_narrow_tables(tables, rows + ow * s.stride_w * s.in_c, s, f);
                for (int32_t o = 0; o < s.out_c; o += 8) {
                    nn_s32 sums[8];
                    lookups(tables, w_block, sums);
                    w_block += s.block;
                    nn_narrow_eight(y, (oh * s.out_w + first + ow) * s.out_c, sums, o, ow + 1 < end, bias, s, f, stages);
                }
            }
        }
    }
}
#endif
