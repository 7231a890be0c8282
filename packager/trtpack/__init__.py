# SPDX-License-Identifier: Apache-2.0
"""Takes a PyTorch model to a device.

``trtpack.build(model, inputs, target="orin")`` does what ``trtpack build`` does and answers a
``Bundle``; ``trtpack.compile(model, inputs)`` answers a module for this machine, and so does
``torch.compile(model, backend="trtpack")`` while it runs. Names are imported when they are first
used, so that ``import trtpack`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .jit.registering import offer

__version__ = "0.1.0"
__all__ = [
    "BuildReport",
    "Bundle",
    "Input",
    "InputSpec",
    "Method",
    "Options",
    "Progress",
    "__version__",
    "build",
    "compile",
    "explain",
    "parse_input",
    "trace",
]

if TYPE_CHECKING:
    from .api.building import build, compile
    from .api.bundle import Bundle
    from .api.input_shapes import Input
    from .api.tracing import trace
    from .inputs import parse_input
    from .jit.explaining import explain
    from .options import InputSpec, Options
    from .report import BuildReport, Progress
    from .sources.methods import Method

_HOME = {
    "build": ("api.building", "build"),
    "compile": ("api.building", "compile"),
    "Bundle": ("api.bundle", "Bundle"),
    "Options": ("options", "Options"),
    "Input": ("api.input_shapes", "Input"),
    "InputSpec": ("options", "InputSpec"),
    "Method": ("sources.methods", "Method"),
    "trace": ("api.tracing", "trace"),
    "explain": ("jit.explaining", "explain"),
    "parse_input": ("inputs", "parse_input"),
    "BuildReport": ("report", "BuildReport"),
    "Progress": ("report", "Progress"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME[name]
    value = getattr(importlib.import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


offer()
