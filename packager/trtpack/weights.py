# SPDX-License-Identifier: Apache-2.0
"""Collects what a bundle stores once for all targets: parameters and derived constants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trtpack_runtime.dtypes import by_torch


class WeightStore:
    """Named tensors, each content once.

    Tensors of equal bytes, type and shape that follow from the same share one stored name (tied
    weights, tables). Others of equal bytes have names of their own in ``same``, since new weights
    may differ: biases of zeros, a mask per layer. Tensors are referenced, never copied.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._by_content: dict[tuple[str, str, str, tuple[int, ...]], str] = {}
        self._by_bytes: dict[tuple[str, str, str], str] = {}
        self._alike: dict[tuple[str, str, tuple[int, ...] | None], str] = {}
        self._same: dict[str, str] = {}
        self._by_memory: dict[tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]], str] = {}
        self._digests: dict[str, str] = {}

    def put(
        self, name: str, tensor: torch.Tensor, *, any_shape: bool = False, follows: str = ""
    ) -> str:
        """Stores a tensor and answers the name it is stored under.

        With ``any_shape`` equal bytes will do: a network's constant is a view of what is stored.
        ``follows`` is what its value follows from: a weight's name or a recipe; of a table nothing.
        """
        tensor = tensor.detach()
        memory = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and memory in self._by_memory:
            return self._by_memory[memory]
        digest = content_digest(tensor)
        raw, shape = (digest, str(tensor.dtype), follows), tuple(tensor.shape)
        stored = self._by_content.get((*raw, shape))
        if stored is None and any_shape:
            stored = self._by_bytes.get(raw)
        if stored is not None:
            return stored
        stored = self._unique(name)
        alike = self._alike.get((*raw[:2], shape))
        if alike is None and any_shape:
            alike = self._alike.get((*raw[:2], None))
        if alike is None:
            self._alike[*raw[:2], shape] = stored
            self._alike.setdefault((*raw[:2], None), stored)
        else:
            self._same[stored] = alike
            tensor = tensor if tensor.shape == self._tensors[alike].shape else self._tensors[alike]
        self._tensors[stored] = tensor
        self._by_content[*raw, tuple(tensor.shape)] = stored
        self._by_bytes.setdefault(raw, stored)
        self._digests[stored] = digest
        if tuple(tensor.shape) == shape:
            self._by_memory[memory] = stored  # the store keeps it, so its address stays its own
        return stored

    def digest(self, stored: str) -> str:
        """The sha256 of a stored tensor's bytes, in hex."""
        return self._digests[stored]

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Stored name and tensor of each content, in the order they were put."""
        yield from ((n, tensor) for n, tensor in self._tensors.items() if n not in self._same)

    def every(self) -> Mapping[str, torch.Tensor]:
        """The tensor of each stored name, those without bytes of their own too."""
        return dict(self._tensors)

    @property
    def same(self) -> Mapping[str, str]:
        """Stored names of tensors that have no bytes of their own -> the name that has them."""
        return dict(self._same)

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(t.numel() * t.element_size() for _, t in self.items())

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self._tensors:
            n += 1
            candidate = f"{name}.{n}"
        return candidate


@dataclass(frozen=True)
class StoredTensor:
    """A tensor on its way into a safetensors file; its memory is read when its turn comes."""

    name: str
    tensor: torch.Tensor

    @property
    def dtype(self) -> str:
        """safetensors' name of its type."""
        return safetensors_dtype(self.tensor)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @property
    def buffer(self) -> memoryview:
        """Its bytes in row-major order."""
        return raw_bytes(self.tensor)


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """A contiguous tensor's memory, as bytes and without a copy."""
    return memoryview(_flat_bytes(tensor).numpy())  # type: ignore[arg-type]  # ndarrays are buffers


def _flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's elements as bytes; an expanded one of one element is contiguous with stride 0."""
    whole = tensor.detach().contiguous()
    return whole.as_strided((whole.numel(),), (1,)).view(torch.uint8)


def content_digest(tensor: torch.Tensor) -> str:
    """The sha256 of a tensor's bytes in row-major order, in hex."""
    return hashlib.sha256(raw_bytes(tensor)).hexdigest()


def safetensors_dtype(tensor: torch.Tensor) -> str:
    """The tensor's type as safetensors writes it, such as ``"F16"``."""
    return by_torch(tensor.dtype).safetensors


def renamed_constants(value: Any, names: Mapping[str, str]) -> Any:
    """JSON with every ``{"constant": name}`` written with its stored name."""
    if isinstance(value, list | tuple):
        return [renamed_constants(v, names) for v in value]
    if isinstance(value, dict):
        if set(value) == {"constant"} and isinstance(value["constant"], str):
            return {"constant": names.get(value["constant"], value["constant"])}
        return {k: renamed_constants(v, names) for k, v in value.items()}
    return value
