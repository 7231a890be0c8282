# SPDX-License-Identifier: Apache-2.0
"""The stored tensors of a bundle with other weights: every constant derived from them follows.

A parameter or buffer takes the value of its ``state_dict`` name; a derived constant is replayed by
its recipe where something it is made of changed; what follows from no weight stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from . import network as networks
from . import program as programs
from . import recipes
from .bundle import Bundle
from .checked_json import canonical
from .dtypes import by_safetensors
from .errors import BundleError
from .network import Network
from .program import Program
from .safetensors import TensorView
from .samples import StoredTensor


@dataclass(frozen=True)
class Contents:
    """The programs and networks of a bundle, by member."""

    programs: Mapping[str, Program]
    networks: Mapping[str, Network]


def contents_of(bundle: Bundle) -> Contents:
    """Reads every program, and every network that one of them runs.

    Raises:
        BundleError: one is damaged.
    """
    variants = bundle.manifest.variants.values()
    members = {member for variant in variants for member in variant.programs.values()}
    found = {member: programs.from_json(bundle.json(member)) for member in sorted(members)}
    read = {s.network for p in found.values() for s in p.segments if s.network is not None}
    return Contents(found, {m: networks.from_bytes(bundle.member(m)) for m in sorted(read)})


@dataclass
class NewValues(Mapping[str, torch.Tensor]):
    """The stored tensors with their new values, by stored name."""

    bundle: Bundle
    state: Mapping[str, torch.Tensor]
    contents: Contents
    _making: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        weights = self.bundle.manifest.weights
        self._stored = self.bundle.weights
        self._names = {**weights.parameters, **weights.buffers}
        self._given: dict[str, list[str]] = {}
        for name in self.state:
            self._given.setdefault(self._names[name], []).append(name)
        self._recipes: dict[str, dict[bytes, Mapping[str, Any]]] = {}
        for name, recipe in _recipes_of(self.contents):
            self._recipes.setdefault(name, {}).setdefault(canonical(recipe), recipe)
        changed = {
            stored
            for stored, names in self._given.items()
            if any(not self._is_old(stored, self.state[name]) for name in names)
        }
        self._reach = self._reached(changed)
        self.changed = frozenset(changed | self._reach)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self._given:
            return self.state[self._given[name][0]]
        old = stored_view(self.bundle, self._stored, name)
        if name not in self._reach or name in self._making:
            return old.tensor()
        self._making.add(name)
        try:
            return self._replayed(name, next(iter(self._recipes[name].values())))
        finally:
            self._making.remove(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def buffer(self, name: str) -> Any:
        """The bytes of a stored tensor's new value."""
        if name not in self.changed:
            return stored_view(self.bundle, self._stored, name).buffer
        return StoredTensor(name, self[name]).buffer

    def agree(self, first: str, second: str) -> bool:
        """Whether two tensors that were equal still are."""
        return self.changed.isdisjoint((first, second)) or _equal(self[first], self[second])

    def check(self) -> None:
        """BundleError where one stored tensor would need two values, or its value is not known."""
        for stored in sorted(self.changed):
            self._check_one_value(stored)
        if not self.changed:
            return
        for stored in sorted(_read_outside_networks(self.contents)):
            owner, bar, _ = stored.partition("|")
            if bar and owner not in ("constant", "table") and stored not in self._recipes:
                raise _untold(stored, "the bundle does not tell how it follows from the weights")

    def _check_one_value(self, stored: str) -> None:
        first = self[stored]
        for name in self._given.get(stored, ())[1:]:
            if not _equal(self.state[name], first):
                raise _untold(stored, f"{name} was equal to it when the bundle was built")
        for recipe in self._recipes.get(stored, {}).values():
            if not _equal(self._replayed(stored, recipe), first):
                raise _untold(stored, "constants made in two ways were equal")
        for network in self.contents.networks.values():
            for constant in network.constants.values():
                mine = constant.recipe is not None or constant.name in self._names
                if constant.data == stored and not mine:
                    raise _untold(stored, f"the table {constant.name} was equal to it")

    def _replayed(self, stored: str, recipe: Mapping[str, Any]) -> torch.Tensor:
        old = stored_view(self.bundle, self._stored, stored)
        with torch.no_grad():
            value = recipes.replay(dict(recipe), self)
        if value.dtype != torch_dtype(old) or value.numel() * value.element_size() != old.nbytes:
            raise _untold(stored, f"its recipe makes {value.dtype} of another size")
        return value.reshape(old.shape)

    def _reached(self, changed: set[str]) -> frozenset[str]:
        """The derived tensors that something changed goes into, however far."""
        reads = {
            name: {source for recipe in ways.values() for source in recipes.sources(recipe)}
            for name, ways in self._recipes.items()
            if name not in self._given
        }
        reached: set[str] = set()
        while more := {n for n, s in reads.items() if s & (changed | reached)} - reached:
            reached |= more
        return frozenset(reached)

    def _is_old(self, stored: str, value: torch.Tensor) -> bool:
        old = stored_view(self.bundle, self._stored, stored)
        return _equal(value, old.tensor())


def _recipes_of(contents: Contents) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every derived constant's stored name and recipe."""
    for program in contents.programs.values():
        yield from (program.recipes or {}).items()
    for network in contents.networks.values():
        for constant in network.constants.values():
            if constant.recipe is not None:
                yield constant.data, constant.recipe


def _read_outside_networks(contents: Contents) -> set[str]:
    """The stored tensors that programs and their ATen graphs read themselves."""
    found: set[str] = set()
    for program in contents.programs.values():
        found.update((program.constants or {}).values())
        for segment in program.segments:
            found.update(recipes.sources(segment.graph))
    return found


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether the bytes are the same, of NaN and zeros too."""
    first, second = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(first, second)


def stored_view(bundle: Bundle, stored: Mapping[str, TensorView], name: str) -> TensorView:
    if name not in stored:
        raise BundleError(
            f"{bundle.path}: there is no tensor {name!r}, which something names",
            hint="build the bundle again",
        )
    return stored[name]


def _untold(stored: str, why: str) -> BundleError:
    return BundleError(
        f"cannot give {stored} another value: {why}",
        hint="build the bundle again with these weights",
    )


def torch_dtype(view: TensorView) -> torch.dtype | None:
    """torch's type; None where no bundle has it."""
    try:
        found: torch.dtype = getattr(torch, by_safetensors(view.dtype).torch)
    except KeyError:
        return None
    return found
