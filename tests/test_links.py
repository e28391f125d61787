"""Links and the firmware behind them: right outputs, exact counts, nothing left running."""

from __future__ import annotations

import os
import pty
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests import sample
from toolchain import boards, tools
from toolchain.errors import MissingToolError, ToolchainError
from toolchain.links import Link, open_link, unicorn
from toolchain.links import serial as serial_link
from toolchain.links.qemu import ticks_per_instruction
from toolchain.project import Image
from toolchain.protocol import OpCount, ProtocolError, RunResult, Session, Timing

COUNTERS = {
    "qemu_microbit": "timer",
    "qemu_virt_rv32": "mcycle",
    "unicorn_m4": "dwt",
    "simavr_uno": "timer1",
    "native": "none",
}  # else systick
FAMILY = pytest.mark.parametrize("family", sample.FAMILIES)


def count(link: Link, session: Session, result: RunResult | OpCount) -> int:
    """Instructions of a run or an op, net of the measurement's own."""
    hello = session._hello
    assert hello is not None
    return link.to_count(result.ticks, result.interrupts, hello) - link.to_count(result.overhead, 0, hello)


def load(session: Session, x: bytes, rounds: int) -> None:
    session.write(sample.X, x)
    session.write(sample.ROUNDS, struct.pack("<I", rounds))


@FAMILY
@pytest.mark.parametrize("board", [*sample.EMULATED, "native"])
def test_the_sample_model_answers_right(board: str, family: str) -> None:
    image = sample.image(board, family)
    with sample.open_board(board, family) as link:
        session = Session(link)
        hello = session.hello(image)
        assert hello.board == boards.image_board(boards.load(board)).name
        assert hello.counter == COUNTERS.get(board, "systick")
        assert hello.ops == 3
        total: tuple[int, ...] = sample.STARTS
        for seed in range(3):
            x = sample.inputs(seed)
            total = sample.expect(x, 100 * seed, total)
            assert sample.run(session, x, 100 * seed) == total
        assert struct.unpack("<4i", session.read(sample.TOTAL, 16)) == total
        session.reset_state()
        assert struct.unpack("<4i", session.read(sample.TOTAL, 16)) == sample.STARTS
        session.run(stop=1)  # op 0 alone: neither y nor the state moves
        assert struct.unpack("<4i", session.read(sample.Y, 16)) == total
        mixed = sample.expect(x, 200, (0, 0, 0, 0))
        assert struct.unpack("<4i", session.read(sample.ARENA, 16)) == mixed


@FAMILY
@pytest.mark.parametrize("board", sample.EMULATED)
def test_counts_repeat_whatever_else_goes_over_the_line(board: str, family: str) -> None:
    rng = random.Random(3)
    with sample.open_board(board, family) as link:
        session = Session(link)
        session.hello(sample.image(board, family))
        load(session, sample.inputs(), 20_000)
        counts, stack = set(), set()
        for k in range(6 if board == "unicorn_m4" else 30):
            result = session.run()
            counts.add(count(link, session, result))
            stack.add(result.stack_bytes)
            for _ in range(k % 4):
                session.read(sample.X, rng.randrange(1, 300))
        assert len(counts) == 1, counts
        (total,) = counts
        assert total > 20_000 * 4 * 3  # the rounds alone: no less than three instructions each
        assert 0 < max(stack) < boards.load(board).stack_bytes
        profile = session.profile()
        ops = [count(link, session, op) for op in profile]
        assert [count(link, session, op) for op in session.profile()] == ops
        assert ops[0] > 0.99 * total
        small = 400 if board == "simavr_uno" else 100  # 8 bits at a time
        assert 0 < ops[1] < small
        assert 0 < ops[2] < small


@FAMILY
def test_qemu_and_unicorn_count_the_same_image_alike(family: str) -> None:
    """One ELF, SysTick and its interrupts on the one, CYCCNT on the other: equal to the instruction."""
    image = sample.image("qemu_mps2_an386", family)
    found: dict[str, list[int]] = {}
    interrupts = 0
    for board in ("qemu_mps2_an386", "unicorn_m4"):
        try:
            link = open_link(image, boards.load(board))
        except MissingToolError as error:
            pytest.skip(str(error))
        with link:
            session = Session(link)
            session.hello(image)
            for rounds in (0, 1, 999, 300_000):
                load(session, sample.inputs(rounds), rounds)
                result = session.run()
                interrupts += result.interrupts
                found.setdefault(board, []).append(count(link, session, result))
            load(session, sample.inputs(), 50)
            found[board] += [count(link, session, op) for op in session.profile()]
    assert found["qemu_mps2_an386"] == found["unicorn_m4"]
    assert interrupts > 0, "the longest run must outlast SysTick's 24 bits"


