"""The verbs, and the only place that knows all rooms: front ends, back ends and links are found by file name.

load(model) -> Graph -- emit(board) --> Project -- build --> Image -- measure --> Measurement
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

from toolchain.errors import ToolchainError
from toolchain.options import LoadOptions

if TYPE_CHECKING:
    import numpy as np

    from toolchain.backends.c import Member
    from toolchain.boards import Board
    from toolchain.circuit import Wishes
    from toolchain.estimate import Estimate
    from toolchain.ir import Graph
    from toolchain.ir.types import Ints
    from toolchain.lint import Finding
    from toolchain.measurement import Measurement
    from toolchain.passes import Plan
    from toolchain.passes.plan import Hls
    from toolchain.project import Image, Project
    from toolchain.resources import Resources
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


def emit(graph: Graph, board: Board | str, circuit: Wishes | None = None, optimize: str = "") -> Project:
    """The project of files and commands for a board (or its name); nothing is written. Its back end is the module it names.

    `circuit`: how an FPGA board's circuit is built; what the linter calls an error is refused. `optimize`: what C is made for,
    speed (the default), size or ram."""
    from toolchain import boards

    board = boards.load(board) if isinstance(board, str) else board
    return _emit(*_planned(graph, board, circuit, optimize), board)


def estimate(graph: Graph, board: Board | str, circuit: Wishes | None = None) -> tuple[Estimate, tuple[Finding, ...]]:
    """What an FPGA board's circuit would take by the cost model, and what would go wrong in building it. Runs no tool."""
    from toolchain import boards, estimate, lint

    board = boards.load(board) if isinstance(board, str) else board
    refined, plan = _plan(graph, board, circuit)
    hls = _hls(board, plan)
    return estimate.estimate(refined, board, hls), lint.lint(refined, board, hls)


def _plan(graph: Graph, board: Board, circuit: Wishes | None, optimize: str = "") -> tuple[Graph, Plan]:
    """The refined graph, and its plan with the choices for a circuit where the board has one or `circuit` asks for one."""
    from toolchain import passes
    from toolchain.circuit import Wishes, choose

    if board.fpga is None and not circuit:
        return passes.run(graph, board, optimize=optimize or "speed")
    if optimize:
        what = f"is for kernels in C; board {board.name} is made of gates"
        raise ToolchainError(
            f"--optimize {optimize}", what, "leave it out, or say --strategy, --reuse-factor or --target-latency-us"
        )
    return passes.run(graph, board, choose(graph, board, circuit or Wishes()))


def _hls(board: Board, plan: Plan) -> Hls:
    if plan.hls is None:
        what = "has no circuit to estimate: it is no FPGA"
        raise ToolchainError(f"board {board.name}", what, "take a board with a table [fpga], see `bitwright boards`")
    return plan.hls


def _planned(graph: Graph, board: Board, circuit: Wishes | None, optimize: str = "") -> tuple[Graph, Plan]:
    """The same, with ToolchainError for choices that make a wrong circuit, or none."""
    from toolchain import lint

    refined, plan = _plan(graph, board, circuit, optimize)
    for finding in lint.lint(refined, board, plan.hls) if plan.hls else ():
        if finding.severity == lint.ERROR:
            raise ToolchainError(finding.op, finding.text)
    return refined, plan


def _emit(refined: Graph, plan: Plan, board: Board) -> Project:
    back_end = import_module(f"toolchain.backends.{board.backend}")
    project: Project = back_end.emit(refined, plan, board)
    if plan.hls:
        project = replace(project, circuit=plan.hls.parts())
    if not project.steps:
        return project
    from toolchain import testbench

    return replace(project, files={**project.files, **testbench.files(refined)})


def members(
    graphs: Mapping[str, Graph], board: Board, circuit: Wishes | None = None, optimize: str = ""
) -> list[Member]:
    """Models by name, refined and planned for a microcontroller that holds them all."""
    from toolchain.backends.c import Member

    if board.backend != "c" or board.fpga is not None or circuit:
        what = "holds one model: several in one project are for microcontrollers and `native`"
        raise ToolchainError(f"board {board.name}", what, "see `bitwright boards`")
    return [Member(name, *_planned(graph, board, None, optimize)) for name, graph in graphs.items()]


def emit_several(
    graphs: Mapping[str, Graph], board: Board | str, circuit: Wishes | None = None, optimize: str = ""
) -> Project:
    """The project of several models, by the name that is to stand in front of all they define in C. Each writes only what an
    instance of it is given, so they share one memory and may be run by several at once."""
    from toolchain import boards
    from toolchain.backends import c

    board = boards.load(board) if isinstance(board, str) else board
    return c.emit_several(members(graphs, board, circuit, optimize), board)


