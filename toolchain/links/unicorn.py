"""A Cortex-M4 or M0+ of the AN386 memory map in this very process: unicorn runs the code, this file is the UART and the DWT.

Rule: CYCCNT counts instructions, exactly, by the length of every block executed; cycles that are modelled (_cycles_m4.py)
never go to the firmware. Nothing runs in the background: the emulator steps only inside `recv`, until the firmware has
answered and polls an empty UART again.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from toolchain import tools
from toolchain.boards import Board
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.links import CountKind, Link, Marked
from toolchain.links._cycles_m4 import REFILL, Cost, cost_of_blocks
from toolchain.project import Image, elf_segments

UART_DATA, UART_STATE = 0, 4
STATE_RX_FULL = 2
IDLE_POLLS = 3  # of the state with nothing read or written between: before sending, the firmware asks once
MODELLED = "cortex-m4f"  # the core whose cycles _cycles_m4.py knows
MODELS = {
    "cortex-m4f": "UC_CPU_ARM_CORTEX_M4",
    "cortex-m0plus": "UC_CPU_ARM_CORTEX_M0",
}  # an M0+ executes what an M0 does
SLICE_S = 0.2  # how often a long run looks at its deadline and at Ctrl-C


class _Block(ctypes.Structure):
    """block_cost of unicorn_count.c."""

    _fields_ = (("size", ctypes.c_uint32), ("length", ctypes.c_uint16), ("cycles", ctypes.c_uint16))


class Blocks:
    """The blocks of the code in flash: how many instructions each has, and what it costs by `cost` (nothing if None)."""

    def __init__(self, code: bytes, origin: int, cost: Cost | None) -> None:
        self.origin, self.bytes, self._code, self._cost = origin, len(code), code, cost
        self.table: Any = (_Block * (len(code) // 2))()

    @property
    def refill(self) -> int:
        return REFILL if self._cost else 0

    def learn(self, address: int, size: int) -> None:
        """Thumb code: 32 bits long where the first half-word begins 0b11101 or higher."""
        at, length = address - self.origin, 0
        code = self._code[at : at + size]
        step = 0
        while step < size:
            step += 4 if code[step + 1] >> 3 >= 29 else 2
            length += 1
        cycles = self._cost(code, address) if self._cost else 0
        self.table[at // 2] = (size, length, cycles)


class PythonCounter:
    """The instructions executed, by a hook on every block, and the one place where a run is stopped: `stop` asks for it.

    A stop from elsewhere may fall before a block's hook or after it, and in a block that loops to itself nobody could tell
    whether it was counted. Asked for within the hook, it always falls between the hook and the block.
    """

    def __init__(self, blocks: Blocks, emu_stop: Callable[[], object]) -> None:
        self.stop = False
        known: dict[tuple[int, int], tuple[int, int]] = {}
        refill = blocks.refill
        count = cycles = spent = end = end_before = 0  # closure cells: the fastest variables Python has
        last, length = (0, 0), 0

        def block(_uc: int, address: int, size: int, _user: int) -> None:
            nonlocal count, cycles, spent, end, end_before, last, length
            last = address, size
            if last not in known:
                blocks.learn(address, size)
                learnt = blocks.table[(address - blocks.origin) // 2]
                known[last] = learnt.length, learnt.cycles
            length, spent = known[last]
            if address != end:
                spent += refill
            end_before, end = end, address + size
            count += length
            cycles += spent
            if self.stop:
                emu_stop()

        def forget(pc: int) -> None:
            nonlocal count, cycles, end
            if last[0] == pc:
                count -= length
                cycles -= spent
                end = end_before

        kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
        self.callback: Any = kind(block)  # held here: C keeps only the pointer
        self.user = ctypes.c_void_p()
        self._read: Callable[[], tuple[int, int]] = lambda: (count, cycles)
        self._forget: Callable[[int], None] = forget

    @property
    def count(self) -> int:
        return self._read()[0]

    @property
    def cycles(self) -> int:
        return self._read()[1]

    def stopped(self, pc: int) -> None:
        """A stop falls between a block's hook and the block: resumed, it is hooked, and would be counted, again."""
        self._forget(pc)


_Learn = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint32)


