"""The data of the zoo, each set read from a package that pip or apt installs: digits, fashion, motions.

Its one rule: a set is the same arrays everywhere. The held-out part is written beside the models (data-NAME.npz), so that only
training needs the packages. Inputs are kept as the package has them; the networks see `inputs / divisor` in float32.
"""

from __future__ import annotations

import gzip
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist
FASHION_TRAIN, FASHION_TEST = 12_000, 500  # the first so many of each part


class MissingDataError(Exception):
    """Which package is not installed, and how to get it."""


@dataclass(frozen=True)
class Data:
    """Inputs as the package has them, [n, channels, ...], and labels; what the networks see is `real(inputs)`."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    divisor: int

    def real(self, inputs: np.ndarray) -> np.ndarray:
        """A float32 division, as torchvision's ToTensor does it."""
        return inputs.astype(np.float32) / np.float32(self.divisor)


def digits() -> Data:
    """1797 images of 8x8 pixels 0..16; a fifth is held out, the same as in examples/digits."""
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDataError("scikit-learn is not installed; pip install scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.uint8)
    parts = train_test_split(images, labels.astype(np.uint8), test_size=0.2, random_state=0, stratify=labels)
    train_x, test_x, train_y, test_y = parts
    return Data(train_x, train_y, test_x, test_y, 16)


def idx(path: Path, start: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=start)


def fashion() -> Data:
    """28x28 pixels 0..255 of ten kinds of clothing: the first 12,000 images to train, the first 500 of the test part."""
    if not FASHION.is_dir():
        raise MissingDataError(f"no folder {FASHION}; as root: apt-get install dataset-fashion-mnist")
    arrays = []
    for part, count in (("train", FASHION_TRAIN), ("t10k", FASHION_TEST)):
        arrays.append(idx(FASHION / f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count])
        arrays.append(idx(FASHION / f"{part}-labels-idx1-ubyte.gz", 8)[:count])
    return Data(*arrays, divisor=255)


def aeon_folder() -> Path:
    """Where aeon's files lie. It is never imported: it wants numba, which wants an older numpy than ours."""
    overlay = Path(sys.prefix) / "overlays" / "aeon" / "aeon"  # scripts/setup.py full puts it there
    if overlay.is_dir():
        return overlay
    spec = importlib.util.find_spec("aeon")
    if spec is None or spec.origin is None:
        raise MissingDataError("aeon is not installed; pip install --no-deps aeon")
    return Path(spec.origin).parent


def read_ts(path: Path) -> tuple[np.ndarray, list[str]]:
    """A .ts file of equally long series: float32 [case, channel, time] and the class of each case."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] not in "#@"]
    cases = [line.split(":") for line in lines]
    series = [[[float(v) for v in channel.split(",")] for channel in channels] for *channels, _ in cases]
    return np.array(series, np.float32), [case[-1] for case in cases]


def motions() -> Data:
    """BasicMotions: 3 accelerations and 3 turning rates of a smart watch, 100 steps of 0.1 s; 40 cases to train, 40 to test."""
    folder = aeon_folder() / "datasets" / "data" / "BasicMotions"
    (train_x, train), (test_x, test) = (read_ts(folder / f"BasicMotions_{part}.ts") for part in ("TRAIN", "TEST"))
    kinds = sorted(set(train))
    train_y, test_y = (np.array([kinds.index(kind) for kind in part], np.uint8) for part in (train, test))
    return Data(train_x, train_y, test_x, test_y, 1)


SETS = {"digits": digits, "fashion": fashion, "motions": motions}


def held_out(folder: Path, name: str) -> Path:
    return folder / f"data-{name}.npz"


def write_held_out(folder: Path, name: str, data: Data, logits: dict[str, np.ndarray], keep: set[str]) -> None:
    """inputs, labels, divisor, and float32 logits under the name of each model; of earlier ones those to `keep`."""
    path = held_out(folder, name)
    earlier = {key: value for key, value in np.load(path).items() if key in keep} if path.is_file() else {}
    arrays = {"inputs": data.test_x, "labels": data.test_y, "divisor": np.array(data.divisor), **earlier, **logits}
    unfinished = path.with_suffix(".new.npz")  # whoever reads meanwhile has the old file
    np.savez_compressed(unfinished, **dict(sorted(arrays.items())))
    unfinished.replace(path)
