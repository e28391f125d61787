// One frame to the line: header, payload and CRC through COBS. The payload is asked for byte by byte: payload_data must
// be that of payload_at three clocks after payload_at changed.
module nn_frame_tx (
    input  wire        clk,
    input  wire        rst,
    input  wire        start, // with the three fields, which stay until busy falls
    input  wire [7:0]  frame_type,
    input  wire [15:0] frame_seq,
    input  wire [15:0] frame_length,
    output reg  [15:0] payload_at,
    input  wire [7:0]  payload_data,
    output wire        busy,
    output wire        out_valid,
    input  wire        out_ready,
    output wire [7:0]  out_data
);
    localparam [1:0] IDLE = 0, FETCH = 1, OFFER = 2, DRAIN = 3;

    reg [1:0] state = IDLE, wait_for = 0;
    reg [16:0] at = 0; // byte of the frame
    reg [7:0] data = 0;
    reg [31:0] crc = 0;
    wire [31:0] crc_next;
    nn_crc32 crc32 (.crc(crc), .data(data), .next(crc_next));

    wire [16:0] body = 17'd5 + {1'b0, frame_length};
    wire in_crc = at >= body;
    wire [1:0] crc_byte = at[1:0] - body[1:0];
    wire ready, encoding;
    nn_cobs_encode encode (
        .clk(clk), .rst(rst), .in_valid(state == OFFER), .in_ready(ready), .in_data(data),
        .in_last(in_crc && crc_byte == 3), .out_valid(out_valid), .out_ready(out_ready), .out_data(out_data),
        .busy(encoding)
    );
    assign busy = state != IDLE;

    always @(posedge clk) begin
        case (state)
            IDLE: begin
                at <= 0;
                payload_at <= 0;
                crc <= 32'hFFFFFFFF;
                wait_for <= 3;
                if (start)
                    state <= FETCH;
            end
            FETCH: begin
                wait_for <= wait_for - 1;
                if (wait_for == 0) begin
                    state <= OFFER;
                    if (in_crc)
                        data <= ~crc[8 * crc_byte +: 8];
                    else
                        case (at)
                            0: data <= frame_type;
                            1: data <= frame_seq[7:0];
                            2: data <= frame_seq[15:8];
                            3: data <= frame_length[7:0];
                            4: data <= frame_length[15:8];
                            default: data <= payload_data;
                        endcase
                end
            end
            OFFER:
                if (ready) begin
                    if (!in_crc)
                        crc <= crc_next;
                    if (at >= 5)
                        payload_at <= payload_at + 1;
                    at <= at + 1;
                    wait_for <= 3;
                    state <= in_crc && crc_byte == 3 ? DRAIN : FETCH;
                end
            DRAIN:
                if (!encoding)
                    state <= IDLE;
        endcase
        if (rst)
            state <= IDLE;
    end
endmodule
