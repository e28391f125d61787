"""The command line's words: each verb, its options, their help; what a verb does stands in cli.py.

Rule: nothing is imported but what parsing needs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from toolchain import __version__
from toolchain.errors import ToolchainError

Verb = Callable[[argparse.Namespace], int]
OPTIMIZE = ("speed", "size", "ram")  # of passes.plan, which is not imported to print a help


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(ToolchainError.exit_code, f"error: {self.prog}: {message}; see `{self.prog} --help`\n")


def parser(verbs: Mapping[str, Verb]) -> argparse.ArgumentParser:
    """`verbs`: by name, what a verb does; the answer's `run` is the one that was asked for."""
    top = Parser(
        prog="bitwright",
        description="Quantized models on FPGAs and microcontrollers, proved equal to what was trained at every step.",
        epilog="example: bitwright measure examples/digits/model.h5 --board qemu_mps2_an386 --inputs images.npy",
    )
    top.add_argument("--version", action="version", version=f"bitwright {__version__}")
    group = top.add_subparsers(title="verbs", required=True, metavar="VERB")

    def add(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = group.add_parser(
            name, help=summary, description=summary, epilog=f"example: bitwright {example}"
        )
        verb.set_defaults(run=verbs[name])
        return verb

    verb = add(
        "inspect",
        "print the integer graph of a model: shapes, bits, MACs, weight bytes",
        "inspect model.h5",
    )
    _model(verb)
    verb.add_argument("--text", action="store_true", help="the canonical text of the graph instead of the table")
    _json(verb)

    verb = add("simulate", "run the reference on samples", "simulate model.h5 --inputs x.npy --out y.npz")
    _model(verb)
    _samples(verb)
    verb.add_argument(
        "--out", type=Path, metavar="FILE", help="write the outputs to this .npz, an array for each output"
    )
    verb.add_argument("--real", action="store_true", help="real values instead of stored integers")
    _json(verb)

    verb = add(
        "verify",
        "compare the training framework with the reference, tensor by tensor",
        "verify model.h5 --inputs x.npy",
    )
    _model(verb)
    _samples(verb)
    _json(verb)

    verb = add(
        "stream",
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

    verb = add(
        "estimate",
        "what the circuit on an FPGA board would take, by the cost model, and what would go wrong building it",
        "estimate model.h5 --board arty_a7_35 --target-latency-us 20",
    )
    _model(verb)
    _board(verb, c=False)
    _json(verb)

    verb = add(
        "emit",
        "write the project for a board, without building it",
        "emit model.h5 --board nucleo_f446re --out firmware",
    )
    _model(verb, several=True)
    _board(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    _json(verb)

    verb = add("build", "emit and compile", "build model.h5 --board nucleo_f446re --out firmware")
    _model(verb, several=True)
    _board(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write and build in")
    _json(verb)

    verb = add(
        "measure",
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

    verb = add("boards", "list the boards", "boards --json")
    _json(verb)
    verb = add(
        "doctor",
        "list the external tools: found where, version, what works without, how to get",
        "doctor --json",
    )
    _json(verb)
    verb = add("demo", "a digits CNN on an emulated Cortex-M4, start to finish", "demo brevitas")
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
