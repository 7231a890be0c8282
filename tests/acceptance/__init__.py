# SPDX-License-Identifier: Apache-2.0
"""What ``scripts/gpu_acceptance`` runs on a machine with an NVIDIA GPU and TensorRT."""
