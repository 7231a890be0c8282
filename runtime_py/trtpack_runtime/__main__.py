# SPDX-License-Identifier: Apache-2.0
"""``python -m trtpack_runtime`` is the command ``trtpack``."""

from .cli import main

main()
