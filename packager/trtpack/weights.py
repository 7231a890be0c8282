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

    Tensors of equal bytes, type and shape share one stored name (tied weights, a mask per layer).
    Of those with one value everywhere, such as biases of zeros, only tables and what follows from
    the same weights do: others are equal by chance, and new weights may differ. Tensors are
    referenced, never copied.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._by_content: dict[tuple[str, str, str, tuple[int, ...]], str] = {}
        self._by_bytes: dict[tuple[str, str, str], str] = {}
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
        raw = (digest, str(tensor.dtype), follows if _is_uniform(tensor) else "")
        content = (*raw, tuple(tensor.shape))
        stored = self._by_content.get(content)
        if stored is None and any_shape:
            stored = self._by_bytes.get(raw)
        if stored is None:
            stored = self._unique(name)
            self._tensors[stored] = tensor
            self._by_content[content] = stored
            self._by_bytes.setdefault(raw, stored)
            self._digests[stored] = digest
            self._by_memory[memory] = stored  # the store keeps it, so its address stays its own
        return stored

    def digest(self, stored: str) -> str:
        """The sha256 of a stored tensor's bytes, in hex."""
        return self._digests[stored]

    def items(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Stored name and tensor, in the order they were put."""
        yield from self._tensors.items()

    @property
    def nbytes(self) -> int:
        """Bytes of all stored tensors."""
        return sum(t.numel() * t.element_size() for t in self._tensors.values())

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


def _is_uniform(tensor: torch.Tensor) -> bool:
    """Whether all elements have the same bytes."""
    if not tensor.numel():
        return True
    flat = _flat_bytes(tensor).view(tensor.numel(), -1)
    first = flat[0]
    return torch.equal(first, flat[-1]) and bool((flat == first).all())


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
