# SPDX-License-Identifier: Apache-2.0
"""The converter library: one function per ATen operator, registered by family."""

from __future__ import annotations

import importlib
import pkgutil

from trtpack_runtime.errors import ConfigError

from . import registry
from .registry import Converter, converter, registered

_NOT_FAMILIES = {"registry", "context", "constants", "refusals", "symbols", "node"}
_loaded = False


def find(op: object) -> Converter | None:
    """The converter of an operator overload, None if there is none; loads the library once.

    Raises:
        ConfigError: a converter registered by name does not fit the operator's schema.
    """
    load()
    try:
        return registry.find(op)
    except ValueError as error:
        raise ConfigError(str(error), hint="give the converter the schema's arguments") from error


def load() -> None:
    """Imports every converter family, which registers its converters."""
    global _loaded
    if not _loaded:
        for module in pkgutil.iter_modules(__path__):
            if module.name not in _NOT_FAMILIES:
                importlib.import_module(f"{__name__}.{module.name}")
        _loaded = True


__all__ = ["Converter", "converter", "find", "load", "registered", "registry"]
