// Bytes of a block to bytes of the line: a zero, the block in COBS, a zero. Holds one run of up to 254 bytes.
module nn_cobs_encode (
    input  wire       clk,
    input  wire       rst,
    input  wire       in_valid,
    output wire       in_ready,
    input  wire [7:0] in_data,
    input  wire       in_last, // ends the block
    output wire       out_valid,
    input  wire       out_ready,
    output reg  [7:0] out_data,
    output wire       busy
);
    localparam [2:0] IDLE = 0, OPEN = 1, FILL = 2, CODE = 3, FETCH = 4, SEND = 5, CLOSE = 6;

    reg [2:0] state = IDLE;
    reg [7:0] run [0:255];
    reg [7:0] count = 0; // bytes of the run
    reg [7:0] at = 0;    // of them sent
    reg last = 0;        // the block ends with this run
    reg tail = 0;        // and with a zero, which an empty run says

    assign in_ready = state == FILL;
    assign out_valid = state == OPEN || state == CODE || state == SEND || state == CLOSE;
    assign busy = state != IDLE;

    always @(posedge clk) begin
        if (in_ready && in_valid)
            run[count] <= in_data;
        case (state)
            IDLE: begin
                out_data <= 0;
                if (in_valid)
                    state <= OPEN;
            end
            OPEN:
                if (out_ready) begin
                    count <= 0;
                    state <= FILL;
                end
            FILL:
                if (in_valid) begin
                    last <= in_last;
                    tail <= in_last && in_data == 0;
                    at <= 0;
                    if (in_data != 0)
                        count <= count + 1;
                    if (in_data == 0 || in_last || count == 253) begin
                        out_data <= in_data == 0 ? count + 1 : count + 2;
                        state <= CODE;
                    end
                end
            CODE:
                if (out_ready)
                    state <= FETCH;
            FETCH:
                if (at != count) begin
                    out_data <= run[at];
                    state <= SEND;
                end else begin
                    count <= 0;
                    at <= 0;
                    out_data <= tail ? 1 : 0;
                    tail <= 0;
                    state <= tail ? CODE : last ? CLOSE : FILL;
                end
            SEND:
                if (out_ready) begin
                    at <= at + 1;
                    state <= FETCH;
                end
            CLOSE:
                if (out_ready)
                    state <= IDLE;
            default:
                state <= IDLE;
        endcase
        if (rst)
            state <= IDLE;
    end
endmodule
