// The protocol loop of docs/protocol.md for a design whose network is one op: takes a frame, does what it asks, answers.
// Twin of firmware_templates/c/firmware/main.c.
module nn_protocol #(
    parameter MAX_PAYLOAD = 1024,
    parameter INPUTS = 1,
    parameter TENSORS = 2,                       // inputs, then outputs
    parameter [32 * TENSORS - 1:0] OFFSETS = 0,  // of each in the memory of its kind, tensor 0 in the lowest 32 bits
    parameter [32 * TENSORS - 1:0] SIZES = 0,    // in bytes
    parameter HELLO_BYTES = 1,
    parameter [8 * HELLO_BYTES - 1:0] HELLO = 0  // the whole reply, its first byte in the lowest bits
) (
    input  wire        clk,
    input  wire        rst,
    // the frame that came
    input  wire        frame_valid,
    output reg         frame_take,
    input  wire [7:0]  frame_type,
    input  wire [15:0] frame_seq,
    input  wire [15:0] frame_length,
    input  wire [63:0] frame_head,
    output wire [23:0] payload_address,
    input  wire [7:0]  payload_data,
    // the frame that answers, under the same seq
    output reg         reply_start,
    output reg  [7:0]  reply_type,
    output reg  [15:0] reply_length,
    input  wire [15:0] reply_at,
    output reg  [7:0]  reply_data,
    input  wire        reply_busy,
    // memories of inputs and outputs
    output reg         in_write,
    output reg  [23:0] in_write_address,
    output wire [7:0]  in_write_data,
    output wire [23:0] read_address,
    input  wire [7:0]  in_read_data,
    input  wire [7:0]  out_read_data,
    // the network
    output reg         core_start,
    input  wire        core_busy,
    input  wire        core_failed,
    input  wire [63:0] core_ticks
);
    localparam [7:0] MSG_HELLO = 1, MSG_WRITE = 2, MSG_READ = 3, MSG_RUN = 4, MSG_PROFILE = 5, MSG_RESET_STATE = 6;
    localparam [7:0] MSG_REPLY = 8'h80, MSG_ERROR = 8'hFF;
    localparam [7:0] UNKNOWN_REQUEST = 1, BAD_LENGTH = 2, NO_SUCH_TENSOR = 3, OUT_OF_RANGE = 4, NOT_WRITABLE = 5;
    localparam [7:0] FAULT = 7;
    localparam [31:0] OVERHEAD = 0; // docs/fpga_top.md: nothing is between the two edges but the core
    localparam [15:0] OPS = 1;
    localparam [31:0] HELLO_LENGTH = HELLO_BYTES;

    localparam [3:0] IDLE = 0, LOOK_UP = 1, CHECK = 2, COPY = 3, RUN = 4, RAN = 5, REPLY = 6, SENDING = 7, DONE = 8;
    localparam [1:0] FROM_HELLO = 0, FROM_FIELDS = 1, FROM_MEMORY = 2, FROM_ERROR = 3;

    // what a request begins with
    wire [15:0] tensor = frame_head[15:0];
    wire [31:0] offset = frame_head[47:16];
    wire [31:0] stop = frame_head[31:0];
    wire is_write = frame_type == MSG_WRITE, is_profile = frame_type == MSG_PROFILE;
    wire [15:0] count = is_write ? frame_length - 16'd6 : frame_head[63:48];
    wire [15:0] first = frame_head[15:0];

    reg [3:0] state = IDLE;
    reg [1:0] source = FROM_HELLO;
    reg [7:0] error = 0;
    reg known = 0, is_input = 0;
    reg [31:0] size = 0, base = 0;
    reg [15:0] at = 0; // byte of a WRITE
    reg last_valid = 0;
    reg [15:0] last_seq = 0;
    reg [63:0] last_ticks = 0;
    reg [159:0] fields = 0; // the reply of RUN or PROFILE, its first byte in the lowest bits

    // Bytes of the reply: one register behind reply_at, memories one more.
    wire [31:0] here = base + offset; // only used where it was checked
    wire [7:0] text_byte;
    wire [15:0] text_length;
    wire [7:0] hello_byte, field_byte;
    assign read_address = here[23:0] + {8'd0, reply_at};
    nn_protocol_text texts (.code(error), .profile(is_profile), .at(reply_at), .length(text_length), .data(text_byte));
    nn_byte_of #(.BYTES(HELLO_BYTES)) of_hello (.bytes(HELLO), .at(reply_at), .data(hello_byte));
    nn_byte_of #(.BYTES(20)) of_fields (.bytes(fields), .at(reply_at), .data(field_byte));
    always @(posedge clk)
        case (source)
            FROM_HELLO: reply_data <= hello_byte;
            FROM_FIELDS: reply_data <= field_byte;
            FROM_MEMORY: reply_data <= is_input ? in_read_data : out_read_data;
            default: reply_data <= reply_at == 0 ? error : text_byte;
        endcase

    // A WRITE is copied once its frame is known to be whole: what was damaged never reaches an input.
    assign payload_address = {8'd0, at} + 24'd6;
    assign in_write_data = payload_data;
    reg copying = 0;
    always @(posedge clk) begin
        copying <= state == COPY && at != count;
        in_write_address <= here[23:0] + {8'd0, at};
    end
    always @* in_write = copying;

    wire unused = &{1'b0, here[31:24]};

    // the checks of main.c, in its order
    reg [7:0] wrong;
    always @* begin
        wrong = 0;
        case (frame_type)
            MSG_HELLO: ;
            MSG_WRITE, MSG_READ:
                if (is_write ? frame_length < 6 : frame_length != 8 || {16'd0, count} > MAX_PAYLOAD)
                    wrong = BAD_LENGTH;
                else if (!known)
                    wrong = NO_SUCH_TENSOR;
                else if (offset > size || {16'd0, count} > size - offset)
                    wrong = OUT_OF_RANGE;
                else if (is_write && !is_input)
                    wrong = NOT_WRITABLE;
            MSG_RUN:
                if (frame_length != 4)
                    wrong = BAD_LENGTH;
            MSG_PROFILE:
                if (frame_length != 2)
                    wrong = BAD_LENGTH;
                else if (first > OPS)
                    wrong = OUT_OF_RANGE;
            MSG_RESET_STATE:
                if (frame_length != 0)
                    wrong = BAD_LENGTH;
            default: wrong = UNKNOWN_REQUEST;
        endcase
    end

    integer i;
    always @(posedge clk) begin
        frame_take <= 0;
        reply_start <= 0;
        core_start <= 0;
        case (state)
            IDLE:
                if (frame_valid && !frame_take)
                    state <= LOOK_UP;
            LOOK_UP: begin
                known <= 0;
                is_input <= {16'd0, tensor} < INPUTS;
                for (i = 0; i < TENSORS; i = i + 1)
                    if ({16'd0, tensor} == i) begin
                        known <= 1;
                        size <= SIZES[32 * i +: 32];
                        base <= OFFSETS[32 * i +: 32];
                    end
                state <= CHECK;
            end
            CHECK: begin
                at <= 0;
                error <= wrong;
                reply_type <= frame_type | MSG_REPLY;
                reply_length <= 0;
                state <= REPLY;
                if (wrong == 0)
                    case (frame_type)
                        MSG_HELLO: begin
                            last_valid <= 0;
                            source <= FROM_HELLO;
                            reply_length <= HELLO_LENGTH[15:0];
                        end
                        MSG_WRITE: state <= COPY;
                        MSG_READ: begin
                            source <= FROM_MEMORY;
                            reply_length <= count;
                        end
                        MSG_RUN, MSG_PROFILE: begin
                            source <= FROM_FIELDS;
                            // a RUN asked again is answered, not run again
                            if (!is_profile && last_valid && last_seq == frame_seq)
                                state <= RAN;
                            else if (!is_profile && stop == 0) begin
                                last_ticks <= {32'd0, OVERHEAD};
                                last_seq <= frame_seq;
                                last_valid <= 1;
                                state <= RAN;
                            end else begin
                                core_start <= 1;
                                state <= RUN;
                            end
                        end
                        default: ; // RESET_STATE: a design has no state between inferences
                    endcase
            end
            COPY: begin
                at <= at + 1;
                if (at == count)
                    state <= REPLY;
            end
            RUN:
                if (!core_start && !core_busy) begin
                    if (core_failed)
                        error <= FAULT;
                    else if (!is_profile) begin
                        last_ticks <= core_ticks;
                        last_seq <= frame_seq;
                        last_valid <= 1;
                    end
                    state <= core_failed ? REPLY : RAN;
                end
            RAN: begin
                if (is_profile) begin
                    fields <= {16'd0, 32'd0, core_ticks, OVERHEAD, first};
                    reply_length <= first < OPS ? 18 : 6;
                end else begin
                    fields <= {32'd0, 32'd0, OVERHEAD, last_ticks};
                    reply_length <= 20;
                end
                state <= REPLY;
            end
            REPLY: begin
                if (error != 0) begin
                    source <= FROM_ERROR;
                    reply_type <= MSG_ERROR;
                    reply_length <= text_length + 1;
                end
                reply_start <= 1;
                state <= SENDING;
            end
            SENDING:
                if (!reply_start && !reply_busy)
                    state <= DONE;
            default: begin // DONE
                frame_take <= 1;
                state <= IDLE;
            end
        endcase
        if (rst) begin
            state <= IDLE;
            last_valid <= 0;
        end
    end
endmodule
