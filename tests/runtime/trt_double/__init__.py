# SPDX-License-Identifier: Apache-2.0
"""A stand-in for TensorRT with exactly one release's names, generated from recorded facts.

    >>> trt = double("10.3")
    >>> int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED), hasattr(trt, "IStreamWriter")
    (1, False)

It emits, builds and loads as far as can be judged without a GPU: networks infer their types and
shapes, a plan is a recording of what the builder was told, a context runs nothing. A name that the
release lacks raises AttributeError, arguments are held against the recorded keywords, and what
TensorRT refuses with a line in its log is refused so here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from . import building, layers, network, regions, running, tensors
from .building import MAGIC, Controls
from .facts import has, releases
from .names import enum, generated, lacks

__all__ = ["MAGIC", "RELEASES", "Controls", "controls", "double", "has", "releases"]

RELEASES = ("8.6", "10.3", "10.16", "11.1")
"""What target devices have, and the newest: all decisions are tested on these."""

_VERSIONS = {"8.6": "8.6.2", "10.3": "10.3.0", "10.16": "10.16.2.10", "rtx-1.7": "1.7.1.116"}
_MIXINS: Mapping[str, type] = {
    "Weights": tensors.Weights,
    "ITensor": tensors.TensorOf,
    "INetworkDefinition": network.NetworkOf,
    "ILoop": regions.LoopOf,
    "IIfConditional": regions.IfConditionalOf,
    "Builder": building.BuilderOf,
    "IBuilderConfig": building.ConfigOf,
    "IOptimizationProfile": building.ProfileOf,
    "ITimingCache": building.TimingCacheOf,
    "TimingCacheKey": building.TimingCacheKeyOf,
    "TimingCacheValue": building.TimingCacheValueOf,
    "Runtime": running.RuntimeOf,
    "ICudaEngine": running.EngineOf,
    "IExecutionContext": running.ContextOf,
    "Refitter": running.RefitterOf,
    "EngineInspector": running.InspectorOf,
}


class Double(ModuleType):
    """The module; what a test may ask of it beyond TensorRT's own names is private."""

    _release: str
    _controls: Controls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise lacks(self._release, name)

    def _has(self, owner: str, member: str) -> bool:
        return has(self._release, f"{owner}.{member}")


def double(release: str) -> Any:
    """A new double of a release, as ``import tensorrt`` would give it."""
    table = releases()[release]
    trt = Double("tensorrt_rtx" if release.startswith("rtx") else "tensorrt")
    trt._release, trt._controls = release, Controls()
    trt.__version__ = _VERSIONS.get(release, f"{release}.0")
    enums = _enums(release)
    for name, made in enums.items():
        if "." not in name:
            setattr(trt, name, made)
    mixins = dict(_MIXINS) | layers.layer_mixins(trt, list(table["classes"]))
    for name, made in generated(trt, release, table["classes"], mixins).items():
        setattr(trt, name, made)
    trt.IHostMemory = _host_memory(trt, trt.IHostMemory)
    for name, made in enums.items():
        owner, _, inner = name.rpartition(".")
        if owner:
            _export(getattr(trt, owner), inner, made)
    for alias, member in table["dtype_aliases"].items():
        setattr(trt, alias, getattr(trt.DataType, member))
    return trt


@cache
def _enums(release: str) -> dict[str, Any]:
    """A release's enums, which all its doubles share."""
    made = {}
    for name, members in releases()[release]["enums"].items():
        lasting = releases()["11.4"]["enums"].get(name, {})
        # of two names for a number the one that outlived the other is the member's own
        ordered = dict(sorted(members.items(), key=lambda item: item[0] not in lasting))
        made[name] = enum(release, name, ordered)
    return made


def controls(trt: Any) -> Controls:
    """What a double was told, and is to do."""
    told: Controls = trt._controls
    return told


def _export(owner: Any, inner: str, made: Any) -> None:
    """An enum within a class, whose members are the class's too."""
    type.__setattr__(owner, inner, made)
    for name, member in made.__members__.items():
        type.__setattr__(owner, name, member)


def _host_memory(trt: Any, recorded: Any) -> Any:
    """``IHostMemory``, which is a buffer: bytes are what Python lets a class be one with."""
    known = {name for name in vars(recorded) if not name.startswith("_")}

    def read(self: Any, name: str) -> Any:
        if not name.startswith("_") and name not in known:
            raise lacks(recorded._release, f"IHostMemory.{name}")
        return bytes.__getattribute__(self, name)

    names = {name: property(lambda self, name=name: _memory[name](trt, self)) for name in known}
    return type("IHostMemory", (bytes,), names | {"__getattribute__": read})


_memory: Mapping[str, Any] = {
    "nbytes": lambda _, memory: len(memory),
    "dtype": lambda trt, _: trt.DataType.INT8,
}
