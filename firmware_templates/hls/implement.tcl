# Vivado: the network's Verilog alone, out of context, placed and routed: what it takes, and the clock it could have.
#   vivado -mode batch -source implement.tcl
# Runs in the folder of hls4ml's project after C synthesis; part, clock and names come from hls4ml's project.tcl.
source [file join [file dirname [file normalize [info script]]] project.tcl]

set top $project_name
if {$backend eq "vivadoaccelerator"} {
    append top _axi
}
set folder ${project_name}_prj/solution1/syn/verilog
set sources [lsort [glob -nocomplain $folder/*.v]]
if {[llength $sources] == 0} {
    puts stderr "ERROR: implement: no Verilog in $folder, run csynth first"
    exit 1
}

file mkdir reports
set_part $part
foreach name $sources {
    read_verilog $name
}
foreach name [lsort [glob -nocomplain $folder/*.dat]] {
    read_mem $name ;# ROMs of weights
}
synth_design -mode out_of_context -top $top -part $part
create_clock -name ap_clk -period $clock_period [get_ports ap_clk]
report_utilization -file reports/utilization_synth.rpt
opt_design
place_design
phys_opt_design
route_design
report_utilization -file reports/utilization.rpt
report_timing_summary -file reports/timing.rpt
exit
