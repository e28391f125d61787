"""Modelled cycles of a Cortex-M4: every class of instruction against Arm's manual, counted by hand; and on whole models."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import sample
from toolchain import boards, cli, tools
from toolchain.links import _cycles_m4, unicorn
from toolchain.project import Image
from toolchain.protocol import Session

# DDI 0439 (Cortex-M4 r0p1 TRM) 3.3.1, table 3-1, and 3.3.3, with P = 2. r1 points at words of RAM, r5 is 4, [r1, #12] holds r1.
# code: (instructions, cycles)
BY_HAND = {
    "movs r0, #1; add r0, r0, r5; movw r2, #7; uxtb r2, r2; sxtb16 r2, r2, ror #8; smlad r0, r2, r2, r0": (6, 6),
    "ldr r0, [r1]": (1, 2),
    "ldr r0, [r1]; movs r2, #0; ldr r3, [r1]": (3, 2 + 1 + 2),  # not neighbours: nothing overlaps
    "ldr r0, [r1]; ldr r2, [r1, #4]; ldrsb r3, [r1, r5]": (
        3,
        2 + 1 + 1,
    ),  # "pipelined": one cycle off each that follows
    "ldr r0, [r1, #12]; ldr r2, [r0]": (2, 2 + 2),  # the address waits for the load
    "ldr r0, [r1, #12]; ldr r2, [r0]; ldr r3, [r1]": (3, 2 + 2 + 1),
    "ldr r0, [r1]; str r0, [r1, r5]": (2, 3),  # the manual's own: "normally three cycles total"
    "ldr r0, [r1]; str r0, [r1, #4]": (2, 3),  # a store with an immediate is always one cycle
    "str r0, [r1]; strb r0, [r1, #4]; strh r0, [r1, #8]": (3, 1 + 1 + 1),
    "str r0, [r1, r5]; ldr r0, [r1]": (2, 2 + 2),  # nothing is pipelined after a store
    "ldr r0, [r1], #4; ldr r2, [r1], #-4": (2, 2 + 1),
    "ldrd r2, r3, [r1]": (1, 3),  # 1 + N
    "strd r2, r3, [r1]": (1, 3),
    "ldr r0, [r1]; ldrd r2, r3, [r1]; ldr r0, [r1]": (3, 2 + 3 + 2),  # pairs overlap with nothing around them
    "ldm r1, {r0, r2, r3, r4}": (1, 1 + 4),
    "ldm r1, {r0, r2, r3}; ldr r0, [r1]": (2, 1 + 3 + 2),
    "stm r1, {r0, r2}": (1, 1 + 2),
    "push {r2, r3, r4}; pop {r2, r3, r4}": (2, 4 + 4),
    "push.w {r2, r8}; pop.w {r2, r8}": (2, 3 + 3),
    "mul r0, r5, r5; mla r0, r5, r5, r0; mls r0, r5, r5, r0": (3, 3),  # one each: three to five is the Cortex-M3
    "smull r2, r3, r5, r5; umull r2, r3, r5, r5; smlal r2, r3, r5, r5": (3, 3),
    "smmulr r0, r5, r5; ssat r0, #8, r0; usat r0, #8, r0; ssub8 r0, r0, r5; sel r0, r0, r5": (5, 5),
    "sdiv r0, r5, r5": (1, 7),  # 2 to 12 in the manual: the middle
    "udiv r0, r5, r5": (1, 7),
    "cmp r5, r5; bne 1f; nop; 1:": (3, 3),  # not taken: 1
    "cmp r5, r5; beq 1f; nop; 1: nop": (3, 1 + (1 + 2) + 1),  # taken: 1 + P
    "cbz r5, 1f; nop; 1:": (2, 2),
    "cbnz r5, 1f; nop; 1: nop": (2, (1 + 2) + 1),
    "b 1f; nop; 1: nop": (2, (1 + 2) + 1),
    "bl leaf": (2, (1 + 2) + (1 + 2)),  # and its bx
    "ldr r4, =leaf; blx r4": (3, 2 + (1 + 2) + (1 + 2)),
    "bl stacked": (3, (1 + 2) + 2 + (2 + 2)),  # push {lr} is 1 + 1, pop {pc} is 1 + 1 + P
    "ldr r4, =1f + 1; mov pc, r4; nop; 1: nop": (3, 2 + (1 + 2) + 1),
    "ldr pc, =2f + 1; nop; 2: nop": (2, (2 + 2) + 1),
    "cmp r5, r5; it eq; moveq r0, #1": (3, 3),
    "cmp r5, r5; it ne; movne r0, #1": (3, 3),  # skipped, and a cycle all the same
    "movs r0, #3; 1: subs r0, r0, #1; bne 1b": (7, 1 + 3 * 2 + 2 * 2),
    "movs r0, #3; 1: subs r0, r0, #1; cmp r0, #1; bhi 1b; nop": (8, 1 + 2 * 3 + 1 * 2 + 1),
    "movs r0, #0; tbb [pc, r0]; .byte 1, 1; 1: nop": (3, 1 + (2 + 2) + 1),
}
PROGRAM = """
.syntax unified
.thumb
.text
.global Reset_Handler
.word 0x20001000, Reset_Handler + 1
.thumb_func
Reset_Handler:
    ldr r0, =0xE0001000
    movs r1, #1
    str r1, [r0]
    bl mark
    bl mark
{cases}
1:  b idle
.thumb_func
mark:
    ldr r7, =0xE0001004
    ldr r7, [r7]
    bx lr
