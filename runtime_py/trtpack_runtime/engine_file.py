# SPDX-License-Identifier: Apache-2.0
"""An engine that this machine built itself, as a mapped file in place of one of the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from .errors import BundleError
from .mapping import mapped


class OwnFile(Protocol):
    """An engine that this machine built itself, in place of one of the bundle."""

    @property
    def kind(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def record(self) -> Mapping[str, Any]: ...


class UnreadableEngineError(BundleError):
    """An engine that this machine built itself cannot be loaded; ``segment`` is whose it is."""

    def __init__(self, segment: str, cause: BundleError) -> None:
        super().__init__(f"segment {segment}: {cause.message}", hint=cause.hint)
        self.segment = segment


def own_blob(segment: str, own: OwnFile) -> memoryview:
    """The engine's file, mapped; it may be pruned from its store at any time.

    Raises:
        UnreadableEngineError: it is no longer there.
    """
    try:
        return mapped(own.path).toreadonly()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        cause = BundleError(f"cannot read {own.path}: {reason}", hint="run it again")
        raise UnreadableEngineError(segment, cause) from error
