"""Read a saved or live QKeras model into one neutral description, without any framework.

Its one rule: what is returned is what the file says (layers in order, who feeds whom, float32 master weights by
name), nothing computed and nothing guessed; a file that does not say it is one ToolchainError.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from toolchain.errors import ToolchainError, UnsupportedError

_TRY_SAVE = (
    "save the whole model with model.save('name.h5') (QKeras 0.9, tf_keras) or model.save('name.keras') (qkeras-v3)"
)


@dataclass(frozen=True)
class Ref:
    """One tensor of the model: output `tensor` of call number `node` of `layer`."""

    layer: str
    node: int = 0
    tensor: int = 0


@dataclass(frozen=True)
class Layer:
    """One layer: its calls (a shared layer has several), each with the tensors it reads, and its named weights."""

    name: str
    class_name: str
    config: Mapping[str, Any]
    calls: tuple[tuple[Ref, ...], ...]
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """The neutral result: layers in the framework's order, named inputs and outputs in order."""

    name: str
    layers: tuple[Layer, ...]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    keras: int  # major version of the Keras that wrote it: 2 (QKeras 0.9.0) or 3 (qkeras-v3)
    sigmoid: str | None = None  # QKeras' process-wide internal sigmoid, known for a live model only

    def layer(self, name: str) -> Layer:
        return next(layer for layer in self.layers if layer.name == name)


WeightReader = Callable[[tuple[str, ...], str, Mapping[str, Any]], dict[str, np.ndarray]]


def is_live(source: object) -> bool:
    """True for a tf_keras or Keras 3 model object, told by its class names: nothing is imported."""
    return any(
        c.__name__ in ("Model", "Functional", "Sequential")
        and c.__module__.split(".")[0] in ("keras", "tf_keras", "tensorflow")
        for c in type(source).__mro__
    )


def read(source: object) -> Model:
    """The model in a .h5 or .keras file, or in a live keras.Model."""
    if is_live(source):
        from toolchain.frontends.qkeras import live

        return live.read(source)
    path = Path(str(source))
    if not path.is_file():
        raise ToolchainError(str(path), "there is no such file", "give the path of a saved .h5 or .keras model")
    head = path.open("rb").read(8)
    if head.startswith(b"PK"):
        return _read_keras(path)
    if head == b"\x89HDF\r\n\x1a\n":
        return _read_h5(path)
    raise ToolchainError(
        str(path), f"neither an HDF5 file nor a .keras zip archive (it begins with {head[:4]!r})", _TRY_SAVE
    )


def _json(where: str, text: object) -> dict[str, Any]:
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(str(text))
    except (ValueError, UnicodeDecodeError) as e:
        raise ToolchainError(where, f"its architecture is not readable JSON ({e})", _TRY_SAVE) from None
    if not isinstance(value, dict) or "class_name" not in value or "config" not in value:
        raise ToolchainError(where, "its architecture JSON is not a Keras model", _TRY_SAVE)
    return value


# --- .h5 -------------------------------------------------------------------------------------------------------------


