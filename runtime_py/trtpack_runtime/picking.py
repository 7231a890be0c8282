# SPDX-License-Identifier: Apache-2.0
"""Which engine a segment runs on: one of the bundle, one of this machine's own, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .bundle import Bundle
from .engine_file import OwnFile, own_blob
from .ledger import carries_code
from .manifest import EngineRef
from .resolve import Choice


@dataclass(frozen=True)
class Picked:
    """An engine that is to be loaded. ``trust`` says that machine code in it may run."""

    segment: str
    kind: str
    record: Mapping[str, Any]
    trust: bool
    member: str | None = None
    own: OwnFile | None = None

    def nbytes(self, bundle: Bundle) -> int:
        """The size of its file; 0 where that is gone."""
        if self.own is None:
            assert self.member is not None
            return bundle.entries[self.member].size
        try:
            return self.own.path.stat().st_size
        except OSError:
            return 0

    def blob(self, bundle: Bundle) -> memoryview:
        """Its content, mapped.

        Raises:
            BundleError: the member is damaged; UnreadableEngineError where an own one is gone.
        """
        if self.own is not None:
            return own_blob(self.segment, self.own)
        assert self.member is not None
        return bundle.member(self.member)


def pick(
    choice: Choice,
    segment: str,
    ref: EngineRef | None,
    own: OwnFile | None = None,
    *,
    trust: bool = False,
) -> Picked | None:
    """The engine that fits a segment; None where PyTorch runs it."""
    if own is not None:
        return Picked(segment, own.kind, own.record, True, own=own)
    verdict = choice.chosen.engines.get(segment)
    if ref is None or ref.member is None or segment in choice.chosen.own:
        return None
    if verdict is None or not verdict.usable:
        return None
    # one that carries code is usable only where it is trusted
    return Picked(segment, ref.kind, ref.record, trust or carries_code(ref), member=ref.member)
