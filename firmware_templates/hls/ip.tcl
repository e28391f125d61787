# HLS: bitwright_top.cpp around hls4ml's network, to Verilog and an IP. For Vitis HLS and Vivado HLS alike:
#   vitis-run --mode hls --tcl ip.tcl        vivado_hls -f ip.tcl
# Part, clock and names come from design.tcl; BITWRIGHT_PART and BITWRIGHT_CLOCK_NS in the environment go before it.
source [file join [file dirname [file normalize [info script]]] .. design.tcl]
if {[info exists ::env(BITWRIGHT_PART)]} {
    set design(part) $::env(BITWRIGHT_PART)
}
if {[info exists ::env(BITWRIGHT_CLOCK_NS)]} {
    set design(clock_ns) $::env(BITWRIGHT_CLOCK_NS)
}

open_project -reset ip_prj
set_top bitwright_top
foreach name [list bitwright_top.cpp $design(network).cpp] {
    # AP_INT_MAX_W: whole tensors are one ap_uint, and the tools' own limit is 1024 bits
    add_files firmware/$name -cflags "-std=c++0x -DAP_INT_MAX_W=$design(ap_int_max_w)"
}
open_solution -reset solution1
set_part $design(part)
create_clock -period $design(clock_ns) -name default
set_clock_uncertainty $design(clock_uncertainty) default
# as hls4ml's own script: it shortens names, and arrays of a large network pass the old limit
catch {config_array_partition -maximum_size $design(maximum_size)}
config_compile -name_max_length 80
csynth_design
export_design -format ip_catalog
exit
