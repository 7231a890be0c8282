# SPDX-License-Identifier: Apache-2.0
"""Holds a real TensorRT against the evaluator, many small networks to an engine."""
