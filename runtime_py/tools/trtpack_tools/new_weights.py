# SPDX-License-Identifier: Apache-2.0
"""A file of other weights for a bundle: held against its own, and written as its weight store.

The weight store keeps its names.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trtpack_runtime.bundle import Bundle
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.new_values import Contents, NewValues, stored_view, torch_dtype
from trtpack_runtime.safetensors import TensorView, open_safetensors, write_safetensors

_LISTED = 8


class WeightsMismatchError(ConfigError):
    """A file of weights that is not a bundle's; each list says in words what is wrong."""

    def __init__(
        self, path: Path, missing: list[str], unexpected: list[str], mismatched: list[str]
    ) -> None:
        counted = {"missing": missing, "unexpected": unexpected, "of another kind": mismatched}
        told = "; ".join(
            f"{len(names)} {what}: {_listed(names)}" for what, names in counted.items() if names
        )
        hint = "give the state_dict of the model that the bundle was built from"
        if mismatched and not missing and not unexpected:
            hint = "add --cast where only the types differ, or build the bundle again"
        super().__init__(f"{path} does not fit the bundle: {told}", hint=hint)
        self.missing, self.unexpected, self.mismatched = missing, unexpected, mismatched


@dataclass(frozen=True)
class _New:
    """A stored tensor with its new value, made when its turn comes to be written."""

    name: str
    old: TensorView
    values: NewValues

    @property
    def dtype(self) -> str:
        return self.old.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.old.shape

    @property
    def buffer(self) -> Any:
        return self.values.buffer(self.name)


def read_state(bundle: Bundle, path: Path, *, cast: bool = False) -> dict[str, torch.Tensor]:
    """A file's tensors by ``state_dict`` name, in the types and shapes of the bundle's.

    Of tied weights one name will do. ``cast`` converts floating-point types.

    Raises:
        WeightsMismatchError: a tensor is missing, unexpected, or of another type or shape.
        ConfigError: it is what ``torch.save`` writes, or another archive.
        BundleError: a damaged file, or a bundle that lacks a tensor it names.
    """
    if zipfile.is_zipfile(path):
        raise ConfigError(
            f"{path} is an archive, such as torch.save writes; new weights are a safetensors file",
            hint="write it with safetensors.torch.save_file(model.state_dict(), FILE)",
        )
    given = open_safetensors(path)
    weights, stored = bundle.manifest.weights, bundle.weights
    wanted = {**weights.parameters, **weights.buffers}
    known = {wanted[name] for name in given if name in wanted}
    missing = [name for name, source in wanted.items() if source not in known]
    unexpected = [name for name in given if name not in wanted]
    mismatched, found = [], {}
    for name, view in given.items():
        if name not in wanted:
            continue
        old = stored_view(bundle, stored, wanted[name])
        dtypes = torch_dtype(view), torch_dtype(old)
        floats = all(dtype is not None and dtype.is_floating_point for dtype in dtypes)
        if view.shape != old.shape or not (view.dtype == old.dtype or (cast and floats)):
            mismatched.append(f"{name} is {_kind(view)}, wants {_kind(old)}")
            continue
        found[name] = view.tensor().to(dtypes[1])
    if missing or unexpected or mismatched:
        raise WeightsMismatchError(path, missing, unexpected, mismatched)
    return found


def write_stored(
    bundle: Bundle, state: Mapping[str, torch.Tensor], contents: Contents, folder: Path
) -> tuple[dict[str, Path], frozenset[str]]:
    """Writes the weight members anew into ``folder``: their files by member, and the names of the
    stored tensors that have another value now.

    Raises:
        BundleError: a constant follows from the weights in a way that the bundle does not tell.
        ConfigError: the disk refuses.
    """
    values = NewValues(bundle, state, contents)
    values.check()
    files = {}
    for index, member in enumerate(bundle.manifest.weights.members):
        files[member] = folder / f"weights-{index}"
        views = bundle.tensors(member)
        same = {n: v.same_as for n, v in views.items() if v.same_as and values.agree(n, v.same_as)}
        own = (_New(n, v, values) for n, v in views.items() if n not in same)
        write_safetensors(files[member], own, same=same)
    return files, values.changed


def _kind(view: TensorView) -> str:
    return f"{view.dtype}{list(view.shape)}"


def _listed(names: Iterable[str]) -> str:
    some = list(names)
    more = f" and {len(some) - _LISTED} more" if len(some) > _LISTED else ""
    return ", ".join(some[:_LISTED]) + more
