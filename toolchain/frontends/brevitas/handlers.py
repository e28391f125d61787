"""Brevitas' two QONNX exporters with handlers of ours: each quantizer is exported as what it computes.

Its one rule: each correction says what Brevitas 0.13.4 exports instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from toolchain.errors import UnsupportedError
from toolchain.frontends.brevitas import checks

PATH = "_bitwright_path"  # attribute of a quantizer that forward() calls: its path in the module
TAG = "bitwright_path"  # attribute of a Quant node while it is exported: the quantizer that made it


@lru_cache(1)
def managers() -> tuple[Any, Any]:
    """Brevitas' two QONNX exporters with our handlers; classes, since Brevitas keeps its state on them."""
    import torch
    from brevitas.export import QONNXDynamoManager, QONNXManager
    from brevitas.export.onnx.qonnx import handler as theirs
    from brevitas.export.onnx.qonnx.function import DOMAIN_STRING, BrevitasBinaryQuantOp, BrevitasQuantOp

    class Tagged(torch.autograd.Function):  # type: ignore[misc]
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
            self.symbolic_kwargs: dict[str, Any] = checks.activation(self.path, module, self.symbolic_kwargs)
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
            self.symbolic_kwargs["rounding_mode"] = checks.rounding(f"module {path}", self.symbolic_kwargs)

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
            self.symbolic_kwargs["rounding_mode"] = checks.rounding(f"module {path}", self.symbolic_kwargs)

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


def _exact(where: str, kwargs: dict[str, Any], values: Iterable[Any], binary: bool) -> None:
    """Quant on the quantized weights must give them again, or the file would mean other weights."""
    if binary:
        return
    scale, zero = kwargs["scale"], kwargs["zero_point"]
    for value in values:
        code = (value / scale + zero).round()
        if not bool(((code - zero) * scale == value).all()):
            raise UnsupportedError(where, "its quantized weights are no multiples of its scale, must be")
