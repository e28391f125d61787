"""Random QKeras models against the integer graph, in one framework process: `python qkeras_models.py OUT.json MODELS DRAWS [PAIR...]`.

Every pair is a layer kind with a weight quantizer, or an activation quantizer, or a shape layer. MODELS architectures of
each pair are built, each with DRAWS draws of weights; 64 inputs go through model.predict and through simulate.
Its one rule: integers are compared, not reals within a tolerance; where float32 itself rounds (scales that are no power
of two) a difference is allowed only beside a tie, and is counted.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from toolchain import inputs as samples
from toolchain.frontends import qkeras as front_end
from toolchain.ir import ops
from toolchain.reference import evaluate, simulate, trace

BATCH = 64
V3 = os.environ.get("KERAS_BACKEND") == "tensorflow"

import qkeras as qk  # noqa: E402

if V3:
    import keras
else:
    import tf_keras as keras
K = keras.layers
Rng = np.random.Generator


def bits_activation(rng: Rng, top: int = 6) -> str:
    b = int(rng.integers(2, top + 1))
    if rng.random() < 0.5:
        return f"quantized_relu({b},{int(rng.integers(0, 3))})"
    return f"quantized_bits({b},{int(rng.integers(0, 3))},{int(rng.integers(0, 2))},alpha=1.0)"


# weight quantizers: name -> (text or object, exact: the scale is a power of two, so float32 is exact)
WEIGHTS: dict[str, tuple[Callable[[Rng, int], Any], bool]] = {
    "bits": (lambda r, c: f"quantized_bits({r.integers(2, 9)},{r.integers(0, 2)})", True),
    "bits_1": (
        lambda r, c: (
            f"quantized_bits({r.integers(1, 9)},{r.integers(0, 2)},{r.integers(0, 2)},{r.integers(0, 2)},alpha=1)"
        ),
        True,
    ),
    "bits_auto": (lambda r, c: f"quantized_bits({r.integers(2, 9)},{r.integers(0, 2)},alpha='auto')", False),
    "bits_auto_po2": (lambda r, c: f"quantized_bits({r.integers(2, 9)},{r.integers(0, 2)},alpha='auto_po2')", True),
    "binary": (lambda r, c: "binary()", True),
    "binary_1": (lambda r, c: f"binary(use_01={r.integers(0, 2)},alpha={r.choice([1.0, 0.5])})", True),
    "binary_auto": (lambda r, c: "binary(alpha='auto')", False),
    "ternary": (lambda r, c: "ternary()", True),
    "ternary_1": (lambda r, c: f"ternary(alpha=1.0,threshold={r.choice([0.25, 0.5])})", True),
    "ternary_auto": (lambda r, c: "ternary(alpha='auto')", False),
    "stochastic_binary": (lambda r, c: "stochastic_binary()", True),
    "stochastic_ternary": (lambda r, c: "stochastic_ternary()", True),
    "po2": (lambda r, c: f"quantized_po2({r.integers(3, 5)},1)", True),
}
if V3:
    WEIGHTS["linear"] = (
        lambda r, c: f"quantized_linear({r.integers(1, 9)},{r.integers(0, 2)},{r.integers(0, 2)})",
        True,
    )
    WEIGHTS["linear_1"] = (lambda r, c: f"quantized_linear({r.integers(2, 9)},{r.integers(0, 2)},alpha=0.5)", True)
else:
    WEIGHTS["bits_channels"] = (
        lambda r, c: qk.quantized_bits(int(r.integers(2, 6)), 0, alpha=r.choice([0.5, 1.0, 2.0], c).astype(np.float32)),
        True,
    )

ACTIVATIONS: dict[str, tuple[Callable[[Rng], str], bool]] = {
    "bits": (
        lambda r: f"quantized_bits({r.integers(1, 17)},{r.integers(0, 4)},{r.integers(0, 2)},{r.integers(0, 2)})",
        True,
    ),
    "bits_alpha": (
        lambda r: f"quantized_bits({r.integers(1, 9)},{r.integers(0, 4)},alpha={r.choice([0.5, 3.0, 0.75])})",
        True,
    ),
    "relu": (lambda r: f"quantized_relu({r.integers(1, 17)},{r.integers(0, 4)})", True),
    "relu_slope": (
        lambda r: f"quantized_relu({r.integers(4, 10)},{r.integers(0, 4)},0,{r.choice([0.125, 0.25, 0.5])})",
        True,
    ),
    "relu_sigmoid": (lambda r: f"quantized_relu({r.integers(2, 8)},{r.integers(0, 3)},1,{r.choice([0.0, 0.5])})", True),
    "tanh": (lambda r: f"quantized_tanh({r.integers(2, 12)},0,{r.integers(0, 2)})", True),
    "tanh_real": (lambda r: f"quantized_tanh({r.integers(2, 9)},0,{r.integers(0, 2)},1)", False),
    "sigmoid": (lambda r: f"quantized_sigmoid({r.integers(2, 12)},{r.integers(0, 2)})", True),
    "sigmoid_real": (lambda r: f"quantized_sigmoid({r.integers(2, 9)},0,1)", False),
    "po2": (lambda r: f"quantized_po2({r.integers(2, 5)})", False),
    "po2_max": (lambda r: f"quantized_po2({r.integers(2, 5)},{r.choice([2, 4])})", False),
    "po2_floor": (lambda r: f"quantized_po2({r.integers(3, 5)},log2_rounding='floor')", False),
    "relu_po2": (lambda r: f"quantized_relu_po2({r.integers(2, 5)},{r.choice([4, 8])})", False),
    "relu_po2_slope": (lambda r: f"quantized_relu_po2({r.integers(3, 5)},negative_slope=0.25)", False),
    "binary": (lambda r: f"binary(use_01={r.integers(0, 2)},alpha={r.choice([1.0, 0.5])})", True),
    "ternary": (lambda r: f"ternary(alpha=1.0,threshold={r.choice([0.25, 0.5])})", True),
    "stochastic_ternary": (lambda r: "stochastic_ternary(alpha=1.0,threshold=0.5)", True),
    "binary_tanh": (lambda r: "binary_tanh", True),
    "binary_sigmoid": (lambda r: "binary_sigmoid", True),
    "hard_tanh": (lambda r: "hard_tanh", True),
    "smooth_sigmoid": (lambda r: "smooth_sigmoid", True),
    # a compiled graph multiplies by 1 / log(1 + u) where eager QKeras divides: the last bit of float32 differs
    "ulaw": (lambda r: f"quantized_ulaw({r.integers(2, 7)},{r.integers(0, 2)},{r.integers(0, 2)})", False),
    "hswish": (lambda r: f"quantized_hswish({r.integers(4, 9)},{r.integers(0, 3)})", False),
}


def bias(rng: Rng) -> str | None:
    return rng.choice(["quantized_bits(6,2,alpha=1)", "quantized_bits(8,3)", "quantized_po2(4)"])


def image(rng: Rng, most: int = 6) -> tuple[int, int, int]:
    """Odd and non-square, one pixel wide now and then, more than 64 channels now and then."""
    c = int(rng.integers(65, 80)) if rng.random() < 0.1 else int(rng.integers(1, 6))
    return int(rng.integers(3, most + 4)), int(rng.integers(3, most + 2)), c


def window(rng: Rng) -> dict[str, Any]:
    strides = int(rng.integers(1, 3))
    return {"kernel_size": (int(rng.integers(1, 4)), int(rng.integers(1, 4))), "strides": (strides, strides), "padding": rng.choice(["same", "valid"]),
            "use_bias": bool(rng.random() < 0.8)}  # fmt: skip


def many(rng: Rng) -> int:
    return int(rng.integers(65, 80)) if rng.random() < 0.1 else int(rng.integers(1, 7))


def dense(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    out = many(rng)
    return (many(rng),), qk.QDense(
        out, kernel_quantizer=w(rng, out), bias_quantizer=bias(rng), use_bias=bool(rng.random() < 0.8), name="t"
    )


def conv1d(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    out = many(rng)
    return (int(rng.integers(5, 12)), many(rng)), qk.QConv1D(
        out, int(rng.integers(1, 4)), strides=int(rng.integers(1, 3)), padding=rng.choice(["same", "valid"] if V3 else ["same", "valid", "causal"]), kernel_quantizer=w(rng, out),
        bias_quantizer=bias(rng), name="t")  # fmt: skip


def conv2d(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    out, o = many(rng), window(rng)
    if o["strides"] == (1, 1) and rng.random() < 0.3:
        o["dilation_rate"] = (2, 1) if o["kernel_size"][0] < 3 else (1, 1)
    return image(rng), qk.QConv2D(out, kernel_quantizer=w(rng, out), bias_quantizer=bias(rng), name="t", **o)


def conv2d_bn(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    out = many(rng)
    more = {"ema_freeze_delay": 10} if not V3 else {}
    return image(rng), qk.QConv2DBatchnorm(
        out, kernel_quantizer=w(rng, out), bias_quantizer="quantized_bits(8,3,alpha=1)", name="t", **more, **window(rng)
    )


def depthwise(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    mult = int(rng.integers(1, 3))
    return image(rng), qk.QDepthwiseConv2D(
        depth_multiplier=mult, depthwise_quantizer=w(rng, mult), bias_quantizer=bias(rng), name="t", **window(rng)
    )


def depthwise_bn(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    more = {"ema_freeze_delay": 10} if not V3 else {}
    return image(rng), qk.QDepthwiseConv2DBatchnorm(
        depthwise_quantizer=w(rng, 1), bias_quantizer="quantized_bits(8,3,alpha=1)", name="t", **more, **window(rng)
    )


def separable(rng: Rng, w: Any) -> tuple[tuple[int, ...], Any]:
    mult, out = int(rng.integers(1, 3)), int(rng.integers(1, 6))
    o = window(rng)
    shape = (*image(rng)[:2], int(rng.integers(1, 5)))
    return shape, qk.QSeparableConv2D(out, depth_multiplier=mult, depthwise_quantizer="quantized_bits(4,0,alpha=1)", pointwise_quantizer=w(rng, out),
                                      bias_quantizer=bias(rng), name="t", **o)  # fmt: skip


WEIGHTED = {"QDense": dense, "QConv1D": conv1d, "QConv2D": conv2d, "QDepthwiseConv2D": depthwise, "QSeparableConv2D": separable,
            "QConv2DBatchnorm": conv2d_bn, "QDepthwiseConv2DBatchnorm": depthwise_bn}  # fmt: skip


def start(shape: tuple[int, ...], text: str, name: str = "x") -> tuple[Any, Any]:
    x = keras.Input(shape, name=name)
    return x, qk.QActivation(text, name=f"q_{name}")(x)


def weighted(kind: str, weight: str) -> Callable[[Rng], Any]:
    def build(rng: Rng) -> Any:
        shape, layer = WEIGHTED[kind](rng, WEIGHTS[weight][0])
        x, v = start(shape, bits_activation(rng))
        acc = layer(v)
        return keras.Model(x, [acc, qk.QActivation(bits_activation(rng, 8), name="y")(acc)], name="m")

    return build


def activation(name: str) -> Callable[[Rng], Any]:
    def build(rng: Rng) -> Any:
        text = ACTIVATIONS[name][0](rng)
        shape = image(rng)
        x, v = start(
            shape,
            f"quantized_bits({rng.integers(6, 12)},{rng.integers(1, 4)},alpha=1.0)"
            if name != "ulaw"
            else "quantized_bits(8,2,alpha=1.0)",
        )
        wide = qk.QConv2D(3, 1, kernel_quantizer="quantized_bits(4,1,alpha=1)", use_bias=False, name="t")(v)
        outs = [qk.QActivation(text, name="a")(v)]
        if name != "hswish":
            outs.append(qk.QActivation(text, name="b")(wide))
        return keras.Model(x, outs, name="m")

    return build


def other(name: str) -> Callable[[Rng], Any]:
    def build(rng: Rng) -> Any:
        shape = image(rng)
        x, v = start(shape, bits_activation(rng))
        y = qk.QActivation(bits_activation(rng, 8), name="y")
        pool = {
            "pool_size": (int(rng.integers(1, 4)), int(rng.integers(1, 4))),
            "padding": rng.choice(["same", "valid"]),
        }
        if rng.random() < 0.5:
            pool["strides"] = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        x2, second = start(shape, bits_activation(rng), "x2")
        conv = qk.QConv2D(
            shape[2],
            1,
            kernel_quantizer="quantized_bits(4,0,alpha=1)",
            bias_quantizer="quantized_bits(4,0,alpha=1)",
            name="t",
        )(v)
        relu6 = {"max_value": 6.0} if rng.random() < 0.5 else {}
        leak = {"negative_slope" if V3 else "alpha": float(rng.choice([0.25, 0.3]))}
        match name:
            case "BatchNormalization":
                out = [y(K.BatchNormalization(name="t2")(conv))]
            case "BatchNormalization_maxpool":
                out = [y(K.MaxPooling2D(name="p")(K.BatchNormalization(name="t2")(conv)))]
            case "BatchNormalization_flatten":
                out = [y(K.Flatten(name="f")(K.BatchNormalization(name="t2")(conv)))]
            case "BatchNormalization_leaky":
                out = [qk.QActivation("quantized_relu(5,1,0,0.25)", name="y")(K.BatchNormalization(name="t2")(conv))]
            case "BatchNormalization_binary":
                out = [qk.QActivation("binary(alpha=1.0)", name="y")(K.BatchNormalization(name="t2")(conv))]
            case "BatchNormalization_relu":
                out = [y(K.ReLU(name="r", **relu6)(K.BatchNormalization(name="t2")(conv)))]
            case "QBatchNormalization":
                out = [y(qk.QBatchNormalization(name="t2")(conv))]
            case "QBatchNormalization_bits":
                q = "quantized_bits(6,2,alpha=1)"
                out = [y(qk.QBatchNormalization(name="t2", gamma_quantizer="quantized_bits(6,2)", beta_quantizer=q, mean_quantizer=q,
                                                variance_quantizer="quantized_relu(6,2)")(conv))]  # fmt: skip
            case "Add_BatchNormalization":
                out = [y(K.Add(name="s")([K.BatchNormalization(name="t2")(conv), K.BatchNormalization(name="t3")(v)]))]
            case "QAveragePooling2D":
                out = [
                    qk.QAveragePooling2D(
                        average_quantizer=f"quantized_bits({rng.integers(4, 10)},0,alpha=1)",
                        name="p",
                        activation=bits_activation(rng, 8),
                        **pool,
                    )(v)
                ]
            case "QAveragePooling2D_none":
                out = [qk.QAveragePooling2D(name="p", activation=qk.quantized_bits(8, 2, alpha=1.0), **pool)(v)]
            case "QGlobalAveragePooling2D":
                out = [
                    qk.QGlobalAveragePooling2D(
                        average_quantizer=f"quantized_bits({rng.integers(6, 10)},0,alpha=1)",
                        name="p",
                        activation=bits_activation(rng, 8),
                    )(v)
                ]
            case "AveragePooling2D":
                out = [y(K.AveragePooling2D(name="p", **pool)(v))]
            case "GlobalAveragePooling2D":
                out = [y(K.GlobalAveragePooling2D(name="p", keepdims=bool(rng.random() < 0.5))(v))]
            case "MaxPooling2D":
                out = [K.MaxPooling2D(name="p", **pool)(v), y(K.MaxPooling2D(name="p2")(conv))]
            case "GlobalMaxPooling2D":
                out = [K.GlobalMaxPooling2D(name="p")(conv)]
            case "Pool1D":
                flat = K.Reshape((shape[0] * shape[1], shape[2]), name="r")(v)
                out = [K.MaxPooling1D(2, name="p")(flat), K.GlobalMaxPooling1D(name="p2")(flat), K.Flatten(name="p3")(K.UpSampling1D(2, name="u")(K.ZeroPadding1D(1, name="z")(flat))),
                       qk.QActivation("quantized_bits(5,1,alpha=1.0)", name="y2")(K.AveragePooling1D(2, padding="same", name="p4")(flat)),
                       qk.QActivation("quantized_bits(5,1,alpha=1.0)", name="y3")(K.GlobalAveragePooling1D(name="p5")(flat))]  # fmt: skip
            case "Add":
                s = K.Add(name="s")([conv, v, second])
                out = [s, y(s)]
            case "Subtract":
                s = K.Subtract(name="s")([conv, second])
                out = [s, y(s)]
            case "Multiply":
                s = K.Multiply(name="s")([conv, second])
                out = [s, y(s)]
            case "Concatenate":
                s = K.Concatenate(name="s")([conv, second])
                out = [s, y(s), K.Concatenate(axis=1, name="s2")([conv, v])]
            case "Shapes":
                out = [K.Flatten(name="f")(v), K.Reshape((shape[1], -1), name="r")(conv), K.Permute((3, 1, 2), name="p")(v), K.Permute((2, 1, 3), name="p2")(v),
                       K.ZeroPadding2D(((1, 0), (2, 1)), name="z")(conv), K.UpSampling2D((2, 3), name="u")(v), K.Dropout(0.5, name="d")(K.Flatten(name="f2")(conv))]  # fmt: skip
            case "ReLU":
                out = [
                    K.ReLU(name="r", **relu6)(conv),
                    K.Activation("relu", name="r2")(conv),
                    y(K.ReLU(name="r3")(conv)),
                ]
            case "LeakyReLU":
                r = K.LeakyReLU(name="r", **leak)(conv)
                out = [y(r)]
            case "Dense":
                d = K.Dense(3, name="t4")(K.Flatten(name="f")(v))
                out = [d]
            case "Conv":
                c = K.DepthwiseConv2D(2, name="t5")(K.Conv2D(3, 2, name="t4")(v))
                out = [qk.QActivation("quantized_bits(6,3,alpha=1.0)", name="y2")(c)]
            case "Shared":
                layer = qk.QConv2D(
                    shape[2],
                    3,
                    padding="same",
                    kernel_quantizer="quantized_bits(3,0,alpha=1)",
                    bias_quantizer="quantized_bits(4,1,alpha=1)",
                    name="t6",
                    activation="quantized_relu(4,2)",
                )
                x2, v2 = start(shape, "quantized_bits(4,1,alpha=1.0)", "x2")
                a, b = layer(v), layer(layer(v2))
                return keras.Model([x2, x], [K.Add(name="s")([a, b]), b], name="m")
            case "Softmax":
                logits = qk.QDense(
                    5, kernel_quantizer="quantized_bits(4,0)", bias_quantizer="quantized_bits(4,0)", name="t7"
                )(K.Flatten(name="f")(v))
                return keras.Model(x, K.Activation("softmax", name="s")(logits), name="m")
            case "Sequential":
                return keras.Sequential([keras.Input(shape, name="x"), qk.QActivation("quantized_bits(5,1,alpha=1.0)", name="q"), K.Flatten(name="f"),
                                         qk.QDense(4, kernel_quantizer="ternary()", bias_quantizer="quantized_bits(5,1)", activation="quantized_tanh(5)", name="t8"),
                                         qk.QDense(3, kernel_quantizer="quantized_bits(5,1)", use_bias=False, name="t9")], name="m")  # fmt: skip
            case "Nested":
                inner_x = keras.Input(shape, name="inner_x")
                h = qk.QConv2D(
                    2,
                    1,
                    kernel_quantizer="quantized_bits(4,0,alpha=1)",
                    bias_quantizer="quantized_bits(4,0,alpha=1)",
                    name="inner_conv",
                )(inner_x)
                inner = keras.Model(
                    inner_x, [h, qk.QActivation("quantized_relu(3,1)", name="inner_q")(h)], name="inner"
                )
                h, hq = inner(v)
                return keras.Model(x, [hq, y(h)], name="m")
            case _:
                raise AssertionError(name)
        return keras.Model([x2, x] if name in ("Add", "Subtract", "Multiply", "Concatenate") else x, out, name="m")

    return build


OTHERS = ("BatchNormalization", "BatchNormalization_maxpool", "BatchNormalization_flatten", "BatchNormalization_leaky", "BatchNormalization_binary",
          "BatchNormalization_relu", "QBatchNormalization", "QBatchNormalization_bits", "Add_BatchNormalization", "QAveragePooling2D", "QAveragePooling2D_none",
          "QGlobalAveragePooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "MaxPooling2D", "GlobalMaxPooling2D", "Pool1D", "Add", "Subtract", "Multiply",
          "Concatenate", "Shapes", "ReLU", "LeakyReLU", "Dense", "Conv", "Shared", "Softmax", "Sequential", "Nested")  # fmt: skip


def pairs() -> dict[str, tuple[Callable[[Rng], Any], bool]]:
    found = {f"{k}-{w}": (weighted(k, w), WEIGHTS[w][1]) for k in WEIGHTED for w in WEIGHTS}
    found |= {f"QActivation-{a}": (activation(a), ACTIVATIONS[a][1]) for a in ACTIVATIONS}
    return found | {
        o: (other(o), not any(s in o for s in ("BatchNorm", "Average", "Pool1D", "LeakyReLU"))) for o in OTHERS
    }


def draw_weights(model: Any, rng: Rng, coarse: bool = True) -> None:
    for layer in model.layers:
        folded = not coarse or "Batchnorm" in type(layer).__name__  # on a coarse grid too many weights lie beside a tie
        if hasattr(layer, "layers"):
            draw_weights(layer, rng, coarse)
            continue
        new = []
        for v, w in zip(layer.weights, layer.get_weights(), strict=True):
            name = (getattr(v, "path", None) or v.name).split("/")[-1].split(":")[0]
            if name == "moving_variance":
                w = rng.uniform(0.1, 2, w.shape).astype(np.float32)
            elif name == "gamma":
                sign = (
                    [1] if type(layer).__name__ == "QBatchNormalization" else [-1, 1, 1, 1]
                )  # its relu_po2 makes 2**-32 of a negative one
                w = (rng.uniform(0.3, 1.5, w.shape) * rng.choice(sign, w.shape)).astype(np.float32)
            elif w.dtype == np.float32:
                w = np.rint(rng.normal(0, 0.6, w.shape) * 16) / 16 if (rng.random() < 0.5 and not folded) or type(layer).__name__ in ("Dense", "Conv2D", "DepthwiseConv2D") else rng.normal(0, 0.6, w.shape)  # fmt: skip
            new.append(np.asarray(w, dtype=v.dtype if isinstance(v.dtype, str) else v.dtype.name))
        if new:
            layer.set_weights(new)


def draw_inputs(model: Any, rng: Rng) -> list[np.ndarray]:
    """Reals on and between the steps of the input quantizers, with exact halves of both signs, zeros and values far outside."""
    found = []
    for t in model.inputs:
        shape = (BATCH, *[int(d) for d in t.shape[1:]])
        x = rng.normal(0, 2, shape)
        x = np.where(rng.random(shape) < 0.6, np.rint(x * 32) / 32, x)
        x[:4] = np.array([0.0, 100.0, -100.0, 0.5]).reshape(4, *[1] * (len(shape) - 1))
        found.append(x.astype(np.float32))
    return found


def compare(graph: Any, model: Any, x: list[np.ndarray], exact: bool, first: bool, met: dict[str, int]) -> str | None:
    names = (
        [getattr(t, "_keras_history", None) and t._keras_history[0].name for t in model.inputs]
        if not V3
        else [t.name for t in model.inputs]
    )
    stored = samples.stored(graph, dict(zip(names, x, strict=True)))
    ours, _ = simulate(graph, stored)
    live = (
        model.predict(x, verbose=0, batch_size=BATCH) if first else model.predict_on_batch(x)
    )  # the same compiled function
    live = live if isinstance(live, list) else [live]
    if any("left to the host" in n for n in graph.notes):
        y = ours[graph.outputs[0].name]
        top = np.sort(y, axis=1)
        clear = top[:, -1] > top[:, -2]
        return None if (live[0].argmax(1) == y.argmax(1))[clear].all() else "argmax differs"
    values = None
    for t, y in zip(graph.outputs, live, strict=True):
        scale = np.array([float(s) for s in t.qtype.scales])
        codes = y.astype(np.float64) / scale
        whole, mine = np.rint(codes), ours[t.name]
        met["values"] += mine.size
        wide = np.abs(mine) >= (2**24 if exact else 2**21)  # float32 itself cannot say these
        if wide.any():
            if np.abs(codes - mine).max() > np.abs(mine).max() * 1e-5:
                return f"output {t.name}: {np.abs(codes - mine).max()} steps apart of {np.abs(mine).max()}"
            continue
        residue, wrong = np.abs(codes - whole), whole != mine
        if (residue > np.maximum(1e-3, np.abs(mine) * 2.0**-20)).any():
            return f"output {t.name}: residue {residue.max()}"
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            text = f"output {t.name} {at}: framework {y[at]} = {codes[at]} steps, graph {mine[at]}; {int(wrong.sum())} of {wrong.size}"
            values = values or trace(graph, stored)
            beyond = any(np.abs(v).max() >= 2**24 for v in values.values())  # a sum that float32 rounded on the way
            if (exact and not beyond) or not beside_a_tie(graph, t.name, values, whole)[wrong].all():
                return text
            met["differ"] += int(wrong.sum())
    return None


def beside_a_tie(graph: Any, name: str, values: dict[str, np.ndarray], whole: np.ndarray) -> np.ndarray:
    """Where a relative error of 2**-18 in what the op reads explains the framework's integer."""
    made = {op.output.name: op for op in graph.ops}
    op = made[name]
    while isinstance(op, (ops.Reshape, ops.MaxPool)):
        op = made[op.input.name]
    if isinstance(op, ops.Add):  # of two parts, one of them 0 (leaky relu), or of two guarded operands
        return np.abs(whole - values[name]) <= 1
    x = values[op.input.name]
    d = np.abs(x).max() // 2**18 + 1
    if isinstance(
        op, ops.Requantize
    ):  # beside a half itself: a tiny slope is lost in float32 next to a large intercept
        v = (x * np.array(op.multiplier, float) + np.array(op.offset, float)) / 2.0 ** np.array(op.shift, float)
        half = np.abs(np.abs(v - np.floor(v)) - (0.5 if op.rounding is ops.Rounding.HALF_EVEN else 1.0)) % 1.0
        if (np.minimum(half, 1 - half)[whole != values[name]] < 1e-5 * (1 + np.abs(v[whole != values[name]]))).all():
            return np.abs(whole - values[name]) <= 1
    ends = [evaluate(op, x + e) for e in (-d, d)]
    return (np.minimum(*ends) <= whole) & (whole <= np.maximum(*ends))


