# SPDX-License-Identifier: Apache-2.0
"""What passes share: the runner, and inserting nodes whose result is known at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from trtpack.capture import constant_of
from trtpack_runtime.errors import CompileError, TrtpackError

Recipes = dict[str, dict[str, Any]]
Pass = Callable[..., int]


def run_pass(rewrite: Pass, module: fx.GraphModule, recipes: Recipes) -> int:
    """Runs one pass, then removes dead code and checks the graph.

    A pass takes the graph, and the recipes if it derives constants. Answers its rewrites. The
    module runs them once it is recompiled.

    Raises:
        CompileError: the pass raised, or the graph is invalid after it.
    """
    takes_recipes = len(inspect.signature(rewrite).parameters) > 1
    try:
        count = rewrite(module.graph, recipes) if takes_recipes else rewrite(module.graph)
        module.graph.eliminate_dead_code()
        module.graph.lint()
    except TrtpackError:
        raise
    except Exception as error:
        raise CompileError(
            f"the pass {rewrite.__name__} failed: {type(error).__name__}: {error}",
            hint="please report this with the model",
        ) from error
    return count


def forward(node: fx.Node, source: fx.Node) -> int:
    """Lets all that read ``node`` read ``source``, which has its value; answers 1 if it did.

    It does not where the graph would answer one of its inputs or constants themselves: a caller
    never gets its own tensor back.
    """
    if source.op != "call_function" and any(user.op == "output" for user in node.users):
        return 0
    node.replace_all_uses_with(source)
    return 1


def add_constant(graph: fx.Graph, name: str, value: torch.Tensor) -> str:
    """Attaches a tensor to the graph's module under ``name`` and answers the name used.

    A dot-free suffix makes it unique.
    """
    module = graph.owning_module
    assert module is not None
    *parents, leaf = name.split(".")
    owner: torch.nn.Module = module
    for part in parents:
        if not hasattr(owner, part):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    candidate, n = leaf, 1
    while hasattr(owner, candidate):
        n += 1
        candidate = f"{leaf}_{n}"
    # register_buffer would refuse nothing here, and keeps the tensor out of the parameters
    owner.register_buffer(candidate, value, persistent=False)
    return ".".join([*parents, candidate])


def insert(graph: fx.Graph, like: fx.Node, op: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Adds ``op(*args)`` at the insertion point, with its fake result and ``like``'s origin."""
    node = graph.call_function(op, args, kwargs)
    node.meta = {k: v for k, v in like.meta.items() if k in ("nn_module_stack", "stack_trace")}
    set_value(node)
    return node


def set_value(node: fx.Node) -> None:
    """Computes ``meta["val"]`` of a call from its arguments' values."""
    mode = _fake_mode(node)
    with mode:
        arguments = fx.map_arg((node.args, dict(node.kwargs)), lambda n: _fake(n, mode))
        assert callable(node.target)
        node.meta["val"] = node.target(*arguments[0], **arguments[1])


def _fake(node: fx.Node, mode: FakeTensorMode) -> Any:
    value = node.meta.get("val")
    if value is None:
        constant = constant_of(node)
        assert constant is not None
        value = node.meta["val"] = mode.from_tensor(constant)
    return value


def _fake_mode(node: fx.Node) -> FakeTensorMode:
    for other in node.graph.nodes:
        value = other.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            return value.fake_mode
    return FakeTensorMode()
