"""One model with every layer kind that has weights, a shared layer, two inputs and a nested model, saved with what the live model says.

`python qkeras_zoo.py FOLDER`: zoo.h5 (and zoo.keras with qkeras-v3), weights.npz by "layer:weight", layers.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import qkeras as qk

V3 = os.environ.get("KERAS_BACKEND") == "tensorflow"
if V3:
    import keras
else:
    import tf_keras as keras
L = keras.layers


def build() -> tuple[object, dict[str, object]]:
    q, b = "quantized_bits(4,0)", "quantized_bits(6,2)"
    i, j = keras.Input((8, 6, 2), name="z_first"), keras.Input((3,), name="a_second")
    x = qk.QActivation("quantized_bits(8,2,alpha=1)", name="q0")(i)
    x = qk.QConv2D(4, 3, kernel_quantizer=q, bias_quantizer=b, name="zz_conv")(x)
    shared = qk.QConv2D(4, 1, kernel_quantizer=q, bias_quantizer=b, activation="quantized_relu(3)", name="aa_shared")
    a = shared(x)
    y = shared(a)
    x = L.Add(name="add")([y, a])
    x = L.BatchNormalization(name="bn", scale=False)(x)
    x = L.BatchNormalization(name="bn2", center=False)(x)
    x = qk.QBatchNormalization(name="qbn")(x)
    x = qk.QConv2DBatchnorm(3, 2, kernel_quantizer="ternary()", bias_quantizer=b, name="cbn")(x)
    x = qk.QConv2DBatchnorm(3, 1, kernel_quantizer="ternary()", bias_quantizer=b, name="acbn", use_bias=False)(x)
    x = qk.QDepthwiseConv2D(2, depthwise_quantizer="binary()", bias_quantizer=b, name="dw")(x)
    x = qk.QDepthwiseConv2DBatchnorm(1, depthwise_quantizer=q, bias_quantizer=b, name="dwbn")(x)
    x = qk.QSeparableConv2D(3, 1, depthwise_quantizer=q, pointwise_quantizer=q, bias_quantizer=b, name="sep")(x)
    x = L.Conv2D(2, 1, name="plain", use_bias=False)(x)
    inner_in = keras.Input((int(x.shape[1]), int(x.shape[2]), 2), name="inner_in")
    h = qk.QConv2D(2, 1, kernel_quantizer=q, bias_quantizer=b, name="inner_b")(inner_in)
    h = qk.QConv2D(2, 1, kernel_quantizer=q, bias_quantizer=b, name="inner_a")(h)
    inner = keras.Model(inner_in, h, name="inner")
    x = L.Flatten(name="flat")(inner(x))
    x = L.Concatenate(name="cat")([x, j])
    x = qk.QDense(5, kernel_quantizer=q, bias_quantizer=b, name="dense10")(x)
    x = qk.QDense(5, kernel_quantizer=q, use_bias=False, name="dense9")(x)
    x = L.Reshape((5, 1), name="rs")(x)
    x = qk.QConv1D(2, 2, kernel_quantizer=q, bias_quantizer=b, name="c1d")(x)
    out = L.Dense(2, name="dd")(L.Flatten(name="f2")(x))
    model = keras.Model([i, j], [out, y], name="zoo")
    calls = {
        "aa_shared": [[["zz_conv", 0, 0]], [["aa_shared", 0, 0]]],
        "add": [[["aa_shared", 1, 0], ["aa_shared", 0, 0]]],
        "cat": [[["flat", 0, 0], ["a_second", 0, 0]]],
        "flat": [[["inner/inner_a", 0, 0]]],
        "inner/inner_b": [[["plain", 0, 0]]],
    }
    return model, {"inputs": ["z_first", "a_second"], "outputs": ["dd", "aa_shared"], "calls": calls}


def main(folder: str) -> None:
    out = Path(folder)
    model, order = build()
    rng = np.random.default_rng(0)
    weights = {}

    def walk(owner: object, prefix: str) -> None:
        for layer in owner.layers:  # type: ignore[attr-defined]
            if hasattr(layer, "layers"):
                walk(layer, f"{prefix}{layer.name}/")
                continue
            new = [
                w if w.dtype != np.float32 else rng.uniform(0.1, 1, w.shape).astype(np.float32)
                for w in layer.get_weights()
            ]
            layer.set_weights(new)
            for v, w in zip(layer.weights, new, strict=True):
                name = (getattr(v, "path", None) or v.name).split("/")[-1].split(":")[0]
                if type(layer).__name__ == "DepthwiseConv2D":
                    name = "depthwise_kernel" if name == "kernel" else name
                if name != "iteration":
                    weights[f"{prefix}{layer.name}:{name}"] = w

    walk(model, "")
    np.savez(out / "weights.npz", **weights)
    (out / "layers.json").write_text(json.dumps(order))
    for ending in (".h5", ".keras") if V3 else (".h5",):
        model.save(out / f"zoo{ending}")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(sys.argv[1])
