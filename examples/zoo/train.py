"""Train the zoo with Brevitas and write what the tests need: NAME.onnx (QONNX), data-SET.npz (held-out data, labels and
Brevitas' own logits), and the table in README.md.

Needs the `brevitas` and `test` extras, and the packages of datasets.py. Its one rule: the same seed on the same machine gives the
same files.

    python examples/zoo/train.py                      # all, about 8 minutes on one core
    python examples/zoo/train.py digits_mlp_4 --epochs 3
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from datasets import HERE, SETS, Data, MissingDataError, write_held_out
from models import ZOO, Entry
from torch import Tensor, nn

BATCH = {"digits": 32, "fashion": 64, "motions": 8}


def logits(network: nn.Module, inputs: Tensor) -> Tensor:
    out = network(inputs)
    return out if isinstance(out, Tensor) else out.value  # a QuantTensor where the last layer quantizes


def fit(network: nn.Module, data: Data, entry: Entry, epochs: float, seed: int, steps: int | None = None) -> None:
    """Adam with one cycle of the learning rate; the same seed takes the same batches. `steps` ends it early."""
    inputs, labels = torch.from_numpy(data.real(data.train_x)), torch.from_numpy(data.train_y.astype(np.int64))
    batch = BATCH[entry.data]
    total = max(2, round(epochs * -(-len(inputs) // batch)))
    optimizer = torch.optim.Adam(network.parameters(), entry.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, entry.rate, total_steps=total)
    shuffle = torch.Generator().manual_seed(seed)
    network.train()
    done = 0
    while done < (total if steps is None else min(steps, total)):
        for rows in torch.randperm(len(inputs), generator=shuffle).split(batch)[: total - done]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits(network, inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
            done += 1


def predict(network: nn.Module, data: Data, inputs: np.ndarray) -> np.ndarray:
    network.eval()
    with torch.no_grad():
        return logits(network, torch.from_numpy(data.real(inputs))).numpy()


def export(network: nn.Module, data: Data, path: Path, dynamo: bool) -> None:
    """One input of batch 1, by TorchScript's exporter or by the dynamo one; what they print is kept to themselves."""
    from brevitas.export import export_qonnx

    options = {"dynamo": True} if dynamo else {"dynamo": False, "opset_version": 13}
    network.eval()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        export_qonnx(network, torch.from_numpy(data.real(data.test_x[:1])), export_path=str(path), **options)


def train(name: str, entry: Entry, data: Data, folder: Path, seed: int = 0, epochs: float | None = None) -> np.ndarray:
    """Train one row of the table and write folder/NAME.onnx; Brevitas' logits of the held-out data."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = entry.network(entry.recipe)
    fit(network, data, entry, entry.epochs if epochs is None else epochs, seed)
    predicted = predict(network, data, data.test_x)
    export(network, data, folder / f"{name}.onnx", entry.dynamo)
    return predicted


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="train the zoo and write examples/zoo")
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of: " + " ".join(ZOO))
    parser.add_argument("--epochs", type=float, help="instead of the table's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: this one)")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in ZOO]
    if unknown:
        parser.error(f"no model {unknown[0]!r}; there are {' '.join(ZOO)}")
    names = options.names or list(ZOO)
    options.out.mkdir(parents=True, exist_ok=True)
    for set_name in dict.fromkeys(ZOO[name].data for name in names):
        try:
            data = SETS[set_name]()
        except MissingDataError as error:
            print(f"train: {error}")
            return 2
        for name in (name for name in names if ZOO[name].data == set_name):
            start = time.monotonic()
            print(f"{name} ...", end="", flush=True)
            predicted = train(name, ZOO[name], data, options.out, options.seed, options.epochs)
            write_held_out(options.out, set_name, data, {name: predicted})
            accuracy = np.mean(predicted.argmax(1) == data.test_y)
            print(f" {100 * accuracy:.2f} % in {time.monotonic() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
