"""The command line: one subcommand a verb, no logic of its own. Exit codes: 0 good, 1 outputs differ, 2 your mistake, 3 a tool is missing.

Nothing heavy is imported before the verb is known, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import command_line
from toolchain.command_line import OPTIMIZE
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from toolchain.boards import Board
    from toolchain.ir import Graph
    from toolchain.resources import Resources

DIFFERENT = 1
UNHEARD = 141  # 128 + SIGPIPE: the reader left before the verdict of a comparison
WIDTH = 160  # of tables that go to a file or a pipe


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        _check_files(arguments)
        code = int(arguments.run(arguments))
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; no file is half-written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `bitwright ... | head`: no error, but what was compared stays what it was
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(getattr(arguments, "verdict", UNHEARD if arguments.run is demo else 0))


def _console(arguments: argparse.Namespace) -> Console:
    """Where people read: standard output, or standard error when that carries JSON."""
    from toolchain.report import PipedConsole as Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # main's to answer: rich would exit with 1, which here means that outputs differ

    made = Screen(stderr=arguments.json == "-", highlight=False, soft_wrap=True)
    return made if made.is_terminal else Screen(file=made.file, highlight=False, soft_wrap=True, width=WIDTH)


def _write_json(arguments: argparse.Namespace, data: object) -> None:
    if arguments.json is None:
        return
    text = json.dumps(data, indent=2) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
        sys.stdout.flush()  # a closed pipe is met here, not at the interpreter's end
    else:
        from toolchain.files import write_text

        write_text(Path(arguments.json), text)


def _check_files(arguments: argparse.Namespace) -> None:
    """ToolchainError where a result would be written over the model or the samples, or JSON nowhere."""
    given = [p for name in ("model", "inputs", "labels") if (p := getattr(arguments, name, None))]
    files = [p for value in given for p in (map(_file, value) if isinstance(value, list) else [value])]
    read = {Path(p).resolve(): p for p in files}
    for name in ("out", "json"):
        path = getattr(arguments, name, None)
        if path and str(path) != "-" and Path(path).resolve() in read:
            raise ToolchainError(f"--{name} {path}", "is a file that this command reads", "choose another name")
    told = getattr(arguments, "json", None)
    if (
        told and told != "-" and (not Path(told).parent.is_dir() or Path(told).is_dir())
    ):  # before the work, not after it
        raise ToolchainError(f"--json {told}", "cannot be written", "name a file in a folder that is there")


def _load(arguments: argparse.Namespace) -> Graph:
    from toolchain import flow
    from toolchain.options import LoadOptions

    model = _file(arguments.model[0]) if isinstance(arguments.model, list) else arguments.model
    return flow.load(model, LoadOptions.from_text(arguments))


def _file(given: str) -> Path:
    """The file of [NAME=]MODEL. A file that is there is one, whatever = its name has."""
    return Path(given) if "=" not in given or Path(given).exists() else Path(given.partition("=")[2])


def _several(arguments: argparse.Namespace) -> dict[str, Graph]:
    """The models by name where there are several, or one that is to be written as one of several; else empty."""
    if len(arguments.model) == 1 and not arguments.instances:
        given = arguments.model[0]
        if str(_file(given)) != given:
            what = "one model alone has no name in C"
            raise ToolchainError(
                given, what, "leave NAME= out, or add --instances, for which it is put in front of all names"
            )
        return {}
    from toolchain import flow
    from toolchain.ir.builder import identifier
    from toolchain.options import LoadOptions

    found: dict[str, Graph] = {}
    for given in arguments.model:
        path = _file(given)
        name = given.partition("=")[0] if str(path) != given else identifier(path.stem).lower().strip("_")
        if name in found:
            raise ToolchainError(f"model {name}", "names two models", "give one of them another as NAME=FILE")
        found[name] = flow.load(path, LoadOptions.from_text(arguments))
    return found


def _read(arguments: argparse.Namespace, graph: Graph, count: int, edges: bool = False) -> Any:
    from toolchain import inputs

    if not arguments.inputs:
        return inputs.made_up(graph, count, arguments.seed)
    notes: list[str] = []
    values = inputs.read(graph, arguments.inputs, notes, arguments.channels, edges)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return values


def inspect(arguments: argparse.Namespace) -> int:
    from toolchain import inspect, report

    graph = _load(arguments)
    _write_json(arguments, inspect.as_json(graph))
    if arguments.json != "-":
        console = _console(arguments)
        console.out(str(graph), end="") if arguments.text else report.graph(console, graph)
    return 0


def simulate(arguments: argparse.Namespace) -> int:
    from toolchain import files, inputs, reference, report

    if arguments.out and arguments.out.suffix != ".npz":
        raise ToolchainError(f"--out {arguments.out}", "must end in .npz: an array for each output is written")
    graph = _load(arguments)
    outputs, _ = reference.simulate(graph, _read(arguments, graph, 16))
    values: dict[str, Any] = {
        t.name: inputs.dequantize(t, outputs[t.name]) if arguments.real else outputs[t.name] for t in graph.outputs
    }
    if arguments.out:
        files.write_npz(arguments.out, values)
    _write_json(
        arguments,
        {"graph": graph.digest(), "real": arguments.real, "outputs": {n: v.tolist() for n, v in values.items()}},
    )
    if arguments.json != "-":
        report.outputs(_console(arguments), graph, values, arguments.out)
    return 0


def verify(arguments: argparse.Namespace) -> int:
    from toolchain import flow, report
    from toolchain.options import LoadOptions

    graph = _load(arguments)
    samples = _read(arguments, graph, 256, edges=True)
    found = flow.verify(arguments.model, graph, samples, LoadOptions.from_text(arguments))
    arguments.verdict = 0 if found.equal else DIFFERENT
    _write_json(arguments, found.as_json())
    if arguments.json != "-":
        report.verification(_console(arguments), found)
    return int(arguments.verdict)


def stream(arguments: argparse.Namespace) -> int:
    from toolchain import files, report, streaming
    from toolchain.streaming import proof

    if arguments.out.suffix != ".graph":
        raise ToolchainError(f"--out {arguments.out}", "must end in .graph: the text of a graph is written")
    made = streaming.stream(_load(arguments), arguments.frames, arguments.axis, arguments.stream_input)
    compared = proof.compare(made, seed=arguments.seed)
    files.write_text(arguments.out, str(made.graph))
    _write_json(arguments, {**made.as_json(), "steps_compared": compared})
    if arguments.json != "-":
        report.stream(_console(arguments), made, compared, arguments.out)
    return 0


def estimate(arguments: argparse.Namespace) -> int:
    from toolchain import cost_report, flow, lint
    from toolchain import estimate as room

    found, findings = flow.estimate(_load(arguments), arguments.board, _circuit(arguments))
    data = {**room.as_json(found), "findings": [vars(finding) for finding in findings]}
    _write_json(arguments, data)
    if arguments.json != "-":
        console = _console(arguments)
        cost_report.findings(console, findings)
        cost_report.estimate(console, found)
    return ToolchainError.exit_code if any(finding.severity == lint.ERROR for finding in findings) else 0


def _circuit(arguments: argparse.Namespace) -> Any:
    from toolchain.circuit import Wishes

    return Wishes.from_text(arguments)


def emit(arguments: argparse.Namespace) -> int:
    from toolchain import boards, flow, report
    from toolchain.passes.plan import Hls, arena_text

    board, several = boards.load(arguments.board), _several(arguments)
    graph = next(iter(several.values())) if several else _load(arguments)
    circuit, optimize = _circuit(arguments), arguments.optimize
    project = (
        flow.emit_several(several, board, circuit, optimize) if several else flow.emit(graph, board, circuit, optimize)
    )
    project.write(arguments.out)
    _write_json(
        arguments,
        {
            "board": board.name,
            "graph": graph.digest(),
            **({"graphs": {name: g.digest() for name, g in several.items()}} if several else {}),
            "project": project.digest(),
            **({} if project.circuit else {"optimize": optimize or OPTIMIZE[0]}),
            "files": sorted(project.files),
            **project.memory,
            **({"weights": dict(project.weights)} if project.weights else {}),
            **({"circuit": project.circuit} if project.circuit else {}),
        },
    )
    if arguments.json != "-":
        chosen = f"circuit: {Hls(**project.circuit).text}\n" if project.circuit else ""
        chosen += f"{arena_text(**project.memory)}\n" if project.memory else ""
        chosen += report.weights(project.weights)
        _console(arguments).print(f"{chosen}wrote {len(project.files)} files to {arguments.out}")
    return 0


def build(arguments: argparse.Namespace) -> int:
    from toolchain import boards, flow, report

    board, several = boards.load(arguments.board), _several(arguments)
    graph = next(iter(several.values())) if several else _load(arguments)
    console = _console(arguments)
    vendors = board.fpga is not None and not board.emulated
    memory: Mapping[str, int] = {}
    weights: Mapping[str, Mapping[str, str | int]] = {}
    figures: list[Resources] = []
    with report.progress(console, stages=vendors) as step:
        if several:
            project = flow.emit_several(several, board, _circuit(arguments), arguments.optimize)
            image, weights = flow.build(project, arguments.out, step), project.weights
        elif vendors:
            image, figures = flow.synthesize(
                graph, board, arguments.out, _circuit(arguments), step, optimize=arguments.optimize
            )
        else:
            project = flow.emit(graph, board, _circuit(arguments), arguments.optimize)
            image, memory, weights = flow.build(project, arguments.out, step), project.memory, project.weights
    data: dict[str, object] = {
        "board": board.name,
        "graph": graph.digest(),
        "project": image.project_digest,
        "image": str(image.path),
    }
    data |= {"graphs": {name: g.digest() for name, g in several.items()}} if several else {}
    _write_json(
        arguments,
        {
            **data,
            **image.sizes,
            **memory,
            **({"weights": dict(weights)} if weights else {}),
            **({"resources": [f.as_json() for f in figures]} if figures else {}),
        },
    )
    if arguments.json != "-":
        console.print(report.weights(weights), end="")
        report.resources(console, figures, board, image) if figures else report.image(console, image, board, memory)
    return 0


def measure(arguments: argparse.Namespace) -> int:
    from toolchain import boards, flow, inputs, report

    board, several = boards.load(arguments.board), _several(arguments)
    if several:
        return _measure_several(arguments, board, several)
    graph = _load(arguments)
    samples = _read(arguments, graph, 16)
    labels = inputs.read_labels(arguments.labels, len(next(iter(samples.values())))) if arguments.labels else None
    console = _console(arguments)
    with report.progress(console) as step:
        found = flow.measure(
            graph, board, samples, labels=labels, runs=arguments.n, port=arguments.port, out=arguments.out, step=step,
            circuit=_circuit(arguments),
            optimize=arguments.optimize,
        )  # fmt: skip
    arguments.verdict = 0 if found.bit_exact else DIFFERENT
    _write_json(arguments, found.as_json())
    if arguments.json != "-":
        report.measurement(console, found)
    return int(arguments.verdict)


def _measure_several(arguments: argparse.Namespace, board: Board, several: dict[str, Graph]) -> int:
    from toolchain import flow, inputs, report

    for name in ("inputs", "labels"):
        if getattr(arguments, name):
            what = "goes with one model; several are measured on made-up samples"
            raise ToolchainError(f"--{name}", what, "measure one by itself")
    if circuit := _circuit(arguments):
        flow.members(several, board, circuit)  # refuses it
    samples = {name: inputs.made_up(graph, 16, arguments.seed) for name, graph in several.items()}
    console = _console(arguments)
    with report.progress(console) as step:
        found = flow.measure_several(
            several, board, samples, arguments.n, arguments.port, arguments.out, step, arguments.optimize
        )
    arguments.verdict = 0 if all(m.bit_exact for m in found.values()) else DIFFERENT
    _write_json(arguments, {"models": {name: m.as_json() for name, m in found.items()}})
    if arguments.json != "-":
        for name, m in found.items():
            console.print(f"model {name}")
            report.measurement(console, m)
    return int(arguments.verdict)


def boards(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from toolchain import boards, report

    found = [boards.load(name) for name in boards.names()]
    _write_json(arguments, [asdict(board) for board in found])
    if arguments.json != "-":
        report.boards(_console(arguments), found)
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    from toolchain import tools

    _write_json(arguments, tools.doctor_json())
    if arguments.json != "-":
        tools.render_doctor(_console(arguments))
    return 0


def demo(arguments: argparse.Namespace) -> int:
    from toolchain import demo

    return demo.run(
        _console(arguments),
        arguments.example,
        board=arguments.board,
        port=arguments.port,
        write_json=lambda data: _write_json(arguments, data),
    )


VERBS: dict[str, command_line.Verb] = {
    verb.__name__: verb
    for verb in (inspect, simulate, verify, stream, estimate, emit, build, measure, boards, doctor, demo)
}


def parser() -> argparse.ArgumentParser:
    return command_line.parser(VERBS)
