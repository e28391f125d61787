"""The numbers that an ONNX file stores, in itself or in a file beside it, as numpy arrays.

Its one rule: a tensor is read whole, from inside the model's folder, or refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolchain.errors import ToolchainError, UnsupportedError
from toolchain.frontends.qonnx.constants import Constant, first_line

if TYPE_CHECKING:
    from onnx import TensorProto

# ONNX element types by name: the numpy type that holds them, and the bits of those that numpy has no type for
KINDS = {
    "FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64", "INT4": "int8",
    "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "UINT4": "uint8",
}  # fmt: skip
NARROW = {"INT4": 4, "UINT4": 4}
_TRY = "export the model in float32, with integers of 4 to 64 bits"


def kind(element_type: int) -> str:
    """The name of an ONNX element type, as FLOAT16; "UNDEFINED" and unknown ones are named by number."""
    from onnx import TensorProto

    names: dict[int, str] = {number: name for name, number in TensorProto.DataType.items()}
    return names.get(element_type, f"element type {element_type}")


def supported(where: str, element_type: int) -> str:
    """The name of the element type; UnsupportedError for those that are refused (float16, bfloat16, float8, strings...)."""
    name = kind(element_type)
    if name not in KINDS:
        raise UnsupportedError(where, f"holds {name.lower()} values, must be float32 or integers", _TRY)
    return name


def external(tensor: TensorProto) -> bool:
    return int(tensor.data_location) == 1  # TensorProto.EXTERNAL


def read(where: str, tensor: TensorProto, folder: Path | None) -> Constant:
    """The tensor as a Constant; `folder` holds the model, None for a live one."""
    from onnx import numpy_helper

    name = supported(where, tensor.data_type)
    shape = tuple(int(n) for n in tensor.dims)
    if any(n < 0 for n in shape):
        raise ToolchainError(where, f"has the shape {list(shape)}, must not be negative", "export the model again")
    if tensor.HasField("segment"):
        raise UnsupportedError(where, "is stored in segments", "save the model again with onnx.save")
    raw = tensor.raw_data if tensor.HasField("raw_data") else None
    if external(tensor):
        raw = _external(where, tensor, folder, name, shape)
    if raw is not None or name in NARROW:
        data = raw if raw is not None else np.asarray(tensor.int32_data, np.int32).astype("<u1").tobytes()
        return Constant(_from_bytes(where, data, name, shape), bits=NARROW.get(name))
    try:
        value = np.asarray(numpy_helper.to_array(tensor))
    except Exception as e:  # protobuf fields of the wrong number or kind: ValueError, TypeError, ...
        raise ToolchainError(where, f"cannot be read ({first_line(e)})", "export the model again") from None
    return Constant(value.astype(KINDS[name], copy=False).reshape(shape))


def _size(name: str, shape: tuple[int, ...]) -> int:
    """Bytes of a stored tensor; 4-bit ones lie two to a byte."""
    count = int(np.prod(shape, dtype=object)) if shape else 1
    return (count * NARROW[name] + 7) // 8 if name in NARROW else count * np.dtype(KINDS[name]).itemsize


def _from_bytes(where: str, raw: bytes, name: str, shape: tuple[int, ...]) -> np.ndarray:
    need = _size(name, shape)
    if len(raw) != need:
        raise ToolchainError(
            where, f"holds {len(raw):,} bytes, its shape {list(shape)} needs {need:,}", "export the model again"
        )
    if name not in NARROW:
        little = np.dtype(KINDS[name]).newbyteorder("<")
        return np.frombuffer(raw, little).astype(KINDS[name]).reshape(shape)
    pairs = np.frombuffer(raw, np.uint8)
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(-1)[: int(np.prod(shape, dtype=np.int64))]
    if name == "INT4":
        return ((nibbles ^ 8).astype(np.int8) - 8).reshape(shape)
    return nibbles.reshape(shape)


def _external(where: str, tensor: TensorProto, folder: Path | None, name: str, shape: tuple[int, ...]) -> bytes:
    """The bytes of a tensor that lies in a file of its own."""
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    if folder is None:
        raise UnsupportedError(where, f"is not loaded: it lies in {location!r}", "save the model and give its path")
    path = _inside(where, folder, location)
    need = _size(name, shape)
    offset, length = _count(where, fields, "offset", 0), _count(where, fields, "length", need)
    if length != need:
        raise ToolchainError(
            where, f"holds {length:,} bytes in {location!r}, its shape {list(shape)} needs {need:,}", "export it again"
        )
    if not need:
        return b""  # torch's exporter leaves out the file where nothing is in it
    try:
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read(need)
    except OSError as e:
        raise ToolchainError(
            where, f"its values lie in {location!r}, which cannot be read ({e.strerror})", "copy it beside the model"
        ) from None
    if len(raw) < need:
        raise ToolchainError(
            where,
            f"its values lie in {location!r}, which is too short: bytes {offset:,} to {offset + need:,} of {path.stat().st_size:,}",
            "copy the whole file beside the model",
        )
    return raw


def _inside(where: str, folder: Path, location: str) -> Path:
    """The file of external data, which must lie in the model's folder, also once symbolic links are followed."""
    given = Path(location)
    out = given.is_absolute() or ".." in re.split(r"[/\\]", location) or bool(re.match(r"[a-zA-Z]:|[/\\]", location))
    try:
        out = out or not (folder / given).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name with a NUL
        out = True
    if out or not location:
        raise UnsupportedError(
            where,
            f"its values lie in {location!r}, which is not inside the model's folder",
            "save the model in one file, or with its data beside it",
        )
    return folder / given


def _count(where: str, fields: dict[str, str], key: str, default: int) -> int:
    text = fields.get(key, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ToolchainError(where, f"{key} of its external data is {text!r}, must be a count of bytes", "export again")
    return int(text)