def _read_h5(path: Path) -> Model:
    import h5py

    where = str(path)
    try:
        with h5py.File(path, "r") as f:
            if "model_config" not in f.attrs:
                kind = "weights only" if "layer_names" in f.attrs or "layers" in f else "not a Keras model"
                raise ToolchainError(where, f"an HDF5 file without attribute model_config: {kind}", _TRY_SAVE)
            architecture = _json(where, f.attrs["model_config"])
            if "model_weights" not in f:
                raise ToolchainError(where, "the file holds an architecture but no weights", _TRY_SAVE)
            version = f.attrs.get("keras_version", b"2")
            version = version.decode() if isinstance(version, bytes) else str(version)
            group = f["model_weights"]

            def weights(scope: tuple[str, ...], class_name: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
                return _h5_weights(where, group, scope, bool(_variable_names(class_name, config, False)))

            return assemble(where, architecture, weights, 3 if version.startswith("3") else 2)
    except (OSError, RuntimeError, KeyError) as e:
        raise ToolchainError(
            where, f"a truncated or damaged HDF5 file ({_first_line(e)})", "save or copy it again"
        ) from None


def _h5_weights(where: str, group: Any, scope: tuple[str, ...], has_weights: bool) -> dict[str, np.ndarray]:
    """Weights of one layer; a nested model keeps all of its weights, flat, in the group of the outermost layer."""
    if scope[0] not in group:
        if not has_weights:  # a Sequential's InputLayer has no group
            return {}
        raise ToolchainError(f"{where}: layer {scope[0]}", "the file holds no weights for this layer", _TRY_SAVE)
    g = group[scope[0]]
    found: dict[str, np.ndarray] = {}
    for raw in g.attrs.get("weight_names", []):
        name = raw.decode() if isinstance(raw, bytes) else str(raw)
        parts = name.split(":")[0].split("/")
        if len(scope) > 1 and scope[-1] not in parts[:-1]:
            continue
        if name not in g:
            raise ToolchainError(
                f"{where}: layer {'/'.join(scope)}", f"weight {name!r} is named but not stored", _TRY_SAVE
            )
        key = parts[-1]
        if key in found:
            raise UnsupportedError(
                f"layer {'/'.join(scope)}",
                f"two weights called {key!r} in one layer",
                "flatten the nested model before saving",
            )
        found[key] = np.asarray(g[name])
    return found


# --- .keras ----------------------------------------------------------------------------------------------------------


def _read_keras(path: Path) -> Model:
    import h5py

    where = str(path)
    try:
        with zipfile.ZipFile(path) as z:
            names = z.namelist()
            if "config.json" not in names:
                raise ToolchainError(where, "a zip archive without config.json: not a .keras model", _TRY_SAVE)
            architecture = _json(where, z.read("config.json"))
            if "model.weights.h5" not in names:
                raise ToolchainError(where, "the archive holds an architecture but no model.weights.h5", _TRY_SAVE)
            blob = z.read("model.weights.h5")
            metadata = json.loads(z.read("metadata.json")) if "metadata.json" in names else {}
        with h5py.File(io.BytesIO(blob), "r") as f:
            reader = _StoreReader(where, f)
            return assemble(
                where, architecture, reader.weights, 2 if str(metadata.get("keras_version")).startswith("2") else 3
            )
    except (zipfile.BadZipFile, OSError, RuntimeError, KeyError, EOFError) as e:
        raise ToolchainError(
            where, f"a truncated or damaged .keras archive ({_first_line(e)})", "save or copy it again"
        ) from None


class _StoreReader:
    """Weights of a .keras archive. Groups are numbered by class (`q_dense_1`), not named after the layers; the layer's
    name is the attribute `name` of its `vars` group, and variables are numbered in the order the layer made them."""

    def __init__(self, where: str, f: Any) -> None:
        self.where, self.root = where, f
        self.used: dict[str, int] = {}  # group path + class -> how many were met, for archives without names
        if "layers" not in f:
            raise UnsupportedError(where, "a .keras archive of an unknown layout (no group layers)", _TRY_SAVE)

    def weights(self, scope: tuple[str, ...], class_name: str, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
        names = _variable_names(class_name, config, "Batchnorm" in class_name)
        group = self.root
        for depth, name in enumerate(scope):
            last = depth == len(scope) - 1
            child = self._child(group, name, class_name if last else None)
            if child is None and last and not names:
                return {}
            if child is None:
                raise ToolchainError(
                    f"{self.where}: layer {'/'.join(scope)}", "the archive holds no weights for this layer", _TRY_SAVE
                )
            group = child
        own = self._numbered(group.get("vars"))
        label = f"layer {'/'.join(scope)}"
        if len(own) < len(names):
            raise ToolchainError(
                f"{self.where}: {label}",
                f"{len(own)} variables stored, {len(names)} expected ({', '.join(names)})",
                _TRY_SAVE,
            )
        if any(v.shape != () for v in own[len(names) :]):  # a folded layer also keeps its scalar iteration count
            raise UnsupportedError(
                label, f"{class_name} with {len(own)} variables, {len(names)} known", "use a layer the importer lists"
            )
        found = dict(zip(names, own, strict=False))
        for key, sub in group.items():
            if key != "vars" and hasattr(sub, "keys") and "vars" in sub and "Batchnorm" in class_name:
                inner = _variable_names("BatchNormalization", config, False)
                found.update(zip(inner, self._numbered(sub["vars"]), strict=True))
        return found

    def _child(self, group: Any, name: str, class_name: str | None) -> Any:
        children = group.get("layers", {})
        named = False
        for child in children.values():
            label = child["vars"].attrs.get("name") if "vars" in child else None
            named = named or label is not None
            if label is not None and _text(label) == name:
                return child
        if named or class_name is None:
            return None
        base = re.sub(
            r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
        ).lower()
        count = self.used[f"{group.name}/{base}"] = self.used.get(f"{group.name}/{base}", -1) + 1
        return children.get(f"{base}_{count}" if count else base)

    @staticmethod
    def _numbered(group: Any) -> list[np.ndarray]:
        if group is None:
            return []
        return [np.asarray(group[str(i)]) for i in range(sum(k.isdigit() for k in group))]


def _variable_names(class_name: str, config: Mapping[str, Any], folded: bool) -> list[str]:
    """Names of a layer's own variables in the order its build() makes them (checked against live models in the tests)."""
    bias = ["bias"] if config.get("use_bias") else []
    if class_name.endswith("BatchNormalization") and not folded:
        names = ["gamma"] if config.get("scale", True) else []
        return [*names, *(["beta"] if config.get("center", True) else []), "moving_mean", "moving_variance"]
    if "Separable" in class_name:
        return ["depthwise_kernel", "pointwise_kernel", *bias]
    if "DepthwiseConv" in class_name:
        return ["depthwise_kernel", *bias]
    if "Conv" in class_name or "Dense" in class_name:
        return ["kernel", *bias]
    if class_name == "PReLU":
        return ["alpha"]
    return []


# --- architecture ----------------------------------------------------------------------------------------------------


def assemble(where: str, architecture: Mapping[str, Any], weights: WeightReader, keras: int) -> Model:
    """Layers, calls, inputs and outputs from an architecture JSON of Keras 2 or Keras 3; nested models are inlined."""
    class_name, config = architecture["class_name"], architecture["config"]
    if class_name not in ("Sequential", "Functional", "Model"):
        raise UnsupportedError(
            where, f"a model of class {class_name!r}", "only Sequential and functional models are read"
        )
    name = config.get("name", "model") if isinstance(config, dict) else "model"
    layers, inputs, outputs = _network(where, class_name, config, weights, (), keras)
    return Model(name, tuple(layers), tuple(inputs), tuple(outputs), keras)


def _network(
    where: str, class_name: str, config: Any, weights: WeightReader, scope: tuple[str, ...], keras: int
) -> tuple[list[Layer], list[Ref], list[Ref]]:
    entries = config["layers"] if isinstance(config, dict) else config
    if not entries:
        raise ToolchainError(where, "the model has no layers", "save a built model")
    names = [e.get("name") or e["config"].get("name", "") for e in entries]
    if class_name == "Sequential":
        calls, inputs, entries, names = _sequential(where, config, entries, names)
        ends = [Ref(names[-1])]
    else:
        calls = {
            n: [tuple(_inbound(n, node)) for node in e.get("inbound_nodes", [])]
            for n, e in zip(names, entries, strict=True)
        }
        inputs = [Ref(*r[:3]) for r in _refs(config["input_layers"])]
        ends = [Ref(*r[:3]) for r in _refs(config["output_layers"])]
    layers: list[Layer] = []
    nested: dict[str, list[list[Ref]]] = {}  # inner model -> per call, the tensors its outputs became
    for name, entry in zip(names, entries, strict=True):
        node_calls = [tuple(_resolve(r, nested) for r in call) for call in calls.get(name, [])]
        full = (*scope, name)
        kind = entry["class_name"].split(">")[-1]  # Keras 3 writes "qkeras>QDense" in .h5 files
        if kind in ("Sequential", "Functional", "Model"):
            if len(node_calls) != 1:
                raise UnsupportedError(
                    f"layer {'/'.join(full)}",
                    f"a nested model called {len(node_calls)} times",
                    "call its layers directly",
                )
            inner, ins, outs = _network(where, kind, entry["config"], weights, full, keras)
            bound = dict(zip(ins, node_calls[0], strict=True))
            for layer in inner:
                moved = tuple(tuple(bound.get(r) or _prefixed(r, name) for r in call) for call in layer.calls)
                if layer.class_name != "InputLayer":
                    layers.append(Layer(f"{name}/{layer.name}", layer.class_name, layer.config, moved, layer.weights))
            nested[name] = [[bound.get(r) or _prefixed(r, name) for r in outs]]
            continue
        found = weights(full, kind, entry["config"])
        _check_finite("/".join(full), found)
        layers.append(Layer(name, kind, entry["config"], tuple(node_calls), found))
    return layers, [_resolve(r, nested) for r in inputs], [_resolve(r, nested) for r in ends]


def _prefixed(r: Ref, name: str) -> Ref:
    return Ref(f"{name}/{r.layer}", r.node, r.tensor)


def _resolve(r: Ref, nested: Mapping[str, list[list[Ref]]]) -> Ref:
    return nested[r.layer][0][r.tensor] if r.layer in nested else r


def _sequential(
    where: str, config: Any, entries: list[Any], names: list[str]
) -> tuple[Any, list[Ref], list[Any], list[str]]:
    entries, names = list(entries), list(names)
    if entries[0]["class_name"] != "InputLayer":
        first = entries[0]["config"]
        shape = first.get("batch_input_shape") or first.get("batch_shape")
        if shape is None and isinstance(config, dict):
            shape = config.get("build_input_shape")
        if shape is None:
            raise ToolchainError(
                where, "the first layer does not say its input shape", "start the model with an Input layer"
            )
        entries.insert(0, {"class_name": "InputLayer", "config": {"name": "input", "batch_shape": shape}})
        names.insert(0, "input")
    calls: dict[str, list[tuple[Ref, ...]]] = {names[0]: [()]}
    for before, name in pairwise(names):
        calls[name] = [(Ref(before),)]
    return calls, [Ref(names[0])], entries, names


def _refs(value: Any) -> Iterator[list[Any]]:
    """Flatten ["a", 0, 0] or [["a", 0, 0], ...] or {"x": ["a", 0, 0]}: Keras writes all of them."""
    if isinstance(value, dict):
        for v in value.values():
            yield from _refs(v)
    elif value and isinstance(value[0], str):
        yield value
    else:
        for v in value:
            yield from _refs(v)


def _inbound(name: str, node: Any) -> Iterator[Ref]:
    if isinstance(node, dict):  # Keras 3: {"args": [...], "kwargs": {...}}
        yield from _tensors(node.get("args", []))
        rest = {k: v for k, v in node.get("kwargs", {}).items() if k not in ("training", "mask")}
        if any(True for _ in _tensors(rest)):
            raise UnsupportedError(f"layer {name}", "tensors passed by keyword", "pass them by position")
        return
    for item in _refs(node):  # Keras 2: [["layer", node, tensor, {kwargs}], ...]
        extra = item[3] if len(item) > 3 else {}
        if any(isinstance(v, list) and v and isinstance(v[0], str) for v in extra.values()):
            raise UnsupportedError(f"layer {name}", "tensors passed by keyword", "pass them by position")
        yield Ref(item[0], item[1], item[2])


def _tensors(value: Any) -> Iterator[Ref]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield Ref(*value["config"]["keras_history"])
        else:
            for v in value.values():
                yield from _tensors(v)
    elif isinstance(value, (list, tuple)):
        for v in value:
            yield from _tensors(v)


def _check_finite(layer: str, weights: Mapping[str, np.ndarray]) -> None:
    for name, w in weights.items():
        bad = ~np.isfinite(w) if w.dtype.kind == "f" else np.zeros(w.shape, bool)
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ToolchainError(
                f"layer {layer}",
                f"weight {name!r} holds {int(bad.sum())} NaN or infinite values, the first at {first}",
                "train or restore it again",
            )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_line(e: BaseException) -> str:
    return re.sub(r"\s+", " ", str(e)).strip("'\" ")[:120]
