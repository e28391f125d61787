"""A copy of the module through Brevitas' own exporter, with handlers that export what the module computes.

Its one rule: the exporter's quirks are corrected where the value is still known exactly, in the handlers; the file that comes out
needs no guessing. The module, the random state and the loggers are left as they were.
"""

from __future__ import annotations

import copy
import logging
import os
import re
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from toolchain.errors import MissingToolError, UnsupportedError
from toolchain.framework import stderr_silenced
from toolchain.frontends.brevitas import checks
from toolchain.frontends.brevitas.handlers import PATH, TAG, managers
from toolchain.options import LoadOptions

OPSET = 13  # what Brevitas' documentation asks of the TorchScript exporter; dynamo chooses its own
INPUT = "LoadOptions(input_shape=(1, 28, 28))"


@dataclass(frozen=True)
class Exported:
    """The file, and which Quant in it is which quantizer of the module."""

    model: Any  # onnx.ModelProto
    shape: tuple[int, ...]  # of the input, without the batch
    quantizers: dict[str, tuple[str, int]]  # name of a Quant's output -> path of the quantizer, which call of it


def run(source: Any, options: LoadOptions) -> Exported:
    """Copy, try on zeros, check every quantizer that is called, export."""
    name = f"module {type(source).__name__}"
    _need(name)
    import torch

    with _silence(), torch.random.fork_rng(devices=[]), torch.no_grad():
        module = copied(name, source)
        shape = _shape(name, module, options)
        used = _dry_run(name, module, shape)
        for path, proxy in used.items():
            checks.check(path, proxy)
            setattr(proxy, PATH, path)
        model = _export(name, module, shape)
        for proxy in used.values():
            proxy.export_mode = False
    quantizers = _untag(model)
    names = _rename(model)
    return Exported(model, shape, {names.get(n, n): call for n, call in quantizers.items()})


def _need(name: str) -> None:
    try:
        import brevitas
        import onnx  # noqa: F401  the exporter needs all four
        import onnxoptimizer  # noqa: F401
        import torch  # noqa: F401
    except ImportError as e:
        raise MissingToolError(
            name,
            f"Brevitas and its exporter are not installed ({e})",
            "pip install 'bitwright[brevitas]', or load the model's saved .onnx, which needs neither",
        ) from None
    if brevitas.config.JIT_ENABLED:
        raise UnsupportedError(
            name,
            "Brevitas runs with BREVITAS_JIT=1, whose modules cannot be exported",
            "load the state_dict without it",
        )


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters print, log, warn, and greet on standard error from C++; none of it is for the user."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            stderr_silenced(),
            open(os.devnull, "w") as null,
            redirect_stdout(null),
            redirect_stderr(null),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def copied(name: str, source: Any) -> Any:
    """In eval mode, on the CPU, its result plain tensors (a QuantTensor's scale would become a graph output), no export under way."""
    import torch

    try:
        module = copy.deepcopy(source, _left_out(source)).cpu().eval()
    except Exception as e:
        raise UnsupportedError(
            name, f"cannot be copied ({_line(e)})", "load its state_dict into a fresh model"
        ) from None
    for path, p in module.named_parameters():
        if p.is_floating_point() and p.dtype != torch.float32:
            raise UnsupportedError(
                f"module {path}",
                f"its values are {str(p.dtype).removeprefix('torch.')}, must be float32",
                "call .float()",
            )
    for part in module.modules():
        if getattr(part, "_export_mode", False):  # left by an export of the user's that failed
            part._export_mode = False
    inner = module.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(inner(*args, **kwargs))

    forward.__signature__ = _signature(inner)  # type: ignore[attr-defined]
    module.forward = types.MethodType(forward, module)
    return module


def _left_out(source: Any) -> dict[int, Any]:
    """A memo for deepcopy: another export's handlers stay behind, and results that have a gradient, which cannot be copied."""
    import torch

    found: dict[int, Any] = {}
    for part in source.modules():
        if getattr(part, "export_handler", None) is not None:
            found[id(part.export_handler)] = None
        for value in vars(part).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                found[id(value)] = value.detach().clone()
    return found


def _signature(inner: Any) -> Any:
    import inspect

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    mine = inspect.signature(inner)
    return mine.replace(parameters=[first, *mine.parameters.values()])


