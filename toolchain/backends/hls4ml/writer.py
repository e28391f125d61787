"""A Network through hls4ml's ModelGraph and writer, captured as files: the only room that imports hls4ml.

One rule: hls4ml is believed nothing. Every layer must have its function in the C++, and every type must be the one that was
asked for; else no file leaves this room. The same network gives the same bytes: no path, no date, no stamp.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import data
from toolchain.errors import MissingToolError, UnsupportedError

from . import checks
from .bench import exact
from .layers import KERNELS, Layer, Network
from .tools import tool

if TYPE_CHECKING:
    from toolchain.passes.plan import Hls

PROJECT = "network"  # the name of hls4ml's top function and of its files
STAMP = "00000000"  # hls4ml's own is random
HEADERS = ["nnet_utils/nn_kernels.h", "nn_constants.h"]
Files = dict[str, "str | bytes"]


@dataclass(frozen=True)
class Port:
    """A parameter of hls4ml's top function: its name and type in C++, and the layer that it carries."""

    name: str
    type: str
    layer: Layer


@dataclass(frozen=True)
class Written:
    """hls4ml's project by name (text, or bytes where it is none), its top function's parameters, its constants in C++."""

    files: Files
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    constants: tuple[str, ...]


def write(network: Network, hls: Hls, part: str, clock_hz: int, board: str = "") -> Written:
    """The project of a network; ToolchainError where hls4ml would not do as told."""
    checks.before(network, hls)
    with _alone() as hls4ml:
        _register(hls4ml, tool(hls.tool).templates or hls.tool)
        with tempfile.TemporaryDirectory(prefix="bitwright-hls-") as scratch:
            root = Path(scratch) / "hls"
            model = _model(hls4ml, network, hls, part, clock_hz, board, str(root))
            checks.after(network, model, hls)
            _set_fifo_depths(network, model, hls)
            hls4ml.writer.get_writer(hls.tool).write_hls(model)
            files = _captured(root)
            bench = f"{PROJECT}_test.cpp"
            if bench in files:  # for Quartus there is none where there are several outputs
                files[bench] = exact(str(files[bench]))
            ports = [
                tuple(Port(v.name, v.type.name, network.layer(name)) for v, name in zip(found, names, strict=True))
                for found, names in (
                    (model.get_input_variables(), network.inputs),
                    (model.get_output_variables(), network.outputs),
                )
            ]
            constants = tuple(w.definition_cpp() for layer in model.get_layers() for w in layer.get_weights())
        chosen = tool(hls.tool)
    files["firmware/nn_constants.h"] = _constants(network, chosen.family)
    templates = data.folder("firmware_templates") / "hls" / "nnet_utils"
    files["firmware/nnet_utils/nn_kernels.h"] = (templates / "nn_kernels.h").read_text(encoding="utf-8")
    types = (templates / f"nn_types_{chosen.types}.h").read_text(encoding="utf-8")
    files["firmware/nnet_utils/nn_types.h"] = types
    if chosen.types == "catapult":
        # hls4ml's convolutions need what this header defines, also where no kernel of ours includes it
        name = "firmware/parameters.h"
        mark = "// hls-fpga-machine-learning insert includes\n"
        assert str(files[name]).count(mark) == 1, "hls4ml's parameters.h has another form"
        files[name] = str(files[name]).replace(mark, f'{mark}#include "nnet_utils/nn_types.h"\n')
    return Written(dict(sorted(files.items())), ports[0], ports[1], constants)


@contextlib.contextmanager
def _alone() -> Iterator[Any]:
    """hls4ml, quiet and with no framework: its writer tries to import keras, which would start TensorFlow or torch."""
    kept = sys.modules.get("keras", _alone)
    sys.modules["keras"] = None  # type: ignore[assignment]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            try:
                import hls4ml
                import hls4ml.model.graph
            except ImportError as error:
                raise MissingToolError(
                    "hls4ml", f"cannot be imported: {error}", "pip install 'bitwright[hls4ml]'"
                ) from None
            yield hls4ml
    finally:
        if kept is _alone:
            sys.modules.pop("keras", None)
        else:
            sys.modules["keras"] = kept  # type: ignore[assignment]


def _model(hls4ml: Any, network: Network, hls: Hls, part: str, clock_hz: int, board: str, root: str) -> Any:
    backend = hls4ml.backends.get_backend(hls.tool)
    options = {"part": part, "clock_period": _period(clock_hz), "io_type": hls.io}
    if hls.tool == "VivadoAccelerator":
        # hls4ml writes no C++ type but these for the two ends, and swaps their widths: both have the one that holds all values
        bits = max(network.layer(name).result.bits for name in (*network.inputs, *network.outputs))
        ends = "float" if bits <= 24 else "double"
        options |= {"board": board, "input_type": ends, "output_type": ends}
    config = backend.create_initial_config(**options)
    config |= {"OutputDir": root, "ProjectName": PROJECT, "Backend": hls.tool, "Stamp": STAMP}
    config["HLSConfig"] = {
        # no layer may fall back on this: what does is found by checks.py
        "Model": {"Precision": "ap_fixed<1,1>", "ReuseFactor": 1, "Strategy": "Latency"},
        "LayerName": {layer.name: _layer_config(layer, hls) for layer in network.layers},
    }
    layers = [_as_hls4ml(layer) for layer in network.layers]
    try:
        return hls4ml.model.graph.ModelGraph.from_layer_list(
            config, layers, list(network.inputs), list(network.outputs)
        )
    except Exception as error:  # hls4ml raises plain Exceptions for what it does not do
        what = f"does not take this network: {' '.join(str(error).split()) or type(error).__name__}"
        raise UnsupportedError(
            f"hls4ml {hls.tool}", what, "use another --hls, --io or --strategy, and report it"
        ) from None


