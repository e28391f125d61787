"""What a live module computes, by the names of the tensors of the file that it was exported to: for `bitwright verify`.

Its one rule: the module's own float32, seen through hooks; nothing is computed beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from toolchain.framework import Answer, Program, Read
from toolchain.frontends.brevitas import export

BATCH = 128


def program(source: Any, exported: export.Exported) -> Program:
    """Every activation quantizer's output, what it read, and the module's outputs."""
    module = export.copied(f"module {type(source).__name__}", source)
    makers = {name: node for node in exported.model.graph.node for name in node.output}

    def run(given: Mapping[str, np.ndarray]) -> dict[str, Answer]:
        [x] = given.values()
        seen, outputs = _forward(module, x, {path for path, _ in exported.quantizers.values()})
        found = {}
        for name, call in exported.quantizers.items():
            path, _ = call
            if call not in seen:
                continue
            proxy = module.get_submodule(path)
            before, after = seen[call]
            fused = proxy.fused_activation_quant_proxy
            reads = []
            read = makers[name].input[0]
            acted = _batches(fused.activation_impl, before)
            reads.append(Read(read, acted, partial(_batches, fused.tensor_quant)))
            if read in makers:  # the activation's own input, for those that are no clips
                reads.append(Read(makers[read].input[0], before, partial(_batches, fused)))
            layer = path.rpartition(".")[0] or path
            found[name] = Answer(layer, after, tuple(reads))
            found.setdefault(read, Answer(f"input of {layer}", acted))
        for value, out in zip(exported.model.graph.output, outputs, strict=True):
            found.setdefault(value.name, Answer("output", out))
        return found

    return run


def _forward(module: Any, x: np.ndarray, paths: set[str]) -> tuple[dict[tuple[str, int], Any], list[np.ndarray]]:
    """Inputs and outputs of the quantizers, by path and call, and the module's outputs, over all samples."""
    import torch

    seen: dict[tuple[str, int], tuple[list[Any], list[Any]]] = {}
    calls: dict[str, int] = {}
    outputs: list[list[Any]] = []

    def hook(path: str) -> Any:
        def record(_: Any, args: Any, out: Any) -> None:
            k = calls[path] = calls.get(path, -1) + 1
            before, after = seen.setdefault((path, k), ([], []))
            before.append(export.plain(args[0]).detach().numpy())
            after.append(export.plain(out).detach().numpy())

        return record

    handles = [module.get_submodule(p).register_forward_hook(hook(p)) for p in paths]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for i in range(0, len(x), BATCH):
                calls.clear()
                made = module(torch.from_numpy(np.ascontiguousarray(x[i : i + BATCH], np.float32)))
                values = (
                    made.values() if isinstance(made, dict) else made if isinstance(made, (list, tuple)) else [made]
                )
                outputs.append([v.detach().numpy() for v in values])
    finally:
        for h in handles:
            h.remove()
    joined = {key: (np.concatenate(a), np.concatenate(b)) for key, (a, b) in seen.items()}
    return joined, [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def _batches(function: Any, x: np.ndarray) -> np.ndarray:
    """A part of the module of these values."""
    import torch

    found = []
    with torch.no_grad():
        for i in range(0, len(x), BATCH):
            out = function(torch.from_numpy(np.ascontiguousarray(x[i : i + BATCH], np.float32)))
            found.append((out[0] if isinstance(out, tuple) else out).numpy())
    return np.concatenate(found)
