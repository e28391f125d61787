// The stored integers of a tensor (little endian, one after another) to and from hls4ml's types, whose values
// they are: nothing is rounded and nothing is scaled here.
#ifndef BITWRIGHT_TOP_H
#define BITWRIGHT_TOP_H

// an ap_uint holds whole tensors; the tools' limit is 1024 bits unless told otherwise
#include "bitwright_design.h"

#include "ap_fixed.h"
#include "ap_int.h"
#ifdef BW_STREAM
#include "hls_stream.h"
#endif

// The network's types hold the stored integers as their values; they may be wider than the storage, and signed otherwise.
template <class T, int BITS, bool SIGNED> struct bw_stored;

template <class T, int BITS> struct bw_stored<T, BITS, true> {
    static T get(const ap_uint<BITS> &stored) {
#pragma HLS INLINE
        ap_int<BITS> integer = stored;
        return T(integer);
    }
    static ap_uint<BITS> put(const T &value) {
#pragma HLS INLINE
        ap_int<BITS> integer(value);
        return ap_uint<BITS>(integer);
    }
};

template <class T, int BITS> struct bw_stored<T, BITS, false> {
    static T get(const ap_uint<BITS> &stored) {
#pragma HLS INLINE
        return T(stored);
    }
    static ap_uint<BITS> put(const T &value) {
#pragma HLS INLINE
        return ap_uint<BITS>(value);
    }
};

#ifdef BW_STREAM

// The words of one tensor, a position each: hls4ml's nnet::array of its channels.
template <class T, int WORDS, int BYTES, bool SIGNED>
void bw_feed(hls::stream<ap_uint<8 * BW_IN_WORD_BYTES> > &from, hls::stream<T> &to) {
#pragma HLS INLINE
    for (int word = 0; word < WORDS; word++) {
#pragma HLS PIPELINE II=1
        ap_uint<8 * BW_IN_WORD_BYTES> given = from.read();
        T values;
        for (unsigned i = 0; i < T::size; i++) {
#pragma HLS UNROLL
            ap_uint<8 * BYTES> stored = given.range(8 * BYTES * (i + 1) - 1, 8 * BYTES * i);
            values[i] = bw_stored<typename T::value_type, 8 * BYTES, SIGNED>::get(stored);
        }
        to.write(values);
    }
}

template <class T, int WORDS, int BYTES, bool SIGNED>
void bw_drain(hls::stream<T> &from, hls::stream<ap_uint<8 * BW_OUT_WORD_BYTES> > &to) {
#pragma HLS INLINE
    for (int word = 0; word < WORDS; word++) {
#pragma HLS PIPELINE II=1
        T values = from.read();
        ap_uint<8 * BW_OUT_WORD_BYTES> made = 0;
        for (unsigned i = 0; i < T::size; i++) {
#pragma HLS UNROLL
            made.range(8 * BYTES * (i + 1) - 1, 8 * BYTES * i) =
                bw_stored<typename T::value_type, 8 * BYTES, SIGNED>::put(values[i]);
        }
        to.write(made);
    }
}

void bitwright_top(hls::stream<ap_uint<8 * BW_IN_WORD_BYTES> > &bw_in,
                   hls::stream<ap_uint<8 * BW_OUT_WORD_BYTES> > &bw_out);

#else

template <class T, int COUNT, int BYTES, bool SIGNED, int OFFSET>
void bw_unpack(const ap_uint<8 * BW_IN_BYTES> &from, T to[COUNT]) {
#pragma HLS INLINE
    for (int i = 0; i < COUNT; i++) {
#pragma HLS UNROLL
        ap_uint<8 * BYTES> stored = from.range(8 * (OFFSET + BYTES * (i + 1)) - 1, 8 * (OFFSET + BYTES * i));
        to[i] = bw_stored<T, 8 * BYTES, SIGNED>::get(stored);
    }
}

template <class T, int COUNT, int BYTES, bool SIGNED, int OFFSET>
void bw_pack(const T from[COUNT], ap_uint<8 * BW_OUT_BYTES> &to) {
#pragma HLS INLINE
    for (int i = 0; i < COUNT; i++) {
#pragma HLS UNROLL
        to.range(8 * (OFFSET + BYTES * (i + 1)) - 1, 8 * (OFFSET + BYTES * i)) =
            bw_stored<T, 8 * BYTES, SIGNED>::put(from[i]);
    }
}

void bitwright_top(ap_uint<8 * BW_IN_BYTES> bw_in, ap_uint<8 * BW_OUT_BYTES> *bw_out);

#endif
#endif
