# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while a bundle is built; the root of the tree is the runtime's."""

from __future__ import annotations

from trtpack_runtime.errors import CompileError, ConfigError, TrtpackError

__all__ = ["CaptureError", "CompileError", "ConfigError", "SourceError", "UnsupportedOpError"]


class CaptureError(TrtpackError):
    """torch.export cannot capture the model; the message names the user's own line."""

    exit_code = 3


class SourceError(ConfigError):
    """A MODEL argument, its factory, weights or sample file that cannot be used."""


class UnsupportedOpError(CompileError):
    """A node cannot become TensorRT and PyTorch fallback is off (``--strict``)."""

    def __init__(self, op: str, where: str, reason: str) -> None:
        at = f" at {where}" if where else ""
        message = f"cannot convert {op}{at}: {reason}"
        super().__init__(message, hint="build without --strict, or add a converter")
        self.op, self.where, self.reason = op, where, reason
