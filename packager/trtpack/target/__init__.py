# SPDX-License-Identifier: Apache-2.0
"""The devices a bundle can be built for, read from ``targets/*.toml``.

A target is a *device* (the hardware, ``targets/NAME.toml``) with one of its *stacks* (the software
on it, ``targets/stacks/NAME.toml``). ``orin`` is a device with its default stack,
``orin@jetpack-7.2`` names another. Every fact in those files gives its source;
``targets/sources.toml`` says where that is. ``native`` is the machine itself, ``auto`` that or its
CPU, and ``FILE.toml`` a device of the user's own.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trtpack_runtime.errors import ConfigError, DeviceError

from ..spelling import nearest
from .files import Device, EngineKind, Image, Peak, Stack, Table, read_device, read_stack
from .model import Target
from .native import NAME as NATIVE
from .native import native_target
from .possible import NEEDS, ImpossibleTarget, check_need, check_stacks, no_dla, unmet, why_not
from .sources import Source, cite, read_sources
from .user_file import is_user_file, read_user_file

__all__ = [
    "Target",
    "Catalogue",
    "EngineKind",
    "Image",
    "AUTO",
    "NATIVE",
    "Peak",
    "find_target",
    "all_targets",
    "catalogue",
    "catalogue_for",
    "read_catalogue",
    "NEEDS",
    "check_need",
    "unmet",
    "no_dla",
    "why_not",
    "Source",
    "Stack",
    "cite",
    "is_user_file",
    "read_user_file",
]

GIB = 1 << 30
AUTO, CPU = "auto", "cpu"


@dataclass(frozen=True)
class Catalogue:
    """Every device and stack of one ``targets`` folder, checked against each other."""

    devices: Mapping[str, Device]
    stacks: Mapping[str, Stack]
    spellings: Mapping[str, str]  # id or alias -> id
    sources: Mapping[str, Source]
    folder: Path

    def find(self, name: str) -> Target:
        """The target called ``DEVICE`` or ``DEVICE@STACK``.

        Errors: ConfigError for an unknown device or stack (the nearest name is suggested), for a
        stack the device does not have, and for a device nothing can be built for.
        """
        asked = name.strip().lower()
        device_name, at, stack_name = asked.partition("@")
        if device_name in (NATIVE, AUTO):
            raise ConfigError(
                f"{device_name} has no stack {stack_name!r}: it has the one of this machine",
                hint=f"write -t {device_name}",
            )
        if device_name not in self.spellings:
            known = (NATIVE, AUTO, *self.spellings)
            raise _unknown("target", device_name, known, "see all with: trtpack targets")
        device = self.devices[self.spellings[device_name]]
        if device.unsupported:
            raise ImpossibleTarget(
                f"cannot build for {device.device}: {device.unsupported}",
                hint="choose another target, see: trtpack targets",
            )
        if at and stack_name not in self.stacks:
            known = device.stacks
            raise _unknown("stack", stack_name, known, f"{device_name} has: {', '.join(known)}")
        if at and stack_name not in device.stacks:
            stack = self.stacks[stack_name]
            why = why_not(device, stack)
            reason = f": {why.told(self.sources)}" if why else ", as far as is known"
            raise ImpossibleTarget(
                f"{device.device} cannot have {stack.title}{reason}",
                hint=f"choose one of its stacks: {', '.join(device.stacks)}",
            )
        return self.target(asked, device, self.stacks[stack_name if at else device.stacks[0]])

    def all(self) -> tuple[Target, ...]:
        """Every device with its default stack, sorted by name; those without support too."""
        return tuple(
            self.target(device.id, device, self.stacks[device.stacks[0]] if device.stacks else None)
            for _, device in sorted(self.devices.items())
        )

    def stacks_of(self, target: Target) -> tuple[str, ...]:
        """The stacks ``target``'s device can have, the default first."""
        device = self.devices.get(target.key.partition("@")[0])
        return device.stacks if device else (target.stack,)

    def aliases_of(self, target: Target) -> tuple[str, ...]:
        """Other names of ``target``'s device."""
        device = self.devices.get(target.key.partition("@")[0])
        return device.aliases if device else ()

    def target(self, name: str, device: Device, stack: Stack | None) -> Target:
        """``device`` with ``stack``, called ``name``."""
        arches = [a for a in device.arch if stack is None or a in stack.arch]
        host = platform.machine()
        local = device.family == "cpu" and host in arches  # compiled by this host's own compiler
        has_dla = stack is not None and stack.dla
        return Target(
            name=name,
            key=f"{device.id}@{stack.id}" if stack else device.id,
            device=device.device,
            family=device.family,
            sm=device.sm,
            sm_also=device.sm_also,
            arch=host if local else arches[0],
            memory_bytes=None if device.memory_gib is None else round(device.memory_gib * GIB),
            memory_unified=device.memory_unified,
            engine_kind=stack.kind if stack else "tensorrt",
            tensorrt=stack.tensorrt if stack else None,
            stack=stack.id if stack else "",
            os=stack.os if stack else None,
            cuda=stack.cuda if stack else None,
            python=stack.python if stack else None,
            dla_cores=device.dla_cores if has_dla else 0,
            has_fp8=device.has_fp8,
            has_fp4=device.has_fp4,
            rtx_capability=device.rtx_capability,
            peak=device.peak,
            unsupported=device.unsupported,
            notes=tuple(n for n in (device.notes, stack.notes if stack else None) if n),
        )


