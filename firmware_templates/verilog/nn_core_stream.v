// An HLS core with ap_ctrl_hs and AXI streams (hls4ml's io_stream) between two byte memories. The words of an inference
// are gathered first, so that the core may take one, and give one, at every clock.
// `ticks` is counted here; docs/fpga_top.md says from which edge to which.
`ifndef BW_IN_TDATA
`define BW_IN_TDATA bw_in_TDATA
`define BW_IN_TVALID bw_in_TVALID
`define BW_IN_TREADY bw_in_TREADY
`endif
`ifndef BW_OUT_TDATA
`define BW_OUT_TDATA bw_out_TDATA
`define BW_OUT_TVALID bw_out_TVALID
`define BW_OUT_TREADY bw_out_TREADY
`endif
module nn_core_stream #(
    parameter IN_BYTES = 1,
    parameter OUT_BYTES = 1,
    parameter IN_WORD_BYTES = 1,  // divides IN_BYTES
    parameter OUT_WORD_BYTES = 1, // divides OUT_BYTES
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
    function integer width; // of a count of words
        input integer size;
        begin
            width = 2;
            while ((1 << width) < size)
                width = width + 1;
        end
    endfunction
    localparam [2:0] IDLE = 0, LOAD = 1, RUN = 2, FETCH = 3, STORE = 4, ABORT = 5;
    localparam [31:0] IN_WORDS = IN_BYTES / IN_WORD_BYTES, OUT_WORDS = OUT_BYTES / OUT_WORD_BYTES;
    localparam IN_BITS = width(IN_WORDS + 1), OUT_BITS = width(OUT_WORDS + 1);
    localparam [23:0] IN_LAST = IN_BYTES, OUT_LAST = OUT_BYTES - 1;
    localparam [23:0] IN_BYTE_LAST = IN_WORD_BYTES - 1, OUT_BYTE_LAST = OUT_WORD_BYTES - 1;
    localparam [IN_BITS - 1:0] IN_COUNT = IN_WORDS[IN_BITS - 1:0];
    localparam [OUT_BITS - 1:0] OUT_COUNT = OUT_WORDS[OUT_BITS - 1:0];

    reg [2:0] state = IDLE;
    reg [23:0] at = 0, byte_at = 0; // byte of all, byte of a word
    reg ap_start = 0, core_rst_n = 0, done_seen = 0;
    reg [63:0] clocks = 0;
    wire ap_done, ap_idle, ap_ready;

    // words of the input: gathered in LOAD, offered in RUN
    reg [8 * IN_WORD_BYTES - 1:0] in_words [0:(1 << IN_BITS) - 1];
    reg [8 * IN_WORD_BYTES - 1:0] gathered = 0, in_word = 0;
    reg [IN_BITS - 1:0] gathered_count = 0, offered = 0; // words written; words that the core took
    reg in_tvalid = 0;
    wire in_tready;
    wire [8 * IN_WORD_BYTES + 7:0] in_shifted = {in_data, gathered};
    wire took = in_tvalid && in_tready;
    wire [IN_BITS - 1:0] next_offered = offered + {{(IN_BITS - 1){1'b0}}, took};

    // words of the output: kept in RUN, taken apart in STORE
    reg [8 * OUT_WORD_BYTES - 1:0] out_words [0:(1 << OUT_BITS) - 1];
    reg [8 * OUT_WORD_BYTES - 1:0] out_word = 0;
    reg [OUT_BITS - 1:0] kept = 0, stored = 0;
    wire [8 * OUT_WORD_BYTES - 1:0] out_now;
    wire out_tvalid;
    wire out_tready = state == RUN && kept != OUT_COUNT;
    wire [8 * OUT_WORD_BYTES + 7:0] out_shifted = {8'd0, out_word};

    bitwright_top core (
        .ap_clk(clk), .ap_rst_n(core_rst_n), .ap_start(ap_start), .ap_done(ap_done), .ap_idle(ap_idle),
        .ap_ready(ap_ready), .`BW_IN_TDATA(in_word), .`BW_IN_TVALID(in_tvalid), .`BW_IN_TREADY(in_tready),
        .`BW_OUT_TDATA(out_now), .`BW_OUT_TVALID(out_tvalid), .`BW_OUT_TREADY(out_tready)
    );

    wire unused = &{1'b0, in_shifted[7:0], out_shifted[7:0], ap_idle};
    assign busy = state != IDLE;
    assign in_address = at;
    assign out_write = state == STORE;
    assign out_address = at;
    assign out_data = out_word[7:0];

    wire gather = state == LOAD && at != 0 && at <= IN_LAST;
    wire gather_last = gather && byte_at == IN_BYTE_LAST;
    always @(posedge clk) begin
        if (gather_last)
            in_words[gathered_count] <= in_shifted[8 * IN_WORD_BYTES + 7:8];
        in_word <= in_words[next_offered];
        if (out_tvalid && out_tready)
            out_words[kept] <= out_now;
        if (state == STORE)
            out_word <= out_shifted[8 * OUT_WORD_BYTES + 7:8];
        else
            out_word <= out_words[stored];
    end

    initial failed = 0;
    initial ticks = 0;
    always @(posedge clk) begin
        core_rst_n <= !(rst || state == ABORT);
        case (state)
            IDLE: begin
                at <= 0;
                byte_at <= 0;
                gathered_count <= 0;
                offered <= 0;
                kept <= 0;
                stored <= 0;
                if (start)
                    state <= LOAD;
            end
            LOAD: begin // the byte of address `at` is here at the next edge
                at <= at + 1;
                if (gather) begin
                    gathered <= in_shifted[8 * IN_WORD_BYTES + 7:8];
                    byte_at <= byte_at == IN_BYTE_LAST ? 0 : byte_at + 1;
                    if (gather_last)
                        gathered_count <= gathered_count + 1;
                end
                if (at == IN_LAST + 2) begin // the first word has been written and read again
                    ap_start <= 1;
                    in_tvalid <= 1;
                    clocks <= 0;
                    done_seen <= 0;
                    state <= RUN;
                end
            end
            RUN: begin // at the first edge here the core sees ap_start and the first word, and clocks is 0
                at <= 0;
                byte_at <= 0;
                clocks <= clocks + 1;
                if (ap_ready)
                    ap_start <= 0;
                offered <= next_offered;
                in_tvalid <= next_offered != IN_COUNT;
                if (out_tvalid && out_tready) begin
                    kept <= kept + 1;
                    ticks <= clocks;
                end
                if (ap_done)
                    done_seen <= 1;
                if (kept == OUT_COUNT && done_seen && next_offered == IN_COUNT) begin
                    failed <= 0;
                    state <= FETCH;
                end else if (clocks[31:0] == TIMEOUT_CLOCKS) begin
                    failed <= 1;
                    state <= ABORT;
                end
            end
            FETCH: begin // the memory's clock
                stored <= stored + 1;
                state <= STORE;
            end
            STORE: begin
                at <= at + 1;
                byte_at <= byte_at == OUT_BYTE_LAST ? 0 : byte_at + 1;
                if (at == OUT_LAST)
                    state <= IDLE;
                else if (byte_at == OUT_BYTE_LAST)
                    state <= FETCH;
            end
            default: begin // ABORT: the core is reset for 16 clocks
                ap_start <= 0;
                in_tvalid <= 0;
                at <= at + 1;
                if (at == 15)
                    state <= IDLE;
            end
        endcase
        if (rst) begin
            state <= IDLE;
            ap_start <= 0;
            in_tvalid <= 0;
            failed <= 0;
        end
    end
endmodule
