"""Small ONNX and QONNX models by table: every op, quantizer, dialect and opset form that the front end reads, and random networks.

Its one rule: only onnx.helper makes them; what they mean is told by tests/onnx_exact.py alone. Dimensions differ from each other
wherever they can, so that a wrong layout cannot look right.
"""

from __future__ import annotations

from tests.onnx_branch_models import joined, pools
from tests.onnx_edge_models import dialects, ends
from tests.onnx_function_models import activations, batchnorms
from tests.onnx_layer_models import convolutions, denses
from tests.onnx_net import MODES, QONNX, Case, Net, scales
from tests.onnx_quantizer_models import quantizers
from tests.onnx_random import random_model
from tests.onnx_shape_models import shapes

__all__ = ["MODES", "QONNX", "Case", "Net", "random_model", "scales", "table"]


def table() -> list[Case]:
    """Every case, names unique."""
    found = [
        case
        for family in (
            quantizers, denses, convolutions, batchnorms, activations, joined, pools, shapes, dialects, ends,
        )
        for case in family()
    ]  # fmt: skip
    assert len({c.name for c in found}) == len(found)
    return found
