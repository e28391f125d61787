"""Run an ONNX model as its own tools do: qonnx's operators by qonnx's functions, all others by onnxruntime, many samples at once.

Its one rule: no arithmetic of ours. What stands here is only which part runs when, and on how many samples.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain.errors import MissingToolError, ToolchainError
from toolchain.frontends.qonnx import archive

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

BATCH = 128  # samples at once, where the model's operators allow it
Values = dict[str, np.ndarray]
ROUNDING = {"ROUND_TO_ZERO": "DOWN"}  # a spelling that qonnx 1.0.0 does not know
INT4 = (21, 22)  # TensorProto.UINT4, INT4: numpy cannot hold what onnxruntime would give


def need(where: str, custom: bool) -> None:
    """MissingToolError where a package that runs the model is not installed."""
    try:
        import onnxruntime  # noqa: F401

        if custom:
            import qonnx.custom_op.registry  # noqa: F401
    except ImportError as e:
        raise MissingToolError(
            where,
            f"{'qonnx' if custom else 'onnxruntime'}, which runs the model, is not installed ({e})",
            "pip install 'bitwright[brevitas]'; load and simulate do not need it",
        ) from None


@dataclass(frozen=True, eq=False)
class _Part:
    """Nodes that run together: one of qonnx's, or neighbours of the standard's."""

    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]  # that are computed from the model's input
    run: Callable[[Values], Values]


class Executor:
    """`run` gives every tensor that is computed from the inputs; `again` recomputes one tensor from another."""

    def __init__(self, opened: archive.Opened):
        from onnx import numpy_helper

        where, proto = opened.where, opened.proto
        inputs = [i.name for i in opened.inputs]
        self.where, self.inputs, self.versions, self.baked = where, tuple(inputs), opened.versions, opened.baked
        need(where, any(archive.is_qonnx(n.domain) for n in proto.graph.node))
        folder = str(opened.path.parent) if opened.path else ""
        self.constants: Values = {t.name: numpy_helper.to_array(t, folder) for t in proto.graph.initializer}
        self.tensors = {t.name: t for t in proto.graph.initializer}
        nodes = list(proto.graph.node)
        outputs = [o.name for o in proto.graph.output]
        wanted = [o for o in outputs if o not in self.constants]
        order = archive.needed(where, nodes, inputs, set(self.constants), wanted)
        self.nodes = [self._copy(nodes[i]) for i in order]
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        live = set(inputs)
        self.kinds = self._kinds(proto)
        for node in self.nodes:
            if live.intersection(node.input):
                live.update(filter(None, node.output))
            else:
                self.constants.update(self._part([node], set()).run({}))
        self.live = live
        self.data = [n for n in self.nodes if live.intersection(n.input)]
        self._chains: dict[tuple[str, str], list[_Part]] = {}
        self.batched: bool | None = None

    def run(self, given: Mapping[str, np.ndarray], names: Iterable[str]) -> Values:
        """These tensors, [samples, ...] each, for inputs [samples, ...]."""
        wanted = [n for n in dict.fromkeys(names) if n in self.live and self.kinds.get(n) not in INT4]
        if self.batched is None:
            self.batched = self._may_batch(given, wanted)
        return self._batches(lambda some: self._run(self.parts, some), given, wanted)

    def again(self, start: str, end: str, x: np.ndarray) -> np.ndarray:
        """`end`, were `start` x: only nodes that lead from the one to the other run."""
        key = start, end
        if key not in self._chains:
            needed, chain = {end}, []
            for node in reversed(self.data):
                if start in node.output or not needed.intersection(node.output):
                    continue
                chain.append(node)
                needed.update(node.input)
            if needed.intersection(self.inputs) - {start}:
                raise ToolchainError(self.where, f"{end} is computed from more than {start}")
            self._chains[key] = self._parts(chain[::-1])
        return self._batches(lambda some: self._run(self._chains[key], some), {start: x}, [end])[end]

    def quantized(self, scale: str, zero_point: str, x: np.ndarray) -> np.ndarray:
        """QuantizeLinear of x with these constants of the model."""
        from onnx import helper

        node = helper.make_node("QuantizeLinear", ["asked", scale, zero_point], ["answered"])
        return self._session([node], ["asked"])({"asked": x})["answered"]

    @cached_property
    def parts(self) -> list[_Part]:
        return self._parts(self.data)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _parts(self, nodes: Sequence[NodeProto]) -> list[_Part]:
        found: list[_Part] = []
        group: list[NodeProto] = []
        for node in nodes:
            if node.domain:
                found += [self._part(g, self.live) for g in (group, [node]) if g]
                group = []
            else:
                group.append(node)
        return found + ([self._part(group, self.live)] if group else [])

    def _part(self, nodes: Sequence[NodeProto], live: set[str]) -> _Part:
        made = {name for node in nodes for name in node.output}
        inputs = tuple(dict.fromkeys(n for node in nodes for n in node.input if n in live and n not in made))
        return _Part(tuple(nodes), inputs, self._custom(nodes[0]) if nodes[0].domain else self._session(nodes, inputs))

    def _custom(self, node: NodeProto) -> Callable[[Values], Values]:
        from onnx import GraphProto
        from qonnx.custom_op.registry import getCustomOp

        try:
            op = getCustomOp(node, onnx_opset_version=self.versions.get(node.domain, 1))
        except (KeyError, AttributeError):
            raise ToolchainError(
                f"node {node.name or node.op_type}", f"qonnx cannot run {node.op_type}", "verify a model without it"
            ) from None
        graph = GraphProto()

        def run(values: Values) -> Values:
            context = {n: values[n] if n in values else self.constants[n] for n in node.input if n}
            context.update({n: np.zeros(0, np.float32) for n in node.output})
            with np.errstate(all="ignore"):
                op.execute_node(context, graph)
            return {n: np.asarray(context[n]) for n in node.output if n}

        return run

    def _session(self, nodes: Sequence[NodeProto], inputs: Sequence[str]) -> Callable[[Values], Values]:
        import onnxruntime as ort
        from onnx import ValueInfoProto, helper, numpy_helper

        made = [name for node in nodes for name in node.output if name and self.kinds.get(name) not in INT4]
        read = dict.fromkeys(n for node in nodes for n in node.input if n in self.constants)
        stored = [self.tensors[n] if n in self.tensors and not self.tensors[n].external_data else numpy_helper.from_array(self.constants[n], n) for n in read]  # fmt: skip
        outputs = [ValueInfoProto(name=n) for n in made]
        opsets = [helper.make_opsetid("", self.versions[""])]
        sessions: dict[tuple[int, ...], Any] = {}

        def run(values: Values) -> Values:
            given = {n: values[n] for n in inputs}
            kinds = tuple(helper.np_dtype_to_tensor_dtype(x.dtype) for x in given.values())
            if kinds not in sessions:
                infos = [helper.make_tensor_value_info(n, k, None) for n, k in zip(given, kinds, strict=True)]
                graph = helper.make_graph(list(nodes), "part", infos, outputs, stored)
                model = helper.make_model(graph, opset_imports=opsets, ir_version=min(10, self.ir))
                o = ort.SessionOptions()
                o.intra_op_num_threads = 1
                o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
                o.log_severity_level = 4
                sessions[kinds] = ort.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"])
            return dict(zip(made, sessions[kinds].run(made, given), strict=True))

        return run

    def _copy(self, node: NodeProto) -> NodeProto:
        """One spelling of QONNX's domain, and a Reshape that keeps whatever batch there is."""
        made = type(node)()
        made.CopyFrom(node)
        if archive.is_qonnx(node.domain):
            made.domain = "qonnx.custom_op.general"
            for a in made.attribute:
                if a.name == "rounding_mode" and a.s.decode().upper() in ROUNDING:
                    a.s = ROUNDING[a.s.decode().upper()].encode()
        elif node.domain == "ai.onnx":
            made.domain = ""
        if made.op_type == "Reshape" and not made.domain and made.input[1] in self.constants:
            shape = self.constants[made.input[1]]
            if (
                len(shape)
                and shape[0] in (1, self.baked)
                and not any(a.name == "allowzero" and a.i for a in made.attribute)
            ):
                kept = f"{made.input[1]}:any_batch"
                self.constants[kept] = np.array([0, *shape[1:]], np.int64)
                made.input[1] = kept
        return made

    def _kinds(self, proto: ModelProto) -> dict[str, int]:
        """Element types, as far as the file or inference tells them."""
        import onnx

        self.ir = proto.ir_version
        with contextlib.suppress(Exception):  # whatever it dislikes: only 4-bit tensors need it
            proto = onnx.shape_inference.infer_shapes(proto)
        return {v.name: v.type.tensor_type.elem_type for v in (*proto.graph.value_info, *proto.graph.output)}

    # --- samples ------------------------------------------------------------------------------------------------------

    def _run(self, parts: Sequence[_Part], given: Mapping[str, np.ndarray]) -> Values:
        values = dict(given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for part in parts:
                values.update(part.run(values))
        return values

    def _batches(self, run: Callable[[Values], Values], given: Mapping[str, np.ndarray], names: list[str]) -> Values:
        count = len(next(iter(given.values())))
        assert count
        step = BATCH if self.batched else self.baked
        found: dict[str, list[np.ndarray]] = {n: [] for n in names}
        for i in range(0, count, step):
            some = {n: x[i : i + step] for n, x in given.items()}
            short = 0 if self.batched else step - min(step, count - i)
            if short:
                some = {n: np.concatenate([x, np.repeat(x[-1:], short, axis=0)]) for n, x in some.items()}
            values = run(some)
            for n in names:
                part = values[n] if values[n].ndim else values[n].reshape(1)
                found[n].append(part[: len(part) - short] if short else part)
        return {n: np.concatenate(parts) for n, parts in found.items()}

    def _may_batch(self, given: Mapping[str, np.ndarray], names: list[str]) -> bool:
        """Whether any batch gives for each sample what the file's own gives: some files have their batch in a shape."""
        own = {n: np.repeat(x[:1], self.baked, axis=0) for n, x in given.items()}
        others = {n: np.concatenate([x[:1], x[-1:], x[-1:]]) for n, x in given.items()}
        alone = self._run(self.parts, own)
        try:
            three = self._run(self.parts, others)
        except Exception:  # onnxruntime has classes of its own for this
            return False
        for n in names:
            a, b = alone[n], three[n]
            if not a.ndim or len(a) != self.baked or b.shape != (3, *a.shape[1:]):
                return False
            if not np.allclose(a[0], b[0], rtol=1e-3, atol=1e-3 * np.abs(a).max(initial=0)):
                return False
        return True
