"""Live Brevitas modules: equal to the module's own forward where scales are powers of two, verified elsewhere, refused by path.

The quick run takes one of each kind; BITWRIGHT_FULL=1 takes layers by quantizers by bits, and the dynamo exporter.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import brevitas_models as zoo
from tests.brevitas_models import INT, UINT, WEIGHT, act, calibrated, conv, identity, linear, needs_brevitas, sequence
from toolchain import LoadOptions, flow, inputs
from toolchain.errors import MissingToolError, ToolchainError, UnsupportedError
from toolchain.frontends import brevitas
from toolchain.ir import Graph

pytestmark = needs_brevitas
FULL = bool(os.environ.get("BITWRIGHT_FULL"))


def options(module: Any) -> LoadOptions:
    return LoadOptions(input_shape=module.shape)


def forward(module: Any, graph: Graph, stored: dict[str, np.ndarray]) -> np.ndarray:
    """The module's own result on what these stored inputs are worth, channels last as the graph has it."""
    import torch

    [t] = graph.inputs
    real = inputs.dequantize(t, stored[t.name]).astype(np.float32)
    if real.ndim > 2 and real.shape[1:] != module.shape:
        real = np.moveaxis(real, -1, 1)
    with torch.no_grad():
        out = zoo.plain(module(torch.from_numpy(np.ascontiguousarray(real))))
    [o] = graph.outputs
    return np.moveaxis(out, 1, -1) if out.shape[1:] != o.shape else out


def exact(module: Any) -> None:
    """simulate gives the module's own integers, and the module's values are whole numbers of steps."""
    graph = flow.load(module, options(module))
    stored = inputs.made_up(graph, 64)
    [o] = graph.outputs
    steps = forward(module, graph, stored).astype(np.float64) / np.array([float(s) for s in o.qtype.scales])
    np.testing.assert_array_equal(steps, np.rint(steps))
    outputs, _ = flow.simulate(graph, stored)
    np.testing.assert_array_equal(outputs[o.name], steps.astype(np.int64) + o.qtype.zero_point)
    found = flow.verify(module, graph, stored, options(module))
    assert found.equal and not any(found.causes.values())


def verified(module: Any) -> None:
    """Nothing unexplained, on the module itself and on the file that it is exported to."""
    graph = flow.load(module, options(module))
    stored = inputs.made_up(graph, 64)
    for source in (module, brevitas.load(module, options(module))):
        found = flow.verify(source, graph, stored, options(module))
        assert found.equal, found.first
        assert all(t.largest <= 1 for t in found.tensors)
        assert all(o.argmax_equal == 1 for o in found.outputs)


# --- power-of-two scales: equal -----------------------------------------------------------------------------------------

