# SPDX-License-Identifier: Apache-2.0
"""Imports torchvision where its compiled operators do not load."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_TV_SCHEMAS = [
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)",
    "ps_roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio) -> (Tensor, Tensor)",
    "ps_roi_pool(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width) -> (Tensor, Tensor)",
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
]
_tv_lib = None


def _nms_py(dets, scores, thr):
    order = scores.argsort(descending=True)
    area = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    keep, dead = [], torch.zeros(len(scores), dtype=torch.bool)
    for i in order.tolist():
        if dead[i]:
            continue
        keep.append(i)
        lt = torch.maximum(dets[i, :2], dets[:, :2])
        rb = torch.minimum(dets[i, 2:], dets[:, 2:])
        inter = (rb - lt).clamp(min=0).prod(1)
        dead |= inter / (area[i] + area - inter) > thr
    return torch.tensor(keep, dtype=torch.int64)


def import_torchvision():
    """Import torchvision even where its compiled ops do not load (a CUDA wheel beside a CPU torch):
    then its operator schemas are declared here, with Python kernels for nms and roi_align."""
    global _tv_lib
    if "torchvision" in sys.modules:
        return sys.modules["torchvision"]
    root = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
    so = list(root.glob("_C*.so"))
    ok = bool(so)
    for f in so:
        try:
            torch.ops.load_library(f)
        except (OSError, RuntimeError):
            ok = False
    try:
        torch.ops.torchvision.nms  # noqa: B018
    except (AttributeError, RuntimeError):
        ok = False
    if not ok:
        _tv_lib = torch.library.Library("torchvision", "FRAGMENT")
        for s in _TV_SCHEMAS:
            _tv_lib.define(s)
    import torchvision

    if not ok:
        from torchvision import extension
        from torchvision.ops.roi_align import _roi_align

        for m in list(sys.modules.values()):  # several modules imported the function by name
            if getattr(m, "__name__", "").startswith("torchvision") and hasattr(m, "_has_ops"):
                m._has_ops = lambda: True
        assert extension._has_ops()
        from torchvision import _meta_registrations as meta

        _tv_lib.impl("roi_align", meta.meta_roi_align, "Meta")
        _tv_lib.impl("nms", _nms_py, "CPU")
        _tv_lib.impl(
            "roi_align", lambda x, r, s, h, w, n, a: _roi_align(x, r, s, h, w, n, a), "CPU"
        )
    return torchvision