.thumb_func
leaf: bx lr
.thumb_func
stacked:
    push {{lr}}
    pop {{pc}}
.thumb_func
idle:
    ldr r0, =0x40004004
1:  ldr r1, [r0]
    b 1b
.ltorg
"""
CASE = """
    ldr r1, =0x20000100
    str r1, [r1, #12]
    movs r5, #4
    bl mark
    {code}
    bl mark
    b 3f
    .ltorg
    .align 2
3:
"""
SCRIPT = "SECTIONS { .text 0 : { *(.text .text.*) } /DISCARD/ : { *(.ARM.exidx*) *(.ARM.extab*) } }\n"


@dataclass(frozen=True)
class Stretch:
    ticks: int
    overhead: int


def hand_counted(folder: Path) -> Image:
    compiler = tools.compiler("arm", "cortex-m4f")
    (folder / "cases.s").write_text(PROGRAM.format(cases="".join(CASE.format(code=code) for code in BY_HAND)))
    (folder / "cases.ld").write_text(SCRIPT)
    argv = [*compiler.argv, *compiler.flags, "-nostdlib", "-Wl,-T,cases.ld", "-Wl,-e,Reset_Handler"]
    subprocess.run([*argv, "cases.s", "-o", "cases.elf"], cwd=folder, check=True, timeout=120)
    return Image(folder / "cases.elf", "", "")


@pytest.mark.parametrize("compiled", [True, False])
def test_every_class_of_instruction_costs_what_the_manual_says(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("capstone")
    if not compiled:
        monkeypatch.setattr(unicorn, "_library", lambda: None)
    with unicorn.open(hand_counted(tmp_path), boards.load("unicorn_m4")) as link:
        assert isinstance(link._counter, unicorn.CCounter if compiled else unicorn.PythonCounter)
        assert link.recv(1, 1.0) == b""
        empty = 4  # bl, ldr, ldr, bx
        stretches = [Stretch(empty + instructions, empty) for instructions, _ in BY_HAND.values()]
        found = link.modelled_cycles(stretches)
    assert found is not None
    assert dict(zip(BY_HAND, found, strict=True)) == {code: cycles for code, (_, cycles) in BY_HAND.items()}


@pytest.mark.parametrize("compiled", [True, False])
def test_cycles_are_alike_interrupted_or_not(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stops the emulator in the midst of a run: nothing may cost twice, nor a branch be charged that is none."""
    pytest.importorskip("capstone")
    if not compiled:
        monkeypatch.setattr(unicorn, "_library", lambda: None)
    found = {}
    for seconds in (5.0, 0.0005):
        monkeypatch.setattr(unicorn, "SLICE_S", seconds)
        with sample.open_board("unicorn_m4") as link:
            session = Session(link)
            session.hello(sample.image("unicorn_m4"))
            session.write(sample.X, sample.inputs())
            session.write(sample.ROUNDS, (400_000 if compiled else 8_000).to_bytes(4, "little"))
            results = [session.run() for _ in range(3)]
            found[seconds] = link.modelled_cycles(results), link.modelled_cycles(session.profile())
    assert found[5.0] == found[0.0005]
    runs, ops = found[5.0]
    assert runs is not None and ops is not None
    assert len(set(runs)) == 1 and len(ops) == 3
    assert abs(runs[0] - sum(ops)) < 100  # the calls are others
    assert runs[0] > results[0].ticks


def test_an_answer_asked_again_is_paired_with_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("capstone")
    with sample.open_board("unicorn_m4") as link:
        session = Session(link)
        session.hello(sample.image("unicorn_m4"))
        session.write(sample.ROUNDS, (50).to_bytes(4, "little"))
        session.profile()
        once = link.modelled_cycles(session.profile())  # what ran before it, unasked, is passed over
        assert once == link.modelled_cycles(session.profile())


def test_measure_says_that_they_are_modelled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("capstone")
    model = str(Path(__file__).parents[1] / "examples" / "zoo" / "motions_dw_3_bn.onnx")
    monkeypatch.setenv("COLUMNS", "200")
    argv = ["measure", model, "--board", "unicorn_m4", "-n", "2"]
    assert cli.main([*argv]) == 0
    said = capsys.readouterr().out
    assert "modelled cycles of a Cortex-M4" in said and "0.85 to 1.36 times" in said and "modelled/MAC" in said
    assert " ms" not in said
    assert cli.main([*argv, "--json"]) == 0
    import json

    told = json.loads(capsys.readouterr().out)
    assert told["count_kind"] == "instructions" and told["latency_us"] is None
    assert told["modelled_cycles"]["median"] > told["count"]["median"]
    assert told["modelled_cycles_per_mac"] == round(told["modelled_cycles"]["median"] / told["macs"], 4)
    ops = [op["modelled_cycles"] for op in told["ops"]]
    assert abs(told["modelled_cycles"]["median"] - sum(ops)) < 100 + 20 * len(ops)
    monkeypatch.setattr(_cycles_m4.importlib, "import_module", _none)
    assert _cycles_m4.cost_of_blocks() is None


def test_another_core_has_none_of_a_cortex_m4s_cycles() -> None:
    pytest.importorskip("capstone")
    with sample.open_board("unicorn_m0plus") as link:
        session = Session(link)
        session.hello(sample.image("unicorn_m0plus"))
        assert link.modelled_cycles(session.profile()) is None
        assert "capstone" not in link.versions


def _none(name: str) -> None:
    raise ImportError(name)
