/* The ops that hls4ml has no exact kernel for, on stored integers: requantize, threshold, lookup, pad, pools, repeat,
 * slice, concat, transpose, reshape, argmax.
 *
 * docs/numerics.md specifies each. Every kernel has a form for arrays (io_parallel: all elements at once, the loops unroll under the
 * PIPELINE of the caller) and one for streams (io_stream: a token is all channels of one position). Shapes, modes and
 * widths are constants of CONFIG_T; tables are arguments, as hls4ml's weights are. nn_types.h gives integers and streams. */
#ifndef NN_KERNELS_H_
#define NN_KERNELS_H_

#include "nn_types.h"

namespace nnet {

enum nn_rounding {
    nn_half_even,
    nn_half_up,
    nn_half_down,
    nn_half_away,
    nn_half_toward_zero,
    nn_floor,
    nn_ceil,
    nn_toward_zero,
    nn_away_from_zero,
    nn_tflm
};

/* ---- requantize: clamp(output_offset + round((x * multiplier + offset) / 2**shift)) ---- */

/* Whether round(p / 2**s) is one above its floor; `rest` is p - (floor << s). Twice the rest, so that shift 0 needs no case. */
template <int MODE, int W>
bool nn_round_up(bool negative, bool odd, typename nn::wide<W>::type rest, typename nn::wide<W>::type one) {
    #pragma HLS INLINE
    typename nn::wide<W + 1>::type twice = rest; /* wider before the shift: it keeps its operand's width */
    twice = twice << 1;
    const bool above = twice > one, half = twice == one;
    switch (MODE) {
    case nn_half_even:
        return above || (half && odd);
    case nn_half_up:
        return above || half;
    case nn_half_down:
        return above;
    case nn_half_away:
        return above || (half && !negative);
    case nn_half_toward_zero:
        return above || (half && negative);
    case nn_floor:
        return false;
    case nn_ceil:
        return rest != 0;
    case nn_toward_zero:
        return rest != 0 && negative;
    default: /* nn_away_from_zero */
        return rest != 0 && !negative;
    }
}

template <int MODE, int W> typename nn::wide<W>::type nn_shift_right(typename nn::wide<W>::type p, int shift) {
    #pragma HLS INLINE
    typedef typename nn::wide<W>::type wide_t;
    const wide_t floor = p >> shift;
    const wide_t one = wide_t(1) << shift;
    const wide_t rest = p - wide_t(floor << shift);
    return nn_round_up<MODE, W>(p < 0, floor[0] != 0, rest, one) ? wide_t(floor + 1) : floor;
}

/* TensorFlow Lite Micro: a saturating left shift, a doubling high product, a rounding right shift. */
template <int W> typename nn::wide<W>::type nn_tflm_scale(typename nn::wide<W>::type x, typename nn::wide<W>::type m, int shift) {
    #pragma HLS INLINE
    typedef typename nn::wide<W>::type wide_t;
    const wide_t most = 2147483647, least = -most - 1;
    const int left = shift < 31 ? 31 - shift : 0, right = shift > 31 ? shift - 31 : 0;
    wide_t a = x << left;
    a = a > most ? most : a < least ? least : a;
    const wide_t p = a * m;
    const wide_t high = nn_shift_right<nn_half_up, W>(p, 31); /* the nudge is 1 - 2**30 below zero */
    return nn_shift_right<nn_half_away, W>(high, right);
}

template <class data_T, class res_T, typename CONFIG_T, class mult_T, class offset_T, class shift_T>
res_T nn_requantize_one(data_T x, mult_T m, offset_T o, shift_T s) {
    #pragma HLS INLINE
    typedef typename nn::wide<CONFIG_T::work_bits>::type work_t;
    work_t y;
    if (CONFIG_T::rounding == nn_tflm) {
        y = nn_tflm_scale<CONFIG_T::work_bits>(work_t(x), work_t(m), s.to_int());
    } else {
        work_t p = x * m; /* no wider than its operands make it: work_t here would cost multipliers of its width */
        p = p + o;
        y = nn_shift_right<CONFIG_T::rounding, CONFIG_T::work_bits>(p, s.to_int());
    }
    y = y + work_t(CONFIG_T::output_offset);
    const work_t lo = CONFIG_T::lo, hi = CONFIG_T::hi;
    return res_T(y < lo ? lo : y > hi ? hi : y);
}

template <class data_T, class res_T, typename CONFIG_T, class mult_T, class offset_T, class shift_T>
void nn_requantize(data_T data[CONFIG_T::size], res_T res[CONFIG_T::size], mult_T mult[CONFIG_T::rows],
                   offset_T offset[CONFIG_T::rows], shift_T shift[CONFIG_T::rows]) {
    #pragma HLS PIPELINE
    #pragma HLS ARRAY_PARTITION variable=mult complete
    #pragma HLS ARRAY_PARTITION variable=offset complete
    #pragma HLS ARRAY_PARTITION variable=shift complete
    for (int i = 0; i < CONFIG_T::size; i++) {
        const int c = (i % CONFIG_T::channels) % CONFIG_T::rows;
        res[i] = nn_requantize_one<data_T, res_T, CONFIG_T>(data[i], mult[c], offset[c], shift[c]);
    }
}

template <class data_T, class res_T, typename CONFIG_T, class mult_T, class offset_T, class shift_T>
void nn_requantize(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, mult_T mult[CONFIG_T::rows],
                   offset_T offset[CONFIG_T::rows], shift_T shift[CONFIG_T::rows]) {
    #pragma HLS ARRAY_PARTITION variable=mult complete
    #pragma HLS ARRAY_PARTITION variable=offset complete
    #pragma HLS ARRAY_PARTITION variable=shift complete
RequantizeTokens:
    for (int i = 0; i < CONFIG_T::size / CONFIG_T::channels; i++) {
        #pragma HLS PIPELINE
        data_T in = data.read();
        res_T out;
        PRAGMA_DATA_PACK(out)
        for (int j = 0; j < CONFIG_T::channels; j++) {
            #pragma HLS UNROLL
            const int c = j % CONFIG_T::rows;
            out[j] = nn_requantize_one<typename data_T::value_type, typename res_T::value_type, CONFIG_T>(in[j], mult[c],
                                                                                                         offset[c], shift[c]);
        }
        res.write(out);
    }
}

/* ---- threshold: levels[number of thresholds at or below x] ---- */

/* Short ladders are compared all at once, long ones searched: STEPS halvings of a table. */
template <class data_T, class res_T, typename CONFIG_T, class threshold_T, class level_T>
res_T nn_threshold_one(data_T x, const threshold_T *ladder, const level_T *levels) {
    #pragma HLS INLINE
    int count = 0;
    if (CONFIG_T::thresholds <= 16) {
        for (int t = 0; t < CONFIG_T::thresholds; t++) {
            #pragma HLS UNROLL
            count += x >= ladder[t] ? 1 : 0;
        }
    } else {
        for (int k = CONFIG_T::steps - 1; k >= 0; k--) {
            #pragma HLS UNROLL
            const int next = count + (1 << k);
            if (next <= CONFIG_T::thresholds && x >= ladder[next - 1]) {
                count = next;
            }
        }
    }
    return res_T(levels[count]);
}

template <class data_T, class res_T, typename CONFIG_T, class threshold_T, class level_T>
void nn_threshold(data_T data[CONFIG_T::size], res_T res[CONFIG_T::size],
                  threshold_T ladder[CONFIG_T::ladders * CONFIG_T::thresholds],
                  level_T levels[CONFIG_T::level_rows * (CONFIG_T::thresholds + 1)]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::size; i++) {
        const int c = i % CONFIG_T::channels;
        res[i] = nn_threshold_one<data_T, res_T, CONFIG_T>(
            data[i], ladder + (c % CONFIG_T::ladders) * CONFIG_T::thresholds,
            levels + (c % CONFIG_T::level_rows) * (CONFIG_T::thresholds + 1));
    }
}

