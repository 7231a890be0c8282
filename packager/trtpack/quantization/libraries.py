# SPDX-License-Identifier: Apache-2.0
"""Which libraries define the operators that quantized programs have."""

from __future__ import annotations

import importlib

from trtpack.errors import SourceError

DEFINED_BY = {
    "quantized_decomposed": ("torch.ao.quantization.fx._decomposed", "torch"),
    "torchao": ("torchao.quantization", "torchao"),
    "tensorrt": ("modelopt.torch.quantization", "nvidia-modelopt"),
}
"""Namespace of operators -> the module that defines them, and the package it is in."""


def import_operators(program: bytes) -> None:
    """Imports what defines the operators a stored program names.

    Raises:
        SourceError: it is not installed.
    """
    for namespace, (module, package) in DEFINED_BY.items():
        if f"torch.ops.{namespace}.".encode() in program:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise SourceError(
                    f"the program has operators of {package}, which cannot be imported: {error}",
                    hint=f"install it here: pip install {package}",
                ) from error
