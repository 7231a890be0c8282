# SPDX-License-Identifier: Apache-2.0
"""Whether a device is what a build is for, before anything is sent to it."""

from __future__ import annotations

from collections.abc import Sequence

from trtpack_runtime.builders import BUILDERS, Site
from trtpack_runtime.durations import short
from trtpack_runtime.errors import DeviceError

from ..engine_options import kind_for
from ..options import Options
from ..report.text import size_text
from ..target import Target
from .address import Address
from .device import Hello

SKEW_S = 300.0
"""How far a device's clock may be off: what is written down of it, and who holds it since when,
would be wrong."""

_MARGIN_BYTES = 16 << 20
_NEAR = 0.25
"""A device's memory and its target's differ by less, relatively: the system keeps some."""


def check_clock(hello: Hello, address: Address) -> None:
    """DeviceError where the device's clock is wrong."""
    skew = hello.clock_skew_s
    if abs(skew) <= SKEW_S:
        return
    way = "ahead of" if skew > 0 else "behind"
    raise DeviceError(
        f"the clock of {address} is {short(abs(skew))} {way} this host's",
        hint="set it there: sudo timedatectl set-ntp true",
    )


def check_room(hello: Hello, nbytes: int, address: Address) -> None:
    """DeviceError where what is to be sent does not fit on the device's disk."""
    needs = nbytes + _MARGIN_BYTES
    if hello.free_bytes >= needs:
        return
    raise DeviceError(
        f"the disk of {hello.folder} on {address} has {size_text(hello.free_bytes)} free, this "
        f"takes {size_text(needs)}",
        hint="free space there, or end the address with a folder on another disk: "
        f"ssh://{address}/folder",
    )


def targets_of(
    hello: Hello, targets: Sequence[Target], options: Options, address: Address
) -> tuple[Target, ...]:
    """The targets that a device is.

    Raises:
        DeviceError: it is none of them; it says what each lacks.
    """
    reasons = {target.name: why_not(hello, target, options) for target in targets}
    found = tuple(target for target in targets if reasons[target.name] is None)
    if found:
        return found
    told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    raise DeviceError(
        f"{address} is not what this is built for: {told}",
        hint="name the target that it is, or with --remote-python the Python that has TensorRT",
    )


def why_not(hello: Hello, target: Target, options: Options) -> str | None:
    """Why a device is not a target, as a clause, None where it is."""
    facts, kind = hello.facts, kind_for(options, target)
    site = Site(facts, target.describe())
    if kind in BUILDERS:
        if reason := BUILDERS[kind].cannot_run(site):
            if kind == "tensorrt" and not facts.get("tensorrt") and facts["gpus"]:
                return f"{reason} for its Python {facts['python']}"
            return reason.replace("this machine", "it")
    elif facts["arch"] != target.arch:
        return f"it is {facts['arch']}, not {target.arch}"
    elif target.sm is not None:
        sms = [gpu["sm"] for gpu in facts["gpus"]]
        if not sms or sms[0] not in (target.sm, *target.sm_also):
            return f"it has {f'SM {sms[0]}' if sms else 'no NVIDIA GPU'}, not SM {target.sm}"
    if target.sm is None or not facts["gpus"] or target.memory_bytes is None:
        return None
    gpu = facts["gpus"][0]
    has = facts["memory"]["total_bytes"] if gpu.get("integrated") else gpu["memory_bytes"]
    if has and abs(has / target.memory_bytes - 1) > _NEAR:
        wants = size_text(target.memory_bytes)
        return f"it has {size_text(has)} of memory, {target.device} has {wants}"
    return None
