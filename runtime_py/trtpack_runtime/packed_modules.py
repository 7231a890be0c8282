# SPDX-License-Identifier: Apache-2.0
"""The runtime's modules out of one archive, in a wheel that a bundle brought.

Such a wheel has the package's ``__init__.py``, which calls ``add_modules``, this module, data, and
all other modules in ``modules.tar.gz``. They are imported as if that were unpacked beside itself,
into ``modules``, a folder that has only the bytecode that Python keeps there, where it may. Where
the wheel is not unpacked, the archive is read out of it. No other install imports this.

Source: the reference of ``importlib``, "Setting up an importer"; POSIX pax, "ustar Interchange
Format"; RFC 1952.
"""

from __future__ import annotations

import sys
import zlib
from importlib.machinery import ModuleSpec, SourceFileLoader

TYPE_CHECKING = False  # typing's own takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType
    from typing import Any

ARCHIVE = "modules.tar.gz"
_FOLDER = "modules"
_INIT = "__init__.py"
_GZIP = 16 + zlib.MAX_WBITS
_BLOCK = 512


def add_modules(package: ModuleSpec) -> None:
    """Has the modules of the archive beside a package's ``__init__.py`` found before all others."""
    modules = Modules(package)
    sys.path_hooks.insert(0, modules.finder)
    assert package.submodule_search_locations is not None
    package.submodule_search_locations.insert(0, modules.root)


def compile_all() -> None:
    """Compiles every module and keeps the bytecode, for starts that may not write it.

    Raises:
        OSError: it cannot be kept.
    """
    from importlib.util import cache_from_source
    from pathlib import Path

    package = sys.modules[__package__].__spec__
    assert package is not None
    modules = Modules(package)
    for path in modules.sources:
        Loader(path, path, modules.sources).get_code(path)  # bytecode knows no module's name
        if not Path(cache_from_source(path)).exists():
            raise OSError(
                f"cannot keep bytecode of {path}: its folder is not writable, or "
                "PYTHONDONTWRITEBYTECODE is set"
            )


class Modules:
    """What the archive holds; it is read when the first module is looked for.

    Attributes:
        root: the folder that the modules are said to be in.
    """

    def __init__(self, package: ModuleSpec) -> None:
        folder = str(package.origin).rpartition("/")[0]
        self._reader: Any = package.loader  # one of files or of a wheel
        self._archive = f"{folder}/{ARCHIVE}"
        self._sources: dict[str, bytes] = {}
        self.root = f"{folder}/{_FOLDER}"

    @property
    def sources(self) -> Mapping[str, bytes]:
        """Path of a module -> its source."""
        if not self._sources:
            content = zlib.decompress(self._reader.get_data(self._archive), _GZIP)
            self._sources = {f"{self.root}/{name}": data for name, data in _members(content)}
        return self._sources

    def finder(self, place: str) -> Finder:
        """An entry of ``sys.path_hooks``.

        Raises:
            ImportError: the place is not of the archive.
        """
        if not f"{place}/".startswith(f"{self.root}/"):
            raise ImportError(f"{place} is not in {self.root}")
        return Finder(self, place)


class Finder:
    """Finds the modules of one package, as entries of ``sys.path_importer_cache`` do."""

    def __init__(self, modules: Modules, place: str) -> None:
        self._modules, self._place = modules, place

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """The module of a name; None where the archive has none."""
        stem = f"{self._place}/{fullname.rpartition('.')[2]}"
        for path, inside in ((f"{stem}/{_INIT}", [stem]), (f"{stem}.py", None)):
            if path in self._modules.sources:
                loader = Loader(fullname, path, self._modules.sources)
                spec = ModuleSpec(fullname, loader, origin=path)
                spec.submodule_search_locations = inside
                spec.has_location = True
                return spec
        return None

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Names, and which are packages: for ``pkgutil.iter_modules``."""
        for path in self._modules.sources:
            folder, _, name = path.removesuffix(f"/{_INIT}").rpartition("/")
            if folder == self._place:
                yield prefix + name.removesuffix(".py"), not name.endswith(".py")


class Loader(SourceFileLoader):
    """Loads a module whose source is in the archive, and its bytecode from a file."""

    def __init__(self, fullname: str, path: str, sources: Mapping[str, bytes]) -> None:
        super().__init__(fullname, path)
        self._sources = sources

    def get_data(self, path: str) -> bytes:
        """A module's source, or what any other file holds."""
        source = self._sources.get(path)
        return super().get_data(path) if source is None else source

    def path_stats(self, path: str) -> dict[str, int]:
        """What bytecode has to be of: a checksum for the time, which is 1980 in every wheel."""
        source = self._sources[path]
        return {"mtime": zlib.crc32(source), "size": len(source)}


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a tar of files, without ``tarfile``, which takes long to import."""
    at = 0
    while archive[at]:
        name = archive[at : at + 100].rstrip(b"\0").decode()
        size = int(archive[at + 124 : at + 135], 8)
        at += _BLOCK
        yield name, archive[at : at + size]
        at += -(-size // _BLOCK) * _BLOCK
