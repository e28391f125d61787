"""The IR: what a quantized network computes, in integers, with nothing left to infer. See docs/numerics.md."""

from . import ops
from .check import check
from .graph import Graph, State
from .text import digest, dump, parse
from .types import Const, QType, Tensor

__all__ = ["Const", "Graph", "QType", "State", "Tensor", "check", "digest", "dump", "ops", "parse"]
