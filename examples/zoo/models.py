"""The zoo as a table: a name, the data, a network, its recipe and how it is trained.

Its one rule: a row says what it adds; together they use the quantizers that users of Brevitas use.
"""

from __future__ import annotations

from dataclasses import dataclass

import brevitas.nn as qnn
import networks as n
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Int16Bias,
    Int32Bias,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    Uint8ActPerTensorFixedPoint,
)
from networks import Recipe


@dataclass(frozen=True)
class Entry:
    data: str
    network: n.Network
    recipe: Recipe
    adds: str
    epochs: int = 20
    rate: float = 5e-3
    dynamo: bool = False


def po2(
    bits: int, *, norm: bool = False, bias: type | None = Int16Bias, weight: type = Int8WeightPerTensorFixedPoint
) -> Recipe:
    """All scales powers of two: Brevitas, ONNX and integers agree on every value."""
    act = Uint8ActPerTensorFixedPoint
    return Recipe(bits, weight, act, input=act, bias=None if norm else bias, norm=norm)


PIXELS = {"scaling_impl_type": "const", "scaling_init": 1.0}
BINARY = Recipe(1, SignedBinaryWeightPerTensorConst, SignedBinaryActPerTensorConst, qnn.QuantIdentity)

ZOO: dict[str, Entry] = {
    "digits_mlp_4": Entry("digits", n.mlp, po2(4), "power-of-two scales, 16-bit bias"),
    "digits_mlp_3_bn": Entry("digits", n.mlp, Recipe(3, norm=True), "float scales, BatchNorm"),
    "digits_cnn_8": Entry("digits", n.cnn, Recipe(8, bias=Int32Bias), "Brevitas' defaults: float scales; 32-bit bias"),
    "digits_cnn_4_bn": Entry(
        "digits", n.cnn, Recipe(4, Int8WeightPerChannelFloat, norm=True), "float scales per channel, BatchNorm"
    ),
    "digits_cnn_4_po2": Entry("digits", n.cnn, po2(4), "power-of-two scales, 16-bit bias"),
    "digits_cnn_1": Entry("digits", n.wide_cnn, BINARY, "binary weights and activations"),
    "motions_cnn_4_bn": Entry(
        "motions", n.motion_cnn, Recipe(4, input=Int8ActPerTensorFloat, norm=True), "1-D convolutions", 80
    ),
    "fashion_cnn_4_bn": Entry(
        "fashion", n.big_cnn, Recipe(4, Int8WeightPerChannelFloat, norm=True), "28x28, float scales per channel", 3
    ),
}
