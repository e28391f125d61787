# Arty A7-35T: the pins of boards/arty_a7_35.toml under the names of the top level's ports.
set_property -dict { PACKAGE_PIN E3 IOSTANDARD LVCMOS33 } [get_ports clk]
create_clock -name clk -period 10.000 [get_ports clk]
set_property -dict { PACKAGE_PIN A9 IOSTANDARD LVCMOS33 } [get_ports uart_rx]
set_property -dict { PACKAGE_PIN D10 IOSTANDARD LVCMOS33 } [get_ports uart_tx]
set_property -dict { PACKAGE_PIN D9 IOSTANDARD LVCMOS33 } [get_ports reset]
set_property -dict { PACKAGE_PIN H5 IOSTANDARD LVCMOS33 } [get_ports led]
# Asynchronous to the clock: the UART and the button are sampled through synchronizers.
set_false_path -from [get_ports {uart_rx reset}]
set_false_path -to [get_ports {uart_tx led}]
# Bank 0 is at 3.3 V: UG908, configuration voltage.
set_property CFGBVS VCCO [current_design]
set_property CONFIG_VOLTAGE 3.3 [current_design]
