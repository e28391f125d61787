"""The networks of the zoo, built of Brevitas layers from a Recipe: which quantizers, how many bits, with or without BatchNorm.

Its one rule: nothing here knows data or training. Every network but those called bare begins with a quantizer of its input,
so that the exported file itself says which integers go in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import brevitas.nn as qnn
from brevitas.core.function_wrapper import TensorClamp
from brevitas.inject.enum import QuantType, ScalingImplType, ScalingPerOutputType, StatsOp
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    RoundTo8bit,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn

CONST_BITS = (
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
)


class BinaryWeightPerChannelMean(SignedBinaryWeightPerTensorConst):
    """XNOR-Net's: plus or minus the mean magnitude of a channel's weights."""

    scaling_impl_type = ScalingImplType.STATS
    scaling_stats_op = StatsOp.AVE
    scaling_per_output_type = ScalingPerOutputType.CHANNEL
    scaling_min_val = 1e-10
    quant_type = QuantType.BINARY
    tensor_clamp_impl = TensorClamp


@dataclass(frozen=True)
class Recipe:
    """What a Brevitas user chooses. Quantizers that fix their own bits (binary, ternary) are given none."""

    bits: int = 8
    weight: type = Int8WeightPerTensorFloat
    act: type = Uint8ActPerTensorFloat
    act_layer: type = qnn.QuantReLU
    input: type | None = Uint8ActPerTensorFloat
    input_bits: int = 8
    input_options: dict[str, Any] = field(default_factory=dict)
    bias: type | None = None
    """A quantizer of the bias; None leaves it float."""
    trunc: type = RoundTo8bit
    """Of truncating average pools."""
    norm: bool = False
    """BatchNorm behind each hidden layer, which then has no bias of its own."""

    def weights(self, bits: int | None = None) -> dict[str, Any]:
        options: dict[str, Any] = {"weight_quant": self.weight, "bias_quant": self.bias}
        if not issubclass(self.weight, CONST_BITS):
            options["weight_bit_width"] = bits or self.bits
        return options

    def identity(self, quantizer: type, bits: int | None = None, **options: Any) -> nn.Module:
        if not issubclass(quantizer, CONST_BITS):
            options["bit_width"] = bits or self.bits
        return qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=True, **options)

    def first(self) -> list[nn.Module]:
        return [] if self.input is None else [self.identity(self.input, self.input_bits, **self.input_options)]

    def activation(self, **options: Any) -> nn.Module:
        if not issubclass(self.act, CONST_BITS):
            options["bit_width"] = self.bits
        return self.act_layer(act_quant=self.act, return_quant_tensor=True, **options)

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        return qnn.QuantLinear(inputs, outputs, bias=True, **self.weights())

    def hidden(self, inputs: int, outputs: int) -> list[nn.Module]:
        layer = qnn.QuantLinear(inputs, outputs, bias=not self.norm, **self.weights())
        return [layer, *([nn.BatchNorm1d(outputs)] if self.norm else []), self.activation()]

    def conv_norm(
        self, inputs: int, outputs: int, kernel: int = 3, *, one_d: bool = False, **options: Any
    ) -> list[nn.Module]:
        conv, norm = (qnn.QuantConv1d, nn.BatchNorm1d) if one_d else (qnn.QuantConv2d, nn.BatchNorm2d)
        options = {"padding": kernel // 2, **options}
        layer = conv(inputs, outputs, kernel, bias=not self.norm, **options, **self.weights())
        return [layer, *([norm(outputs)] if self.norm else [])]

    def conv(self, inputs: int, outputs: int, kernel: int = 3, **options: Any) -> list[nn.Module]:
        return [*self.conv_norm(inputs, outputs, kernel, **options), self.activation()]


Network = Callable[[Recipe], nn.Module]


class Lambda(nn.Module):
    """A function of the user's own forward()."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def mlp(recipe: Recipe) -> nn.Module:
    """64-32-32-10 on digits."""
    hidden = [*recipe.hidden(64, 32), *recipe.hidden(32, 32)]
    return nn.Sequential(nn.Flatten(), *recipe.first(), *hidden, recipe.linear(32, 10))