def _period(clock_hz: int) -> float:
    period = 1e9 / clock_hz
    return int(period) if period == int(period) else round(period, 3)


def _layer_config(layer: Layer, hls: Hls) -> dict[str, Any]:
    types = {"result": layer.result, "default": layer.result, **layer.types}
    adders = "distributed_arithmetic" in hls.strategy.values()  # da4ml's generator takes fixed point alone
    config: dict[str, Any] = {"Precision": {key: value.fixed if adders else value.hls for key, value in types.items()}}
    mac = bool(layer.types)
    return config | {
        "ReuseFactor": hls.reuse_at(layer.op) if mac else 1,
        "Strategy": hls.strategy_at(layer.op) if mac else "Latency",
    }


def _as_hls4ml(layer: Layer) -> dict[str, Any]:
    found = {"class_name": layer.class_name, "name": layer.name, "inputs": list(layer.inputs), "outputs": [layer.name]}
    return found | ({"bitwright": layer} if layer.ours else dict(layer.attributes))


_REGISTERED: set[str] = set()


def _register(hls4ml: Any, name: str) -> None:
    """Our layers and the templates of their calls, once for each back end."""
    if name in _REGISTERED:
        return
    from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
    from hls4ml.model.layers import Layer as HlsLayer
    from hls4ml.model.layers import layer_map, register_layer

    class Kernel(HlsLayer):  # type: ignore[misc]
        def initialize(self) -> None:
            given: Layer = self.get_attr("bitwright")
            self.add_output_variable(list(given.shape))

    backend = hls4ml.backends.get_backend(name)
    for class_name, function in KERNELS.items():
        layer_class = layer_map.get(class_name)
        if layer_class is None:
            layer_class = type(class_name, (Kernel,), {})
            register_layer(class_name, layer_class)

        class Config(LayerConfigTemplate):  # type: ignore[misc]
            def __init__(self, layer_class: type = layer_class) -> None:
                super().__init__(layer_class)

            def format(self, node: Any) -> str:
                return _config_struct(node.get_attr("bitwright"), node.index)

        class Call(FunctionCallTemplate):  # type: ignore[misc]
            def __init__(self, layer_class: type = layer_class, function: str = function) -> None:
                super().__init__(layer_class, include_header=HEADERS)
                self.function = function

            def format(self, node: Any) -> str:
                given, p = node.get_attr("bitwright"), self._default_function_params(node)
                read = [node.get_input_variable(name) for name in node.inputs]
                tables = [_table_name(given, key) for key in given.tables]
                types = ", ".join([*(v.type.name for v in read), p["output_t"], p["config"]])
                return f"nnet::{self.function}<{types}>({', '.join([*(v.name for v in read), p['output'], *tables])});"

        backend.register_template(Config)
        backend.register_template(Call)
    _REGISTERED.add(name)


def _config_struct(layer: Layer, index: int) -> str:
    rows = []
    for key, value in layer.numbers.items():
        kind = "long long" if key in ("lo", "hi", "output_offset", "value") else "int"
        rows.append(f"    static const {kind} {key} = {_literal(value) if kind != 'int' else value};")
    return "\n".join([f"struct config{index} {{", *rows, "};", ""])


def _table_name(layer: Layer, key: str) -> str:
    return f"{layer.name}_{key}"


def _literal(value: int | str) -> str:
    """A 64-bit literal; C++ has none for the least."""
    return "(-9223372036854775807LL - 1)" if value == -(1 << 63) else f"{value}LL"


def _constants(network: Network, family: str) -> str:
    """The tables of our kernels. (hls4ml's own constants go through doubles, which lose integers of 2**53 and more.)"""
    lines = ["/* Tables of the kernels in nnet_utils/nn_kernels.h. Do not edit. */", "#ifndef NN_CONSTANTS_H_"]
    lines += ["#define NN_CONSTANTS_H_", ""]
    for layer in network.layers:
        for key, table in layer.tables.items():
            values = ", ".join(_literal(v) if abs(v) >= 1 << 31 else str(v) for v in table.values)
            lines.append(f"{table.type.cpp(family)} {_table_name(layer, key)}[{len(table.values)}] = {{{values}}};")
    return "\n".join([*lines, "", "#endif", ""])


FLOOR = 2  # tokens of a stream between an op and what this back end puts before it: a chain needs no more


def _set_fifo_depths(network: Network, model: Any, hls: Hls) -> None:
    """hls4ml makes every stream as long as its tensor; Plan knows what is needed, by tensor and by copy for each reader."""
    if hls.io != "io_stream" or not hls.fifo_depth:
        return
    ours = {layer.name: layer for layer in network.layers}
    for layer in model.get_layers():
        for name, variable in layer.variables.items():
            source, _, copy = name.partition("_cpy")
            made = ours.get(source)
            if made is None or not (isinstance(variable.pragma, tuple) and variable.pragma[0] == "stream"):
                continue
            key = f"{made.op}_cpy{copy}" if copy else made.op
            depth = FLOOR if made.inner else hls.fifo_depth.get(key)
            if depth is not None:
                variable.pragma = ("stream", depth)


def _captured(root: Path) -> Files:
    """What was written, by name, with no trace of where."""
    files: Files = {}
    where = str(root)
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        raw = path.read_bytes()
        if name.endswith((".tar.gz", ".yml")):
            continue  # the archive of the same files, and what hls4ml would need to do this again
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            files[name] = raw
            continue
        text = text.replace(where, ".")
        assert str(root.parent) not in text, f"{name} holds a path of this machine"
        files[name] = text
    return files
