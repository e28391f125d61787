"""The board under test: `pytest hw_tests --board NAME [--port DEV]`; without --board every emulated board of this machine.

The bodies never know whether they hold silicon, an emulator or a host process. A board on a desk holds one image at a time,
so with --port the image on it must be the digits example (`bitwright build examples/digits/model.h5 --board NAME --out DIR`,
flash it): the tests that need another model are then skipped, and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolchain import boards, flow, tools
from toolchain.boards import Board
from toolchain.ir import Graph
from toolchain.links import Link, open_link
from toolchain.project import Image
from toolchain.protocol import Session

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
EMULATED = ("native", "qemu_mps2_an386", "qemu_virt_rv32", "rp2040js_pico", "simavr_uno", "unicorn_m4")
NEEDS = {
    "qemu_mps2_an386": "qemu-system-arm",
    "qemu_virt_rv32": "qemu-system-riscv32",
    "rp2040js_pico": "rp2040js",
    "simavr_uno": "simavr",
    "unicorn_m4": "unicorn",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--board", help="the board under test; see `bitwright boards`")
    parser.addoption("--port", help="its serial port, for a board on this desk")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "board" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--board")
        metafunc.parametrize("board", [chosen] if chosen else EMULATED, indirect=True, scope="session")


@pytest.fixture(scope="session")
def board(request: pytest.FixtureRequest) -> Board:
    name = request.param
    if name in NEEDS and not tools.find(NEEDS[name]).path:
        pytest.skip(f"{name} needs {NEEDS[name]}: {tools.advice(NEEDS[name])}")
    return boards.load(name)


@pytest.fixture(scope="session")
def port(request: pytest.FixtureRequest) -> str | None:
    given: str | None = request.config.getoption("--port")
    return given


@pytest.fixture(scope="session")
def digits() -> Graph:
    return flow.load(DIGITS / "model.h5")


class Bench:
    """Builds images for the board once each and opens sessions on them."""

    def __init__(self, board: Board, port: str | None, scratch: Path) -> None:
        self.board, self.port, self.scratch = board, port, scratch
        self.images: dict[str, Image] = {}

    def image(self, graph: Graph) -> Image:
        key = graph.digest()
        if key not in self.images:
            self.images[key] = flow.build(flow.emit(graph, self.board), self.scratch / key[:16])
        return self.images[key]

    def needs_other_model(self) -> None:
        if self.port:
            pytest.skip(f"the board on {self.port} holds the digits example, this test another model")

    def open(self, graph: Graph) -> Link:
        return open_link(self.image(graph), self.board, self.port)


@pytest.fixture(scope="session")
def bench(board: Board, port: str | None, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(board, port, tmp_path_factory.mktemp(board.name))


@pytest.fixture
def session(bench: Bench) -> Iterator[Callable[[Graph], Session]]:
    """`session(graph)`: a Session on a board that holds the graph, greeted; closed at the end of the test."""
    links: list[Link] = []

    def start(graph: Graph) -> Session:
        links.append(bench.open(graph))
        opened = Session(links[-1])
        opened.hello(bench.image(graph))
        return opened

    yield start
    for link in links:
        link.close()
