# SPDX-License-Identifier: Apache-2.0
"""What can go wrong while a bundle is built; the root of the tree is the runtime's."""

from __future__ import annotations

from trtpack_runtime.errors import CompileError, ConfigError, TrtpackError

__all__ = [
    "AccuracyError",
    "CalibrationError",
    "CaptureError",
    "CompileError",
    "ConfigError",
    "SourceError",
    "UnsupportedOpError",
]


class CaptureError(TrtpackError):
    """torch.export cannot capture the model; the message names the user's own line."""

    exit_code = 3


class SourceError(ConfigError):
    """A MODEL argument, its factory, weights or sample file that cannot be used."""


class CalibrationError(ConfigError):
    """Calibration data that cannot be used: none, of another shape, or with numbers that are not
    finite."""


class UnsupportedOpError(CompileError):
    """A node cannot become TensorRT and PyTorch fallback is off (``--strict``, or ``flag``)."""

    def __init__(self, op: str, where: str, reason: str, flag: str = "--strict") -> None:
        at = f" at {where}" if where else ""
        message = f"cannot convert {op}{at}: {reason}"
        super().__init__(message, hint=f"build without {flag}, or add a converter")
        self.op, self.where, self.reason = op, where, reason


class AccuracyError(CompileError):
    """A build is further from its model than its budget allows."""
