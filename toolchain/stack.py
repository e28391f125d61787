"""How deep the stack of an image can get: a bound computed from the build, for Thumb and RV32.

One rule: the linked machine code is what is read, so that libraries and assembler count as C does, and what this file cannot
follow (a call through a register, recursion, a stack pointer set by a computed amount) gives no bound rather than a guess.
A function's frame is all that it ever takes from the stack pointer, and what its compiler wrote in .su files (-fstack-usage)
where that is more or the only word; its depth is that and the deepest of what it calls or jumps to.

Jumps through a register, which are not calls, are taken for those of a switch: the sources have no pointer to a function but
the vector table (tests/test_stack.py asks GCC's own call graph). One interrupt may come at any time, SysTick's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from toolchain.errors import ToolchainError

ARM, RISCV = 40, 243  # e_machine
FUNCTION = 2  # type of a symbol
# ARM DDI 0403E B1.5.6: what exception entry pushes, with up to 4 bytes to align; the FPU's registers once it was used
EXCEPTION, EXCEPTION_FPU = 32 + 4, 104 + 4
STARTS = ("Reset_Handler",)  # from an empty stack
FAULTS = ("firmware_fault",)  # from an empty stack again
INTERRUPTS = ("SysTick_Handler",)


@dataclass
class Code:
    """What a function does with the stack and whom it calls, read from its instructions."""

    frame: int = 0
    calls: set[int] = field(default_factory=set)  # addresses
    unclear: str = ""  # why the frame is not known
    through: bool = False  # it calls through a register
    floats: bool = False


def bound(image: Path, usage: Mapping[str, int]) -> int:
    """Bytes from the top of the stack that are never exceeded; ToolchainError with the reason where none can be given."""
    data = image.read_bytes()
    machine = struct.unpack_from("<H", data, 18)[0]
    known = functions(data)
    if machine not in (ARM, RISCV):
        raise _none(str(image), "it is for another processor than are read here")
    reader = {ARM: _thumb, RISCV: _rv32}[machine]
    if not any(symbol.name in STARTS for symbol in known.values()):
        raise _none(str(image), f"it has no function {STARTS[0]}: its symbols were stripped")
    entries = sorted(known)
    code = {at: reader(data, known[at].offset, known[at].size, at, known[at].holes) for at in entries}
    names = {known[at].name: at for at in entries}
    where = str(image)

    def depth(at: int, above: tuple[int, ...]) -> int:
        if at not in code:  # into the middle of a function: a tail of it
            inside = max((e for e in entries if e <= at), default=-1)
            if inside < 0 or at >= inside + known[inside].size:
                raise _none(where, f"{known[above[-1]].name} calls {at:#x}, where no function is")
            at = inside
            if at in above:
                return 0
        name, found = known[at].name, code[at]
        if at in above:
            raise _none(where, f"{name} calls itself")
        if found.through:
            raise _none(where, f"{name} calls through a pointer")
        frame = max(found.frame, usage.get(name, 0))
        if found.unclear and name not in usage:
            raise _none(where, f"{name} {found.unclear}")
        return frame + max((depth(to, (*above, at)) for to in found.calls), default=0)

    def deepest(roots: Iterable[str]) -> int:
        return max((depth(names[root], ()) for root in roots if root in names), default=0)

    floats = any(c.floats for c in code.values())
    entry = (EXCEPTION_FPU if floats else EXCEPTION) if machine == ARM else 0
    interrupted = entry + deepest(INTERRUPTS) if machine == ARM else 0
    return max(deepest(STARTS), deepest(FAULTS)) + interrupted


def frames(image: Path) -> dict[str, int]:
    """What each function takes by its instructions alone; those whose frame is not clear are left out."""
    data = image.read_bytes()
    reader = {ARM: _thumb, RISCV: _rv32}[struct.unpack_from("<H", data, 18)[0]]
    read = {f.name: reader(data, f.offset, f.size, at, f.holes) for at, f in functions(data).items()}
    return {name: code.frame for name, code in read.items() if not code.unclear}


def usage(folder: Path, product: str) -> dict[str, int]:
    """What GCC wrote beside the product, by function: the most of those of one name."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob(f"{product}-*.su")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            place, size, kind = line.split("\t")
            name = place.rpartition(":")[2]
            if kind == "static" or "bounded" in kind:
                found[name] = max(found.get(name, 0), int(size))
    return found


def _none(where: str, why: str) -> ToolchainError:
    return ToolchainError(where, f"no bound on its stack: {why}", "measure tells what was used")


@dataclass(frozen=True)
class Symbol:
    name: str
    offset: int  # in the file
    size: int
    holes: tuple[tuple[int, int], ...]  # runs of data in the code, as offsets from its start


