# SPDX-License-Identifier: Apache-2.0
"""What every kind of source answers, before weights and inputs are settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..options import InputSpec
from .methods import Method


@dataclass(frozen=True)
class Loaded:
    """A model as its source gives it.

    Example inputs are either tensors (``call``: args and kwargs) or ``inputs``, specs to draw them
    from. ``random`` says that the weights come from an initialiser, not from training. A model of
    several ``methods`` tells the inputs of each there.
    """

    name: str
    module: nn.Module
    call: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    inputs: tuple[InputSpec, ...] = ()
    dynamic_shapes: Any = None
    exported: torch.export.ExportedProgram | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    random: bool = False
    methods: Mapping[str, Method] = field(default_factory=dict)