template <class data_T, class res_T, typename CONFIG_T, class threshold_T, class level_T>
void nn_threshold(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res,
                  threshold_T ladder[CONFIG_T::ladders * CONFIG_T::thresholds],
                  level_T levels[CONFIG_T::level_rows * (CONFIG_T::thresholds + 1)]) {
ThresholdTokens:
    for (int i = 0; i < CONFIG_T::size / CONFIG_T::channels; i++) {
        #pragma HLS PIPELINE
        data_T in = data.read();
        res_T out;
        PRAGMA_DATA_PACK(out)
        for (int j = 0; j < CONFIG_T::channels; j++) {
            #pragma HLS UNROLL
            out[j] = nn_threshold_one<typename data_T::value_type, typename res_T::value_type, CONFIG_T>(
                in[j], ladder + (j % CONFIG_T::ladders) * CONFIG_T::thresholds,
                levels + (j % CONFIG_T::level_rows) * (CONFIG_T::thresholds + 1));
        }
        res.write(out);
    }
}

/* ---- lookup: table[x - first] ---- */

template <class data_T, class res_T, typename CONFIG_T, class table_T>
void nn_lookup(data_T data[CONFIG_T::size], res_T res[CONFIG_T::size], table_T table[CONFIG_T::entries]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::size; i++) {
        res[i] = res_T(table[data[i].to_int() - CONFIG_T::first]);
    }
}