def functions(data: bytes) -> dict[int, Symbol]:
    """Every function of an ELF by address, as long as its symbol says or up to the next one."""
    start, each, count = struct.unpack_from("<I", data, 32) + struct.unpack_from("<HH", data, 46)
    sections = [struct.unpack_from("<10I", data, start + i * each) for i in range(count)]
    table = next((s for s in sections if s[1] == 2), None)
    if table is None:
        return {}
    text = sections[table[6]][4]
    rows: list[tuple[int, int, int, str, int]] = []
    marks: list[tuple[int, str]] = []  # $t, $d: where code and data begin (ELF for the Arm Architecture, 5.5.5)
    for name, value, size, info, _, index in struct.iter_unpack("<IIIBBH", data[table[4] : table[4] + table[5]]):
        label = data[text + name : data.index(b"\0", text + name)].decode()
        if label[:2] in ("$t", "$d", "$x") and label[2:3] in ("", "."):
            marks.append((value, label[1]))
        elif info & 15 == FUNCTION and 0 < index < len(sections) and sections[index][2] & 4:
            rows.append((value & ~1, size, index, label, sections[index][4] - sections[index][3]))
    marks.sort()
    found: dict[int, Symbol] = {}
    ends = sorted({r[0] for r in rows} | {s[3] + s[5] for s in sections if s[2] & 4})
    for at, size, _, label, shift in sorted(rows):
        end = at + size if size else min(e for e in ends if e > at)
        if at not in found:
            found[at] = Symbol(label, at + shift, end - at, tuple(_holes(marks, at, end)))
    return found


def _holes(marks: list[tuple[int, str]], at: int, end: int) -> Iterator[tuple[int, int]]:
    for (begin, kind), (after, _) in zip(marks, [*marks[1:], (end, "")][: len(marks)], strict=True):
        if kind == "d" and begin < end and after > at:
            yield max(begin, at) - at, min(max(after, begin), end) - at


# the two instruction sets: only what moves the stack pointer or leaves the function


def _thumb(data: bytes, offset: int, size: int, address: int, holes: tuple[tuple[int, int], ...]) -> Code:
    """Armv7-M ARM (DDI 0403E), A5 to A7."""
    code, at = Code(), 0
    while at + 1 < size:
        hole = next((end for begin, end in holes if begin <= at < end), 0)
        if hole:
            at = hole
            continue
        one = struct.unpack_from("<H", data, offset + at)[0]
        if one >> 11 < 0b11101:
            _thumb16(code, one, address + at + 4, address, size)
            at += 2
        else:
            two = struct.unpack_from("<H", data, offset + at + 2)[0]
            _thumb32(code, one, two, address + at + 4, address, size)
            at += 4
    return code


def _to(code: Code, target: int, address: int, size: int, call: bool) -> None:
    if call or not address <= target < address + size:
        code.calls.add(target)


def _thumb16(code: Code, one: int, pc: int, address: int, size: int) -> None:
    if one & 0xFE00 == 0xB400:  # push
        code.frame += 4 * (one & 0x1FF).bit_count()
    elif one & 0xFF80 == 0xB080:  # sub sp, #
        code.frame += 4 * (one & 0x7F)
    elif one & 0xFF87 in (0x4485, 0x4685):  # add sp, register; mov sp, register
        code.unclear = "sets its stack pointer by a register"
    elif one & 0xFF87 == 0x4780:  # blx register
        code.through = True
    elif one & 0xF800 == 0xE000:  # b
        _to(code, pc + 2 * _signed(one, 11), address, size, False)


