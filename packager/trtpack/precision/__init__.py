# SPDX-License-Identifier: Apache-2.0
"""In which type every operator computes: asked for, decided by rules and measured ranges, told."""
