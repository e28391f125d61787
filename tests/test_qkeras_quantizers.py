"""Every QKeras quantizer against live QKeras 0.9.0 and against the fork qkeras-v3: integer codes and scales, exactly.

Ties of both signs, saturation and zero are constructed and counted: a comparison that never met them proves nothing.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import qkeras_env
from toolchain.errors import UnsupportedError
from toolchain.frontends.qkeras import quantizers, weights

FRAMEWORKS = ("qkeras-0.9", "qkeras-v3")
KERNEL_SHAPES = ((7, 5), (3, 3, 4, 8), (100, 33), (3, 3, 16, 1), (64,), (1000, 10), (5, 3, 70), (3, 3, 20, 72), (1, 1))


def activation_texts() -> list[str]:
    texts = [
        "binary_tanh",
        "binary_sigmoid",
        "ternary(1.0,0.5)",
        "ternary(threshold=0.25)",
        "binary(use_01=1,alpha=0.5)",
        "quantized_bits",
    ]
    for b in (1, 2, 3, 4, 5, 8, 12, 16):
        for i in (0, 1, 3):
            texts += [
                f"quantized_bits({b},{i},{s},{k},alpha={a})"
                for s in (0, 1)
                for k in (0, 1)
                for a in (1.0, 0.25, 3.0)
                if b > 1 or s == 0
            ]
            texts += [f"quantized_relu({b},{i})", f"quantized_relu({b},{i},1)"]
            if b >= 3:
                texts += [
                    f"quantized_relu({b},{i},0,0.25)",
                    f"quantized_relu({b},{i},1,0.5)",
                    f"quantized_relu({b},{i},negative_slope=1.0)",
                ]
        if b > 1:
            texts += [
                f"quantized_tanh({b})",
                f"quantized_tanh({b},0,1)",
                f"quantized_tanh({b},symmetric=1,use_real_tanh=1)",
            ]
            texts += [f"quantized_ulaw({b})", f"quantized_ulaw({b},1,1,u=15.0)"] if 2 <= b <= 8 else []
            texts += [f"quantized_hswish({b},2)", f"quantized_hswish({b},1,relu_shift=2,relu_upper_bound=4)"]
        texts += [f"quantized_sigmoid({b})", f"quantized_sigmoid({b},1)", f"quantized_sigmoid({b},0,1)"]
        if 3 <= b <= 5:
            texts += [f"quantized_po2({b})", f"quantized_po2({b},2)", f"quantized_po2({b},log2_rounding='floor')"]
            texts += [
                f"quantized_relu_po2({b - 1})",
                f"quantized_relu_po2({b - 1},4)",
                f"quantized_relu_po2({b - 1},negative_slope=0.25)",
            ]
            texts += [f"quantized_relu_po2({b - 1},8,0.5,log2_rounding='floor')"]
        if b == 4:
            texts += [f"quantized_po2({b},quadratic_approximation=1)", f"quantized_po2({b},0.5)"]
    return texts


def kernel_texts() -> list[str]:
    texts = [
        f"quantized_bits({b},{i}{a})"
        for b in (2, 3, 4, 8, 16)
        for i in (0, 2)
        for a in ("", ",alpha='auto'", ",alpha='auto_po2'", ",alpha=1")
    ]
    texts += [f"{n}({a})" for n in ("binary", "ternary", "stochastic_binary", "stochastic_ternary") for a in ("", "alpha='auto'", "alpha='auto_po2'", "alpha=0.5")]  # fmt: skip
    return [
        *texts,
        "binary(use_01=1,alpha='auto')",
        "ternary(number_of_unrolls=2)",
        "quantized_po2(4)",
        "quantized_relu(4,1)",
        "quantized_tanh(4)",
    ]


def linear_texts() -> list[tuple[str, str]]:
    kernel = [f"quantized_linear({b},{i},{s},{k}{a})" for b in (1, 2, 4, 8) for i in (0, 2) for s in (0, 1) for k in (0, 1) for a in ("", ",alpha='auto'") if b > 1 or k]  # fmt: skip
    return [(t, "kernel") for t in kernel] + [(t.replace(",alpha='auto'", ",alpha=0.25"), "value") for t in kernel]


def probes(q: quantizers.Quantizer, rng: np.random.Generator) -> np.ndarray:
    """Random values, every kind of exact tie (k + 1/2 of the step, of its double and of its half), zero, and far outside."""
    step = 2.0 ** -(getattr(q, "bits", 4) - 1 - getattr(q, "integer", 0))
    k = np.arange(-70, 70) + 0.5
    ties = np.concatenate(
        [k * step * f for f in (1.0, 0.5, 2.0, 4.0)] + [(k + 2.0 ** (getattr(q, "bits", 4) - 1)) * step]
    )
    powers = np.array([s * 2.0**e for e in range(-12, 6) for s in (1, -1)])
    edge = np.array([0.0, -0.0, 0.33, -0.33, 1e-8, -1e-8, 40.0, -40.0, 1.0, -1.0, 3.0, -3.0])
    wide = rng.normal(size=400) * rng.choice([0.1, 1.0, 5.0], size=400)
    x = np.concatenate([ties, powers, edge, wide]).astype(np.float32)
    return x[: len(x) // 8 * 8]  # the last few of a tensor take another path through TensorFlow's log


def kernel(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Half of the values on a coarse grid, so that exact ties happen whatever scale the quantizer finds."""
    w = rng.normal(size=shape) * rng.choice([0.1, 0.5, 2.0])
    return np.where(rng.random(shape) < 0.5, np.rint(w * 16) / 16, w).astype(np.float32)


