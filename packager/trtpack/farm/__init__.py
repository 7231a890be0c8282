# SPDX-License-Identifier: Apache-2.0
"""Builds all cells of a matrix: here in processes, engines on the workers of a farm."""

from __future__ import annotations

from .cells import Settings, build_matrix
from .report import CellResult, EngineResult, MatrixReport
from .view import View

__all__ = ["CellResult", "EngineResult", "MatrixReport", "Settings", "View", "build_matrix"]
