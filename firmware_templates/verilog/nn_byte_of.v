// One byte of a vector, the first in its lowest bits; 0 past its end.
module nn_byte_of #(
    parameter BYTES = 1
) (
    input  wire [8 * BYTES - 1:0] bytes,
    input  wire [15:0]            at,
    output reg  [7:0]             data
);
    integer i;
    always @* begin
        data = 0;
        for (i = 0; i < BYTES; i = i + 1)
            if ({16'd0, at} == i)
                data = bytes[8 * i +: 8];
    end
endmodule
