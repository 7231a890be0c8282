# SPDX-License-Identifier: Apache-2.0
"""A sample's call as the small functional graph that capture would make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.export._trace import _ignore_backend_decomps
from torch.export.exported_program import (
    _override_composite_implicit_decomp,
    _special_op_to_preserve_cia,
    _split_decomp_table_to_cia_and_python_decomp,
)
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    ShapeEnv,
    StatelessSymbolicContext,
)

from tests.sweep.samples import Sample
from trtpack.capture import Captured, attribute, decompositions

T = torch.Tensor


@contextmanager
def tracing() -> Iterator[Callable[..., Captured]]:
    """Answers ``trace``; entering takes a while, as the operators kept whole are made so."""
    whole, table = _tables()
    with torch.no_grad(), _ignore_backend_decomps(), _override_composite_implicit_decomp(whole):

        def trace(sample: Sample, *, weights: bool = False, dynamic: bool = False) -> Captured:
            """The graph; with ``weights`` all tensors but the first are parameters of it.

            With ``dynamic`` the sizes of inputs are symbols, where they are more than 1.
            """
            return _trace(sample, table, weights, dynamic)

        yield trace


@cache
def _tables() -> tuple[Any, Any]:
    """Composite operators that are kept whole, and the decompositions of all others.

    The other composites fall apart of themselves.
    """
    composite, table = _split_decomp_table_to_cia_and_python_decomp(decompositions())
    keeps = _special_op_to_preserve_cia
    return {op: rule for op, rule in composite.items() if rule is keeps}, table


def _trace(sample: Sample, table: Any, weights: bool, dynamic: bool) -> Captured:
    mode = FakeTensorMode(shape_env=ShapeEnv())
    fakes = [_fake(t, mode, dynamic and not (weights and i)) for i, t in enumerate(sample.tensors)]
    with mode, enable_python_dispatcher():
        module = make_fx(_functional(sample.call), decomposition_table=table)(fakes)
    placeholders = module.graph.find_nodes(op="placeholder")
    for node, fake in zip(placeholders, fakes, strict=True):
        node.meta["val"] = fake  # it may have been changed in place
    for node in module.graph.find_nodes(op="get_attr"):
        node.meta.setdefault("val", mode.from_tensor(attribute(module, str(node.target))))
    names = _as_weights(module, placeholders[1:], sample.tensors[1:]) if weights else ()
    module.graph.eliminate_dead_code()
    module.recompile()
    module.meta["weights"] = frozenset(names)
    inputs = tuple(n.name for n in module.graph.find_nodes(op="placeholder"))
    return Captured(module, inputs, (), (), names, (), None, None)


def _fake(tensor: T, mode: FakeTensorMode, dynamic: bool) -> T:
    if not dynamic:
        return mode.from_tensor(tensor, static_shapes=True)
    sizes = [DimDynamic.DUCK if size > 1 else DimDynamic.STATIC for size in tensor.shape]
    return mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


def _functional(call: Callable[[Sequence[T]], list[T]]) -> Callable[[Sequence[T]], list[T]]:
    """``call`` without changes in place, as ``torch.export`` makes a model's graph."""

    def functional(tensors: Sequence[T]) -> list[T]:
        with FunctionalTensorMode():
            answers = call([FunctionalTensor.to_functional(tensor) for tensor in tensors])
        return [_plain(answer) for answer in answers]

    return functional


def _plain(answer: T) -> T:
    if not isinstance(answer, FunctionalTensor):
        return answer
    torch._sync(answer)
    plain: T = torch._from_functional_tensor(answer.elem)
    return plain


def _as_weights(
    module: fx.GraphModule, placeholders: Sequence[fx.Node], tensors: Sequence[T]
) -> tuple[str, ...]:
    names = tuple(f"weight{i}" for i in range(len(tensors)))
    for name, node, tensor in zip(names, placeholders, tensors, strict=True):
        module.register_buffer(name, tensor)
        with module.graph.inserting_before(node):
            made = module.graph.get_attr(name)
        made.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
    return names
