# Vivado: our Verilog, the HLS core's Verilog and the board's pins, to a bitstream that met its timing.
#   vivado -mode batch -source bitstream.tcl -tclargs PROJECT_DIGEST
# Reports go to reports/, the bitstream to nn_board.bit. Anything wrong ends with exit code 1 and one line that says what.
source [file join [file dirname [file normalize [info script]]] design.tcl]

proc fail {what} {
    puts stderr "bitstream: $what"
    exit 1
}

if {[llength $argv] != 1 || ![regexp {^[0-9a-f]{64}$} [lindex $argv 0]]} {
    fail "the project's digest, 64 hex digits, must follow -tclargs"
}
set digest [lindex $argv 0]

set core [lsort [glob -nocomplain hls/ip_prj/solution1/syn/verilog/*.v]]
if {[lsearch -glob $core */bitwright_top.v] < 0} {
    fail "hls/ip_prj/solution1/syn/verilog/bitwright_top.v is not there: run hls/ip.tcl first"
}

# Vivado HLS adds _V to the ports of ap_uint, and _V_V to those of a stream of it; Vitis HLS adds nothing. The adapters
# take the names from macros, so that neither tool's habit is guessed.
set file [open hls/ip_prj/solution1/syn/verilog/bitwright_top.v]
set text [read $file]
close $file
set defines {}
foreach {macro name ending} $design(ports) {
    if {![regexp "\\m(${name}(?:_V)*${ending})\\M" $text port]} {
        fail "the HLS core has no port ${name}${ending}: bitwright_top.v is not of this design"
    }
    lappend defines -verilog_define $macro=$port
}

file mkdir reports
set_part $design(part)
foreach name $design(verilog) {
    read_verilog verilog/$name
}
foreach name $core {
    read_verilog $name
}
foreach name [lsort [glob -nocomplain hls/ip_prj/solution1/syn/verilog/*.dat]] {
    read_mem $name ;# ROMs of weights
}
read_xdc $design(constraints)
synth_design -top nn_board -part $design(part) -include_dirs verilog -generic "PROJECT_DIGEST=256'h$digest" {*}$defines
report_utilization -file reports/utilization_synth.rpt
opt_design
place_design
phys_opt_design
route_design
report_utilization -file reports/utilization.rpt
report_timing_summary -file reports/timing.rpt
report_drc -file reports/drc.rpt

# No bitstream of a design that misses its clock, or of one where nothing was timed at all.
foreach {kind option} {setup -setup hold -hold} {
    set paths [get_timing_paths $option -max_paths 1]
    if {[llength $paths] == 0} {
        fail "no $kind path is timed: does $design(constraints) name the clock?"
    }
    set slack [get_property SLACK [lindex $paths 0]]
    puts "worst $kind slack: $slack ns"
    if {$slack < 0} {
        fail "timing is not met: the worst $kind slack is $slack ns at $design(clock_ns) ns; see reports/timing.rpt"
    }
}
write_bitstream -force nn_board.bit