@pytest.mark.parametrize(
    ("board", "period"),  # AN547's tick is no whole number of ns: at 256 a hundred wraps within a run move a count by one
    [
        ("qemu_mps2_an385", 256), ("qemu_mps2_an386", 256), ("qemu_mps2_an505", 256), ("qemu_mps3_an547", 512),
        ("rp2040js_pico", 256),
    ],
)  # fmt: skip
def test_the_systick_wrap_race_is_won(board: str, period: int) -> None:
    """With a period of 256 ticks (80 or 100 instructions) wraps fall on every instruction of the measurement itself."""
    image = sample.image(board, "gcc", [f"-DCOUNTER_SYSTICK_PERIOD={period}u"])
    reference = sample.image(board, "gcc")
    with open_link(reference, boards.load(board)) as link:
        session = Session(link)
        session.hello(reference)
        calm = []
        for rounds in (0, 7, 20):
            load(session, sample.inputs(), rounds)
            calm.append(count(link, session, session.run()))
    with open_link(image, boards.load(board)) as link:
        session = Session(link)
        session.hello(image)
        for rounds, wanted in zip((0, 7, 20), calm, strict=True):
            load(session, sample.inputs(), rounds)
            results = [session.run() for _ in range(60)]  # each begins at another point of the period
            assert min(result.interrupts for result in results) > 0
            assert {count(link, session, result) for result in results} == {wanted}