def _thumb32(code: Code, one: int, two: int, pc: int, address: int, size: int) -> None:
    if one & 0xF800 == 0xF000 and two & 0xD000 == 0xC000:
        return  # dls, wls, le: loops of Armv8.1-M (DDI 0553), which stay within their function
    if one & 0xF800 == 0xF000 and two & 0x8000:
        sign = one >> 10 & 1
        if two & 0x5000 == 0:  # b with a condition; or hints and system registers, whose bits 6 to 9 are 0b111x
            if one >> 7 & 7 != 7:
                high = sign << 19 | (two >> 11 & 1) << 18 | (two >> 13 & 1) << 17 | (one & 0x3F) << 11 | two & 0x7FF
                _to(code, pc + 2 * _signed(high, 20), address, size, False)
            return
        bits = [1 - (two >> k & 1 ^ sign) for k in (13, 11)]
        high = sign << 23 | bits[0] << 22 | bits[1] << 21 | (one & 0x3FF) << 11 | two & 0x7FF
        _to(code, pc + 2 * _signed(high, 24), address, size, bool(two & 0x4000))
    elif one == 0xE92D:  # stmdb sp!
        code.frame += 4 * two.bit_count()
    elif one == 0xF84D and two & 0x0F00 == 0x0D00:  # str register, [sp, #-n]!
        code.frame += two & 0xFF
    elif one == 0xE96D or (one & 0xFFBF == 0xED2D and two & 0x0E00 == 0x0A00):  # strd registers, [sp, #-n]!
        code.frame += 4 * (two & 0xFF)
    elif one & 0xFBFF == 0xF1AD and two & 0x8F00 == 0x0D00:  # sub.w sp, sp, #
        code.frame += _expanded((one >> 10 & 1) << 11 | (two >> 12 & 7) << 8 | two & 0xFF)
    elif one & 0xFBFF == 0xF2AD and two & 0x8F00 == 0x0D00:  # subw sp, sp, #
        code.frame += (one >> 10 & 1) << 11 | (two >> 12 & 7) << 8 | two & 0xFF
    elif one & 0xFFE0 in (0xEBA0, 0xEB00) and two & 0x0F00 == 0x0D00:  # sub.w, add.w of registers to sp
        code.unclear = "sets its stack pointer by a register"
    elif one == 0xF8DF and two >> 12 == 15:  # ldr pc, from a literal
        code.through = True
    if one & 0xEC00 == 0xEC00 and two >> 9 & 7 == 5:  # coprocessors 10 and 11
        code.floats = True


def _expanded(imm: int) -> int:
    """ThumbExpandImm (A5.3.2)."""
    low = imm & 0xFF
    if imm >> 10 == 0:
        return [low, low << 16 | low, low << 24 | low << 8, low * 0x01010101][imm >> 8 & 3]
    value, turn = 0x80 | imm & 0x7F, imm >> 7
    return (value >> turn | value << (32 - turn)) & 0xFFFFFFFF


def _rv32(data: bytes, offset: int, size: int, address: int, holes: tuple[tuple[int, int], ...]) -> Code:
    """The RISC-V Instruction Set Manual, volume I: RV32I and C."""
    code, at, upper = Code(), 0, {0: 0}
    while at + 1 < size:
        one = struct.unpack_from("<H", data, offset + at)[0]
        pc = address + at
        if one & 3 != 3:
            _rv16(code, one, pc, address, size)
            at += 2
            continue
        word = struct.unpack_from("<I", data, offset + at)[0]
        op, rd, funct, rs1 = word & 0x7F, word >> 7 & 31, word >> 12 & 7, word >> 15 & 31
        imm = _signed(word >> 20, 12)
        if op == 0x13 and funct == 0 and rd == rs1 == 2:  # addi sp, sp
            code.frame += max(0, -imm)
        elif rd == 2 and op in (0x13, 0x33):
            code.unclear = "sets its stack pointer by a register"
        elif op == 0x17:  # auipc
            upper[rd] = pc + (word & 0xFFFFF000)
        elif op == 0x6F:  # jal
            span = word >> 31 << 19 | (word >> 12 & 0xFF) << 11 | (word >> 20 & 1) << 10 | word >> 21 & 0x3FF
            _to(code, pc + 2 * _signed(span, 20), address, size, rd != 0)
        elif op == 0x67 and rs1 in upper and rs1:  # jalr after auipc: far
            _to(code, (upper[rs1] + imm) & 0xFFFFFFFF, address, size, rd != 0)
        elif op == 0x67 and rd != 0:
            code.through = True
        if op != 0x17 and rd in upper and op not in (0x23, 0x63):
            upper.pop(rd, None)
        code.floats |= op in (0x07, 0x27, 0x53)
        at += 4
    return code


def _rv16(code: Code, one: int, pc: int, address: int, size: int) -> None:
    if one & 0xEF83 == 0x6101:  # c.addi16sp
        imm = (one >> 12 & 1) << 5 | (one >> 3 & 3) << 3 | (one >> 5 & 1) << 2 | (one >> 2 & 1) << 1 | one >> 6 & 1
        code.frame += max(0, -16 * _signed(imm, 6))
    elif one & 0xEF83 == 0x0101:  # c.addi sp
        code.frame += max(0, -_signed((one >> 12 & 1) << 5 | one >> 2 & 31, 6))
    elif one & 0xE003 in (0x2001, 0xA001):  # c.jal, c.j
        order = (12, 8, 10, 9, 6, 7, 2, 11, 5, 4, 3)
        span = sum((one >> bit & 1) << (10 - k) for k, bit in enumerate(order))
        _to(code, pc + 2 * _signed(span, 11), address, size, one & 0xE003 == 0x2001)
    elif one & 0xF07F == 0x9002 and one >> 7 & 31:  # c.jalr
        code.through = True


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
