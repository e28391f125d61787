"""ONNX test models: quantizers of every mode, width, zero point and scale; Trunc, MultiThreshold, BipolarQuant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.onnx_net import INPUT_S8, MODES, QONNX, Case, Net, scales


def requantized(scale: Any, bits: int, zero: int, signed: int, narrow: int, mode: str | None, first: float) -> Any:
    """One quantizer after the input's: the input's steps fall on, beside and far outside its grid."""
    n = Net()
    x = n.quant(n.input(5), first, 8)
    return n.model(n.quant(x, scale, bits, zero, signed, narrow, mode))


def quantizers() -> Iterator[Case]:
    third = np.float32(0.3)
    for mode in MODES:
        for zero in (0, 3):
            for signed in (1, 0):
                name = f"quant-{mode}-zp{zero}-{'su'[1 - signed]}5"
                for kind, scale, first in (
                    ("po2", np.float32(0.5), 0.125),
                    ("float", third, third / 2),  # exactly twice: real ties at a float scale
                    ("apart", np.float32(0.37), 0.125),
                    ("channel", scales("channel", 0.5, 5, 1, 2), 0.125),
                    ("channel_po2", scales("channel_po2", 0.5, 5, 1, 2), 0.125),
                ):
                    yield Case(
                        f"{name}-{kind}",
                        lambda a=scale, f=first, m=mode, z=zero, s=signed: requantized(a, 5, z, s, 0, m, f),
                    )
    for bits in (*range(1, 17), 20, 24, 31, 32):
        for signed, narrow in ((1, 0), (1, 1), (0, 0), (0, 1)):
            if bits == 1 and (narrow or signed):
                continue  # one narrow value only; 1-bit signed is bipolar, below
            scale, first = 2.0 ** (5 - bits), 2.0**-2
            yield Case(
                f"quant-bits-{'su'[1 - signed]}{bits}{'-narrow' * narrow}",
                lambda a=scale, b=bits, s=signed, w=narrow, f=first: requantized(a, b, 0, s, w, "ROUND", f),
            )
    for zero in (-3, -128, 7, 127):
        yield Case(f"quant-zp{zero}", lambda z=zero: requantized(0.25, 8, z, 1, 0, "ROUND", 0.125))
    for zero in (1, 128, 255):
        yield Case(f"quant-u-zp{zero}", lambda z=zero: requantized(0.25, 8, z, 0, 0, "ROUND", 0.125))
    yield Case("quant-no-mode", lambda: requantized(0.25, 4, 0, 1, 0, None, 0.125))
    for bits in (1, 2, 3, 5, 12, 16):
        for signed in (0, 1):
            options = INPUT_S8 if bits == signed == 1 else None  # bipolar: the file does not say which integers
            yield Case(f"input-{'us'[signed]}{bits}", lambda b=bits, s=signed: only_input(b, s, 0.37), options)
    for zero in (-7, 3):
        yield Case(f"input-zp{zero}", lambda z=zero: only_input(4, 1, 0.5, z))
    yield Case("input-narrow", lambda: only_input(4, 1, 0.5, 0, 1))
    yield Case("bipolar-1bit-quant", lambda: bipolar_model("Quant", 0.5))
    yield Case("bipolar-1bit-quant-float", lambda: bipolar_model("Quant", 0.3))
    yield Case("bipolar", lambda: bipolar_model("BipolarQuant", 1.0))
    yield Case("bipolar-float", lambda: bipolar_model("BipolarQuant", 0.1))
    yield Case("bipolar-channel", lambda: bipolar_model("BipolarQuant", [[0.1, 0.5, 0.25, 0.7, 1.0]]))
    yield Case("bipolar-input", bipolar_input, INPUT_S8)
    yield Case("bipolar-weights", bipolar_weights)
    yield Case("quant-scale-per-row", scale_per_row)
    yield Case("intquant-name", lambda: named("IntQuant", QONNX, 2))
    yield Case("domain-brevitas", lambda: named("Quant", "onnx.brevitas", 1))
    yield Case("domain-finn", lambda: named("Quant", "finn.custom_op.general", 1))
    for version in (1, 2):
        for mode in ("FLOOR", "ROUND", "CEIL", "floor"):
            for zero in (0, 5 if version == 1 else 8):  # of version 2, a multiple of the truncated step
                yield Case(
                    f"trunc-v{version}-{mode}-zp{zero}", lambda v=version, m=mode, z=zero: trunc_model(v, m, 0.125, z)
                )
        yield Case(f"trunc-v{version}-float", lambda v=version: trunc_model(v, "FLOOR", 0.3, 0))
        yield Case(f"trunc-v{version}-pool", lambda v=version: trunc_pool(v))
    yield Case("trunc-v2-scale-off", lambda: trunc_model(2, "ROUND", 0.125, 0, 1.78))
    yield Case("trunc-v2-unsigned", lambda: trunc_model(2, "FLOOR", 0.125, 0, signed=0))
    yield Case("trunc-v2-narrow", lambda: trunc_model(2, "ROUND", 0.125, 0, narrow=1))
    for rank, layout in ((2, "NC"), (4, "NCHW"), (4, ""), (4, "NHWC"), (2, "")):
        for channels in ("one", "each"):
            yield Case(
                f"multithreshold-{layout or f'rank{rank}'}-{channels}",
                lambda r=rank, y=layout, c=channels: thresholds(r, y, c),
            )
    yield Case("multithreshold-bipolar", lambda: thresholds(2, "NC", "each", 1, 2.0, -1.0))
    yield Case("multithreshold-float-scale", lambda: thresholds(2, "NC", "each", 7, 0.3, -0.9))
    yield Case("multithreshold-255", lambda: thresholds(2, "NC", "each", 255, 1.0, 0.0))


def only_input(bits: int, signed: int, scale: float, zero: int = 0, narrow: int = 0) -> Any:
    n = Net()
    return n.model(n.add("MatMul", n.quant(n.input(5), scale, bits, zero, signed, narrow), n.weight((5, 3), 0.25)))


def bipolar_model(op: str, scale: Any) -> Any:
    n = Net()
    x = n.quant(n.input(5), 0.125, 5)
    if op == "Quant":
        return n.model(n.quant(x, scale, 1))
    return n.model(n.add(op, x, n.const(scale), domain=QONNX))


def scale_per_row() -> Any:
    """A scale along an axis that is no channel: of the image's rows."""
    n = Net(seed=2)
    x = n.quant(n.input(2, 3, 4), 0.125, 5)
    return n.model(n.quant(n.add("Relu", n.quant(x, np.array([[[[0.25], [0.3], [0.5]]]], np.float32), 4)), 0.5, 3))


