# SPDX-License-Identifier: Apache-2.0
"""What a further engine of a segment is built with: the options of its own, and known tactics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtpack_runtime.bundle import Bundle
from trtpack_runtime.device_tactics import known_tactics
from trtpack_runtime.engines._options import BuildOptions
from trtpack_runtime.manifest import EngineRef
from trtpack_runtime.tactics import TacticStore


def build_options(ref: EngineRef) -> BuildOptions:
    """The options an engine was built with, else those it shall be built with."""
    given = {**ref.options, **(ref.record.get("options") or {})}
    capabilities = ref.record.get("compute_capabilities")
    if capabilities:
        given["compute_capabilities"] = capabilities
    return BuildOptions.from_json(given)


def seed_tactics(bundle: Bundle, variant: str, kind: str, facts: Mapping[str, Any]) -> bytes | None:
    """What is known of this device's tactics, to begin a build with."""
    caches = bundle.manifest.variants[variant].caches
    known = known_tactics(bundle, caches, kind, facts, TacticStore())
    return known[0].blob if known else None
