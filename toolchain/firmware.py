"""The firmware around a generated model: which template files a board needs, and the command that makes the image.

Rule: templates are copied byte for byte; what is generated is board.h and board.ld, only numbers
and names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from toolchain import data
from toolchain.boards import Board, image_board
from toolchain.project import Project

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wconversion")


AVR_FLAGS = ("-Os", "-Iports")  # 32 KB are soon full


def compiler_placeholder(board: Board) -> str:
    """Stands in a Project's commands for the compiler of this machine and its flags; project.build resolves it."""
    return f"{{compiler:{board.compiler}:{board.core}}}"


def link_placeholder(board: Board) -> str:
    """Stands for what that compiler wants at the end of a command that links."""
    return f"{{link:{board.compiler}:{board.core}}}"


def firmware_files(board: Board) -> dict[str, str]:
    """Every file around model.h, model_debug.h, model.c and the kernels: name in the project -> text."""
    board = image_board(board)
    files = [f"firmware/{name}" for name in ("main.c", "protocol.c", "protocol.h", "counter.c", "counter.h", "port.h")]
    if board.core == "host":
        files.append("ports/process.c")
    elif board.compiler == "avr":
        files += [f"ports/{name}" for name in ("startup_avr.c", f"uart_{board.uart}.c", "uart.h")]
    else:
        startup = "startup_rv32.c" if board.compiler == "riscv" else "startup_cortex_m.c"
        uart = f"uart_{board.uart}.c"
        files += ["firmware/memory.c", "ports/include/string.h"]
        files += [f"ports/{name}" for name in (startup, "startup.h", "stack.c", uart, "uart.h", link_script(board))]
        files += [f"ports/{board.boot}.c"] if board.boot else []
    templates = data.folder("firmware_templates") / "c"
    texts = {name: (templates / name).read_text(encoding="utf-8") for name in files}
    texts["board.h"] = board_header(board)
    if board.compiler in ("arm", "riscv"):
        texts["board.ld"] = board_script(board)
    return dict(sorted(texts.items()))


def board_header(board: Board) -> str:
    """board.h: the numbers of the board file the firmware needs."""
    lines = [
        f"/* Made from boards/{board.name}.toml. Do not edit. */",
        "#ifndef BOARD_H",
        "#define BOARD_H",
        "",
        f'#define BOARD_NAME "{board.name}"',
        f"#define BOARD_CORE_{board.core.replace('-', '_').upper()} 1",
        f"#define BOARD_CLOCK_HZ {board.clock_hz}u",
        f"#define BOARD_COUNTER_{board.counter.upper()} 1",
        f"#define BOARD_MAX_PAYLOAD {board.largest_payload}u",
    ]
    if board.core != "host":
        lines += [
            f"#define BOARD_UART_BASE 0x{board.uart_base:08X}u",
            f"#define BOARD_UART_CLOCK_HZ {board.clock_hz}u",
            f"#define BOARD_BAUD {board.baud}u",
        ]
    lines += ["#define BOARD_UART_LPUART 1"] if board.uart_lpuart else []
    lines += [f"#define BOARD_TRAP_ALIGNMENT {board.trap_alignment}"] if board.trap_alignment != 4 else []
    if board.steps:
        lines += ["", "/* " + "\n * ".join(f"{i}: {step.why}" for i, step in enumerate(board.steps)) + " */"]
        lines.append("#define BOARD_STEPS \\")
        lines += [f"    {{STEP_{s.what.upper()}, 0x{s.address:08X}u, 0x{s.bits:08X}u}}, \\" for s in board.steps]
        lines[-1] = lines[-1].removesuffix(", \\")
    return "\n".join([*lines, "", "#endif", ""])


def link_script(board: Board) -> str:
    """Of ports/: what board.ld includes."""
    return "link_two_views.ld" if board.flash_data_origin else "link.ld"


def board_script(board: Board) -> str:
    """board.ld: the numbers link.ld asks for, then link.ld itself. (LLD as zig drives it knows no --defsym.)"""
    numbers = {
        "flash_origin": board.flash_origin,
        "flash_bytes": board.flash_bytes,
        "ram_origin": board.ram_origin,
        "ram_bytes": board.ram_bytes,
        "stack_bytes": board.stack_bytes,
    }
    numbers |= {"flash_data_origin": board.flash_data_origin} if board.flash_data_origin else {}
    lines = [f"{name} = 0x{value:X};" for name, value in numbers.items()]
    made_from = f"/* Made from boards/{board.name}.toml. Do not edit. */"
    return "\n".join([made_from, *lines, f"INCLUDE ports/{link_script(board)}", ""])


def product(board: Board) -> str:
    """The file the commands make, in the project's folder."""
    return "model" if board.core == "host" else "image.elf"


def compile_commands(
    board: Board,
    compiler: str | Sequence[str],
    sources: Iterable[str],
    defines: Iterable[str] = (),
    optimize: str = "-O2",
) -> tuple[tuple[str, ...], ...]:
    """The commands that make the image of these C files: the model's, the kernels' and the firmware's.

    `compiler` is compiler_placeholder(board) in a Project, or a real prefix; the digest placeholder makes the image
    answer HELLO with the project it was built from.
    """
    board = image_board(board)
    prefix = (compiler,) if isinstance(compiler, str) else tuple(compiler)
    flags = ["-std=c99", optimize, *WARNINGS, "-ffunction-sections", "-fdata-sections", "-I.", "-Ifirmware"]
    link: list[str] = []
    if board.compiler == "avr":
        flags += AVR_FLAGS
        stack = {
            "_estack": board.ram_origin + board.ram_bytes,
            "__DATA_REGION_LENGTH__": board.ram_bytes - board.stack_bytes,
        }
        stack |= {"_stack_bottom": stack["_estack"] - board.stack_bytes}
        link = ["-Wl,--gc-sections", *(f"-Wl,--defsym={name}=0x{value:X}" for name, value in stack.items())]
        link.append(link_placeholder(board))
    elif board.core != "host":
        flags += ["-fomit-frame-pointer", "-fstack-usage", "-Iports", "-Iports/include"]
        link = ["-Wl,-T,board.ld", "-Wl,--gc-sections", link_placeholder(board)]
    digest = '-DPROJECT_DIGEST="{project_digest}"'
    c_files = sorted(name for name in sources if name.endswith((".c", ".S")))
    return ((*prefix, *flags, *defines, digest, *c_files, *link, "-o", product(board)),)


def project(
    board: Board,
    name: str,
    graph_digest: str,
    files: Mapping[str, str],
    defines: Iterable[str] = (),
    optimize: str = "-O2",
) -> Project:
    """The whole project of a model for a board: `files` are model.h, model_debug.h, model.c and what they include."""
    every = {**firmware_files(board), **files}
    commands = compile_commands(board, compiler_placeholder(board), every, defines, optimize)
    return Project(name, dict(sorted(every.items())), commands, product(board), graph_digest, image_board(board).name)
