"""The bound on the stack: what GCC says of each frame and call, how deep a painted stack was used, and what gives no bound."""

from __future__ import annotations

import dataclasses
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import sample
from tests.graphs import inputs_for
from tests.pages import needs, needs_compiler
from tests.test_c_backend import kinds
from toolchain import boards, data, flow, measurement, project, stack, tools
from toolchain.errors import ToolchainError
from toolchain.links import open_link
from toolchain.project import Image, Project
from toolchain.protocol import Session

PAINT = struct.pack("<I", 0xB17B17A5)  # the firmware's own, whose lowest word it watches
BOARDS = ("unicorn_m4", "qemu_microbit", "qemu_virt_rv32", "qemu_mps3_an547")
NAKED = {
    "Reset_Handler",
    "start",
    "trap",
    "fault",
    "SysTick_Handler",
}  # theirs is assembler, which GCC does not look into


def built(made: Project, folder: Path, flags: tuple[str, ...] = ()) -> tuple[Image, dict[str, int]]:
    """By GCC; the image and what GCC wrote of its frames. `flags` are added to the command."""
    given = dataclasses.replace(made, commands=tuple((*command, *flags) for command in made.commands))
    seen: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as patch:
        usage = stack.usage
        patch.setattr(stack, "usage", lambda *a: seen.update(usage(*a)) or usage(*a))
        return given.build(folder, sample.Toolbox("gcc")), seen


def model(board: str) -> Project:
    return flow.emit(kinds(), board)


@pytest.mark.parametrize("name", BOARDS)
def test_frames_and_calls_are_those_of_gcc(name: str, tmp_path: Path) -> None:
    """Two witnesses: -fstack-usage for the frames; -fcallgraph-info for the calls, none of which is through a pointer."""
    board = boards.load(name)
    needs_compiler(board.compiler, board.core)
    image, said = built(model(name), tmp_path / "p", ("-fcallgraph-info",))
    read = stack.frames(image.path)
    both = set(said) & set(read) - NAKED
    assert len(both) > 25
    assert {f: read[f] for f in both} == {f: said[f] for f in both}
    graphs = list((tmp_path / "p").glob("*.ci"))
    assert len(graphs) > 5
    calls = set()
    for path in graphs:
        text = path.read_text()
        assert "__indirect_call" not in text, path
        calls |= set(re.findall(r'sourcename: "(?:[^"]*:)?(\w+)" targetname: "(?:[^"]*:)?(\w+)"', text))
    assert len(calls) > 40
    elf = image.path.read_bytes()
    known = stack.functions(elf)
    reader = stack._thumb if name != "qemu_virt_rv32" else stack._rv32
    found = {
        (f.name, known[to].name)
        for at, f in known.items()
        for to in reader(elf, f.offset, f.size, at, f.holes).calls
        if to in known
    }
    names = {f.name for f in known.values()}
    missed = {(a, b) for a, b in calls if {a, b} <= names and a not in NAKED} - found
    assert {pair for pair in missed if pair[0] != pair[1]} == set()


