# SPDX-License-Identifier: Apache-2.0
"""Seventy-two model architectures people deploy, offline and randomly initialised.

``MODELS[name]()`` gives (model, example inputs, dynamic shapes or None). ``ops.json`` says per model
whether ``torch.export`` takes it and which ATen operators it needs.
"""

from __future__ import annotations

from . import classification, dense, detection, multimodal, tabular, text
from .registry import REGISTRY, Built, Spec

__all__ = [
    "MODELS",
    "REGISTRY",
    "Built",
    "Spec",
    "classification",
    "dense",
    "detection",
    "multimodal",
    "tabular",
    "text",
]

MODELS = {name: spec.build for name, spec in REGISTRY.items()}
