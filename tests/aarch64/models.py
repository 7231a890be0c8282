# SPDX-License-Identifier: Apache-2.0
"""The bundles that go to the emulated machine: ``python -m tests.aarch64.models MODEL FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

import trtpack
from tests.aarch64 import KEPT_IN_PYTORCH
from tests.zoo import MODELS
from trtpack.livening import liven


def build(name: str, path: Path) -> None:
    """The model for the CPU of this machine and for Orin, whose engines only it can build."""
    module, args, _ = MODELS[name]()
    liven(module, args, seed=0)
    options = trtpack.Options(
        targets=("cpu", "orin"),
        output=path,
        torch_ops=KEPT_IN_PYTORCH[name],
        min_block_size=1,
    )
    trtpack.build((module, args), options=options)


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]))
