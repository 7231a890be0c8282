# SPDX-License-Identifier: Apache-2.0
"""What a model's outputs are called: by their place in the structure it answers."""

from __future__ import annotations

import re

from trtpack_runtime import treespec

from .capture import Captured


def output_name(path: str) -> str:
    """``logits`` of ``output.logits`` or ``output['logits']``; other paths stay whole."""
    named = re.fullmatch(r"output(?:\.(\w+)|\['([^']+)'\])", path)
    return path if named is None else named[1] or named[2]


def output_names(captured: Captured) -> dict[str, int]:
    """The tensor outputs by name, with their places among what the graph answers, in order."""
    paths = treespec.leaf_paths(treespec.encode(captured.out_spec), "output")
    return {
        output_name(path): place
        for path, place in zip(paths, captured.outputs, strict=True)
        if isinstance(place, int)
    }
