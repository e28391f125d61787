// One byte of CRC-32 (IEEE 802.3, reflected, as zlib.crc32). A register of it starts at all ones; what is sent is its
// complement, low byte first; over data and CRC together it ends at 32'hDEBB20E3.
module nn_crc32 (
    input  wire [31:0] crc,
    input  wire [7:0]  data,
    output reg  [31:0] next
);
    integer i;
    always @* begin
        next = crc ^ {24'd0, data};
        for (i = 0; i < 8; i = i + 1)
            next = {1'b0, next[31:1]} ^ (next[0] ? 32'hEDB88320 : 32'd0);
    end
endmodule