template <class data_T, class res_T, typename CONFIG_T, class table_T>
void nn_lookup(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, table_T table[CONFIG_T::entries]) {
LookupTokens:
    for (int i = 0; i < CONFIG_T::size / CONFIG_T::channels; i++) {
        #pragma HLS PIPELINE
        data_T in = data.read();
        res_T out;
        PRAGMA_DATA_PACK(out)
        for (int j = 0; j < CONFIG_T::channels; j++) {
            #pragma HLS UNROLL
            out[j] = typename res_T::value_type(table[in[j].to_int() - CONFIG_T::first]);
        }
        res.write(out);
    }
}

/* ---- pad: `value` around [height, width, channels] ---- */

template <class data_T, class res_T, typename CONFIG_T>
void nn_pad(data_T data[CONFIG_T::height * CONFIG_T::width * CONFIG_T::channels],
            res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::out_channels]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::out_channels; i++) {
        const int c = i % CONFIG_T::out_channels - CONFIG_T::front;
        const int w = i / CONFIG_T::out_channels % CONFIG_T::out_width - CONFIG_T::left;
        const int h = i / CONFIG_T::out_channels / CONFIG_T::out_width - CONFIG_T::top;
        const bool inside =
            h >= 0 && h < CONFIG_T::height && w >= 0 && w < CONFIG_T::width && c >= 0 && c < CONFIG_T::channels;
        res[i] = inside ? res_T(data[(h * CONFIG_T::width + w) * CONFIG_T::channels + c]) : res_T(CONFIG_T::value);
    }
}

template <class data_T, class res_T, typename CONFIG_T> void nn_pad(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res) {
PadRows:
    for (int h = -CONFIG_T::top; h < CONFIG_T::out_height - CONFIG_T::top; h++) {
    PadColumns:
        for (int w = -CONFIG_T::left; w < CONFIG_T::out_width - CONFIG_T::left; w++) {
            #pragma HLS PIPELINE
            res_T out;
            PRAGMA_DATA_PACK(out)
            for (int c = 0; c < CONFIG_T::out_channels; c++) {
                #pragma HLS UNROLL
                out[c] = typename res_T::value_type(CONFIG_T::value);
            }
            if (h >= 0 && h < CONFIG_T::height && w >= 0 && w < CONFIG_T::width) {
                data_T in = data.read();
                for (int c = 0; c < CONFIG_T::channels; c++) {
                    #pragma HLS UNROLL
                    out[c + CONFIG_T::front] = typename res_T::value_type(in[c]);
                }
            }
            res.write(out);
        }
    }
}

/* ---- pools over windows that lie inside [height, width, channels]; what they may not see was padded before ---- */

/* `factor` brings sums of windows that count fewer elements to the common scale; rows of it: 1, or one for each position. */
template <class res_T, typename CONFIG_T, class data_T> res_T nn_pool_more(res_T so_far, data_T x) {
    #pragma HLS INLINE
    if (CONFIG_T::maximum) {
        return res_T(x) > so_far ? res_T(x) : so_far;
    }
    return res_T(so_far + res_T(x));
}

