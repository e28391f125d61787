"""README.md of the zoo, from the table of models and the logits beside the held-out data.

Its one rule: no figure is typed. Parameters and multiplications are counted in the network, accuracy in Brevitas' logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from models import ZOO, Entry

HEAD = """\
# A zoo of Brevitas models

Small networks trained with Brevitas and exported as QONNX, each with one thing the others have not. `train.py` writes all that
is here but the scripts, this page too: `python examples/zoo/train.py [NAME ...]`. `models.py` is the table to add a row to.

`data-SET.npz` holds what was held out: `inputs` as the package has them, `divisor` (the networks see `inputs / divisor` in
float32), `labels`, and under each model's name the float32 logits that Brevitas itself predicts.

| set | held out | from |
| --- | --- | --- |
| digits | 360 images of 8x8 pixels 0..16 | scikit-learn |
| fashion | 500 images of 28x28 pixels 0..255, the first of Fashion-MNIST's test part (Zalando SE, MIT) | Debian's `dataset-fashion-mnist` |
| motions | 40 recordings of 100 steps of 6 channels, BasicMotions' test part | aeon (PyPI) |

Weights and activations of a model have the bits of its name, or those that its quantizers fix: `1` binary, `t` ternary weights.
`bn`: with BatchNorm. Accuracy is that of Brevitas on the held-out data.

| name | bits | parameters | MACs | accuracy | what it adds |
| --- | --- | --- | --- | --- | --- |
"""


def macs(entry: Entry, shape: tuple[int, ...]) -> tuple[int, int]:
    """Parameters of layers and BatchNorm (not of quantizers), and multiplications of one inference."""
    network = entry.network(entry.recipe).eval()
    total = 0

    def count(layer: torch.nn.Module, _: object, out: object) -> None:
        nonlocal total
        total += out.shape[1:].numel() * layer.weight[0].numel()  # type: ignore[attr-defined]

    for layer in network.modules():
        if isinstance(layer, QuantWeightBiasInputOutputLayer):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    parameters = {name: value for name, value in network.named_parameters() if name.endswith(("weight", "bias"))}
    return sum(value.numel() for value in parameters.values()), total


def held_out_of(folder: Path) -> Mapping[str, Mapping[str, np.ndarray]]:
    return {path.stem.removeprefix("data-"): np.load(path) for path in folder.glob("data-*.npz")}


def write_table(path: Path, held_out: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """The page with a row for each model that has logits."""
    rows = []
    for name, entry in ZOO.items():
        data = held_out.get(entry.data, {})
        if name not in data:
            continue
        accuracy = 100 * np.mean(data[name].argmax(1) == data["labels"])
        parameters, multiplications = macs(entry, data["inputs"].shape[1:])
        row = f"| {name} | {entry.bits} | {parameters:,} | {multiplications:,} | {accuracy:.2f} % | {entry.adds} |"
        rows.append(row)
    path.write_text(HEAD + "\n".join(rows) + "\n")
