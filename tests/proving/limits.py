# SPDX-License-Identifier: Apache-2.0
"""Which trials a release of TensorRT cannot have, and where that is written."""

from __future__ import annotations

from tests.runtime.emission import missing
from tests.runtime.trt_double import releases
from trtpack_runtime.engines._weak import rounded
from trtpack_runtime.layers import KINDS
from trtpack_runtime.network import Layer, Network

_WHOLE = frozenset({"INT32", "INT64"})
_WITHOUT_WHOLE_NUMBERS = {"activation": "10.0", "topk": "10.0"}
"""Layer kinds that take whole numbers only since a release; NvInfer.h of 8.6 and 10.0."""


def numbers(version: str) -> tuple[int, int]:
    """``(8, 6)`` of ``"8.6.0"``."""
    first, second = version.split(".")[:2]
    return int(first), int(second)


def why_not(network: Network, version: str, *, rtx: bool = False) -> str | None:
    """Why TensorRT ``version`` cannot have a network; None where it should.

    TensorRT-RTX is told by ``rtx``, with the release of TensorRT whose networks it takes.
    """
    here = numbers(version)
    for layer in network.layers:
        if here < (10, 0) and (why := _fails_before_10(network, layer)):
            return f"{why} (measured on 8.6)"
        if rtx and not KINDS[layer.kind].rtx:
            return f"TensorRT-RTX has no {layer.kind}"
        if rtx and layer.kind == "deconvolution_nd" and _types(network, layer) == {"BF16"}:
            return "TensorRT-RTX 1.7 builds no deconvolution in BF16"
        since = KINDS[layer.kind].since
        if here < numbers(since):
            return f"{layer.kind} came with TensorRT {since}"
        whole = _WITHOUT_WHOLE_NUMBERS.get(layer.kind)
        first = next(iter(layer.operands.values()), ())
        if not whole or here >= numbers(whole) or not isinstance(first, str):
            continue
        if network.tensor(first).dtype in _WHOLE:
            return f"{layer.kind} takes whole numbers since TensorRT {whole}"
    if here < (10, 0) and (layer := next(rounded(network), None)):
        return f"TensorRT 8 rounds {layer.kind} in FLOAT beside HALF (measured on 8.6)"
    known = [name for name in releases() if name[0].isdigit() and numbers(name) <= here]
    if not known:
        return None
    lacking = missing(max(known, key=numbers), network)
    return f"TensorRT {version} has {lacking}" if lacking else None


def _fails_before_10(network: Network, layer: Layer) -> str | None:
    """What a layer does in engines of TensorRT 8, which converters therefore do not make of it."""
    given = layer.attributes
    if layer.kind == "elementwise" and given["op"] == "POW" and _types(network, layer) <= _WHOLE:
        return "TensorRT 8 raises no whole numbers to powers"
    if layer.kind == "grid_sample":
        way = given["interpolation_mode"], given["sample_mode"]
        if way[0] == "CUBIC" or way == ("LINEAR", "FILL"):
            return f"some kernels of TensorRT 8 sample {', '.join(way)} wrong"
    if KINDS[layer.kind].sized_by_data and network.is_static:
        return "TensorRT 8 makes no execution context of what data sizes where inputs are fixed"
    if layer.kind == "deconvolution_nd" and given["num_groups"] > 1:
        is_half = "HALF" in _types(network, layer)
        return "TensorRT 8 lacks some deconvolutions of groups in HALF" if is_half else None
    return None


def _types(network: Network, layer: Layer) -> set[str]:
    return {network.tensor(name).dtype for name in layer.operand_names()}