def cnn(recipe: Recipe) -> nn.Module:
    """Two convolutions of 8 and 16 channels and a dense layer on digits."""
    body = [*recipe.conv(1, 8), nn.MaxPool2d(2), *recipe.conv(8, 16), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def wide_cnn(recipe: Recipe) -> nn.Module:
    """What one bit needs on digits: 16 channels and strides, for the maximum of signs says little."""
    body = [*recipe.conv(1, 16), *recipe.conv(16, 32, stride=2), *recipe.conv(32, 32, padding=0)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(128, 10))


class Residual(nn.Module):
    """Two convolutions beside a shortcut; both branches on one grid, that of a shared quantizer within QuantEltwiseAdd."""

    def __init__(self, recipe: Recipe, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*recipe.conv(channels, channels), *recipe.conv_norm(channels, channels))
        signed = Int8ActPerTensorFixedPoint if recipe.act is Uint8ActPerTensorFixedPoint else Int8ActPerTensorFloat
        bits = {"input_bit_width": max(recipe.bits, 4) + 2, "output_bit_width": max(recipe.bits, 4) + 2}
        self.add = qnn.QuantEltwiseAdd(input_quant=signed, output_quant=signed, **bits, return_quant_tensor=True)
        self.act = recipe.activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.add(self.body(x), x))


class SharedResidual(nn.Module):
    """The same with a plain + behind one QuantIdentity that both branches go through."""

    def __init__(self, recipe: Recipe, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*recipe.conv(channels, channels), *recipe.conv_norm(channels, channels))
        signed = Int8ActPerTensorFixedPoint if recipe.act is Uint8ActPerTensorFixedPoint else Int8ActPerTensorFloat
        self.shared = recipe.identity(signed, 8)
        self.act = recipe.activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shared(self.body(x)) + self.shared(x))


def residual(recipe: Recipe, block: type = Residual) -> nn.Module:
    """A convolution, a residual block, a global average pool and a dense layer on digits."""
    body = [*recipe.conv(1, 8), block(recipe, 8), nn.MaxPool2d(2), *recipe.conv(8, 16), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def separable(recipe: Recipe, inputs: int, outputs: int, **options: Any) -> list[nn.Module]:
    return [*recipe.conv(inputs, inputs, 3, groups=inputs, **options), *recipe.conv(inputs, outputs, 1)]


def separable_cnn(recipe: Recipe) -> nn.Module:
    """A convolution and two depthwise separable blocks on digits, with an average over all positions."""
    body = [*recipe.conv(1, 8), *separable(recipe, 8, 16, stride=2), *separable(recipe, 16, 16)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), recipe.identity(recipe.act, 8), recipe.linear(16, 10)]
    return nn.Sequential(*recipe.first(), *body, *tail)


class Branches(nn.Module):
    """Two convolutions of one input, joined by QuantCat, whose input quantizer both share."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.small = nn.Sequential(*recipe.conv(8, 8, 1))
        self.large = nn.Sequential(*recipe.conv(8, 8, 3))
        self.cat = qnn.QuantCat(input_quant=recipe.act, input_bit_width=recipe.bits, return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cat([self.small(x), self.large(x)], dim=1)


def branching(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(1, 8, stride=2), Branches(recipe), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def averaging(recipe: Recipe) -> nn.Module:
    """The CNN with truncating average pools where Brevitas' integers are shifted, not divided."""

    def pool() -> nn.Module:
        return qnn.TruncAvgPool2d(2, trunc_quant=recipe.trunc, bit_width=recipe.bits, return_quant_tensor=True)

    body = [*recipe.conv(1, 8), pool(), *recipe.conv(8, 16), pool()]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def centred(recipe: Recipe) -> nn.Module:
    """As the networks of bnn_pynq: 2 x - 1 before the first quantizer, a Sub and a Mul on float pixels."""
    hidden = [*recipe.hidden(64, 32), *recipe.hidden(32, 32)]
    return nn.Sequential(nn.Flatten(), Centre(), *recipe.first(), *hidden, recipe.linear(32, 10))


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


def big_cnn(recipe: Recipe) -> nn.Module:
    """28x28: two strided convolutions, a third, and a dense layer."""
    body = [*recipe.conv(1, 8, stride=2), *recipe.conv(8, 16, stride=2), *recipe.conv(16, 16), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(144, 10))


def big_residual(recipe: Recipe, block: type = Residual) -> nn.Module:
    body = [*recipe.conv(1, 16, stride=2), nn.MaxPool2d(2), block(recipe, 16), block(recipe, 16)]
    return nn.Sequential(*recipe.first(), *body, nn.MaxPool2d(2), nn.Flatten(), recipe.linear(144, 10))


def big_separable(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(1, 16, stride=2), *separable(recipe, 16, 32, stride=2), *separable(recipe, 32, 32)]
    return nn.Sequential(*recipe.first(), *body, nn.MaxPool2d(2), nn.Flatten(), recipe.linear(288, 10))


def motion_cnn(recipe: Recipe) -> nn.Module:
    """Three 1-D convolutions over 100 steps of 6 channels."""
    body = [*recipe.conv(6, 16, 5, one_d=True, stride=2), *recipe.conv(16, 16, 5, one_d=True, stride=2)]
    body += [nn.MaxPool1d(5), nn.Flatten()]
    return nn.Sequential(*recipe.first(), *body, recipe.linear(80, 4))
