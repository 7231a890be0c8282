# SPDX-License-Identifier: Apache-2.0
"""What memory a network needs at the least, before TensorRT is asked.

The bound is what no fusion can save:

    weights, each stored tensor once
  + network inputs and outputs, at the largest shapes of a profile
  + the most that lives at one time of what convolutions read, at the same shapes

Chains of pointwise layers, products and softmaxes may become one kernel, alone or behind a
convolution, so what passes between them is not counted. A build that fits this may still fail; one
that does not fit cannot succeed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from trtpack_runtime import dims
from trtpack_runtime.dtypes import DTYPES
from trtpack_runtime.errors import DeviceError
from trtpack_runtime.network import Network, Profile, Tensor

_READ_WHOLE = frozenset({"convolution_nd", "deconvolution_nd"})
_BEST, _LARGEST = 1, 2
_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def least_bytes(network: Network) -> int:
    """The lower bound, in bytes."""
    return weight_bytes(network) + activation_bytes(network)


def weight_bytes(network: Network) -> int:
    """The bytes of the stored tensors that a network reads."""
    sizes = {
        constant.data: DTYPES[constant.dtype].nbytes(math.prod(constant.shape))
        for constant in network.constants.values()
    }
    return sum(sizes.values())


def activation_bytes(network: Network) -> int:
    """The lower bound without the weights: what one execution context needs for its largest
    profile."""
    profiles: Iterable[Profile | None] = network.profiles or (None,)
    return max(_activation_bytes(network, profile) for profile in profiles)


def peak_bytes(network: Network) -> int:
    """The most that lives at one time where every layer runs by itself, as in PyTorch, at the best
    shapes of the first profile."""
    profile = network.profiles[0] if network.profiles else None
    sizes = _sizes(network, profile, _BEST)
    last = {name: i for i, layer in enumerate(network.layers) for name in layer.operand_names()}
    last |= dict.fromkeys(network.outputs, len(network.layers))
    live = {tensor.name for tensor in network.inputs}
    most = sum(sizes[name] for name in live)
    for i, layer in enumerate(network.layers):
        live |= set(layer.outputs)
        most = max(most, sum(sizes[name] for name in live))
        live = {name for name in live if last.get(name, 0) > i}
    return most


def check_memory(network: Network, memory_bytes: int) -> None:
    """Refuses a network that surely does not fit.

    Raises:
        DeviceError: it says how much it needs and how much there is.
    """
    needs = least_bytes(network)
    if needs > memory_bytes:
        raise DeviceError(
            f"this network needs about {_text(needs)}, the GPU has {_text(memory_bytes)}",
            hint="build for a smaller largest shape or in half precision, or for a larger GPU",
        )


def available_bytes(root: Path = Path("/")) -> int:
    """The host's memory that can be had without swapping; on a Jetson the GPU's too."""
    text = (root / "proc/meminfo").read_text(encoding="utf-8")
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _activation_bytes(network: Network, profile: Profile | None) -> int:
    """The most that lives at one time of the tensors no fusion can save."""
    if profile is None and not network.is_static:
        return 0
    sizes = _sizes(network, profile)
    bound = {tensor.name for tensor in network.inputs} | set(network.outputs)
    last: dict[str, int] = {}
    for i, layer in enumerate(network.layers):
        if layer.kind in _READ_WHOLE:
            last.update((name, i) for name in layer.operand_names() if name in sizes)
    live: set[str] = set()
    most = 0
    for i, layer in enumerate(network.layers):
        live |= {name for name in layer.outputs if name in last and name not in bound}
        most = max(most, sum(sizes[name] for name in live))
        live = {name for name in live if last[name] > i}
    return sum(sizes[name] for name in bound) + most


def _sizes(network: Network, profile: Profile | None, which: int = _LARGEST) -> Mapping[str, int]:
    """The bytes of every tensor at the profile's smallest, best or largest shapes.

    A size that only the data tells may be 0.
    """
    largest = {
        tensor.name: profile.shapes[tensor.name][which]
        if profile is not None and tensor.name in profile.shapes
        else tuple(size for size in tensor.shape if isinstance(size, int))
        for tensor in network.inputs
    }
    known: dict[tuple[str, int], int] = {
        (name, axis): size for name, shape in largest.items() for axis, size in enumerate(shape)
    }

    def nbytes(tensor: Tensor) -> int:
        shape = [dims.evaluate(size, lambda n, a: known.get((n, a), 0)) for size in tensor.shape]
        return DTYPES[tensor.dtype].nbytes(math.prod(max(0, size) for size in shape))

    return {t.name: nbytes(t) for t in (*network.inputs, *network.tensors.values())}


def _text(count: int) -> str:
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
