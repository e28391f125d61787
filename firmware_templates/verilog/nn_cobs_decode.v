// Bytes of the line to bytes of a block (consistent overhead byte stuffing). A zero ends every block, good or not, and
// whatever was lost before it, the next byte is a fresh start.
module nn_cobs_decode (
    input  wire       clk,
    input  wire       rst,
    input  wire       in_valid,
    input  wire [7:0] in_data,
    output reg        out_valid,
    output reg  [7:0] out_data,
    output reg        end_valid, // after the last byte of a block
    output reg        end_good   // its COBS was whole
);
    reg [7:0] left = 0; // bytes until the next code
    reg zero = 0;       // the next code stands for a zero before what follows

    always @(posedge clk) begin
        out_valid <= 0;
        end_valid <= 0;
        if (in_valid) begin
            if (in_data == 0) begin
                end_valid <= 1;
                end_good <= left == 0;
                left <= 0;
                zero <= 0;
            end else if (left != 0) begin
                out_valid <= 1;
                out_data <= in_data;
                left <= left - 1;
            end else begin
                out_valid <= zero;
                out_data <= 0;
                left <= in_data - 1;
                zero <= in_data != 8'hFF;
            end
        end
        if (rst) begin
            left <= 0;
            zero <= 0;
            out_valid <= 0;
            end_valid <= 0;
        end
    end
endmodule
