"""The step against the full model: as many steps as fill the window twice, each compared with the full model on its window."""

from __future__ import annotations

import numpy as np

from toolchain.errors import ToolchainError
from toolchain.reference import simulate

from . import Stream

SEQUENCES = 2
WORK = 1 << 31  # multiply-accumulates of all windows together


def steps(stream: Stream) -> int:
    """How many steps are compared: two windows' worth, fewer of a large model, and never less than one window and a step."""
    filled = -(-stream.window // stream.frames)
    return max(filled + 1, min(2 * filled, WORK // max(stream.macs[0] * SEQUENCES, 1)))


def compare(stream: Stream, count: int | None = None, seed: int = 0) -> int:
    """The number of steps compared on seeded random frames; ToolchainError where one differs, which is a fault of ours."""
    count = steps(stream) if count is None else count
    rng = np.random.default_rng(seed)
    full = {t.name: t for t in stream.full.inputs}
    shape, q, axis = full[stream.input].shape, full[stream.input].qtype, stream.axis + 1
    sequence = np.full(
        (SEQUENCES, *shape[: axis - 1], stream.window + count * stream.frames, *shape[axis:]), q.zero_point, np.int64
    )
    frames = rng.integers(q.min, q.max, sequence.shape, endpoint=True)
    sequence = np.concatenate(
        [
            np.take(sequence, range(stream.window), axis),
            np.take(frames, range(stream.window, sequence.shape[axis]), axis),
        ],
        axis,
    )
    others = {
        t.name: rng.integers(t.qtype.min, t.qtype.max, (SEQUENCES, *t.shape), endpoint=True)
        for t in stream.full.inputs
        if t.name != stream.input
    }
    state = None
    for k in range(1, count + 1):
        begin = k * stream.frames
        window = np.take(sequence, range(begin, begin + stream.window), axis)
        new = np.take(window, range(stream.window - stream.frames, stream.window), axis)
        expected, _ = simulate(stream.full, {**others, stream.input: window})
        got, state = simulate(stream.graph, {**others, stream.input: new}, state)
        for name, value in expected.items():
            part = stream.given[name]
            wanted = value if part is None else np.take(value, range(*part[1]), part[0] + 1)
            if not np.array_equal(got[name], wanted):
                what = f"output {name} of step {k} differs from the full model's"
                raise ToolchainError(f"graph {stream.graph.name}", what, "this is a fault of the toolchain")
    return count
