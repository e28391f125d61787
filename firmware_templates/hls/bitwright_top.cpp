// The network as the Verilog top sees it: whole bytes in, whole bytes out (docs/fpga_top.md). Outputs are written once,
// in one piece, so that they need no port of their own for each element and are never read back.
#include "bitwright_top.h"

#ifdef BW_STREAM

static void feed(hls::stream<ap_uint<8 * BW_IN_WORD_BYTES> > &from, hls::stream<BW_IN0_T> &in0
#if BW_INPUTS > 1
                 , hls::stream<BW_IN1_T> &in1
#endif
#if BW_INPUTS > 2
                 , hls::stream<BW_IN2_T> &in2
#endif
#if BW_INPUTS > 3
                 , hls::stream<BW_IN3_T> &in3
#endif
) {
    bw_feed<BW_IN0_T, BW_IN0_WORDS, BW_IN0_BYTES, BW_IN0_SIGNED>(from, in0);
#if BW_INPUTS > 1
    bw_feed<BW_IN1_T, BW_IN1_WORDS, BW_IN1_BYTES, BW_IN1_SIGNED>(from, in1);
#endif
#if BW_INPUTS > 2
    bw_feed<BW_IN2_T, BW_IN2_WORDS, BW_IN2_BYTES, BW_IN2_SIGNED>(from, in2);
#endif
#if BW_INPUTS > 3
    bw_feed<BW_IN3_T, BW_IN3_WORDS, BW_IN3_BYTES, BW_IN3_SIGNED>(from, in3);
#endif
}

static void drain(hls::stream<BW_OUT0_T> &out0,
#if BW_OUTPUTS > 1
                  hls::stream<BW_OUT1_T> &out1,
#endif
#if BW_OUTPUTS > 2
                  hls::stream<BW_OUT2_T> &out2,
#endif
#if BW_OUTPUTS > 3
                  hls::stream<BW_OUT3_T> &out3,
#endif
                  hls::stream<ap_uint<8 * BW_OUT_WORD_BYTES> > &to) {
    bw_drain<BW_OUT0_T, BW_OUT0_WORDS, BW_OUT0_BYTES, BW_OUT0_SIGNED>(out0, to);
#if BW_OUTPUTS > 1
    bw_drain<BW_OUT1_T, BW_OUT1_WORDS, BW_OUT1_BYTES, BW_OUT1_SIGNED>(out1, to);
#endif
#if BW_OUTPUTS > 2
    bw_drain<BW_OUT2_T, BW_OUT2_WORDS, BW_OUT2_BYTES, BW_OUT2_SIGNED>(out2, to);
#endif
#if BW_OUTPUTS > 3
    bw_drain<BW_OUT3_T, BW_OUT3_WORDS, BW_OUT3_BYTES, BW_OUT3_SIGNED>(out3, to);
#endif
}

// Tensors come one after another over one stream. What waits for a later one must not block it: every FIFO here holds its
// whole tensor where there are several.
void bitwright_top(hls::stream<ap_uint<8 * BW_IN_WORD_BYTES> > &bw_in,
                   hls::stream<ap_uint<8 * BW_OUT_WORD_BYTES> > &bw_out) {
#pragma HLS INTERFACE axis port=bw_in
#pragma HLS INTERFACE axis port=bw_out
#pragma HLS INTERFACE ap_ctrl_hs port=return
#pragma HLS DATAFLOW
    hls::stream<BW_IN0_T> in0("in0");
    const int in0_depth = BW_IN0_DEPTH;
#pragma HLS STREAM variable=in0 depth=in0_depth
#if BW_INPUTS > 1
    hls::stream<BW_IN1_T> in1("in1");
    const int in1_depth = BW_IN1_DEPTH;
#pragma HLS STREAM variable=in1 depth=in1_depth
#endif
#if BW_INPUTS > 2
    hls::stream<BW_IN2_T> in2("in2");
    const int in2_depth = BW_IN2_DEPTH;
#pragma HLS STREAM variable=in2 depth=in2_depth
#endif
#if BW_INPUTS > 3
    hls::stream<BW_IN3_T> in3("in3");
    const int in3_depth = BW_IN3_DEPTH;
#pragma HLS STREAM variable=in3 depth=in3_depth
#endif
    hls::stream<BW_OUT0_T> out0("out0");
    const int out0_depth = BW_OUT0_DEPTH;
#pragma HLS STREAM variable=out0 depth=out0_depth
#if BW_OUTPUTS > 1
    hls::stream<BW_OUT1_T> out1("out1");
    const int out1_depth = BW_OUT1_DEPTH;
#pragma HLS STREAM variable=out1 depth=out1_depth
#endif
#if BW_OUTPUTS > 2
    hls::stream<BW_OUT2_T> out2("out2");
    const int out2_depth = BW_OUT2_DEPTH;
#pragma HLS STREAM variable=out2 depth=out2_depth
#endif
#if BW_OUTPUTS > 3
    hls::stream<BW_OUT3_T> out3("out3");
    const int out3_depth = BW_OUT3_DEPTH;
#pragma HLS STREAM variable=out3 depth=out3_depth
#endif
    feed(bw_in, BW_IN_ARGUMENTS);
    BW_NETWORK(BW_IN_ARGUMENTS, BW_OUT_ARGUMENTS);
    drain(BW_OUT_ARGUMENTS, bw_out);
}