template <class data_T, class res_T, typename CONFIG_T, class factor_T>
void nn_pool(data_T data[CONFIG_T::height * CONFIG_T::width * CONFIG_T::channels],
             res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::channels],
             factor_T factor[CONFIG_T::factors]) {
    #pragma HLS PIPELINE
    for (int p = 0; p < CONFIG_T::out_height * CONFIG_T::out_width; p++) {
        const int h = p / CONFIG_T::out_width * CONFIG_T::stride_height;
        const int w = p % CONFIG_T::out_width * CONFIG_T::stride_width;
        for (int c = 0; c < CONFIG_T::channels; c++) {
            res_T y = CONFIG_T::maximum ? res_T(data[(h * CONFIG_T::width + w) * CONFIG_T::channels + c]) : res_T(0);
            for (int i = 0; i < CONFIG_T::pool_height; i++) {
                for (int j = 0; j < CONFIG_T::pool_width; j++) {
                    const int at = ((h + i) * CONFIG_T::width + w + j) * CONFIG_T::channels + c;
                    y = nn_pool_more<res_T, CONFIG_T>(y, data[at]);
                }
            }
            res[p * CONFIG_T::channels + c] = CONFIG_T::factors > 1 ? res_T(y * factor[p % CONFIG_T::factors]) : y;
        }
    }
}

