# SPDX-License-Identifier: Apache-2.0
"""Sizes and ages as people write them."""

from __future__ import annotations

import re

from .errors import ConfigError

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def parse_bytes(text: str) -> int:
    """The bytes of ``500M`` or ``5GiB``.

    Raises:
        ConfigError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?", text)
    if match is None:
        raise ConfigError(f"bad size {text!r}", hint="write it as 500M or 5G")
    step = 1024 if match[3] else 1000
    return int(float(match[1]) * step ** " KMGT".index(match[2].upper() or " "))


def parse_seconds(text: str) -> float:
    """The seconds of ``12h`` or ``30d``.

    Raises:
        ConfigError: it is no age.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text)
    if match is None:
        raise ConfigError(f"bad age {text!r}", hint="write it as 12h, 30d or 8w")
    return float(match[1]) * _AGES[match[2]]
