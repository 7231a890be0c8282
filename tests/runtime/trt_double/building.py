# SPDX-License-Identifier: Apache-2.0
"""Builders of a double: configuration, profiles, timing caches, and plans that are recordings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trtpack_runtime import dims

MAGIC = b"ftrt: a plan of a double\n"
_CACHE = b"a timing cache of a double\n"
_MEMORY = 8 << 30
_HASH = 0x9E3779B97F4A7C15


@dataclass
class Controls:
    """What a test tells a double to do, and what the double saw.

    ``fail`` are log lines of a build that ends without an engine. ``device`` is what timing caches
    and plans belong to. ``built`` are the recordings of all plans, ``measured`` how many tactics
    were measured in all builds, ``streamed`` how many plans went piece by piece to a writer.
    ``dla_cores`` is what ``Builder.num_DLA_cores`` says.
    """

    fail: tuple[str, ...] = ()
    device: str = "double"
    dla_cores: int = 0
    measured: int = 0
    streamed: int = 0
    built: list[dict[str, Any]] = field(default_factory=list)
    configs: list[Any] = field(default_factory=list)
    networks: list[Any] = field(default_factory=list)


class BuilderOf:
    """``Builder``."""

    _trt: Any

    def _do_init(self, logger: Any) -> None:
        if not isinstance(logger, self._trt.ILogger):
            raise TypeError(f"Builder(): {logger!r} is no ILogger")
        self._logger = logger

    def _get_logger(self) -> Any:
        return self._logger

    def _get_num_DLA_cores(self) -> int:
        return self._trt._controls.dla_cores

    def _get_platform_has_tf32(self) -> bool:
        return True

    _get_platform_has_fast_fp16 = _get_platform_has_fast_int8 = _get_platform_has_tf32

    def _log(self, severity: str, text: str) -> None:
        self._logger.log(getattr(_severities(self._trt), severity), text)

    def _do_create_network(self, flags: int = 0) -> Any:
        trt = self._trt
        known = trt.NetworkDefinitionCreationFlag.__members__
        bits = {name for name, flag in known.items() if flags >> int(flag) & 1}
        if flags >= 1 << len(known):
            raise ValueError(f"create_network(): {flags:#b} has bits this release does not know")
        major = int(trt.__version__.split(".")[0])
        if "EXPLICIT_BATCH" not in bits and major == 8:
            self._log("ERROR", "createNetworkV2: implicit batch has no dynamic shapes")
            return None
        strong = "STRONGLY_TYPED" in bits or "EXPLICIT_BATCH" not in known
        made = trt.INetworkDefinition._made(
            strong=strong, creation=flags | self._always(known), log=self._log, builder=self
        )
        made._start()
        trt._controls.networks.append(made)
        return made

    def _always(self, known: Any) -> int:
        """What 11.x sets by itself."""
        strong = known.get("STRONGLY_TYPED")
        return 1 << int(strong) if strong is not None and "EXPLICIT_BATCH" not in known else 0

    def _do_create_builder_config(self) -> Any:
        config = self._trt.IBuilderConfig._made(log=self._log, builder=self)
        config._start()
        self._trt._controls.configs.append(config)
        return config

    def _do_create_optimization_profile(self) -> Any:
        return self._trt.IOptimizationProfile._made(log=self._log, ranges={}, values={})

    def _do_build_serialized_network(
        self, network: Any, config: Any, kernel_text: Any = None
    ) -> Any:
        plan = self._built(network, config)
        if plan is None:
            return None
        return self._trt.IHostMemory.__new__(self._trt.IHostMemory, plan)

    def _do_build_serialized_network_to_stream(
        self, network: Any, config: Any, writer: Any
    ) -> bool:
        if not isinstance(writer, self._trt.IStreamWriter):
            raise TypeError(f"build_serialized_network_to_stream(): {writer!r} is no IStreamWriter")
        plan = self._built(network, config)
        if plan is None:
            return False
        self._trt._controls.streamed += 1
        half = len(plan) // 2
        return all(writer.write(part) == len(part) for part in (plan[:half], plan[half:]))

    def _built(self, network: Any, config: Any) -> bytes | None:
        controls = self._trt._controls
        errors = list(controls.fail) or problems(self._trt, network, config)
        if not errors and not _told(config, len(network._layers)):
            errors = ["Build was cancelled by the progress monitor"]
        if not errors:
            errors = config._tune(network)
        for text in errors:
            self._log("ERROR", text)
        if errors:
            return None
        record = recording(self._trt, network, config)
        controls.built.append(record)
        return MAGIC + json.dumps(record).encode()


def _severities(trt: Any) -> Any:
    return getattr(trt.ILogger, "Severity", None) or trt._severity


def _told(config: Any, steps: int) -> bool:
    """Runs the progress monitor as TensorRT does; False where it cancels."""
    monitor = config._values.get("progress_monitor")
    if monitor is None:
        return True
    monitor.phase_start("Building Engine", None, steps)
    monitor.phase_start("Timing", "Building Engine", 1)
    going = all(monitor.step_complete("Building Engine", step) for step in range(steps))
    monitor.phase_finish("Timing")
    monitor.phase_finish("Building Engine")
    return going


def problems(trt: Any, network: Any, config: Any) -> list[str]:
    """What a builder finds wrong before it builds."""
    flags = {flag.name for flag in config._flags}
    said = []
    names = [layer.name for layer in network._layers]
    said += [f"Repeated layer name: {name}" for name in sorted(set(names)) if names.count(name) > 1]
    tensors = [t.name for t in network._inputs] + [
        t.name for layer in network._layers for t in layer._outputs
    ]
    said += [f"Repeated tensor name: {n}" for n in sorted(set(tensors)) if tensors.count(n) > 1]
    open_inputs = {t.name for t in network._inputs if -1 in t._declared}
    for name in sorted(open_inputs):
        if not config._profiles or any(name not in p._ranges for p in config._profiles):
            said.append(f"Network has dynamic input {name}, but no profile has been defined for it")
    if not network._outputs:
        said.append("Network must have at least one output")
    if network._strong and flags & {"FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS"}:
        said.append("Precision flags are set for a strongly typed network")
    if {"VERSION_COMPATIBLE", "REFIT"} <= flags and trt._release == "8.6":
        said.append("VERSION_COMPATIBLE and REFIT cannot be set together")
    on_dla = config._value("default_device_type") is getattr(trt.DeviceType, "DLA", None)
    if on_dla and config._value("DLA_core") >= trt._controls.dla_cores:
        said.append(f"There is no DLA core {config._value('DLA_core')}")
    return said


class ConfigOf:
    """``IBuilderConfig``."""

    _trt: Any
    _values: dict[str, Any]
    _log: Any

    def _start(self) -> None:
        trt = self._trt
        self._flags: set[Any] = {trt.BuilderFlag.TF32}
        self._pools: dict[Any, int] = {trt.MemoryPoolType.WORKSPACE: _MEMORY}
        self._profiles: list[Any] = []
        self._cache: Any = None
        self._capabilities: list[Any] = []
        self._values |= {
            "builder_optimization_level": 3,
            "avg_timing_iterations": 1,
            "DLA_core": -1,
            "default_device_type": trt.DeviceType.GPU,
            "profiling_verbosity": trt.ProfilingVerbosity.LAYER_NAMES_ONLY,
            "hardware_compatibility_level": trt.HardwareCompatibilityLevel.NONE,
        }
        self._usual = dict(self._values)
        self._previews: dict[Any, bool] = {}

    def _changed(self) -> dict[str, Any]:
        """Properties that are no more as they were."""
        return {k: v for k, v in self._values.items() if self._usual.get(k) != v}

    def _flag(self, flag: Any) -> Any:
        if not isinstance(flag, self._trt.BuilderFlag):
            raise TypeError(f"IBuilderConfig: {flag!r} is no BuilderFlag")
        return flag

    def _do_set_flag(self, flag: Any) -> None:
        self._flags.add(self._flag(flag))

    def _do_clear_flag(self, flag: Any) -> None:
        self._flags.discard(self._flag(flag))

    def _do_get_flag(self, flag: Any) -> bool:
        return self._flag(flag) in self._flags

    def _get_flags(self) -> int:
        return sum(1 << int(flag) for flag in self._flags)

    def _set_flags(self, value: int) -> None:
        members = self._trt.BuilderFlag.__members__.values()
        self._flags = {flag for flag in members if value >> int(flag) & 1}

    def _do_set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        if not isinstance(pool, self._trt.MemoryPoolType):
            raise TypeError(f"set_memory_pool_limit(): {pool!r} is no MemoryPoolType")
        if pool.name == "DLA_MANAGED_SRAM" and pool_size & (pool_size - 1):
            self._log("ERROR", "setMemoryPoolLimit: DLA_MANAGED_SRAM must be a power of 2")
            return
        self._pools[pool] = pool_size

    def _do_get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool, 0)

    def _set_builder_optimization_level(self, value: int) -> None:
        if 0 <= value <= 5:
            self._values["builder_optimization_level"] = value
        else:
            self._log("ERROR", f"setBuilderOptimizationLevel: {value} is none of 0 to 5")

    def _do_add_optimization_profile(self, profile: Any) -> int:
        if not isinstance(profile, self._trt.IOptimizationProfile):
            raise TypeError(f"add_optimization_profile(): {profile!r} is no profile")
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def _get_num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def _do_set_preview_feature(self, feature: Any, enable: bool) -> None:
        if not isinstance(feature, self._trt.PreviewFeature):
            raise TypeError(f"set_preview_feature(): {feature!r} is no PreviewFeature")
        self._previews[feature] = enable

    def _do_get_preview_feature(self, feature: Any) -> bool:
        return self._previews.get(feature, False)

    def _set_num_compute_capabilities(self, value: int) -> None:
        self._capabilities = [None] * value

    def _do_set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        self._capabilities[index] = compute_capability
        return True

    # timing caches

    def _do_create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        blob = bytes(serialized_timing_cache)
        entries: dict[str, Any] = {}
        device = self._trt._controls.device
        if blob:
            if not blob.startswith(_CACHE):
                self._log("ERROR", "createTimingCache: the blob is no timing cache")
                return None
            stored = json.loads(blob[len(_CACHE) :])
            entries, device = stored["entries"], stored["device"]
            if self._trt.__version__.startswith("8."):  # of every cache that it wrote itself
                self._log("ERROR", "deserializeFromBuffer: Myelin error from unknown graph")
        return self._trt.ITimingCache._made(
            log=self._log, entries=entries, device=device, config=self
        )

    def _do_set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if not isinstance(cache, self._trt.ITimingCache):
            raise TypeError(f"set_timing_cache(): {cache!r} is no ITimingCache")
        if cache._device != self._trt._controls.device and not ignore_mismatch:
            self._log("ERROR", f"setTimingCache: the cache was made on {cache._device}")
            return False
        self._cache = cache
        return True

    def _do_get_timing_cache(self) -> Any:
        return self._cache

    def _tune(self, network: Any) -> list[str]:
        """Measures what the cache lacks; an error for each where that is forbidden."""
        flags = {flag.name for flag in self._flags}
        known = {} if self._cache is None else self._cache._entries
        missing = [key for key in map(_tactic_key, network._layers) if key not in known]
        if "ERROR_ON_TIMING_CACHE_MISS" in flags and missing:
            return [f"Timing cache miss for {len(missing)} layers, the first is {missing[0]}"]
        self._trt._controls.measured += len(set(missing))
        if "EDITABLE_TIMING_CACHE" in flags:
            for layer in network._layers:
                if (key := _tactic_key(layer)) in missing:
                    self._log("VERBOSE", f"Autotuning op {layer.name}(key: {key}):")
        if self._cache is not None and "DISABLE_TIMING_CACHE" not in flags:
            known |= {key: [sum(key.encode()) * _HASH % (1 << 64), 0.5] for key in missing}
        return []


def _tactic_key(layer: Any) -> str:
    """A digest of kind, shapes and types: equal layers share their tactic."""
    tensors = [t for t in (*layer._inputs, *layer._outputs) if t is not None]
    text = layer._row.kind + "".join(f" {t.dtype.name}{list(t.shape)}" for t in tensors)
    return "0x" + hashlib.sha256(text.encode()).hexdigest()[:32]


class TimingCacheOf:
    """``ITimingCache``; from 10.8 on its entries can be read where the config is editable."""

    _trt: Any
    _entries: dict[str, Any]
    _device: str
    _log: Any
    _config: Any

    def _do_serialize(self) -> Any:
        text = json.dumps({"device": self._device, "entries": self._entries})
        memory = self._trt.IHostMemory
        return memory.__new__(memory, _CACHE + text.encode())

    def _do_combine(self, input_cache: Any, ignore_mismatch: bool) -> bool:
        if input_cache._device != self._device and not ignore_mismatch:
            self._log("ERROR", f"combine: the cache was made on {input_cache._device}")
            return False
        self._entries = input_cache._entries | self._entries  # conflicting entries are skipped
        return True

    def _do_reset(self) -> bool:
        self._entries.clear()
        return True

    def _editable(self) -> bool:
        return any(flag.name == "EDITABLE_TIMING_CACHE" for flag in self._config._flags)

    def _do_queryKeys(self) -> list[Any]:
        if not self._editable():
            self._log("ERROR", "queryKeys: the timing cache is not editable")
            return []
        return [self._trt.TimingCacheKey._made(text=key) for key in self._entries]

    def _do_query(self, key: Any) -> Any:
        tactic, time_ms = self._entries[key._text]
        value = self._trt.TimingCacheValue._made()
        value._values |= {"tacticHash": tactic, "timingMSec": time_ms}
        return value

    def _do_update(self, key: Any, value: Any) -> bool:
        if not self._editable():
            self._log("ERROR", "update: the timing cache is not editable")
            return False
        self._entries[key._text] = [value.tacticHash, value.timingMSec]
        return True


class TimingCacheKeyOf:
    """``TimingCacheKey``, which is text."""

    _text: str

    def __str__(self) -> str:
        return self._text


class TimingCacheValueOf:
    """``TimingCacheValue``."""

    _values: dict[str, Any]

    def _do_init(self, arg0: int, arg1: float) -> None:
        self._values |= {"tacticHash": arg0, "timingMSec": arg1}


class ProfileOf:
    """``IOptimizationProfile``."""

    _ranges: dict[str, tuple[tuple[int, ...], ...]]
    _log: Any

    def _do_set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]
    ) -> None:
        ranges = tuple(tuple(sizes) for sizes in (min, opt, max))
        if any(not a <= b <= c for a, b, c in zip(*ranges, strict=True)):
            raise ValueError(f"Shape provided for {input} is inconsistent with other tensors")
        self._ranges[input] = ranges

    def _do_get_shape(self, input: str) -> list[tuple[int, ...]]:
        return list(self._ranges.get(input, ()))


def recording(trt: Any, network: Any, config: Any) -> dict[str, Any]:
    """All that a build was told, as plain JSON."""

    def tensor(value: Any) -> dict[str, Any]:
        ours = value.dtype.name
        if value._layer is not None and not network._strong and "dtype" not in value._values:
            # weakly typed networks answer FLOAT unless told otherwise
            ours = "FLOAT" if ours in ("HALF", "BF16") else ours
        return {
            "name": value.name,
            "dtype": ours,
            "shape": list(value.shape),
            "dims": [dims.to_json(size) for size in value._dims()],
        }

    return {
        "release": trt._release,
        "version": trt.__version__,
        "device": trt._controls.device,
        "creation": [
            name
            for name, flag in trt.NetworkDefinitionCreationFlag.__members__.items()
            if network._creation >> int(flag) & 1
        ],
        "inputs": [tensor(value) for value in network._inputs],
        "outputs": [tensor(value) for value in network._outputs],
        "layers": [
            {"name": layer.name, "kind": layer._row.kind, "metadata": layer.metadata}
            if trt._has(type(layer).__name__, "metadata")
            else {"name": layer.name, "kind": layer._row.kind}
            for layer in network._layers
        ],
        "debug": [value.name for value in network._debug],
        "weights": {name: list(form[1:]) for name, form in network._weight_names.items()},
        "flags": sorted(flag.name for flag in config._flags),
        "previews": sorted(feature.name for feature, on in config._previews.items() if on),
        "pools": {pool.name: size for pool, size in config._pools.items()},
        "profiles": [
            {name: [list(sizes) for sizes in ranges] for name, ranges in profile._ranges.items()}
            for profile in config._profiles
        ],
        "capabilities": [getattr(c, "name", None) for c in config._capabilities],
        "options": {
            name: getattr(value, "name", value)
            for name, value in config._changed().items()
            if isinstance(value, int | float | str) or hasattr(value, "name")
        },
    }
