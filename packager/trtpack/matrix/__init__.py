# SPDX-License-Identifier: Apache-2.0
"""Many models for many targets: which cells there are, which can be, and which must run again."""

from __future__ import annotations

from .cells import Cell, Plan, plan_cells
from .file import Flags, Matrix, read_matrix
from .formats import FORMATS, to_github, to_gitlab, to_json, to_text
from .results import Verdict, judge, judge_builds, read_previous

__all__ = [
    "Cell",
    "Plan",
    "plan_cells",
    "Flags",
    "Matrix",
    "read_matrix",
    "FORMATS",
    "to_github",
    "to_gitlab",
    "to_json",
    "to_text",
    "Verdict",
    "judge",
    "judge_builds",
    "read_previous",
]
