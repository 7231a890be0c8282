# SPDX-License-Identifier: Apache-2.0
"""Container images of one bundle: their recipe, their build context, and an engine to build them.

Called so and not ``docker``, which would hide the SDK of that name.
"""

from __future__ import annotations

from .context import check_place, write_context
from .dockerfile import dockerfile, run_flags
from .recipe import Recipe, recipe_for

__all__ = [
    "Recipe",
    "check_place",
    "dockerfile",
    "recipe_for",
    "run_flags",
    "write_context",
]
