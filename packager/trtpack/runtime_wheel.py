# SPDX-License-Identifier: Apache-2.0
"""Wheels of what is installed here, for a device that has no network at its first install.

The bundle gets ``trtpack-runtime`` and ``click``, the one thing it needs that devices lack; both
are Python only. The same files give the same bytes.

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
from .packed_runtime import packed

FOLDER = "runtime"
"""Where the wheels are in a bundle."""

_RUNTIME = "trtpack_runtime"
_CARRIED = {"trtpack-runtime": _RUNTIME, "click": "click"}
"""Distribution -> its package."""

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
    code = _code(name, package)
    files = packed(code) if package == _RUNTIME else code
    about = f"{stem}.dist-info"
    listed = {f"{package}/{name}": data for name, data in files.items()} | _about(found, about)
    return Member(f"{FOLDER}/{stem}-py3-none-any.whl", _zipped(listed, f"{about}/RECORD"))


def _code(name: str, package: str) -> dict[str, bytes]:
    """The package's files, by name in it."""
    spec = util.find_spec(package)
    root = Path(spec.origin).parent if spec is not None and spec.origin else Path(package)
    paths = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    compiled = [path.name for path in paths if path.suffix in (".so", ".pyd")]
    if compiled or root / "__init__.py" not in paths:
        why = f"it has compiled code, {compiled[0]}" if compiled else "its files are not found"
        raise ConfigError(
            f"cannot put {name} into the bundle: {why}",
            hint="install it from a wheel that is Python only, or build without --with-runtime",
        )
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


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


def _zipped(files: Mapping[str, bytes], record: str) -> bytes:
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
