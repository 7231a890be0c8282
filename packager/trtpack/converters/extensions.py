# SPDX-License-Identifier: Apache-2.0
"""Converters of other packages: modules that register some when they are imported.

An installed package names its module in the entry-point group ``trtpack.converters``;
``--converters`` names one for a single build.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from trtpack.sources.factory import import_file, raised
from trtpack_runtime.errors import ConfigError

from . import registry

GROUP = "trtpack.converters"
_loaded: set[str] = set()


def load_installed() -> None:
    """Imports the modules that installed packages name in the group ``trtpack.converters``.

    Raises:
        ConfigError: one cannot be imported; it is named.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        package = f" of {point.dist.name}" if point.dist else ""
        _load(
            point.value,
            f"entry point {point.name!r} ({point.value}){package}",
            partial(importlib.import_module, point.value),
            "correct or uninstall that package",
        )


def load_module(given: str) -> None:
    """Imports a module of converters, ``my_module`` or ``path/to/file.py``, once.

    Raises:
        ConfigError: it is missing, raises, has no converter, or one for an operator that has one.
    """
    is_file = given.endswith(".py")
    _load(
        str(Path(given).resolve()) if is_file else given,
        f"--converters {given}",
        lambda: _from_file(Path(given)) if is_file else _from_package(given),
        "correct the module given to --converters",
    )


def _load(key: str, what: str, imported: Callable[[], ModuleType], hint: str) -> None:
    if key in _loaded:
        return
    with registry.undone_on_error():
        try:
            module = imported()
        except (registry.ConverterError, ConfigError) as error:
            raise ConfigError(f"{what}: {error}", hint=hint) from error
        except (Exception, SystemExit) as error:
            raise ConfigError(str(raised(error, f"{what}: importing it")), hint=hint) from error
        if not any(_is_of(module.__name__, c.function) for c in registry.registered()):
            raise ConfigError(
                f"{what}: it registers no converter",
                hint="decorate a function with trtpack.converters.converter",
            )
    _loaded.add(key)


def _is_of(module: str, function: Callable[..., object]) -> bool:
    return function.__module__ == module or function.__module__.startswith(f"{module}.")


def _from_package(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            problem = f"there is no Python module {name}"
            raise ConfigError(problem, hint="install it, or give a file.py") from error
        raise


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path")
    return import_file(path)
