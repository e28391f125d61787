"""What QKeras itself computes for a model, tensor by tensor: the other side of `bitwright verify`.

Its one rule: only here does this front end import a framework; nothing of what it says goes into a graph.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.errors import MissingToolError, UnsupportedError
from toolchain.framework import PLAIN, Affine, Rounded, Run, Shown, stderr_silenced
from toolchain.frontends.qkeras import archive
from toolchain.frontends.qkeras.lowering import Lowered, lower_model
from toolchain.ir.values import Value
from toolchain.options import LoadOptions

BATCH = 64


def run(source: object, options: LoadOptions) -> Run:
    """What to call with real inputs [batch, ...] by name: every layer's output that the graph has a tensor for."""
    model = archive.read(source)
    lowered = lower_model(model, options)
    with stderr_silenced():
        live: Any = source if archive.is_live(source) else _load(Path(str(source)), model.keras)

    def answer(reals: Mapping[str, np.ndarray]) -> list[Shown]:
        with stderr_silenced():
            return _run(live, model, lowered, reals)

    return answer


@dataclass
class _Ask:
    """The framework's tensors that are wanted, each once."""

    tensors: list[Any] = field(default_factory=list)

    def __call__(self, tensor: Any) -> int:
        for i, known in enumerate(self.tensors):
            if known is tensor:
                return i
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def _run(live: Any, model: archive.Model, lowered: Lowered, reals: Mapping[str, np.ndarray]) -> list[Shown]:
    ask = _Ask()
    asked: dict[tuple[str, Affine], tuple[archive.Ref, Callable[[list[np.ndarray]], np.ndarray]]] = {}
    for ref, value in lowered.values.items():
        if "/" in ref.layer or ref.layer in lowered.host or model.layer(ref.layer).class_name == "InputLayer":
            continue
        asked[value.tensor.name, _meaning(value)] = ref, _whole(ask(_output(live, ref)))  # the last that leaves it so
    for tensor, ref, made in zip(lowered.graph.outputs, model.outputs, live.outputs, strict=True):
        get = _whole(ask(made)) if ref.layer not in lowered.host else _before(live, model, lowered, ref, ask)
        asked.setdefault((tensor.name, PLAIN), (ref, get))
    rounds: dict[str, tuple[archive.Ref, Callable[[list[np.ndarray]], np.ndarray]]] = {}
    for (name, meaning), (ref, _) in asked.items():
        if name in lowered.before and meaning == PLAIN:
            maker = next((r for r, v in lowered.values.items() if v.tensor.name == name and "/" not in r.layer), ref)
            if "/" not in maker.layer and model.layer(maker.layer).class_name != "InputLayer":
                rounds[name] = maker, _before(live, model, lowered, maker, ask)
    given = [np.asarray(reals[lowered.values[r].tensor.name], dtype=np.float32) for r in model.inputs]
    answers = type_of_model(live)(live.inputs, ask.tensors).predict(
        given if len(given) > 1 else given[0], batch_size=BATCH, verbose=0
    )
    answers = [np.asarray(y) for y in (answers if isinstance(answers, (list, tuple)) else [answers])]
    found = []
    for (name, meaning), (ref, get) in asked.items():
        rounded = None
        if name in rounds and meaning == PLAIN:
            maker, before = rounds[name]
            v = lowered.before[name]
            rounded = Rounded(
                v.tensor.name, _meaning(v), before(answers), partial(_quantize, live.get_layer(maker.layer))
            )
        found.append(Shown(name, ref.layer, get(answers), meaning, rounded))
    return found


def _meaning(v: Value) -> Affine:
    return Affine(v.slope, v.intercept, v.lo, v.hi)


def _whole(i: int) -> Callable[[list[np.ndarray]], np.ndarray]:
    return lambda answers: answers[i]


def _before(
    live: Any, model: archive.Model, lowered: Lowered, ref: archive.Ref, ask: _Ask
) -> Callable[[list[np.ndarray]], np.ndarray]:
    """What the layer's activation reads: the layer's input, or for an activation within a layer, the layer without it."""
    layer = live.get_layer(ref.layer)
    given = _node(layer, ref).input_tensors
    read = ask(given[0] if isinstance(given, (list, tuple)) else given)
    kind = model.layer(ref.layer).class_name
    if kind in ("QActivation", "Activation", "Softmax"):
        return _whole(read)

    def without(answers: list[np.ndarray]) -> np.ndarray:
        kept, layer.activation = layer.activation, None
        try:
            return _batches(lambda x: layer(x, training=False), answers[read])
        finally:
            layer.activation = kept

    return without


def _quantize(layer: Any, x: np.ndarray) -> np.ndarray:
    """The layer's quantizer of these values, in the framework."""
    alone = type(layer).__name__ in ("QActivation", "Activation")
    return _batches(layer if alone else layer.activation, x)


def _batches(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    parts = [np.asarray(function(tf.constant(x[i : i + BATCH], tf.float32))) for i in range(0, len(x), BATCH)]
    return np.concatenate(parts)


def type_of_model(live: Any) -> Any:
    """The functional Model class of the Keras that made it."""
    return next(c for c in type(live).__mro__ if c.__name__ == "Model" and "keras" in c.__module__)


def _output(live: Any, ref: archive.Ref) -> Any:
    made = _node(live.get_layer(ref.layer), ref).outputs
    return made[ref.tensor] if isinstance(made, (list, tuple)) else made


def _node(layer: Any, ref: archive.Ref) -> Any:
    return (getattr(layer, "_inbound_nodes", None) or layer.inbound_nodes)[ref.node]


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
