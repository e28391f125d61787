"""Random whole networks as ONNX models: a seed decides all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from tests.onnx_net import MODES, Net, qdq, scales


def random_model(seed: int) -> Any:
    """A whole network: MLP, CNN, 1-D CNN, with residuals; 3 to 10 layers of any kind, any scales. The seed decides all."""
    n = Net(int(np.random.default_rng(seed).choice([9, 11, 13, 17, 21])), seed)
    rng = n.rng
    kind = rng.choice(["mlp", "cnn", "cnn1d", "residual"])
    pick = Picker(n)
    shape: tuple[int, ...] = (int(rng.integers(3, 9)),)
    if kind == "cnn1d":
        shape = (int(rng.integers(1, 4)), int(rng.integers(6, 12)))
    elif kind != "mlp":
        shape = (int(rng.integers(1, 4)), int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    x = pick.quant(n.input(*shape), shape, first=True)
    for _ in range(int(rng.integers(1, 4))):
        x, shape = pick.block(x, shape, residual=kind == "residual")
    if len(shape) > 1:
        x, shape = pick.head(x, shape)
    x, shape = pick.dense(x, shape)
    if pick.chance(0.7):
        x = pick.quant(pick.between(x, shape) if pick.chance(0.3) else x, shape)
    return n.model(x)


@dataclass
class Picker:
    """Random layers with random numbers in them; scales fit what the oracle finds, so that values stay alive."""

    n: Net

    def chance(self, p: float) -> bool:
        return bool(self.n.rng.random() < p)

    def step(self, base: float, channels: int = 1, axis: int = 0, rank: int = 1) -> Any:
        kinds = ["po2", "po2", "float", "channel", "channel_po2"] if channels > 1 else ["po2", "float"]
        return scales(str(self.n.rng.choice(kinds)), base, channels, axis, rank)

    def size_of(self, x: str) -> float:
        """The largest magnitude of a tensor on a few samples."""
        from tests.onnx_exact import Interpreter

        domains = [helper.make_opsetid("", self.n.opset), helper.make_opsetid(self.n.domain, self.n.version)]
        out = [helper.make_empty_tensor_value_info(x)]
        graph = helper.make_graph(self.n.nodes, "part", self.n.inputs, out, self.n.constants)
        dims = [d.dim_value for d in self.n.inputs[0].type.tensor_type.shape.dim]
        given = np.random.default_rng(0).normal(0, 1, (3, *dims[1:])).astype(np.float32)
        found = Interpreter(helper.make_model(graph, opset_imports=domains)).run_batch({self.n.inputs[0].name: given})
        return max(float(abs(v)) for v in found[x].flat)

    def quant(self, x: str, shape: tuple[int, ...], first: bool = False) -> str:
        rng = self.n.rng
        bits = int(rng.integers(2, 7))
        size = 2.0 if first else self.size_of(x)
        base = 2.0 ** round(np.log2((size or 1.0) / 2 ** (bits - 1)) + rng.uniform(-0.9, 0.4))
        signed = int(rng.random() < 0.7)
        zero = int(rng.integers(-2, 3)) if signed else int(rng.integers(0, 3))
        zero = zero if self.chance(0.25) and bits > 3 else 0
        if not signed:
            base /= 2
        if self.n.opset >= 13 and self.chance(0.15):
            dtype = np.int8 if signed else np.uint8
            low = -(2 ** (bits - 1)) if signed else 0
            return qdq(self.n, x, float(self.step(base)), zero, dtype, (low, low + 2**bits - 1))
        if not first and self.chance(0.06):
            return str(self.n.add("BipolarQuant", x, self.n.const(base), domain=self.n.domain))
        mode = str(rng.choice(MODES)) if self.chance(0.3) and not first else "ROUND"
        scale = self.step(base) if first or self.chance(0.8) else self.step(base, shape[0], 1, len(shape) + 1)
        return self.n.quant(x, scale, bits, zero, signed, int(self.chance(0.2)) if not first else 0, mode)

    def block(self, x: str, shape: tuple[int, ...], residual: bool) -> tuple[str, tuple[int, ...]]:
        n = self.n
        before, old = x, shape
        if len(shape) == 1:
            x, shape = self.dense(x, shape, old[0] if residual else 0)
        else:
            x, shape = self.conv(x, shape, same=residual)
        x = self.quant(self.between(x, shape), shape)
        if residual and shape == old:
            op = str(n.rng.choice(["Add", "Add", "Sub", "Mul"]))
            return self.quant(n.add(op, *((x, before) if self.chance(0.5) else (before, x))), shape), shape
        if len(shape) > 1:
            return self.moved(x, shape)
        return x, shape

    def moved(self, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """Pools, concatenation, padding, enlarging; or nothing."""
        n, dims, more = self.n, len(shape) - 1, []
        if min(shape[1:]) >= 4:
            more += ["MaxPool", "AveragePool"]
        match str(n.rng.choice(["none", "none", "Concat", "Pad", "Upsample", *more, *more])):
            case "Concat":
                other = self.quant(n.add("Relu", x), shape)
                x = n.add("Concat", x, other, axis=1)
                shape = (2 * shape[0], *shape[1:])
                return self.quant(x, shape) if self.chance(0.8) else x, shape
            case "Pad":
                pads = [0, 0, *[1] * dims, 0, 0, *[0] * dims]
                x = n.add("Pad", x, pads=pads) if n.opset < 11 else n.add("Pad", x, n.const(pads, np.int64))
                return x, (shape[0], *(s + 1 for s in shape[1:]))
            case "Upsample" if max(shape[1:]) < 6:
                how = n.const([1.0, 1.0, *[2.0] * dims])
                if n.opset < 10:
                    x = n.add("Upsample", x, how, mode="nearest")
                else:
                    x = n.add("Resize", x, *([] if n.opset < 11 else [n.const([])]), how, mode="nearest")
                return x, (shape[0], *(2 * s for s in shape[1:]))
            case ("MaxPool" | "AveragePool") as op:
                pads = [int(n.rng.integers(0, 2)) for _ in range(2 * dims)] if self.chance(0.3) else [0] * 2 * dims
                include = {"count_include_pad": int(n.rng.integers(0, 2))} if op == "AveragePool" else {}
                x = n.add(op, x, kernel_shape=[2] * dims, strides=[2] * dims, pads=pads, **include)
                shape = (shape[0], *((s + pads[i] + pads[i + dims]) // 2 for i, s in enumerate(shape[1:])))
                return self.quant(x, shape) if op == "AveragePool" or self.chance(0.2) else x, shape
        return x, shape

    def head(self, x: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """From an image to a row, in the order of the file or in another."""
        n = self.n
        if self.chance(0.3):
            op = str(n.rng.choice(["GlobalAveragePool", "GlobalMaxPool"]))
            x, shape = n.add(op, x), (shape[0], *[1] * (len(shape) - 1))
            x = self.quant(x, shape) if op == "GlobalAveragePool" else x
        if self.chance(0.2):
            x = n.add("Transpose", x, perm=[0, *range(len(shape), 0, -1)])
        x = n.add("Flatten", x) if self.chance(0.5) else n.add("Reshape", x, n.const([1, -1], np.int64))
        return x, (int(np.prod(shape)),)

    def dense(self, x: str, shape: tuple[int, ...], out: int = 0) -> tuple[str, tuple[int, ...]]:
        n, rng = self.n, self.n.rng
        out = out or int(rng.integers(2, 7))
        bits = int(rng.integers(2, 6))
        base = 2.0 ** (1 - bits)
        if self.chance(0.5):
            y = n.add("MatMul", x, n.weight((shape[0], out), self.step(base, out, 1, 2), bits))
        else:
            parts = [x, n.weight((out, shape[0]), self.step(base, out, 0, 2), bits)]
            parts += [n.const(n.floats(out))] if self.chance(0.6) or n.opset < 11 else []
            y = n.add("Gemm", *parts, transB=1)
        return y, (out,)

    def conv(self, x: str, shape: tuple[int, ...], same: bool) -> tuple[str, tuple[int, ...]]:
        n, rng = self.n, self.n.rng
        dims = len(shape) - 1
        kernel = [1 + 2 * int(rng.integers(0, 2)) if same else min(int(rng.integers(1, 4)), s) for s in shape[1:]]
        pads = [int(rng.integers(0, 2)) if k > 1 else 0 for k in kernel * 2]
        pads = [(k - 1) // 2 for k in kernel] * 2 if same else pads
        strides = [1] * dims if same else [int(rng.integers(1, 3)) for _ in range(dims)]
        depthwise = self.chance(0.3)
        out = shape[0] if same or depthwise else int(rng.integers(2, 6))
        bits = int(rng.integers(2, 5))
        scale = self.step(2.0 ** (1 - bits), out, 0, dims + 2)
        parts = [x, n.weight((out, 1 if depthwise else shape[0], *kernel), scale, bits)]
        parts += [n.const(n.floats(out))] if self.chance(0.4) else []
        y = n.add("Conv", *parts, pads=pads, strides=strides, group=shape[0] if depthwise else 1)
        sizes = ((s + pads[i] + pads[i + dims] - kernel[i]) // strides[i] + 1 for i, s in enumerate(shape[1:]))
        return y, (out, *sizes)

    def between(self, x: str, shape: tuple[int, ...]) -> str:
        """What stands between a layer and its quantizer."""
        n, rng, c = self.n, self.n.rng, shape[0]
        each = (c, *[1] * (len(shape) - 1))
        if self.chance(0.4):
            given = (n.floats(c, lo=-1.5, hi=1.5), n.floats(c), n.floats(c), n.floats(c, lo=0.3, hi=2))
            x = n.add("BatchNormalization", x, *map(n.const, given))
        known = [
            "none",
            "Relu",
            "Relu",
            "LeakyRelu",
            "Clip",
            "Mul",
            "Add",
            "Tanh",
            "Sigmoid",
            "HardSigmoid",
            "PRelu",
            "Div",
            "Neg",
        ]
        match str(rng.choice(known)):
            case ("Relu" | "Tanh" | "Sigmoid" | "HardSigmoid" | "Neg") as op:
                return str(n.add(op, x))
            case "LeakyRelu":
                return str(n.add("LeakyRelu", x, alpha=float(rng.choice([0.125, 0.1]))))
            case "PRelu":
                return str(n.add("PRelu", x, n.const(n.floats(*each, lo=0))))
            case "Clip" if n.opset < 11:
                return str(n.add("Clip", x, min=-1.0, max=1.6))
            case "Clip":
                return str(n.add("Clip", x, n.const(-1.0), n.const(1.6)))
            case ("Mul" | "Add") as op:
                return str(n.add(op, x, n.const(n.floats(*each))))
            case "Div":
                return str(n.add("Div", x, n.const(n.floats(*each, lo=0.4, hi=2))))
        return x
