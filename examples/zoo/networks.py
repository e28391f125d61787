"""The networks of the zoo, built of Brevitas layers from a Recipe: which quantizers, how many bits, with or without BatchNorm.

Its one rule: nothing here knows data or training. Every network whose recipe has an `input` begins with a quantizer of its
input, so that the exported file itself says which integers go in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    RoundTo8bit,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class Recipe:
    """What a user of Brevitas chooses."""

    bits: int = 8
    """Of weights and activations alike, but for the quantizers that fix their own."""
    weight: type = Int8WeightPerTensorFloat
    act: type = Uint8ActPerTensorFloat
    act_layer: type = qnn.QuantReLU
    act_options: dict[str, Any] = field(default_factory=dict)
    act_per_channel: bool = False
    """Before depthwise convolutions one scale per channel, as in Brevitas' MobileNet."""
    input: type | None = Uint8ActPerTensorFloat
    input_options: dict[str, Any] = field(default_factory=dict)
    bias: type | None = None
    """A quantizer of the bias; None leaves it float."""
    norm: bool = False
    """BatchNorm behind each hidden layer, which then has no bias of its own."""
    trunc: type = RoundTo8bit
    """Of truncating average pools."""

    @property
    def signed_act(self) -> type:
        """The signed quantizer of the same kind of scales."""
        return Int8ActPerTensorFixedPoint if self.act is Uint8ActPerTensorFixedPoint else Int8ActPerTensorFloat

    def bit_width(self, quantizer: type, name: str, bits: int) -> dict[str, int]:
        """Binary and ternary quantizers with constant scales are told no bits."""
        return {} if quantizer.__name__.startswith(("SignedBinary", "SignedTernary")) else {name: bits}

    def weights(self) -> dict[str, Any]:
        bits = self.bit_width(self.weight, "weight_bit_width", self.bits)
        return {"weight_quant": self.weight, "bias_quant": self.bias, **bits}

    def identity(self, quantizer: type, bits: int, **options: Any) -> nn.Module:
        options = {**self.bit_width(quantizer, "bit_width", bits), **options}
        return qnn.QuantIdentity(act_quant=quantizer, return_quant_tensor=True, **options)

    def first(self) -> list[nn.Module]:
        return [] if self.input is None else [self.identity(self.input, 8, **self.input_options)]

    def activation(self, channels: int | None = None) -> nn.Module:
        options = {**self.bit_width(self.act, "bit_width", self.bits), **self.act_options}
        if channels is not None:
            options |= {"per_channel_broadcastable_shape": (1, channels, 1, 1), "scaling_per_output_channel": True}
            options |= {"scaling_stats_permute_dims": (1, 0, 2, 3)}
        return self.act_layer(act_quant=self.act, return_quant_tensor=True, **options)

    def linear(self, inputs: int, outputs: int) -> nn.Module:
        return qnn.QuantLinear(inputs, outputs, bias=True, **self.weights())

    def hidden(self, inputs: int, outputs: int) -> list[nn.Module]:
        layer = qnn.QuantLinear(inputs, outputs, bias=not self.norm, **self.weights())
        return [layer, *([nn.BatchNorm1d(outputs)] if self.norm else []), self.activation()]

    def sums(self, inputs: int, outputs: int, kernel: int = 3, *, axes: int = 2, **options: Any) -> list[nn.Module]:
        """A convolution with its BatchNorm, not yet quantized."""
        conv, norm = ((qnn.QuantConv1d, nn.BatchNorm1d), (qnn.QuantConv2d, nn.BatchNorm2d))[axes - 1]
        options = {"padding": kernel // 2, **options, **self.weights()}
        layer = conv(inputs, outputs, kernel, bias=not self.norm, **options)
        return [layer, *([norm(outputs)] if self.norm else [])]

    def conv(
        self, inputs: int, outputs: int, kernel: int = 3, *, wide: bool = False, **options: Any
    ) -> list[nn.Module]:
        """`wide`: what comes next is depthwise, and may have one scale per channel."""
        channels = outputs if wide and self.act_per_channel else None
        return [*self.sums(inputs, outputs, kernel, **options), self.activation(channels)]

    def separable(self, inputs: int, outputs: int, *, wide: bool = False, **options: Any) -> list[nn.Module]:
        axes = {"axes": options.get("axes", 2)}
        return [*self.conv(inputs, inputs, groups=inputs, **options), *self.conv(inputs, outputs, 1, wide=wide, **axes)]


Network = Callable[[Recipe], nn.Module]


class QuantLeakyReLU(nn.Sequential):
    """What users write for want of it in Brevitas."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.LeakyReLU(0.125), qnn.QuantIdentity(**options))


class Residual(nn.Module):
    """Two convolutions beside a shortcut; QuantEltwiseAdd quantizes both branches to one grid and their sum again.

    Where channels or positions change, the shortcut is a 1x1 convolution, as in a ResNet.
    """

    def __init__(self, recipe: Recipe, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*recipe.conv(inputs, outputs, stride=stride), *recipe.sums(outputs, outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else recipe.sums(inputs, outputs, 1, stride=stride)))
        self.join(recipe)

    def join(self, recipe: Recipe) -> None:
        kind = {"input_quant": recipe.signed_act, "output_quant": recipe.signed_act}
        bits = {"input_bit_width": recipe.bits + 1, "output_bit_width": recipe.bits + 2}
        self.add = qnn.QuantEltwiseAdd(**kind, **bits, return_quant_tensor=True)
        self.act = recipe.activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.add(self.body(x), self.shortcut(x)))


class SharedResidual(Residual):
    """The same with a plain + behind one QuantIdentity that both branches go through."""

    def join(self, recipe: Recipe) -> None:
        self.shared = recipe.identity(recipe.signed_act, 8)
        self.act = recipe.activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shared(self.body(x)) + self.shared(self.shortcut(x)))


class Branches(nn.Module):
    """Two convolutions of one input, both through one quantizer and then joined.

    Brevitas has QuantCat for it, which fails in 0.13.4 (it calls QuantTensor.cat, which is gone); torch.cat takes the same.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.small = nn.Sequential(*recipe.sums(8, 8, 1))
        self.large = nn.Sequential(*recipe.sums(8, 8, 3))
        self.act = recipe.activation()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.act(self.small(x)), self.act(self.large(x))], dim=1)


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2.0 * x - 1.0


