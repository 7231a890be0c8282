# SPDX-License-Identifier: Apache-2.0
"""Values of layers' properties that nobody has set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "IConvolutionLayer": {"num_groups": 1},
    "IDeconvolutionLayer": {"num_groups": 1},
    "INormalizationLayer": {"epsilon": 1e-5, "num_groups": 1},
    "IShuffleLayer": {"zero_is_placeholder": True},
    "IConcatenationLayer": {"axis": 0},
    "IGatherLayer": {"axis": 0},
    "IGridSampleLayer": {"align_corners": False},
    "IAttention": {"decomposable": False, "causal": False},
    "ISoftMaxLayer": {"axes": 1},
}
"""Values of properties that nobody has set; enum properties have their first member."""


ENUM_PROPERTIES: Mapping[str, Mapping[str, str]] = {
    "IPoolingLayer": {"padding_mode": "PaddingMode.EXPLICIT_ROUND_DOWN"},
    "ISliceLayer": {"mode": "SampleMode.STRICT_BOUNDS"},
    "IResizeLayer": {
        "resize_mode": "InterpolationMode.NEAREST",
        "coordinate_transformation": "ResizeCoordinateTransformation.ASYMMETRIC",
        "selector_for_single_pixel": "ResizeSelector.FORMULA",
        "nearest_rounding": "ResizeRoundMode.FLOOR",
    },
    "IGridSampleLayer": {
        "interpolation_mode": "InterpolationMode.LINEAR",
        "sample_mode": "SampleMode.STRICT_BOUNDS",
    },
    "ITopKLayer": {"indices_type": "DataType.INT32"},
    "INonZeroLayer": {"indices_type": "DataType.INT32"},
    "INMSLayer": {
        "indices_type": "DataType.INT32",
        "bounding_box_format": "BoundingBoxFormat.CORNER_PAIRS",
    },
}
"""Enum properties with TensorRT's default; another type than the enum's is refused."""
