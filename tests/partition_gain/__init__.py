# SPDX-License-Identifier: Apache-2.0
"""What choosing by cost gains: three operators of a model are forced to PyTorch, then its
partitions are timed in turns. ``scripts/partition_gain`` runs it."""
