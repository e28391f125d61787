"""Read a live keras.Model (tf_keras or Keras 3) into the same neutral description as a file.

Its one rule: what QKeras leaves out of get_config (scale_axis, is_quantized_clip, ...) is taken from the object itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.frontends.qkeras.archive import Model, assemble

LOST = ("scale_axis", "is_quantized_clip", "elements_per_scale", "min_po2_exponent", "max_po2_exponent")
"""Attributes that change the result and that QKeras' get_config does not tell."""


def read(model: Any) -> Model:
    """`get_config` and the current weights of every layer."""
    keras = 3 if type(model).__module__.startswith("keras.src") or _base_module(model) == "keras" else 2
    if not getattr(model, "built", True):
        raise UnsupportedError(
            f"model {model.name}", "it is not built, so it has no weights", "call model.build(input_shape) first"
        )
    kind = next(
        (c.__name__ for c in type(model).__mro__ if c.__name__ in ("Sequential", "Functional")), type(model).__name__
    )
    config = model.get_config()
    _patch(config, model)

    def weights(scope: tuple[str, ...], class_name: str, layer_config: Mapping[str, Any]) -> dict[str, np.ndarray]:
        owner = model
        for name in scope:
            owner = _layer(owner, name)
        return (
            {_last(v): np.asarray(w) for v, w in zip(owner.weights, owner.get_weights(), strict=True)}
            if owner is not None
            else {}
        )

    found = assemble(f"model {model.name}", {"class_name": kind, "config": config}, weights, keras)
    return replace(found, sigmoid=_internal_sigmoid())


def _internal_sigmoid() -> str | None:
    """What set_internal_sigmoid was last told, if QKeras is loaded in this process."""
    function = getattr(sys.modules.get("qkeras.quantizers"), "_sigmoid", None)
    return {"hard_sigmoid": "hard", "smooth_sigmoid": "smooth", "sigmoid": "real"}.get(
        getattr(function, "__name__", "")
    )


def plain(value: Any) -> Any:
    """A config value without framework objects: a quantizer object becomes {class_name, config} with what it hides."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "get_config") and not isinstance(value, type):
        config = {k: plain(v) for k, v in value.get_config().items()}
        config.update({k: plain(getattr(value, k)) for k in LOST if getattr(value, k, None) is not None})
        return {"class_name": type(value).__name__, "config": config}
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if hasattr(value, "numpy"):
        return plain(value.numpy())
    return value


def _patch(config: Any, owner: Any) -> None:
    entries = config["layers"] if isinstance(config, dict) else config
    for entry in entries:
        layer = _layer(owner, entry.get("name") or entry["config"].get("name", ""))
        if layer is None:
            continue
        if "layers" in entry["config"]:
            _patch(entry["config"], layer)
            continue
        c = entry["config"] = dict(entry["config"])
        for key in [k for k in c if k.endswith("_quantizer") or k == "activation"]:
            held = getattr(layer, f"{key}_internal", None) or getattr(layer, key, None)
            if key == "activation" and hasattr(layer, "quantizer"):
                held = layer.quantizer
            c[key] = plain(held if hasattr(held, "get_config") and not isinstance(held, str) else c[key])
        entry["config"] = {
            k: v if k.endswith(("initializer", "regularizer", "constraint")) else plain(v) for k, v in c.items()
        }


def _layer(owner: Any, name: str) -> Any:
    return next((layer for layer in owner.layers if layer.name == name), None)


def _last(variable: Any) -> str:
    return str(getattr(variable, "path", None) or variable.name).split("/")[-1].split(":")[0]


def _base_module(model: Any) -> str:
    return next((c.__module__.split(".")[0] for c in type(model).__mro__ if c.__name__ == "Model"), "")
