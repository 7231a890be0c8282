# SPDX-License-Identifier: Apache-2.0
"""What operators, borders and segments cost on a target, and the division that costs least.

graph: work.py ─────┐   networks: kernels.py
target: machine.py ─┴→ predict.py: time of a division ─┐
levels.py: the fewest segments for a choice of nodes ──┴→ choose.py: the best that is found
"""

from __future__ import annotations

from .choose import Chosen, choose
from .kernels import kernels_of
from .levels import Step, levels
from .machine import Machine, machine_of
from .predict import By, CostModel, predict
from .work import Work, is_fusible, works

__all__ = [
    "By",
    "Chosen",
    "CostModel",
    "Machine",
    "Step",
    "Work",
    "choose",
    "is_fusible",
    "kernels_of",
    "levels",
    "machine_of",
    "predict",
    "works",
]
