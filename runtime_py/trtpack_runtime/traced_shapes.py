# SPDX-License-Identifier: Apache-2.0
"""Types and shapes of what a part of a bundle answers, for tracing: tensors without values, whose
sizes may be symbols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import aten, dims, network
from .bundle import Bundle
from .dtypes import DTYPES, by_safetensors
from .input_check import check_type
from .input_shapes import check_count, check_rank
from .manifest import Method
from .segments import every_segment


def method_outputs(
    method: Method, inputs: Sequence[torch.Tensor], device: torch.device
) -> list[torch.Tensor]:
    """The outputs of a method; sizes that only the data tells are symbols of their own.

    Raises:
        InputMismatchError: an input of another type or rank. Sizes are compared when it runs.
    """
    check_count(method.inputs, len(inputs))
    for spec, value in zip(method.inputs, inputs, strict=True):
        check_type(spec, value)
        check_rank(spec, value.shape)
    named = {spec.name: x for spec, x in zip(method.inputs, inputs, strict=True)}
    return [_empty(spec.shape, spec.dtype, named, device) for spec in method.outputs]


def segment_outputs(
    bundle: Bundle,
    variant: str,
    name: str,
    inputs: Sequence[torch.Tensor],
    device: torch.device,
) -> list[torch.Tensor]:
    """The outputs of a segment: by its network's sizes, or by its graph on tensors without
    values."""
    found = next(f for f in every_segment(bundle, variant) if f.name == name)
    if found.network is not None:
        return _network_outputs(found.network, inputs, device)
    assert found.segment.graph is not None
    stored = _Shapeless(bundle, device)
    return list(aten.decode(found.segment.graph, stored, device)(*inputs))


def _network_outputs(
    portable: network.Network, inputs: Sequence[torch.Tensor], device: torch.device
) -> list[torch.Tensor]:
    named = {spec.name: x for spec, x in zip(portable.inputs, inputs, strict=True)}
    answers = []
    for name in portable.outputs:
        tensor = portable.tensors[name]
        given = named.keys()
        shape = tuple(
            size if all(of in given for of, _ in dims.atoms(size)) else None
            for size in tensor.shape
        )
        answers.append(_empty(shape, tensor.dtype, named, device))
    return answers


def _empty(
    shape: Sequence[dims.Dim | None],
    dtype: str,
    inputs: Mapping[str, torch.Tensor],
    device: torch.device,
) -> torch.Tensor:
    sizes = [
        torch.library.get_ctx().new_dynamic_size()
        if size is None
        else dims.evaluate(size, lambda name, axis: inputs[name].shape[axis])
        for size in shape
    ]
    return torch.empty(sizes, dtype=getattr(torch, DTYPES[dtype].torch), device=device)


class _Shapeless(Mapping[str, torch.Tensor]):
    """The stored tensors without their values."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self._views, self._device = bundle.weights, device

    def __getitem__(self, name: str) -> torch.Tensor:
        view = self._views[name]
        dtype = getattr(torch, by_safetensors(view.dtype).torch)
        return torch.empty(view.shape, dtype=dtype, device=self._device)

    def __iter__(self) -> Any:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)
