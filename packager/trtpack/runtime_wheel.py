# SPDX-License-Identifier: Apache-2.0
"""Wheels of what is installed here, for a device that has no network at its first install.

The bundle gets ``trtpack-runtime`` and ``click``, the one thing it needs that devices lack; both
are Python only. The same files give the same bytes. Of the runtime's modules only what runs is in
its wheel, and the commands' help: a device has no room for the rest.

Source: PyPA specifications, "Binary distribution format" and "Recording installed projects".
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata, util
from pathlib import Path

from trtpack_runtime.archive_writer import Member

from .errors import ConfigError
from .slim_source import slim

FOLDER = "runtime"
"""Where the wheels are in a bundle."""

_CARRIED = {"trtpack-runtime": "trtpack_runtime", "click": "click"}
"""Distribution -> its package."""

_HELP = "cli"
"""The folder of the runtime's modules whose docstrings are the commands' help."""

_KEPT = ("METADATA", "entry_points.txt", "licenses/")
_BEGINNING = (1980, 1, 1, 0, 0, 0)
_WHEEL = "Wheel-Version: 1.0\nGenerator: trtpack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def runtime_members() -> list[Member]:
    """The bundle's members with the wheels.

    Raises:
        ConfigError: a distribution is not installed here as plain files.
    """
    return [wheel(name, package) for name, package in sorted(_CARRIED.items())]


def wheel(name: str, package: str) -> Member:
    """The wheel of an installed distribution that has one package and no compiled code.

    Raises:
        ConfigError: it is not installed as plain files, or has compiled code.
    """
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise ConfigError(
            f"cannot put {name} into the bundle: it is not installed here",
            hint=f"install it: pip install {name}",
        ) from error
    stem = f"{name.replace('-', '_')}-{found.version}"
    files = {**_code(name, package), **_about(found, f"{stem}.dist-info")}
    return Member(f"{FOLDER}/{stem}-py3-none-any.whl", _packed(files, f"{stem}.dist-info/RECORD"))


def _code(name: str, package: str) -> dict[str, bytes]:
    spec = util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    root = Path(folders[0]) if folders else Path(package)
    paths = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    compiled = [path.name for path in paths if path.suffix in (".so", ".pyd")]
    if compiled or root / "__init__.py" not in paths:
        why = f"it has compiled code, {compiled[0]}" if compiled else "its files are not found"
        raise ConfigError(
            f"cannot put {name} into the bundle: {why}",
            hint="install it from a wheel that is Python only, or build without --with-runtime",
        )
    names = {path.relative_to(root).as_posix(): path for path in paths}
    return {f"{package}/{name}": _content(package, name, path) for name, path in names.items()}


def _content(package: str, name: str, path: Path) -> bytes:
    """A file of the package; of a module of the runtime what a device needs."""
    data = path.read_bytes()
    ours = package == _CARRIED["trtpack-runtime"] and path.suffix == ".py"
    return data if not ours or name.startswith(f"{_HELP}/") else slim(data.decode()).encode()


def _about(found: metadata.Distribution, folder: str) -> dict[str, bytes]:
    """The files beside the code that pip reads."""
    files = {f"{folder}/WHEEL": _WHEEL.encode()}
    for name, path in _metadata_files(found):
        if name.startswith(_KEPT):
            files[f"{folder}/{name}"] = path.read_bytes()
    return files


def _metadata_files(found: metadata.Distribution) -> Iterator[tuple[str, Path]]:
    for file in found.files or ():
        folder, _, name = file.as_posix().partition(".dist-info/")
        if name and "/" not in folder:
            yield name, Path(str(found.locate_file(file)))


def _packed(files: Mapping[str, bytes], record: str) -> bytes:
    lines = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(files.items())]
    listed = {**dict(sorted(files.items())), record: "".join([*lines, f"{record},,\n"]).encode()}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in listed.items():  # a wheel's own record comes last
            info = zipfile.ZipInfo(name, _BEGINNING)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED, compresslevel=9)
    return target.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
