"""A Project is a bag of files and commands, pure data; an Image is what building it gave.

Rule: a digest names the bytes. The same graph, board and version make the same Project; what is on disk when `build`
runs is digested again, so that an image of edited files is known for another build.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import json
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast

from toolchain import children, stack
from toolchain.errors import ToolchainError

MANIFEST = "bitwright.json"
LOGS = "logs"  # of the steps
PREVIOUS = "previous"  # what the steps of earlier projects made in this folder
FORMAT = 2
BUILD_TIMEOUT_S = 600.0
Progress = Callable[[str, float], None]  # what is being done, and how much of all is done, 0 to 1


class Compiler(Protocol):
    """What `tools.compiler(kind, core)` answers: `[*argv, *flags, ..., *link]`."""

    @property
    def argv(self) -> Sequence[str]: ...

    @property
    def flags(self) -> Sequence[str]: ...

    @property
    def link(self) -> Sequence[str]: ...

    @property
    def version(self) -> str: ...


class Tool(Protocol):
    """What `tools.require(name)` answers."""

    @property
    def path(self) -> str | None: ...

    @property
    def version(self) -> str | None: ...


class Tools(Protocol):
    """The part of toolchain.tools that building needs."""

    def compiler(self, kind: str, core: str) -> Compiler: ...

    def require(self, name: str) -> Tool: ...


@dataclass(frozen=True)
class Step:
    """A run of a vendor's tool, of minutes or hours, after the commands; toolchain/synthesis.py runs it.

    `tool` is a row of tool_list.py, or `./name` for a program in `folder` that an earlier step made.
    """

    name: str  # csynth, cosim, implement, bitstream: also the name of its log
    tool: str
    arguments: tuple[str, ...]  # after the program; {project_digest} stands for the digest of this project
    folder: str = ""  # relative to the project, where it runs
    makes: tuple[str, ...] = ()  # files and folders, from the project's, that prove it ran: removed before it does
    reports: Mapping[str, str] = field(default_factory=dict)  # kind of report -> file, read by toolchain.resources
    needs: tuple[str, ...] = ()  # other rows of tool_list.py: what the tool itself calls


@dataclass(frozen=True)
class Project:
    """Files (text or bytes, by relative name), the commands that build them, and the file they make.

    An argument of a command may be a placeholder: `{compiler:KIND:CORE}` and `{link:KIND:CORE}` stand for several
    arguments of this machine's compiler, `{tool:NAME}` for the path of a tool of tool_list.py; `{project_digest}`, anywhere
    in one, for the digest of this project.
    """

    name: str
    files: Mapping[str, str | bytes]
    commands: tuple[tuple[str, ...], ...]
    product: str
    graph_digest: str = ""
    board: str = ""
    steps: tuple[Step, ...] = ()
    circuit: Mapping[str, Any] | None = None  # of an FPGA: what was chosen, said or not (passes/plan.py's Hls)
    memory: Mapping[str, int] = field(
        default_factory=dict
    )  # of a processor: the arena and its bounds, for reports only
    weights: Mapping[str, Mapping[str, str | int]] = field(
        default_factory=dict
    )  # packed ones, by array: format, values, bytes; for reports only

    def digest(self) -> str:
        """Names everything: files, commands, steps, product, graph and board. Independent of the order files were added in."""
        return _digest(_head(self), {name: _bytes(data) for name, data in self.files.items()})

    def write(self, root: Path) -> Path:
        """Puts the project on disk whole or not at all; replaces an older project, refuses any other folder.

        What the user added to the folder stays; a generated file that the user edited is refused, not lost. What the steps
        of another project made there (a bitstream, reports, logs) goes to previous/DIGEST/, where nobody takes it for this
        project's. Where the very project is there already, nothing is written: vendors' folders may be large.
        """
        of_steps = [n for s in self.steps for n in (*s.makes, *s.reports.values(), *filter(None, [s.folder]))]
        for name in (*self.files, *of_steps):
            _check_name(self.name, name)
        old = root.is_dir() and not root.is_symlink() and _is_project(root)
        if root.is_symlink() or (root.exists() and not old and not (root.is_dir() and not any(root.iterdir()))):
            raise ToolchainError(
                str(root), "exists and is not a bitwright project", "choose another folder or remove it"
            )
        if not old:
            return self._write(root, {})
        kept = _users_files(root, self.files)
        if _manifest(root)["digest"] == self.digest() and all((root / name).is_file() for name in self.files):
            return root
        with _alone(root):
            return self._write(root, kept)

    def _write(self, root: Path, kept: Mapping[str, str]) -> Path:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
        except OSError as error:
            raise ToolchainError(
                str(root), f"cannot be written: {error.strerror or error}", "choose another folder"
            ) from None
        try:
            for name, data in self.files.items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_bytes(data))
            for name, now in kept.items():
                (fresh / now).parent.mkdir(parents=True, exist_ok=True)
                _same(root / name, fresh / now)
            hashes = {name: hashlib.sha256(_bytes(self.files[name])).hexdigest() for name in sorted(self.files)}
            manifest = {**_head(self), "digest": self.digest(), "files": hashes}
            (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            fresh.chmod(0o755)
            _replace(fresh, root)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if isinstance(error, OSError):
                raise ToolchainError(str(root), f"cannot be written: {error.strerror or error}") from None
            raise
        return root

    @contextlib.contextmanager
    def held(self, root: Path) -> Iterator[Path]:
        """The folder with this project written in it, and with nobody else building there until the end of the block."""
        root = self.write(root)
        with _alone(root):
            if _manifest(root)["digest"] != self.digest():  # between the two
                raise _busy(root)
            yield root

    def unbuilt(self, root: Path) -> Image:
        """The image of a project that was made elsewhere, or by the steps: what its board must name in HELLO."""
        return Image(
            root / self.product, self.graph_digest, self.digest(), self.board, {"flash_bytes": 0, "ram_bytes": 0}
        )

    def build(self, root: Path, tools: Tools | None = None, progress: Progress | None = None) -> Image:
        """Writes the project to `root` and makes its image there."""
        with self.held(root) as folder:
            return build(folder, tools, progress)


@dataclass(frozen=True)
class Image:
    """What is loaded on a board: a file, the digests it will name in HELLO, and what it takes of the board."""

    path: Path
    graph_digest: str
    project_digest: str
    board: str = ""
    sizes: Mapping[str, int] = field(
        default_factory=dict
    )  # flash_bytes, ram_bytes; stack_bound_bytes where there is one
    versions: Mapping[str, str] = field(default_factory=dict)  # of the compilers


def build(root: Path, tools: Tools | None = None, progress: Progress | None = None) -> Image:
    """Runs the commands of the project at `root` and measures the product. Shows a failing command and what it said."""
    if tools is None:
        tools = cast(Tools, importlib.import_module("toolchain.tools"))
    manifest, digest = on_disk(root)
    commands = tuple(tuple(command) for command in manifest["commands"])
    product = root / manifest["product"]
    for old in root.glob(f"{product.name}-*.su"):
        old.unlink()
    for i, command in enumerate(commands):
        argv = resolve(command, tools, digest)
        if progress is not None:
            progress(_shown(argv), i / len(commands))
        _run(root, argv)
    if not product.is_file():
        raise ToolchainError(str(root), f"the commands did not make {manifest['product']}", "read what they said")
    made_with = versions(commands, tools)
    found = sizes(product) | _stack(root, product)
    return Image(product, manifest["graph_digest"], digest, manifest["board"], found, made_with)


def _stack(root: Path, product: Path) -> dict[str, int]:
    """The bound on the stack, if there is one: none of a host's program, nor where toolchain/stack.py cannot follow the code."""
    data = product.read_bytes()
    if not _bare_metal(data):
        return {}
    usage = stack.usage(root, product.name)
    for path in root.glob(f"{product.name}-*.su"):
        path.unlink()
    try:
        most = stack.bound(product, usage)
    except ToolchainError:
        return {}
    reserved = _reserved(data)
    if reserved and most > reserved:
        what = f"its stack may take {most:,} bytes (a bound computed from the build), the board reserves {reserved:,}"
        raise ToolchainError(str(product), what, "raise stack_bytes in the board's file")
    return {"stack_bound_bytes": most}


