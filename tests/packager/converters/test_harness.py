# SPDX-License-Identifier: Apache-2.0
"""The harness notices what it is there to notice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.packager.converters import engine
from tests.packager.converters.harness import Case, Checker, converted, dynamic, f32, refusal
from trtpack.converters import load, registry
from trtpack.converters.context import Context
from trtpack_runtime.errors import EngineBuildError, InternalError
from trtpack_runtime.network import Tensor
from trtpack_tools.infer.rules import RULES

aten = torch.ops.aten


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts another function in place of a converter's."""
    load()

    def put(op: Any, function: Callable[..., Any]) -> None:
        broken = dataclasses.replace(registry._REGISTRY[op.name()], function=function)
        monkeypatch.setitem(registry._REGISTRY, op.name(), broken)

    return put


def test_wrong_numbers(replace: Callable[..., None], check: Checker) -> None:
    replace(aten.sin.default, lambda ctx, self: ctx.unary("COS", self))
    with pytest.raises(AssertionError, match="not close"):
        check(Case(aten.sin.default, f32(3)))


def test_a_size_frozen_at_its_usual_value(replace: Callable[..., None], check: Checker) -> None:
    def frozen(ctx: Context, self: Tensor) -> Tensor:
        padded = ctx.reshape(self, (1, *self.shape))
        return ctx.reshape(ctx.slice(padded, (0, 0, 0), (1, 4, 3)), (4, 3))

    replace(aten.sin.default, frozen)
    with pytest.raises((AssertionError, InternalError)):
        check(Case(aten.sin.default, dynamic(f32(4, 3), {0: (1, 4, 8)})))


def test_a_layer_that_the_engine_builder_refuses(
    replace: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(aten.sin.default, lambda ctx, self: ctx.softmax(self, 0))
    monkeypatch.setitem(RULES, "softmax", lambda input, axes: [(input.dtype, input.shape)])
    with pytest.raises(EngineBuildError, match="at least 2 dimensions"):
        engine.build(converted(Case(aten.sin.default, f32(1))))


def test_an_operator_without_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.delitem(registry._REGISTRY, "aten::sin")
    assert refusal(aten.sin.default, f32(3)) == "no converter"
