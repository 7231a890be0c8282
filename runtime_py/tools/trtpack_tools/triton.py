# SPDX-License-Identifier: Apache-2.0
"""A model's configuration for NVIDIA Triton Inference Server.

Triton runs a plan as it is, so a variant fits where it is one TensorRT engine and nothing else.

``max_batch_size`` is how many requests Triton may join along the first dimension: the largest batch
of a profile, where every input and output begins with the same open size and that profile begins at
1. Triton then wants the shapes without that dimension, and every profile it is given must take that
batch, so narrower ones are left out. Else it is 0: shapes are given whole, with -1 for a size that
varies, and requests are never joined.

Source: Triton's ``model_config.proto`` and "Model Configuration".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trtpack_runtime.bundle import Bundle
from trtpack_runtime.dims import Dim, dim
from trtpack_runtime.errors import BundleError
from trtpack_runtime.network import Network, Tensor
from trtpack_runtime.segments import FoundSegment, every_segment

_TYPES = {
    "FLOAT": "TYPE_FP32",
    "HALF": "TYPE_FP16",
    "BF16": "TYPE_BF16",
    "INT8": "TYPE_INT8",
    "UINT8": "TYPE_UINT8",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "BOOL": "TYPE_BOOL",
}


@dataclass(frozen=True)
class Model:
    """A directory of a model repository: its name, the text of its configuration, its plan."""

    name: str
    config: str
    member: str


def model(bundle: Bundle, variant: str, name: str | None = None) -> Model:
    """The model that a variant is.

    Raises:
        BundleError: the variant is not one whole TensorRT engine, with the reason.
    """
    found = _the_engine(bundle, variant)
    assert found.network is not None
    assert found.ref is not None
    record = found.ref.record
    title = _file_name(name or bundle.manifest.name)
    text = config(title, found.network, record)
    return Model(title, text, found.ref.member or "")


def config(name: str, network: Network, record: Mapping[str, Any]) -> str:
    """The text of ``config.pbtxt``; ``record`` is the engine's compatibility record.

    Raises:
        BundleError: a type that Triton does not have.
    """
    inputs = list(network.inputs)
    outputs = [network.tensor(output) for output in network.outputs]
    batch, profiles = batching(network)
    narrow = _release(record) < 10
    version = record.get("tensorrt", "unknown")
    lines = [f"# TensorRT {version}, {record.get('device', 'unknown GPU')}"]
    if (record.get("options") or {}).get("version_compatible"):
        lines.append("# start Triton with --backend-config=tensorrt,version-compatible=true")
    lines += [
        f'name: "{name}"',
        'platform: "tensorrt_plan"',
        f"max_batch_size: {batch}",
        *_block("input", inputs, batch > 0, narrow),
        *_block("output", outputs, batch > 0, narrow),
    ]
    if len(network.profiles) > 1:
        numbers = ", ".join(f'"{i}"' for i in profiles)
        lines.append(f"instance_group [ {{ kind: KIND_GPU, profile: [ {numbers} ] }} ]")
    return "\n".join(lines) + "\n"


def batching(network: Network) -> tuple[int, tuple[int, ...]]:
    """How many requests Triton may join, 0 where shapes are to be given whole; and the numbers of
    the profiles that take so many, all of them where it is 0."""
    everyone = tuple(range(len(network.profiles)))
    if not _is_batched(network):
        return 0, everyone
    largest: dict[int, int] = {}
    for number, profile in enumerate(network.profiles):
        ranges = [profile.shapes[tensor.name] for tensor in network.inputs]
        if all(smallest[0] == 1 for smallest, _, _ in ranges):
            largest[number] = min(most[0] for _, _, most in ranges)
    batch = max(largest.values(), default=0)
    return batch, tuple(n for n, most in largest.items() if most == batch) or everyone


def _is_batched(network: Network) -> bool:
    """Whether every input and output begins with one and the same open size."""
    tensors = [*network.inputs, *(network.tensor(output) for output in network.outputs)]
    if not network.inputs or not network.profiles or not all(t.shape for t in tensors):
        return False
    batch: Dim = dim(network.inputs[0].name, 0)
    first = {network.inputs[0].name: batch}
    for tensor in tensors:
        own = first.get(tensor.name, tensor.shape[0])
        if isinstance(tensor.shape[0], int) or own != batch:
            return False
    return True


def _the_engine(bundle: Bundle, variant: str) -> FoundSegment:
    """The one segment of a variant, once everything that Triton cannot do is excluded."""
    everything = list(every_segment(bundle, variant))
    if len({found.program.method for found in everything}) > 1:
        raise _unfit(variant, "it has several methods")
    if len(everything) != 1:
        kinds = ", ".join(f"{found.name} ({found.kind})" for found in everything)
        raise _unfit(variant, f"it has {len(everything)} segments: {kinds or 'none'}")
    found = everything[0]
    if found.kind == "tensorrt-rtx":
        raise _unfit(
            variant,
            "Triton has no backend for TensorRT-RTX",
            hint="build the bundle for a target with TensorRT",
        )
    if found.kind != "tensorrt" or found.network is None or found.ref is None:
        raise _unfit(variant, f"{found.name} runs by {found.kind}")
    if found.ref.member is None:
        raise BundleError(
            f"{found} has no engine yet: {found.ref.deferred or 'none was built'}",
            hint="build it on the device with: trtpack finish",
        )
    if found.ref.record.get("weights") == "stripped" or found.ref.record.get("refit"):
        raise _unfit(
            variant,
            "its engine has no weights of its own and is refitted when it is loaded, "
            "which Triton does not do",
            hint="build the bundle with --engine-weights inside",
        )
    program = found.program
    if program.state:
        raise _unfit(variant, "it keeps state between calls")
    mapped = set(found.segment.outputs.values())
    others = [output for output in program.outputs if output not in mapped]
    if others:
        raise _unfit(variant, f"its output {_shown(others[0])} is not computed by the engine")
    unused = [v for v in program.inputs if v is not None and v not in found.segment.inputs.values()]
    if unused:
        raise _unfit(variant, f"its input {unused[0]!r} does not go into the engine")
    return found


def _shown(output: Any) -> str:
    return repr(output) if isinstance(output, str) else "that is no tensor"


def _unfit(variant: str, reason: str, hint: str = "") -> BundleError:
    return BundleError(
        f"{variant} cannot be a model of Triton: {reason}",
        hint=hint or "serve it with trtpack_runtime.load from a Python backend",
    )


def _block(what: str, tensors: Sequence[Tensor], batched: bool, narrow: bool) -> list[str]:
    lines = [f"{what} ["]
    for i, tensor in enumerate(tensors):
        comma = "," if i + 1 < len(tensors) else ""
        shape = tensor.shape[1:] if batched else tensor.shape
        sizes = ", ".join(str(size) if isinstance(size, int) else "-1" for size in shape)
        reshape = ""
        if not shape:  # Triton has no scalars
            sizes, reshape = "1", ", reshape: { shape: [ ] }"
        dtype = _type(tensor, narrow)
        lines.append(
            f'  {{ name: "{_escaped(tensor.name)}", data_type: {dtype}, '
            f"dims: [ {sizes} ]{reshape} }}{comma}"
        )
    return [*lines, "]"]


def _type(tensor: Tensor, narrow: bool) -> str:
    """Triton's type; engines of TensorRT 8 take INT64 as INT32."""
    name = "INT32" if narrow and tensor.dtype == "INT64" else tensor.dtype
    if name not in _TYPES:
        raise BundleError(
            f"Triton has no type for {tensor}", hint="build the model with inputs of another type"
        )
    return _TYPES[name]


def _release(record: Mapping[str, Any]) -> int:
    match = re.match(r"\d+", str(record.get("tensorrt", "")))
    return int(match[0]) if match else 10


def _file_name(name: str) -> str:
    """A name as a folder and as Triton's."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "model"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
