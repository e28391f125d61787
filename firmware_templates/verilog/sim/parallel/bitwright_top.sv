// A stand-in for the HLS core with whole tensors side by side, for simulation only: C computes the network from the
// bytes it is given, and the answer is valid `latency` clocks after the edge that saw ap_start. It is a number that
// somebody chose to prove the counter with; it is no figure of the network.
`include "design.vh"
module bitwright_top (
    input  logic ap_clk,
    input  logic ap_rst,
    input  logic ap_start,
    output logic ap_done,
    output logic ap_idle,
    output logic ap_ready,
    input  logic [8 * `NN_IN_BYTES - 1:0] bw_in,
    input  logic bw_in_ap_vld,
    output logic [8 * `NN_OUT_BYTES - 1:0] bw_out,
    output logic bw_out_ap_vld
);
    import "DPI-C" function void core_put(input int at, input byte value);
    import "DPI-C" function void core_run();
    import "DPI-C" function byte core_get(input int at);
    import "DPI-C" function void core_busy(input bit busy);

    int latency = `NN_SIM_LATENCY; // +latency=N; 0: in the very clock of ap_start
    int hangs = 0;                 // +hangs=N: the inference, counted from 1, that never ends
    initial begin
        void'($value$plusargs("latency=%d", latency));
        void'($value$plusargs("hangs=%d", hangs));
    end

    logic running = 0;
    int clocks = 0, inferences = 0;
    logic [8 * `NN_OUT_BYTES - 1:0] result = 0;

    wire begins = ap_start && bw_in_ap_vld && !running && !ap_rst;
    wire last = running ? clocks == latency && inferences != hangs : begins && latency == 0;
    always_comb begin
        bw_out = {`NN_OUT_BYTES{8'hA5}}; // what is not valid is wrong on purpose
        if (last && running)
            bw_out = result;
        else if (last) // not in a ?: of which both sides would be computed, at every clock
            bw_out = answer(bw_in);
    end
    assign bw_out_ap_vld = last;
    assign ap_done = last;
    assign ap_ready = last; // as of a core that is not pipelined
    assign ap_idle = !running && !begins;

    function automatic logic [8 * `NN_OUT_BYTES - 1:0] answer(input logic [8 * `NN_IN_BYTES - 1:0] given);
        for (int i = 0; i < `NN_IN_BYTES; i++)
            core_put(i, given[8 * i +: 8]);
        core_run();
        for (int i = 0; i < `NN_OUT_BYTES; i++)
            answer[8 * i +: 8] = core_get(i);
    endfunction

    always_ff @(posedge ap_clk) begin
        clocks <= clocks + 1;
        if (begins && latency != 0) begin
            result <= answer(bw_in);
            running <= 1;
            clocks <= 1;
            inferences <= inferences + 1;
            core_busy(1);
        end
        if (running && last) begin
            running <= 0;
            core_busy(0);
        end
        if (ap_rst) begin
            running <= 0;
            core_busy(0);
        end
    end
endmodule
