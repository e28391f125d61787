// Bytes: one write port, one read port that answers a clock later.
module nn_memory #(
    parameter BYTES = 1
) (
    input  wire        clk,
    input  wire        write,
    input  wire [23:0] write_address,
    input  wire [7:0]  write_data,
    input  wire [23:0] read_address,
    output reg  [7:0]  read_data
);
    function integer width; // of an address
        input integer size;
        begin
            width = 1;
            while ((1 << width) < size)
                width = width + 1;
        end
    endfunction
    localparam BITS = width(BYTES);

    reg [7:0] bytes [0:(1 << BITS) - 1];
    wire unused = &{1'b0, write_address[23:BITS], read_address[23:BITS]};

    integer i;
    initial
        for (i = 0; i < (1 << BITS); i = i + 1)
            bytes[i] = 0;

    always @(posedge clk) begin
        if (write)
            bytes[write_address[BITS - 1:0]] <= write_data;
        read_data <= bytes[read_address[BITS - 1:0]];
    end
endmodule