def cases() -> list[tuple[str, str, str, np.ndarray]]:
    rng = np.random.default_rng(7)
    found = [(t, "value", "hard", probes(quantizers.parse(t, "l"), rng)) for t in activation_texts()]
    soft = ("quantized_tanh(6)", "quantized_sigmoid(6)", "quantized_ulaw(5)", "quantized_relu(5,1,1)")
    found += [(t, "value", s, probes(quantizers.parse(t, "l"), rng)) for t in soft for s in ("smooth", "real")]
    found += [(t, "kernel", "hard", kernel(s, rng)) for t in kernel_texts() for s in KERNEL_SHAPES]
    found += [
        ("quantized_bits(5,1)", "array:[1.0,0.5,0.75]", "hard", kernel((40, 3), rng)),
        ("binary", "array:[2,0.5,1]", "hard", kernel((40, 3), rng)),
    ]
    found += [("quantized_relu(6,2)", "bound:2.5", "hard", probes(quantizers.QuantizedRelu(6, 2), rng))]
    return found


def run(framework: str, found: list[tuple[str, str, str, np.ndarray]], folder: Path) -> dict[str, np.ndarray]:
    spec = json.dumps([c[:3] for c in found])
    np.savez(folder / "cases.npz", spec=np.array(spec), **{f"x{i}": c[3] for i, c in enumerate(found)})
    qkeras_env.run(framework, "qkeras_oracle.py", str(folder / "cases.npz"), str(folder / "out.npz"))
    return dict(np.load(folder / "out.npz"))


def ours(
    framework: str, text: str, role: str, sigmoid: str, x: np.ndarray
) -> tuple[quantizers.Quantizer, weights.Codes]:
    q = quantizers.parse(text, "l", refit=framework == "qkeras-v3")
    assert q is not None
    if role == "kernel":
        q = quantizers.as_kernel(q, "l")
    if role.startswith("array:"):
        q = type(q)(**{**q.__dict__, "alpha": tuple(json.loads(role[6:]))})
    if role.startswith("bound:"):
        q = type(q)(**{**q.__dict__, "is_quantized_clip": False, "relu_upper_bound": float(role[6:])})
    assert q is not None
    return q, weights.quantize(q, x, "l", [], sigmoid)  # type: ignore[arg-type]


