"""TFLite files written from a short description, and run by TensorFlow Lite Micro's interpreter: the judge of its arithmetic.

One rule: nothing here reads the toolchain. Numbers of operators, option tables and fields are those of TFLite's schema
(tflite-micro, tensorflow/compiler/mlir/lite/schema/schema.fbs); a field's number counts from 0 in the order of its table.

    x, y = T((1, 10), scale=0.1, zero_point=3), T((1, 10), scale=1 / 256, zero_point=-128)
    answer = run(one_op("SOFTMAX", [x], [y], beta=1.0), samples)[0]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

WITHOUT = "needs tflite-micro, the judge of TFLite's arithmetic, which has wheels for Linux on x86-64"
TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float64": 10}
ACTIVATIONS = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3, "tanh": 4}
PADDINGS = {"same": 0, "valid": 1}

Fields = dict[str, tuple[int, str]]  # option -> number, type


def _fields(*names: str) -> Fields:
    """`name:Type` in order; a name of `-` is a field that nobody here writes."""
    return {n.split(":")[0]: (k, n.split(":")[1]) for k, n in enumerate(names) if n != "-"}


FUSED = "activation:Int8"
STRIDES = ("padding:Int8", "stride_w:Int32", "stride_h:Int32")
DILATIONS = ("dilation_w:Int32", "dilation_h:Int32")
PLAIN: Fields = {}
OPERATORS: dict[str, tuple[int, int, Fields]] = {  # name -> builtin code, number of its options, their fields
    "ADD": (0, 11, _fields(FUSED, "pot_scale_int16:Bool")),
    "ARG_MAX": (56, 40, _fields("output_type:Int8")),
    "AVERAGE_POOL_2D": (1, 5, _fields(*STRIDES, "filter_w:Int32", "filter_h:Int32", FUSED)),
    "CONCATENATION": (2, 10, _fields("axis:Int32", FUSED)),
    "CONV_2D": (3, 1, _fields(*STRIDES, FUSED, *DILATIONS)),
    "DEPTHWISE_CONV_2D": (4, 2, _fields(*STRIDES, "depth_multiplier:Int32", FUSED, *DILATIONS)),
    "DEQUANTIZE": (6, 38, PLAIN),
    "EXPAND_DIMS": (70, 52, PLAIN),
    "FULLY_CONNECTED": (9, 8, _fields(FUSED, "weights_format:Int8", "keep_num_dims:Bool")),
    "HARD_SWISH": (117, 91, PLAIN),
    "LEAKY_RELU": (98, 75, _fields("alpha:Float32")),
    "LOGISTIC": (14, 0, PLAIN),
    "MAX_POOL_2D": (17, 5, _fields(*STRIDES, "filter_w:Int32", "filter_h:Int32", FUSED)),
    "MEAN": (40, 27, _fields("keep_dims:Bool")),
    "MUL": (18, 21, _fields(FUSED)),
    "PACK": (83, 59, _fields("values_count:Int32", "axis:Int32")),
    "PAD": (34, 22, PLAIN),
    "PADV2": (60, 43, PLAIN),
    "QUANTIZE": (114, 89, PLAIN),
    "RELU": (19, 0, PLAIN),
    "RELU6": (21, 0, PLAIN),
    "RELU_N1_TO_1": (20, 0, PLAIN),
    "RESHAPE": (22, 17, _fields("new_shape:Vector")),
    "RESIZE_BILINEAR": (23, 15, _fields("-", "-", "align_corners:Bool", "half_pixel_centers:Bool")),
    "RESIZE_NEAREST_NEIGHBOR": (97, 74, _fields("align_corners:Bool", "half_pixel_centers:Bool")),
    "SHAPE": (77, 55, _fields("out_type:Int8")),
    "SLICE": (65, 48, PLAIN),
    "SOFTMAX": (25, 9, _fields("beta:Float32")),
    "SPLIT": (49, 35, _fields("num_splits:Int32")),
    "SPLIT_V": (102, 79, _fields("num_splits:Int32")),
    "SQUEEZE": (43, 30, _fields("squeeze_dims:Vector")),
    "STRIDED_SLICE": (45, 32, _fields("begin_mask:Int32", "end_mask:Int32", "ellipsis_mask:Int32", "new_axis_mask:Int32",
                                      "shrink_axis_mask:Int32", "offset:Bool")),
    "SUB": (41, 28, _fields(FUSED, "pot_scale_int16:Bool")),
    "SUM": (74, 27, _fields("keep_dims:Bool")),
    "TANH": (28, 0, PLAIN),
    "TRANSPOSE": (39, 26, PLAIN),
    "TRANSPOSE_CONV": (67, 49, _fields(*STRIDES, FUSED)),
    "UNPACK": (88, 64, _fields("num:Int32", "axis:Int32")),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class T:
    """A tensor, itself and no other: `shape` with the batch, `data` for a constant, one scale or one for each index of `axis`."""

    shape: tuple[int, ...]
    type: str = "int8"
    scale: float | Sequence[float] | None = None
    zero_point: int | Sequence[int] = 0
    axis: int = 0
    data: Any = None
    name: str = ""


@dataclass(frozen=True)
class Node:
    """An operator; an input that is left out is None."""

    kind: str
    inputs: Sequence[T | None]
    outputs: Sequence[T]
    options: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1


def constant(data: Any, type: str = "int32", **quantization: Any) -> T:  # noqa: A002
    array = np.asarray(data, type)
    return T(array.shape, type, data=array, **quantization)


def one_op(kind: str, inputs: Sequence[T | None], outputs: Sequence[T], **options: Any) -> bytes:
    """A model of one operator: inputs without data are the model's."""
    return model([Node(kind, inputs, outputs, options)])


