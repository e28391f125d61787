"""C simulation as a board: the C++ of an HLS project compiled for this machine, behind the firmware's protocol loop.

Rule: it counts nothing; what the compiled C++ takes says nothing of the circuit that it describes.
"""

from __future__ import annotations

from toolchain.boards import Board
from toolchain.links._child import Child, socket_pair
from toolchain.links.process import ProcessLink
from toolchain.project import Image


class CsimLink(ProcessLink):
    def __init__(self, image: Image, board: Board) -> None:
        self.where = f"{board.name} (C simulation)"
        own, theirs = socket_pair()
        folder = image.path.resolve().parent.parent  # hls4ml's C++ reads its constants from hls/firmware/weights
        self.child = Child(self.where, [str(image.path.resolve())], own, theirs, stdio=True, folder=folder)


def open(image: Image, board: Board, port: str | None = None) -> CsimLink:  # noqa: A001
    return CsimLink(image, board)
