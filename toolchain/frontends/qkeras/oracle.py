"""What QKeras itself computes for a model, tensor by tensor: the other side of `bitwright verify`.

Its one rule: only here does this front end import a framework; nothing of what it says goes into a graph.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.errors import MissingToolError, UnsupportedError
from toolchain.frontends.qkeras import archive
from toolchain.frontends.qkeras.lowering import Lowered, lower_model
from toolchain.options import LoadOptions

Told = dict[str, tuple[str, np.ndarray]]  # tensor of the graph -> layer of the model, real values [batch, ...]


def run(source: object, options: LoadOptions, reals: Mapping[str, np.ndarray]) -> Told:
    """Real inputs [batch, ...] by input name through the framework: the values of every tensor that is a layer's output."""
    model = archive.read(source)
    lowered = lower_model(model, options)
    with _silence():
        return _run(source, model, lowered, reals)


@contextmanager
def _silence() -> Iterator[None]:
    """TensorFlow greets on standard error from C++, where no logging level reaches it."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _run(source: object, model: archive.Model, lowered: Lowered, reals: Mapping[str, np.ndarray]) -> Told:
    live: Any = source if archive.is_live(source) else _load(Path(str(source)), model.keras)
    wanted: dict[str, archive.Ref] = {}
    for ref, value in lowered.values.items():
        made = model.layer(ref.layer).class_name != "InputLayer" and ref.layer not in lowered.host
        if made and value.plain and "/" not in ref.layer:
            wanted[value.tensor.name] = ref  # the last layer that leaves this tensor as it is
    outputs = [_output(live, ref) for ref in wanted.values()]
    given = [np.asarray(reals[lowered.values[r].tensor.name], dtype=np.float32) for r in model.inputs]
    answers = type_of_model(live)(live.inputs, outputs).predict(
        given if len(given) > 1 else given[0], batch_size=64, verbose=0
    )
    answers = answers if isinstance(answers, (list, tuple)) else [answers]
    return {name: (ref.layer, np.asarray(y)) for (name, ref), y in zip(wanted.items(), answers, strict=True)}


def type_of_model(live: Any) -> Any:
    """The functional Model class of the Keras that made it."""
    return next(c for c in type(live).__mro__ if c.__name__ == "Model" and "keras" in c.__module__)


def _output(live: Any, ref: archive.Ref) -> Any:
    layer = live.get_layer(ref.layer)
    nodes = getattr(layer, "_inbound_nodes", None) or layer.inbound_nodes
    made = nodes[ref.node].outputs
    return made[ref.tensor] if isinstance(made, (list, tuple)) else made


def _load(path: Path, keras: int) -> Any:
    where = f"verify {path.name}"
    if keras == 2:
        if "tensorflow" not in sys.modules:
            os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import qkeras
        from qkeras.utils import load_qmodel
    except ImportError as e:
        raise MissingToolError(
            where, f"QKeras is not installed ({e})", "pip install 'bitwright[qkeras]'; load and simulate do not need it"
        ) from None
    fork = hasattr(qkeras, "quantized_linear")
    if fork != (keras == 3):
        need, have = ("qkeras-v3", "QKeras 0.9") if keras == 3 else ("QKeras 0.9 with tf_keras", "qkeras-v3")
        raise MissingToolError(
            where, f"the model was written by {need}, but {have} is installed", f"run verify where {need} is"
        )
    try:
        return load_qmodel(str(path), compile=False)
    except Exception as e:  # whatever the framework raises, it is its opinion of the file
        raise UnsupportedError(
            where, f"QKeras itself cannot load the file ({str(e).splitlines()[0][:160]})", "save it again"
        ) from None