Build = Callable[[], Any]
BITS = (2, 3, 4, 8) if FULL else (2, 8)
EXACT: dict[str, Build] = {
    **{f"linear {b} bits": lambda b=b: linear(WEIGHT, weight_bit_width=b) for b in BITS},
    **{f"linear {b} bits per channel": lambda b=b: linear("Int8WeightPerChannelFixedPoint", weight_bit_width=b) for b in BITS},
    **{f"activation {a} {b} bits": lambda a=a, b=b: sequence(identity(), identity(a, bit_width=b)) for a in (INT, UINT) for b in BITS},
    **{f"relu {b} bits": lambda b=b: sequence(identity(), act("QuantReLU", UINT, bit_width=b)) for b in (1, *BITS)},
    "conv 2d": lambda: conv(WEIGHT, padding=1),
    "conv 1d": lambda: conv(WEIGHT, dim=1, stride=2, padding=2),
    "conv dilated": lambda: conv(WEIGHT, dilation=2),
    "depthwise per channel": lambda: conv("Int8WeightPerChannelFixedPoint", groups=4, padding=1),
    "grouped 1d": lambda: conv(WEIGHT, dim=1, groups=2),
    "int8 bias": lambda: linear(WEIGHT, bias="Int8Bias"),
    "int16 bias": lambda: conv(WEIGHT, bias="Int16Bias"),
    "bias with its own scale": lambda: linear(WEIGHT, bias="Int8BiasPerTensorFixedPointInternalScaling"),
    "mse": lambda: linear("Int8WeightPerTensorFixedPointMSE", "Int8ActPerTensorFixedPointMSE"),
    "decoupled": lambda: linear("Int4WeightPerTensorFixedPointDecoupled"),
    "ternary weight, scale 1/4": lambda: linear("SignedTernaryWeightPerTensorConst", weight_scaling_init=0.25),
    "binary weight, scale 1/2": lambda: conv("SignedBinaryWeightPerTensorConst", weight_scaling_init=0.5),
    "binary activation": lambda: sequence(identity(), identity("SignedBinaryActPerTensorConst")),
    "ternary activation": lambda: sequence(identity(), identity("SignedTernaryActPerTensorConst", scaling_init=0.5)),
    "ternary, threshold 1/2": lambda: sequence(identity(), identity(quant_type="ternary", threshold=0.5, scaling_impl_type="const", scaling_init=1.0, bit_width=2)),
    "zero point": lambda: sequence(identity("ShiftedUint8ActPerTensorFixedPoint"), identity("ShiftedUint8ActPerTensorFixedPoint", bit_width=4)),
    "hardtanh": lambda: sequence(identity(), act("QuantHardTanh", INT, min_val=-1.0, max_val=1.0, bit_width=4)),
    "sigmoid": lambda: sequence(identity(), act("QuantSigmoid", UINT, bit_width=4)),
    "tanh": lambda: sequence(identity(), act("QuantTanh", INT, bit_width=5)),
    "floor": lambda: sequence(identity(), identity(float_to_int_impl_type="floor", bit_width=4)),
    "ceil": lambda: sequence(identity(), identity(float_to_int_impl_type="ceil", bit_width=4)),
    "round to zero": lambda: sequence(identity(), identity(float_to_int_impl_type="round_to_zero", bit_width=4)),
    "stochastic": lambda: sequence(identity(), identity(float_to_int_impl_type="stochastic_round", bit_width=4)),
    "weight floor": lambda: linear(WEIGHT, weight_float_to_int_impl_type="floor", weight_bit_width=3),
    "weight to zero": lambda: linear(WEIGHT, weight_float_to_int_impl_type="round_to_zero", weight_bit_width=3),
    "average pool": lambda: sequence(identity(), *_truncated(2, "RoundTo8bit", bit_width=4)),
    "average pool, floor": lambda: sequence(identity(), *_truncated(4, "TruncTo8bit"), shape=(3, 8, 4)),
    "average pool, shift": lambda: sequence(identity(), *_truncated(2, "ShiftRoundSaturateTo8bit", bit_width=5)),
    "global average pool": lambda: sequence(identity(), *_truncated(1, "RoundTo8bit", "TruncAdaptiveAvgPool2d"), shape=(3, 4, 4)),
    "add": lambda: _add(INT),
    "cat": lambda: _cat(),
    "twice": lambda: _twice(),
    "network": lambda: zoo.network(),
}  # fmt: skip


def _truncated(size: int, quant: str, layer: str = "TruncAvgPool2d", **more: Any) -> list[Any]:
    """4 bits, then an average pool that truncates."""
    qnn = zoo.quiet()
    return [identity(bit_width=4), getattr(qnn, layer)(size, trunc_quant=zoo.quantizer(quant), **more)]


def _add(quant: str) -> Any:
    qnn = zoo.quiet()
    q = zoo.quantizer(quant)
    return zoo.wired(
        lambda m, x: (lambda y: m.add(m.a(y), m.b(y)))(m.first(x)),
        first=identity(quant), a=identity(quant, bit_width=5), b=act("QuantReLU", UINT, bit_width=4),
        add=qnn.QuantEltwiseAdd(input_quant=q, output_quant=q, return_quant_tensor=True),
    )  # fmt: skip


def _cat() -> Any:
    """QuantCat does not run in Brevitas 0.13.4; what it does is the concatenation of one quantizer's outputs."""
    import torch

    return zoo.wired(
        lambda m, x: (lambda y: torch.cat([m.q(y), m.q(m.relu(y))], dim=1))(m.first(x)),
        first=identity(), relu=act("QuantReLU", UINT, bit_width=4), q=identity(bit_width=5),
    )  # fmt: skip


def _twice() -> Any:
    """A layer with a bias on two scales: Brevitas exports the bias of the second for both."""
    qnn = zoo.quiet()
    c = qnn.QuantConv2d(4, 4, 3, padding=1, bias=True, weight_quant=zoo.quantizer(WEIGHT), bias_quant=zoo.quantizer("Int8Bias"), return_quant_tensor=True)  # fmt: skip
    return zoo.wired(
        lambda m, x: m.c(m.r2(m.c(m.r1(m.first(x))))),
        first=identity(), r1=act("QuantReLU", UINT), r2=act("QuantReLU", UINT, bit_width=4), c=c,
    )  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_power_of_two_scales_are_equal(name: str) -> None:
    exact(calibrated(EXACT[name]))


