// 8N1 transmitter.
module nn_uart_tx #(
    parameter CLOCKS_PER_BIT = 868
) (
    input  wire       clk,
    input  wire       rst,
    input  wire       in_valid,
    output wire       in_ready,
    input  wire [7:0] in_data,
    output reg        uart_tx
);
    localparam [19:0] LAST = CLOCKS_PER_BIT - 1;

    reg [19:0] count = 0;
    reg [8:0] bits = 0; // what follows on the line, the stop bit last
    reg [3:0] left = 0;
    assign in_ready = left == 0 && count == 0;

    initial uart_tx = 1;
    always @(posedge clk) begin
        if (count != 0)
            count <= count - 1;
        else if (left != 0) begin
            uart_tx <= bits[0];
            bits <= {1'b1, bits[8:1]};
            left <= left - 1;
            count <= LAST;
        end else if (in_valid) begin
            uart_tx <= 0;
            bits <= {1'b1, in_data};
            left <= 9;
            count <= LAST;
        end
        if (rst) begin
            uart_tx <= 1;
            left <= 0;
            count <= 0;
        end
    end
endmodule