def find_target(name: str, engine: str | None = None) -> Target:
    """The target called ``name``: ``native``, ``auto``, a file of the user's own, ``my.toml`` or
    ``my.toml@STACK``, or one from the files that come with trtpack.

    ``engine`` is the kind of engine that is asked for in the place of the target's own; with
    ``inductor`` PyTorch compiles all of the model, for the target's GPU where it has one.

    Raises:
        ConfigError: an unknown name, or a file that says something wrong.
        DeviceError: ``native`` where there is no GPU, or no TensorRT though its engines need it.
    """
    asked = name.strip()
    if asked.lower() in (NATIVE, AUTO):
        return _this_machine(asked.lower(), engine)
    file, _, stack = asked.partition("@")
    target = (
        read_user_file(Path(file), catalogue()).target(stack, asked)
        if is_user_file(file)
        else catalogue().find(asked)
    )
    if engine == "inductor":
        return dataclasses.replace(target, engine_kind="inductor", tensorrt=None)
    return target


def catalogue_for(name: str) -> Catalogue:
    """The catalogue that the target called ``name`` is in: that of trtpack, or with a user's file.

    Raises:
        ConfigError: a file that says something wrong.
    """
    file = name.strip().partition("@")[0]
    return read_user_file(Path(file), catalogue()).known if is_user_file(file) else catalogue()


def _this_machine(name: str, engine: str | None) -> Target:
    from trtpack_runtime.device import facts

    known = catalogue()
    try:
        return native_target(facts(), known.devices.values(), known.stacks.values(), engine)
    except DeviceError:
        if name == NATIVE:
            raise
        return known.find(CPU)


def all_targets() -> tuple[Target, ...]:
    """Every device that comes with trtpack, with its default stack."""
    return catalogue().all()


@functools.cache
def catalogue() -> Catalogue:
    """The devices and stacks that come with trtpack."""
    here = Path(__file__).parents[1]
    installed = here / "_targets"
    return read_catalogue(installed if installed.is_dir() else here.parents[1] / "targets")


def read_catalogue(folder: Path) -> Catalogue:
    """The devices and stacks described under ``folder``.

    Errors: ConfigError naming the file and key of anything missing, unknown, of the wrong type,
    without a source, or at odds with another file.
    """
    sources = read_sources(Table.read(folder / "sources.toml"))
    ids = frozenset(sources)
    stacks: dict[str, Stack] = {}
    for path in sorted((folder / "stacks").glob("*.toml")):
        table = Table.read(path)
        stacks[path.stem] = read_stack(table, ids)
        table.refuse()
    devices: dict[str, Device] = {}
    spellings: dict[str, str] = {}
    for path in sorted(folder.glob("*.toml")):
        if path.name == "sources.toml":
            continue
        table = Table.read(path)
        device = devices[path.stem] = read_device(table, ids)
        for index, spelling in enumerate((device.id, *device.aliases)):
            if spellings.setdefault(spelling, device.id) != device.id:
                reason = f"{spelling!r} already names {spellings[spelling]}"
                table.wrong(("aliases", index - 1), reason)
        check_stacks(table, device, stacks, sources)
        table.refuse()
    if not devices:
        raise ConfigError(f"no targets in {folder}", hint="reinstall trtpack")
    return Catalogue(devices, stacks, spellings, sources, folder)


def _unknown(what: str, name: str, known: Iterable[str], otherwise: str) -> ConfigError:
    near = nearest(name, list(known))
    hint = f"did you mean {near}? {otherwise}" if near else otherwise
    return ConfigError(f"unknown {what} {name!r}", hint=hint)