def measure_several(
    graphs: Mapping[str, Graph],
    board: Board | str,
    samples: Mapping[str, Mapping[str, np.ndarray] | np.ndarray],
    runs: int = 10,
    port: str | None = None,
    out: Path | None = None,
    step: Progress = quiet,
    optimize: str = "",
) -> dict[str, Measurement]:
    """As `measure`, of each model of one image in turn, by name: all are built into it and share its memory."""
    from toolchain import boards, measurement
    from toolchain import project as room
    from toolchain.backends import c
    from toolchain.inputs import stored
    from toolchain.links import open_link

    board = boards.load(board) if isinstance(board, str) else board
    found: dict[str, Measurement] = {}
    parts = members(graphs, board, None, optimize)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        project = c.emit_several(parts, board)
        with project.held(out or Path(scratch) / "project") as folder:
            image = room.build(folder, progress=step)
            with open_link(image, board, port) as link:
                for k, part in enumerate(parts):
                    graph = graphs[part.name]
                    values, own = stored(graph, samples[part.name]), replace(image, graph_digest=part.graph.digest())
                    found[part.name] = measurement.measure(
                        link, own, board, graph, part.graph, part.plan, values, None, runs, step, model=k
                    )
    return found


def build(project: Project, out: Path, progress: Progress = quiet) -> Image:
    """Write the project to `out` and run its commands there; MissingToolError when a compiler is not here."""
    return project.build(Path(out), progress=progress)


def synthesize(
    graph: Graph,
    board: Board,
    out: Path,
    circuit: Wishes | None = None,
    progress: Progress = quiet,
    samples: int = 64,
    optimize: str = "",
) -> tuple[Image, list[Resources]]:
    """Build for an FPGA on a desk: emit, compile the C simulation, compare it with `simulate`, then run the vendor's steps.

    ToolchainError where an output of the C simulation differs, before any synthesis; MissingToolError, with everything
    before it done, where a vendor's tool is not here.
    """
    from toolchain import measurement, synthesis, testbench
    from toolchain import project as room
    from toolchain.inputs import made_up
    from toolchain.links import csim

    refined, plan = _planned(graph, board, circuit, optimize)
    project = _emit(refined, plan, board)
    with project.held(Path(out)) as root:
        image = room.build(root, progress=lambda what, done: progress(what, done / 4))
        with csim.open(image, board) as link:
            found = measurement.measure(
                link, image, board, graph, refined, plan, made_up(graph, samples), None, 1,
                lambda _what, done: progress("C simulation", (1 + done) / 4),
            )  # fmt: skip
        if not found.bit_exact:
            what = f"C simulation differs from the reference: {found.first_difference}"
            raise ToolchainError(str(out), what, "this is a fault of the toolchain; nothing was synthesized")
        figures = synthesis.run(root, project.steps, board, lambda what, done: progress(what, (1 + done) / 2))
        compared = testbench.check(root)
    if any(step.name == "cosim" for step in project.steps) and not compared:
        what = f"no log of the cosimulation in {Path(testbench.LOGS[0]).parent}, so that nothing is known of the circuit's answers"
        raise ToolchainError(str(out), what, "delete logs/cosim.done and build again")
    bits = [made for step in project.steps for made in step.makes if made.endswith((".bit", ".sof"))]
    loaded = project.unbuilt(Path(out))
    return (replace(loaded, path=Path(out) / bits[-1]) if bits else loaded), figures


def measure(
    graph: Graph,
    board: Board | str,
    samples: Mapping[str, np.ndarray] | np.ndarray,
    labels: Ints | None = None,
    runs: int = 10,
    port: str | None = None,
    out: Path | None = None,
    step: Progress = quiet,
    circuit: Wishes | None = None,
    optimize: str = "",
) -> Measurement:
    """Emit, build, open the board's link, compare every output with `simulate`, and count `runs` inferences.

    `samples` are real (float) or stored (integer) values, one array or one for each input; `labels` [samples] adds accuracy. Without `out` the project is built in a
    temporary folder. The measurement has no count where an output differed. An FPGA on a desk is not built for: it must
    hold the bitstream that `build` made, and says so by its digests.
    """
    from toolchain import boards, measurement
    from toolchain import project as room
    from toolchain.inputs import stored
    from toolchain.links import open_link

    board = boards.load(board) if isinstance(board, str) else board
    on_desk = board.fpga is not None and not board.emulated
    if board.fpga is not None and on_desk and not board.fpga.top:
        what = "nothing on it would answer: for this board there is a project with reports, and no design with a serial port"
        raise ToolchainError(f"board {board.name}", what, "measure with --board csim, or take a board with a top")
    values = stored(graph, samples)
    refined, plan = _planned(graph, board, circuit, optimize)
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        project = _emit(refined, plan, board)
        with project.held(out or Path(scratch) / "project") as folder:
            image = project.unbuilt(folder) if on_desk else room.build(folder, progress=step)
            if board.fpga is not None:
                image = replace(
                    image, sizes={"flash_bytes": 0, "ram_bytes": 0}
                )  # a circuit's are not those of its simulation
            with open_link(image, board, port) as link:
                return measurement.measure(link, image, board, graph, refined, plan, values, labels, runs, step)


def simulate(
    graph: Graph, inputs: Any, state: dict[str, np.ndarray] | None = None
) -> tuple[dict[str, Ints], dict[str, Ints]]:
    """The reference on real (float) or stored (integer) inputs: one array, or arrays by input name. Returns outputs and states."""
    from toolchain import reference
    from toolchain.inputs import stored

    return reference.simulate(graph, stored(graph, inputs), state)
