# SPDX-License-Identifier: Apache-2.0
"""How much memory a bundle takes where it runs, told before anything of it is loaded.

What is counted, on a GPU:

    an engine's weights: its record's figure, else its plan's size, else its network's constants
  + the scratch memory of one execution context of each engine: its record's figure, else a bound
    that no fusion of layers can save
  + the stored tensors of segments that PyTorch runs, each once, and the most of their
    activations that live at one time
  + the methods' inputs and outputs
  + CUDA's own memory, where this process has none yet

On a CPU weights are mapped and can be dropped by the system, so only activations count. Sizes are
those of the best shapes, for contexts of the largest. PyTorch's segments that are no networks tell
no sizes: of those only the tensors they read count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import dims
from .bundle import Bundle
from .dtypes import DTYPES
from .engine_file import OwnFile
from .engines import _estimate
from .manifest import Method, TensorSpec
from .network import Network
from .picking import Picked, pick
from .resolve import Choice
from .segments import TENSORRT_KINDS, FoundSegment, every_segment

CUDA_BYTES = 320 << 20
"""What a CUDA context and its libraries' kernels take of a GPU's memory, about."""

RECORDED = "memory"
"""The key of an engine's record with ``weights_bytes`` and ``context_bytes``."""


@dataclass(frozen=True)
class Part:
    """Something that takes memory. ``certain``: it is known, not estimated."""

    what: str
    nbytes: int
    certain: bool = True


@dataclass(frozen=True)
class MemoryPlan:
    """What a module is predicted to take, and what it took.

    ``context_bytes`` is what a further thread's execution contexts take, ``contexts`` how many
    there may be. ``free_bytes`` was free before; ``measured_bytes`` is the most the module was seen
    to take. Both are None where the device does not tell.
    """

    parts: tuple[Part, ...]
    context_bytes: int = 0
    contexts: int = 1
    free_bytes: int | None = None
    measured_bytes: int | None = None

    @property
    def least_bytes(self) -> int:
        """What it takes for sure."""
        return sum(part.nbytes for part in self.parts if part.certain)

    @property
    def predicted_bytes(self) -> int:
        """What it takes most likely, called by one thread."""
        return sum(part.nbytes for part in self.parts)

    @property
    def most_bytes(self) -> int:
        """What it takes with an execution context for every thread it may have."""
        return self.predicted_bytes + self.context_bytes * (self.contexts - 1)

    def within(self, free_bytes: int) -> MemoryPlan:
        """The plan with as many contexts as there is room for, one at the least."""
        room = free_bytes - self.predicted_bytes
        fit = self.contexts
        if self.context_bytes and self.most_bytes > free_bytes:
            fit = 1 + max(0, room // self.context_bytes)
        return replace(self, contexts=fit, free_bytes=free_bytes)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "predicted_bytes": self.predicted_bytes,
            "least_bytes": self.least_bytes,
            "measured_bytes": self.measured_bytes,
            "free_bytes": self.free_bytes,
            "contexts": self.contexts,
            "context_bytes": self.context_bytes,
            "parts": [
                {"what": p.what, "bytes": p.nbytes, "certain": p.certain} for p in self.parts
            ],
        }


def memory_plan(
    bundle: Bundle,
    choice: Choice,
    own: Mapping[str, OwnFile],
    avoided: Mapping[str, str],
    *,
    on_gpu: bool,
    contexts: int = 1,
    cuda_bytes: int = 0,
) -> MemoryPlan:
    """What a variant takes on a device.

    Args:
        bundle: the bundle.
        choice: the variant, and which of its engines fit.
        own: engines of this machine that take the place of the bundle's, by segment.
        avoided: segments that PyTorch runs whatever engines they have.
        on_gpu: whether weights are copied to the device.
        contexts: how many execution contexts an engine may have.
        cuda_bytes: what CUDA itself is still to take.

    Raises:
        BundleError: the bundle is damaged.
    """
    refs = bundle.manifest.variants[choice.variant].engines
    parts = [Part("CUDA", cuda_bytes, certain=False)] if cuda_bytes else []
    further, working, portable = 0, 0, []
    segments = list(every_segment(bundle, choice.variant))
    for found in segments:
        picked = None
        if found.name not in avoided:
            picked = pick(choice, found.name, refs.get(found.name), own.get(found.name))
        if picked is None or picked.kind not in TENSORRT_KINDS:
            portable.append(found)
            working = max(working, _activations(found.network))
            continue
        weights, context = engine_parts(bundle, picked, found.network)
        parts += [weights, context]
        further += context.nbytes
    if on_gpu:
        names = set(bundle.weights)  # a module without engines moves as a whole
        if len(portable) < len(segments):
            names = {name for found in portable for name in _stored(found)}
        parts.append(Part("PyTorch's weights", _nbytes(bundle, names)))
    parts.append(Part("PyTorch's activations", working, certain=False))
    methods = bundle.manifest.methods.values()
    parts.append(Part("inputs and outputs", max(map(_border_bytes, methods), default=0)))
    return MemoryPlan(tuple(part for part in parts if part.nbytes), further, contexts)


def engine_parts(bundle: Bundle, picked: Picked, network: Network | None) -> tuple[Part, Part]:
    """An engine's weights, and one execution context of it."""
    told = picked.record.get(RECORDED) or {}
    name, size = picked.segment, picked.nbytes(bundle)
    if picked.record.get("weights") == "stripped" and network is not None:
        size += _estimate.weight_bytes(network)
    weights = Part(f"engine {name}", told.get("weights_bytes", size))
    if "context_bytes" in told:
        return weights, Part(f"context of {name}", told["context_bytes"])
    bound = 0 if network is None else _estimate.activation_bytes(network)
    return weights, Part(f"context of {name}", bound, certain=False)


def _activations(network: Network | None) -> int:
    """The most of a network's tensors that live at one time in PyTorch, at its best shapes."""
    return 0 if network is None else _estimate.peak_bytes(network)


def _stored(found: FoundSegment) -> set[str]:
    """The stored tensors that a segment reads."""
    if found.network is not None:
        return {constant.data for constant in found.network.constants.values()}
    return set(_named(found.segment.graph))


def _named(value: Any) -> Iterator[str]:
    """The stored tensors that an ATen graph names."""
    match value:
        case {"constant": str(name)}:
            yield name
        case dict():
            for item in value.values():
                yield from _named(item)
        case list() | tuple():
            for item in value:
                yield from _named(item)


def _nbytes(bundle: Bundle, names: Iterable[str]) -> int:
    """The bytes of stored tensors; those that share their bytes count once."""
    views = bundle.weights
    found = {views[name].same_as or name for name in names if name in views}
    return sum(views[name].nbytes for name in found)


def _border_bytes(method: Method) -> int:
    """A method's inputs and outputs at its best shapes."""
    known = {
        (spec.name, axis): size
        for spec in method.inputs
        for axis, size in enumerate(spec.opt or spec.shape)
        if isinstance(size, int)
    }

    def nbytes(spec: TensorSpec) -> int:
        sizes = [
            0 if size is None else dims.evaluate(size, lambda n, a: known.get((n, a), 0))
            for size in spec.shape
        ]
        return DTYPES[spec.dtype].nbytes(math.prod(sizes))

    return sum(map(nbytes, (*method.inputs, *method.outputs)))
