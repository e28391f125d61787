// The design runs at oscillator * MULTIPLY_8 / (8 * DIVIDE) / (OUTPUT_DIVIDE_8 / 8), made by a 7 series MMCM (UG472).
// toolchain/bitstream.py chooses the three numbers and keeps the VCO and the phase detector in range.
module nn_clock_mmcm #(
    parameter real PERIOD_NS = 10.0,
    parameter MULTIPLY_8 = 80, // in eighths
    parameter DIVIDE = 1,
    parameter OUTPUT_DIVIDE_8 = 80 // in eighths
) (
    input  wire oscillator,
    output wire clk,
    output wire locked
);
    wire feedback, made;
    MMCME2_BASE #(
        .CLKIN1_PERIOD(PERIOD_NS), .CLKFBOUT_MULT_F(MULTIPLY_8 / 8.0), .DIVCLK_DIVIDE(DIVIDE),
        .CLKOUT0_DIVIDE_F(OUTPUT_DIVIDE_8 / 8.0)
    ) mmcm (
        .CLKIN1(oscillator), .CLKFBIN(feedback), .CLKFBOUT(feedback), .CLKOUT0(made), .LOCKED(locked),
        .PWRDWN(1'b0), .RST(1'b0), .CLKFBOUTB(), .CLKOUT0B(), .CLKOUT1(), .CLKOUT1B(), .CLKOUT2(), .CLKOUT2B(),
        .CLKOUT3(), .CLKOUT3B(), .CLKOUT4(), .CLKOUT5(), .CLKOUT6()
    );
    BUFG buffer (.I(made), .O(clk));
endmodule
