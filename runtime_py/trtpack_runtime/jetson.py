# SPDX-License-Identifier: Apache-2.0
"""What kind of Jetson this is, its JetPack and its power mode.

``/etc/nv_tegra_release`` begins ``# R36 (release), REVISION: 4.3, ...`` for L4T 36.4.3.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

JETPACKS = {
    "35.2.1": "5.1", "35.3.1": "5.1.1", "35.4.1": "5.1.2", "35.5.0": "5.1.3", "35.6.0": "5.1.4",
    "35.6.1": "5.1.5", "35.6.4": "5.1.6", "35.6.5": "5.1.7", "36.3.0": "6.0", "36.4.0": "6.1",
    "36.4.3": "6.2", "36.4.4": "6.2.1", "36.4.7": "6.2.1", "36.5.0": "6.2.2", "38.2.0": "7.0",
    "38.2.1": "7.0", "38.2.2": "7.0", "38.4.0": "7.1", "39.2.0": "7.2", "39.2.1": "7.2.1",
}  # fmt: skip
"""L4T release -> JetPack: github.com/rbonghi/jetson_stats (jetson_variables.py); 35.6.5 and 38.2.x
github.com/anduril/jetpack-nixos; 39.2.1 from notes that quote NVIDIA's JetPack archive."""

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_MODULE = re.compile(r"\bp\d{4}-\d{4}\b")
_MODE = re.compile(r"pmode:0*(\d+)")
_MODES = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")


@dataclass(frozen=True)
class Jetson:
    """A Jetson. ``model`` is the device tree's name, ``module`` its part number ("p3701-0005")."""

    model: str | None
    module: str | None
    l4t: str
    jetpack: str | None
    power_mode: str | None


def jetson(root: Path = Path("/")) -> Jetson | None:
    """This machine as a Jetson, None where it is not one."""
    match = _RELEASE.search(_text(root / "etc/nv_tegra_release"))
    if match is None:
        return None
    l4t = f"{match[1]}.{match[2]}"
    boards = _MODULE.findall(_text(root / "proc/device-tree/compatible"))
    return Jetson(
        model=_text(root / "proc/device-tree/model").strip("\0\n ") or None,
        module=boards[-1] if boards else None,  # its carrier stands before it
        l4t=l4t,
        jetpack=JETPACKS.get(l4t),
        power_mode=power_mode(root),
    )


def power_mode(root: Path = Path("/")) -> str | None:
    """The name of the mode that ``nvpmodel`` has set, ``MAXN`` or ``MODE_30W``.

    From the files in which ``nvpmodel`` keeps it, else of itself.
    """
    mode = _MODE.search(_text(root / "var/lib/nvpmodel/status"))
    named = dict(_MODES.findall(_text(root / "etc/nvpmodel.conf")))
    return named.get(mode[1]) if mode and mode[1] in named else _asked_of_nvpmodel()


def _asked_of_nvpmodel() -> str | None:
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"NV Power Mode: *(\S+)", done.stdout)
    return match[1] if match else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