def painted(link: Any, board: boards.Board, act: Any) -> int:
    """How deep the stack gets while `act` runs, from bytes painted by this test into the emulator's memory."""
    emulator = link._emulator
    import unicorn.arm_const as arm

    top, bottom = board.ram_origin + board.ram_bytes, board.ram_origin + board.ram_bytes - board.stack_bytes
    emulator.mem_write(bottom, PAINT * ((emulator.reg_read(arm.UC_ARM_REG_SP) - bottom) // 4))
    act()
    left = bytes(emulator.mem_read(bottom, top - bottom))
    return len(left) - next(k for k in range(0, len(left), 4) if left[k : k + 4] != PAINT)


def deepest(image: Image, graph: Any, plan: Any) -> int:
    """On unicorn, with everything that the protocol has asked once."""
    board = boards.load("unicorn_m4")
    with open_link(image, board) as link:
        session = Session(link)
        session.hello(image)
        samples = inputs_for(graph, 1, 3)

        def act() -> None:
            measurement.run_sample(session, graph, plan, samples, 0)
            session.profile()

        return painted(link, board, act)


@pytest.mark.parametrize("family", sample.FAMILIES)
def test_a_painted_stack_is_within_the_bound(family: str, tmp_path: Path) -> None:
    needs("unicorn")
    from toolchain import passes

    graph, plan = passes.run(kinds(), boards.load("unicorn_m4"))
    try:
        tools.compiler("arm", "cortex-m4f", family)  # type: ignore[arg-type]
    except ToolchainError as error:
        pytest.skip(str(error))
    image = model("unicorn_m4").build(tmp_path / "p", sample.Toolbox(family))
    bound = image.sizes["stack_bound_bytes"]
    used = deepest(image, graph, plan)
    assert bound / 2 < used <= bound
    assert measurement.check_stack("unicorn_m4", used, image) == used


@pytest.mark.parametrize("name", ["qemu_microbit", "qemu_virt_rv32", "qemu_mps2_an386"])
def test_what_a_device_saw_is_within_the_bound(name: str) -> None:
    board = boards.load(name)
    needs_compiler(board.compiler, board.core)
    graph = flow.load(data.folder("examples") / "digits" / "model.h5")
    try:
        found = flow.measure(graph, board, np.zeros((1, *graph.inputs[0].shape), np.int64), runs=2)
    except ToolchainError as error:
        pytest.skip(str(error))
    assert found.stack_bound_bytes / 2 < found.stack_bytes <= found.stack_bound_bytes


DEEP = """
static __attribute__((noinline)) void dig(uint32_t n) {
    volatile uint8_t hole[600];
    hole[n] = 1;
    hole[599] = hole[n];
}
"""


def planted(made: Project, body: str, call: str) -> Project:
    text = str(made.files["model.c"])
    start = text.index("static NN_FUNCTION void model_op0")
    text = text[:start] + body + text[start:]
    text = text.replace("    switch (k) {\n", f"    {call}\n    switch (k) {{\n", 1)
    return dataclasses.replace(made, files={**made.files, "model.c": text})


def test_a_deeper_function_fails_the_check(tmp_path: Path) -> None:
    """Painted with what was planted, held to the bound of the build without; and the build's own bound sees it."""
    needs_compiler("arm", "cortex-m4f")
    needs("unicorn")
    from toolchain import passes

    graph, plan = passes.run(kinds(), boards.load("unicorn_m4"))
    plain, _ = built(model("unicorn_m4"), tmp_path / "plain")
    deep, _ = built(planted(model("unicorn_m4"), DEEP, "dig(k);"), tmp_path / "deep")
    used = deepest(deep, graph, plan)
    assert plain.sizes["stack_bound_bytes"] < used <= deep.sizes["stack_bound_bytes"]
    with pytest.raises(
        ToolchainError, match=r"^unicorn_m4: \d+ bytes of stack were used, and no more than \d+ should be by"
    ):
        measurement.check_stack("unicorn_m4", used, plain)


POINTER = "extern void (*volatile hook)(uint32_t);\nvoid (*volatile hook)(uint32_t);\n"
AGAIN = """
static __attribute__((noinline)) uint32_t again(uint32_t n) {
    volatile uint32_t seen = n;
    return n < 2 ? seen : again(n - 1) + seen * again(n - 2);
}
"""
ROOM = "static __attribute__((noinline)) void room(uint32_t n) { volatile uint8_t a[n + 1]; a[n] = 1; (void)a[n]; }\n"


@pytest.mark.parametrize(
    ("body", "call", "why"),
    [
        (POINTER, "if (hook) { hook(k); hook(k); }", "model_op calls through a pointer"),
        (AGAIN, "(void)again(k);", r"again\S* calls itself"),
        (ROOM, "room(k);", "room sets its stack pointer by a register"),
    ],
)
@pytest.mark.parametrize("name", ["unicorn_m4", "qemu_virt_rv32"])
def test_what_cannot_be_followed_gives_no_bound(name: str, body: str, call: str, why: str, tmp_path: Path) -> None:
    board = boards.load(name)
    needs_compiler(board.compiler, board.core)
    image, said = built(planted(model(name), body, call), tmp_path / "p")
    assert "stack_bound_bytes" not in image.sizes
    with pytest.raises(ToolchainError, match=rf"no bound on its stack: {why}; measure tells what was used$"):
        stack.bound(image.path, said)


def test_a_bound_beyond_what_is_reserved_is_refused(tmp_path: Path) -> None:
    needs_compiler("arm", "cortex-m0")
    made = model("qemu_microbit")
    script = str(made.files["board.ld"]).replace("stack_bytes = 0x400", "stack_bytes = 0x80")
    small = dataclasses.replace(made, files={**made.files, "board.ld": script})
    with pytest.raises(
        ToolchainError,
        match=r"its stack may take \d+ bytes \(a bound computed from the build\), the board reserves 128",
    ):
        small.build(tmp_path / "p", sample.Toolbox("gcc"))


def test_nothing_is_left_beside_the_image(tmp_path: Path) -> None:
    needs_compiler("arm", "cortex-m4f")
    built(model("unicorn_m4"), tmp_path / "p")
    assert not list((tmp_path / "p").glob("*.su"))
    assert project.build(tmp_path / "p", sample.Toolbox("gcc")).sizes["stack_bound_bytes"] > 100


def test_a_program_of_the_host_has_none() -> None:
    needs_compiler("host", "host")
    assert "stack_bound_bytes" not in sample.image("native").sizes


@pytest.mark.parametrize(
    ("code", "frame"),
    [  # assembled by arm-none-eabi-as
        ("80b5", 8), ("2de9f041", 24), ("86b0", 24), ("adf58065", 0), ("adf5806d", 1024), ("4df8047d", 4),
        ("2ded048b", 16), ("adf2044d", 1028), ("6de90423", 16), ("00bf", 0),
    ],
)  # fmt: skip
def test_thumb_instructions(code: str, frame: int) -> None:
    raw = bytes.fromhex(code)
    assert stack._thumb(raw, 0, len(raw), 0, ()).frame == frame


@pytest.mark.parametrize(("code", "frame"), [("3971", 64), ("0111", 32), ("130101d6", 672), ("0561", 0), ("71", 0)])
def test_rv32_instructions(code: str, frame: int) -> None:
    raw = bytes.fromhex(code)
    assert stack._rv32(raw, 0, len(raw), 0, ()).frame == frame


def test_a_target_in_no_function_gives_no_bound(tmp_path: Path) -> None:
    needs_compiler("arm", "cortex-m4f")
    image = sample.image("unicorn_m4", "gcc")
    text = image.path.read_bytes()
    path = tmp_path / "cut.elf"
    path.write_bytes(text.replace(b"\0protocol_reply\0", b"\0$t.removed_one\0"))
    with pytest.raises(ToolchainError, match="where no function is"):
        stack.bound(path, {})
