// An HLS core with ap_ctrl_hs and whole tensors side by side (hls4ml's io_parallel) between two byte memories.
// `ticks` is counted here; docs/fpga_top.md says from which edge to which.
`ifndef BW_IN
`define BW_IN bw_in
`define BW_IN_VLD bw_in_ap_vld
`endif
`ifndef BW_OUT
`define BW_OUT bw_out
`define BW_OUT_VLD bw_out_ap_vld
`endif
module nn_core_parallel #(
    parameter IN_BYTES = 1,
    parameter OUT_BYTES = 1,
    parameter IN_WORD_BYTES = IN_BYTES, // a word is all there is
    parameter OUT_WORD_BYTES = OUT_BYTES,
    parameter [31:0] TIMEOUT_CLOCKS = 32'hFFFFFFFF
) (
    input  wire        clk,
    input  wire        rst,
    input  wire        start, // one clock, when not busy
    output wire        busy,
    output reg         failed, // the last inference did not finish in time
    output reg  [63:0] ticks,  // of the last inference
    output wire [23:0] in_address,
    input  wire [7:0]  in_data, // a clock later
    output wire        out_write,
    output wire [23:0] out_address,
    output wire [7:0]  out_data
);
    localparam [2:0] IDLE = 0, LOAD = 1, RUN = 2, STORE = 3, ABORT = 4;
    localparam [23:0] IN_LAST = IN_BYTES, OUT_LAST = OUT_BYTES - 1;

    reg [2:0] state = IDLE;
    reg [23:0] at = 0;
    reg [8 * IN_BYTES - 1:0] in_vector = 0;
    reg [8 * OUT_BYTES - 1:0] out_vector = 0;
    reg ap_start = 0, core_rst = 1, valid_seen = 0, done_seen = 0;
    reg [63:0] clocks = 0;
    wire ap_done, ap_idle, ap_ready, out_valid;
    wire [8 * OUT_BYTES - 1:0] out_now;

    bitwright_top core (
        .ap_clk(clk), .ap_rst(core_rst), .ap_start(ap_start), .ap_done(ap_done), .ap_idle(ap_idle),
        .ap_ready(ap_ready), .`BW_IN(in_vector), .`BW_IN_VLD(ap_start), .`BW_OUT(out_now), .`BW_OUT_VLD(out_valid)
    );

    // both shift by a byte, the first byte of a tensor in the lowest bits
    wire [8 * IN_BYTES + 7:0] in_shifted = {in_data, in_vector};
    wire [8 * OUT_BYTES + 7:0] out_shifted = {8'd0, out_vector};
    wire unused = &{1'b0, in_shifted[7:0], out_shifted[7:0], ap_idle,
                     IN_WORD_BYTES == IN_BYTES, OUT_WORD_BYTES == OUT_BYTES};

    assign busy = state != IDLE;
    assign in_address = at;
    assign out_write = state == STORE;
    assign out_address = at;
    assign out_data = out_vector[7:0];

    initial failed = 0;
    initial ticks = 0;
    always @(posedge clk) begin
        core_rst <= rst || state == ABORT;
        case (state)
            IDLE: begin
                at <= 0;
                if (start)
                    state <= LOAD;
            end
            LOAD: begin // the byte of address `at` is here at the next edge
                at <= at + 1;
                if (at != 0)
                    in_vector <= in_shifted[8 * IN_BYTES + 7:8];
                if (at == IN_LAST) begin
                    ap_start <= 1;
                    clocks <= 0;
                    valid_seen <= 0;
                    done_seen <= 0;
                    state <= RUN;
                end
            end
            RUN: begin // at the first edge here the core sees ap_start, and clocks is 0
                at <= 0;
                clocks <= clocks + 1;
                if (ap_ready)
                    ap_start <= 0;
                if (out_valid && !valid_seen) begin
                    out_vector <= out_now;
                    ticks <= clocks;
                    valid_seen <= 1;
                end
                if (ap_done)
                    done_seen <= 1;
                if ((valid_seen || out_valid) && (done_seen || ap_done)) begin
                    failed <= 0;
                    state <= STORE;
                end else if (clocks[31:0] == TIMEOUT_CLOCKS) begin
                    failed <= 1;
                    state <= ABORT;
                end
            end
            STORE: begin
                at <= at + 1;
                out_vector <= out_shifted[8 * OUT_BYTES + 7:8];
                if (at == OUT_LAST)
                    state <= IDLE;
            end
            default: begin // ABORT: the core is reset for 16 clocks
                ap_start <= 0;
                at <= at + 1;
                if (at == 15)
                    state <= IDLE;
            end
        endcase
        if (rst) begin
            state <= IDLE;
            ap_start <= 0;
            failed <= 0;
        end
    end
endmodule
