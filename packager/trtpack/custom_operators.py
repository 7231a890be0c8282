# SPDX-License-Identifier: Apache-2.0
"""Which Python module a device has to import for a custom operator."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
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
    it is the one called like their namespace. A factory file counts as the module of its own name.
    """
    namespace, name, *_ = (*operator.split("."), "")
    if namespace in _BUILT_IN:
        return None
    definition = OPDEFS.get(f"{namespace}::{name}")
    module = namespace if definition is None else str(definition._init_fn.__module__)
    if module == "__main__":
        return Path(getattr(sys.modules[module], "__file__", None) or namespace).stem
    if module.startswith(_SOURCE_PREFIX):
        stem = module.removeprefix(_SOURCE_PREFIX)
        sys.modules.setdefault(stem, sys.modules[module])
        return stem
    return module