# --- any other scale: verified ------------------------------------------------------------------------------------------

WEIGHTS: dict[str, dict[str, Any]] = {
    "Int8WeightPerTensorFloat": {"weight_bit_width": 4},
    "Int8WeightPerChannelFloat": {"weight_bit_width": 3},
    "SignedBinaryWeightPerTensorConst": {},
    "SignedTernaryWeightPerTensorConst": {},
    "ShiftedUint8WeightPerTensorFloat": {},
    "ShiftedUint8WeightPerChannelFloat": {"weight_bit_width": 4},
    "Int8WeightPerTensorFloatMSE": {},
    "Int8WeightPerChannelFloatDecoupled": {},
    "Int8AccumulatorAwareWeightQuant": {},
    "Int8AccumulatorAwareZeroCenterWeightQuant": {},
    "Int8WeightPerTensorFloatHQO": {},
}
ACTS: dict[str, dict[str, Any]] = {
    "Int8ActPerTensorFloat": {"bit_width": 4},
    "Uint8ActPerTensorFloat": {},
    "ShiftedUint8ActPerTensorFloat": {"bit_width": 5},
    "Int8ActPerTensorFloatMSE": {},
    "Int8ActPerTensorFloatMinMaxInit": {"min_val": -2.3, "max_val": 2.3},
    "Uint8ActPerTensorFloatMaxInit": {"max_val": 2.3},
}
FLOAT: dict[str, Build] = {
    **{f"linear {w}": lambda w=w, k=k: linear(w, **k) for w, k in WEIGHTS.items()},
    **{f"activation {a}": lambda a=a, k=k: linear(WEIGHT, a, acts=k) for a, k in ACTS.items()},
    "scale of the weights' average": lambda: linear("Int8WeightPerChannelFloat", **zoo.BINARY_STATS),
    "parameter": lambda: linear("Int8WeightPerTensorFloat", weight_scaling_impl_type="parameter", weight_scaling_init=0.7),
    "ternary threshold": lambda: linear("Int8WeightPerTensorFloat", weight_quant_type="ternary", weight_threshold=0.4, weight_bit_width=2),
    "float bias": lambda: linear("Int8WeightPerTensorFloat", "Int8ActPerTensorFloat", floating=True),
    "int8 bias": lambda: linear("Int8WeightPerChannelFloat", "Int8ActPerTensorFloat", bias="Int8Bias"),
    "int32 bias": lambda: conv("Int8WeightPerChannelFloat", bias="Int32Bias"),
    "depthwise": lambda: conv("Int8WeightPerChannelFloat", groups=4),
    "weight norm": lambda: linear("Int8WeightNormL2PerChannelFixedPoint"),
    "average pool of 36": lambda: sequence(identity(), *_truncated(1, "RoundTo8bit", "TruncAdaptiveAvgPool2d")),
    "trunc": lambda: sequence(identity(), act("QuantReLU", "Uint8ActPerTensorFloat", bit_width=4), *_truncated(3, "TruncTo8bit")[1:]),
    "add": lambda: _add("Int8ActPerTensorFloat"),
    "relu per channel": lambda: sequence(identity(), act("QuantReLU", scaling_per_output_channel=True, per_channel_broadcastable_shape=(1, 4, 1, 1), scaling_stats_permute_dims=(1, 0, 2, 3))),
    "tanh of float scales": lambda: sequence(identity("Int8ActPerTensorFloat"), act("QuantTanh", bit_width=4)),
    "network": lambda: zoo.network("Int8WeightPerChannelFloat", "Int8ActPerTensorFloat", "Uint8ActPerTensorFloat"),
    "network of 8 bits": lambda: zoo.network("Int8WeightPerTensorFloat", "Int8ActPerTensorFloat", "Uint8ActPerTensorFloat", bits=8),
}  # fmt: skip
if FULL:
    for _w, _k in WEIGHTS.items():
        FLOAT |= {f"conv {_w}": lambda w=_w, k=_k: conv(w, padding=1, **k), f"conv1d {_w}": lambda w=_w, k=_k: conv(w, dim=1, bias=None if w.startswith("Shifted") else "Int16Bias", **k)}  # fmt: skip
        FLOAT |= {f"{_w} {a}": lambda w=_w, k=_k, a=a, j=j: linear(w, a, acts=j, **k) for a, j in ACTS.items()}