def plain(value: Any) -> Any:
    """A QuantTensor is a named tuple whose first entry is the value."""
    if hasattr(value, "_fields") and "value" in value._fields:
        return value.value
    if isinstance(value, dict):
        return type(value)((k, plain(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(plain(v) for v in value)
    return value


def _shape(name: str, module: Any, options: LoadOptions) -> tuple[int, ...]:
    if options.input_shape is not None:
        return tuple(options.input_shape)
    first = next((m for m in module.modules() if hasattr(m, "weight") and getattr(m, "weight", None) is not None), None)
    features = getattr(first, "in_features", None)
    if features is None:
        raise UnsupportedError(
            name, "the shape of its input is not known", f"give it without the batch, as bw.load(model, {INPUT})"
        )
    return (int(features),)


def _dry_run(name: str, module: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """The quantizers that forward() calls, by path; UnsupportedError where it does not run on one sample."""
    import torch
    from brevitas.proxy.quant_proxy import QuantProxyFromInjector

    calls: Counter[str] = Counter()
    given: dict[str, list[Any]] = {}
    proxies = {p: m for p, m in module.named_modules() if isinstance(m, QuantProxyFromInjector)}

    def hook(path: str) -> Any:
        def count(_: Any, args: Any, __: Any) -> None:
            calls[path] += 1
            given.setdefault(path, []).append(args[0] if args else None)

        return count

    handles = [m.register_forward_hook(hook(path)) for path, m in proxies.items()]
    try:
        module(torch.zeros((1, *shape)))
    except Exception as e:
        try_ = f"give the shape of one input, as bw.load(model, {INPUT})"
        raise UnsupportedError(name, f"does not run on an input of shape [1, {', '.join(map(str, shape))}] ({_line(e)})", try_) from None  # fmt: skip
    finally:
        for h in handles:
            h.remove()
    used = {p: m for p, m in proxies.items() if calls[p] and m.is_quant_enabled}
    for path, proxy in used.items():
        if type(proxy).__name__.startswith("Trunc"):
            _trunc(path, given[path])
    return used


def _trunc(path: str, given: list[Any]) -> None:
    """The exporter takes the scale of a truncation's last call for all, and cannot say a zero point."""
    if any(bool((x.zero_point != 0).any()) for x in given):
        raise UnsupportedError(
            f"module {path}", "truncates values with a zero point, which Brevitas cannot export",
            "quantize its input without one (Int8Act or Uint8Act)",
        )  # fmt: skip
    kinds = {(tuple(x.scale.flatten().tolist()), float(x.bit_width), bool(x.signed)) for x in given}
    if len(kinds) > 1:
        raise UnsupportedError(
            f"module {path}", "is called with inputs of different scales, which Brevitas exports wrongly",
            "use one module for each",
        )  # fmt: skip


def _export(name: str, module: Any, shape: tuple[int, ...]) -> Any:
    """The TorchScript exporter: it is the faster by far and takes QuantTensor arithmetic; dynamo where it fails."""
    import inspect

    import torch

    legacy, dynamo = managers()
    sample = torch.zeros((1, *shape))
    result = module(sample)
    count = len(result) if isinstance(result, (list, tuple, dict)) else 1
    names = {
        "input_names": [next(iter(inspect.signature(module.forward).parameters), "input")],
        "output_names": ["output"] if count == 1 else [f"output{i}" for i in range(count)],
    }
    try:
        return legacy.export(
            module, args=sample, dynamo=False, opset_version=OPSET, keep_initializers_as_inputs=False, **names
        )
    except UnsupportedError:
        raise
    except Exception as e:
        legacy.set_export_mode(module, enabled=False)
        first = e
    try:
        return dynamo.export(module, args=(sample,), dynamo=True, optimize=True, verbose=False, **names)
    except UnsupportedError:
        raise
    except Exception:
        raise UnsupportedError(name, f"Brevitas cannot export it ({_line(first)})") from None


def _line(e: BaseException) -> str:
    text = str(e).strip()
    return (text.splitlines()[0] if text else type(e).__name__)[:160]


def _untag(model: Any) -> dict[str, tuple[str, int]]:
    """Which quantizer, and which call of it, made each Quant's output; the tags leave the file."""
    calls: Counter[str] = Counter()
    found: dict[str, tuple[str, int]] = {}
    for node in model.graph.node:
        for attribute in [a for a in node.attribute if a.name == TAG]:
            path = attribute.s.decode()
            found[node.output[0]] = path, calls[path]
            calls[path] += 1
            node.attribute.remove(attribute)
    return found


def _rename(model: Any) -> dict[str, str]:
    """Tensors called after the module that makes them: l.3, not /l/l.3/act_quant/export_handler/Quant_output_0. Old name -> new."""
    fixed = {v.name for v in (*model.graph.input, *model.graph.output)} | {t.name for t in model.graph.initializer}
    wanted: dict[str, tuple[str, str]] = {}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in fixed and name.startswith("/"):
                wanted[name] = _module(name), node.op_type
    taken = Counter(path for path, _ in wanted.values())
    found: dict[str, str] = {}
    used = fixed | {name for node in model.graph.node for name in node.output if name not in wanted}
    for name, (path, op) in wanted.items():
        last = taken[path] > 1 and op not in ("Quant", "BipolarQuant", "Trunc")
        new = ".".join(filter(None, (path, op if last or not path else "")))
        k = 1
        while new in used:
            k += 1
            new = ".".join(filter(None, (path, f"{op}{k}")))
        used.add(new)
        found[name] = new
    for node in model.graph.node:
        node.input[:] = [found.get(n, n) for n in node.input]
        node.output[:] = [found.get(n, n) for n in node.output]
        node.name = node.output[0] if node.output[0] in used - fixed else node.name
    for value in model.graph.value_info:
        value.name = found.get(value.name, value.name)
    return found


def _module(name: str) -> str:
    """/l/l.3/act_quant/export_handler/Quant_output_0 -> l.3: the exporter's scopes are attributes, and whole paths of lists' entries."""
    path: list[str] = []
    for part in name.strip("/").split("/")[:-1]:
        part = re.sub(r"^(export_handler|activation_impl)_\d+$", r"\1", part)  # the second time that it is called
        if "." in part and path and part.partition(".")[0] == path[-1].rpartition(".")[2]:
            path[-1] = ".".join((path[-1], part.partition(".")[2]))
        elif part == "weight_quant":
            path.append("weight")
        elif part == "bias_quant":
            path.append("bias")
        elif part == "input_quant":
            path.append("input")
        elif part not in ("act_quant", "output_quant", "trunc_quant", "export_handler", "activation_impl"):
            path.append(part)
    return ".".join(path)
