# SPDX-License-Identifier: Apache-2.0
"""Finds the scales of a model's values from data: what post-training quantization needs."""
