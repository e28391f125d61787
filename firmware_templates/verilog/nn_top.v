// The network behind a serial line, one clock domain: UART, frames, protocol, memories, and the core with its counter.
// nn_board.v sets the parameters. `NN_CORE names the adapter to the core: nn_core_parallel or nn_core_stream.
`ifndef NN_CORE
`define NN_CORE nn_core_parallel
`endif
module nn_top #(
    parameter CLOCKS_PER_BIT = 868,
    parameter MAX_PAYLOAD = 1024,
    parameter IN_BYTES = 1,
    parameter OUT_BYTES = 1,
    parameter IN_WORD_BYTES = IN_BYTES, // of a stream: what one position holds
    parameter OUT_WORD_BYTES = OUT_BYTES,
    parameter INPUTS = 1,
    parameter TENSORS = 2,
    parameter [32 * TENSORS - 1:0] OFFSETS = 0,
    parameter [32 * TENSORS - 1:0] SIZES = 0,
    parameter HELLO_BYTES = 1,
    parameter [8 * HELLO_BYTES - 1:0] HELLO = 0,
    parameter [31:0] TIMEOUT_CLOCKS = 32'hFFFFFFFF
) (
    input  wire clk,
    input  wire rst,
    input  wire uart_rx,
    output wire uart_tx
);
    wire rx_valid, tx_valid, tx_ready;
    wire [7:0] rx_data, tx_data;
    nn_uart_rx #(.CLOCKS_PER_BIT(CLOCKS_PER_BIT)) receiver (
        .clk(clk), .rst(rst), .uart_rx(uart_rx), .out_valid(rx_valid), .out_data(rx_data)
    );
    nn_uart_tx #(.CLOCKS_PER_BIT(CLOCKS_PER_BIT)) transmitter (
        .clk(clk), .rst(rst), .in_valid(tx_valid), .in_ready(tx_ready), .in_data(tx_data), .uart_tx(uart_tx)
    );

    wire frame_valid, frame_take;
    wire [7:0] frame_type, payload_data;
    wire [15:0] frame_seq, frame_length;
    wire [63:0] frame_head;
    wire [23:0] payload_address;
    nn_frame_rx #(.MAX_PAYLOAD(MAX_PAYLOAD)) frame_rx (
        .clk(clk), .rst(rst), .in_valid(rx_valid), .in_data(rx_data), .frame_valid(frame_valid),
        .frame_take(frame_take), .frame_type(frame_type), .frame_seq(frame_seq), .frame_length(frame_length),
        .frame_head(frame_head), .payload_address(payload_address), .payload_data(payload_data)
    );

    wire reply_start, reply_busy;
    wire [7:0] reply_type, reply_data;
    wire [15:0] reply_length, reply_at;
    nn_frame_tx frame_tx (
        .clk(clk), .rst(rst), .start(reply_start), .frame_type(reply_type), .frame_seq(frame_seq),
        .frame_length(reply_length), .payload_at(reply_at), .payload_data(reply_data), .busy(reply_busy),
        .out_valid(tx_valid), .out_ready(tx_ready), .out_data(tx_data)
    );

    wire in_write, out_write, core_start, core_busy, core_failed;
    wire [23:0] in_write_address, read_address, in_address, out_address;
    wire [7:0] in_write_data, in_read_data, out_read_data, out_data;
    wire [63:0] core_ticks;
    nn_protocol #(
        .MAX_PAYLOAD(MAX_PAYLOAD), .INPUTS(INPUTS), .TENSORS(TENSORS), .OFFSETS(OFFSETS), .SIZES(SIZES),
        .HELLO_BYTES(HELLO_BYTES), .HELLO(HELLO)
    ) protocol (
        .clk(clk), .rst(rst), .frame_valid(frame_valid), .frame_take(frame_take), .frame_type(frame_type),
        .frame_seq(frame_seq), .frame_length(frame_length), .frame_head(frame_head),
        .payload_address(payload_address), .payload_data(payload_data), .reply_start(reply_start),
        .reply_type(reply_type), .reply_length(reply_length), .reply_at(reply_at), .reply_data(reply_data),
        .reply_busy(reply_busy), .in_write(in_write), .in_write_address(in_write_address),
        .in_write_data(in_write_data), .read_address(read_address), .in_read_data(in_read_data),
        .out_read_data(out_read_data), .core_start(core_start), .core_busy(core_busy), .core_failed(core_failed),
        .core_ticks(core_ticks)
    );

    nn_memory #(.BYTES(IN_BYTES)) inputs (
        .clk(clk), .write(in_write), .write_address(in_write_address), .write_data(in_write_data),
        .read_address(core_busy ? in_address : read_address), .read_data(in_read_data)
    );
    nn_memory #(.BYTES(OUT_BYTES)) outputs (
        .clk(clk), .write(out_write), .write_address(out_address), .write_data(out_data),
        .read_address(read_address), .read_data(out_read_data)
    );
    `NN_CORE #(
        .IN_BYTES(IN_BYTES), .OUT_BYTES(OUT_BYTES), .IN_WORD_BYTES(IN_WORD_BYTES), .OUT_WORD_BYTES(OUT_WORD_BYTES),
        .TIMEOUT_CLOCKS(TIMEOUT_CLOCKS)
    ) core (
        .clk(clk), .rst(rst), .start(core_start), .busy(core_busy), .failed(core_failed), .ticks(core_ticks),
        .in_address(in_address), .in_data(in_read_data), .out_write(out_write), .out_address(out_address),
        .out_data(out_data)
    );
endmodule
