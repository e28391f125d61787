"""What a basic block costs a Cortex-M4, by the tables of Arm's manual: modelled cycles, beside instructions that are counted.

Rule: a model, never a measurement. Costs are of DDI 0439 (Cortex-M4 r0p1 Technical Reference Manual) 3.3.1 and 3.3.3 for
memory without wait states; a pipeline refill, 1 to 3 cycles there, is REFILL everywhere. What depends on data or on what
other masters do is not in it: docs/boards.md says how far real boards were from it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

REFILL = 2  # P of the manual; charged by the block hook wherever a block is not followed by the code behind it
DIVIDE = 7  # the manual: 2 to 12, by the operands, which a block does not know
LOADS = frozenset(("ldr", "ldrb", "ldrh", "ldrsb", "ldrsh", "ldrt", "ldrbt", "ldrht", "ldrsbt", "ldrsht"))
STORES = frozenset(("str", "strb", "strh", "strt", "strbt", "strht"))
EXCLUSIVE = frozenset(("ldrex", "ldrexb", "ldrexh", "strex", "strexb", "strexh"))
MULTIPLE = {"push": 0, "pop": 0, "vpush": 0, "vpop": 0, "ldm": 1, "ldmdb": 1, "stm": 1, "stmdb": 1}
MULTIPLE |= {"vldmia": 1, "vldmdb": 1, "vstmia": 1, "vstmdb": 1}  # name -> operands that are no element of the list
PLAIN = {"ldrd": 3, "strd": 3, "sdiv": DIVIDE, "udiv": DIVIDE, "tbb": 2, "tbh": 2, "vldr": 2, "vstr": 2}
PLAIN |= {"vdiv": 14, "vsqrt": 14} | dict.fromkeys(("vmla", "vmls", "vnmla", "vnmls", "vfma", "vfms"), 3)

Cost = Callable[[bytes, int], int]


def cost_of_blocks() -> Cost | None:
    """(code of a block, its address) -> its cycles without the refill of a branch that is taken; None without capstone."""
    try:
        capstone: Any = importlib.import_module("capstone")
    except ImportError:
        return None
    decoder: Any = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    decoder.detail = True
    register, memory = capstone.arm.ARM_OP_REG, capstone.arm.ARM_OP_MEM

    def cost(code: bytes, address: int) -> int:
        cycles, done, loaded = 0, 0, None
        for instruction in decoder.disasm(code, address):
            spent, loaded = _cost(instruction, loaded, register, memory)
            cycles += spent
            done += instruction.size
        assert done == len(code), f"no instruction of a Cortex-M4 at {address + done:#x}"
        return cycles

    return cost


def _cost(instruction: Any, loaded: int | None, register: int, memory: int) -> tuple[int, int | None]:
    """Cycles of an instruction, and the register it loads if the next load or store may overlap it.

    `loaded` is that of the instruction before. A load or store whose address does not need it takes one cycle less.
    """
    name = instruction.insn_name()
    operands = instruction.operands
    if name in MULTIPLE:
        listed = operands[MULTIPLE[name] :]
        doubles = sum(instruction.reg_name(o.reg).startswith("d") for o in listed)
        return 1 + len(listed) + doubles, None
    if name in LOADS or name in EXCLUSIVE:
        return 2 - _overlaps(operands, loaded, memory), operands[0].reg if operands[0].type == register else None
    if name in STORES:  # with an immediate the address is ready in the first cycle; the write buffer does the rest
        by_register = any(o.type == memory and o.mem.index for o in operands)
        return 1 + by_register - (by_register and _overlaps(operands, loaded, memory)), None
    return PLAIN.get(name, 1), None


def _overlaps(operands: Any, loaded: int | None, memory: int) -> bool:
    used = [r for o in operands if o.type == memory for r in (o.mem.base, o.mem.index)]
    return loaded is not None and loaded not in used
