"""Train the digits CNN with QKeras and write what the demo needs: model.h5, test.npz (held-out images, labels, QKeras' own logits).

Needs the `qkeras` and `test` extras (`make test` installs them). The demo itself needs neither TensorFlow nor scikit-learn.

    python examples/digits/train.py
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # QKeras 0.9 is written for Keras 2

import numpy as np
import tensorflow as tf
from qkeras import QActivation, QConv2D, QConv2DBatchnorm, QDense, quantized_bits, quantized_relu
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images as multiples of 1/16 in 0..1, [n, 8, 8, 1]: train, test, and their labels; a fifth is held out."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)


def network() -> tf.keras.Model:
    weights = {"kernel_quantizer": quantized_bits(4, 0, alpha=1), "bias_quantizer": quantized_bits(8, 2, alpha=1)}
    keras = tf.keras.layers
    x = image = keras.Input((8, 8, 1), name="image")
    x = QActivation(quantized_relu(5, 1), name="pixels")(x)  # multiples of 1/16: exact
    x = QConv2DBatchnorm(8, 3, padding="same", name="conv1", **weights)(x)
    x = QActivation(quantized_relu(4, 1), name="relu1")(x)
    x = keras.MaxPooling2D(2, name="pool1")(x)
    x = QConv2D(16, 3, padding="same", name="conv2", **weights)(x)
    x = QActivation(quantized_relu(4, 1), name="relu2")(x)
    x = keras.MaxPooling2D(2, name="pool2")(x)
    x = keras.Flatten(name="flatten")(x)
    x = QDense(10, name="logits", **weights)(x)
    return tf.keras.Model(image, x, name="digits")


def main() -> None:
    tf.keras.utils.set_random_seed(0)
    train_x, test_x, train_y, test_y = data()
    model = network()
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = tf.keras.optimizers.schedules.CosineDecay(5e-3, 60 * (len(train_x) // 32 + 1))
    model.compile(tf.keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    model.fit(train_x, train_y, epochs=60, batch_size=32, verbose=2)
    logits = model.predict(test_x, verbose=0)
    print(f"held-out accuracy {np.mean(logits.argmax(1) == test_y):.4f} on {len(test_y)} images")
    model.save(HERE / "model.h5", include_optimizer=False)
    pixels = np.rint(test_x * 16).astype(np.uint8)
    np.savez_compressed(HERE / "test.npz", images=pixels, labels=test_y.astype(np.uint8), qkeras_logits=logits)


if __name__ == "__main__":
    main()
