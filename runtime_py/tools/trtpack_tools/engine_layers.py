# SPDX-License-Identifier: Apache-2.0
"""The layers of a built engine, with the modules of the model they came from."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtpack_runtime.builders import BUILDERS, Site, Work
from trtpack_runtime.bundle import Bundle
from trtpack_runtime.engines import Verdict, engine, tensorrt_module
from trtpack_runtime.engines._child import ask
from trtpack_runtime.errors import BundleError, ConfigError, DeviceError
from trtpack_runtime.finish import Stores, Workshop, finish_segment
from trtpack_runtime.manifest import EngineRef
from trtpack_runtime.own_engines import own_engines
from trtpack_runtime.segments import TENSORRT_KINDS, FoundSegment

from .build_seeds import build_options, seed_tactics
from .origins import Origin, Origins

_BITS = (
    (re.compile(r"FP32|Float\b|INT32|Int32", re.IGNORECASE), 32),
    (re.compile(r"FP16|BF16|Half|BFloat16", re.IGNORECASE), 16),
    (re.compile(r"INT64", re.IGNORECASE), 64),
    (re.compile(r"INT8|FP8|BOOL|UINT8", re.IGNORECASE), 8),
)


@dataclass(frozen=True)
class EngineTensor:
    """A tensor between an engine's layers: ``format`` is TensorRT's words for layout and type."""

    name: str
    shape: tuple[int, ...]
    format: str

    @property
    def nbytes(self) -> int | None:
        """Its size without padding; None where a size is open or the type unknown."""
        if any(size < 0 for size in self.shape):
            return None
        for pattern, bits in _BITS:
            if pattern.search(self.format):
                return math.prod(self.shape) * bits // 8
        return None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "shape": list(self.shape), "format": self.format}


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine. Of an engine without details only the name is known.

    ``weights`` counts the numbers of its weights; ``origins`` are the network's layers in it.
    """

    name: str
    kind: str = ""
    tactic: str = ""
    inputs: tuple[EngineTensor, ...] = ()
    outputs: tuple[EngineTensor, ...] = ()
    weights: int = 0
    origins: tuple[Origin, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "kind": self.kind or None,
            "tactic": self.tactic or None,
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "weights": self.weights,
            "origins": [origin.to_json() for origin in self.origins],
        }


@dataclass(frozen=True)
class InspectedEngine:
    """What TensorRT tells of an engine of ``nbytes``; ``figures`` and ``tensors`` are as
    ``engines/_inspect.py`` answers them."""

    version: str
    nbytes: int
    layers: tuple[EngineLayer, ...]
    tensors: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, Any]

    @property
    def detailed(self) -> bool:
        """Whether more than the layers' names is known."""
        return any(layer.kind for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "version": self.version,
            "bytes": self.nbytes,
            "detailed": self.detailed,
            "figures": dict(self.figures),
            "tensors": [dict(tensor) for tensor in self.tensors],
            "layers": [layer.to_json() for layer in self.layers],
        }


def read_layers(information: Sequence[Any], origins: Origins) -> tuple[EngineLayer, ...]:
    """The inspector's layers, each an object or only a name."""
    return tuple(_layer(item, origins) for item in information)


