"""Bitwright: one quantized model, one integer meaning, proved equal at every step."""

__version__ = "0.1.0"
