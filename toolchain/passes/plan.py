"""Plan: every choice that changes how a graph runs and none of what it computes. Frozen, and named by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.ir import ops

if TYPE_CHECKING:
    from toolchain.ir import Tensor
    from toolchain.ir.ops import Op

NO_KERNEL = "has no kernel in a circuit: it is TensorFlow Lite Micro's integer arithmetic, which hls4ml has not"
TRY_HOST = {
    ops.Softmax: "leave the softmax to the host: end the model at what it reads, whose largest is the same",
    ops.Softmax16: "leave the softmax to the host: end the model at what it reads, whose largest is the same",
    ops.Interpolate: "leave the function to the host: end the model at what it reads, or use 8 bits, which are a lookup",
}
IOS = ("io_parallel", "io_stream")
OPTIMIZE = ("speed", "size", "ram")
STRATEGIES = ("Latency", "Resource", "distributed_arithmetic")


def no_circuit(op: Op) -> UnsupportedError | None:
    """Why no HLS back end can build this op, for the linter and the back end alike."""
    return UnsupportedError(ops.where(op), NO_KERNEL, TRY_HOST[type(op)]) if type(op) in TRY_HOST else None


def unread(tensor: Tensor) -> UnsupportedError:
    """Of an input that no op reads, in a circuit of streams: for the linter and the back end alike."""
    what = "is read by no op, and a stream that nobody reads fills up and blocks the design"
    return UnsupportedError(f"input %{tensor.name}", what, "use --io parallel, or leave it out of the model")


@dataclass(frozen=True)
class Hls:
    """How an HLS back end builds the graph. `strategy` and `reuse_factor` go by the name of an op's output, `fifo_depth` (in
    tokens) by the name of a tensor; the key "" holds what is true of every op that has no key of its own."""

    tool: str = "Vitis"  # hls4ml's name of its back end
    io: str = "io_parallel"
    strategy: Mapping[str, str] = field(default_factory=dict)
    reuse_factor: Mapping[str, int] = field(default_factory=dict)
    fifo_depth: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("strategy", "reuse_factor", "fifo_depth"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        if self.io not in IOS:
            raise ToolchainError("hls", f"io is {self.io!r}, must be one of {', '.join(IOS)}", "correct it")
        for key, strategy in self.strategy.items():
            if strategy not in STRATEGIES:
                what = f"strategy of {key or 'all'} is {strategy!r}, must be one of {', '.join(STRATEGIES)}"
                raise ToolchainError("hls", what, "correct it")
        for what, values in (("reuse_factor", self.reuse_factor), ("fifo_depth", self.fifo_depth)):
            for key, value in values.items():
                if value < 1:
                    raise ToolchainError(
                        "hls", f"{what} of {key or 'all'} is {value}, must be at least 1", "correct it"
                    )

    @property
    def stream(self) -> bool:
        return self.io == "io_stream"

    def strategy_of(self, op: Op) -> str:
        return self.strategy_at(op.output.name)

    def strategy_at(self, output: str) -> str:
        return self.strategy.get(output, self.strategy.get("", "Latency"))

    def reuse(self, op: Op) -> int:
        """Multiplications per multiplier and per position."""
        return self.reuse_at(op.output.name)

    def reuse_at(self, output: str) -> int:
        return self.reuse_factor.get(output, self.reuse_factor.get("", 1))

    @property
    def text(self) -> str:
        """The choices as people read them: `Vitis, io_stream, Resource, reuse factors 4 to 16`."""
        strategies = ", ".join(dict.fromkeys(self.strategy.values()))
        factors = sorted(set(self.reuse_factor.values()) or {1})
        many = f"factors {factors[0]:,} to {factors[-1]:,}" if len(factors) > 1 else f"factor {factors[0]:,}"
        return ", ".join(filter(None, [self.tool, self.io, strategies, f"reuse {many}"]))

    def parts(self) -> dict[str, object]:
        """Every choice as what JSON can hold."""
        return {
            "tool": self.tool,
            "io": self.io,
            "strategy": dict(self.strategy),
            "reuse_factor": dict(self.reuse_factor),
            "fifo_depth": dict(self.fifo_depth),
        }

    def __hash__(self) -> int:
        return hash(json.dumps(self.parts(), sort_keys=True))


def arena_text(arena_bytes: int, arena_lower_bound: int, arena_proved: int, arena_for_speed: int = 0) -> str:
    """The arena beside what no plan of these ops in this order could be below, and what another plan would have taken."""
    bound = f"lower bound {arena_lower_bound:,}"
    if arena_proved > arena_lower_bound:
        bound += f", by search {arena_proved:,}"
    above = arena_bytes - arena_proved
    instead = f"; made for less memory, for speed alone it takes {arena_for_speed:,}" if arena_for_speed else ""
    return f"arena {arena_bytes:,} bytes ({bound}: {f'at most {above:,} above the optimum' if above else 'optimal'}{instead})"


@dataclass(frozen=True)
class Plan:
    """`fused`: values that are never stored. `arena`: byte offset of each tensor there. `alias`: tensors that are another
    name for a graph input, output or state, or for the part of it that begins `within` bytes from its start. `packing`: how a
    constant is stored, one value in one storage type unless said. `kernels`: by an op's output, the kernel that is not the general
    one; `scratch`: the bytes that it needs while it runs, and `scratch_at`: where in the arena. `optimize`: what kernels and storage
    were chosen for. `hls`: how an HLS back end builds it, None for every other back end. What is proved of `arena_bytes` is no
    choice, so not in the digest: no offsets for these tensors take less than `arena_lower_bound`, the most that is needed at one
    step, nor less than `arena_proved`, by a search. Nor is `arena_for_speed`: what the plan asked for takes, where the board does not
    hold that and this one was made instead, else 0."""

    fused: frozenset[str] = frozenset()
    arena: Mapping[str, int] = field(default_factory=dict)
    arena_bytes: int = 0
    alias: Mapping[str, str] = field(default_factory=dict)
    packing: Mapping[str, str] = field(default_factory=dict)
    kernels: Mapping[str, str] = field(default_factory=dict)
    scratch: Mapping[str, int] = field(default_factory=dict)
    scratch_at: Mapping[str, int] = field(default_factory=dict)
    hls: Hls | None = None
    within: Mapping[str, int] = field(default_factory=dict)
    arena_lower_bound: int = 0
    arena_proved: int = 0
    arena_for_speed: int = 0
    optimize: str = "speed"

    def __post_init__(self) -> None:
        if self.optimize not in OPTIMIZE:
            what = f"optimize is {self.optimize!r}, must be one of {', '.join(OPTIMIZE)}"
            raise ToolchainError("plan", what, "correct it")
        for name in ("arena", "alias", "packing", "kernels", "scratch", "scratch_at", "within"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def place(self, name: str) -> tuple[str, int]:
        """Where a tensor lies: "" for the arena or the graph input, output or state that holds it; and its offset there in bytes."""
        if name in self.arena:
            return "", self.arena[name]
        return self.alias.get(name, name), self.within.get(name, 0)

    @property
    def arena_text(self) -> str:
        """`arena 640 bytes (lower bound 640: optimal)`."""
        return arena_text(**self.memory())

    def memory(self) -> dict[str, int]:
        """What --json says of the arena."""
        return {
            "arena_bytes": self.arena_bytes,
            "arena_lower_bound": self.arena_lower_bound,
            "arena_proved": self.arena_proved,
            **({"arena_for_speed": self.arena_for_speed} if self.arena_for_speed else {}),
        }

    def digest(self) -> str:
        """sha256 in hex of every choice."""
        parts: dict[str, object] = {
            "fused": sorted(self.fused),
            "arena": dict(self.arena),
            "arena_bytes": self.arena_bytes,
            "alias": dict(self.alias),
            "packing": dict(self.packing),
        }
        # a plan without these keeps the digest it has always had
        if self.kernels:
            parts["kernels"] = dict(self.kernels)
        if self.scratch:
            parts |= {"scratch": dict(self.scratch), "scratch_at": dict(self.scratch_at)}
        if self.hls is not None:
            parts["hls"] = self.hls.parts()
        if self.optimize != "speed":
            parts["optimize"] = self.optimize
        if self.within:
            parts["within"] = dict(self.within)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest())
