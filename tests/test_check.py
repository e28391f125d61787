"""check: each rule has a graph that breaks it, and the whole text of the error. Most are written in the text form."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from tests.graphs import random_graph
from toolchain.errors import GraphError
from toolchain.ir import Const, Graph, QType, State, Tensor, check, ops, parse
from toolchain.ir.builder import GraphBuilder, identifier
from toolchain.ir.ops import Rounding

S8 = QType(8, True)
X = Tensor("x", (3,), S8)


def text(body: str, x: str = "s8 [4,4,2] scale 1") -> str:
    return f"bitwright graph 1\ngraph g\ninput %x: {x}\n{body}output %y\n"


def const(name: str, shape: str, *values: int, kind: str = "s8", scale: str = "1") -> str:
    return f"const %{name}: {kind} {shape} scale {scale}\n" + "".join(f"  {v}\n" for v in values)


W = const("w", "[1,1,1,2]", 1, 2)
CONV = "%y: s20 [4,4,1] scale 1 = conv2d input=%x weight=%w bias=none"
DEPTH = "%y: s20 [4,4,2] scale 1 = depthwiseconv2d input=%x weight=%w bias=none"
REQ = "%y: s8 [4,4,2] scale 1 = requantize input=%x "
ONE = "multiplier=[1] offset=[0] shift=[0] output_offset=0 rounding=floor clamp=[-128,127]"
POOL = "%y: s8 [2,2,2] scale 1 = maxpool input=%x "
SUM = "%y: s10 [2,2,2] scale 1/4 = sumpool input=%x "
WINDOW = "kernel=[2,2] strides=[2,2] padding=[[0,0],[0,0]] ceil_mode=false"
TWO = "s8 [4,4,2] scale axis 2 [1,1/2]"
SHARE = "%y: s8 [4,4,2] scale 1/256 zero_point -128 = softmax input=%x table=%t\n"
MOST = (1 << 31) - 1


def table(*first: int, kind: str = "s32") -> str:
    return const("t", "[256]", *first, *[0] * (256 - len(first)), kind=kind)


EXP = table(MOST, 9, 5)
LINE = "%y: s16 [4,4,2] scale 1 = interpolate input=%x table=%t shift=1 rounding=half_away output_offset=0\n"
POINTS = const("t", "[5]", 1, 2, 3, 4, 5)
ROWS = "%y: s16 [4,4,2] scale 1/32768 = softmax16 input=%x table=%t reciprocal=%r multiplier=7 shift=3\n"
TABLES = [f"const %{name}: s16 [513] scale 1\n  {' '.join(['1000'] * 513)}\n" for name in "tr"]
S16 = "s16 [4,4,2] scale 1"

CASES: list[tuple[str, str, str]] = [  # body, input type, error
    # names, definitions, tensors
    ("%y: s8 [0] scale 1 = reshape input=%x\n", "", "reshape %y: [4, 4, 2] does not reshape to [0]"),
    ("%y: s8 [4,4,2] scale axis 1 [1,2,3,4] = requantize input=%x " + ONE + "\n", "",
     "requantize %y: has scales along axis 1, must be along the last"),
    ("%y: s8 [4,4,2] scale axis 2 [1,2,3] = requantize input=%x " + ONE + "\n", "",
     "requantize %y: has 3 scales along axis 2, which does not go with [4, 4, 2]"),
    ("%y: s8 [4,4,2] scale axis 3 [1,2] = requantize input=%x " + ONE + "\n", "",
     "requantize %y: has 2 scales along axis 3, which does not go with [4, 4, 2]"),
    ("%y: s8 [32] scale 1 = reshape input=%x\n", "s8 [4,0,2] scale 1",
     "input %x: shape [4, 0, 2], must have at least one axis and no empty one"),
    ("%y: s8 [1] scale 1 = reshape input=%x\n", "s8 [] scale 1",
     "input %x: shape [], must have at least one axis and no empty one"),
    ("%y: s8 [32] scale 1 = reshape input=%x\n", "s64 [4,4,2] scale 1 zero_point 5",
     "input %x: s64 less zero point 5 does not fit int64"),
    (const("w", "[1,1,1,2]", 1, 2, scale="axis 0 [1,2]") + CONV + "\n", "",
     "const %w: has 2 scales along axis 0, which does not go with [1, 1, 1, 2]"),
    (const("w", "[1,1,1,0]") + CONV + "\n", "",
     "const %w: shape [1, 1, 1, 0], must have at least one axis and no empty one"),
    # widths
    (W + CONV.replace("s20", "s9") + "\n", "",
     "conv2d %y: values -384..381 do not fit s9 (-256..255); widen it or lower the weight bits"),
    (W + CONV.replace("s20", "u20") + "\n", "",
     "conv2d %y: values -384..381 do not fit u20 (0..1048575); widen it or lower the weight bits"),
    # dense and convolutions
    (const("w", "[1,3]", 1, 2, 3) + "%y: s20 [4,4,1] scale 1 = dense input=%x weight=%w bias=none\n", "",
     "dense %y: input [4, 4, 2] and weight [1, 3] must agree in their last axis"),
    (const("w", "[1,1,2]", 1, 2) + "%y: s20 [4,4,1] scale 1 = dense input=%x weight=%w bias=none\n", "",
     "dense %y: weight [1, 1, 2] has 3 entries, must have 2"),
    (W + CONV.replace("[4,4,1]", "[4,4,2]") + "\n", "", "conv2d %y: output shape [4, 4, 2], must be [4, 4, 1]"),
    (W + CONV + " strides=[1]\n", "", "conv2d %y: strides [1] has 1 entries, must have 2"),
    (W + CONV + " dilation=[1,1,1]\n", "", "conv2d %y: dilation [1, 1, 1] has 3 entries, must have 2"),
    (W + CONV + " padding=[[0,0]]\n", "", "conv2d %y: padding [(0, 0)] has 1 entries, must have 2"),
    (W + CONV + " strides=[0,1]\n", "",
     "conv2d %y: strides and dilation must be at least 1, padding at least 0"),
    (W + CONV + " dilation=[1,0]\n", "",
     "conv2d %y: strides and dilation must be at least 1, padding at least 0"),
    (W + CONV + " padding=[[0,0],[0,-1]]\n", "",
     "conv2d %y: strides and dilation must be at least 1, padding at least 0"),
    (W + CONV + " groups=2\n", "", "conv2d %y: weight [1, 1, 1, 2] in 2 groups does not go with 2 input channels"),
    (W + CONV + " groups=0\n", "", "conv2d %y: weight [1, 1, 1, 2] in 0 groups does not go with 2 input channels"),
    (W + CONV + "\n", "s8 [4,2] scale 1", "conv2d %y: input [4, 2] has 2 entries, must have 3"),
    (const("w", "[1,2,2]", 1, 2, 3, 4) + CONV + "\n", "", "conv2d %y: weight [1, 2, 2] has 3 entries, must have 4"),
    (const("w", "[1,5,1,2]", *[1] * 10) + CONV + "\n", "",
     "conv2d %y: the window is larger than the padded input, which leaves shape [0, 4, 1]"),
    (const("w", "[1,1,3]", 1, 2, 3) + DEPTH + "\n", "",
     "depthwiseconv2d %y: 3 outputs must be a multiple of 2 input channels"),
    (W + CONV + "\n", TWO,
     "conv2d %y: %x has 2 scales along an axis that is reduced, must have one; requantize it first"),
    (const("w", "[1,1,1,2]", 1, 2, scale="axis 3 [1,2]") + CONV + "\n", "",
     "conv2d %y: weight %w has scales along axis 3, must be along 0"),
    (const("w", "[1,1,2]", 1, 2, scale="axis 0 [1]") + DEPTH + "\n", "",
     "depthwiseconv2d %y: weight %w has scales along axis 0, must be along 2"),
    (W.replace("scale 1", "scale 1/2") + CONV + "\n", "",
     "conv2d %y: output scale 1, must be 1/2 (one for each channel if they differ)"),
    (const("w", "[1,1,1,2]", 1, 2, scale="1 zero_point 3") + CONV + "\n", "",
     "conv2d %y: %w has zero point 3, must be 0; requantize it first"),
    (W + CONV.replace("scale 1", "scale 1 zero_point -2") + "\n", "",
     "conv2d %y: %y has zero point -2, must be 0; requantize it first"),
    (W + const("b", "[2]", 1, 2) + CONV.replace("bias=none", "bias=%b") + "\n", "",
     "conv2d %y: bias shape [2], must be [1]"),
    (W + const("b", "[1]", 1, scale="1/2") + CONV.replace("bias=none", "bias=%b") + "\n", "",
     "conv2d %y: bias must have the accumulator's scale"),
    (W + const("b", "[1]", 1, scale="1 zero_point 1") + CONV.replace("bias=none", "bias=%b") + "\n", "",
     "conv2d %y: %b has zero point 1, must be 0; requantize it first"),
    # requantize
    (REQ + ONE.replace("multiplier=[1]", "multiplier=[1,1]") + "\n", "",
     "requantize %y: multiplier, offset and shift must all have 1 or 2 entries"),
    (REQ + "multiplier=[1,1,1] offset=[0,0,0] shift=[0,0,0] output_offset=0 rounding=floor clamp=[0,1]\n", "",
     "requantize %y: multiplier, offset and shift must all have 1 or 2 entries"),
    (REQ + "multiplier=[] offset=[] shift=[] output_offset=0 rounding=floor clamp=[0,1]\n", "",
     "requantize %y: multiplier, offset and shift must all have 1 or 2 entries"),
    (REQ + ONE.replace("multiplier=[1]", "multiplier=[-140737488355328]") + "\n", "",
     "requantize %y: multiplier -140737488355328 needs more than 48 bits"),
    (REQ + ONE.replace("shift=[0]", "shift=[63]") + "\n", "", "requantize %y: shifts 63..63 must be in 0..62"),
    (REQ + ONE.replace("shift=[0]", "shift=[-1]") + "\n", "", "requantize %y: shifts -1..-1 must be in 0..62"),
    (REQ + ONE.replace("-128,", "-129,") + "\n", "", "requantize %y: clamp -129..127 must lie within s8"),
    (REQ + ONE.replace("127]", "128]") + "\n", "", "requantize %y: clamp -128..128 must lie within s8"),
    (REQ + ONE.replace("[-128,127]", "[5,4]") + "\n", "", "requantize %y: clamp 5..4 must lie within s8"),
    (REQ + ONE.replace("output_offset=0", f"output_offset={1 << 62}") + "\n", "",
     "requantize %y: output_offset must fit 63 bits"),
    (REQ + ONE.replace("multiplier=[1]", f"multiplier=[{1 << 46}]") + "\n", "s40 [4,4,2] scale 1",
     f"requantize %y: channel 0: accumulator {-(1 << 39)}..{(1 << 39) - 1} times {1 << 46} plus 0 does not fit int64"),
    (REQ + ONE.replace("offset=[0] shift=[0]", f"offset=[{(1 << 63) - 127}] shift=[0]") + "\n", "",
     f"requantize %y: channel 0: accumulator -128..127 times 1 plus {(1 << 63) - 127} does not fit int64"),
    (REQ + ONE.replace("offset=[0] shift=[0]", f"offset=[{(1 << 63) - (1 << 62)}] shift=[62]") + "\n", "",
     f"requantize %y: channel 0: accumulator -128..127 times 1 plus {1 << 62} does not fit int64"),
    (REQ + ONE.replace("offset=[0] ", f"offset=[{1 << 62}] ").replace("output_offset=0", f"output_offset={(1 << 62) - 1}") + "\n", "",
     f"requantize %y: channel 0: accumulator -128..127 times 1 plus {1 << 62} does not fit int64"),
    (REQ + "multiplier=[1,3] offset=[0,-9223372036854775807] shift=[0,0] output_offset=0 rounding=floor clamp=[0,1]\n", "",
     "requantize %y: channel 1: accumulator -128..127 times 3 plus -9223372036854775807 does not fit int64"),
    *[
        (REQ + ONE.replace("floor", "tflm").replace(was, now) + "\n", x,
         "requantize %y: tflm rounding takes offset 0, multipliers of 0 or more, and an accumulator of 32 bits")
        for was, now, x in [
            (" offset=[0]", " offset=[1]", ""),
            ("multiplier=[1]", "multiplier=[-1]", ""),
            ("multiplier=[1]", "multiplier=[2147483648]", ""),
            ("", "", "s33 [4,4,2] scale 1"),
            ("", "", "u32 [4,4,2] scale 1"),
        ]
    ],
    # threshold and lookup
    (const("t", "[2,1]", 3, 2) + const("l", "[1,3]", 1, 2, 3)
     + "%y: s8 [4,4,2] scale 1 = threshold input=%x thresholds=%t levels=%l\n", "",
     "threshold %y: thresholds [2, 1] and levels [1, 3] must be [1 or 2, T] and [1 or 2, T+1]"),
    (const("t", "[3,1]", 3, 2, 1) + const("l", "[1,2]", 1, 2)
     + "%y: s8 [4,4,2] scale 1 = threshold input=%x thresholds=%t levels=%l\n", "",
     "threshold %y: thresholds [3, 1] and levels [1, 2] must be [1 or 2, T] and [1 or 2, T+1]"),
    (const("t", "[1]", 3) + const("l", "[1,2]", 1, 2)
     + "%y: s8 [4,4,2] scale 1 = threshold input=%x thresholds=%t levels=%l\n", "",
     "threshold %y: thresholds [1] and levels [1, 2] must be [1 or 2, T] and [1 or 2, T+1]"),
    (const("t", "[1,2]", 3, 2) + const("l", "[1,3]", 1, 2, 3)
     + "%y: s8 [4,4,2] scale 1 = threshold input=%x thresholds=%t levels=%l\n", "",
     "threshold %y: thresholds must ascend"),
    (const("t", "[1,1]", 3) + const("l", "[1,2]", 1, 200, kind="s9")
     + "%y: s8 [4,4,2] scale 1 = threshold input=%x thresholds=%t levels=%l\n", "",
     "threshold %y: %l holds 1..200, which does not fit s8"),
    (const("t", "[4]", 1, 2, 3, 4) + "%y: s8 [4,4,2] scale 1 = lookup input=%x table=%t\n", "s13 [4,4,2] scale 1",
     "lookup %y: looks up 13 bits, must be at most 12"),
    (const("t", "[3]", 1, 2, 3) + "%y: s8 [4,4,2] scale 1 = lookup input=%x table=%t\n", "s2 [4,4,2] scale 1",
     "lookup %y: table [3], must be [4]"),
    (const("t", "[4]", 1, 2, 3, -200, kind="s9") + "%y: s8 [4,4,2] scale 1 = lookup input=%x table=%t\n",
     "s2 [4,4,2] scale 1", "lookup %y: %t holds -200..3, which does not fit s8"),
    (const("t", "[4]", 1, 2, 3, 4) + "%y: s8 [4,4,2] scale 1 = lookup input=%x table=%t\n",
     "s2 [4,4,2] scale axis 2 [1,2]",
     "lookup %y: %x has 2 scales along an axis that is looked up in one table, must have one; requantize it first"),
    # pairs
    ("input %z: s8 [4,2] scale 1\n%y: s9 [4,4,2] scale 1 = add a=%x b=%z\n", "",
     "add %y: shapes [4, 4, 2] and [4, 2] must be equal, or 1 where they differ"),
    ("input %z: s8 [4,4,3] scale 1\n%y: s9 [4,4,3] scale 1 = sub a=%x b=%z\n", "",
     "sub %y: shapes [4, 4, 2] and [4, 4, 3] must be equal, or 1 where they differ"),
    ("input %z: s8 [4,4,2] scale 1/2\n%y: s9 [4,4,2] scale 1 = add a=%x b=%z\n", "",
     "add %y: scales 1 and 1/2 must be equal; multiply the operands by integers first"),
    ("input %z: s8 [4,4,2] scale 1\n%y: s9 [4,4,2] scale 1 = add a=%z b=%x\n", TWO,
     "add %y: scales 1 and 1, 1/2 must be equal; multiply the operands by integers first"),
    ("%y: s9 [4,4,2] scale 1 = add a=%x b=%x\n", "s8 [4,4,2] scale 1 zero_point 1",
     "add %y: %x has zero point 1, must be 0; requantize it first"),
    ("input %z: s8 [4,4,2] scale 1 zero_point 2\n%y: s9 [4,4,2] scale 1 = sub a=%x b=%z\n", "",
     "sub %y: %z has zero point 2, must be 0; requantize it first"),
    ("%y: s20 [4,4,2] scale 1 zero_point 3 = multiply a=%x b=%x\n", "",
     "multiply %y: %y has zero point 3, must be 0; requantize it first"),
    ("%y: s20 [4,4,2] scale 1/2 = multiply a=%x b=%x\n", "s8 [4,4,2] scale 1/2",
     "multiply %y: output scale 1/2, must be 1/4 (one for each channel if they differ)"),
    # concat
    ("%y: s8 [4,4,2] scale 1 = concat inputs=[] axis=0\n", "", "concat %y: has no inputs, must have at least one"),
    ("%y: s8 [4,4,2] scale 1 = concat inputs=[%x,%x] axis=3\n", "", "concat %y: axis 3, must be in 0..2"),
    ("%y: s8 [4,4,2] scale 1 = concat inputs=[%x,%x] axis=-1\n", "", "concat %y: axis -1, must be in 0..2"),
    ("input %z: s8 [4,3,2] scale 1\n%y: s8 [8,4,2] scale 1 = concat inputs=[%x,%z] axis=0\n", "",
     "concat %y: shapes [[4, 4, 2], [4, 3, 2]] must agree but for axis 0"),
    ("input %z: s8 [4,4,2] scale 1 zero_point 1\n%y: s8 [8,4,2] scale 1 = concat inputs=[%x,%z] axis=0\n", "",
     "concat %y: zero points of inputs and output must be equal"),
    ("input %z: s8 [4,4,2] scale 1/2\n%y: s8 [8,4,2] scale 1 = concat inputs=[%x,%z] axis=0\n", "",
     "concat %y: scales 1/2, 1 must be equal; requantize to one first"),
    ("%y: s8 [8,4,2] scale 1 = concat inputs=[%x,%x] axis=0\n", TWO,
     "concat %y: %x has 2 scales along an axis that is concatenated, must have one; requantize it first"),
    # pools
    (POOL + WINDOW + "\n", "s8 [4] scale 1", "maxpool %y: input [4] must have one or two spatial axes and channels"),
    (POOL + WINDOW.replace("kernel=[2,2]", "kernel=[2]") + "\n", "",
     "maxpool %y: kernel [2] has 1 entries, must have 2"),
    (POOL + WINDOW.replace("strides=[2,2]", "strides=[0,2]") + "\n", "",
     "maxpool %y: kernel and strides must be at least 1, padding at least 0"),
    (POOL + WINDOW.replace("[[0,0],", "[[0,-1],") + "\n", "",
     "maxpool %y: kernel and strides must be at least 1, padding at least 0"),
    (POOL + WINDOW.replace("[[0,0],", "[[0,2],") + "\n", "",
     "maxpool %y: padding [(0, 2), (0, 0)] must be smaller than the kernel [2, 2]"),
    (POOL + "kernel=[5,5] strides=[1,1] padding=[[0,0],[0,0]] ceil_mode=false\n", "",
     "maxpool %y: the window is larger than the padded input, which leaves shape [0, 0, 2]"),
    (POOL.replace("s8", "s9") + WINDOW + "\n", "",
     "maxpool %y: output is s9, must have the input's type s8 and zero point"),
    (POOL + WINDOW + "\n", "s8 [4,4,2] scale 1 zero_point 1",
     "maxpool %y: output is s8, must have the input's type s8 and zero point"),
    (SUM.replace("1/4", "1/3") + WINDOW + " count_include_pad=false\n", "",
     "sumpool %y: output scale 1/3, must be 1/4 (one for each channel if they differ)"),
    (SUM.replace("1/4", "1/4 zero_point 1") + WINDOW + " count_include_pad=false\n", "",
     "sumpool %y: %y has zero point 1, must be 0; requantize it first"),
    # moves
    ("%y: s8 [31] scale 1 = reshape input=%x\n", "", "reshape %y: [4, 4, 2] does not reshape to [31]"),
    ("%y: s8 [32] scale 1 = reshape input=%x\n", TWO,
     "reshape %y: %x has 2 scales along an axis that is reshaped, must have one; requantize it first"),
    ("%y: s8 [4,4,2] scale 1 = transpose input=%x permutation=[0,0,1]\n", "",
     "transpose %y: permutation [0, 0, 1] must name each of 3 axes once"),
    ("%y: s8 [4,2,4] scale 1 = transpose input=%x permutation=[0,2,1]\n", TWO,
     "transpose %y: %x has 2 scales along an axis that is transposed, must have one; requantize it first"),
    ("%y: s8 [4,4,2] scale 1 = pad input=%x padding=[[0,0]] value=0\n", "",
     "pad %y: padding [(0, 0)] has 1 entries, must have 3"),
    ("%y: s8 [4,4,2] scale 1 = pad input=%x padding=[[0,0],[0,0],[0,-1]] value=0\n", "",
     "pad %y: padding must be at least 0"),
    ("%y: s8 [5,4,2] scale 1 = pad input=%x padding=[[1,0],[0,0],[0,0]] value=128\n", "",
     "pad %y: value 128 does not fit s8"),
    ("%y: s8 [4,4,3] scale 1 = pad input=%x padding=[[0,0],[0,0],[0,1]] value=0\n", TWO,
     "pad %y: %x has 2 scales along an axis that is padded, must have one; requantize it first"),
    ("%y: s8 [4,4,2] scale 1 = upsample input=%x factors=[1]\n", "",
     "upsample %y: factors [1] has 1 entries, must have 2"),
    ("%y: s8 [4,4,2] scale 1 = upsample input=%x factors=[1,0]\n", "", "upsample %y: factors must be at least 1"),
    ("%y: u1 [4,4,1] scale 1 = argmax input=%x\n", TWO,
     "argmax %y: %x has 2 scales along an axis that is compared, must have one; requantize it first"),
    ("%y: u1 [4,4,1] scale 1/2 = argmax input=%x\n", "",
     "argmax %y: output scale 1/2, must be 1 (one for each channel if they differ)"),
    ("%y: u1 [4,4,1] scale 1 zero_point 1 = argmax input=%x\n", "",
     "argmax %y: %y has zero point 1, must be 0; requantize it first"),
    # slice and softmax
    ("%y: s8 [4,4,2] scale 1 = slice input=%x begin=[0,0] strides=[1,1,1]\n", "",
     "slice %y: begin [0, 0] has 2 entries, must have 3"),
    ("%y: s8 [4,4,2] scale 1 = slice input=%x begin=[0,0,0] strides=[1,1]\n", "",
     "slice %y: strides [1, 1] has 2 entries, must have 3"),
    ("%y: s8 [4,4] scale 1 = slice input=%x begin=[0,0,0] strides=[1,1,1]\n", "",
     "slice %y: output [4, 4] has 2 entries, must have 3"),
    *[
        (f"%y: s8 [{size},4,2] scale 1 = slice input=%x begin=[{begin},0,0] strides=[{stride},1,1]\n", "",
         "slice %y: begin must be at least 0, strides and sizes at least 1")
        for size, begin, stride in [(1, -1, 1), (1, 0, 0), (0, 0, 1)]
    ],
    ("%y: s8 [4,2,2] scale 1 = slice input=%x begin=[0,1,0] strides=[1,3,1]\n", "",
     "slice %y: reads up to index 4 of axis 1, which has 4 elements"),
    ("%y: s8 [4,4,1] scale 1 = slice input=%x begin=[0,0,1] strides=[1,1,1]\n", TWO,
     "slice %y: output scale 1, must be 1/2 (one for each channel if they differ)"),
    ("%y: s8 [4,4,1] scale 1 = slice input=%x begin=[0,0,1] strides=[1,1,1]\n", "u8 [4,4,2] scale 1",
     "slice %y: output is s8, must have the input's type u8 and zero point"),
    (EXP + SHARE, "s9 [4,4,2] scale 1", "softmax %y: input is s9, must have 8 bits; requantize it first"),
    (EXP + SHARE, TWO,
     "softmax %y: %x has 2 scales along an axis that is compared, must have one; requantize it first"),
    (EXP + SHARE, "s8 [4,4,4096] scale 1", "softmax %y: output shape [4, 4, 2], must be [4, 4, 4096]"),
    (EXP + SHARE.replace("[4,4,2]", "[4,4,4096]"), "s8 [4,4,4096] scale 1",
     "softmax %y: is over 4096 elements, must be over at most 4095"),
    (EXP + SHARE.replace("1/256", "1/255"), "",
     "softmax %y: output scale 1/255, must be 1/256 (one for each channel if they differ)"),
    *[
        (EXP + SHARE.replace("s8 [4,4,2] scale 1/256 zero_point -128", kind), "",
         f"softmax %y: output is {told}, must be s8 with -128 or s16 with -32768")
        for kind, told in [
            ("u8 [4,4,2] scale 1/256", "u8 with zero point 0"),
            ("s8 [4,4,2] scale 1/256", "s8 with zero point 0"),
            ("s12 [4,4,2] scale 1/4096 zero_point -2048", "s12 with zero point -2048"),
            ("s16 [4,4,2] scale 1/65536 zero_point -128", "s16 with zero point -128"),
        ]
    ],
    (const("t", "[2]", 1, 0) + SHARE, "", "softmax %y: table [2], must be [256]"),
    (table(MOST - 1) + SHARE, "",
     "softmax %y: table begins with 2147483646 and holds 0..2147483646, must begin with 2147483647 and hold 0..2147483647"),
    (table(MOST, 5, -1) + SHARE, "",
     "softmax %y: table begins with 2147483647 and holds -1..2147483647, must begin with 2147483647 and hold 0..2147483647"),
    (table(MOST, MOST + 1, kind="s33") + SHARE, "",
     "softmax %y: table begins with 2147483647 and holds 0..2147483648, must begin with 2147483647 and hold 0..2147483647"),
    # lines between entries
    *[
        (const("t", shape, *values) + LINE, x,
         f"interpolate %y: table {shape.replace(',', ', ')}, must have one entry more than a power of two of 1 to {most}")
        for shape, values, x, most in [
            ("[4]", (1, 2, 3, 4), "", 256),
            ("[1]", (1,), "", 256),
            ("[5,1]", (1, 2, 3, 4, 5), "", 256),
            ("[5]", (1, 2, 3, 4, 5), "s1 [4,4,2] scale 1", 2),
        ]
    ],
    (POINTS + LINE, "s33 [4,4,2] scale 1", "interpolate %y: input is s33, must have at most 32 bits; requantize it first"),
    (POINTS + LINE, TWO,
     "interpolate %y: %x has 2 scales along an axis that is looked up in one table, must have one; requantize it first"),
    (POINTS + LINE.replace("half_away", "tflm"), "", "interpolate %y: tflm rounding takes a multiplier, which it has not"),
    *[
        (POINTS + LINE.replace("shift=1", f"shift={shift}").replace("offset=0", f"offset={offset}"), "",
         f"interpolate %y: shift {shift}, must be in 0..30, and output_offset {offset} must fit 31 bits")
        for shift, offset in [(-1, 0), (31, 0), (1, 1 << 30), (1, -1 << 30)]
    ],
    (const("t", "[5]", 1, 2, 3, 4, -128) + LINE, "s32 [4,4,2] scale 1",
     "interpolate %y: entries of up to 128 over 1073741824 values of x, shifted by 1: leave 31 bits"),
    (POINTS + LINE.replace("shift=1", "shift=30"), "",
     "interpolate %y: entries of up to 5 over 64 values of x, shifted by 30: leave 31 bits"),
    (POINTS + LINE.replace("s16", "s8"), "", "interpolate %y: values 32..160 do not fit s8 (-128..127); widen it or lower the weight bits"),
    # softmax of 16 bits
    *[
        ("".join(TABLES) + ROWS.replace("s16 [4,4,2] scale 1/32768", y), x,
         f"softmax16 %y: makes {made}, must make s16 with zero point 0 of s16")
        for x, y, made in [
            ("", "s16 [4,4,2] scale 1/32768", "s16 with zero point 0 of s8"),
            ("u16 [4,4,2] scale 1", "s16 [4,4,2] scale 1/32768", "s16 with zero point 0 of u16"),
            (S16, "s17 [4,4,2] scale 1/32768", "s17 with zero point 0 of s16"),
            (S16, "u16 [4,4,2] scale 1/32768", "u16 with zero point 0 of s16"),
            (S16, "s16 [4,4,2] scale 1/32768 zero_point 1", "s16 with zero point 1 of s16"),
        ]
    ],
    ("".join(TABLES) + ROWS.replace("1/32768", "1/65536"), S16,
     "softmax16 %y: output scale 1/65536, must be 1/32768 (one for each channel if they differ)"),
    ("".join(TABLES) + ROWS, "s16 [4,4,2] scale axis 2 [1,1/2]",
     "softmax16 %y: %x has 2 scales along an axis that is compared, must have one; requantize it first"),
    *[
        ("".join(TABLES) + ROWS.replace("multiplier=7 shift=3", f"multiplier={m} shift={s}"), S16,
         f"softmax16 %y: multiplier {m} and shift {s} must be 31 bits and 0..62")
        for m, s in [(-1, 3), (1 << 31, 3), (7, -1), (7, 63)]
    ],
    (TABLES[0] + const("r", "[2]", 1, 2) + ROWS, S16, "softmax16 %y: %r [2] holds 1..2, must be [513] of 0..32767"),
    (TABLES[0].replace("1000 1000", "-1 1000", 1) + TABLES[1] + ROWS, S16,
     "softmax16 %y: %t [513] holds -1..1000, must be [513] of 0..32767"),
    (TABLES[0] + TABLES[1].replace("s16", "u16").replace("1000 1000", "32768 1000", 1) + ROWS, S16,
     "softmax16 %y: %r [513] holds 1000..32768, must be [513] of 0..32767"),
    (TABLES[0].replace("1000\n", "3\n") + TABLES[1] + ROWS, S16,
     "softmax16 %y: %t ends with 3, must end with 4 or more: exp of 0"),
    ("".join(TABLES) + ROWS.replace("[4,4,2]", "[1,1,2147484]"), "s16 [1,1,2147484] scale 1",
     "softmax16 %y: is over 2147484 elements, whose sum may leave 31 bits"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "x", "error"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_each_rule(body: str, x: str, error: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(error)}$"):
        parse(text(body, x or "s8 [4,4,2] scale 1"))


def test_what_the_cases_start_from_is_good() -> None:
    for body in (
        W + CONV + "\n",
        const("w", "[1,1,2]", 1, 2) + DEPTH + "\n",
        REQ + ONE + "\n",
        POOL + WINDOW + "\n",
        SUM + WINDOW + " count_include_pad=false\n",
        EXP + SHARE,
        EXP + SHARE.replace("s8 [4,4,2] scale 1/256 zero_point -128", "s16 [4,4,2] scale 1/65536 zero_point -32768"),
        "%y: s8 [2,2,1] scale 1 = slice input=%x begin=[0,1,1] strides=[3,2,1]\n",
    ):
        parse(text(body))
    parse(text(REQ + ONE.replace("floor", "tflm") + "\n", "u31 [4,4,2] scale 1"))
    parse(text(EXP + SHARE.replace("[4,4,2]", "[1,4095]"), "u8 [1,4095] scale 1 zero_point 3"))
    parse(text("%y: s8 [4,4,1] scale 1/2 = slice input=%x begin=[0,0,1] strides=[1,1,9]\n", TWO))
    widest = ONE.replace("multiplier=[1]", f"multiplier=[{1 << 23}]")
    parse(text(REQ + widest + "\n", "s40 [4,4,2] scale 1"))


def relu(x: Tensor, name: str) -> ops.Requantize:
    return ops.Requantize(x, replace(x, name=name), (1,), (0,), (0,), 0, Rounding.FLOOR, (0, 127))


def graph(**changes: Any) -> Graph:
    y = relu(X, "y")
    return Graph(**{"name": "g", "inputs": (X,), "outputs": (y.output,), "ops": (y,), **changes})


Z = Const.of("z", [0, 0, 0], S8)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (graph(name="2g"), "graph: name '2g' must be letters, digits and _, not starting with a digit"),
        (graph(name="g h"), "graph: name 'g h' must be letters, digits and _, not starting with a digit"),
        (graph(name="gé"), "graph: name 'gé' must be letters, digits and _, not starting with a digit"),
        (graph(notes=("a\nb",)), "graph g: note 'a\\nb' must be one line of printable text"),
        (graph(notes=("a\x85b",)), "graph g: note 'a\\x85b' must be one line of printable text"),
        (graph(notes=(" a",)), "graph g: note ' a' must be one line of printable text"),
        (graph(inputs=()), "graph g: must have at least one input and one output"),
        (graph(outputs=()), "graph g: must have at least one input and one output"),
        (graph(inputs=(X, X)), "input %x: %x is defined twice"),
        (graph(inputs=(replace(X, name="a-b"),)),
         "input %a-b: name 'a-b' must be letters, digits and _, not starting with a digit"),
        (graph(ops=(relu(X, "y"), relu(X, "y"))), "requantize %y: %y is defined twice"),
        (graph(ops=(relu(X, "x"),)), "requantize %x: %x is defined twice"),
        (graph(ops=(relu(replace(X, name="w"), "y"),)), "requantize %y: reads %w, which is not defined before it"),
        (graph(ops=(relu(replace(X, qtype=QType(8, False)), "y"),)),
         "requantize %y: reads %x as another type or shape than it was defined with"),
        (graph(outputs=(replace(X, name="nix"),)), "output %nix: is never defined with this type and shape"),
        (graph(outputs=(replace(X, shape=(1, 3)),)), "output %x: is never defined with this type and shape"),
        (graph(outputs=(X, X)), "graph g: names an output twice"),
        (graph(states=(State(X, X, Z),)), "input %x: %x is defined twice"),
        (graph(states=(State(replace(X, name="h"), replace(X, name="k"), Z),)),
         "state %h: %k is never defined with this type and shape"),
        (graph(states=(State(replace(X, name="h"), X, Const.of("z", [0, 0], S8)),)),
         "state %h: its input, output and initial value must have one shape and type"),
        (graph(states=(State(replace(X, name="h", qtype=QType(7, True)), X, Z),)),
         "state %h: its input, output and initial value must have one shape and type"),
        (graph(states=(State(replace(X, name="h"), X, Const.of("x", [0, 0, 0], S8)),)), "state %h: %x is defined twice"),
        (graph(states=(State(replace(X, name="h"), X, Z), State(replace(X, name="k"), X, Const.of("z", [0, 0, 1], S8)))),
         "state %k: %z is defined twice"),
        (graph(states=(State(replace(X, name="h"), X, Const(Tensor("z", (3,), S8), b"12345678")),)),
         "const %z: holds 8 bytes, must be 24"),
        (graph(states=(State(replace(X, name="h"), X, replace(Const.of("z", [0, 99, 0], S8), tensor=Tensor("z", (3,), QType(4, True)))),)),
         "const %z: values 0..99 do not fit s4 (-8..7)"),
        (graph(ops=(ops.Reshape(Tensor("x", (), S8), Tensor("y", (1,), S8)),), inputs=(Tensor("x", (), S8),)),
         "input %x: shape [], must have at least one axis and no empty one"),
    ],
)  # fmt: skip
def test_each_rule_on_what_the_text_cannot_say(bad: Graph, error: str) -> None:
    with pytest.raises(GraphError, match=f"^{re.escape(error)}$"):
        check(bad)


def test_a_constant_may_be_shared_but_not_its_name() -> None:
    x = Tensor("x", (2,), S8)
    w = Const.of("w", [[1, 1]], S8)
    acc = QType(16, True)

    def dense(weight: Const, name: str) -> ops.Dense:
        return ops.Dense(x, Tensor(name, (1,), acc), weight, None)

    shared = Graph("g", (x,), (Tensor("b", (1,), acc),), (dense(w, "a"), dense(w, "b")))
    assert check(shared) is shared
    other = replace(shared, ops=(dense(w, "a"), dense(Const.of("w", [[1, 2]], S8), "b")))
    with pytest.raises(GraphError, match=r"^dense %b: %w is defined twice$"):
        check(other)
    named_as_data = replace(shared, ops=(dense(Const.of("x", [[1, 2]], S8), "a"), dense(w, "b")))
    with pytest.raises(GraphError, match=r"^dense %a: %x is defined twice$"):
        check(named_as_data)
    named_later = replace(shared, ops=(dense(Const.of("b", [[1, 2]], S8), "a"), dense(w, "b")))
    with pytest.raises(GraphError, match=r"^dense %b: %b is defined twice$"):
        check(named_later)


def test_the_builder_names_what_is_too_wide() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", (2,), QType(40, True))
    error = (
        f"multiply %y: values {-(1 << 78) + (1 << 39)}..{1 << 78} need 80 bits, at most 64; lower the bits before it"
    )
    with pytest.raises(GraphError, match=f"^{re.escape(error)}$"):
        b.multiply(x, x, "y")
    u = b.input("u", (2,), QType(32, False))
    error = f"multiply %u2: values 0..{((1 << 32) - 1) ** 2} need 64 bits, at most 64; lower the bits before it"
    with pytest.raises(GraphError, match=f"^{re.escape(error)}$"):
        b.multiply(u, u, "u2")


def test_sums_beyond_int64_are_told_exactly() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", (4,), QType(40, True))
    top = (1 << 30) - 1
    error = f"dense %y: values {-4 * top << 39}..{4 * top * ((1 << 39) - 1)} need 72 bits, at most 64; lower the bits before it"
    with pytest.raises(GraphError, match=f"^{re.escape(error)}$"):
        b.dense(x, b.const("w", [[top] * 4]), None, "y")


def test_the_builder_gives_each_value_its_own_legal_name() -> None:
    b = GraphBuilder("my model/2")
    assert b.name == "my_model_2"
    assert [b.fresh(n) for n in ("a", "A", "a", "1 b", "ü", "")] == ["a", "A_2", "a_3", "_1_b", "_", "__2"]
    assert identifier("0") == "_0"


def test_scale_up_keeps_the_real_values() -> None:
    b = GraphBuilder("up")
    x = b.input("x", (2,), QType(4, True, Fraction(1, 2), None, 3))
    y = b.scale_up(x, (3, 5), "y")
    assert y.qtype.scales == (Fraction(1, 6), Fraction(1, 10))
    assert b.range(y).channels(2) == ((-33, 12), (-55, 20))
    assert b.scale_up(y, 1, "same") is y


def test_random_graphs_pass() -> None:
    for seed in range(100, 160):
        found = random_graph(seed)
        assert check(found) is found
