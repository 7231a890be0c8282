# SPDX-License-Identifier: Apache-2.0
"""What changes on a machine: clocks, free memory, room on its disk. Nothing is decided by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import software
from .device import DeviceFacts
from .engine_store import EngineStore
from .gpus import Gpu
from .sensors import sensors_for
from .store_folder import free_bytes, writable


@dataclass(frozen=True)
class GpuState:
    """A GPU now. ``readings`` are any of ``sm_mhz``, ``sm_max_mhz``, ``memory_mhz``,
    ``temperature_c``, ``power_w``, ``power_limit_w`` and ``load_percent``; ``throttled`` says what
    slows it down. ``free_bytes`` is None where nobody tells, or the host's memory is the GPU's."""

    index: int
    free_bytes: int | None
    readings: Mapping[str, float]
    throttled: tuple[str, ...]


@dataclass(frozen=True)
class StoreState:
    """The store of engines. ``folder`` is where new ones go, ``home`` where they should go; they
    differ where ``home`` is read-only."""

    folder: str
    home: str
    writable: bool
    free_bytes: int | None
    limit_bytes: int
    engines: int
    engine_bytes: int


@dataclass(frozen=True)
class MachineState:
    """A machine now, and the software that lies beside what it uses."""

    gpus: tuple[GpuState, ...]
    store: StoreState
    cuda: str | None
    tensorrts: tuple[software.Found, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            "gpus": [{**asdict(gpu), "throttled": list(gpu.throttled)} for gpu in self.gpus],
            "tensorrts": [asdict(found) for found in self.tensorrts],
        }


def state_of(facts: DeviceFacts, root: Path = Path("/")) -> MachineState:
    """Looks at the machine of the facts; system files are read below ``root``."""
    gpus = tuple(_gpu(gpu, root) for gpu in facts.gpus)
    return MachineState(
        gpus, store_state(), software.cuda_toolkit(root), software.every_tensorrt(root)
    )


def store_state() -> StoreState:
    """The user's store of engines."""
    store = EngineStore()
    kept = store.entries()
    return StoreState(
        folder=str(store.folder),
        home=str(store.place.home),
        writable=writable(store.folder),
        free_bytes=free_bytes(store.folder),
        limit_bytes=store.limit_bytes,
        engines=len(kept),
        engine_bytes=sum(engine.nbytes for engine in kept),
    )


def _gpu(gpu: Gpu, root: Path) -> GpuState:
    sensors = sensors_for(gpu.index, root)
    if sensors is None:
        return GpuState(gpu.index, None, {}, ())
    try:
        now = sensors.read()
        used = sensors.memory().get("used_bytes")
        readings = {**sensors.limits(), **now.numbers}
    finally:
        sensors.close()
    free = None
    if used is not None and not gpu.integrated:
        free = max(gpu.memory_bytes - used, 0)
    return GpuState(gpu.index, free, dict(sorted(readings.items())), now.throttled)
