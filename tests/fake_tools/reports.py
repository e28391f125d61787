"""Reports in the style of the vendors' tools, with figures of our choice: for the readers' tests and the stand-ins.

Its one rule: written from the layout of real reports, nothing copied; the standard library only, as the stand-ins are
run by any Python.
"""

from __future__ import annotations

import json


def csynth_xml(
    luts=2532, ffs=7969, dsps=73, brams=4, urams=0, period="4.049", latency=(10, 12), interval=(8, 8), dsp="DSP"
):
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<profile>
<ReportVersion><Version>2023.2</Version></ReportVersion>
<UserAssignments><unit>ns</unit><TopModelName>net</TopModelName><TargetClockPeriod>10.00</TargetClockPeriod></UserAssignments>
<PerformanceEstimates>
<PipelineType>dataflow</PipelineType>
<SummaryOfTimingAnalysis><unit>ns</unit><EstimatedClockPeriod>{period}</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency>
<Best-caseLatency>{latency[0]}</Best-caseLatency><Worst-caseLatency>{latency[1]}</Worst-caseLatency>
<Interval-min>{interval[0]}</Interval-min><Interval-max>{interval[1]}</Interval-max>
</SummaryOfOverallLatency>
</PerformanceEstimates>
<AreaEstimates>
<Resources><BRAM_18K>{brams}</BRAM_18K><{dsp}>{dsps}</{dsp}><FF>{ffs}</FF><LUT>{luts}</LUT><URAM>{urams}</URAM></Resources>
<AvailableResources><BRAM_18K>100</BRAM_18K><{dsp}>90</{dsp}><FF>41600</FF><LUT>20800</LUT><URAM>0</URAM></AvailableResources>
</AreaEstimates>
</profile>
"""


def csynth_rpt(
    luts=2532, ffs=7969, dsps=73, brams=4, urams=0, period="4.049 ns", latency=(10, 12), interval=(8, 8), dsp="DSP48E"
):
    return f"""
================================================================
== Performance Estimates
================================================================
+ Timing:
    * Summary:
    +--------+----------+----------+------------+
    |  Clock |  Target  | Estimated| Uncertainty|
    +--------+----------+----------+------------+
    |ap_clk  |  10.00 ns|  {period}|     1.25 ns|
    +--------+----------+----------+------------+

+ Latency:
    * Summary:
    +---------+---------+----------+----------+-----+-----+---------+
    |  Latency (cycles) |  Latency (absolute) |  Interval | Pipeline|
    |   min   |   max   |    min   |    max   | min | max |   Type  |
    +---------+---------+----------+----------+-----+-----+---------+
    |{latency[0]:>9}|{latency[1]:>9}|  0.10 us |  0.12 us |{interval[0]:>5}|{interval[1]:>5}| dataflow|
    +---------+---------+----------+----------+-----+-----+---------+

================================================================
== Utilization Estimates
================================================================
* Summary:
+-----------------+---------+-------+--------+--------+-----+
|       Name      | BRAM_18K| {dsp}|   FF   |   LUT  | URAM|
+-----------------+---------+-------+--------+--------+-----+
|DSP              |        -|      -|       -|       -|    -|
|Instance         |        0|      1|       2|       3|    -|
+-----------------+---------+-------+--------+--------+-----+
|Total            |{brams:>9}|{dsps:>7}|{ffs:>8}|{luts:>8}|{urams:>5}|
+-----------------+---------+-------+--------+--------+-----+
|Available        |      100|     90|   41600|   20800|    0|
+-----------------+---------+-------+--------+--------+-----+

+ Detail:
    * Instance:
    +----------+--------+---------+-------+----+----+-----+
    | Instance | Module | BRAM_18K| {dsp}| FF | LUT| URAM|
    +----------+--------+---------+-------+----+----+-----+
    |Total     |        |        7|      7|   7|   7|    7|
    +----------+--------+---------+-------+----+----+-----+
"""


def cosim_rpt(status="Pass", latency=(10, 11, 12), interval=(8, 8, 8), language="Verilog"):
    other = "VHDL" if language == "Verilog" else "Verilog"
    cells = "|".join(f"{cell:>15}" for cell in (*latency, *interval))
    missing = "|".join(f"{'NA':>15}" for _ in range(6))
    wide = "-" * 47
    return f"""Solution          : solution1.
Simulation tool   : xsim.

