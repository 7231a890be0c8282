# SPDX-License-Identifier: Apache-2.0
"""What two timing caches do not agree on, tactic by tactic; their bytes are never compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .tactics import Tactics, check_same_key


@dataclass(frozen=True)
class Difference:
    """A tactic that two timing caches do not agree on; None where one has none for its key."""

    key: str
    layer: str | None
    first: Mapping[str, Any] | None
    second: Mapping[str, Any] | None

    def __str__(self) -> str:
        of = f" of {self.layer}" if self.layer else ""
        return f"{self.key}{of}: {_chosen(self.first)} became {_chosen(self.second)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        first, second = (None if e is None else dict(e) for e in (self.first, self.second))
        return {"key": self.key, "layer": self.layer, "first": first, "second": second}


def differences(first: Tactics, second: Tactics) -> list[Difference]:
    """Every key that two readable caches do not have the same tactic for.

    Times are not compared: one tactic takes another time at every measurement.

    Raises:
        ConfigError: one of them is opaque, so that only sizes could be compared.
    """
    by_key = []
    for tactics in (first, second):
        if tactics.entries is None:
            raise ConfigError(
                f"the tactics of {tactics.key} cannot be read: TensorRT tells them from 10.8 on, "
                f"and only the size of an older timing cache, {len(tactics.blob)} bytes, is known",
                hint="compare caches of TensorRT 10.8 or later",
            )
        by_key.append({entry["key"]: entry for entry in tactics.entries})
    found = []
    for key in sorted(by_key[0].keys() | by_key[1].keys()):
        a, b = by_key[0].get(key), by_key[1].get(key)
        if a is None or b is None or a["tactic"] != b["tactic"]:
            layer = (a or {}).get("layer") or (b or {}).get("layer")
            found.append(Difference(key, layer, a, b))
    return found


def compare(wanted: Tactics, built: Tactics) -> list[Difference]:
    """What a locked build did not keep: of every wanted key, the tactic. Bytes are not compared.

    Keys that only the build has are no difference. Empty where both are of one device and every
    wanted tactic stands.

    Raises:
        ConfigError: the caches are of two devices, or cannot be read.
    """
    check_same_key(wanted.key, built.key)
    return [d for d in differences(wanted, built) if d.first is not None]


def _chosen(entry: Mapping[str, Any] | None) -> str:
    return "none" if entry is None else str(entry["tactic"])