#else

void bitwright_top(ap_uint<8 * BW_IN_BYTES> bw_in, ap_uint<8 * BW_OUT_BYTES> *bw_out) {
#pragma HLS INTERFACE ap_vld port=bw_in
#pragma HLS INTERFACE ap_vld port=bw_out
#pragma HLS INTERFACE ap_ctrl_hs port=return
    BW_IN0_T in0[BW_IN0_COUNT];
#pragma HLS ARRAY_RESHAPE variable=in0 complete dim=0
    bw_unpack<BW_IN0_T, BW_IN0_COUNT, BW_IN0_BYTES, BW_IN0_SIGNED, BW_IN0_OFFSET>(bw_in, in0);
#if BW_INPUTS > 1
    BW_IN1_T in1[BW_IN1_COUNT];
#pragma HLS ARRAY_RESHAPE variable=in1 complete dim=0
    bw_unpack<BW_IN1_T, BW_IN1_COUNT, BW_IN1_BYTES, BW_IN1_SIGNED, BW_IN1_OFFSET>(bw_in, in1);
#endif
#if BW_INPUTS > 2
    BW_IN2_T in2[BW_IN2_COUNT];
#pragma HLS ARRAY_RESHAPE variable=in2 complete dim=0
    bw_unpack<BW_IN2_T, BW_IN2_COUNT, BW_IN2_BYTES, BW_IN2_SIGNED, BW_IN2_OFFSET>(bw_in, in2);
#endif
#if BW_INPUTS > 3
    BW_IN3_T in3[BW_IN3_COUNT];
#pragma HLS ARRAY_RESHAPE variable=in3 complete dim=0
    bw_unpack<BW_IN3_T, BW_IN3_COUNT, BW_IN3_BYTES, BW_IN3_SIGNED, BW_IN3_OFFSET>(bw_in, in3);
#endif
    BW_OUT0_T out0[BW_OUT0_COUNT];
#pragma HLS ARRAY_PARTITION variable=out0 complete dim=0
#if BW_OUTPUTS > 1
    BW_OUT1_T out1[BW_OUT1_COUNT];
#pragma HLS ARRAY_PARTITION variable=out1 complete dim=0
#endif
#if BW_OUTPUTS > 2
    BW_OUT2_T out2[BW_OUT2_COUNT];
#pragma HLS ARRAY_PARTITION variable=out2 complete dim=0
#endif
#if BW_OUTPUTS > 3
    BW_OUT3_T out3[BW_OUT3_COUNT];
#pragma HLS ARRAY_PARTITION variable=out3 complete dim=0
#endif
    BW_NETWORK(BW_IN_ARGUMENTS, BW_OUT_ARGUMENTS);
    ap_uint<8 * BW_OUT_BYTES> made = 0;
    bw_pack<BW_OUT0_T, BW_OUT0_COUNT, BW_OUT0_BYTES, BW_OUT0_SIGNED, BW_OUT0_OFFSET>(out0, made);
#if BW_OUTPUTS > 1
    bw_pack<BW_OUT1_T, BW_OUT1_COUNT, BW_OUT1_BYTES, BW_OUT1_SIGNED, BW_OUT1_OFFSET>(out1, made);
#endif
#if BW_OUTPUTS > 2
    bw_pack<BW_OUT2_T, BW_OUT2_COUNT, BW_OUT2_BYTES, BW_OUT2_SIGNED, BW_OUT2_OFFSET>(out2, made);
#endif
#if BW_OUTPUTS > 3
    bw_pack<BW_OUT3_T, BW_OUT3_COUNT, BW_OUT3_BYTES, BW_OUT3_SIGNED, BW_OUT3_OFFSET>(out3, made);
#endif
    *bw_out = made;
}

#endif
