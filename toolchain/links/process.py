"""The native process as a board: the same firmware, the same protocol, standard input and output for a serial line.

Rule: it counts nothing; a host's clock is no figure of a microcontroller.
"""

from __future__ import annotations

from toolchain.boards import Board
from toolchain.links import CountKind
from toolchain.links._child import Child, ChildLink, socket_pair
from toolchain.project import Image


class ProcessLink(ChildLink):
    count_kind: CountKind = "none"

    def __init__(self, image: Image, board: Board) -> None:
        self.where = board.name
        own, theirs = socket_pair()
        self.child = Child(self.where, [str(image.path.resolve())], own, theirs, stdio=True)


def open(image: Image, board: Board, port: str | None = None) -> ProcessLink:  # noqa: A001
    return ProcessLink(image, board)