def model(nodes: Sequence[Node], inputs: Sequence[T] | None = None, outputs: Sequence[T] | None = None) -> bytes:
    """The file. Unless said, its inputs are what no operator makes and no constant is, its outputs what no operator reads."""
    read = _unique(t for n in nodes for t in n.inputs if t is not None)
    made = _unique(t for n in nodes for t in n.outputs)
    if inputs is None:
        inputs = [t for t in read if t.data is None and t not in made]
    if outputs is None:
        outputs = [t for t in made if t not in read]
    return _File(_unique([*inputs, *read, *made, *outputs]), list(nodes)).bytes(inputs, outputs)


def _unique(tensors: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(tensors))


class _File:
    def __init__(self, tensors: list[T], nodes: list[Node]) -> None:
        self.b = pytest.importorskip("flatbuffers", reason=WITHOUT).Builder(1024)
        self.nodes, self.tensors = nodes, tensors
        self.codes = sorted({(OPERATORS[n.kind][0], n.version) for n in nodes})

    def bytes(self, inputs: Sequence[T], outputs: Sequence[T]) -> bytes:
        holders = [t for t in self.tensors if t.data is not None]
        buffers = self.offsets([self.buffer(None), *(self.buffer(t) for t in holders)])
        tensors = [self.tensor(k, t, holders.index(t) + 1 if t in holders else 0) for k, t in enumerate(self.tensors)]
        places = {
            0: ("UOffsetTRelative", self.offsets(tensors)),
            1: ("UOffsetTRelative", self.ints(self.index(inputs))),
            2: ("UOffsetTRelative", self.ints(self.index(outputs))),
            3: ("UOffsetTRelative", self.offsets([self.operator(n) for n in self.nodes])),
        }
        graph = self.offsets([self.table(places)])
        codes = self.offsets([self.code(*c) for c in self.codes])
        root = self.table(
            {0: ("Uint32", 3), 1: ("UOffsetTRelative", codes), 2: ("UOffsetTRelative", graph), 4: ("UOffsetTRelative", buffers)}
        )  # fmt: skip
        self.b.Finish(root, file_identifier=b"TFL3")
        return bytes(self.b.Output())

    def table(self, values: Mapping[int, tuple[str, Any]]) -> int:
        """A table of these fields; a scalar equal to its type's zero is written too, so no default is asked for."""
        self.b.StartObject(max(values, default=-1) + 1)
        for number, (kind, value) in values.items():
            if kind == "UOffsetTRelative":
                self.b.PrependUOffsetTRelativeSlot(number, value, 0)
            else:
                getattr(self.b, f"Prepend{kind}")(value)
                self.b.Slot(number)
        return int(self.b.EndObject())

    def vector(self, array: np.ndarray) -> int:
        return int(self.b.CreateNumpyVector(array))

    def ints(self, values: Sequence[int]) -> int:
        return self.vector(np.asarray(values, np.int32).reshape(-1))

    def offsets(self, found: list[int]) -> int:
        self.b.StartVector(4, len(found), 4)
        for offset in reversed(found):
            self.b.PrependUOffsetTRelative(offset)
        return int(self.b.EndVector())

    def buffer(self, tensor: T | None) -> int:
        if tensor is None:
            return self.table({})
        data = np.ascontiguousarray(tensor.data, tensor.type).tobytes()
        self.b.StartVector(1, len(data), 16)  # the schema's force_align: kernels read constants in place
        self.b.head = self.b.Head() - len(data)
        self.b.Bytes[self.b.Head() : self.b.Head() + len(data)] = data
        return self.table({0: ("UOffsetTRelative", self.b.EndVector())})

    def tensor(self, k: int, t: T, buffer: int) -> int:
        name = self.b.CreateString(t.name or f"t{k}")
        values: dict[int, tuple[str, Any]] = {
            0: ("UOffsetTRelative", self.ints(t.shape)),
            1: ("Int8", TYPES[t.type]),
            2: ("Uint32", buffer),
            3: ("UOffsetTRelative", name),
        }
        if t.scale is not None:
            scales = np.atleast_1d(np.asarray(t.scale, np.float32))
            zeros = np.broadcast_to(np.asarray(t.zero_point, np.int64), scales.shape)
            given = {2: ("UOffsetTRelative", self.vector(scales))}
            given[3] = ("UOffsetTRelative", self.vector(np.ascontiguousarray(zeros)))
            values[4] = ("UOffsetTRelative", self.table({**given, 6: ("Int32", t.axis)}))
        return self.table(values)

    def index(self, tensors: Sequence[T | None]) -> list[int]:
        return [-1 if t is None else self.tensors.index(t) for t in tensors]

    def code(self, builtin: int, version: int) -> int:
        return self.table({0: ("Int8", min(builtin, 127)), 2: ("Int32", version), 3: ("Int32", builtin)})

    def operator(self, node: Node) -> int:
        builtin, number, known = OPERATORS[node.kind]
        options: dict[int, tuple[str, Any]] = {}
        for name, value in node.options.items():
            place, kind = known[name]
            if kind == "Vector":
                options[place] = ("UOffsetTRelative", self.ints(value))
            else:
                options[place] = (
                    kind,
                    {"activation": ACTIVATIONS, "padding": PADDINGS}.get(name, {}).get(value, value),
                )
        values: dict[int, tuple[str, Any]] = {
            0: ("Uint32", self.codes.index((builtin, node.version))),
            1: ("UOffsetTRelative", self.ints(self.index(node.inputs))),
            2: ("UOffsetTRelative", self.ints(self.index(node.outputs))),
        }
        if number:
            values |= {3: ("Uint8", number), 4: ("UOffsetTRelative", self.table(options))}
        return self.table(values)


