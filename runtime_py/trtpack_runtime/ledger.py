# SPDX-License-Identifier: Apache-2.0
"""Which code this machine built itself: digests of bundle members that hold machine code.

Such members are loaded only where they were built, or when a user says so. The ledger is a file in
the user's data folder, replaced atomically under a lock. Where that folder cannot be written,
nothing is remembered and nothing is trusted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic import replaced
from .bundle import open_bundle
from .engines import CARRIES_CODE
from .manifest import EngineRef, Manifest

_KEPT = 4096
"""The oldest digests beyond so many are forgotten."""


def default_path() -> Path:
    """``$XDG_DATA_HOME/trtpack/built.json``, by default below ``~/.local/share``."""
    root = os.environ.get("XDG_DATA_HOME")
    folder = Path(root) if root else Path(os.path.expanduser("~")) / ".local" / "share"  # noqa: PTH111 never raises
    return folder / "trtpack" / "built.json"


def record(what: Path | Iterable[str], path: Path | None = None) -> bool:
    """Remembers digests as built here; of a bundle, those of its members that carry code.

    Answers whether they could be written down.

    Raises:
        BundleError: a bundle that cannot be opened.
    """
    if isinstance(what, Path):
        bundle = open_bundle(what)
        digests = [bundle.entries[name].sha256 for name in code_members(bundle.manifest)]
    else:
        digests = list(what)
    if not digests:
        return True
    path = path or default_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(path):
            kept = [digest for digest in _read(path) if digest not in digests]
            with replaced(path) as file:
                text = json.dumps({"built": [*kept, *digests][-_KEPT:]}, indent=1)
                file.write(text.encode() + b"\n")
    except OSError:
        return False
    return True


def carries_code(engine: EngineRef) -> bool:
    """Whether an engine holds machine code for the host, after what the manifest says of it.

    A version-compatible plan does: the part of TensorRT that runs it.
    """
    options = engine.record.get("options")
    compatible = isinstance(options, Mapping) and bool(options.get("version_compatible"))
    return engine.kind in CARRIES_CODE or compatible


def code_members(manifest: Manifest) -> list[str]:
    """The members that hold machine code."""
    engines = [e for v in manifest.variants.values() for e in v.engines.values()]
    return sorted({e.member for e in engines if e.member is not None and carries_code(e)})


def trusted(digest: str, path: Path | None = None) -> bool:
    """Whether this machine built the member with this sha256 (in hex)."""
    return digest in _read(path or default_path())


def _read(path: Path) -> list[str]:
    """The digests, oldest first; none where the file is absent, damaged or someone else's."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid not in (os.getuid(), 0):
                return []
            found = json.loads(file.read())["built"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [d for d in found if isinstance(d, str)] if isinstance(found, list) else []


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock beside ``path``; without one where the system has no locks."""
    with path.with_suffix(".lock").open("ab") as lock:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
