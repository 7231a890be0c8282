# SPDX-License-Identifier: Apache-2.0
"""Runs bundles on TensorRT without torch."""

from __future__ import annotations

from .arrays import DeviceArray
from .session import Session
from .staging import SessionFuture

__all__ = ["DeviceArray", "Session", "SessionFuture"]
