"""Plan: every choice that changes how a graph runs and none of what it computes. Frozen, and named by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Plan:
    """`fused`: values that are never stored. `arena`: byte offset of each tensor there. `alias`: tensors that are another
    name for a graph input, output or state. `packing`: how a constant is stored, one value in one storage type unless said."""

    fused: frozenset[str] = frozenset()
    arena: Mapping[str, int] = field(default_factory=dict)
    arena_bytes: int = 0
    alias: Mapping[str, str] = field(default_factory=dict)
    packing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("arena", "alias", "packing"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def place(self, name: str) -> str | int:
        """Where a tensor lies: its offset in the arena, or the graph input, output or state that holds it."""
        return self.arena[name] if name in self.arena else self.alias.get(name, name)

    def digest(self) -> str:
        """sha256 in hex of every choice."""
        parts = {
            "fused": sorted(self.fused),
            "arena": dict(self.arena),
            "arena_bytes": self.arena_bytes,
            "alias": dict(self.alias),
            "packing": dict(self.packing),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest())
