"""Boards are data: one file boards/<name>.toml each, read, checked and frozen here.

Rule: every number in a board file names its source, and a key nobody reads is refused. What only an FPGA has is the
table [fpga] of the file; toolchain/fpga_boards.py says what it holds and what is wrong with one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from toolchain import data
from toolchain.errors import ToolchainError, nearest
from toolchain.fpga_boards import Fpga as Fpga
from toolchain.fpga_boards import check as check_fpga

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CORES = {
    "host": "host",
    "cortex-m0": "arm",
    "cortex-m0plus": "arm",
    "cortex-m3": "arm",
    "cortex-m4f": "arm",
    "cortex-m7": "arm",
    "cortex-m33": "arm",
    "cortex-m55": "arm",
    "rv32imac": "riscv",
    "rv32imc": "riscv",
    "atmega328p": "avr",
}  # core -> the compiler it needs
COUNTERS = ("none", "dwt", "systick", "mcycle", "timer", "mpccr", "timer1", "fpga")
STEPS = ("set", "clear", "write", "wait")
BOOTS = ("", "esp32c3_boot", "gd32vf103_boot", "rp2040_boot2")  # what must stand at the very start of flash
OWN_OF_IMAGE_OF = ("image_of", "part", "link", "machine", "emulated_counter_hz", "flash_command", "source")


@dataclass(frozen=True)
class Step:
    """One register access of a board's start-up: what to do to the bits at an address, and why."""

    what: str
    address: int
    bits: int
    why: str


@dataclass(frozen=True)
class Board:
    """What a board is. What is plugged into this desk (port, probe) never is here. Units are in the names."""

    name: str
    backend: str
    part: str
    link: str
    source: Mapping[str, str]
    core: str = ""  # of the processor that runs the model; none where it is gates
    fpga: Fpga | None = None
    clock_hz: int = 0
    flash_origin: int = 0
    flash_bytes: int = 0
    ram_origin: int = 0
    ram_bytes: int = 0
    stack_bytes: int = 2048
    largest_payload: int = 1024
    flash_data_origin: int = 0  # where flash is read as data, if that is not where it is executed
    trap_alignment: int = 4  # of RISC-V's trap handler, in bytes
    boot: str = (
        ""  # a second-stage loader, or what else, of firmware_templates/c/ports that must be at the start of flash
    )
    uart: str = "process"
    uart_base: int = 0
    uart_lpuart: bool = False
    baud: int = 115_200
    counter: str = "none"
    machine: str = ""  # of QEMU
    emulated_counter_hz: int = 0  # where the emulator's counter clock is not the board's clock_hz
    image_of: str = ""  # this board runs the very image built for that one
    flash_command: tuple[str, ...] = ()  # {image} is the file to load
    steps: tuple[Step, ...] = ()

    @property
    def compiler(self) -> str:
        """The kind of compiler: host, arm, riscv or avr."""
        return CORES[self.core]

    @property
    def emulated(self) -> bool:
        return self.link in ("qemu", "unicorn", "rp2040js", "simavr", "verilator", "csim")

    def source_of(self, field: str) -> str:
        return self.source.get(field, self.source.get("all", ""))


def modules(room: str) -> tuple[str, ...]:
    """The back ends or links there are, by file name: a new one is one new file and no list knows of it."""
    found = iter_modules([str(Path(__file__).parent / room)])
    return tuple(sorted(module.name for module in found if not module.name.startswith("_")))


def uarts() -> tuple[str, ...]:
    """The UART drivers there are, by file name, and the standard input and output of a process."""
    files = (data.folder("firmware_templates") / "c" / "ports").glob("uart_*.c")
    return ("process", *sorted(path.stem.removeprefix("uart_") for path in files))


def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in data.folder("boards").glob("*.toml")))