@pytest.mark.parametrize("name", FLOAT)
def test_any_other_scale_is_verified(name: str) -> None:
    verified(calibrated(FLOAT[name]))


def test_a_quantizer_that_divides_in_float32_is_told_from_a_wrong_graph() -> None:
    """0.75 / float32(0.1) is less than 7.5, and float32 makes 7.5 of it."""
    quiet = {"scaling_impl_type": "const", "min_val": -1.6, "max_val": 1.6, "bit_width": 5}
    module = sequence(
        identity("Int8ActPerTensorFixedPointMinMaxInit", min_val=-2.0, max_val=2.0),
        identity("Int8ActPerTensorFloatMinMaxInit", **quiet),
        shape=(4,),
    ).eval()
    graph = flow.load(module, options(module))
    found = flow.verify(module, graph, {"input": np.arange(-128, 128).reshape(-1, 4)}, options(module))
    assert found.equal and found.causes == {"follows": 0, "float32_tie": 2, "float32_range": 0, "unexplained": 0}


# --- what is refused, and by which words --------------------------------------------------------------------------------

KNOWN = "ROUND, CEIL, FLOOR, ROUND_TO_ZERO, STOCHASTIC_ROUND"
REFUSED: dict[str, tuple[Build, str]] = {
    "minifloat weights": (lambda: linear("Fp8e4m3WeightPerTensorFloat"), "module 1.weight_quant: its quantizer makes minifloats (FloatQuant), must make integers; use an Int or Uint quantizer"),
    "minifloat activations": (lambda: sequence(identity("Fp8e4m3ActPerTensorFloat")), "module 0.act_quant: its quantizer makes minifloats (FloatQuant), must make integers; use an Int or Uint quantizer"),
    "groups": (lambda: linear("MXInt8Weight"), "module 1.weight_quant: its quantizer has a scale for each group (MX), must have one for each tensor or channel"),
    "dynamic": (lambda: sequence(identity(proxy_class=_dynamic(), scaling_impl_type="stats")), "module 0.act_quant: its scale depends on the data of each call, must be constant; use a statistics or learned scale"),
    "one signed bit": (lambda: sequence(identity(bit_width=1)), "module 0.act_quant: a signed integer quantizer of 1 bit gives -1 and 0, which QONNX cannot say; use a binary quantizer (QuantType.BINARY) for -1 and 1, or 2 bits"),
    "dpu": (lambda: sequence(identity(float_to_int_impl_type="dpu")), f"module 0.act_quant: rounding DPU has no QONNX rounding mode; supported: {KNOWN}"),
    "ternary": (lambda: sequence(identity(quant_type="ternary", threshold=0.7, scaling_impl_type="const", scaling_init=1.0, bit_width=2)), "module 0.act_quant: ternary threshold 0.7 has no QONNX operator, must be 0.5"),
    "delay": (lambda: sequence(identity(quant_delay_steps=1000)), "module 0.act_quant: its quantizer is still off, until quant_delay_steps have passed; train on, or build the model without quant_delay_steps"),
    "zero point": (lambda: linear("ShiftedUint8WeightPerTensorFloatHQO"), "module 1.weight_quant: its zero point is no integer, must be one; use quantize_zero_point=True"),
    "one bit weights": (lambda: linear("Int8WeightPerTensorFloat", weight_bit_width=1), "module 1.weight_quant: its quantized weights are not finite"),
    "trunc": (lambda: sequence(identity("ShiftedUint8ActPerTensorFloat"), *_truncated(2, "TruncTo8bit")[1:]), "module 1.trunc_quant: truncates values with a zero point, which Brevitas cannot export; quantize its input without one (Int8Act or Uint8Act)"),
    "trunc twice": (lambda: _trunc_twice(), "module p.trunc_quant: is called with inputs of different scales, which Brevitas exports wrongly; use one module for each"),
    "half": (lambda: sequence(identity()).double(), "module 0.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value: its values are float64, must be float32; call .float()"),
}  # fmt: skip


def _dynamic() -> Any:
    from brevitas.proxy.runtime_quant import DynamicActQuantProxyFromInjector

    return DynamicActQuantProxyFromInjector


