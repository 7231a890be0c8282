# SPDX-License-Identifier: Apache-2.0
"""What ``--tune`` finds for models of the zoo: run by ``scripts/tune_gain``."""
