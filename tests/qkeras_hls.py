"""One small QKeras model of many kinds, as graph text: `python qkeras_hls.py FOLDER`, in the framework's own process.

For back ends that must compute what QKeras trains: every weighted layer, each weight quantizer, activations, pools, joins.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import qkeras_models  # noqa: E402

from toolchain.ir import dump  # noqa: E402


def main(folder: str) -> None:
    every = qkeras_models.pairs()
    for pair in qkeras_models.quick():
        rng = np.random.default_rng([7, *pair.encode()])
        qkeras_models.keras.backend.clear_session()
        build, exact = every[pair]
        model = build(rng)
        qkeras_models.draw_weights(model, rng, exact)
        graph = qkeras_models.front_end.load(model)
        name = "".join(c if c.isalnum() else "_" for c in pair)
        (Path(folder) / f"{name}.graph").write_text(dump(graph), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