def _trunc_twice() -> Any:
    import torch

    qnn = zoo.quiet()
    return zoo.wired(
        lambda m, x: torch.cat([m.p(m.a(x)).value, m.p(m.b(8 * x)).value], 1),
        a=identity(), b=act("QuantReLU", UINT), p=qnn.TruncAvgPool2d(2),
    )  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_file_can_say_is_refused_with_its_path(name: str) -> None:
    build, text = REFUSED[name]
    module = calibrated(build) if name != "half" else build().eval()
    with pytest.raises(UnsupportedError) as e:
        flow.load(module, options(module))
    assert str(e.value) == text


def test_what_has_seen_no_data_is_refused() -> None:
    for module in (sequence(identity()).eval(), sequence(act("QuantReLU", scaling_impl_type="stats", scaling_stats_op="max")).eval()):  # fmt: skip
        with pytest.raises(UnsupportedError) as e:
            flow.load(module, options(module))
        assert str(e.value) == "module 0.act_quant: its scale is not known, since it has seen no data; train or calibrate the model first"  # fmt: skip


def test_a_trained_model_that_was_loaded_again_has_its_statistics() -> None:
    trained, fresh = calibrated(lambda: linear(WEIGHT)), linear(WEIGHT)
    fresh.load_state_dict(trained.state_dict())
    fresh.eval()
    assert flow.load(fresh, options(fresh)).digest() == flow.load(trained, options(trained)).digest()


# --- the input ----------------------------------------------------------------------------------------------------------


def test_the_shape_of_the_input_is_taken_from_a_linear_layer_that_reads_it() -> None:
    module = calibrated(lambda: linear(WEIGHT))
    graph = flow.load(module)
    assert [(t.name, t.shape) for t in graph.inputs] == [("input", (12,))]


def test_the_shape_of_the_input_is_asked_for_or_said_to_be_wrong() -> None:
    module = calibrated(lambda: conv(WEIGHT))
    how = "bw.load(model, LoadOptions(input_shape=(1, 28, 28)))"
    with pytest.raises(ToolchainError) as e:
        flow.load(module)
    assert (
        str(e.value) == f"module Sequential: the shape of its input is not known; give it without the batch, as {how}"
    )
    with pytest.raises(ToolchainError) as e:
        flow.load(module, LoadOptions(input_shape=(3, 6, 5)))
    text = str(e.value)
    assert text.startswith(
        "module Sequential: does not run on an input of shape [1, 3, 6, 5] (Given groups=1, weight of size"
    )
    assert text.endswith(f"; give the shape of one input, as {how}")


# --- the module is left alone --------------------------------------------------------------------------------------------


def _state(module: Any) -> Any:
    import torch

    flags = [(n, m.training, getattr(m, "export_mode", None), getattr(m, "export_handler", None)) for n, m in module.named_modules()]  # fmt: skip
    grads = [(n, p.requires_grad, p.device.type) for n, p in module.named_parameters()]
    values = {n: v.clone() for n, v in module.state_dict().items()}
    counters = [getattr(m, "counter", None) for m in module.modules()]
    return flags, grads, values, counters, torch.random.get_rng_state(), random.getstate()


def _same(a: Any, b: Any) -> None:
    import torch

    assert a[:2] == b[:2] and a[3] == b[3] and a[5] == b[5]
    assert all(torch.equal(a[2][n], b[2][n]) for n in a[2]) and torch.equal(a[4], b[4])


def test_the_module_and_all_around_it_are_left_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    module = calibrated(zoo.network)
    module.conv.train()  # not one flag for all
    module.head.weight.requires_grad_(False)
    before, level, filters = _state(module), logging.root.manager.disable, list(warnings.filters)
    flow.load(module, options(module))
    _same(before, _state(module))
    broken = calibrated(lambda: sequence(identity(float_to_int_impl_type="dpu")))
    before_broken = _state(broken)
    for _ in range(2):
        with pytest.raises(UnsupportedError, match="DPU"):
            flow.load(broken, options(broken))
    _same(before_broken, _state(broken))
    assert flow.load(module, options(module)).digest() == flow.load(module, options(module)).digest()
    assert (logging.root.manager.disable, list(warnings.filters)) == (level, filters)
    assert capfd.readouterr() == ("", "")