/* Windows that do not overlap: one running value for each of a row of windows and each channel. */
template <class data_T, class res_T, typename CONFIG_T, class factor_T>
void nn_pool_apart(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, factor_T factor[CONFIG_T::factors]) {
    typedef typename res_T::value_type value_t;
    value_t running[CONFIG_T::out_width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=running complete dim=2
    int position = 0;
PoolApartRows:
    for (int h = 0; h < CONFIG_T::height; h++) {
    PoolApartColumns:
        for (int w = 0; w < CONFIG_T::width; w++) {
            #pragma HLS PIPELINE
            data_T in = data.read();
            const int i = h % CONFIG_T::stride_height, j = w % CONFIG_T::stride_width, at = w / CONFIG_T::stride_width;
            const bool inside = i < CONFIG_T::pool_height && j < CONFIG_T::pool_width &&
                                h / CONFIG_T::stride_height < CONFIG_T::out_height && at < CONFIG_T::out_width;
            if (inside) {
                const bool first = i == 0 && j == 0, last = i == CONFIG_T::pool_height - 1 && j == CONFIG_T::pool_width - 1;
                res_T out;
                PRAGMA_DATA_PACK(out)
                for (int c = 0; c < CONFIG_T::channels; c++) {
                    #pragma HLS UNROLL
                    const value_t before = first ? (CONFIG_T::maximum ? value_t(in[c]) : value_t(0)) : running[at][c];
                    const value_t y = nn_pool_more<value_t, CONFIG_T>(before, in[c]);
                    running[at][c] = y;
                    out[c] = CONFIG_T::factors > 1 ? value_t(y * factor[position % CONFIG_T::factors]) : y;
                }
                if (last) {
                    res.write(out);
                    position++;
                }
            }
        }
    }
}

/* The last rows lie in `lines`, the current window in `window`; a window is done when its last element arrives. */
template <class data_T, class res_T, typename CONFIG_T, class factor_T>
void nn_pool_overlapping(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, factor_T factor[CONFIG_T::factors]) {
    typedef typename res_T::value_type value_t;
    typename data_T::value_type lines[CONFIG_T::pool_height][CONFIG_T::width][CONFIG_T::channels];
    typename data_T::value_type window[CONFIG_T::pool_height][CONFIG_T::pool_width][CONFIG_T::channels];
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=1
    #pragma HLS ARRAY_PARTITION variable=lines complete dim=3
    #pragma HLS ARRAY_PARTITION variable=window complete dim=0
    int position = 0;
PoolRows:
    for (int h = 0; h < CONFIG_T::height; h++) {
    PoolColumns:
        for (int w = 0; w < CONFIG_T::width; w++) {
            #pragma HLS PIPELINE
            data_T in = data.read();
            for (int c = 0; c < CONFIG_T::channels; c++) {
                #pragma HLS UNROLL
                for (int i = 0; i < CONFIG_T::pool_height; i++) {
                    #pragma HLS UNROLL
                    const typename data_T::value_type x = i + 1 < CONFIG_T::pool_height ? lines[i + 1][w][c] : in[c];
                    lines[i][w][c] = x;
                    for (int j = 0; j + 1 < CONFIG_T::pool_width; j++) {
                        #pragma HLS UNROLL
                        window[i][j][c] = window[i][j + 1][c];
                    }
                    window[i][CONFIG_T::pool_width - 1][c] = x;
                }
            }
            const int top = h + 1 - CONFIG_T::pool_height, left = w + 1 - CONFIG_T::pool_width;
            const bool done = top >= 0 && left >= 0 && top % CONFIG_T::stride_height == 0 &&
                              left % CONFIG_T::stride_width == 0 && top / CONFIG_T::stride_height < CONFIG_T::out_height &&
                              left / CONFIG_T::stride_width < CONFIG_T::out_width;
            if (done) {
                res_T out;
                PRAGMA_DATA_PACK(out)
                for (int c = 0; c < CONFIG_T::channels; c++) {
                    #pragma HLS UNROLL
                    value_t y = CONFIG_T::maximum ? value_t(window[0][0][c]) : value_t(0);
                    for (int i = 0; i < CONFIG_T::pool_height; i++) {
                        #pragma HLS UNROLL
                        for (int j = 0; j < CONFIG_T::pool_width; j++) {
                            #pragma HLS UNROLL
                            y = nn_pool_more<value_t, CONFIG_T>(y, window[i][j][c]);
                        }
                    }
                    out[c] = CONFIG_T::factors > 1 ? value_t(y * factor[position % CONFIG_T::factors]) : y;
                }
                res.write(out);
                position++;
            }
        }
    }
}

/* `stride` is at least `pool` where windows do not overlap; a dispatch on a type, so that only one form is instantiated. */
template <bool APART> struct nn_pool_form {
    template <class data_T, class res_T, typename CONFIG_T, class factor_T>
    static void run(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, factor_T *factor) {
        #pragma HLS INLINE
        nn_pool_apart<data_T, res_T, CONFIG_T>(data, res, factor);
    }
};

template <> struct nn_pool_form<false> {
    template <class data_T, class res_T, typename CONFIG_T, class factor_T>
    static void run(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, factor_T *factor) {
        #pragma HLS INLINE
        nn_pool_overlapping<data_T, res_T, CONFIG_T>(data, res, factor);
    }
};

template <class data_T, class res_T, typename CONFIG_T, class factor_T>
void nn_pool(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res, factor_T factor[CONFIG_T::factors]) {
    #pragma HLS INLINE
    const bool apart =
        CONFIG_T::stride_height >= CONFIG_T::pool_height && CONFIG_T::stride_width >= CONFIG_T::pool_width;
    nn_pool_form<apart>::template run<data_T, res_T, CONFIG_T>(data, res, factor);
}

/* ---- repeat: each element of [height, width, channels] as often as its axes say, next to itself ---- */

template <class data_T, class res_T, typename CONFIG_T>
void nn_repeat(data_T data[CONFIG_T::height * CONFIG_T::width * CONFIG_T::channels],
               res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::out_channels]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::out_channels; i++) {
        const int c = i % CONFIG_T::out_channels / (CONFIG_T::out_channels / CONFIG_T::channels);
        const int w = i / CONFIG_T::out_channels % CONFIG_T::out_width / (CONFIG_T::out_width / CONFIG_T::width);
        const int h = i / CONFIG_T::out_channels / CONFIG_T::out_width / (CONFIG_T::out_height / CONFIG_T::height);
        res[i] = data[(h * CONFIG_T::width + w) * CONFIG_T::channels + c];
    }
}

template <class data_T, class res_T, typename CONFIG_T> void nn_repeat(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res) {
    data_T row[CONFIG_T::width]; /* kept for the rows that repeat it */
    const int rows = CONFIG_T::out_height / CONFIG_T::height, columns = CONFIG_T::out_width / CONFIG_T::width;
RepeatRows:
    for (int h = 0; h < CONFIG_T::out_height; h++) {
    RepeatColumns:
        for (int w = 0; w < CONFIG_T::out_width; w++) {
            #pragma HLS PIPELINE
            if (h % rows == 0 && w % columns == 0) {
                row[w / columns] = data.read();
            }
            data_T in = row[w / columns];
            res_T out;
            PRAGMA_DATA_PACK(out)
            for (int c = 0; c < CONFIG_T::out_channels; c++) {
                #pragma HLS UNROLL
                out[c] = in[c / (CONFIG_T::out_channels / CONFIG_T::channels)];
            }
            res.write(out);
        }
    }
}

