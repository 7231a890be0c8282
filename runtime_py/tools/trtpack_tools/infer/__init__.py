# SPDX-License-Identifier: Apache-2.0
"""The type and shape every layer answers, as strict as strongly typed TensorRT.

>>> x = Tensor("x", "FLOAT", (dim("x", 0), 3))
>>> infer("unary", {"input": x}, {"op": "EXP"}) == [("FLOAT", x.shape)]
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from trtpack_runtime.errors import NetworkError
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Network, Tensor

from . import by_data, indexing, linear, plugins, pointwise, regions, spatial
from .arguments import check_attributes, check_operands, check_regions
from .rules import RULES, Mismatch, Results

__all__ = ["infer"]


def infer(
    kind: str,
    operands: Mapping[str, Tensor | Sequence[Tensor]],
    attributes: Mapping[str, Any],
    regions: Mapping[str, Network] = MappingProxyType({}),
) -> Results:
    """The ``(dtype, shape)`` of every output of one layer.

    Sizes are taken as equal where that cannot be decided; TensorRT checks those at run time.

    Raises:
        NetworkError: an unknown kind, or operands or attributes the kind does not take.
    """
    row = KINDS.get(kind)
    if row is None:
        raise NetworkError(f"kind {kind}: there is no such layer kind", hint=_HINT)
    try:
        check_operands(row, operands)
        check_attributes(row, attributes)
        check_regions(row, regions)
        return RULES[kind](**operands, **attributes, **regions)
    except Mismatch as problem:
        raise NetworkError(f"kind {kind}: {problem}", hint=_HINT) from None


_HINT = "keep the operator in PyTorch with --torch-op"
_FAMILIES = (by_data, indexing, linear, plugins, pointwise, regions, spatial)
