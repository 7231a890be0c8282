# SPDX-License-Identifier: Apache-2.0
"""A cache of built engines, addressed by everything an engine depends on.

It is never required: where the disk is full or read-only an engine is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CachedEngine:
    """An engine file with its compatibility record, and when it was built (seconds, epoch)."""

    path: Path
    record: Mapping[str, Any]
    built_at: float


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/trtpack/engines``, by default below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "trtpack" / "engines"


def cache_key(parts: Mapping[str, Any]) -> str:
    """The sha256 of what an engine depends on, as canonical JSON, in hex."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class EngineCache:
    """Engines in a folder: ``<key>.engine`` with ``<key>.json`` beside it, written atomically."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def get(self, key: str) -> CachedEngine | None:
        """The engine of a key, None where there is none or it cannot be read."""
        path, record = self._paths(key)
        try:
            kept = json.loads(record.read_text())
            if path.stat().st_size != kept["size"]:
                return None
            return CachedEngine(path, kept["record"], kept["built_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, engine: Path, record: Mapping[str, Any]) -> None:
        """Keeps a copy of an engine file; a disk that refuses is not an error."""
        path, beside = self._paths(key)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(path, engine)
            kept = {"record": dict(record), "size": engine.stat().st_size, "built_at": time.time()}
            self._write(beside, json.dumps(kept, sort_keys=True).encode())

    def _paths(self, key: str) -> tuple[Path, Path]:
        return self.folder / f"{key}.engine", self.folder / f"{key}.json"

    def _write(self, path: Path, content: Path | bytes) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
