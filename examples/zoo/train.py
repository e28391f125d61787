"""Train the zoo with Brevitas and write what the tests need: NAME.onnx (QONNX), data-SET.npz (held-out data, labels and
Brevitas' own logits), and the table of README.md.

Needs the extras `brevitas` and `test`, and the packages of datasets.py. Its one rule: the same seed on the same machine gives
the same files.

    python examples/zoo/train.py
    python examples/zoo/train.py digits_mlp_4 digits_cnn_4 --epochs 3 --out /tmp/zoo
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import HERE, SETS, Data, MissingDataError, write_held_out
from models import ZOO, Entry
from table import held_out_of, write_table
from torch import Tensor, nn

BATCH = {"digits": 32, "fashion": 64, "motions": 8}


def logits(network: nn.Module, inputs: Tensor) -> Tensor:
    out = network(inputs)
    return out if isinstance(out, Tensor) else out.value  # a QuantTensor where the last layer quantizes


def fit(network: nn.Module, data: Data, entry: Entry, epochs: float, seed: int) -> None:
    """Adam, one cycle of the learning rate; the same seed takes the same batches."""
    inputs, labels = torch.from_numpy(data.real(data.train_x)), torch.from_numpy(data.train_y.astype(np.int64))
    batch = BATCH[entry.data]
    total = max(2, round(epochs * len(inputs) / batch))
    optimizer = torch.optim.Adam(network.parameters(), entry.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, entry.rate, total_steps=total)
    shuffle = torch.Generator().manual_seed(seed)
    network.train()
    done = 0
    while done < total:
        for rows in torch.randperm(len(inputs), generator=shuffle)[: len(inputs) // batch * batch].split(batch)[
            : total - done
        ]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(entry.sharpen * logits(network, inputs[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
            done += 1


def predict(network: nn.Module, data: Data) -> np.ndarray:
    network.eval()
    with torch.no_grad():
        return logits(network, torch.from_numpy(data.real(data.test_x))).numpy()


def export(network: nn.Module, data: Data, path: Path, entry: Entry) -> None:
    """One input of batch 1, by TorchScript's exporter or by the dynamo one, without what they print."""
    import onnx
    from brevitas.export import export_qonnx

    options: dict[str, Any] = {"dynamo": False, "opset_version": 13}
    if entry.dynamo:
        options = {"dynamo": True, "external_data": entry.external}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        export_qonnx(network.eval(), torch.from_numpy(data.real(data.test_x[:1])), export_path=str(path), **options)
    if entry.dynamo:
        model = onnx.load(path, load_external_data=False)
        for node in model.graph.node:  # they name the files of this machine
            kept = [prop for prop in node.metadata_props if prop.key != "pkg.torch.onnx.stack_trace"]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
        onnx.save(model, path)


def train(name: str, entry: Entry, data: Data, folder: Path, seed: int = 0, epochs: float | None = None) -> np.ndarray:
    """Train one row of the table and write folder/NAME.onnx; Brevitas' logits of the held-out data."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = entry.network(entry.recipe)
    fit(network, data, entry, entry.epochs if epochs is None else epochs, seed)
    predicted = predict(network, data)
    export(network, data, folder / f"{name}.onnx", entry)
    return predicted


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="train the zoo")
    parser.add_argument("names", nargs="*", metavar="NAME", help="some of: " + " ".join(ZOO))
    parser.add_argument("--epochs", type=float, help="instead of those of models.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: beside this script)")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in ZOO:
            parser.error(f"no model {name!r}; there are {' '.join(ZOO)}")
    names = options.names or list(ZOO)
    options.out.mkdir(parents=True, exist_ok=True)
    for kind in dict.fromkeys(ZOO[name].data for name in names):
        try:
            data = SETS[kind]()
        except MissingDataError as error:
            print(f"train: {error}", file=sys.stderr)
            return 2
        for name in (name for name in names if ZOO[name].data == kind):
            start = time.monotonic()
            print(f"{name} ...", end="", flush=True)
            predicted = train(name, ZOO[name], data, options.out, options.seed, options.epochs)
            write_held_out(options.out, kind, data, {name: predicted}, keep=set(ZOO))
            accuracy = 100 * np.mean(predicted.argmax(1) == data.test_y)
            print(f" {accuracy:.2f} % in {time.monotonic() - start:.1f} s", flush=True)
    write_table(options.out / "README.md", held_out_of(options.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
