# SPDX-License-Identifier: Apache-2.0
"""Takes a PyTorch model to a device.

``trtpack.build(model, trtpack.Options(targets=("cpu",)))`` does what ``trtpack build`` does. Names
are imported when they are first used, so that ``import trtpack`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["BuildReport", "Input", "Options", "Progress", "__version__", "build", "parse_input"]

if TYPE_CHECKING:
    from .inputs import parse_input
    from .options import InputSpec as Input
    from .options import Options
    from .pipeline import build
    from .report import BuildReport, Progress

_HOME = {
    "build": ("pipeline", "build"),
    "Options": ("options", "Options"),
    "Input": ("options", "InputSpec"),
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
