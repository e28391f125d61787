// A hand-written stand-in for the generated numbers, so that the templates are accepted alone: two inputs of 3 and 4
// bytes, one output of 2.
`define NN_CORE nn_core_parallel
`define NN_CLOCK nn_clock_direct
`define NN_CLOCK_HZ 32'd100000000
`define NN_CLOCKS_PER_BIT 868
`define NN_MAX_PAYLOAD 16'd1024
`define NN_TIMEOUT_CLOCKS 32'hFFFFFFFF
`define NN_IN_BYTES 7
`define NN_OUT_BYTES 2
`define NN_IN_WORD_BYTES 7
`define NN_OUT_WORD_BYTES 2
`define NN_INPUTS 2
`define NN_TENSORS 3
`define NN_OFFSETS {32'd0, 32'd3, 32'd0}
`define NN_SIZES {32'd2, 32'd4, 32'd3}
`define NN_GRAPH_DIGEST 256'h0
`define NN_BOARD_BYTES 6
`define NN_BOARD_NAME "sample"
// of the simulation's stand-in core
`define NN_SIM_LATENCY 5
