# SPDX-License-Identifier: Apache-2.0
"""What cannot be: stacks that a device cannot have, and needs that a target cannot meet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trtpack_runtime.errors import ConfigError

from .files import Device, Stack, Table
from .model import Target
from .sources import Source, cite

if TYPE_CHECKING:
    from . import Catalogue

GIB = 1 << 30
NEEDS = ("fp8", "fp4", "dla", "tensorrt>=10.8", "memory>=16")
"""What a model can need, by example; memory in GiB."""

_NEED = re.compile(r"fp8|fp4|dla|tensorrt>=(\d+(?:\.\d+)*)|memory>=(\d+(?:\.\d+)?)")


class ImpossibleTarget(ConfigError):
    """A device that nothing can be built for, or a stack that it cannot have."""


@dataclass(frozen=True)
class Impossible:
    """Why something cannot be: the fact, and the ids of its sources."""

    fact: str
    sources: tuple[str, ...]

    def told(self, sources: Mapping[str, Source]) -> str:
        """The fact with its best source, where it has one: of this machine there is none."""
        return f"{self.fact} ({cite(self.sources, sources)})" if self.sources else self.fact


def why_not(device: Device, stack: Stack) -> Impossible | None:
    """Why ``device`` cannot have ``stack``; None where nothing that is known speaks against it."""

    def no(fact: str, *names: str) -> Impossible:
        return Impossible(fact, next(filter(None, map(stack.sources.get, names)), ()))

    if device.sm in stack.not_sms:
        release = ".".join(map(str, (stack.tensorrt or ())[:3]))
        return no(f"TensorRT {release} does not serve SM {device.sm}", "not_sms")
    if device.family not in stack.families:
        one = f"it is for {', '.join(stack.families)} devices, this is one of {device.family}"
        return no(one, "families", "tensorrt", "arch")
    if stack.devices is not None and not {device.id, device.like} & set(stack.devices):
        return no(f"it is for {', '.join(stack.devices)}", "devices")
    if not set(device.arch) & set(stack.arch):
        return no(
            f"it is for {', '.join(stack.arch)}, the device is {', '.join(device.arch)}", "arch"
        )
    if stack.sms is not None and device.sm not in stack.sms:
        return no(f"it serves SM {', '.join(stack.sms)}, the device is SM {device.sm}", "sms")
    if stack.kind == "tensorrt-rtx" and device.rtx_capability is None:
        return no("the device has no rtx_capability", "sms")
    return None


def check_stacks(
    table: Table, device: Device, stacks: Mapping[str, Stack], sources: Mapping[str, Source]
) -> None:
    """Notes in ``table`` every stack that ``device`` names and cannot have."""
    for index, name in enumerate(device.stacks):
        if name not in stacks:
            table.wrong(("stacks", index), f"there is no stacks/{name}.toml")
        elif not table.problems and (why := why_not(device, stacks[name])):
            table.wrong(("stacks", index), f"not {name}: {why.told(sources)}")


def check_need(need: str) -> str | None:
    """What is wrong with the spelling of a need; None where nothing is."""
    return None if _NEED.fullmatch(need) else f"wanted one of {', '.join(NEEDS)}, got {need!r}"


def unmet(target: Target, needs: Iterable[str], known: Catalogue) -> Iterator[str]:
    """Every need that ``target`` cannot meet, as the fact and its source.

    Errors: ConfigError for a need that is misspelt.
    """
    for need in needs:
        if why := _unmet(target, need, known):
            yield why.told(known.sources)


def _unmet(target: Target, need: str, known: Catalogue) -> Impossible | None:
    if wrong := check_need(need):
        raise ConfigError(f"bad need, {wrong}", hint="correct it")
    device = known.devices.get(target.key.partition("@")[0])
    stack = known.stacks.get(target.stack)

    def of_device(fact: str) -> tuple[str, ...]:
        return device.sources.get(fact, ()) if device else ()

    def of_stack(fact: str) -> tuple[str, ...]:
        return stack.sources.get(fact, ()) if stack else ()

    match = _NEED.fullmatch(need)
    assert match is not None
    if need in ("fp8", "fp4"):
        has = target.has_fp8 if need == "fp8" else target.has_fp4
        sm = f" (SM {target.sm})" if target.sm else ""
        fact = f"{target.device}{sm} has no {need.upper()}"
        return None if has else Impossible(fact, of_device(f"has_{need}"))
    if need == "dla":
        return None if target.dla_cores else no_dla(target, known)
    if release := match[1]:
        if target.tensorrt_at_least(release):
            return None
        if not target.tensorrt:
            return Impossible(f"{target.stack} has no TensorRT", of_stack("kind"))
        version = ".".join(map(str, target.tensorrt))
        fact = f"{target.stack} has TensorRT {version}, older than {release}"
        return Impossible(fact, of_stack("tensorrt"))
    if target.memory_bytes is None or target.memory_bytes >= float(match[2]) * GIB:
        return None
    has_gib = f"{target.memory_bytes / GIB:g} GiB"
    return Impossible(f"{target.device} has {has_gib} of memory", of_device("memory_gib"))


def no_dla(target: Target, known: Catalogue) -> Impossible:
    """Why TensorRT has no DLA core on ``target``: the device has none, or its stack uses none."""
    device = known.devices.get(target.key.partition("@")[0])
    stack = known.stacks.get(target.stack)
    if device is not None and stack is not None and device.dla_cores:
        having = [name for name in device.stacks if known.stacks[name].dla]
        others = f", that of {', '.join(having)} can" if having else ""
        fact = f"TensorRT of {target.stack} cannot use its DLA{others}"
        return Impossible(fact, stack.sources.get("dla", ()))
    sources = device.sources.get("dla_cores", ()) if device is not None else ()
    having = sorted(min((d.id, *d.aliases), key=len) for d in known.devices.values() if d.dla_cores)
    return Impossible(f"it has no DLA, which {', '.join(having)} have", sources)