+----------+----------+{wide}+{wide}+----------------------+
|          |          |             Latency(Clock Cycles)             |              Interval(Clock Cycles)           | Total Execution Time |
+   RTL    +  Status  +{wide}+{wide}+    (Clock Cycles)    +
|          |          |      min      |      avg      |      max      |      min      |      avg      |      max      |                      |
+----------+----------+{wide}+{wide}+----------------------+
|{other:>10}|        NA|{missing}|                    NA|
|{language:>10}|{status:>10}|{cells}|                   100|
+----------+----------+{wide}+{wide}+----------------------+
"""


def utilization(
    luts=1526, ffs=2428, dsps=66, tiles="2.5", urams=None, state="Synthesized", family="Slice", prohibited=True
):
    head = ["Site Type", "Used", "Fixed", *(["Prohibited"] if prohibited else []), "Available", "Util%"]

    def table(*rows):
        fill = ["0", *(["0"] if prohibited else [])]
        body = [head, *([name, str(used), *fill, "99999", "1.00"] for name, used in rows)]
        rule = "+" + "+".join("-" * 30 for _ in head) + "+"
        lines = ["| " + " | ".join(f"{cell:<28}" for cell in row) + " |" for row in body]
        return "\n".join([rule, lines[0], rule, *lines[1:], rule])

    memory = [("Block RAM Tile", tiles), ("  RAMB36/FIFO*", 2), ("  RAMB18", 1)]
    if urams is not None:
        memory.append(("URAM", urams))
    return f"""Copyright 1986-2022 A Vendor. All Rights Reserved.
| Tool Version : Vivado v.2023.2
| Command      : report_utilization -file utilization.rpt
| Design       : net
| Design State : {state}

Utilization Design Information

1. {family} Logic
--------------

{table((f"{family} LUTs*", luts), ("  LUT as Logic", luts), (f"{family} Registers", ffs), ("  Register as Latch", 0))}
* Warning! The Final LUT count, after physical optimizations and full implementation, is typically lower.

2. Memory
---------

{table(*memory)}

3. DSP
------

{table(("DSPs", dsps), ("  DSP48E1 only", dsps))}
"""


def hierarchical(
    luts="1526(2.87%)",
    ffs="2428(2.28%)",
    dsps="66(30.00%)",
    large="2(1.43%)",
    small="1(0.36%)",
    urams=None,
    state="Routed",
):
    names = ["Instance", "Module", "Total LUTs", "Logic LUTs", "LUTRAMs", "SRLs", "FFs", "RAMB36", "RAMB18"]
    top = ["design_1_wrapper", "(top)", luts, luts, "0(0.00%)", "48(0.28%)", ffs, large, small]
    inner = ["  net", "net", "7", "7", "7", "7", "7", "7", "7"]
    if urams is not None:
        names, top, inner = [*names, "URAM"], [*top, urams], [*inner, "7"]
    rows = [[*names, "DSP Blocks"], [*top, dsps], [*inner, "7"]]
    rule = "+" + "+".join("-" * 18 for _ in rows[0]) + "+"
    lines = ["|" + "|".join(f"{cell:^18}" for cell in row) + "|" for row in rows]
    text = "\n".join([rule, lines[0], rule, *lines[1:], rule])
    return f"| Design State : {state}\n\n1. Utilization by Hierarchy\n---------------------------\n\n{text}\n"


def timing(wns="0.123", clocks=(("clk", "10.000", "0.123"),), state="Routed"):
    """Clocks of (name, period, WNS); a WNS of "" is of a clock that has no paths of its own."""
    box = "-" * 100
    name = max([5, *(len(clock[0]) for clock in clocks)])
    summary = "\n".join(
        f"{clock:<{name}}  {{0.000 {float(period) / 2:.3f}}}        {period:<15} {1000 / float(period):.3f}"
        for clock, period, _ in clocks
    )
    rest = "{:>12} {:>22} {:>20}      {:>12}"
    head = f"{'WNS(ns)':>11} " + rest.format("TNS(ns)", "TNS Failing Endpoints", "TNS Total Endpoints", "WPWS(ns)")
    dashes = f"{'-------':>11} " + rest.format("-------", "---------------------", "-------------------", "--------")
    intra = "\n".join(
        f"{clock:<{name}}{slack:>11} " + rest.format(*(("0.000", 0, 4200) if slack else ("", "", "")), "4.500")
        for clock, _, slack in clocks
    )
    return f"""| Tool Version : Vivado v.2023.2
| Command      : report_timing_summary -file timing.rpt
| Design State : {state}

{box}
| Design Timing Summary
| ---------------------
{box}

{head}
{dashes}
{wns:>11} {rest.format("0.000", 0, 4200, "4.500")}


{box}
| Clock Summary
| -------------
{box}

Clock  Waveform(ns)       Period(ns)      Frequency(MHz)
-----  ------------       ----------      --------------
{summary}


{box}
| Intra Clock Table
| -----------------
{box}

Clock{" " * (name - 5)}{head}
-----{" " * (name - 5)}{dashes}
{intra}


