# SPDX-License-Identifier: Apache-2.0
"""Which Python module a device has to import for a custom operator."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch._library.custom_ops import OPDEFS

from .aten_encoding import operators

_BUILT_IN = frozenset({"aten", "prims", "prim", "sym", "getitem"})
_SOURCE_PREFIX = "_trtpack_source_"


def required_modules(graph: Mapping[str, Any]) -> list[str]:
    """The modules a stored ATen graph needs, sorted."""
    found = {providing_module(operator) for operator in operators(graph)}
    return sorted(name for name in found if name is not None)


def providing_module(operator: str) -> str | None:
    """The module that registers ``namespace.name.overload``; None for PyTorch's own operators.

    An operator made with ``torch.library.custom_op`` names the module that defines it; for others
    it is the one called like their namespace. So it is where no module can be imported: in an
    interactive session, or a file whose name is none of Python's. A script and a factory file count
    as the modules of their own names, and as imported.
    """
    namespace, name, *_ = (*operator.split("."), "")
    if namespace in _BUILT_IN:
        return None
    definition = OPDEFS.get(f"{namespace}::{name}")
    module = namespace if definition is None else str(definition._init_fn.__module__)
    if module == "__main__" or module.startswith(_SOURCE_PREFIX):
        return _importable(sys.modules[module], namespace)
    return module


def _importable(module: ModuleType, namespace: str) -> str:
    spec = module.__spec__
    name = spec.name if spec is not None else Path(getattr(module, "__file__", None) or "").stem
    name = name.removeprefix(_SOURCE_PREFIX)
    if not all(map(str.isidentifier, name.split("."))):
        name = namespace
        if name not in sys.modules and find_spec(name) is not None:
            return name
    sys.modules.setdefault(name, module)
    return name