def load(name: str) -> Board:
    """The board of this name, checked whole."""
    path = data.folder("boards") / f"{name}.toml"
    if name not in names():
        near = nearest(name.lower(), names()) or "see `bitwright boards`;"
        hint = f"{near} to add one, write boards/{name}.toml" if name.isidentifier() else near.rstrip(";")
        raise ToolchainError("", f"no board {name!r}", hint)
    return parse(name, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Board:
    """The board a file of this name and text describes. With image_of, what the text leaves out is that board's."""
    where = f"boards/{name}.toml"
    values = _read(where, text)
    board = image = None
    if "image_of" in values:
        image = load(values["image_of"])
        for key in values:
            if key not in OWN_OF_IMAGE_OF:
                what = f"{key} belongs to {image.name!r}, whose image this board runs"
                raise ToolchainError(where, what, f"remove it; may be here: {', '.join(OWN_OF_IMAGE_OF)}")
        source = {**image.source, **values.pop("source", {})}
        board = dataclasses.replace(image, name=name, steps=image.steps, flash_command=(), source=source, **values)
    else:
        _whole(where, Board, values)
        board = Board(name=name, **values)
    numbers = [key for key, value in values.items() if type(value) is int]
    if "fpga" in values:
        numbers += [key for key, value in vars(values["fpga"]).items() if value and type(value) in (int, dict)]
    _check(where, board, numbers)
    return board


def _read(where: str, text: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ToolchainError(where, f"is not TOML: {error}", "correct the file") from None
    return _keys(where, Board, values)


def _keys(where: str, kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table by the fields of its dataclass, each of the field's type."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name != "name"}
    made = {}
    for key, value in values.items():
        if key not in fields:
            hint = nearest(key, fields) or f"known keys: {', '.join(fields)}"
            raise ToolchainError(where, f"unknown key {key!r}", hint)
        made[key] = _typed(where, key, fields[key].type, value)
    return made


def _whole(where: str, kind: type, values: Mapping[str, Any]) -> None:
    for field in dataclasses.fields(kind):
        none = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name not in values and none and field.name != "name":
            raise ToolchainError(where, f"key {field.name!r} is missing", f"add {field.name} = ...")


def _typed(where: str, key: str, kind: Any, value: Any) -> Any:
    """The value as the field's type (annotations are strings here), or a refusal."""
    if key == "source" and isinstance(value, str) and value:
        return {"all": value}
    if key == "source" and isinstance(value, dict) and all(isinstance(v, str) and v for v in value.values()):
        return dict(value)
    if key == "steps" and isinstance(value, list):
        return tuple(_step(f"{where}: steps[{i}]", step) for i, step in enumerate(value))
    if key in ("flash_command", "tools") and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if key == "pins" and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return dict(value)
    if key == "fpga" and isinstance(value, dict):
        table = _keys(f"{where}: [fpga]", Fpga, value)
        _whole(f"{where}: [fpga]", Fpga, table)
        return Fpga(**table)
    plain = {"str": str, "int": int, "bool": bool}.get(str(kind))
    if plain is not None and type(value) is plain:
        return value
    raise ToolchainError(where, f"{key} is {value!r}, must be {_KINDS.get(key, str(kind))}", "correct the file")


_KINDS = {
    "source": "a text, or a table of texts by key",
    "steps": "a list of tables",
    "flash_command": "a list of texts",
    "tools": "a list of texts",
    "pins": "a table of texts",
    "fpga": "a table [fpga]",
}


def _step(where: str, value: Any) -> Step:
    keys = {"what": str, "address": int, "bits": int, "why": str}
    if not isinstance(value, dict) or set(value) != set(keys) or any(type(value[k]) is not t for k, t in keys.items()):
        raise ToolchainError(where, f"is {value!r}", "a step is {what, address, bits, why}")
    if value["what"] not in STEPS:
        raise ToolchainError(where, f"what is {value['what']!r}, must be one of {', '.join(STEPS)}", "correct the file")
    if (
        value["address"] % 4
        or not 0 <= value["address"] < 1 << 32
        or not 0 <= value["bits"] < 1 << 32
        or not value["why"]
    ):
        raise ToolchainError(where, f"is {value!r}", "a word address, 32 bits and a reason are needed")
    return Step(**value)


def _check(where: str, board: Board, numbers: list[str]) -> None:
    def choice(key: str, known: tuple[str, ...]) -> None:
        value = getattr(board, key)
        if value not in known:
            hint = " ".join(filter(None, [nearest(value, known), f"known: {', '.join(known)}"]))
            raise ToolchainError(where, f"unknown {key} {value!r}", hint)

    def within(key: str, low: int, high: int, unit: str = "") -> None:
        value = getattr(board, key)
        if not low <= value <= high:
            what = f"{key} is {value:,}{unit}, must be {low:,} to {high:,}{unit}"
            raise ToolchainError(where, what, "correct the file")

    choice("backend", modules("backends"))
    choice("link", modules("links"))
    for key in numbers:
        if not board.source_of(key):
            raise ToolchainError(where, f"{key} has no source", f"add {key} = '...' under [source]")
    known = {field.name for table in (Board, Fpga) for field in dataclasses.fields(table)} | {"all"}
    for key in board.source:
        if key not in known:
            hint = nearest(key, known) or "name a key of the file"
            raise ToolchainError(where, f"[source] names the unknown key {key!r}", hint)
    if board.backend == "c" or (board.fpga and board.core):
        if not board.core:
            raise ToolchainError(where, "key 'core' is missing", "add core = ...")
        choice("core", tuple(CORES))
    if board.backend == "c" and board.fpga:
        raise ToolchainError(where, "[fpga] is for boards whose back end makes gates", "remove it, or correct backend")
    if board.backend == "hls4ml" and not board.fpga:
        raise ToolchainError(where, "table [fpga] is missing", "add [fpga] with tool, tools, luts, ffs, ...")
    if board.fpga:
        choice("counter", COUNTERS)
        within("clock_hz", 1_000_000, 2_000_000_000, " Hz")
        within("baud", 1_200, 3_000_000)
        check_fpga(where, board.fpga, board.part, data.folder("boards"))
        return
    if board.backend != "c":
        return
    choice("uart", uarts())
    choice("counter", COUNTERS)
    choice("boot", BOOTS)
    within("largest_payload", 128, 32_768, " bytes")
    if board.core == "host":
        return
    within("clock_hz", 32_768, 2_000_000_000, " Hz")
    within("flash_bytes", 8_192, 0x8000 if board.compiler == "avr" else 1 << 30, " bytes")
    within("ram_bytes", 1_024 if board.compiler == "avr" else 4_096, 1 << 30, " bytes")
    within("flash_origin", 0, (1 << 32) - board.flash_bytes)
    within("ram_origin", 0, (1 << 32) - board.ram_bytes)
    within("flash_data_origin", 0, (1 << 32) - board.flash_bytes)
    if board.trap_alignment not in (4, 64, 128, 256):
        what = f"trap_alignment is {board.trap_alignment}, must be one of 4, 64, 128, 256 bytes"
        raise ToolchainError(where, what, "correct the file")
    within("uart_base", 4, (1 << 32) - 4096)
    within("stack_bytes", 512, board.ram_bytes // 2, " bytes")
    within("baud", 1_200, 3_000_000)
    for key in ("flash_origin", "flash_data_origin", "ram_origin", "ram_bytes", "stack_bytes"):
        if getattr(board, key) % 8:
            raise ToolchainError(
                where, f"{key} is {getattr(board, key):#x}, must be a multiple of 8", "correct the file"
            )
    if max(board.flash_origin, board.ram_origin) < min(
        board.flash_origin + board.flash_bytes, board.ram_origin + board.ram_bytes
    ):
        raise ToolchainError(where, "flash and RAM overlap", "correct their origins or sizes")
    if board.link == "qemu" and not board.machine:
        raise ToolchainError(where, "a qemu board needs a machine", "add machine = '...' as qemu-system -M names it")
    if board.link == "serial":
        # 2.5 % is what two ends of an 8N1 frame share before the last bit is read wrong
        scales = {"pl011": Fraction(4), "esp32c3": Fraction(16), "avr": Fraction(1, 8)}
        scale = Fraction(256) if board.uart_lpuart else scales.get(board.uart, Fraction(1))
        divisor = max(1, (scale * board.clock_hz + board.baud // 2) // board.baud)
        error = abs(Fraction(scale * board.clock_hz, divisor * board.baud) - 1)
        if board.uart != "nrf51" and error > Fraction(25, 1000):
            what = f"baud {board.baud:,} is {float(error):.1%} off at {board.clock_hz:,} Hz, must be within 2.5%"
            raise ToolchainError(where, what, "choose another baud")


def image_board(board: Board) -> Board:
    """The board whose name and numbers the image is built with: the one HELLO names."""
    return load(board.image_of) if board.image_of else board