/* ---- slice: from first_* on every stride_*-th row, column and channel ---- */

template <class data_T, class res_T, typename CONFIG_T>
void nn_slice(data_T data[CONFIG_T::height * CONFIG_T::width * CONFIG_T::channels],
              res_T res[CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::out_channels]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::out_height * CONFIG_T::out_width * CONFIG_T::out_channels; i++) {
        const int c = CONFIG_T::first_channels + i % CONFIG_T::out_channels * CONFIG_T::stride_channels;
        const int w = CONFIG_T::first_width + i / CONFIG_T::out_channels % CONFIG_T::out_width * CONFIG_T::stride_width;
        const int h = CONFIG_T::first_height + i / CONFIG_T::out_channels / CONFIG_T::out_width * CONFIG_T::stride_height;
        res[i] = data[(h * CONFIG_T::width + w) * CONFIG_T::channels + c];
    }
}

/* Every token is read, also after the last one taken: a stream that is not emptied blocks who fills it. */
template <class data_T, class res_T, typename CONFIG_T> void nn_slice(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res) {
SliceRows:
    for (int h = 0; h < CONFIG_T::height; h++) {
    SliceColumns:
        for (int w = 0; w < CONFIG_T::width; w++) {
            #pragma HLS PIPELINE
            data_T in = data.read();
            const int y = h - CONFIG_T::first_height, x = w - CONFIG_T::first_width;
            const bool taken = y >= 0 && x >= 0 && y % CONFIG_T::stride_height == 0 && x % CONFIG_T::stride_width == 0 &&
                               y / CONFIG_T::stride_height < CONFIG_T::out_height &&
                               x / CONFIG_T::stride_width < CONFIG_T::out_width;
            if (taken) {
                res_T out;
                PRAGMA_DATA_PACK(out)
                for (int c = 0; c < CONFIG_T::out_channels; c++) {
                    #pragma HLS UNROLL
                    out[c] = in[CONFIG_T::first_channels + c * CONFIG_T::stride_channels];
                }
                res.write(out);
            }
        }
    }
}

/* ---- concat: blocks of the first input and of the second by turns ---- */

/* In elements; `first` and `second` are what the axis and all after it hold of each input. */
template <class first_T, class second_T, class res_T, typename CONFIG_T>
void nn_concat(first_T first[CONFIG_T::blocks * CONFIG_T::first], second_T second[CONFIG_T::blocks * CONFIG_T::second],
               res_T res[CONFIG_T::blocks * (CONFIG_T::first + CONFIG_T::second)]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::blocks; i++) {
        for (int j = 0; j < CONFIG_T::first + CONFIG_T::second; j++) {
            res[i * (CONFIG_T::first + CONFIG_T::second) + j] =
                j < CONFIG_T::first ? res_T(first[i * CONFIG_T::first + j % CONFIG_T::first])
                                    : res_T(second[i * CONFIG_T::second + (j - CONFIG_T::first) % CONFIG_T::second]);
        }
    }
}

/* In tokens; along the channels each token is one of both. */
template <class first_T, class second_T, class res_T, typename CONFIG_T>
void nn_concat(NN_STREAM(first_T) & first, NN_STREAM(second_T) & second, NN_STREAM(res_T) & res) {
    typedef typename res_T::value_type value_t;
    const int tokens = CONFIG_T::along_channels ? 1 : CONFIG_T::first_tokens + CONFIG_T::second_tokens;
ConcatBlocks:
    for (int i = 0; i < CONFIG_T::token_blocks; i++) {
    ConcatTokens:
        for (int j = 0; j < tokens; j++) {
            #pragma HLS PIPELINE
            res_T out;
            PRAGMA_DATA_PACK(out)
            if (CONFIG_T::along_channels || j < CONFIG_T::first_tokens) {
                first_T in = first.read();
                for (int c = 0; c < CONFIG_T::first_channels; c++) {
                    #pragma HLS UNROLL
                    out[c] = value_t(in[c]);
                }
            }
            if (CONFIG_T::along_channels || j >= CONFIG_T::first_tokens) {
                second_T in = second.read();
                for (int c = 0; c < CONFIG_T::second_channels; c++) {
                    #pragma HLS UNROLL
                    out[c + (CONFIG_T::along_channels ? CONFIG_T::first_channels : 0)] = value_t(in[c]);
                }
            }
            res.write(out);
        }
    }
}

