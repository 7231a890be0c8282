# SPDX-License-Identifier: Apache-2.0
"""Runtimes of a double: plans are read again, contexts keep what they are told and run nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trtpack_runtime import dims

from .building import MAGIC, BuilderOf

_STRIPPED = {"STRIP_PLAN", "WEIGHTLESS"}
_REFITS = {"REFIT", "REFIT_IDENTICAL", "REFIT_INDIVIDUAL", *_STRIPPED}


class RuntimeOf:
    """``Runtime``."""

    _trt: Any
    _values: dict[str, Any]
    _do_init = BuilderOf._do_init
    _get_logger = BuilderOf._get_logger
    _log = BuilderOf._log
    _get_num_DLA_cores = BuilderOf._get_num_DLA_cores

    def _get_engine_host_code_allowed(self) -> bool:
        return bool(self._values.get("engine_host_code_allowed"))

    def _do_deserialize_cuda_engine(
        self, serialized_engine: Any = None, stream_reader: Any = None, stream_reader_v2: Any = None
    ) -> Any:
        trt, blob = self._trt, bytes(serialized_engine)
        try:
            record = json.loads(blob.removeprefix(MAGIC)) if blob.startswith(MAGIC) else None
        except ValueError:
            record = None
        if record is None:
            self._log("ERROR", "deserializeCudaEngine: Magic tag does not match, or truncated plan")
            return None
        flags = set(record["flags"])
        if "VERSION_COMPATIBLE" in flags:
            if not self._get_engine_host_code_allowed():
                self._log("ERROR", "deserializeCudaEngine: host code is not allowed")
                return None
        elif record["version"] != trt.__version__:
            wants = f"expecting library version {trt.__version__} got {record['version']}"
            self._log("ERROR", f"The engine plan file is not compatible: {wants}, please rebuild.")
            return None
        if record["device"] != trt._controls.device:
            self._log("ERROR", f"The engine was generated on {record['device']}")
            return None
        engine = trt.ICudaEngine._made(log=self._log, record=record, held=set())
        if not flags & _STRIPPED:
            engine._held |= set(record["weights"])
        return engine


class EngineOf:
    """``ICudaEngine``; ``_held`` are the names of the weights it has."""

    _trt: Any
    _log: Any
    _record: dict[str, Any]
    _held: set[str]

    def _io(self) -> list[dict[str, Any]]:
        return [*self._record["inputs"], *self._record["outputs"]]

    def _of(self, name: str) -> dict[str, Any]:
        found = [tensor for tensor in self._io() if tensor["name"] == name]
        if not found:
            raise RuntimeError(f"there is no tensor {name}")
        return found[0]

    def _get_num_io_tensors(self) -> int:
        return len(self._io())

    def _get_num_layers(self) -> int:
        return len(self._record["layers"])

    def _get_num_optimization_profiles(self) -> int:
        return max(1, len(self._record["profiles"]))

    def _get_refittable(self) -> bool:
        return bool(_REFITS & set(self._record["flags"]))

    def _get_device_memory_size(self) -> int:
        return 4096

    _get_device_memory_size_v2 = _get_device_memory_size

    def _do_get_tensor_name(self, index: int) -> str:
        return str(self._io()[index]["name"])

    def _do_get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        return modes.INPUT if self._of(name) in self._record["inputs"] else modes.OUTPUT

    def _do_get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt.DataType, self._of(name)["dtype"])

    def _do_get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of(name)["shape"])

    def _do_get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        ranges = self._ranges(profile_index)
        shape = tuple(self._of(name)["shape"])
        return [tuple(sizes) for sizes in ranges.get(name, [shape] * 3)]

    def _ranges(self, profile: int) -> dict[str, Any]:
        profiles = self._record["profiles"]
        return profiles[profile] if profiles else {}

    def _do_create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        return self._context(memory=getattr(strategy, "name", None) != "USER_MANAGED")

    def _do_create_execution_context_without_device_memory(self) -> Any:
        return self._context(memory=False)

    def _context(self, *, memory: bool) -> Any:
        if self._held < set(self._record["weights"]):
            self._log("ERROR", "createExecutionContext: the engine's weights are missing")
            return None
        return self._trt.IExecutionContext._made(
            log=self._log,
            engine=self,
            shapes={},
            addresses={},
            profile=0,
            listener=None,
            watched={},
            memory=memory,
        )

    def _do_create_engine_inspector(self) -> Any:
        return self._trt.EngineInspector._made(log=self._log, engine=self)

    def _do_is_debug_tensor(self, name: str) -> bool:
        return name in self._record["debug"]


class ContextOf:
    """``IExecutionContext``."""

    _trt: Any
    _log: Any
    _engine: Any
    _profile: int
    _shapes: dict[str, tuple[int, ...]]
    _addresses: dict[str, int]
    _watched: dict[str, bool]
    _listener: Any
    _memory: Any
    """True: its own. False: none yet. A number: the address it was given."""

    def _get_engine(self) -> Any:
        return self._engine

    def _get_active_optimization_profile(self) -> int:
        return self._profile

    def _set_active_optimization_profile(self, value: int) -> None:
        self._do_set_optimization_profile_async(value, 0)

    def _do_set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self._engine.num_optimization_profiles:
            self._log("ERROR", f"setOptimizationProfileAsync: there is no profile {profile_index}")
            return False
        self._profile = profile_index
        return True

    def _do_set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _, high = self._engine._do_get_tensor_profile_shape(name, self._profile)
        given = tuple(shape)
        if len(given) != len(low) or not all(
            a <= size <= b for a, size, b in zip(low, given, high, strict=True)
        ):
            self._log("ERROR", f"setInputShape: {name} takes {low} to {high}, got {given}")
            return False
        self._shapes[name] = given
        return True

    def _do_get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._shapes:
            return self._shapes[name]
        symbols = {}
        for tensor in self._engine._record["inputs"]:
            sizes = self._shapes.get(tensor["name"], (-1,) * len(tensor["dims"]))
            for size, stored in zip(sizes, tensor["dims"], strict=True):
                for symbol in dims.atoms(dims.from_json(stored)):
                    symbols[symbol] = size
        stored = self._engine._of(name)["dims"]
        sizes = [dims.evaluate(dims.from_json(s), lambda *symbol: symbols[symbol]) for s in stored]
        return tuple(-1 if size < 0 else size for size in sizes)

    def _do_set_tensor_address(self, name: str, memory: int) -> bool:
        self._engine._of(name)
        self._addresses[name] = memory
        return bool(memory)

    def _do_get_tensor_address(self, name: str) -> int:
        return self._addresses.get(name, 0)

    def _do_infer_shapes(self) -> list[str]:
        inputs = self._engine._record["inputs"]
        return [t["name"] for t in inputs if -1 in t["shape"] and t["name"] not in self._shapes]

    def _do_execute_async_v3(self, stream_handle: int) -> bool:
        missing = [t["name"] for t in self._engine._io() if t["name"] not in self._addresses]
        missing += self._do_infer_shapes()
        for name in missing:
            self._log("ERROR", f"enqueueV3: {name} has no address or shape")
        if not self._memory:
            self._log("ERROR", "enqueueV3: the context has no device memory")
        return not missing and bool(self._memory)

    def _do_set_device_memory(self, memory: int, size: int) -> None:
        if size < self._engine._get_device_memory_size():
            self._log("ERROR", f"setDeviceMemoryV2: {size} bytes are too few")
        else:
            self._memory = memory

    def _set_device_memory(self, value: int) -> None:
        self._memory = value

    def _do_set_debug_listener(self, listener: Any) -> bool:
        self._listener = listener
        return True

    def _do_set_tensor_debug_state(self, name: str, flag: bool) -> bool:
        self._watched[name] = flag
        return name in self._engine._record["debug"]

    def _do_get_debug_state(self, name: str) -> bool:
        return self._watched.get(name, False)


class RefitterOf:
    """``Refitter``."""

    _trt: Any
    _log: Any

    def _do_init(self, engine: Any, logger: Any) -> None:
        self._engine, self._logger = engine, logger
        self._given: dict[str, Any] = {}
        if not engine.refittable:
            raise RuntimeError("Refitter: the engine is not refittable")

    def _do_get_all_weights(self) -> list[str]:
        return sorted(self._engine._record["weights"])

    def _do_get_missing_weights(self) -> list[str]:
        return sorted(set(self._engine._record["weights"]) - self._engine._held - set(self._given))

    def _do_get_weights_prototype(self, weights_name: str) -> Any:
        dtype, count = self._engine._record["weights"][weights_name]
        return self._trt.Weights(getattr(self._trt.DataType, dtype), 0, count)

    def _do_set_named_weights(self, name: str, weights: Any, location: Any = None) -> bool:
        if not isinstance(weights, self._trt.Weights):
            weights = self._trt.Weights(weights)
        form = self._engine._record["weights"].get(name)
        if form != [weights.dtype.name, len(weights)]:
            text = f"setNamedWeights: {name} are {form}, got {weights.dtype.name} {len(weights)}"
            self._logger.log(self._trt.Logger.ERROR, text)
            return False
        self._given[name] = weights
        return True

    def _do_refit_cuda_engine(self) -> bool:
        if self._do_get_missing_weights():
            return False
        self._engine._held |= set(self._given)
        return True

    def _do_refit_cuda_engine_async(self, stream_handle: int) -> bool:
        return self._do_refit_cuda_engine()


class InspectorOf:
    """``EngineInspector``: what its verbosity lets it tell."""

    _engine: Any
    _trt: Any

    def _layer(self, layer: dict[str, Any]) -> Any:
        options = self._engine._record["options"]
        if options.get("profiling_verbosity") != "DETAILED":
            return layer["name"]
        return {"Name": layer["name"], "LayerType": layer["kind"]} | (
            {"Metadata": layer["metadata"]} if "metadata" in layer else {}
        )

    def _do_get_engine_information(self, format: Any) -> str:
        layers = [self._layer(layer) for layer in self._engine._record["layers"]]
        return json.dumps({"Layers": layers, "Bindings": [t["name"] for t in self._engine._io()]})

    def _do_get_layer_information(self, layer_index: int, format: Any) -> str:
        return json.dumps(self._layer(self._engine._record["layers"][layer_index]))
