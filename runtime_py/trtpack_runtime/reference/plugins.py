# SPDX-License-Identifier: Apache-2.0
"""Plugins, by the operator that is said to compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtpack_runtime.errors import ConfigError

from .registry import kernel


@kernel
def plugin(
    inputs: Sequence[torch.Tensor],
    plugin: str,
    version: str,
    results: Sequence[Any],
    namespace: str = "",
    fields: Sequence[tuple[str, Any]] = (),
    reference: str | None = None,
) -> Any:
    if reference is None:
        raise ConfigError(
            f"only TensorRT can compute the plugin {plugin} {version}, which names no reference",
            hint="name the operator that computes the same where the plugin is added",
        )
    library, _, rest = reference.partition("::")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops, library), packet, None)
    operator = getattr(found, overload or "default", None)
    if operator is None:
        raise ConfigError(
            f"no imported module defines {reference}, the reference of the plugin {plugin}",
            hint="import the module that defines it, on a device with --import MODULE",
        )
    return operator(*inputs, **dict(fields))
