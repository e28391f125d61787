"""The zoo as a table: a name, the data, a network, its recipe and how it is trained.

Its one rule: each row says what it adds. Together they use the quantizers that users of Brevitas use: scales learned, from
statistics, constant, powers of two, per tensor and per channel; binary, ternary, asymmetric; bias float and quantized.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import brevitas.nn as qnn
import networks as n
from brevitas.inject.enum import QuantType, RestrictValueType, ScalingImplType, ScalingPerOutputType, StatsOp
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    Int16Bias,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    TruncTo8bit,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.fixed_point import Int8WeightPerChannelFixedPoint
from brevitas.quant.solver import WeightQuantSolver
from networks import Recipe


class LearnedWeight(Int8WeightPerTensorFloat):
    """A scale that starts at the statistics of the weights and is then learned."""

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS


class MeanBinaryWeight(WeightQuantSolver):
    """XNOR-Net's: plus or minus the mean magnitude of each channel's weights."""

    quant_type = QuantType.BINARY
    scaling_impl_type = ScalingImplType.STATS
    scaling_stats_op = StatsOp.AVE
    scaling_per_output_type = ScalingPerOutputType.CHANNEL
    restrict_scaling_type = RestrictValueType.FP
    scaling_min_val = 1e-10
    signed = True
    narrow_range = True


@dataclass(frozen=True)
class Entry:
    data: str
    network: n.Network
    recipe: Recipe
    adds: str
    epochs: int = 15
    rate: float = 5e-3
    sharpen: float = 1.0
    """The loss is of the logits times this: constant scales of the weights would keep them too close to each other."""
    dynamo: bool = False
    external: bool = False
    """Weights in a file of their own, which is what the dynamo exporter does if not told otherwise."""

    @property
    def bits(self) -> str:
        """Of weights / activations."""
        weight, act = self.recipe.weight.__name__, self.recipe.act.__name__
        weights = "1" if "Binary" in weight else "ternary" if "Ternary" in weight else str(self.recipe.bits)
        acts = "1" if "Binary" in act else "ternary" if "Ternary" in act else str(self.recipe.bits)
        return f"{weights} / {acts}"


def po2(bits: int, weight: type = Int8WeightPerTensorFixedPoint, **options: Any) -> Recipe:
    """All scales powers of two, a 16-bit bias: Brevitas, ONNX and integers agree on every value."""
    act = Uint8ActPerTensorFixedPoint
    return Recipe(bits, weight, act, **{"input": act, "bias": None if options.get("norm") else Int16Bias, **options})


def signed(layer: type, **options: Any) -> Recipe:
    """Activations of both signs."""
    return Recipe(4, act=Int8ActPerTensorFloat, act_layer=layer, act_options=options)


PIXELS = {"bit_width": 5, "scaling_impl_type": "const", "scaling_init": 2.0}
"""Just the integers 0..16 of digits: a constant scale of 2 / 2**5."""
CHANNELS = Int8WeightPerChannelFloat
BINARY = Recipe(1, SignedBinaryWeightPerTensorConst, SignedBinaryActPerTensorConst, qnn.QuantIdentity)
TERNARY = Recipe(2, SignedTernaryWeightPerTensorConst, SignedTernaryActPerTensorConst, qnn.QuantIdentity, norm=True)
TERNARY_4 = Recipe(4, SignedTernaryWeightPerTensorConst)
SHIFTED = Recipe(4, CHANNELS, ShiftedUint8ActPerTensorFloat, n.QuantLeakyReLU)
MOTION = Recipe(4, CHANNELS, input=Int8ActPerTensorFloat, norm=True)
CENTRED = Recipe(2, norm=True, input=Int8ActPerTensorFloat, input_options={"bit_width": 2})


def digits(network: n.Network, recipe: Recipe, adds: str, **options: Any) -> Entry:
    return Entry("digits", network, recipe, adds, **options)


def fashion(network: n.Network, recipe: Recipe, adds: str, **options: Any) -> Entry:
    return Entry("fashion", network, recipe, adds, **{"epochs": 4, **options})


def motions(network: n.Network, recipe: Recipe, adds: str, **options: Any) -> Entry:
    return Entry("motions", network, recipe, adds, **{"epochs": 80, **options})


ZOO: dict[str, Entry] = {
    "digits_mlp_1": digits(n.mlp, BINARY, "binary, constant scale", epochs=40, rate=1e-2, sharpen=10),
    "digits_mlp_1_bn": digits(n.mlp, replace(BINARY, norm=True), "binary, BatchNorm", epochs=40, rate=1e-2),
    "digits_mlp_t": digits(n.mlp, TERNARY_4, "ternary weights of constant scale", sharpen=30),
    "digits_mlp_t_bn": digits(n.mlp, TERNARY, "ternary weights and activations", epochs=25),
    "digits_mlp_2": digits(n.mlp, Recipe(2), "float scales, float bias"),
    "digits_mlp_2_bn": digits(n.mlp, po2(2, norm=True), "power-of-two scales, BatchNorm"),
    "digits_mlp_3": digits(n.mlp, po2(3, Int8WeightPerChannelFixedPoint), "power-of-two scales per channel"),
    "digits_mlp_3_bn": digits(n.mlp, Recipe(3, norm=True), "float scales, BatchNorm"),
    "digits_mlp_4": digits(n.mlp, po2(4), "power-of-two scales, 16-bit bias"),
    "digits_mlp_4_bn": digits(n.mlp, Recipe(4, CHANNELS, norm=True), "float scales per channel; dynamo", dynamo=True),
    "digits_mlp_8": digits(
        n.mlp, Recipe(8, bias=Int32Bias), "32-bit bias; dynamo, external data", dynamo=True, external=True
    ),
    "digits_mlp_8_bn": digits(n.mlp, po2(8, norm=True), "power-of-two scales, BatchNorm"),
    "digits_cnn_1": digits(n.wide_cnn, BINARY, "binary, constant scale, float bias", epochs=25),
    "digits_cnn_1_bn": digits(n.wide_cnn, replace(BINARY, weight=MeanBinaryWeight, norm=True), "XNOR-Net", epochs=25),
    "digits_cnn_t": digits(n.cnn, TERNARY_4, "ternary weights of constant scale", sharpen=30),
    "digits_cnn_t_bn": digits(n.wide_cnn, TERNARY, "ternary weights and activations", epochs=25),
    "digits_cnn_2": digits(n.cnn, Recipe(2, CHANNELS), "float scales per channel, float bias", epochs=25),
    "digits_cnn_2_bn": digits(n.cnn, Recipe(2, norm=True), "float scales, BatchNorm"),
    "digits_cnn_3": digits(n.cnn, Recipe(3, LearnedWeight, bias=Int16Bias), "learned scale of the weights"),
    "digits_cnn_3_bn": digits(n.cnn, po2(3, norm=True), "power-of-two scales, BatchNorm"),
    "digits_cnn_4": digits(n.cnn, Recipe(4, bias=Int16Bias), "float scales, 16-bit bias"),
    "digits_cnn_4_bn": digits(n.cnn, Recipe(4, CHANNELS, norm=True), "float scales per channel, BatchNorm"),
    "digits_cnn_4_po2": digits(n.cnn, po2(4, input_options=PIXELS), "power-of-two scales, input of constant scale"),
    "digits_cnn_8": digits(n.cnn, Recipe(8, bias=Int32Bias), "Brevitas' defaults: float scales; 32-bit bias"),
    "digits_cnn_8_bn": digits(n.cnn, Recipe(8, norm=True), "Brevitas' defaults, BatchNorm; dynamo", dynamo=True),
    "digits_res_4": digits(n.residual_cnn, po2(4), "QuantEltwiseAdd, power-of-two scales"),
    "digits_res_4_bn": digits(n.shared_residual_cnn, Recipe(4, norm=True), "+ behind a shared quantizer, float scales"),
    "digits_dw_4_bn": digits(n.separable_cnn, Recipe(4, CHANNELS, norm=True), "depthwise, AdaptiveAvgPool2d"),
    "digits_dw_8_bn": digits(
        n.separable_cnn, po2(8, Int8WeightPerChannelFixedPoint, norm=True), "depthwise, power-of-two scales"
    ),
    "digits_cat_4": digits(n.branching_cnn, Recipe(4, bias=Int32Bias), "torch.cat behind a shared quantizer"),
    "digits_avg_4": digits(n.averaging_cnn, po2(4), "TruncAvgPool2d that rounds, power-of-two scales", epochs=25),
    "digits_avg_5": digits(
        n.averaging_cnn, Recipe(5, trunc=TruncTo8bit), "TruncAvgPool2d that floors, float scales", epochs=25
    ),
    "digits_hardtanh_4": digits(n.mlp, signed(qnn.QuantHardTanh, min_val=-1.0, max_val=1.0), "QuantHardTanh"),
    "digits_tanh_4": digits(n.mlp, signed(qnn.QuantTanh), "QuantTanh"),
    "digits_sigmoid_4": digits(n.cnn, replace(Recipe(4), act_layer=qnn.QuantSigmoid), "QuantSigmoid"),
    "digits_shifted_4": digits(n.cnn, SHIFTED, "LeakyReLU, activations with a zero point"),
    "digits_shifted_w": digits(n.mlp, Recipe(4, ShiftedUint8WeightPerTensorFloat), "weights with a zero point"),
    "digits_bare_4": digits(n.cnn, replace(po2(4, norm=True), input=None), "no quantizer of the input: u8, 1/16"),
    "digits_centred_2": digits(n.centred_mlp, CENTRED, "2 x - 1 before the first quantizer"),
    "fashion_cnn_4_bn": fashion(n.fashion_cnn, Recipe(4, CHANNELS, norm=True), "float scales per channel, BatchNorm"),
    "fashion_cnn_8": fashion(n.fashion_cnn, po2(8), "power-of-two scales, 16-bit bias"),
    "fashion_bare_4": fashion(n.fashion_cnn, Recipe(4, input=None, norm=True), "no quantizer of the input: u8, 1/255"),
    "fashion_res_4_bn": fashion(n.fashion_residual, Recipe(4, CHANNELS, norm=True), "two blocks, one with a shortcut"),
    "fashion_dw_4_bn": fashion(
        n.fashion_separable, Recipe(4, CHANNELS, act_per_channel=True, norm=True), "depthwise, activations per channel"
    ),
    "motions_cnn_4_bn": motions(n.motion_cnn, MOTION, "1-D convolutions, float scales"),
    "motions_cnn_8": motions(n.motion_cnn, po2(8, input=Int8ActPerTensorFixedPoint), "power-of-two scales"),
    "motions_dw_3_bn": motions(n.motion_separable, replace(MOTION, bits=3), "1-D depthwise; dynamo", dynamo=True),
}
