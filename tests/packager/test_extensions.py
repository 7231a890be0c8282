# SPDX-License-Identifier: Apache-2.0
"""Converters from other packages: by a module's name, by a file, by an entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from trtpack import converters
from trtpack.capture import capture
from trtpack.converters import extensions, registry
from trtpack.errors import ConfigError
from trtpack.lowering import lower
from trtpack.options import Options
from trtpack.planning import plan
from trtpack.target import find_target
from trtpack_runtime import reference

GOOD = """
import torch
from trtpack.converters import converter

@torch.library.custom_op("ours_{n}::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@twice.register_fake
def _(x):
    return torch.empty_like(x)

@converter("ours_{n}::twice")
def converted(ctx, x):
    return ctx.elementwise("SUM", x, x)
"""

IMPORT = "from trtpack.converters import converter\n"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    converters.load()
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(extensions, "_loaded", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_an_operator_of_ones_own_becomes_tensorrt(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(GOOD.format(n=1))
    for _ in range(2):
        converters.load_module("ours")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.ours_1.twice(x.relu())

    x = torch.randn(2, 3)
    lowered = lower(capture(Model(), (x,)))
    made = plan(lowered, find_target("rtx-4090"), Options(targets=("rtx-4090",)))
    (segment,) = made.converted.values()
    (answer,) = reference.evaluate(segment.network, segment.constants, [x])
    torch.testing.assert_close(answer, x.relu() * 2)


def test_a_file_that_is_the_models_too_may_be_imported_twice(tmp_path: Path) -> None:
    from trtpack.sources.factory import import_file

    path = tmp_path / "both.py"
    path.write_text(GOOD.format(n=2))
    converters.load_module("both.py")
    import_file(path)
    assert converters.find(torch.ops.ours_2.twice.default) is not None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "--converters bad.py: there is no file bad.py"),
        ("x = 1", "--converters bad.py: it registers no converter"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        (
            IMPORT + "@converter('aten::relu')\ndef mine(ctx, self): return self",
            "--converters bad.py: aten::relu has two converters",
        ),
        (
            IMPORT + 2 * "@converter('ours::a')\ndef one(ctx, x): return x\n",
            "--converters bad.py: ours::a has two converters",
        ),
        (
            IMPORT + "@converter('aten::lgamma')\ndef mine(ctx, x): return x",
            "aten::lgamma: the schema has no argument x",
        ),
    ],
)
def test_what_is_wrong_with_a_module_is_told(
    source: str | None, problem: str, tmp_path: Path
) -> None:
    if source is not None:
        (tmp_path / "bad.py").write_text(source)
    known = dict(registry._REGISTRY)
    with pytest.raises(ConfigError) as raised:
        converters.load_module("bad.py")
    assert problem in str(raised.value)
    assert raised.value.hint
    assert known == registry._REGISTRY


def test_a_module_that_is_not_installed_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no Python module no_such_module"):
        converters.load_module("no_such_module.part")


def test_installed_packages_name_their_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed.py").write_text(GOOD.format(n=3))
    sys.path.insert(0, str(tmp_path))
    points = [EntryPoint("a", "installed", extensions.GROUP)]
    monkeypatch.setattr(extensions, "entry_points", lambda group: points)
    extensions.load_installed()
    assert "ours_3::twice" in [c.name for c in converters.registered()]
    points.append(EntryPoint("broken", "not_there", extensions.GROUP))
    with pytest.raises(ConfigError, match=r"entry point 'broken' \(not_there\)"):
        extensions.load_installed()


PLACES = """
import torch
from trtpack.converters import converter

@torch.library.custom_op("ours_3::places", mutates_args=())
def places(x: torch.Tensor) -> torch.Tensor:
    return x.nonzero()

@places.register_fake
def _(x):
    return x.new_empty((torch.library.get_ctx().new_dynamic_size(), x.dim()), dtype=torch.int64)

@converter("ours_3::places")
def converted(ctx, x):
    found = ctx.add("non_zero", {"input": ctx.cast(x, "BOOL")}, indices_type="INT64")
    return ctx.permute(found, (1, 0))
"""


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("orin@jetpack-6.0", "TensorRT 8 cannot make room for such an engine"),
        ("rtx-4090", "for which TensorRT-RTX has no layer"),
    ],
)
def test_a_result_as_long_as_data_says_is_refused_where_tensorrt_fails_on_it(
    target: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "places.py").write_text(PLACES)
    converters.load_module("places")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.ours_3.places(x.relu())

    lowered = lower(capture(Model(), (torch.randn(2, 3),)))
    made = plan(lowered, find_target(target), Options(targets=(target,)))
    (reason,) = {
        found.reason for found in made.plan.refusals if found.op == "ours_3.places.default"
    }
    assert problem in reason