def test_a_forward_that_draws_random_numbers_takes_none_of_the_users() -> None:
    import torch

    module = calibrated(lambda: zoo.wired(lambda m, x: (torch.rand(3), m.q(x))[1], q=identity()))
    before = torch.random.get_rng_state()
    graph = flow.load(module, options(module))
    assert flow.verify(module, graph, inputs.made_up(graph, 4), options(module)).equal
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_export_of_the_users_that_failed_does_not_disturb() -> None:
    """Brevitas leaves its handlers on a module whose export failed, and would use them again."""
    from brevitas.export import StdQCDQONNXManager

    module = calibrated(lambda: linear(WEIGHT))
    want = flow.load(module, options(module)).digest()
    module.apply(StdQCDQONNXManager.set_export_handler)
    StdQCDQONNXManager.set_export_mode(module, enabled=True)
    assert flow.load(module, options(module)).digest() == want


# --- the exporter's ways ---------------------------------------------------------------------------------------------------


def test_tensors_are_called_after_the_modules_that_make_them() -> None:
    module = calibrated(zoo.network)
    model = brevitas.load(module, options(module))
    made = [n.output[0] for n in model.graph.node if n.op_type in ("Conv", "Quant", "Gemm", "BatchNormalization")]
    assert made == [
        "first", "conv.weight", "conv", "norm", "relu1", "depthwise.weight", "depthwise", "relu2",
        "add.input", "add.input.Quant2", "add", "head.weight", "head.bias.Quant2", "output",
    ]  # fmt: skip
    assert [v.name for v in model.graph.input] == ["x"] and [v.name for v in model.graph.output] == ["output"]
    assert not any(a.name == "bitwright_path" for n in model.graph.node for a in n.attribute)


def test_modules_that_forward_does_not_call_are_no_hindrance() -> None:
    qnn = zoo.quiet()
    module = calibrated(lambda: zoo.wired(lambda m, x: m.q(x), q=identity(), unused=qnn.TruncAvgPool2d(2), odd=identity(float_to_int_impl_type="dpu")))  # fmt: skip
    exact(module)


def test_the_other_exporter_takes_what_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolchain.frontends.brevitas import handlers

    legacy, _ = handlers.managers()

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(legacy, "export", fails)
    for name in ("weight floor", "relu 1 bits", *(EXACT if FULL else ())):
        module = calibrated(EXACT[name])
        graph = flow.load(module, options(module))
        stored = inputs.made_up(graph, 8)
        assert flow.verify(brevitas.load(module, options(module)), graph, stored, options(module)).equal
    module = calibrated(lambda: sequence(identity(), _unexportable(), shape=(4, 6, 6)))
    with pytest.raises(UnsupportedError) as e:
        flow.load(module, options(module))
    assert str(e.value) == "module Sequential: Brevitas cannot export it (no such operator)"


def _unexportable() -> Any:
    import torch

    class Median(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.value if float(x.value.sum()) > 1e9 else torch.from_numpy(np.asarray(x.value.numpy()))

    return Median()


def test_without_brevitas_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    module = calibrated(lambda: linear(WEIGHT))
    monkeypatch.setitem(sys.modules, "onnxoptimizer", None)
    with pytest.raises(MissingToolError) as e:
        flow.load(module, options(module))
    assert str(e.value) == (
        "module Sequential: Brevitas and its exporter are not installed (import of onnxoptimizer halted; None in sys.modules); "
        "pip install 'bitwright[brevitas]', or load the model's saved .onnx, which needs neither"
    )


def test_a_module_that_cannot_be_copied_says_so() -> None:
    module = calibrated(lambda: linear(WEIGHT))
    module.left_over = module[1].weight * 2  # a result with a gradient, which torch itself would not copy
    flow.load(module, options(module))
    module.lock = threading.Lock()
    with pytest.raises(UnsupportedError) as e:
        flow.load(module, options(module))
    said = "module Sequential: cannot be copied (cannot pickle '_thread.lock' object); load its state_dict into a fresh model"
    assert str(e.value) == said


# --- verify finds what is wrong ---------------------------------------------------------------------------------------------


def test_a_module_that_has_changed_since_is_not_equal() -> None:
    import torch

    module = calibrated(zoo.network)
    graph = flow.load(module, options(module))
    stored = inputs.made_up(graph, 32)
    changed = copy.deepcopy(module)
    with torch.no_grad():
        changed.head.bias[1] += 0.5
    found = flow.verify(changed, graph, stored, options(module))
    assert not found.equal and found.first is not None and found.first.first is not None
    assert (found.first.tensor, found.first.first.index[-1]) == ("output", 1)
