# SPDX-License-Identifier: Apache-2.0
"""What plugins answer, which only who adds one knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtpack_runtime.network import Tensor

from .rules import Results, rule


@rule
def plugin(
    inputs: Sequence[Tensor],
    plugin: str,
    version: str,
    results: Results,
    namespace: str = "",
    fields: Sequence[Any] = (),
    reference: str | None = None,
) -> Results:
    return [(dtype, tuple(shape)) for dtype, shape in results]