class View(nn.Module):
    """The flattening that many write in forward(); a Reshape in the file, where nn.Flatten is a Flatten."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.reshape(x, (x.shape[0], -1))


def mlp(recipe: Recipe) -> nn.Module:
    hidden = [*recipe.hidden(64, 32), *recipe.hidden(32, 32)]
    return nn.Sequential(nn.Flatten(), *recipe.first(), *hidden, recipe.linear(32, 10))


def centred_mlp(recipe: Recipe) -> nn.Module:
    """As the networks of bnn_pynq: 2 x - 1 of the pixels before the first quantizer, in float."""
    hidden = [*recipe.hidden(64, 32), *recipe.hidden(32, 32)]
    return nn.Sequential(View(), Centre(), *recipe.first(), *hidden, recipe.linear(32, 10))


def cnn(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(1, 8), nn.MaxPool2d(2), *recipe.conv(8, 16), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def wide_cnn(recipe: Recipe) -> nn.Module:
    """What one bit needs on digits: more channels, and strides, for the maximum of signs says little."""
    body = [*recipe.conv(1, 16), *recipe.conv(16, 32, stride=2), *recipe.conv(32, 32, padding=0)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(128, 10))


def averaging_cnn(recipe: Recipe) -> nn.Module:
    """The CNN with truncating average pools, whose integers are shifted where others divide."""

    def pool() -> nn.Module:
        return qnn.TruncAvgPool2d(2, trunc_quant=recipe.trunc, bit_width=recipe.bits)

    body = [*recipe.conv(1, 8), pool(), *recipe.conv(8, 16), pool()]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def branching_cnn(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(1, 8, stride=2), Branches(recipe), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def residual_cnn(recipe: Recipe, block: type[Residual] = Residual) -> nn.Module:
    body = [*recipe.conv(1, 8), block(recipe, 8, 8), nn.MaxPool2d(2), block(recipe, 8, 16, 2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(64, 10))


def shared_residual_cnn(recipe: Recipe) -> nn.Module:
    return residual_cnn(recipe, SharedResidual)


def separable_cnn(recipe: Recipe) -> nn.Module:
    """A convolution, two depthwise separable blocks, and the average of all positions, quantized again."""
    blocks = [*recipe.separable(8, 16, wide=True, stride=2), *recipe.separable(16, 32)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), recipe.identity(recipe.act, 8), recipe.linear(32, 10)]
    return nn.Sequential(*recipe.first(), *recipe.conv(1, 8, wide=True), *blocks, *tail)


def fashion_cnn(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(1, 8, stride=2), *recipe.conv(8, 16, stride=2), *recipe.conv(16, 16), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, View(), recipe.linear(144, 10))


def fashion_residual(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(1, 8, stride=2), Residual(recipe, 8, 8), Residual(recipe, 8, 16, 2), nn.MaxPool2d(2)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(144, 10))


def fashion_separable(recipe: Recipe) -> nn.Module:
    blocks = [*recipe.separable(16, 32, wide=True, stride=2), *recipe.separable(32, 32), nn.MaxPool2d(2)]
    body = [*recipe.conv(1, 16, wide=True, stride=2), *blocks, nn.Flatten()]
    return nn.Sequential(*recipe.first(), *body, recipe.linear(288, 10))


def motion_cnn(recipe: Recipe) -> nn.Module:
    """1-D convolutions over 100 steps of 6 channels."""
    body = [*recipe.conv(6, 16, 5, axes=1, stride=2), *recipe.conv(16, 16, 5, axes=1, stride=2), nn.MaxPool1d(5)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(80, 4))


def motion_separable(recipe: Recipe) -> nn.Module:
    body = [*recipe.conv(6, 16, 5, axes=1, stride=2), *recipe.separable(16, 16, axes=1, stride=2), nn.MaxPool1d(5)]
    return nn.Sequential(*recipe.first(), *body, nn.Flatten(), recipe.linear(80, 4))
