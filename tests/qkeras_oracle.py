"""Live QKeras as an oracle: run `python qkeras_oracle.py cases.npz out.npz`, once with QKeras 0.9.0 and once with qkeras-v3.

Its one rule: it only calls the framework; it shares no code with the importer.
"""

from __future__ import annotations

import json
import sys

import numpy as np


def main(cases: str, out: str) -> None:
    import qkeras.quantizers as quantizers  # TF or Keras 3, by the environment

    data = np.load(cases)
    spec = json.loads(str(data["spec"]))
    results: dict[str, np.ndarray] = {}
    for i, (text, role, sigmoid) in enumerate(spec):
        quantizers.set_internal_sigmoid(sigmoid)
        q = quantizers.get_quantizer(text)
        if role.startswith("array:"):
            q.alpha = np.array(json.loads(role[6:]), dtype=np.float32)
        if role == "kernel":
            q._set_trainable_parameter()
        if role.startswith("bound:"):
            q.is_quantized_clip, q.relu_upper_bound = False, float(role[6:])
        y = q(np.asarray(data[f"x{i}"], dtype=np.float32))
        results[f"y{i}"] = np.asarray(y)
        scale = getattr(q, "scale", None)
        results[f"s{i}"] = np.asarray(1.0 if scale is None else scale)
        if hasattr(q, "quantization_scale"):
            results[f"s{i}"] = np.asarray(q.quantization_scale)
    np.savez(out, **results)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