def bipolar_input() -> Any:
    n = Net(seed=3)
    x = n.add("BipolarQuant", n.input(6), n.const(0.5), domain=QONNX)
    y = n.add("MatMul", x, n.weight((6, 4), 0.25))
    return n.model(n.quant(y, 0.5, 3))


def bipolar_weights() -> Any:
    n = Net(seed=4)
    x = n.quant(n.input(6), 0.25, 4)
    w = n.add("BipolarQuant", n.const(n.floats(4, 6)), n.const(0.1), domain=QONNX)
    y = n.add("MatMul", x, n.add("Transpose", w, perm=[1, 0]))
    return n.model(n.quant(y, 0.3, 5))


def named(op: str, domain: str, version: int) -> Any:
    n = Net(domain=domain, version=version)
    y = n.add("MatMul", n.quant(n.input(5), 0.25, op=op), n.weight((5, 3), 0.25, op=op))
    return n.model(n.quant(y, 0.5, 4, op=op))


def trunc_node(n: Net, x: str, scale: float, zero: int, bits: tuple[int, int], out: float, **attributes: Any) -> str:
    if n.version == 1:
        attributes = {"rounding_mode": attributes["rounding_mode"]}
        return str(n.add("Trunc", x, *map(n.const, (scale, zero, bits[0], bits[1])), domain=n.domain, **attributes))
    given = (scale, zero, bits[0], out, bits[1])
    return str(n.add("Trunc", x, *map(n.const, given), domain=n.domain, **attributes))


def trunc_model(
    version: int, mode: str, scale: float, zero: int, off: float = 1.0, signed: int = 1, narrow: int = 0
) -> Any:
    n = Net(version=version)
    x = n.quant(n.input(5), scale, 8, zero)
    s = float(np.float32(scale))
    return n.model(trunc_node(n, x, s, zero, (8, 4), s * 8 * off, rounding_mode=mode, signed=signed, narrow=narrow))


def trunc_pool(version: int) -> Any:
    """Brevitas' TruncAvgPool2d with a 2x2 window."""
    n = Net(version=version, seed=5)
    x = n.quant(n.input(3, 4, 6), 0.125, 4, signed=0)
    x = n.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    return n.model(trunc_node(n, x, 0.125 / 4, 0, (6, 4), 0.125, rounding_mode="floor", signed=0, narrow=0))


def thresholds(rank: int, layout: str, channels: str, steps: int = 7, scale: float = 1.0, bias: float = 0.0) -> Any:
    n = Net(seed=6)
    shape = {"NC": (5,), "NCHW": (5, 3, 4), "NHWC": (5, 3, 4), "": (5,) if rank == 2 else (5, 3, 4)}[layout]
    count = {"one": 1, "each": shape[-1] if layout == "NHWC" else 5}[channels]
    x = n.quant(n.input(*shape), 0.125, 8)
    t = np.sort(np.round(n.rng.uniform(-120, 120, (count, steps))) / 8, axis=1)
    attributes = {"data_layout": layout} if layout else {}
    kind = "BIPOLAR" if steps == 1 else "UINT8"
    y = n.add(
        "MultiThreshold", x, n.const(t), domain=QONNX, out_dtype=kind, out_scale=scale, out_bias=bias, **attributes
    )
    return n.model(y)
