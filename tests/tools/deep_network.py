# SPDX-License-Identifier: Apache-2.0
"""A network of several blocks, what goes into it, and what it should compute."""

from __future__ import annotations

import torch

from tests.runtime import planned
from trtpack_runtime.network import Network
from trtpack_tools.accuracy import Expected

NETWORK, STORED = planned.deep("FLOAT")
X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
INPUTS = {"x": X}


def expected(network: Network = NETWORK) -> Expected:
    return Expected(network, STORED, INPUTS)