def compare(
    framework: str, found: list[tuple[str, str, str, np.ndarray]], live: dict[str, np.ndarray]
) -> dict[str, int]:
    met = {"up": 0, "down": 0, "low": 0, "high": 0, "zero": 0}
    for i, (text, role, sigmoid, x) in enumerate(found):
        label = f"{framework} {text} {role} {sigmoid} {x.shape}"
        q, c = ours(framework, text, role, sigmoid, x)
        scale = np.asarray(c.scale, dtype=np.float64)
        codes = live[f"y{i}"].astype(np.float64) / scale
        certain = np.ones(x.shape, bool)
        if sigmoid == "real" or getattr(q, "use_real_sigmoid", False) or getattr(q, "use_real_tanh", False):
            certain = ~near_tie(
                q, x
            )  # TensorFlow's tanh and sigmoid are good to 4e-7, so beside a tie it may round the other way
            assert certain.mean() > 0.75, label
        np.testing.assert_array_equal(np.rint(codes)[certain], c.codes[certain], err_msg=label)
        assert np.abs(codes - np.rint(codes)).max() < max(1e-3, np.abs(c.codes).max() * 2.0**-22), (
            label
        )  # float32 has 24 bits
        if role == "kernel" and isinstance(getattr(q, "alpha", None), str):
            factor = 2.0 ** (q.integer + 1 - q.bits) if isinstance(q, quantizers.QuantizedBits) else 1.0
            if isinstance(q, quantizers.QuantizedLinear) and q.bits == 1 and q.keep_negative:
                factor = 0.5  # codes -1/2 and +1/2 are kept as -1 and +1
            told = np.broadcast_to(live[f"s{i}"], scale.shape).astype(np.float64) * factor
            np.testing.assert_array_equal(np.where(told == 0, scale, told), scale, err_msg=f"scale of {label}")
        position = x.astype(np.float64) / (scale if scale.ndim == 0 or scale.ndim == x.ndim else scale.reshape(-1))
        tie = np.abs(position - np.floor(position)) == 0.5
        met["up"] += int((tie & (x > 0)).sum())
        met["down"] += int((tie & (x < 0)).sum())
        met["low"] += int((position < c.codes.min() - 1).sum())
        met["high"] += int((position > c.codes.max() + 1).sum())
        met["zero"] += int((x == 0).sum())
    return met


def near_tie(q: quantizers.Quantizer, x: np.ndarray) -> np.ndarray:
    bits = getattr(q, "bits", 8)
    v = x.astype(np.float64) / 2.0 ** getattr(q, "integer", 0)
    p = np.tanh(v) * 2.0 ** (bits - 1) if getattr(q, "use_real_tanh", False) else 2.0**bits / (1.0 + np.exp(-v))
    return np.abs(np.abs(p - np.floor(p)) - 0.5) < 2.0**bits * 6e-7


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_codes_and_scales_equal_live_qkeras(framework: str, tmp_path: Path) -> None:
    found = cases()
    if framework == "qkeras-v3":  # its quantized_bits cannot take an alpha array
        found = [c for c in found if not (c[1].startswith("array") and c[0].startswith("quantized_bits"))]
        rng = np.random.default_rng(8)
        found += [
            (t, r, "hard", kernel(s, rng))
            for t, r in linear_texts()
            for s in (KERNEL_SHAPES if r == "kernel" else ((100, 33),))
        ]
    met = compare(framework, found, run(framework, found, tmp_path))
    assert min(met.values()) > 1000, met