{box}
| Inter Clock Table
| -----------------
{box}
"""


def quartus(alut="4182", reg="16419", dsp="40", ram="36", fmax="597.73"):
    clock = {"name": "Quartus Fitter: Clock Frequency (MHz)", "type": "system", "clock fmax": fmax, "clock": fmax}
    image = {"type": "system", "name": "Quartus Fitter: Device Image", "alm": "1", "alut": alut, "reg": reg}
    kernel = {"type": "kernel", "name": "Net", "alm": "1", "alut": "1", "reg": "1", "dsp": "1", "ram": "1", "mlab": "1"}
    image |= {"dsp": dsp, "ram": ram, "mlab": "52"}
    return json.dumps(
        {"quartusFitClockSummary": {"nodes": [clock]}, "quartusFitResourceUsageSummary": {"nodes": [image, kernel]}}
    )


def summary(data=(2462, 7938, 77, 1, 92, 81)):
    columns = ["Kernel Name", "ALUTs ", "FFs  ", "RAMs ", "DSPs ", "MLABs", "Frac. DSPs"]
    rows = [
        {"name": "Kernel Summary", "summary_type": "performanceSummary", "columns": ["Kernel Name"]},
        {"name": "Net", "parent": "performanceSummary", "data": ["Single work-item"]},
        {"name": "Estimated Resource Usage", "summary_type": "estimatedResources", "dsp_packing_factor": 2},
        {"name": "Net", "parent": "estimatedResources", "data": [1, 1, 1, 1, 1, 1]},
        {"name": "Total", "parent": "estimatedResources", "data": list(data)},
        {"name": "Available", "parent": "estimatedResources", "data": ["9", "9", "9", "9", "9", "0"]},
    ]
    rows[2]["columns"] = columns
    return "".join(json.dumps(row) + "\n" for row in rows)


def loops(*clocks):
    clocks = clocks or ("480.00", "360.50")
    rows = [{"name": "loop_attributes", "id": 1, "nodes": [i + 2 for i, _ in enumerate(clocks)]}]
    rows += [{"name": f"K{i}", "id": i + 2, "fmax": clock, "type": "kernel"} for i, clock in enumerate(clocks)]
    rows += [{"name": "K0.B1", "af": "100.00", "ii": "1", "lt": "176.000000", "type": "loop"}]
    return "".join(json.dumps(row) + "\n" for row in rows)


def report_data(total="[2462, 7938, 77, 40, 92]"):
    return f'var loopsJSON={{"columns":["a: b"]}};\nvar areaJSON={{name: "x: y", "total":{total}, "total_percent":[1]}};\nvar fileJSON=[];\n'


def verification_data(latency="17,19,18", interval="1,2,1"):
    return f'var verifJSON={{"functions":[{{"name":"net", "data":["100", "{latency}", "{interval}"]}}]}};\n'


def quartus_data(**figures):
    return f"var quartusJSON={quartus(**figures)};\n"


def libero(
    luts="424 + 36 = 460", ffs="237 + 36 = 273", math="20", lsram="13", timing=True, simulated=True, status="PASS"
):
    clock = """+--------------+---------------+-------------+-------------+----------+-------------+
| Clock Domain | Target Period | Target Fmax | Worst Slack | Period   | Fmax        |
+--------------+---------------+-------------+-------------+----------+-------------+
| clk          | 10.000 ns     | 100.000 MHz | 5.775 ns    | 4.225 ns | 236.686 MHz |
+--------------+---------------+-------------+-------------+----------+-------------+"""
    calls = f"""+----------------+-----------------+--------------------------+----------------------------+-----------------------+
| Top-Level Name | Number of calls | Simulation time (cycles) | Call Latency (min/max/avg) | Call II (min/max/avg) |
+----------------+-----------------+--------------------------+----------------------------+-----------------------+
| net            | 10              | 1,234                    | 101 / 103 / 102            | 90 / 91 / 90          |
+----------------+-----------------+--------------------------+----------------------------+-----------------------+
SW/HW co-simulation: {status}"""
    used = f"""+--------------------------+----------------+--------+------------+
| Resource Type            | Used           | Total  | Percentage |
+--------------------------+----------------+--------+------------+
| Fabric + Interface 4LUT* | {luts:<14} | 299544 | 0.15       |
| Fabric + Interface DFF*  | {ffs:<14} | 299544 | 0.09       |
| uSRAM                    | 0              | 2772   | 0.00       |
| LSRAM                    | {lsram:<14} | 952    | 0.00       |
| Math                     | {math:<14} | 924    | 0.11       |
+--------------------------+----------------+--------+------------+"""
    missing = "N/A. Please run 'Synthesize Hardware to FPGA' to obtain the result."
    return f"""====== 1. Simulation Result ======

{calls if simulated else missing}

====== 2. Timing Result of HLS-generated IP Core (top-level module: net_top) ======

{clock if timing else missing}

====== 3. Resource Usage of HLS-generated IP Core (top-level module: net_top) ======

{used if luts else missing}

====== 4. Memory Usage ======

None.
"""
