"""The command line: one subcommand a verb, no logic of its own. Exit codes: 0 good, 1 outputs differ, 2 your mistake, 3 a tool is missing.

Nothing heavy is imported before the verb is known, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from toolchain import __version__
from toolchain.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from toolchain.boards import Board
    from toolchain.ir import Graph
    from toolchain.resources import Resources

DIFFERENT = 1
OPTIMIZE = ("speed", "size", "ram")  # of passes.plan, which is not imported to print a help
UNHEARD = 141  # 128 + SIGPIPE: the reader left before the verdict of a comparison
WIDTH = 160  # of tables that go to a file or a pipe


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        _keep_what_is_read(arguments)
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


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(ToolchainError.exit_code, f"error: {self.prog}: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="bitwright",
        description="Quantized models on FPGAs and microcontrollers, proved equal to what was trained at every step.",
        epilog="example: bitwright measure examples/digits/model.h5 --board qemu_mps2_an386 --inputs images.npy",
    )
    top.add_argument("--version", action="version", version=f"bitwright {__version__}")
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")

    verb = _verb(
        verbs,
        "inspect",
        inspect,
        "print the integer graph of a model: shapes, bits, MACs, weight bytes",
        "inspect model.h5",
    )
    _model(verb)
    verb.add_argument("--text", action="store_true", help="the canonical text of the graph instead of the table")
    _json(verb)

    verb = _verb(
        verbs, "simulate", simulate, "run the reference on samples", "simulate model.h5 --inputs x.npy --out y.npz"
    )
    _model(verb)
    _samples(verb)
    verb.add_argument(
        "--out", type=Path, metavar="FILE", help="write the outputs to this .npz, an array for each output"
    )
    verb.add_argument("--real", action="store_true", help="real values instead of stored integers")
    _json(verb)

    verb = _verb(
        verbs,
        "verify",
        verify,
        "compare the training framework with the reference, tensor by tensor",
        "verify model.h5 --inputs x.npy",
    )
    _model(verb)
    _samples(verb)
    _json(verb)

    verb = _verb(
        verbs,
        "stream",
        stream,
        "write the graph that takes only the new frames of a model over a window, and keeps the rest as states",
        "stream model.tflite --out step.graph --frames 2",
    )
    _model(verb)
    verb.add_argument(
        "--out", type=Path, required=True, metavar="STEP.graph", help="the graph to write, a model like any other"
    )
    verb.add_argument(
        "--frames",
        type=_positive,
        metavar="N",
        help="new frames at a step (default: as many as the strides along time need)",
    )
    verb.add_argument(
        "--axis",
        type=_whole,
        metavar="K",
        help="axis of the input that is time, without the batch, channels last (default: the first of several frames)",
    )
    verb.add_argument(
        "--stream-input", metavar="NAME", help="the input that frames come in, where the model has several"
    )
    verb.add_argument("--seed", type=_whole, default=0, help="of the frames that the steps are compared on (default 0)")
    _json(verb)

    verb = _verb(
        verbs,
        "estimate",
        estimate,
        "what the circuit on an FPGA board would take, by the cost model, and what would go wrong building it",
        "estimate model.h5 --board arty_a7_35 --target-latency-us 20",
    )
    _model(verb)
    _board(verb, c=False)
    _json(verb)

    verb = _verb(
        verbs,
        "emit",
        emit,
        "write the project for a board, without building it",
        "emit model.h5 --board nucleo_f446re --out firmware",
    )
    _model(verb, several=True)
    _board(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    _json(verb)

    verb = _verb(verbs, "build", build, "emit and compile", "build model.h5 --board nucleo_f446re --out firmware")
    _model(verb, several=True)
    _board(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write and build in")
    _json(verb)

    verb = _verb(
        verbs,
        "measure",
        measure,
        "build, run on the board, compare every output, then count",
        "measure model.h5 --board unicorn_m4 -n 20",
    )
    _model(verb, several=True)
    _board(verb)
    _samples(verb)
    verb.add_argument("--labels", type=Path, metavar="Y.npy", help="class of each sample: adds accuracy")
    verb.add_argument("-n", type=_positive, default=10, metavar="N", help="timed runs (default 10)")
    verb.add_argument("--port", metavar="DEV", help="serial port of a real board, as /dev/ttyACM0")
    verb.add_argument("--out", type=Path, metavar="DIR", help="keep the project and the image here")
    _json(verb)

    verb = _verb(verbs, "boards", boards, "list the boards", "boards --json")
    _json(verb)
    verb = _verb(
        verbs,
        "doctor",
        doctor,
        "list the external tools: found where, version, what works without, how to get",
        "doctor --json",
    )
    _json(verb)
    verb = _verb(verbs, "demo", demo, "a digits CNN on an emulated Cortex-M4, start to finish", "demo brevitas")
    verb.add_argument(
        "example",
        nargs="?",
        choices=("qkeras", "brevitas"),
        default="qkeras",
        help="what trained it: qkeras (default) or brevitas",
    )
    verb.add_argument("--board", metavar="NAME", help="run it on this board instead")
    verb.add_argument("--port", metavar="DEV", help="serial port of a real board")
    _json(verb)
    return top


def _verb(verbs: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary, epilog=f"example: bitwright {example}"
    )
    verb.set_defaults(run=run)
    return verb


def _model(verb: argparse.ArgumentParser, several: bool = False) -> None:
    kinds = "a saved model (.h5, .keras, .onnx, .tflite) or the text of a graph (.graph)"
    if several:
        verb.add_argument(
            "model",
            nargs="+",
            metavar="[NAME=]MODEL",
            help=f"{kinds}; several share one firmware, its memory, and have NAME in front of all that is theirs in C",
        )
        verb.add_argument(
            "--instances",
            action="store_true",
            help="C that writes only what an instance is given, of one model too: re-entrant, with NAME in front",
        )
    else:
        verb.add_argument("model", type=Path, metavar="MODEL", help=kinds)
    edge = verb.add_argument_group(
        "input edge", "for a model without an input quantizer, or to requantize a camera's integers on the device"
    )
    edge.add_argument("--input-type", metavar="TYPE", help="stored type of the input, as u8, s8, u12")
    edge.add_argument("--input-scale", metavar="S", help="real value of one step, as 1/255")
    edge.add_argument("--input-zero-point", type=int, metavar="Z", help="stored value of real 0 (default 0)")
    edge.add_argument(
        "--input-mean", metavar="M,...", help="subtracted from each channel before the model, in real units"
    )
    edge.add_argument("--input-std", metavar="S,...", help="divides each channel after the mean")
    edge.add_argument(
        "--sigmoid",
        choices=("hard", "smooth", "real"),
        default="hard",
        help="QKeras' global internal sigmoid (not saved in the model)",
    )
    edge.add_argument(
        "--batch", type=int, metavar="1", help="rewrite an ONNX model that was exported with another batch size"
    )


def _board(verb: argparse.ArgumentParser, c: bool = True) -> None:
    verb.add_argument("--board", required=True, metavar="NAME", help="see `bitwright boards`")
    if c:
        verb.add_argument(
            "--optimize", choices=OPTIMIZE, default="", help="what C is made for (default: speed); see docs/kernels.md"
        )
    circuit = verb.add_argument_group(
        "circuit", "for FPGA boards; what is left open is chosen by the cost model so that it fits"
    )
    circuit.add_argument(
        "--hls", metavar="TOOL", help="back end of hls4ml: Vitis, Vivado, VivadoAccelerator, Quartus, Catapult"
    )
    circuit.add_argument(
        "--io", metavar="KIND", help="parallel (arrays) or stream (default: stream where there are convolutions)"
    )
    circuit.add_argument(
        "--strategy", metavar="NAME", help="latency, resource or distributed_arithmetic, for every product"
    )
    circuit.add_argument(
        "--reuse-factor", metavar="N|NAME=N,...", help="multiplications for each multiplier and inference"
    )
    circuit.add_argument(
        "--target-latency-us", metavar="US", help="the least hardware that is this fast, by the cost model"
    )


def _samples(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--inputs",
        type=Path,
        metavar="X.npy",
        help="floats are real values, integers stored ones; .npz for several inputs; without it seeded random and corner samples",
    )
    verb.add_argument(
        "--channels",
        choices=("first", "last"),
        help="how the samples lie, where a model takes channels first and both orders have one shape",
    )
    verb.add_argument("--seed", type=_whole, default=0, help="of the made-up samples (default 0)")


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="JSON to FILE, or to standard output without a FILE or with -",
    )


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, must be a whole number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, must be a whole number of 1 or more")
    return int(text)


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


def _keep_what_is_read(arguments: argparse.Namespace) -> None:
    """ToolchainError where a result would be written over the model or the samples."""
    given = [p for name in ("model", "inputs", "labels") if (p := getattr(arguments, name, None))]
    files = [p for value in given for p in (map(_file, value) if isinstance(value, list) else [value])]
    read = {Path(p).resolve(): p for p in files}
    for name in ("out", "json"):
        path = getattr(arguments, name, None)
        if path and str(path) != "-" and Path(path).resolve() in read:
            raise ToolchainError(f"--{name} {path}", "is a file that this command reads", "choose another name")


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
    figures: list[Resources] = []
    with report.progress(console, stages=vendors) as step:
        if several:
            project = flow.emit_several(several, board, _circuit(arguments), arguments.optimize)
            image = flow.build(project, arguments.out, step)
        elif vendors:
            image, figures = flow.synthesize(
                graph, board, arguments.out, _circuit(arguments), step, optimize=arguments.optimize
            )
        else:
            project = flow.emit(graph, board, _circuit(arguments), arguments.optimize)
            image, memory = flow.build(project, arguments.out, step), project.memory
    data: dict[str, object] = {
        "board": board.name,
        "graph": graph.digest(),
        "project": image.project_digest,
        "image": str(image.path),
    }
    data |= {"graphs": {name: g.digest() for name, g in several.items()}} if several else {}
    _write_json(
        arguments,
        {**data, **image.sizes, **memory, **({"resources": [f.as_json() for f in figures]} if figures else {})},
    )
    if arguments.json != "-":
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