class _State(ctypes.Structure):
    """block_counter of unicorn_count.c."""

    _fields_ = (
        ("count", ctypes.c_uint64),
        ("cycles", ctypes.c_uint64),
        ("last_address", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("end_before", ctypes.c_uint64),
        ("last_length", ctypes.c_uint32),
        ("last_cycles", ctypes.c_uint32),
        ("refill", ctypes.c_uint32),
        ("outside", ctypes.c_uint32),
        ("origin", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("blocks", ctypes.POINTER(_Block)),
        ("learn", _Learn),
        ("emu_stop", ctypes.c_void_p),
        ("stop", ctypes.c_uint32),
    )


class CCounter:
    """PythonCounter, compiled."""

    def __init__(self, library: ctypes.CDLL, blocks: Blocks, emu_stop: Any) -> None:
        self._blocks, self._learn = blocks, _Learn(blocks.learn)  # held here: C keeps only the pointers
        self._state = _State(origin=blocks.origin, bytes=blocks.bytes, refill=blocks.refill)
        self._state.blocks, self._state.learn = blocks.table, self._learn
        self._state.emu_stop = ctypes.cast(emu_stop, ctypes.c_void_p)
        self.callback: Any = library.on_block
        self.user = ctypes.byref(self._state)

    @property
    def stop(self) -> bool:
        return bool(self._state.stop)

    @stop.setter
    def stop(self, value: bool) -> None:
        self._state.stop = value

    @property
    def count(self) -> int:
        return int(self._state.count)

    @property
    def cycles(self) -> int:
        return int(self._state.cycles)

    def stopped(self, pc: int) -> None:
        """As PythonCounter.stopped."""
        state = self._state
        assert not state.outside, "code outside flash was executed"
        if state.last_address == pc:
            state.count -= state.last_length
            state.cycles -= state.last_cycles
            state.end = state.end_before


@functools.cache
def _library() -> ctypes.CDLL | None:
    """unicorn_count.c, compiled for this process; None where that cannot be done."""
    source = Path(__file__).with_name("unicorn_count.c")
    with tempfile.TemporaryDirectory(prefix="bitwright-unicorn-") as folder:
        product = Path(folder) / "count.so"
        try:
            compiler = tools.compiler("host", "host")
            argv = [
                *compiler.argv,
                *compiler.flags,
                "-O2",
                "-shared",
                "-fPIC",
                "-nostdlib",
                str(source),
                "-o",
                str(product),
            ]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
            return ctypes.CDLL(str(product))
        except (ToolchainError, OSError, subprocess.SubprocessError):
            return None


class UnicornLink(Link):
    count_kind: CountKind = "instructions"

    def __init__(self, image: Image, board: Board) -> None:
        try:
            unicorn: Any = importlib.import_module("unicorn")
            arm_const: Any = importlib.import_module("unicorn.arm_const")
        except ImportError:
            raise MissingToolError("unicorn", "not installed", "pip install unicorn, or use a qemu board") from None
        self.where, self._version = board.name, unicorn.__version__
        self._input, self._output = bytearray(), bytearray()
        self._polls, self._idle = 0, False
        self._error_class = unicorn.UcError
        self._pc_register = arm_const.UC_ARM_REG_PC
        self._emulator: Any = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        emulator = self._emulator
        emulator.ctl_set_cpu_model(getattr(arm_const, MODELS[board.core]))
        for origin, size in ((board.flash_origin, board.flash_bytes), (board.ram_origin, board.ram_bytes)):
            emulator.mem_map(origin, -(-size // 4096) * 4096)
        for address, data in elf_segments(image.path.read_bytes()):
            emulator.mem_write(address, data)
        emulator.mmio_map(board.uart_base, 0x1000, self._uart_read, None, self._uart_write, None)
        emulator.mmio_map(0xE000E000, 0x1000, _zero, None, _ignore, None)
        emulator.mmio_map(0xE0001000, 0x1000, self._dwt_read, None, self._dwt_write, None)
        self._cyccnt_base, self._dwt_control = 0, 0
        self._cyccnt_read, self._wrapped = 0, False
        flash = bytes(emulator.mem_read(board.flash_origin, board.flash_bytes))
        cost = cost_of_blocks() if board.core == MODELLED else None
        self._models, blocks = cost is not None, Blocks(flash, board.flash_origin, cost)
        self._readings: list[tuple[int, int]] = []  # of the counter, by the firmware: instructions, modelled cycles
        self._overhead: int | None = None
        library = _library()
        self._counter: PythonCounter | CCounter = (
            CCounter(library, blocks, unicorn.unicorn_py3.unicorn.uclib.uc_emu_stop)
            if library
            else PythonCounter(blocks, emulator.emu_stop)
        )
        self._hook_blocks(unicorn, self._counter)
        stack, self._pc = struct.unpack("<II", bytes(emulator.mem_read(board.flash_origin, 8)))
        emulator.reg_write(arm_const.UC_ARM_REG_SP, stack)

    def _hook_blocks(self, unicorn: Any, counter: PythonCounter | CCounter) -> None:
        """Past unicorn's own Python binding, which wraps each callback in several calls."""
        add = unicorn.unicorn_py3.unicorn.uclib.uc_hook_add
        handle, everywhere = ctypes.c_size_t(), (ctypes.c_uint64(1), ctypes.c_uint64(0))
        kind = ctypes.c_int(unicorn.UC_HOOK_BLOCK)
        code = add(self._emulator._uch, ctypes.byref(handle), kind, counter.callback, counter.user, *everywhere)
        assert code == 0, code

    def _uart_read(self, _uc: Any, offset: int, _size: int, _user: Any) -> int:
        if offset == UART_STATE:
            if self._input:
                return STATE_RX_FULL
            self._polls += 1
            if self._polls >= IDLE_POLLS:
                self._idle = True
                self._emulator.emu_stop()
        elif offset == UART_DATA and self._input:
            self._polls = 0
            return self._input.pop(0)
        return 0

    def _uart_write(self, _uc: Any, offset: int, _size: int, value: int, _user: Any) -> None:
        if offset == UART_DATA:
            self._polls = 0
            self._output.append(value & 0xFF)

    def _dwt_read(self, _uc: Any, offset: int, _size: int, _user: Any) -> int:
        if offset == 4 and self._dwt_control & 1:
            now = self._counter.count
            self._wrapped |= now - self._cyccnt_read >= 1 << 32  # a difference of 32-bit readings would be too small
            self._cyccnt_read = now
            if self._models:
                self._readings.append((now, self._counter.cycles))
            return (now - self._cyccnt_base) & 0xFFFFFFFF
        return self._dwt_control if offset == 0 else 0

    def _dwt_write(self, _uc: Any, offset: int, _size: int, value: int, _user: Any) -> None:
        if offset == 0:
            self._dwt_control = value
        elif offset == 4:
            self._cyccnt_base = self._counter.count - value

    def modelled_cycles(self, marked: Sequence[Marked]) -> list[int] | None:
        """The firmware reads its counter in pairs, and every stretch it tells of is one; an answer asked for again may have
        run again, so each is the next pair of as many instructions."""
        if not self._models:
            return None
        read = self._readings
        self._readings = []
        pairs = iter([(b[0] - a[0] & 0xFFFFFFFF, b[1] - a[1]) for a, b in zip(read[::2], read[1::2], strict=True)])

        def next_of(instructions: int) -> int:
            return next(cycles for ticks, cycles in pairs if ticks == instructions)

        if self._overhead is None and marked:  # the empty pairs are the first, made by counter_init
            self._overhead = next_of(marked[0].overhead)
        return [next_of(m.ticks) - (self._overhead or 0) for m in marked]

    @property
    def versions(self) -> Mapping[str, str]:
        return {"unicorn": self._version, **({"capstone": version("capstone")} if self._models else {})}

    def send(self, data: bytes) -> None:
        self._input += data

    def recv(self, n: int, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while not self._output:
            left = deadline - time.monotonic()
            if left <= 0:
                return b""
            self._polls, self._idle = 0, False
            self._step(min(left, SLICE_S))
            if self._idle and not self._input and not self._output:
                # nothing more will ever come of itself: wait as a line that stays silent would
                time.sleep(max(0.0, deadline - time.monotonic()))
                return b""
        data = bytes(self._output[:n])
        del self._output[:n]
        return data

    def _step(self, seconds: float) -> None:
        failures: list[BaseException] = []

        def lost(unraisable: Any) -> None:  # Ctrl-C lands in a callback, where ctypes would print and forget it
            failures.append(unraisable.exc_value)
            self._emulator.emu_stop()

        def halt() -> None:
            self._counter.stop = True

        before, sys.unraisablehook = sys.unraisablehook, lost
        self._counter.stop = False
        timer = threading.Timer(seconds, halt)
        timer.daemon = True
        timer.start()
        try:
            self._emulator.emu_start(self._pc | 1, 0xFFFFFFFF)
        except self._error_class as error:
            at = self._emulator.reg_read(self._pc_register)
            raise ToolchainError(self.where, f"the emulated processor stopped at {at:#x}: {error}") from None
        finally:
            timer.cancel()
            timer.join()
            sys.unraisablehook = before
            self._pc = self._emulator.reg_read(self._pc_register)
            self._counter.stopped(self._pc)
        if failures:
            raise failures[0]
        if self._wrapped:
            what = "more than 2**32 instructions ran between two readings of the 32-bit counter"
            raise ToolchainError(self.where, what, "use a smaller model, or a qemu board, whose counter has 64 bits")

    def close(self) -> None:
        self._input.clear()


def _zero(_uc: Any, _offset: int, _size: int, _user: Any) -> int:
    return 0


def _ignore(_uc: Any, _offset: int, _size: int, _value: int, _user: Any) -> None:
    return None


def open(image: Image, board: Board, port: str | None = None) -> UnicornLink:  # noqa: A001
    return UnicornLink(image, board)