def ties(graph: Any, stored: dict[str, np.ndarray], met: dict[str, int]) -> None:
    """Exact halves that Requantize meets, of both signs, and values it clamps."""
    values = trace(graph, stored)
    for op in graph.ops:
        if isinstance(op, ops.Requantize):
            shift = np.array(op.shift)
            t = values[op.input.name].astype(object) * np.array(op.multiplier, object) + np.array(op.offset, object)
            low = np.mod(t, 2 ** shift.astype(object))
            if op.rounding is ops.Rounding.HALF_EVEN and (shift > 0).any():
                half = (low * 2 == 2 ** shift.astype(object)) & (shift > 0)
                met["tie_up"] += int((half & (t > 0)).sum())
                met["tie_down"] += int((half & (t < 0)).sum())
            v = t / (2.0 ** shift.astype(float))
            met["clamped"] += int(((v < op.clamp[0] - 0.5) | (v > op.clamp[1] + 0.5)).sum())


def run(pair: str, models: int, draws: int, seed: int = 0) -> dict[str, Any]:
    every = pairs()
    build, exact = every[pair]
    eager = models * draws < 200 and list(every).index(pair) % 6 != 0  # compiling takes ten times as long as predicting
    met = dict.fromkeys(("models", "values", "differ", "tie_up", "tie_down", "clamped", "noted"), 0)
    for m in range(models):
        rng = np.random.default_rng([seed, m, *pair.encode()])
        keras.backend.clear_session()
        model = build(rng)
        model.run_eagerly = eager
        for d in range(draws):
            draw_weights(model, rng, exact)
            x = draw_inputs(model, rng)
            graph = front_end.load(model)
            met["models"] += 1
            if any("float32 noise of a tie" in n for n in graph.notes):  # said to the user; nothing to compare
                met["noted"] += 1
                continue
            failure = compare(graph, model, x, exact, d == 0, met)
            if failure:
                return {**met, "failure": f"{pair} model {m} draw {d}: {failure}"}
            if d == 0:
                ties(
                    graph,
                    samples.stored(graph, {t.name: v for t, v in zip(_by_model(graph, model), x, strict=True)}),
                    met,
                )
                if pair != "QDense-bits_channels" and not pair.endswith("_channels"):
                    saved = _saved(model)
                    if any(g.digest() != graph.digest() for g in saved):
                        return {
                            **met,
                            "failure": f"{pair} model {m}: the saved file is another graph than the live model",
                        }
    return met


