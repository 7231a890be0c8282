# SPDX-License-Identifier: Apache-2.0
"""The converter library as a whole: one converter an operator, short, documented by its schema."""

from __future__ import annotations

import inspect
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trtpack.converters import find, load, registered, registry
from trtpack.converters.context import Context
from trtpack.converters.registry import Converter, converter
from trtpack.sources.torchvision_ops import import_torchvision
from trtpack_runtime.errors import ConfigError
from trtpack_runtime.network import Tensor

aten = torch.ops.aten
import_torchvision()  # whose operators some converters are for
load()
LIBRARY = [c for c in registered() if c.function.__module__.startswith("trtpack.")]
FUNCTIONS = {c.function: c for c in LIBRARY}


def test_a_second_converter_of_an_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match="has two converters"):
        converter(aten.relu.default)(lambda ctx, self: self)


def test_a_parameter_that_no_schema_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="the schema has no argument inplace"):
        converter(aten.special_erfcx.default)(lambda ctx, self, inplace=False: self)
    with pytest.raises(ValueError, match="the converter lacks the argument self"):
        converter(aten.special_erfcx.default)(lambda ctx: None)


def test_an_operator_is_registered_by_name_before_its_library_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    name = "trtpack_test::later"

    @converter(f"{name}.default")
    def later(ctx: Context, x: Tensor) -> Tensor:
        return x

    @converter("trtpack_test::wrong.overload")
    def wrong(ctx: Context, x: Tensor) -> Tensor:
        return x

    assert [c.op for c in registered() if c.name == name] == [None]
    library = torch.library.Library("trtpack_test", "DEF")
    library.define("later(Tensor x) -> Tensor")
    library.define("wrong.overload(Tensor y) -> Tensor")
    found = find(torch.ops.trtpack_test.later.default)
    assert found is not None
    assert (found.name, found.function) == (name, later)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"wrong.overload: the schema has no argument x"):
            find(torch.ops.trtpack_test.wrong.overload)


def test_a_name_is_one_of_an_operator() -> None:
    with pytest.raises(ValueError, match=r"'torchvision.nms' is no operator name"):
        converter("torchvision.nms")
    with pytest.raises(ValueError, match=r"aten::relu has two converters"):
        converter("aten::relu.default")(lambda ctx, self: self)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__qualname__)
def test_the_docstring_begins_with_a_schema(function: object) -> None:
    schemas = [_schema(c) for c in LIBRARY if c.function is function]
    text = _without_defaults(inspect.getdoc(function) or "")
    assert text.startswith(tuple(schemas)), f"wanted one of {schemas}, got {text}"


def test_converters_are_short() -> None:
    lengths = sorted(_code_lines(function) for function in FUNCTIONS)
    print(f"{len(lengths)} converters of {len(LIBRARY)} operators, lines {lengths}")
    assert statistics.median(lengths) <= 12


def test_no_family_is_too_long() -> None:
    for family in {inspect.getsourcefile(function) for function in FUNCTIONS}:
        assert family is not None
        assert len(Path(family).read_text(encoding="utf-8").splitlines()) <= 400, family


def _schema(entry: Converter) -> str:
    return _without_defaults(re.sub(r"^\w+::", "", str(entry.op._schema)))


def _without_defaults(text: str) -> str:
    """One line; how a default is printed differs between releases of torch."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r'=(\[[^\]]*\]|"[^"]*"|[^,\s)]+)', "", text)


def _code_lines(function: Callable[..., object]) -> int:
    """Lines of the body that are neither blank, nor comment, nor docstring."""
    source = inspect.getsource(function)
    body = re.sub(r'""".*?"""', "", source[source.index(":\n") :], count=1, flags=re.DOTALL)
    return sum(1 for line in body.splitlines() if line.strip(" :") and "#" not in line[:1])
