# SPDX-License-Identifier: Apache-2.0
"""A build farm's devices: each takes bundles from a Dask scheduler and answers their engines.

Whoever sends work is elsewhere (``trtpack build --farm``). Both sides exchange plain values, text
and bytes: bundles there, engines with their records back.
"""

from __future__ import annotations

__all__ = ["ABOUT", "TARGETS", "TOPIC"]

ABOUT = "trtpack"
"""Where a worker's registration has what it says of itself: JSON, ``serving.about``."""
TOPIC = "trtpack"
"""Dask's topic of what tasks tell while they run, with the run they belong to behind it."""
TARGETS = "trtpack.targets"
"""The entry-point group of what knows targets by name: facts -> those to build for there."""
