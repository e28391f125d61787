// What an ERROR says after its code; the words of firmware_templates/c/firmware/main.c. `at` 1 is the first letter.
module nn_protocol_text (
    input  wire [7:0]  code,
    input  wire        profile, // the request was PROFILE
    input  wire [15:0] at,
    output reg  [15:0] length,
    output reg  [7:0]  data
);
    localparam LONGEST = 40;
    reg [8 * LONGEST - 1:0] text; // its last letter in the lowest bits
    always @* begin
        case (code)
            1: begin text = "unknown request"; length = 15; end
            2: begin text = "wrong payload length for this request"; length = 37; end
            3: begin text = "no tensor of this number"; length = 24; end
            4: begin
                text = profile ? "no op of this number" : "reaches past the end of the tensor";
                length = profile ? 20 : 34;
            end
            5: begin text = "only inputs can be written"; length = 26; end
            default: begin text = "the network did not finish; a deadlock?"; length = 39; end
        endcase
    end
    integer i;
    always @* begin
        data = 0;
        for (i = 0; i < LONGEST; i = i + 1)
            if ({16'd0, length - at} == i)
                data = text[8 * i +: 8];
    end
endmodule