def inspect_engine(
    bundle: Bundle,
    found: FoundSegment,
    facts: Mapping[str, Any],
    *,
    detailed: bool = False,
    trust: bool = False,
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> InspectedEngine:
    """Has TensorRT read the engine of a segment, in a child process.

    With ``detailed`` an engine with details is built of the segment for it, with the tactics that
    are known; ``on_progress`` is told how that goes.

    Raises:
        ConfigError: it is no TensorRT engine.
        BundleError: there is no engine yet, or one of another version or machine.
        DeviceError: this machine cannot read it: no GPU, or no TensorRT.
        EngineBuildError: TensorRT cannot build the engine with details.
    """
    ref = found.ref
    if ref is None or ref.kind not in TENSORRT_KINDS or found.network is None:
        raise ConfigError(
            f"{found} runs by {ref.kind if ref else 'reference'}, which has no layers of its own",
            hint="name a segment with a TensorRT engine, see them with: trtpack inspect",
        )
    source: Path | bytes
    with tempfile.TemporaryDirectory(prefix="trtpack-") as scratch:
        if detailed:
            source, record = _with_details(bundle, found, facts, Path(scratch), on_progress)
        else:
            source, record = _built(bundle, found, ref, facts, Path(scratch))
        told = ask(
            tensorrt_module(ref.kind),
            "inspect",
            {"record": dict(record), "trust": trust or isinstance(source, Path)},
            name=str(found),
            inputs={"plan": source},
        )
        nbytes = source.stat().st_size if isinstance(source, Path) else len(source)
    layers = read_layers(told["layers"], Origins(found.network))
    return InspectedEngine(told["version"], nbytes, layers, tuple(told["tensors"]), told["engine"])


def _with_details(
    bundle: Bundle,
    found: FoundSegment,
    facts: Mapping[str, Any],
    scratch: Path,
    on_progress: Callable[[Mapping[str, Any]], None] | None,
) -> tuple[Path, Mapping[str, Any]]:
    """An engine built as the segment's own, only with details."""
    assert found.ref is not None
    assert found.network is not None
    site = Site(facts, bundle.manifest.variants[found.variant].target)
    reason = BUILDERS[found.kind].cannot_run(site)
    if reason is not None:
        raise DeviceError(
            f"cannot build {found} here: {reason}",
            hint="run this on the device, or leave out --detailed",
        )
    options = replace(build_options(found.ref), detailed=True, locked=False)
    weights = [bundle.file_part(member) for member in bundle.manifest.weights.members]
    tactics = seed_tactics(bundle, found.variant, found.kind, facts)
    work = Work(str(found), found.network, weights, options.to_json(), tactics)
    plan = scratch / "detailed.plan"
    return plan, BUILDERS[found.kind].build(work, plan, site, on_progress).record


def _built(
    bundle: Bundle, found: FoundSegment, ref: EngineRef, facts: Mapping[str, Any], scratch: Path
) -> tuple[Path | bytes, Mapping[str, Any]]:
    """A segment's engine with its record: the bundle's, else the one this machine built before."""
    stores = Stores()
    own = own_engines(bundle, facts, stores.engines, build=False).get((found.variant, found.name))
    if own is not None and own.fit == "exact":
        shop = Workshop(facts, scratch, stores)
        stored = finish_segment(bundle, found.variant, found.name, shop)
        return stored.path, stored.record
    if ref.member is None:
        raise BundleError(
            f"{found} has no engine yet: {ref.deferred or 'none was built'}",
            hint="build it on the device with: trtpack finish",
        )
    verdict = engine(ref.kind).check(ref.record, facts)
    if not verdict.usable:
        raise _cannot_read(found, verdict)
    return bytes(bundle.member(ref.member)), ref.record


def _cannot_read(found: FoundSegment, verdict: Verdict) -> BundleError | DeviceError:
    """Why an engine cannot be used here."""
    message = f"cannot read the engine of {found} here: {verdict.reason}"
    if verdict.fit == "rebuild":
        return BundleError(message, hint="run this on the machine that it was built for")
    return DeviceError(
        message, hint="run this on the device, trtpack doctor shows what a machine has"
    )


def _layer(item: Any, origins: Origins) -> EngineLayer:
    if not isinstance(item, Mapping):
        return EngineLayer(str(item), origins=origins.of(str(item)))
    name = str(item.get("Name", ""))
    weights = (item.get(key) for key in ("Weights", "Bias"))
    return EngineLayer(
        name,
        kind=str(item.get("LayerType", "")),
        tactic=str(item.get("TacticName") or item.get("TacticValue") or ""),
        inputs=_tensors(item.get("Inputs")),
        outputs=_tensors(item.get("Outputs")),
        weights=sum(int(w.get("Count", 0)) for w in weights if isinstance(w, Mapping)),
        origins=origins.of(name, str(item.get("Metadata", ""))),
    )


def _tensors(items: Any) -> tuple[EngineTensor, ...]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        return ()
    return tuple(
        EngineTensor(
            str(item.get("Name", "")),
            tuple(int(size) for size in item.get("Dimensions") or ()),
            str(item.get("Format/Datatype") or item.get("Format") or ""),
        )
        for item in items
        if isinstance(item, Mapping)
    )
