"""Small Keras models with LOGISTIC, TANH and SOFTMAX inside and at the end, as TensorFlow's converter writes them with activations
of 16 bits and weights of 8. A program of its own, since TensorFlow takes seconds to import: python keras16.py FOLDER NAME..."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np


def inside(layers: Any, x: Any) -> Any:
    """Each of them between layers, and a softmax at the end."""
    h = layers.Conv2D(4, 3, activation="tanh")(x)
    h = layers.Conv2D(3, 3, activation="sigmoid")(h)
    h = layers.Softmax()(h)
    return layers.Softmax()(layers.Dense(10)(layers.Flatten()(h)))


def gates(layers: Any, x: Any) -> Any:
    """A gated unit: what tanh makes, as far as a sigmoid lets it through; a second one squeezes channels. Ends in a sigmoid."""
    h = layers.Conv2D(6, 3, padding="same")(x)
    h = layers.Multiply()([layers.Activation("tanh")(h), layers.Activation("sigmoid")(h)])
    squeezed = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(h))
    h = layers.Multiply()([h, squeezed])
    return layers.Dense(3, activation="sigmoid")(layers.Flatten()(h))


def saturated(layers: Any, x: Any) -> Any:
    """Values far beyond where both functions end, and a tanh at the end."""
    h = layers.DepthwiseConv2D(3, activation="tanh", depthwise_initializer="he_uniform")(layers.Rescaling(40.0)(x))
    h = layers.Dense(5, activation="sigmoid")(layers.Flatten()(layers.Rescaling(9.0)(h)))
    return layers.Dense(4, activation="tanh")(h)


def attention(layers: Any, x: Any) -> Any:
    """Softmax over positions that weighs values, as attention has it."""
    h = layers.Reshape((16, 8))(x)
    weights = layers.Softmax()(layers.Reshape((16,))(layers.Dense(1)(layers.Dense(8, activation="tanh")(h))))
    h = layers.Multiply()([layers.Reshape((16, 1))(weights), h])
    return layers.Softmax()(layers.Dense(6)(layers.Flatten()(h)))


MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "inside": inside,
    "gates": gates,
    "saturated": saturated,
    "attention": attention,
}


def main(folder: Path, names: list[str]) -> None:
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3"}
    import tensorflow as tf

    for name in names:
        kind, _, seed = name.partition("_")
        tf.keras.utils.set_random_seed(int(seed or 0))
        rng = np.random.default_rng(int(seed or 0))
        x = tf.keras.Input((8, 8, 2), batch_size=1)
        made = tf.keras.Model(x, MODELS[kind](tf.keras.layers, x))

        def samples(rng: np.random.Generator = rng) -> Iterator[list[np.ndarray]]:
            for _ in range(12):
                yield [rng.normal(size=(1, 8, 8, 2)).astype(np.float32)]

        converter = tf.lite.TFLiteConverter.from_keras_model(made)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        ]
        converter.inference_input_type = converter.inference_output_type = tf.int16
        (folder / f"{name}.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
