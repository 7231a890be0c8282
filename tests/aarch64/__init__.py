# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/aarch64_smoke`` does: bundles of this machine on an old PyTorch for Arm."""

from __future__ import annotations

KEPT_IN_PYTORCH = {
    "dlrm": ("aten.bmm",),
    "gcn_scatter": (),
    "lstm_net": (),
    "opacus_cifar10": ("aten.relu",),
    "pyhpc_turbulent_kinetic_energy": ("aten.where",),
}
"""Models of the zoo that an emulated machine runs in minutes, and the operators that are kept in
PyTorch, so that TensorRT's segments and PyTorch's take turns."""
