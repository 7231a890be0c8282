# SPDX-License-Identifier: Apache-2.0
"""Makes the name ``trtpack`` known to ``torch.compile``.

An installed package is found by its entry point. From a source tree, ``import trtpack`` alone has
to do: it waits for PyTorch's registry of backends to be imported, since it imports no torch itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.abc import Loader

NAME = "trtpack"
REGISTRY = "torch._dynamo.backends.registry"


def trtpack(module: Any, example_inputs: Sequence[Any], **arguments: Any) -> Callable[..., Any]:
    """The backend (``backend.backend``), loaded when a graph is there to be compiled."""
    from .backend import backend

    return backend(module, example_inputs, **arguments)


def offer() -> None:
    """Registers the backend now where PyTorch's registry is there, else as soon as it is."""
    registry = sys.modules.get(REGISTRY)
    if registry is not None:
        _register(registry)
    else:
        sys.meta_path.insert(0, _Waiting())


def _register(registry: Any) -> None:
    if NAME not in registry._BACKENDS:  # else by its entry point, and a second time is an error
        registry.register_backend(trtpack, name=NAME)


class _Waiting:
    """Answers for the registry once, with a loader that registers after it has loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != REGISTRY:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)  # type: ignore[assignment]  # a loader by its methods
        return spec


class _Then:
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