def test_a_wrong_rounding_rule_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison has teeth: half away from zero instead of half to even must fail it."""
    found = [
        (
            "quantized_bits(6,1,alpha=1.0)",
            "value",
            "hard",
            probes(quantizers.QuantizedBits(6, 1), np.random.default_rng(0)),
        )
    ]
    live = run("qkeras-0.9", found, tmp_path)
    monkeypatch.setattr(weights.np, "rint", lambda v: np.sign(v) * np.floor(np.abs(v) + 0.5))
    with pytest.raises(AssertionError):
        compare("qkeras-0.9", found, live)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("quantized_bits(4,0,1)", quantizers.QuantizedBits(4, 0, True)),
        ("quantized_bits(bits=4, alpha='auto_po2')", quantizers.QuantizedBits(4, alpha="auto_po2")),
        ("quantized_tanh(6,0,1,1)", quantizers.QuantizedTanh(6, True, True)),
        ("quantized_relu(4,-0,0,0.125)", quantizers.QuantizedRelu(4, 0, False, 0.125)),
        ("stochastic_binary(alpha=1.0,temperature=7.0)", quantizers.Binary(alpha=1.0)),
        ("ternary", quantizers.Ternary()),
        ({"class_name": "quantized_bits", "config": {"bits": 3, "symmetric": True, "qnoise_factor": 1.0}}, quantizers.QuantizedBits(3, symmetric=True)),
        (
            {"module": "qkeras.quantizers", "class_name": "quantized_bits", "registered_name": "qkeras>quantized_bits",
             "config": {"bits": 3, "alpha": 1, "post_training_scale": None}},
            quantizers.QuantizedBits(3, alpha=1.0, refit=True),
        ),
        ({"class_name": "quantized_relu", "config": {"bits": 3}, "__passive_serialization__": True}, quantizers.QuantizedRelu(3)),
        ({"class_name": "quantized_bits", "config": {"bits": 2, "alpha": [[1.0, 0.5]]}}, quantizers.QuantizedBits(2, alpha=(1.0, 0.5))),
        (None, None),
    ],
)  # fmt: skip
def test_every_written_form_is_read(text: object, value: quantizers.Quantizer | None) -> None:
    assert quantizers.parse(text, "l") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantised_bits(4)", "layer c1: quantizer 'quantised_bits' is not known; did you mean 'quantized_bits'?"),
        ("quantized_bits(bit=4)", "layer c1: quantized_bits has no parameter 'bit'; did you mean 'bits'?"),
        ("bernoulli()", "layer c1: bernoulli draws random numbers at inference; use binary(use_01=1) or stochastic_binary()"),
        ("quantized_bits(4,-1)", "layer c1: quantized_bits with negative integer -1 fails in QKeras itself; use alpha to scale below 1"),
        (
            "quantized_bits(4,qnoise_factor=0.5)",
            "layer c1: quantized_bits with qnoise_factor 0.5 mixes in unquantized values; train on until it is 1.0, or set it and save again",
        ),
        ("quantized_bits(__import__('os'))", "layer c1: quantizer \"quantized_bits(__import__('os'))\" is not name(value, ..., key=value, ...); write it as QKeras prints it"),
        ("quantized_bits(40)", "layer c1: quantized_bits with 40 bits; 1 to 31 bits are supported"),
        ("quantized_relu(4,0,0,0.3)", "layer c1: quantized_relu with negative_slope 0.3; it must be 0 or a power of two"),
        ("quantized_relu(2,0,0,0.25)", "layer c1: quantized_relu with 2 bits and negative_slope 0.25 has half steps below zero; use more bits or a larger slope"),
        ("quantized_relu(4,1,relu_upper_bound=1.3,is_quantized_clip=False)",
         "layer c1: quantized_relu with relu_upper_bound 1.3 off the grid of 0.125; choose a bound that is a multiple of the step"),
        ("binary(use_stochastic_rounding=True)", "layer c1: binary with use_stochastic_rounding fails at inference in QKeras itself; use stochastic_binary()"),
        ("quantized_bits(4,0,alpha=-1)", "layer c1: quantized_bits with alpha -1.0; alpha must be above 0"),
        ("hard_tanh(3)", "layer c1: hard_tanh takes no parameters here; write 'hard_tanh'"),
    ],
)  # fmt: skip
def test_refusals_name_the_layer_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(UnsupportedError) as e:
        quantizers.parse(text, "c1")
    assert str(e.value) == message


def test_auto_alpha_is_for_weights_only() -> None:
    with pytest.raises(UnsupportedError) as e:
        quantizers.as_activation(quantizers.parse("quantized_bits(4,0,alpha='auto')", "a1"), "a1")
    assert (
        str(e.value)
        == "layer a1: alpha 'auto' on an activation makes the result depend on the other rows of the batch; give alpha as a number"
    )
    with pytest.raises(UnsupportedError, match="1 bit and alpha 'auto_po2' makes every weight 0 or NaN"):
        quantizers.as_kernel(quantizers.parse("quantized_bits(1)", "a1"), "a1")


def test_powers_of_two_beyond_31_bits_are_refused() -> None:
    q = quantizers.parse("quantized_po2(8)", "l")
    assert q is not None
    with pytest.raises(
        UnsupportedError, match=r"l: powers of two from 2\^-64 to 2\^0 need 66 stored bits; 31 are supported"
    ):
        weights.quantize(q, np.array([0.0, -1.0], np.float32), "l", [])
    c = weights.quantize(q, np.array([0.5, -1.0], np.float32), "l", [])
    assert c.codes.tolist() == [1, -2] and c.scale == Fraction(1, 2)


def test_dyadic_values_are_exact_or_refused() -> None:
    c = weights.dyadic(np.array([0.75, -3.0, 0.0], np.float32), "l", "bias")
    assert c.codes.tolist() == [3, -12, 0] and c.scale == Fraction(1, 4) and (c.bits, c.signed) == (5, True)
    with pytest.raises(UnsupportedError, match="bias needs 41 stored bits"):
        weights.dyadic(np.array([1.0, 2.0**-40], np.float32), "l", "bias")


def test_a_kernel_without_alpha_is_what_qkeras_silently_makes_of_it() -> None:
    q = quantizers.QuantizedBits(4, 0)
    assert quantizers.as_kernel(q, "l") == quantizers.QuantizedBits(4, 0, symmetric=True, alpha="auto_po2")
    assert quantizers.as_kernel(quantizers.Ternary(), "l") == quantizers.Ternary(alpha="auto_po2")
    assert quantizers.as_activation(q, "l") == q
