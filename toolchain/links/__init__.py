"""Links: the byte pipes to a board, one file each, found by the `link` of the board's file.

Rule: a link sends and receives bytes and says what the device's ticks mean; it knows nothing of frames. It gives up in
time, and whatever it started is gone when it is closed or the command ends, however that ends.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal
from typing import Protocol as TypingProtocol

from toolchain.boards import Board
from toolchain.errors import ToolchainError
from toolchain.project import Image
from toolchain.protocol import Hello

CountKind = Literal["counted", "simulated", "modelled", "instructions", "none"]


class Marked(TypingProtocol):
    """What the firmware says of a stretch of code, a run or an op: ticks, and those of an empty stretch."""

    @property
    def ticks(self) -> int: ...
    @property
    def overhead(self) -> int: ...


class Link(ABC):
    """`counted`: clocks of silicon; `simulated`: of hardware simulated clock by clock; `modelled`: cycles of an emulator that
    gives each instruction the core's own, and knows neither caches nor wait states; `instructions`: an emulator that models no
    pipeline; `none`: nothing counts."""

    where: str  # how errors name it
    count_kind: CountKind

    @abstractmethod
    def send(self, data: bytes) -> None: ...

    @abstractmethod
    def recv(self, n: int, timeout_s: float) -> bytes:
        """1 to n bytes as soon as there are any, or b"" after `timeout_s`."""

    @abstractmethod
    def close(self) -> None:
        """May be called twice."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the emulator, for the record."""
        return {}

    def to_count(self, ticks: int, interrupts: int, hello: Hello) -> int:
        """Ticks of the device as a count of this link's kind, net of the counter's own interrupts."""
        if hello.counter == "none":
            raise ToolchainError(self.where, "no counter of the board moves", "outputs can be compared, not counted")
        return ticks

    def modelled_cycles(self, marked: Sequence[Marked]) -> list[int] | None:
        """Of the runs or ops since this was last asked, net of the measuring: what a model of the core makes of what was
        executed. None where the link has no such model; nothing that was counted or timed ever comes from here."""
        return None

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_link(image: Image, board: Board, port: str | None = None) -> Link:
    """Starts or opens what the board's file names."""
    if port is not None and board.link != "serial":
        raise ToolchainError(board.name, f"has no port: its link is {board.link!r}", "leave --port out")
    link: Link = importlib.import_module(f"toolchain.links.{board.link}").open(image, board, port)
    return link
