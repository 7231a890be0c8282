# SPDX-License-Identifier: Apache-2.0
"""Loads and runs trtpack bundles.

    >>> import trtpack_runtime
    >>> model = trtpack_runtime.load("bundle.tar")  # a torch.nn.Module
    >>> session = trtpack_runtime.Session("bundle.tar")  # numpy in and out, without torch
    >>> bundle = trtpack_runtime.open_bundle("bundle.tar")  # what is in it

Nothing is imported until it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from .bundle import open_bundle
    from .loading import load
    from .pool import Pool
    from .reference import evaluate
    from .session import Session

__version__ = "0.1.0"
__all__ = ["Pool", "Session", "__version__", "evaluate", "load", "open_bundle"]

_HOME = {
    "Pool": "pool",
    "Session": "session",
    "evaluate": "reference",
    "load": "loading",
    "open_bundle": "bundle",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
