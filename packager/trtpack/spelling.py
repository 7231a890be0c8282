# SPDX-License-Identifier: Apache-2.0
"""What somebody may have meant who wrote a name that is not there: as the runtime says it."""

from __future__ import annotations

from trtpack_runtime.spelling import nearest as nearest
