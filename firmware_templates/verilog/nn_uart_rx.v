// 8N1 receiver: two flip-flops against metastability, then each bit is sampled in its middle.
// A byte whose stop bit is not one is dropped; after a break the line must be idle again before the next start bit.
module nn_uart_rx #(
    parameter CLOCKS_PER_BIT = 868 // at least 6
) (
    input  wire       clk,
    input  wire       rst,
    input  wire       uart_rx,
    output reg        out_valid, // one clock for each byte
    output reg  [7:0] out_data
);
    localparam [1:0] IDLE = 0, START = 1, DATA = 2, STOP = 3;
    localparam [19:0] LAST = CLOCKS_PER_BIT - 1;
    // The start bit is seen, and every bit is sampled, behind the same synchronizer: its delay cancels. 1.5 clocks go by
    // between the fall of the line and the first count, on average.
    localparam [19:0] MIDDLE = CLOCKS_PER_BIT / 2 - 2;

    reg [1:0] synchronizer = 2'b11;
    reg [1:0] state = IDLE;
    reg [19:0] count = 0;
    reg [2:0] index = 0;
    reg broken = 0; // the stop bit was none, and the line has not been idle since
    wire line = synchronizer[1];

    always @(posedge clk) begin
        synchronizer <= {synchronizer[0], uart_rx};
        out_valid <= 0;
        count <= count - 1;
        case (state)
            IDLE: begin
                count <= MIDDLE;
                if (!line)
                    state <= START;
            end
            START:
                if (count == 0) begin
                    count <= LAST;
                    state <= line ? IDLE : DATA; // a glitch is no start bit
                end
            DATA:
                if (count == 0) begin
                    count <= LAST;
                    out_data <= {line, out_data[7:1]};
                    index <= index + 1;
                    if (index == 7)
                        state <= STOP;
                end
            STOP:
                if (count == 0) begin
                    count <= 0; // a break stays here
                    if (line)
                        state <= IDLE;
                    out_valid <= line && !broken;
                    broken <= !line;
                end
        endcase
        if (rst) begin
            state <= IDLE;
            index <= 0;
            out_valid <= 0;
            broken <= 0;
        end
    end
endmodule
