"""The verbs, and the only place that knows all rooms: front ends, back ends and links are found by file name.

load(model) -> Graph -- emit(board) --> Project -- build --> Image -- measure --> Measurement
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from toolchain.errors import ToolchainError
from toolchain.options import LoadOptions

if TYPE_CHECKING:
    import numpy as np

    from toolchain.boards import Board
    from toolchain.ir import Graph
    from toolchain.ir.types import Ints
    from toolchain.measurement import Measurement
    from toolchain.passes import Plan
    from toolchain.project import Image, Project
    from toolchain.verify import Verification

Progress = Callable[[str, float], None]  # what is being done, and how much of it, 0 to 1


def quiet(what: str, done: float) -> None:
    """A Progress that nobody watches."""


def front_ends() -> list[ModuleType]:
    """Every module of the folder, by name: a new front end is one new file with accepts() and load()."""
    package = import_module("toolchain.frontends")
    return [
        import_module(f"toolchain.frontends.{m.name}")
        for m in iter_modules(package.__path__)
        if not m.name.startswith("_")
    ]


def load(source: object, options: LoadOptions | None = None) -> Graph:
    """The integer graph of a model: a path, a live framework object, or a Graph; checked.

    A front end may answer with a converted source, which is dispatched again. Raises ToolchainError for what is not a
    model, UnsupportedError for what is refused by name.
    """
    from toolchain.ir import Graph, check

    chosen = options or LoadOptions()
    if isinstance(source, (str, Path)):
        source = Path(source)
        if not source.exists():
            raise ToolchainError(str(source), "does not exist, must be a saved model")
    while not isinstance(source, Graph):
        ends = front_ends()
        accepting = [end for end in ends if end.accepts(source)]
        if not accepting:
            known = "; ".join(f"{end.__name__.rpartition('.')[2]}: {end.SOURCES}" for end in ends)
            what = str(source) if isinstance(source, Path) else type(source).__name__
            raise ToolchainError(what, f"is no model that a front end reads ({known})")
        source = accepting[0].load(source, chosen)
    return check(source)


def verify(source: object, graph: Graph, stored: dict[str, Ints], options: LoadOptions | None = None) -> Verification:
    """Run the training framework on these stored inputs and compare it with the reference, tensor by tensor.

    Of a source that a front end converts, the framework is the source itself, told by the converted source's names.
    """
    from toolchain import verify as room

    chosen = options or LoadOptions()
    source = Path(source) if isinstance(source, str) else source
    program = None
    while True:
        end = next((e for e in front_ends() if e.accepts(source)), None)
        if end is None or not (hasattr(end, "framework") or hasattr(end, "program")):
            what = str(source) if isinstance(source, Path) else type(source).__name__
            raise ToolchainError(
                what,
                "no framework to compare with: its front end runs none",
                "verify a QKeras, Brevitas or ONNX model",
            )
        if hasattr(end, "framework"):
            return room.run(graph, stored, chosen, end.framework(source, chosen, program))
        source, program = end.program(source, chosen)


def emit(graph: Graph, board: Board | str) -> Project:
    """The project of files and commands for a board (or its name); nothing is written. Its back end is the module it names."""
    from toolchain import boards, passes

    board = boards.load(board) if isinstance(board, str) else board
    return _emit(*passes.run(graph, board), board)


def _emit(refined: Graph, plan: Plan, board: Board) -> Project:
    back_end = import_module(f"toolchain.backends.{board.backend}")
    project: Project = back_end.emit(refined, plan, board)
    return project


def build(project: Project, out: Path, progress: Progress = quiet) -> Image:
    """Write the project to `out` and run its commands there; MissingToolError when a compiler is not here."""
    return project.build(Path(out), progress=progress)


def measure(
    graph: Graph,
    board: Board | str,
    samples: Mapping[str, np.ndarray] | np.ndarray,
    labels: Ints | None = None,
    runs: int = 10,
    port: str | None = None,
    out: Path | None = None,
    step: Progress = quiet,
) -> Measurement:
    """Emit, build, open the board's link, compare every output with `simulate`, and count `runs` inferences.

    `samples` are real (float) or stored (integer) values, one array or one for each input; `labels` [samples] adds accuracy. Without `out` the project is built in a
    temporary folder. The measurement has no count where an output differed.
    """
    from toolchain import boards, measurement, passes
    from toolchain.inputs import stored
    from toolchain.links import open_link

    board = boards.load(board) if isinstance(board, str) else board
    values = stored(graph, samples)
    refined, plan = passes.run(graph, board)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        image = build(_emit(refined, plan, board), out or Path(scratch) / graph.name, step)
        with open_link(image, board, port) as link:
            return measurement.measure(link, image, board, graph, refined, plan, values, labels, runs, step)


def simulate(
    graph: Graph, inputs: Any, state: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """The reference on real (float) or stored (integer) inputs: one array, or arrays by input name. Returns outputs and states."""
    from toolchain import reference
    from toolchain.inputs import stored

    return reference.simulate(graph, stored(graph, inputs), state)
