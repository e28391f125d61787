"""A copy of the module through Brevitas' own exporter, with handlers that export what the module computes.

Its one rule: the exporter's quirks are corrected where the value is still known exactly, in the handlers; the file that comes out
needs no guessing. The module, the random state and the loggers are left as they were.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolchain.errors import MissingToolError, UnsupportedError
from toolchain.frontends.brevitas import checks
from toolchain.options import LoadOptions

OPSET = 13  # what Brevitas' documentation asks of the TorchScript exporter; dynamo chooses its own
PATH = "_bitwright_path"  # attribute of a quantizer that forward() calls: its path in the module
TAG = "bitwright_path"  # attribute of a Quant node while it is exported: the quantizer that made it
INPUT = "LoadOptions(input_shape=(1, 28, 28))"


@dataclass(frozen=True)
class Exported:
    """The file, the copy it was made of (in eval mode, on the CPU), and which Quant is which quantizer."""

    model: Any  # onnx.ModelProto
    module: Any
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
    return Exported(model, module, shape, _untag(model))


def _need(name: str) -> None:
    try:
        import brevitas
        import onnx
        import onnxoptimizer  # noqa: F401  the exporter needs both
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
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    logging.disable(logging.CRITICAL)
    try:
        with open(os.devnull, "w") as null, redirect_stdout(null), redirect_stderr(null), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def copied(name: str, source: Any) -> Any:
    """In eval mode, on the CPU, its result plain tensors (a QuantTensor's scale would become a graph output), no export under way."""
    import torch

    try:
        module = copy.deepcopy(source).cpu().eval()
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
        if getattr(part, "export_handler", None) is not None:  # left by an export of the user's that failed
            part.export_handler = None
            part._export_mode = False
    inner = module.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return plain(inner(*args, **kwargs))

    forward.__signature__ = _signature(inner)  # type: ignore[attr-defined]
    module.forward = types.MethodType(forward, module)
    return module


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

    legacy, dynamo = _managers()
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


@lru_cache(1)
def _managers() -> tuple[Any, Any]:
    """Brevitas' two QONNX exporters with our handlers; classes, since Brevitas keeps its state on them."""
    import torch
    from brevitas.export import QONNXDynamoManager, QONNXManager
    from brevitas.export.onnx.qonnx import handler as theirs
    from brevitas.export.onnx.qonnx.function import DOMAIN_STRING, BrevitasBinaryQuantOp, BrevitasQuantOp

    class Tagged(torch.autograd.Function):
        """Quant and BipolarQuant of the TorchScript exporter, with the path of their quantizer."""

        @staticmethod
        def symbolic(g: Any, x: Any, scale: Any, zero: Any, bits: Any, narrow: bool, signed: bool, mode: str, path: str):  # type: ignore[no-untyped-def]  # fmt: skip
            if path.startswith("!"):
                made = g.op(f"{DOMAIN_STRING}::BipolarQuant", x, scale, **{f"{TAG}_s": path[1:]})
            else:
                kwargs = {"rounding_mode_s": mode, "signed_i": int(signed), "narrow_i": int(narrow)}
                made = g.op(f"{DOMAIN_STRING}::Quant", x, scale, zero, bits, **kwargs, **{f"{TAG}_s": path})
            made.setType(x.type())
            return made

        @staticmethod
        def forward(ctx: Any, x: Any, *_: Any) -> Any:
            return x.clone()  # the graph alone is wanted

    class Act(theirs.BrevitasActQuantProxyHandler):  # type: ignore[misc]
        def prepare_for_export(self, module: Any) -> None:
            self.path = getattr(module, PATH, None)
            if self.path is None:
                return
            super().prepare_for_export(module)
            self.binary = checks.is_binary(module)
            self.symbolic_kwargs = checks.activation(self.path, module, self.symbolic_kwargs)
            self.quant_op = BrevitasBinaryQuantOp if self.binary else BrevitasQuantOp

        def symbolic_execution(self, x: Any) -> Any:
            if not torch.jit.is_tracing():
                return super().symbolic_execution(x)
            k = self.symbolic_kwargs
            tag = f"!{self.path}" if self.binary else self.path
            return Tagged.apply(x, *k.values(), tag), k["scale"], k["zero_point"], k["bit_width"]

    class Bias(theirs.BrevitasBiasQuantProxyHandler):  # type: ignore[misc]
        def prepare_for_export(self, module: Any) -> None:
            path = getattr(module, PATH, None)
            if path is None:
                return
            super().prepare_for_export(module)
            self.follows_input = module.requires_input_scale
            checks.integer_zero_point(f"module {path}", self.symbolic_kwargs["zero_point"])
            mode = str(self.symbolic_kwargs["rounding_mode"]).rpartition(".")[2].upper()
            if mode not in checks.MODES:
                raise UnsupportedError(
                    f"module {path}",
                    f"rounding {mode} has no QONNX rounding mode; supported: {', '.join(checks.MODES)}",
                )
            self.symbolic_kwargs["rounding_mode"] = checks.MODES[mode]

        def symbolic_execution(self, x: Any, input_scale: Any = None, input_bit_width: Any = None) -> Any:
            if self.follows_input and input_scale is not None:  # theirs keeps the scale of the layer's last call
                self.symbolic_kwargs["scale"] = input_scale
            return super().symbolic_execution(x, input_scale, input_bit_width)

    class Trunc(theirs.BrevitasTruncQuantProxyHandler):  # type: ignore[misc]
        def prepare_for_export(self, module: Any) -> None:
            path = getattr(module, PATH, None)
            if path is None:
                return
            super().prepare_for_export(module)
            mode = str(self.symbolic_kwargs["rounding_mode"]).rpartition(".")[2].upper()
            if mode not in checks.MODES:
                raise UnsupportedError(
                    f"module {path}",
                    f"rounding {mode} has no QONNX rounding mode; supported: {', '.join(checks.MODES)}",
                )
            self.symbolic_kwargs["rounding_mode"] = checks.MODES[mode]

    def weight(base: Any) -> Any:
        class Weight(base):  # type: ignore[misc]
            """The values that the module multiplies by, where Brevitas exports the float weights they were made of."""

            def prepare_for_export(self, module: Any) -> None:
                self.path = getattr(module, PATH, None)
                if self.path is None:
                    return
                where = f"module {self.path}"
                super().prepare_for_export(module)
                values = self.quant_weight_values
                for value in (*values.values(), self.symbolic_kwargs["scale"]):
                    if not bool(torch.isfinite(value).all()):
                        raise UnsupportedError(where, "its quantized weights are not finite")
                checks.integer_zero_point(where, self.symbolic_kwargs["zero_point"])
                binary = checks.is_binary(module)
                if not binary:
                    checks.one_bit(where, self.symbolic_kwargs)
                self.quant_op = BrevitasBinaryQuantOp if binary else BrevitasQuantOp
                _exact(where, self.symbolic_kwargs, values.values(), binary)

            def symbolic_execution(self, x: Any, *args: Any) -> Any:
                values = list(self.quant_weight_values.values())
                if len(values) > 1:
                    values = [v for p, v in self.quant_weight_values.items() if p == x.data_ptr()]
                if len(values) != 1 or values[0].shape != x.shape:
                    raise UnsupportedError(
                        f"module {self.path}", "its quantizer serves several layers", "give each its own"
                    )
                return super().symbolic_execution(values[0].detach(), *args)

        return Weight

    handlers = [
        Act,
        Bias,
        Trunc,
        weight(theirs.BrevitasWeightQuantProxyHandler),
        weight(theirs.BrevitasDecoupledWeightQuantProxyHandler),
        weight(theirs.BrevitasDecoupledWeightQuantWithInputProxyHandler),
        theirs.BrevitasQuantLSTMLayerHandler,
    ]
    legacy = type("Legacy", (QONNXManager,), {"handlers": handlers})
    dynamo = type("Dynamo", (QONNXDynamoManager,), {"handlers": handlers})
    return legacy, dynamo


def _exact(where: str, kwargs: dict[str, Any], values: Any, binary: bool) -> None:
    """Quant on the quantized weights must give them again, or the file would mean other weights."""
    if binary:
        return
    scale, zero = kwargs["scale"], kwargs["zero_point"]
    for value in values:
        code = (value / scale + zero).round()
        if not bool(((code - zero) * scale == value).all()):
            raise UnsupportedError(where, "its quantized weights are no multiples of its scale, must be")


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
