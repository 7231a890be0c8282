# SPDX-License-Identifier: Apache-2.0
"""Looks into bundles and changes them: profiles, accuracy, weights, caches of engines.

Works beside ``trtpack-runtime`` on the device as on the host. Nothing is imported until it is used.
"""

from __future__ import annotations

__version__ = "0.1.0"
