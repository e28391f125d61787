"""Images for RV32 silicon that no emulator here knows, run on unicorn's RV32: start-up, linker script, UART driver, protocol, model.

Rule: what stands for the chip is what its documents say and nothing that our own templates say: where flash is seen and
started, which accesses each view takes, the UART's registers, the CSRs. It cannot show that the documents were read right.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests import sample
from toolchain import boards, data, flow, inputs, passes, reference
from toolchain.boards import Board
from toolchain.measurement import run_sample
from toolchain.project import Image, elf_segments
from toolchain.protocol import Session

unicorn: Any = pytest.importorskip("unicorn")
riscv: Any = pytest.importorskip("unicorn.riscv_const")

BOARDS = {"longan_nano": "mcycle", "esp32c3_devkit": "mpccr"}
START = {"longan_nano": 0x0, "esp32c3_devkit": 0x4200_0008}  # a GD32VF103 starts in flash's second view, at 0
PAGE = 4096


class Chip:
    """The processor, its memories and one UART, as a link."""

    count_kind = "none"

    def __init__(self, image: Image, board: Board) -> None:
        self.where, self.board = board.name, board
        self.input, self.output, self.csr = bytearray(), bytearray(), {0x7E0: 0, 0x7E1: 0}
        self.writes: list[tuple[int, int]] = []
        self.faults: list[str] = []
        self.polls, self.cycles = 0, 0
        uc = self.uc = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
        flash = bytearray(board.flash_bytes)
        for address, content in elf_segments(image.path.read_bytes()):
            flash[address - board.flash_origin : address - board.flash_origin + len(content)] = content
        views = {board.flash_origin, board.flash_data_origin or board.flash_origin}
        views |= {0} if board.name == "longan_nano" else set()
        for view in views:
            uc.mem_map(view, board.flash_bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
            uc.mem_write(view, bytes(flash))
        uc.mem_map(board.ram_origin, board.ram_bytes, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        uc.mem_write(board.ram_origin, bytes([0xA5]) * board.ram_bytes)
        for page in {board.uart_base & -PAGE, *(step.address & -PAGE for step in board.steps)}:
            uc.mmio_map(page, PAGE, self.read, page, self.write, page)
        if board.flash_data_origin:
            last = board.flash_origin + board.flash_bytes - 1
            uc.hook_add(unicorn.UC_HOOK_MEM_READ, self.read_as_code, None, board.flash_origin, last)
        uc.hook_add(unicorn.UC_HOOK_CODE, self.step)
        self.pc = START[board.name]

    def read_as_code(self, _uc: Any, _access: int, address: int, size: int, _value: int, _user: Any) -> None:
        if size != 4 or address % 4:  # the instruction bus takes whole words only
            self.faults.append(f"{size} bytes read at {address:#x}, over the instruction bus")

    def step(self, uc: Any, pc: int, size: int, _user: Any) -> None:
        """The CSRs that unicorn has not; mcycle, which it has, stands still there."""
        if size != 4:
            return
        (code,) = struct.unpack("<I", uc.mem_read(pc, 4))
        csr, kind, rd = code >> 20, code >> 12 & 7, code >> 7 & 31
        if code & 0x7F != 0x73 or csr not in (0xB00, 0xB80, 0x7E0, 0x7E1, 0x7E2) or not kind:
            return
        if csr in (0x7E0, 0x7E1) and kind == 5 and rd == 0:
            self.csr[csr] = code >> 15 & 31
        elif kind == 2 and code >> 15 & 31 == 0:
            counts = csr != 0x7E2 or (self.csr[0x7E0] & 1 and self.csr[0x7E1] & 1)
            self.cycles += 100
            uc.reg_write(riscv.UC_RISCV_REG_X0 + rd, 0 if csr == 0xB80 or not counts else self.cycles)
        else:
            self.faults.append(f"no such access to CSR {csr:#x}")
        uc.reg_write(riscv.UC_RISCV_REG_PC, pc + 4)

    def read(self, uc: Any, offset: int, size: int, page: int) -> int:
        at = page + offset - self.board.uart_base
        if size != 4:
            self.faults.append(f"{size} bytes read of a register at {page + offset:#x}")
        waiting = min(len(self.input), 128)
        status, fifo = (0, 4) if self.board.name == "longan_nano" else (0x1C, 0)
        if at == fifo and self.input:
            return self.input.pop(0)
        if at != status:
            return 0
        if not self.input:
            self.polls += 1
            if self.polls % 64 == 0:
                uc.emu_stop()
        return (0xC0 | (0x20 if waiting else 0)) if self.board.name == "longan_nano" else waiting

    def write(self, _uc: Any, offset: int, size: int, value: int, page: int) -> None:
        at = page + offset - self.board.uart_base
        if size != 4:
            self.faults.append(f"{size} bytes written to a register at {page + offset:#x}")
        if at == (4 if self.board.name == "longan_nano" else 0):
            self.output.append(value & 0xFF)
        else:
            self.writes.append((page + offset, value))

    def send(self, content: bytes) -> None:
        self.input += content

    def recv(self, n: int, timeout_s: float) -> bytes:
        for _ in range(400):
            if self.output or self.faults:
                break
            self.uc.emu_start(self.pc, 0xFFFF_FFFC, timeout=int(timeout_s * 1e6))
            self.pc = self.uc.reg_read(riscv.UC_RISCV_REG_PC)
        assert not self.faults, self.faults[:3]
        taken = bytes(self.output[:n])
        del self.output[:n]
        return taken


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> Board:
    return boards.load(request.param)


@pytest.mark.parametrize("family", sample.FAMILIES)
def test_the_sample_model_answers_right(board: Board, family: str) -> None:
    image = sample.image(board.name, family)
    chip = Chip(image, board)
    session = Session(chip)
    hello = session.hello(image)
    assert (hello.board, hello.counter, hello.counter_hz) == (board.name, BOARDS[board.name], board.clock_hz)
    total: tuple[int, ...] = sample.STARTS
    for seed in range(3):
        x = sample.inputs(seed)
        total = sample.expect(x, 10 * seed, total)
        assert sample.run(session, x, 10 * seed) == total
    result = session.run()
    assert 0 < result.stack_bytes <= max(image.sizes["stack_bound_bytes"], 192)
    steps = [(step.address, step.bits) for step in board.steps if step.what == "write"]
    assert [write for write in chip.writes if write in steps] == steps


def test_the_uart_has_the_baud_of_the_file(board: Board) -> None:
    image = sample.image(board.name)
    chip = Chip(image, board)
    Session(chip).hello()
    written = {address - board.uart_base: value for address, value in chip.writes}
    divisor = written[8] if board.name == "longan_nano" else (written[0x14] & 0xFFF) + (written[0x14] >> 20) / 16
    assert abs(board.clock_hz / divisor / board.baud - 1) < 0.025


def test_digits_are_those_of_simulate(board: Board, tmp_path: Any) -> None:
    graph = flow.load(data.folder("examples") / "digits" / "model.h5")
    image = flow.build(flow.emit(graph, board), tmp_path / "project")
    refined, plan = passes.run(graph, board)
    samples = inputs.made_up(graph, 3)
    expected, _ = reference.simulate(graph, samples)
    session = Session(Chip(image, board))
    session.hello(image)
    for number in range(3):
        _, got, _ = run_sample(session, refined, plan, samples, number)
        for name, value in got.items():
            assert value.tolist() == expected[name][number].tolist()


def test_the_trap_handler_is_where_the_core_looks(board: Board) -> None:
    """mtvec as it was set, with the bits that the core has not."""
    chip = Chip(sample.image(board.name), board)
    Session(chip).hello()
    mtvec = chip.uc.reg_read(riscv.UC_RISCV_REG_MTVEC)
    assert mtvec % board.trap_alignment == 0
    assert board.flash_origin <= mtvec < board.flash_origin + board.flash_bytes
