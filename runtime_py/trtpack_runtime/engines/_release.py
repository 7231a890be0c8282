# SPDX-License-Identifier: Apache-2.0
"""Which TensorRT a module is, where its names alone do not tell."""

from __future__ import annotations

from typing import Any


def is_rtx(trt: Any) -> bool:
    """Whether this is TensorRT-RTX: it builds without a GPU and has no timing cache."""
    return hasattr(trt, "ComputeCapability")


def major(trt: Any) -> int:
    """The major release, such as 10."""
    return int(trt.__version__.split(".")[0])


def creation_flags(trt: Any, *, strong: bool) -> int:
    """Explicit batch and strong typing, by the names this release has: their numbers changed."""
    flags = trt.NetworkDefinitionCreationFlag
    wanted = ("EXPLICIT_BATCH", *(("STRONGLY_TYPED",) if strong else ()))
    return sum(1 << int(getattr(flags, name)) for name in wanted if hasattr(flags, name))
