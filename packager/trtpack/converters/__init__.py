# SPDX-License-Identifier: Apache-2.0
"""The converter library: one function per ATen operator, registered by family."""

from __future__ import annotations

import importlib
import pkgutil

from trtpack_runtime.network import Tensor

from . import registry
from .context import Context
from .plugins import plugin
from .refusals import Refused
from .registry import Converter, converter, registered

_NOT_FAMILIES = {
    "constants",
    "context",
    "extensions",
    "moves",
    "node",
    "plugins",
    "refusals",
    "refused",
    "region",
    "registry",
    "symbols",
}
_loaded = False


def find(op: object) -> Converter | None:
    """The converter of an operator overload, None if there is none; loads the library once.

    Raises:
        ConfigError: a converter registered by name does not fit the operator's schema, or an
            installed package's converters cannot be imported.
    """
    load()
    return registry.find(op)


def load() -> None:
    """Imports every converter family, which registers its converters, and installed packages'.

    Raises:
        ConfigError: an installed package's converters cannot be imported.
    """
    global _loaded
    if not _loaded:
        for module in pkgutil.iter_modules(__path__):
            if module.name not in _NOT_FAMILIES:
                importlib.import_module(f"{__name__}.{module.name}")
        from .extensions import load_installed

        load_installed()
        _loaded = True


def load_module(given: str) -> None:
    """Loads the library and a module of converters, ``my_module`` or ``path/to/file.py``.

    Raises:
        ConfigError: it is missing, raises, has no converter, or one for an operator that has one.
    """
    from . import extensions

    load()
    extensions.load_module(given)


__all__ = [
    "Context",
    "Converter",
    "Refused",
    "Tensor",
    "converter",
    "find",
    "load",
    "load_module",
    "plugin",
    "registered",
    "registry",
]
