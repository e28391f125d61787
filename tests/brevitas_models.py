"""Tiny Brevitas modules: every layer and quantizer that issue 3 names, with random weights and calibrated scales.

Its one rule: torch and Brevitas are imported when a module is built, so that a test can be skipped without them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import pytest

MISSING = [
    m for m in ("torch", "brevitas", "qonnx", "onnxruntime", "onnxoptimizer") if importlib.util.find_spec(m) is None
]
needs_brevitas = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")

INT, UINT = "Int8ActPerTensorFixedPoint", "Uint8ActPerTensorFixedPoint"
WEIGHT = "Int8WeightPerTensorFixedPoint"
BINARY_STATS = {"weight_quant_type": "binary", "weight_bit_width": 1, "weight_scaling_impl_type": "stats", "weight_scaling_stats_op": "ave"}  # fmt: skip


def quantizer(name: str) -> Any:
    """A quantizer of Brevitas by its name; its modules' __all__ leave some out."""
    import brevitas.quant as all_of_them
    from brevitas.quant import binary, fixed_point, scaled_int, shifted_scaled_int, ternary

    for module in (all_of_them, fixed_point, scaled_int, shifted_scaled_int, binary, ternary):
        if hasattr(module, name):
            return getattr(module, name)
    raise KeyError(name)


def quiet() -> Any:
    """Brevitas and torch warn of each other's deprecations."""
    warnings.simplefilter("ignore")
    import brevitas.nn as qnn
    import torch

    torch.set_num_threads(1)
    return qnn


def act(layer: str, quant: str | None = None, **more: Any) -> Any:
    qnn = quiet()
    chosen = {"act_quant": quantizer(quant)} if quant else {}
    return getattr(qnn, layer)(return_quant_tensor=True, **chosen, **more)


def identity(quant: str = INT, **more: Any) -> Any:
    return act("QuantIdentity", quant, **more)


def sequence(*layers: Any, shape: tuple[int, ...] = (4, 6, 6)) -> Any:
    """Layers one after another; the result may be a QuantTensor."""
    import torch

    made = torch.nn.Sequential(*layers)
    made.shape = shape
    return made


def linear(weight: str, act: str = INT, bias: str | None = None, floating: bool = False, acts: Any = None, **more: Any) -> Any:  # fmt: skip
    qnn = quiet()
    import torch

    layer = qnn.QuantLinear(
        12, 5, bias=bool(bias) or floating, weight_quant=quantizer(weight), bias_quant=quantizer(bias) if bias else None,
        return_quant_tensor=bool(bias), **more,
    )  # fmt: skip
    torch.nn.init.normal_(layer.weight, 0, 0.3)
    if layer.bias is not None:
        torch.nn.init.normal_(layer.bias, 0, 0.3)
    return sequence(identity(act, **(acts or {})), layer, shape=(12,))


def conv(weight: str, dim: int = 2, groups: int = 1, bias: str | None = None, **more: Any) -> Any:
    qnn = quiet()
    import torch

    kind = qnn.QuantConv2d if dim == 2 else qnn.QuantConv1d
    layer = kind(
        4, 8, 3, groups=groups, bias=bool(bias), weight_quant=quantizer(weight),
        bias_quant=quantizer(bias) if bias else None, return_quant_tensor=bool(bias), **more,
    )  # fmt: skip
    torch.nn.init.normal_(layer.weight, 0, 0.3)
    return sequence(identity(), layer, shape=(4, 6, 5)[: dim + 1])


def wired(function: Callable[..., Any], shape: tuple[int, ...] = (4, 6, 6), **parts: Any) -> Any:
    """A module whose forward is `function(module, x)`, with these children."""
    import torch

    class Wired(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape = shape
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Any) -> Any:
            return function(self, x)

    return Wired()


def network(weight: str = WEIGHT, first: str = INT, relu: str = UINT, bits: int = 4, scales: bool = True) -> Any:
    """Convolution, BatchNorm, pool, depthwise, residual, linear: one of each."""
    qnn = quiet()
    import torch
    from torch import nn

    w = {"weight_quant": quantizer(weight), "weight_bit_width": bits}
    head = qnn.QuantLinear(32, 3, bias=True, bias_quant=quantizer("Int16Bias"), **w)

    def forward(m: Any, x: Any) -> Any:
        a = m.pool(m.relu1(m.norm(m.conv(m.first(x)))))
        b = m.add(a, m.relu2(m.depthwise(a)))
        return m.head(b.flatten(1))

    made = wired(
        forward, first=identity(first), conv=qnn.QuantConv2d(4, 8, 3, bias=False, **w), norm=nn.BatchNorm2d(8),
        relu1=act("QuantReLU", relu, bit_width=bits), pool=nn.MaxPool2d(2),
        depthwise=qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, bias=False, **w),
        relu2=act("QuantReLU", relu, bit_width=bits),
        add=qnn.QuantEltwiseAdd(input_quant=quantizer(first), output_quant=quantizer(first), return_quant_tensor=True),
        head=head,
    )  # fmt: skip
    with torch.no_grad():
        made.norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.25, -1.0, 1.5, 0.75, 1.0]))
        made.norm.bias.normal_(0, 0.3)
    return made


def calibrated(build: Callable[[], Any], seed: int = 0) -> Any:
    """Built, and run in training mode, where its quantizers take their statistics; in eval mode."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        module.train()
        with torch.no_grad():
            for _ in range(12):
                module(torch.randn((16, *module.shape)))
    return module.eval()


def plain(value: Any) -> Any:
    """What a QuantTensor holds, as numpy."""
    return (value.value if hasattr(value, "scale") else value).detach().numpy()
