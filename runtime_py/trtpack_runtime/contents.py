# SPDX-License-Identifier: Apache-2.0
"""What a bundle's members may hold: data, AOTInductor packages, and wheels that nobody imports."""

from __future__ import annotations

PACKAGE_SUFFIX = ".pt2"
"""The members that are zip archives, with machine code in them."""

WHEELS, WHEEL_SUFFIX = "runtime/", ".whl"
"""The members that are wheels, zip archives too: for people to install, never read by a runtime."""

HEAD_BYTES = 9
_ZIP = (b"PK\3\4", b"PK\5\6")
_PICKLE = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))


def refused(name: str, head: bytes, last: bytes) -> str | None:
    """Why a member may not begin with ``head`` (``HEAD_BYTES``) and end with this byte, or None.

    A pickle ends with its opcode STOP. A safetensors file of an unlucky length begins like one, but
    its ninth byte opens a JSON object.
    """
    if name.endswith(PACKAGE_SUFFIX) or (name.startswith(WHEELS) and name.endswith(WHEEL_SUFFIX)):
        return None
    if head.startswith(_ZIP):
        return "is a zip archive"
    if head.startswith(_PICKLE) and last == b"." and head[8:9] != b"{":
        return "is a pickle"
    return None
