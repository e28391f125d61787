"""Tensors of the model while they are lowered, and how their axes lie in ours: channels first becomes channels last here.

Its one rule: data moves only where the meaning needs it. A Flatten or Reshape after a convolution is remembered, and the
next Dense permutes its weights; only what needs the model's own order transposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

import numpy as np

from toolchain.errors import UnsupportedError
from toolchain.ir.builder import GraphBuilder
from toolchain.ir.types import Tensor
from toolchain.ir.values import Value, exact, shorten, unify

SOFTMAX = ("softmax", "logsoftmax")


@dataclass(frozen=True)
class Function:
    """An increasing function that waits for its quantizer, or for the host: leaky (with one slope, or one for each channel),
    sigmoid, tanh, softmax and logsoftmax (along an axis of the model's, batch not counted)."""

    kind: str
    slope: tuple[Fraction, ...] = ()
    axis: int = -1


@dataclass(frozen=True)
class Data:
    """A tensor of the model, batch not counted.

    Axis k of ours is axis `axes[k]` of the model's tensor as it was when its shape was `base`; `shape` is what Reshape and
    Flatten have made of it since. Ours has those permuted axes, or is flat in their order.
    """

    value: Value
    base: tuple[int, ...]
    axes: tuple[int, ...]
    shape: tuple[int, ...]
    function: Function | None = None  # of the value, not yet carried out

    @property
    def tensor(self) -> Tensor:
        return self.value.tensor

    @property
    def natural(self) -> bool:
        """Whether ours, flattened, is in the model's own order: only axes of size 1 are elsewhere."""
        moved = [a for a in self.axes if self.base[a] != 1]
        return moved == sorted(moved)

    @property
    def order(self) -> np.ndarray:
        """Element k of ours, flattened, is element order[k] of the model's, flattened."""
        found: np.ndarray = np.arange(prod(self.base)).reshape(self.base).transpose(self.axes).ravel()
        return found

    def with_value(self, value: Value) -> Data:
        """The same layout with another value of the same shape; its function has been carried out or goes on."""
        return replace(self, value=value)

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """[batch, *shape] of the model -> [batch, *shape of our tensor]."""
        moved: np.ndarray = array.reshape(-1, *self.base).transpose(0, *(a + 1 for a in self.axes))
        return moved.reshape(len(moved), *self.tensor.shape)

    def to_model(self, array: np.ndarray) -> np.ndarray:
        """[batch, *shape of our tensor] -> [batch, *shape] of the model."""
        moved: np.ndarray = array.reshape(-1, *(self.base[a] for a in self.axes))
        back: np.ndarray = moved.transpose(0, *(int(a) + 1 for a in np.argsort(self.axes)))
        return back.reshape(len(back), *self.shape)


def channels_last(rank: int) -> tuple[int, ...]:
    """The axes of ours for a model's [channels, spatial...]."""
    return (*range(1, rank), 0)


def plain(value: Value, shape: Sequence[int]) -> Data:
    """Ours has the model's axes as they are."""
    return Data(value, tuple(shape), tuple(range(len(shape))), tuple(shape))


# --- moving ----------------------------------------------------------------------------------------------------------


def _spread(v: Value, size: int) -> Value:
    """Functions of each channel go on in a tensor whose last axis holds all of them, again and again."""
    times = size // v.shape[-1]
    columns = [t * times if len(t) > 1 else t for t in (v.slope, v.intercept)]
    return replace(v, slope=columns[0], intercept=columns[1])


def _spread_function(d: Data, size: int) -> Data:
    """The slopes of a leaky function go on in a tensor whose last axis holds all channels, again and again."""
    f = d.function
    if f is None or len(f.slope) < 2:
        return d
    return replace(d, function=replace(f, slope=f.slope * (size // len(f.slope))))


def one_column(b: GraphBuilder, d: Data, name: str, where: str) -> Data:
    """No scale and no pending function of each channel alone: what may be moved anywhere."""
    v = d.value
    each = [v.tensor.qtype.scales, v.slope, v.intercept, *([d.function.slope] if d.function is not None else [])]
    if all(len(t) < 2 for t in each):
        return d
    _no_function(d, where)
    return d.with_value(Value(unify(b, v, name, where)))


def flat(b: GraphBuilder, d: Data, name: str, where: str) -> Data:
    """Ours as one axis, in the order it has; functions of each channel go on."""
    size = prod(d.base)
    v = d.value
    if len(v.shape) == 1:
        return d
    if len(v.tensor.qtype.scales) > 1:
        d = one_column(b, d, name, where)
        v = d.value
    d, v = _spread_function(d, size), _spread(v, size)
    return d.with_value(replace(v, tensor=b.reshape(v.tensor, (size,), f"{name}_flat")))


def settled(b: GraphBuilder, d: Data, axes: tuple[int, ...], name: str, where: str) -> Data:
    """The same tensor with base == shape and these axes; moves data if it must."""
    wanted = tuple(d.shape[a] for a in axes)
    if d.base == d.shape and d.axes == axes and d.tensor.shape == wanted:
        return d
    if d.base != d.shape and not d.natural:
        d = _transposed(b, d, tuple(range(len(d.base))), name, where)
    if d.base != d.shape:  # in the model's order: any shape is a reshape
        d = _reshaped(b, d, d.shape, name, where)
        d = replace(plain(d.value, d.shape), function=d.function)
    return _transposed(b, d, axes, name, where)


def _reshaped(b: GraphBuilder, d: Data, shape: tuple[int, ...], name: str, where: str) -> Data:
    shape = shape or (1,)
    if d.tensor.shape == shape:
        return d
    if d.tensor.shape[-1] != shape[-1]:
        if len(shape) == 1 and len(d.tensor.qtype.scales) == 1:
            d = _spread_function(d.with_value(_spread(d.value, shape[0])), shape[0])
        else:
            d = one_column(b, d, name, where)
    return d.with_value(replace(d.value, tensor=b.reshape(d.tensor, shape, f"{name}_shape")))


def _transposed(b: GraphBuilder, d: Data, axes: tuple[int, ...], name: str, where: str) -> Data:
    """The base's axes in another order."""
    if d.axes == axes and d.tensor.shape == tuple(d.base[a] for a in axes):
        return d
    permuted = tuple(d.base[a] for a in d.axes)
    wanted = tuple(d.base[a] for a in axes)
    long = [[a for a in order if d.base[a] != 1] for order in (d.axes, axes)]
    if long[0] == long[1]:  # only axes of size 1 move
        moved = _reshaped(b, d, wanted, name, where)
        return replace(moved, axes=axes)
    if d.tensor.shape != permuted:
        d = _reshaped(b, d, permuted, name, where)
    if d.axes[-1] != axes[-1]:
        d = one_column(b, d, name, where)
    tensor = b.transpose(d.tensor, [d.axes.index(a) for a in axes], f"{name}_order")
    return replace(d, value=replace(d.value, tensor=tensor), axes=axes)


def _no_function(d: Data, where: str) -> None:
    if d.function is not None:
        raise UnsupportedError(
            where,
            f"needs the integers that {d.function.kind} has no quantizer for",
            f"quantize after {d.function.kind}",
        )


def shaped(d: Data, shape: tuple[int, ...]) -> Data:
    """The same elements under another shape of the model's; a softmax along an axis that is no longer one goes on along none (-1)."""
    f = d.function
    if f is not None and f.axis >= 0:
        before, size = prod(d.shape[: f.axis]), d.shape[f.axis]
        same = [k for k, n in enumerate(shape) if n == size and prod(shape[:k]) == before]
        f = replace(f, axis=same[0] if same else -1)
    return replace(d, shape=shape, function=f)


# --- constants against data ------------------------------------------------------------------------------------------


def broadcast(d: Data, array: np.ndarray) -> np.ndarray | None:
    """The constant as the model's broadcasting lays it over [1, *shape]; None where it makes the tensor larger."""
    full = (1, *d.shape)
    if array.ndim > len(full):
        extra = array.ndim - len(full)
        if set(array.shape[:extra]) != {1}:
            return None
        array = array.reshape(array.shape[extra:])
    try:
        return np.asarray(np.broadcast_to(array, full)[0])
    except ValueError:
        return None


def raised(d: Data, rank: int) -> Data:
    """With axes of size 1 before its own, as a constant of `rank` axes (batch included) makes them."""
    extra = rank - 1 - len(d.shape)
    return shaped(d, (*[1] * extra, *d.shape)) if extra > 0 else d


def several_columns(b: GraphBuilder, d: Data, arrays: Sequence[np.ndarray], name: str, where: str) -> tuple[Data, list[np.ndarray]]:  # fmt: skip
    """`columns` of constants that broadcast to each other: ours is moved once, so that it lies right for all of them."""
    try:
        over = [np.asarray(a, np.float64) for a in np.broadcast_arrays(*arrays)]
    except ValueError:
        shapes = " and ".join(str(list(a.shape)) for a in arrays)
        raise UnsupportedError(where, f"constants {shapes} do not broadcast to each other", "export it again") from None
    rows, group = np.unique(np.stack([a.ravel() for a in over], axis=1), axis=0, return_inverse=True)
    d, at = columns(b, d, group.reshape(over[0].shape).astype(np.float64), name, where)
    return d, list(rows[at.astype(int)].T)


def columns(b: GraphBuilder, d: Data, array: np.ndarray, name: str, where: str) -> tuple[Data, np.ndarray]:
    """The constant as one value, or as one for each channel (last axis) of ours; ours is moved where it varies elsewhere."""
    d = raised(d, array.ndim)
    if array.size == 1:
        return d, array.reshape(1)
    over = broadcast(d, array)
    if over is None:
        raise UnsupportedError(where, f"a constant {list(array.shape)} widens the tensor {[1, *d.shape]}", "repeat it")
    ours = over.reshape(d.base).transpose(d.axes).reshape(d.tensor.shape)
    vector = _last_axis(ours)
    if vector is not None:
        return d, vector
    if d.base == d.shape:  # another axis of the model's may be the one it varies along
        for axis in range(len(d.shape)):
            if _last_axis(np.moveaxis(over, axis, -1)) is not None:
                moved = settled(b, d, (*(a for a in d.axes if a != axis), axis), name, where)
                return columns(b, moved, array, name, where)
    moved = flat(b, d, name, where)
    return moved, over.reshape(d.base).transpose(d.axes).ravel()


def _last_axis(array: np.ndarray) -> np.ndarray | None:
    """The values along the last axis where all others repeat them."""
    rows = array.reshape(-1, array.shape[-1])
    if not (rows == rows[:1]).all():
        return None
    row: np.ndarray = rows[0, :1] if (rows[0] == rows[0, 0]).all() else rows[0]
    return row


def fractions(values: np.ndarray) -> tuple[Fraction, ...]:
    """The exact values of floating-point numbers; one where all are equal."""
    return shorten(Fraction(v) for v in np.asarray(values, np.float64).ravel().tolist())


def linear(b: GraphBuilder, d: Data, name: str, where: str) -> tuple[Data, Fraction]:
    """Data whose value is `factor` times a tensor of one scale: what a sum of products reads."""
    _no_function(d, where)
    v = d.value
    if any(v.intercept) or v.lo is not None or v.hi is not None or len(v.slope) > 1:
        return d.with_value(Value(unify(b, v, name, where))), Fraction(1)
    factor = v.slope[0]
    return d.with_value(Value(unify(b, Value(v.tensor), name, where))), factor


def settled_exact(b: GraphBuilder, d: Data, name: str, where: str) -> Data:
    """The pending function carried out, exactly."""
    _no_function(d, where)
    return d if d.value.plain else d.with_value(Value(exact(b, d.value, name, where)))
