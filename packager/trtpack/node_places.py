# SPDX-License-Identifier: Apache-2.0
"""Where in the user's model a graph node comes from."""

from __future__ import annotations

from torch import fx

from .user_code import user_line


def where(node: fx.Node) -> str:
    """The user's module path and source line of a node, as ``layer1.0.conv1 (model.py:12)``."""
    path, line = module_path(node), source_line(node)
    return f"{path} ({line})" if path and line else path or line or node.name


def module_path(node: fx.Node) -> str:
    """The full name of the module whose forward made the node; empty for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    return str(path).removeprefix("L['self']").removeprefix(".")


def source_line(node: fx.Node) -> str:
    """``file.py:12`` of the innermost user frame that made the node."""
    return user_line(node.meta.get("stack_trace") or "")
