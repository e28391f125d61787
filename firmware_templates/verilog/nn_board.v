// What the tools call the top: pins on one side, the generated numbers of design.vh on the other.
// The project's digest cannot stand in a file of the project; the command that builds sets it.
`include "design.vh"
module nn_board #(
    parameter [255:0] PROJECT_DIGEST = 0 // its first byte in the highest bits, as it is written
) (
    // named as in boards/*.xdc
    input  wire clk,   // the oscillator
    input  wire reset, // a button, high while pressed
    input  wire uart_rx,
    output wire uart_tx,
    output wire led // on: configured, clocked and not in reset
);
    wire design_clk, locked;
    `NN_CLOCK clock (.oscillator(clk), .clk(design_clk), .locked(locked));

    // Reset for 16 clocks after configuration, while the clock is not there, and while the button is pressed.
    reg [1:0] button = 2'b00;
    reg [15:0] starting = 16'hFFFF;
    always @(posedge design_clk) begin
        button <= {button[0], reset};
        if (button[1] || !locked)
            starting <= 16'hFFFF;
        else
            starting <= {1'b0, starting[15:1]};
    end

    assign led = !starting[0];

    // The reply to HELLO, its first byte in the lowest bits: docs/protocol.md.
    function [255:0] reversed; // 32 bytes, the first of them in the lowest bits
        input [255:0] digest;
        integer i;
        for (i = 0; i < 32; i = i + 1)
            reversed[8 * i +: 8] = digest[8 * (31 - i) +: 8];
    endfunction
    function [8 * `NN_BOARD_BYTES - 1:0] reversed_name;
        input [8 * `NN_BOARD_BYTES - 1:0] name;
        integer i;
        for (i = 0; i < `NN_BOARD_BYTES; i = i + 1)
            reversed_name[8 * i +: 8] = name[8 * (`NN_BOARD_BYTES - 1 - i) +: 8];
    endfunction
    localparam HELLO_BYTES = 74 + `NN_BOARD_BYTES;
    localparam [7:0] VERSION = 8'd1, COUNTER_FPGA = 8'd4;
    localparam [31:0] CLOCK_HZ = `NN_CLOCK_HZ;
    localparam [15:0] MAX_PAYLOAD = `NN_MAX_PAYLOAD, OPS = 16'd1;
    localparam [8 * HELLO_BYTES - 1:0] HELLO = {
        reversed_name(`NN_BOARD_NAME), OPS, MAX_PAYLOAD, CLOCK_HZ, COUNTER_FPGA, reversed(PROJECT_DIGEST),
        reversed(`NN_GRAPH_DIGEST), VERSION
    };

    nn_top #(
        .CLOCKS_PER_BIT(`NN_CLOCKS_PER_BIT), .MAX_PAYLOAD(`NN_MAX_PAYLOAD), .IN_BYTES(`NN_IN_BYTES),
        .OUT_BYTES(`NN_OUT_BYTES), .IN_WORD_BYTES(`NN_IN_WORD_BYTES), .OUT_WORD_BYTES(`NN_OUT_WORD_BYTES),
        .INPUTS(`NN_INPUTS), .TENSORS(`NN_TENSORS), .OFFSETS(`NN_OFFSETS), .SIZES(`NN_SIZES),
        .HELLO_BYTES(HELLO_BYTES), .HELLO(HELLO), .TIMEOUT_CLOCKS(`NN_TIMEOUT_CLOCKS)
    ) top (
        .clk(design_clk), .rst(starting[0]), .uart_rx(uart_rx), .uart_tx(uart_tx)
    );
endmodule