def _by_model(graph: Any, model: Any) -> list[Any]:
    names = [t._keras_history[0].name for t in model.inputs] if not V3 else [t.name for t in model.inputs]
    return [next(t for t in graph.inputs if t.name == n) for n in names]


def _saved(model: Any) -> list[Any]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for ending in (".h5", ".keras") if V3 else (".h5",):
            path = Path(folder) / f"m{ending}"
            model.save(path)
            found.append(front_end.load(path))
    return found


def quick() -> list[str]:
    """Every activation and shape layer, QConv2D with every quantizer, each other weighted layer with every fourth."""
    return [
        p for i, p in enumerate(pairs())
        if p.startswith(("QConv2D-", "QActivation-")) or p in OTHERS or i % 4 == 0
    ]  # fmt: skip


def main(out: str, models: str, draws: str, *wanted: str) -> None:
    report: dict[str, Any] = {}
    for pair in quick() if wanted == ("quick",) else wanted or pairs():
        try:
            report[pair] = run(pair, int(models), int(draws))
        except Exception:  # a crash is a failure of the pair, with its traceback
            report[pair] = {"failure": traceback.format_exc()[-1500:]}
        if "failure" in report[pair]:
            print(pair, report[pair]["failure"], flush=True)
        Path(out).write_text(json.dumps(report, indent=1))  # after each, so that a long run can be watched


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