def run(file: bytes, *samples: np.ndarray, arena_bytes: int = 1 << 20) -> list[np.ndarray]:
    """Every output of the file for each sample, by TensorFlow Lite Micro: an array [samples, *shape] for each input, in order.

    The test is skipped where the wheel is not. What its kernels hold for a fault of their caller ends the process.
    """
    pytest.importorskip("tflite_micro", reason=WITHOUT)
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(file, arena_size=arena_bytes)
    found: list[list[np.ndarray]] = []
    for one in zip(*samples, strict=True):
        for k, value in enumerate(one):
            details = interpreter.get_input_details(k)
            interpreter.set_input(np.ascontiguousarray(value, details["dtype"]).reshape(details["shape"]), k)
        interpreter.invoke()
        found.append([interpreter.get_output(k).copy() for k in range(_outputs(file))])
    return [np.stack(column) for column in zip(*found, strict=True)]


def memory(file: bytes, capfd: pytest.CaptureFixture[str]) -> tuple[int, int]:
    """The bytes of its arena that the interpreter says it uses: in all, and of that the tensors and what kernels need beside them."""
    pytest.importorskip("tflite_micro", reason=WITHOUT)
    from tflite_micro import runtime

    recording = runtime.InterpreterConfig.kAllocationRecording
    runtime.Interpreter.from_bytes(file, intrepreter_config=recording).print_allocations()
    said = "".join(capfd.readouterr())
    total, head = (re.search(rf"Arena allocation {what} (\d+) bytes", said) for what in ("total", "head"))
    assert total and head, said
    return int(total[1]), int(head[1])


def _outputs(file: bytes) -> int:
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    return int(schema.Model.GetRootAsModel(file, 0).Subgraphs(0).OutputsLength())