@pytest.mark.parametrize("compiled", [True, False])
def test_unicorn_counts_alike_interrupted_or_not(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stops the emulator in the midst of a run: nothing may be counted twice, by the hook in C or in Python."""
    rounds = 100_000 if compiled else 4_000  # long enough for many stops
    if not compiled:
        monkeypatch.setattr(unicorn, "_library", lambda: None)
    elif unicorn._library() is None:
        pytest.skip("no compiler for this machine")
    counts = set()
    for seconds in (60.0, 0.002):
        monkeypatch.setattr(unicorn, "SLICE_S", seconds)
        with sample.open_board("unicorn_m4") as link:
            session = Session(link)
            session.hello()
            load(session, sample.inputs(), rounds)
            counts |= {count(link, session, session.run()) for _ in range(3)}
            load(session, sample.inputs(), 77)
            counts.add(-count(link, session, session.run()))
            assert type(link._counter) is (unicorn.CCounter if compiled else unicorn.PythonCounter)  # type: ignore[attr-defined]
    assert len(counts) == 2, counts
    if compiled:  # the shorter run in Python too
        monkeypatch.setattr(unicorn, "_library", lambda: None)
        with sample.open_board("unicorn_m4") as link:
            session = Session(link)
            session.hello()
            load(session, sample.inputs(), 77)
            assert -count(link, session, session.run()) in counts


def test_unicorn_gives_no_count_that_wrapped() -> None:
    class Ahead:  # as if 2**32 instructions more had run from one reading to the next
        def __init__(self, counter: unicorn.CCounter | unicorn.PythonCounter) -> None:
            self.counter, self.readings, self.stopped, self.cycles = counter, 0, counter.stopped, 0

        @property
        def count(self) -> int:
            self.readings += 1
            return self.counter.count + (self.readings << 32)

    with sample.open_board("unicorn_m4") as link:
        session = Session(link)
        session.hello()
        load(session, sample.inputs(), 10)
        session.run()
        link._counter = Ahead(link._counter)  # type: ignore[attr-defined]
        with pytest.raises(ToolchainError) as e:
            session.run()
    assert str(e.value) == (
        "unicorn_m4: more than 2**32 instructions ran between two readings of the 32-bit counter; "
        "use a smaller model, or a qemu board, whose counter has 64 bits"
    )


@pytest.mark.parametrize("compiled", [True, False])
def test_an_interrupt_from_the_keyboard_reaches_the_user(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = broken("unicorn_m4", "for (volatile uint32_t i = 1; i != 0;) { }", tmp_path)
    if not compiled:
        monkeypatch.setattr(unicorn, "_library", lambda: None)
    with open_link(image, boards.load("unicorn_m4")) as link:
        session = Session(link)
        session.hello(image)
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            session.run()
        timer.join()
        assert time.monotonic() - started < 5


def test_instructions_from_ticks() -> None:
    ratios = {name: ticks_per_instruction(boards.load(name)) for name in sample.EMULATED if name.startswith("qemu_")}
    assert {name: str(ratio) for name, ratio in ratios.items()} == {
        "qemu_mps2_an385": "16/5",
        "qemu_mps2_an386": "16/5",
        "qemu_mps2_an500": "16/5",
        "qemu_mps2_an505": "64/25",
        "qemu_mps3_an547": "512/125",
        "qemu_microbit": "256/125",
        "qemu_virt_rv32": "128",
        "qemu_netduinoplus2": "2688/125",
    }
    assert min(ratios.values()) > 2  # a tick more or less never reaches half an instruction


def test_the_native_process_counts_nothing() -> None:
    with sample.open_board("native") as link:
        session = Session(link)
        hello = session.hello()
        assert link.count_kind == "none"
        with pytest.raises(ToolchainError) as caught:
            link.to_count(1, 0, hello)
        assert str(caught.value) == "native: no counter of the board moves; outputs can be compared, not counted"


# What goes wrong


def broken(board: str, op0: str, folder: Path) -> Image:
    """The sample with another op 0."""
    project = sample.project(board)
    text = str(project.files["model.c"]).replace(
        "for (uint32_t lane = 0; lane < 4; lane++) {", op0 + "\n    for (uint32_t lane = 0; lane < 4; lane++) {", 1
    )
    files = {**project.files, "model.c": text}
    return replace(project, files=files).build(folder / "broken", sample.Toolbox(None))


def fault(image: Image, board: str, timing: Timing | None = None) -> str:
    with open_link(image, boards.load(board)) as link:
        session = Session(link, timing)
        session.hello(image)
        with pytest.raises(ProtocolError) as caught:
            session.run()
    return str(caught.value)


@pytest.mark.parametrize("board", ["qemu_mps2_an385", "qemu_mps2_an386", "qemu_microbit", "qemu_virt_rv32"])
def test_a_fault_of_the_processor_is_reported(board: str, tmp_path: Path) -> None:
    code = "unimp" if board == "qemu_virt_rv32" else "udf #0"
    image = broken(board, f'__asm__ volatile("{code}");', tmp_path)
    assert fault(image, board) == f"{board}: the board refused RUN: the processor faulted; reset the board (error 7)"


@pytest.mark.parametrize("board", ["qemu_mps2_an386", "qemu_virt_rv32"])
def test_a_stack_overflow_is_reported(board: str, tmp_path: Path) -> None:
    # of a size that the compiler does not know: else the bound on the stack refuses the build
    dig = "volatile uint32_t n = 9000; volatile uint8_t big[n]; for (uint32_t i = 0; i < n; i++) { big[i] = 1; } (void)big[0];"
    image = broken(board, dig, tmp_path)
    assert fault(image, board) == (
        f"{board}: the board refused RUN: the stack overflowed: outputs and counts are not to be trusted (error 6)"
    )


@pytest.mark.parametrize("board", ["native", "qemu_mps2_an386", "unicorn_m4", "rp2040js_pico", "simavr_uno"])
def test_a_model_that_never_ends_is_given_up(board: str, tmp_path: Path) -> None:
    image = broken(board, "for (volatile uint32_t i = 1; i != 0;) { }", tmp_path)
    started = time.monotonic()
    timing = Timing(run_s=0.2, tries=2)
    assert fault(image, board, timing) == (
        f"{board}: no answer to RUN (2 tries of 0.2 s); the board answered before: reset it, and check the cable"
    )
    assert time.monotonic() - started < 5


def test_a_child_that_ends_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "image.elf"
    if tools.find("qemu-system-arm").path:
        with (
            open_link(Image(missing, "", ""), boards.load("qemu_mps2_an386")) as link,
            pytest.raises(ToolchainError) as caught,
        ):
            Session(link).hello()
        assert str(caught.value).startswith(
            f"qemu_mps2_an386: ended by itself (exit 1): {missing}: No such file or dir"
        )
    image = broken("native", "__builtin_trap();", tmp_path)
    with open_link(image, boards.load("native")) as link:
        session = Session(link)
        session.hello(image)
        with pytest.raises(ToolchainError) as caught:
            session.run()
    assert str(caught.value) == "native: ended by itself (exit -4)"


def test_a_missing_emulator_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QEMU_SYSTEM_ARM", "/nowhere/qemu")
    with pytest.raises(MissingToolError) as caught:
        open_link(Image(Path("x"), "", ""), boards.load("qemu_mps2_an386"))
    assert str(caught.value) == (
        "qemu-system-arm: QEMU_SYSTEM_ARM is '/nowhere/qemu', which is no program; correct QEMU_SYSTEM_ARM or unset it"
    )


def test_a_port_where_none_belongs() -> None:
    with pytest.raises(ToolchainError) as caught:
        open_link(Image(Path("x"), "", ""), boards.load("native"), "/dev/ttyACM0")
    assert str(caught.value) == "native: has no port: its link is 'process'; leave --port out"


# Nothing outlives the command

OPENER = """
import sys, time
from pathlib import Path
from toolchain import boards
from toolchain.links import open_link
from toolchain.project import Image
from toolchain.protocol import Session
link = open_link(Image(Path(sys.argv[2]), "", ""), boards.load(sys.argv[1]))
Session(link).hello()
print(link.child.pid, flush=True)
if sys.argv[3] == "wait":
    time.sleep(60)
elif sys.argv[3] == "fail":
    raise RuntimeError
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("end", ["wait", "fail", "leave"])
@pytest.mark.parametrize("board", ["native", "qemu_mps2_an386", "rp2040js_pico", "simavr_uno"])
def test_no_child_outlives_the_command(board: str, end: str) -> None:
    """Killed without a chance to tidy up, ended by an exception, or simply left."""
    image = sample.image(board)
    with sample.open_board(board):
        pass
    argv = [sys.executable, "-c", OPENER, board, str(image.path), end]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as opener:
        assert opener.stdout is not None
        pid = int(opener.stdout.readline())
        if end == "wait":
            assert alive(pid)
            opener.send_signal(signal.SIGKILL)
        opener.wait(10)
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_closing_ends_the_child() -> None:
    with sample.open_board("native") as link:
        Session(link).hello()
        pid = link.child.pid  # type: ignore[attr-defined]
        assert alive(pid)
    assert not alive(pid)
    link.close()


# A serial port


@contextmanager
def board_on_a_port(board: str) -> Iterator[str]:
    """An emulated board behind a pseudo terminal, as a real one is behind /dev/ttyACM0."""
    ours, theirs = pty.openpty()
    tty.setraw(ours)
    tty.setraw(theirs)
    stop = threading.Event()
    with sample.open_board(board) as link:

        def to_port() -> None:
            while not stop.is_set():
                data = link.recv(4096, 0.05)
                while data:
                    data = data[os.write(ours, data) :]

        def to_board() -> None:
            while not stop.is_set():
                try:
                    link.send(os.read(ours, 4096))
                except OSError:  # the other end is not open: EIO
                    time.sleep(0.01)

        threads = [threading.Thread(target=to_port), threading.Thread(target=to_board, daemon=True)]
        for thread in threads:
            thread.start()
        try:
            yield os.ttyname(theirs)
        finally:
            stop.set()
            threads[0].join()
            os.write(theirs, b"\0")  # wakes to_board
            threads[1].join(1)
            os.close(theirs)
            os.close(ours)


@pytest.mark.parametrize("board", ["native", "qemu_mps2_an386"])
def test_the_serial_link(board: str) -> None:
    pytest.importorskip("serial")
    image = sample.image(board)
    with board_on_a_port(board) as port, serial_link.open(image, boards.load("nucleo_f446re"), port) as link:
        assert link.count_kind == "counted"
        session = Session(link)
        session.hello(image)
        for seed in range(5):
            session.reset_state()
            assert sample.run(session, sample.inputs(seed), seed) == sample.expect(sample.inputs(seed), seed)
        with pytest.raises(ToolchainError, match="cannot be opened"):
            serial_link.open(image, boards.load("nucleo_f446re"), port)  # one command at a time


def test_an_absent_port_lists_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("serial")
    board = boards.load("nucleo_f446re")
    image = Image(Path("x"), "", "")

    def said(port: str | None) -> str:
        with pytest.raises(ToolchainError) as caught:
            open_link(image, board, port)
        return str(caught.value)

    monkeypatch.setattr(serial_link, "ports", lambda: ("/dev/ttyACM0", "/dev/ttyUSB0"))
    assert said("/dev/ttyACM7") == (
        "/dev/ttyACM7: no such port; did you mean '/dev/ttyACM0'? ports on this machine: /dev/ttyACM0, /dev/ttyUSB0"
    )
    assert said(None) == (
        "nucleo_f446re: is reached over a serial port and none was named; give --port; "
        "ports on this machine: /dev/ttyACM0, /dev/ttyUSB0"
    )
    monkeypatch.setattr(serial_link, "ports", lambda: ())
    assert said("/dev/ttyACM7") == "/dev/ttyACM7: no such port; this machine has no serial port"


def test_a_device_that_is_no_bitwright_board() -> None:
    """A port that answers with noise: no answer is made of it."""
    pytest.importorskip("serial")
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    os.write(ours, random.Random(5).randbytes(3000))
    with serial_link.open(Image(Path("x"), "", ""), boards.load("nucleo_f446re"), os.ttyname(theirs)) as link:
        with pytest.raises(ProtocolError) as caught:
            Session(link, Timing(hello_s=0.05, hello_tries=2)).hello()
        assert str(caught.value).startswith(f"{os.ttyname(theirs)}: no answer to HELLO (2 tries of 0.05 s); ")
    os.close(ours)
    os.close(theirs)
