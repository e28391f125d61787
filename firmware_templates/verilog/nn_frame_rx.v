// Whole and undamaged frames out of the bytes of the line; all others are dropped without a word. A frame is held until
// it is taken; what the line brings meanwhile is lost up to the next delimiter.
module nn_frame_rx #(
    parameter MAX_PAYLOAD = 1024
) (
    input  wire        clk,
    input  wire        rst,
    input  wire        in_valid,
    input  wire [7:0]  in_data,
    output reg         frame_valid,
    input  wire        frame_take,
    output reg  [7:0]  frame_type,
    output reg  [15:0] frame_seq,
    output reg  [15:0] frame_length, // of the payload
    output reg  [63:0] frame_head,   // its first 8 bytes, where it has them
    input  wire [23:0] payload_address,
    output wire [7:0]  payload_data // a clock later
);
    localparam [16:0] HEADER = 5, CRC = 4;
    localparam [16:0] LONGEST = HEADER + MAX_PAYLOAD + CRC;

    reg lost = 0; // of the block on the line something came while a frame was held
    reg torn = 0; // the same, as of the byte that leaves the decoder
    wire listening = !frame_valid;
    wire byte_valid, block_end, block_good;
    wire [7:0] data;
    nn_cobs_decode decode (
        .clk(clk), .rst(rst), .in_valid(in_valid && listening), .in_data(in_data),
        .out_valid(byte_valid), .out_data(data), .end_valid(block_end), .end_good(block_good)
    );

    reg [16:0] count = 0; // bytes of the block, at most LONGEST + 1
    reg [31:0] crc = 32'hFFFFFFFF;
    wire [31:0] crc_next;
    nn_crc32 crc32 (.crc(crc), .data(data), .next(crc_next));

    wire whole = count >= HEADER + CRC && count <= LONGEST && count == HEADER + CRC + {1'b0, frame_length};
    wire [16:0] offset = count - HEADER; // in the payload
    nn_memory #(.BYTES(MAX_PAYLOAD + 4)) payload (
        .clk(clk), .write(byte_valid && count >= HEADER && count < LONGEST),
        .write_address({7'd0, offset}), .write_data(data),
        .read_address(payload_address), .read_data(payload_data)
    );

    initial frame_valid = 0;
    always @(posedge clk) begin
        if (in_valid)
            lost <= in_data != 0 && (lost || !listening);
        if (byte_valid) begin
            crc <= crc_next;
            if (count <= LONGEST)
                count <= count + 1;
            case (count)
                0: frame_type <= data;
                1: frame_seq[7:0] <= data;
                2: frame_seq[15:8] <= data;
                3: frame_length[7:0] <= data;
                4: frame_length[15:8] <= data;
                5: frame_head[7:0] <= data;
                6: frame_head[15:8] <= data;
                7: frame_head[23:16] <= data;
                8: frame_head[31:24] <= data;
                9: frame_head[39:32] <= data;
                10: frame_head[47:40] <= data;
                11: frame_head[55:48] <= data;
                12: frame_head[63:56] <= data;
                default: ;
            endcase
        end
        if (block_end) begin
            frame_valid <= block_good && whole && crc == 32'hDEBB20E3 && !torn;
            count <= 0;
            crc <= 32'hFFFFFFFF;
        end
        if (frame_take)
            frame_valid <= 0;
        torn <= lost;
        if (rst) begin
            frame_valid <= 0;
            lost <= 0;
            count <= 0;
            crc <= 32'hFFFFFFFF;
        end
    end
endmodule
