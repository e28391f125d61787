// A stand-in for the HLS core with AXI streams, for simulation only: C computes the network from the bytes it is given.
// The last word of the answer is valid `latency` clocks after the edge that saw ap_start with the first word, or as soon
// after as its words can be out. It is a number that somebody chose to prove the counter with; it is no figure of
// the network. Between words it pauses as its own dice say, so that TREADY and TVALID are put to the test.
`include "design.vh"
module bitwright_top (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ap_start,
    output logic ap_done,
    output logic ap_idle,
    output logic ap_ready,
    input  logic [8 * `NN_IN_WORD_BYTES - 1:0] bw_in_TDATA,
    input  logic bw_in_TVALID,
    output logic bw_in_TREADY,
    output logic [8 * `NN_OUT_WORD_BYTES - 1:0] bw_out_TDATA,
    output logic bw_out_TVALID,
    input  logic bw_out_TREADY
);
    import "DPI-C" function void core_put(input int at, input byte value);
    import "DPI-C" function void core_run();
    import "DPI-C" function byte core_get(input int at);
    import "DPI-C" function void core_busy(input bit busy);

    localparam int IN_WORDS = `NN_IN_BYTES / `NN_IN_WORD_BYTES, OUT_WORDS = `NN_OUT_BYTES / `NN_OUT_WORD_BYTES;
    int latency = `NN_SIM_LATENCY; // +latency=N
    int hangs = 0;                 // +hangs=N: the inference, counted from 1, that never ends
    initial begin
        void'($value$plusargs("latency=%d", latency));
        void'($value$plusargs("hangs=%d", hangs));
    end

    logic running = 0, computed = 0;
    int clocks = 0, inferences = 0, taken = 0, given = 0;
    logic [15:0] dice = 16'hACE1;

    wire pause = dice[1:0] == 0 && clocks != latency;
    wire active = running || ap_start && bw_in_TVALID;
    assign bw_in_TREADY = active && taken != IN_WORDS && !pause;
    wire takes = bw_in_TVALID && bw_in_TREADY;
    // the last word waits for its clock, the others come before it
    wire due = given == OUT_WORDS - 1 ? clocks >= latency : !pause;
    assign bw_out_TVALID = running && computed && given != OUT_WORDS && due && inferences != hangs;
    wire gives = bw_out_TVALID && bw_out_TREADY;
    wire last = gives && given == OUT_WORDS - 1;
    assign ap_done = last;
    assign ap_ready = last;
    assign ap_idle = !active;

    always_comb begin
        bw_out_TDATA = {`NN_OUT_WORD_BYTES{8'hA5}}; // what is not valid is wrong on purpose
        if (bw_out_TVALID)
            for (int i = 0; i < `NN_OUT_WORD_BYTES; i++)
                bw_out_TDATA[8 * i +: 8] = core_get(given * `NN_OUT_WORD_BYTES + i);
    end

    always_ff @(posedge ap_clk) begin
        dice <= {dice[14:0], dice[15] ^ dice[13] ^ dice[12] ^ dice[10]};
        clocks <= active ? clocks + 1 : 0;
        if (active && !running) begin
            running <= 1;
            inferences <= inferences + 1;
            core_busy(1);
        end
        if (takes) begin
            for (int i = 0; i < `NN_IN_WORD_BYTES; i++)
                core_put(taken * `NN_IN_WORD_BYTES + i, bw_in_TDATA[8 * i +: 8]);
            taken <= taken + 1;
            if (taken == IN_WORDS - 1) begin
                core_run();
                computed <= 1;
            end
        end
        if (gives)
            given <= given + 1;
        if (last || !ap_rst_n) begin
            running <= 0;
            computed <= 0;
            taken <= 0;
            given <= 0;
            clocks <= 0;
            core_busy(0);
        end
    end
endmodule