def on_disk(root: Path) -> tuple[dict[str, Any], str]:
    """The manifest of the project at `root`, and the digest of what lies there now."""
    manifest = _manifest(root)
    try:
        files = {name: (root / name).read_bytes() for name in manifest["files"]}
    except OSError as error:
        raise ToolchainError(
            str(root), f"{Path(str(error.filename)).name} cannot be read", "emit the project again"
        ) from None
    return manifest, _digest({key: manifest[key] for key in (*_HEAD, _CIRCUIT) if key in manifest}, files)


def steps(manifest: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps that a manifest names."""
    lists = ("arguments", "makes", "needs")
    found: list[dict[str, Any]] = manifest["steps"]
    values = [{key: tuple(v) if key in lists else v for key, v in step.items()} for step in found]
    return tuple(Step(**cast(dict[str, Any], step)) for step in values)


def resolve(command: Sequence[str], tools: Tools, digest: str) -> tuple[str, ...]:
    """A command of a Project as arguments for this machine."""
    argv: list[str] = []
    for argument in command:
        if argument.startswith(("{compiler:", "{link:")) and argument.endswith("}"):
            what, kind, core = argument[1:-1].split(":")
            compiler = tools.compiler(kind, core)
            argv += [*compiler.argv, *compiler.flags] if what == "compiler" else compiler.link
        elif argument.startswith("{tool:") and argument.endswith("}"):
            argv.append(str(tools.require(argument[6:-1]).path))
        else:
            argv.append(argument.replace("{project_digest}", digest))
    return tuple(argv)


def versions(commands: Iterable[Sequence[str]], tools: Tools) -> dict[str, str]:
    """The compilers and tools that these commands call, for the record."""
    found = {}
    for argument in sorted({argument for command in commands for argument in command}):
        if argument.startswith("{compiler:"):
            compiler = tools.compiler(*argument[1:-1].split(":")[1:])
            name = Path(compiler.argv[0]).name
            found[" ".join([name, *compiler.argv[1:]])] = compiler.version
        elif argument.startswith("{tool:"):
            found[argument[6:-1]] = tools.require(argument[6:-1]).version or "unknown"
    return found


def sizes(path: Path) -> dict[str, int]:
    """Flash and RAM of a bare-metal ELF, from its sections and stack symbols; of a host's program only the file size.

    Flash is every byte loaded; RAM is .data, .bss and the stack the linker script keeps free.
    """
    data = path.read_bytes()
    if not _bare_metal(data):
        return {"flash_bytes": len(data), "ram_bytes": 0}
    sections = elf_sections(data)
    flash = sum(s.size for s in sections.values() if s.flags & 2 and s.kind != 8)
    ram = sum(s.size for s in sections.values() if s.flags & 2 and s.flags & 1)
    return {"flash_bytes": flash, "ram_bytes": ram + _reserved(data)}


def _bare_metal(data: bytes) -> bool:
    """A little-endian ELF of 32 bits."""
    return data[:4] == b"\x7fELF" and data[4:6] == b"\1\1"


def _reserved(data: bytes) -> int:
    """The stack that the linker script keeps free."""
    symbols = elf_symbols(data, elf_sections(data))
    return symbols.get("_estack", 0) - symbols.get("_stack_bottom", 0)


@dataclass(frozen=True)
class Section:
    """A section of a 32-bit little-endian ELF: kind 8 is NOBITS; flags 1 writable, 2 allocated, 4 code."""

    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


def elf_sections(data: bytes) -> dict[str, Section]:
    start, size, count, names = struct.unpack_from("<I", data, 32) + struct.unpack_from("<HHH", data, 46)
    raw = [struct.unpack_from("<10I", data, start + i * size) for i in range(count)]
    text = raw[names][4]
    return {_text(data, text + r[0]): Section(r[1], r[2], r[3], r[4], r[5], r[6]) for r in raw}


def elf_symbols(data: bytes, sections: Mapping[str, Section]) -> dict[str, int]:
    table, text = sections.get(".symtab"), sections.get(".strtab")
    if table is None or text is None:
        return {}
    entries = struct.iter_unpack("<IIIBBH", data[table.offset : table.offset + table.size])
    return {_text(data, text.offset + entry[0]): entry[1] for entry in entries}


def elf_segments(data: bytes) -> list[tuple[int, bytes]]:
    """What a loader puts where: (physical address, bytes) of every loaded segment."""
    start, size, count = struct.unpack_from("<I", data, 28) + struct.unpack_from("<HH", data, 42)
    headers = [struct.unpack_from("<8I", data, start + i * size) for i in range(count)]
    return [(h[3], data[h[1] : h[1] + h[4]]) for h in headers if h[0] == 1 and h[4]]


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


_HEAD = ("format", "name", "graph_digest", "board", "commands", "product", "steps")
_CIRCUIT = "circuit"  # of an FPGA's project only


def _head(project: Project) -> dict[str, Any]:
    commands = [list(command) for command in project.commands]
    # as JSON gives it back: lists, and a report's kinds in one order
    made = json.loads(json.dumps([asdict(step) for step in project.steps], sort_keys=True))
    head = (FORMAT, project.name, project.graph_digest, project.board, commands, project.product, made)
    circuit = {} if project.circuit is None else {_CIRCUIT: dict(project.circuit)}
    return {**dict(zip(_HEAD, head, strict=True)), **circuit}


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _digest(head: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(files):
        total.update(f"\n{name}\n{len(files[name])}\n".encode() + files[name])
    return total.hexdigest()


def _check_name(project: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name or name in (".", MANIFEST):
        raise ToolchainError(f"project {project}", f"{name!r} is no name for a file of it", "use a plain relative name")


def _is_project(root: Path) -> bool:
    return (root / MANIFEST).is_file()


def _users_files(root: Path, new: Mapping[str, object]) -> dict[str, str]:
    """What in an older project is neither generated nor built, and where it goes; ToolchainError where writing would lose an edit."""
    manifest = _manifest(root)
    hashes, product = dict(manifest["files"]), manifest["product"]
    present = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_symlink() or not p.is_dir())
    kept = [name for name in present if name not in hashes and name not in (MANIFEST, product)]
    edited = [n for n in present if n in hashes and hashlib.sha256((root / n).read_bytes()).hexdigest() != hashes[n]]
    made = [name for step in steps(manifest) for name in (*step.makes, *step.reports.values())] + [LOGS] * bool(
        manifest["steps"]
    )
    aside = {name for name in kept if any(name == of or name.startswith(f"{of}/") for of in made)}
    lost = edited + [name for name in kept if name in new and name not in aside]
    if lost:
        what = f"holds changes of yours that would be lost: {', '.join(lost[:4])}{', ...' if len(lost) > 4 else ''}"
        raise ToolchainError(str(root), what, "choose another folder, or move them")
    old = f"{PREVIOUS}/{manifest['digest'][:12]}"
    return {name: f"{old}/{name}" if name in aside else name for name in kept}


def _same(old: Path, new: Path) -> None:
    """The same file under a second name, or a copy where there are no such names: a vendor's folder may be large."""
    try:
        os.link(old, new, follow_symlinks=False)
    except OSError:
        shutil.copy2(old, new, follow_symlinks=False)


def _manifest(root: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except OSError:
        raise ToolchainError(str(root), f"has no {MANIFEST} that can be read", "emit a project there first") from None
    except ValueError:
        manifest = None
    if isinstance(manifest, dict) and manifest.get("format") not in (None, FORMAT):
        raise ToolchainError(
            str(root), "was written by another version of bitwright", "emit the project again elsewhere"
        )
    kinds = {**dict.fromkeys(_HEAD, str), "format": int, "commands": list, "steps": list, "digest": str, "files": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), kind) for key, kind in kinds.items()):
        what = "is damaged: it must hold what bitwright wrote there"
        raise ToolchainError(str(root / MANIFEST), what, "emit the project again in another folder")
    return manifest


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One at a time in a folder: what the tools make there is not made for two. The manifest is the lock."""
    try:
        lock = (root / MANIFEST).open("r+")
    except OSError as error:
        raise ToolchainError(str(root), f"cannot be written: {error.strerror}", "choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _busy(root) from None
        yield


def _busy(root: Path) -> ToolchainError:
    return ToolchainError(
        str(root), "another build runs in this folder", "wait for it, end it, or choose another folder"
    )


def _replace(fresh: Path, root: Path) -> None:
    """A folder cannot be renamed over a full one: the old one steps aside first and is removed last."""
    if not root.exists():
        os.rename(fresh, root)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{root.name}-old-", dir=root.parent))
    try:
        os.rename(root, aside / "project")
        try:
            os.rename(fresh, root)
        except BaseException:
            os.rename(aside / "project", root)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _shown(argv: Sequence[str]) -> str:
    return f"{Path(argv[0]).name} -> {argv[argv.index('-o') + 1]}" if "-o" in argv else " ".join(argv)


OVERFLOWS = (  # GNU's linker, LLVM's, and GNU's for AVR, which says no number
    re.compile(r"region [`'\"]?(?P<region>\w+)'?\"? overflowed by (?P<bytes>\d+) bytes"),
    re.compile(r"region '(?P<region>\w+)': overflowed by (?P<bytes>\d+) bytes"),
    re.compile(r"is not within region [`'\"]?(?P<region>\w+)"),
    re.compile(r"do not fit the (?P<region>RAM) of this board"),  # of our own linker scripts
)
FLASH_REGIONS = ("flash", "text", "rom")


def _overflow(said: str) -> tuple[str, str] | None:
    """What a linker says of an image that is too large, in words of the board, and what to do; None of anything else."""
    for pattern in OVERFLOWS:
        if found := pattern.search(said):
            flash = found["region"].lower() in FLASH_REGIONS
            what, option = ("flash", "size") if flash else ("RAM", "ram")
            by = f" by {int(found['bytes']):,} bytes" if "bytes" in found.groupdict() else ""
            return (
                f"the image exceeds the board's {what}{by}",
                f"use --optimize {option}, a smaller model or a larger board",
            )
    return None


def _run(root: Path, argv: Sequence[str]) -> None:
    def tick(seconds: float) -> None:
        if seconds > BUILD_TIMEOUT_S:
            what = f"{argv[0]} did not end within {BUILD_TIMEOUT_S:.0f} s"
            raise ToolchainError(str(root), what, "run it by hand")

    with tempfile.TemporaryFile() as log:
        try:
            code = children.run(argv, root, log, tick=tick)
        except OSError as error:
            absent = isinstance(error, FileNotFoundError)
            what = f"{argv[0]} not found" if absent else f"{argv[0]} cannot be started: {error.strerror}"
            raise ToolchainError(str(root), what, "run `bitwright doctor`") from None
        log.seek(0)
        said = log.read().decode("utf-8", "replace").strip()
    if code and (too_large := _overflow(said)):
        raise ToolchainError(str(root), *too_large)
    if code:
        raise ToolchainError(str(root), f"the build failed (exit {code}): {' '.join(argv)}\n{said}")