/* ---- transpose: step_* is how far the next element along an axis of the result lies in the input ---- */

template <class data_T, class res_T, typename CONFIG_T>
void nn_transpose(data_T data[CONFIG_T::size], res_T res[CONFIG_T::size]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::size; i++) {
        const int c = i % CONFIG_T::out_channels;
        const int w = i / CONFIG_T::out_channels % CONFIG_T::out_width;
        const int h = i / CONFIG_T::out_channels / CONFIG_T::out_width;
        res[i] = data[h * CONFIG_T::step_height + w * CONFIG_T::step_width + c * CONFIG_T::step_channels];
    }
}

template <class data_T, class res_T, typename CONFIG_T>
void nn_transpose(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res) {
    typename data_T::value_type all[CONFIG_T::size];
TransposeIn:
    for (int i = 0; i < CONFIG_T::size / CONFIG_T::channels; i++) {
        #pragma HLS PIPELINE
        data_T in = data.read();
        for (int c = 0; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            all[i * CONFIG_T::channels + c] = in[c];
        }
    }
TransposeOut:
    for (int i = 0; i < CONFIG_T::size / CONFIG_T::out_channels; i++) {
        #pragma HLS PIPELINE
        const int w = i % CONFIG_T::out_width, h = i / CONFIG_T::out_width;
        res_T out;
        PRAGMA_DATA_PACK(out)
        for (int c = 0; c < CONFIG_T::out_channels; c++) {
            #pragma HLS UNROLL
            out[c] = all[h * CONFIG_T::step_height + w * CONFIG_T::step_width + c * CONFIG_T::step_channels];
        }
        res.write(out);
    }
}

/* ---- reshape: the same elements in tokens of another size ---- */

template <class data_T, class res_T, typename CONFIG_T>
void nn_reshape(data_T data[CONFIG_T::size], res_T res[CONFIG_T::size]) {
    #pragma HLS PIPELINE
    for (int i = 0; i < CONFIG_T::size; i++) {
        res[i] = data[i];
    }
}

template <class data_T, class res_T, typename CONFIG_T> void nn_reshape(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res) {
    data_T in;
    res_T out;
    PRAGMA_DATA_PACK(out)
ReshapeElements:
    for (int i = 0; i < CONFIG_T::size; i++) {
        #pragma HLS PIPELINE
        if (i % CONFIG_T::channels == 0) {
            in = data.read();
        }
        out[i % CONFIG_T::out_channels] = in[i % CONFIG_T::channels];
        if (i % CONFIG_T::out_channels == CONFIG_T::out_channels - 1) {
            res.write(out);
        }
    }
}

/* ---- argmax over the channels, the first of equals ---- */

template <class data_T, class res_T, typename CONFIG_T>
void nn_argmax(data_T data[CONFIG_T::size], res_T res[CONFIG_T::size / CONFIG_T::channels]) {
    #pragma HLS PIPELINE
    for (int p = 0; p < CONFIG_T::size / CONFIG_T::channels; p++) {
        int best = 0;
        for (int c = 1; c < CONFIG_T::channels; c++) {
            best = data[p * CONFIG_T::channels + c] > data[p * CONFIG_T::channels + best] ? c : best;
        }
        res[p] = res_T(best);
    }
}

template <class data_T, class res_T, typename CONFIG_T> void nn_argmax(NN_STREAM(data_T) & data, NN_STREAM(res_T) & res) {
ArgMaxTokens:
    for (int p = 0; p < CONFIG_T::size / CONFIG_T::channels; p++) {
        #pragma HLS PIPELINE
        data_T in = data.read();
        res_T out;
        PRAGMA_DATA_PACK(out)
        int best = 0;
        for (int c = 1; c < CONFIG_T::channels; c++) {
            #pragma HLS UNROLL
            best = in[c] > in[best] ? c : best;
        }
        out[0] = typename res_T::value_type(best);
        res.write(out);
    }
}

} // namespace nnet

#endif
