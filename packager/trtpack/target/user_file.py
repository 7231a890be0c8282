# SPDX-License-Identifier: Apache-2.0
"""A device of the user's own: a file as those under ``targets/``, or what differs from one of them.

```toml
like = "orin"                       # every fact that is not said here
device = "our robot's Orin"
memory_gib = 32

[stack]                             # or stacks = ["jetpack-6.2"], of those that come with trtpack
like = "jetpack-6.2"
title = "JetPack 6.2 with a newer TensorRT"
tensorrt = "10.7.0.23"
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtpack_runtime.errors import ConfigError

from ..spelling import nearest
from .files import Device, Stack, Table, read_device, read_stack
from .model import Target
from .possible import check_stacks

if TYPE_CHECKING:
    from . import Catalogue

_PARTS = ("peak", "image", "sources")
_OF_THE_BASE_ALONE = ("aliases", "notes")


def is_user_file(name: str) -> bool:
    """Whether a target's name is the path of a file."""
    return name.lower().endswith(".toml")


@dataclass(frozen=True)
class UserDevice:
    """What a user's file says; ``known`` has it and its own stack besides those of trtpack."""

    device: Device
    known: Catalogue

    def target(self, stack: str, asked: str) -> Target:
        """The device with ``stack``, "" for its first.

        Errors: ConfigError for a stack it does not name.
        """
        if stack and stack not in self.device.stacks:
            raise ConfigError(
                f"{asked}: the file has no stack {stack!r}",
                hint=f"choose one of its stacks: {', '.join(self.device.stacks)}",
            )
        chosen = self.known.stacks[stack or self.device.stacks[0]]
        name = f"{self.device.id}@{stack}" if stack else self.device.id
        return self.known.target(name, self.device, chosen)


def read_user_file(path: Path, known: Catalogue) -> UserDevice:
    """The device that the file at ``path`` describes.

    Errors: FileError with the line and column of everything that is missing, unknown, of the wrong
    type or impossible; ConfigError for a file that cannot be read, or one named as a known device.
    """
    id = path.stem.lower()
    if id in known.spellings:
        raise ConfigError(
            f"{path}: {id} is the name of a device that comes with trtpack",
            hint="give the file another name",
        )
    table = Table.read(path)
    base = _base(table, known.spellings, known.folder)
    own = table.part("stack") if "stack" in table.content else None
    stacks = dict(known.stacks)
    if own is not None:
        stack = _own_stack(own, id, known)
        stacks[stack.id] = stack
        if "stacks" in table.content:
            table.wrong("stacks", "not beside a [stack] of its own", of_key=True)
        table.content["stacks"] = [stack.id]
    table.content = _merged(base, table.content)
    like = known.spellings.get(base["like"]) if base else None
    table.content.pop("like", None)
    device = read_device(table, None, id=id, like=like)
    if not table.problems:
        check_stacks(table, device, stacks, known.sources)
    table.refuse()
    devices = {**known.devices, id: device}
    return UserDevice(device, replace(known, devices=devices, stacks=stacks))


def _own_stack(part: Table, id: str, known: Catalogue) -> Stack:
    """The stack of the table ``[stack]``, named after the file."""
    base = _base(part, {name: name for name in known.stacks}, known.folder / "stacks")
    part.content = _merged(base, part.content)
    part.content.pop("like", None)
    return read_stack(part, None, id=f"{id}-stack")


def _base(table: Table, spellings: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """The content of the file that ``like`` names; empty where there is none."""
    like = table.text_or_none("like")
    if like is None:
        return {}
    if like not in spellings:
        near = nearest(like, list(spellings))
        table.wrong("like", f"unknown: {like!r}" + (f", did you mean {near}?" if near else ""))
        return {}
    content = Table.read(folder / f"{spellings[like]}.toml").content
    for key in _OF_THE_BASE_ALONE:
        content.pop(key, None)
    return {**content, "like": like}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what ``own`` says in its place; a fact of one's own drops the base's source."""
    merged = {**base, **own}
    for part in _PARTS:
        if isinstance(base.get(part), dict) and isinstance(own.get(part, {}), dict):
            merged[part] = {**base[part], **own.get(part, {})}
    told = {*own, *(f"peak.{key}" for key in _keys(own.get("peak")))}
    cited = merged.get("sources")
    if isinstance(cited, dict):
        mine = _keys(own.get("sources"))
        merged["sources"] = {k: v for k, v in cited.items() if k not in told or k in mine}
    return merged


def _keys(value: object) -> set[str]:
    return set(value) if isinstance(value, dict) else set()
