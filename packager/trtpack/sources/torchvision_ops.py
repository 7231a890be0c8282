# SPDX-License-Identifier: Apache-2.0
"""Imports torchvision, also where its compiled operators do not load.

The usual wheel of torchvision is built for CUDA. Beside a CPU-only torch its library fails to
load, and then the first import of torchvision fails too, since it registers shape functions for
operators that nobody declared. Their schemas are declared here in that case, with Python kernels
for those that models call in inference. Classification models need none of them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..errors import SourceError

_REGIONS = (
    "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
)
_SIZES = " ".join(f"SymInt {k}_h, SymInt {k}_w," for k in ("stride", "pad", "dilation"))
_DEFORM = f"Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {_SIZES}"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_REGIONS}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_REGIONS}) -> (Tensor, Tensor)",
    f"ps_roi_align({_REGIONS}, int sampling_ratio) -> (Tensor, Tensor)",
    f"ps_roi_pool({_REGIONS}) -> (Tensor, Tensor)",
    f"deform_conv2d({_DEFORM} SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
)

_declared: list[Any] = []  # a torch.library.Library unregisters its operators when it is collected


def import_torchvision() -> Any:
    """The torchvision module.

    Raises:
        SourceError: torchvision is not installed.
    """
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(
            "torchvision is not installed", hint="install it: pip install torchvision"
        )
    if _compiled_operators_load(Path(spec.submodule_search_locations[0])):
        import torchvision

        return torchvision
    library = torch.library.Library("torchvision", "FRAGMENT")
    _declared.append(library)
    for schema in _SCHEMAS:
        library.define(schema)
    import torchvision

    _implement(library)
    return torchvision


def _compiled_operators_load(folder: Path) -> bool:
    libraries = list(folder.glob("_C*.so"))
    try:
        for path in libraries:
            torch.ops.load_library(path)
    except (OSError, RuntimeError):
        return False
    return bool(libraries) and hasattr(torch.ops.torchvision, "nms")


def _implement(library: Any) -> None:
    from torchvision import _meta_registrations
    from torchvision.ops.roi_align import _roi_align

    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and module.__name__.startswith("torchvision"):
            names = vars(module)
            names.update({n: lambda: True for n in names if n == "_has_ops"})  # imported by name
    library.impl("nms", _nms, "CPU")
    library.impl("deform_conv2d", _meta_registrations.meta_deform_conv2d, "Meta")
    library.impl("deform_conv2d", _deform_conv2d, "CPU")
    library.impl("roi_align", _meta_registrations.meta_roi_align, "Meta")
    library.impl("roi_align", lambda *args: _roi_align(*args), "CPU")


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression of boxes [n, 4]; answers the kept indices, best score first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    suppressed = torch.zeros(len(scores), dtype=torch.bool)
    kept: list[int] = []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if suppressed[i]:
            continue
        kept.append(i)
        low = torch.maximum(boxes[i, :2], boxes[:, :2])
        high = torch.minimum(boxes[i, 2:], boxes[:, 2:])
        overlap = (high - low).clamp(min=0).prod(1)
        suppressed |= overlap / (areas[i] + areas - overlap) > iou_threshold
    return torch.tensor(kept, dtype=torch.int64)


def _deform_conv2d(
    image: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """A convolution of images that are sampled anew for each place of the kernel, in float32."""
    batch, (width, out) = len(image) * offset_groups, (weight.shape[3], offset.shape[2:])
    maps = image.float().reshape(batch, -1, *image.shape[2:])
    moved = offset.float().reshape(batch, -1, 2, *out)
    shares = mask.float().reshape(batch, -1, 1, *out) if use_mask else None
    sizes = torch.tensor(image.shape[:1:-1])
    rows, columns = (torch.arange(size) for size in out)
    sampled = []
    for place in range(weight[0, 0].numel()):
        y = (rows * stride_h - pad_h + place // width * dilation_h)[:, None] + moved[:, place, 0]
        x = columns * stride_w - pad_w + place % width * dilation_w + moved[:, place, 1]
        grid = (2 * torch.stack([x, y], -1) + 1) / sizes - 1
        there = torch.nn.functional.grid_sample(maps, grid, align_corners=False)
        sampled.append(there if shares is None else there * shares[:, place])
    read = torch.stack(sampled, 2).reshape(len(image), groups, -1, out.numel())
    product = weight.float().reshape(groups, len(weight) // groups, -1) @ read
    answer = product.reshape(len(image), -1, *out) + bias.float()[:, None, None]
    return answer.to(image.dtype)
